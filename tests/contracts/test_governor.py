"""What a DAO cannot be deployed with; how it decides is tested in tests/protocol/chain/test_dao.py."""

from __future__ import annotations

from typing import Any

import ape
import pytest
from contract_network import Network

from protocol.chain.deployment import Governance

GOVERNANCE = Governance()


def deploy(network: Network, deployer: Any, voting_delay_s: int) -> Any:
    """A governor of the network's token."""
    periods = (
        voting_delay_s,
        GOVERNANCE.voting_period_s,
        GOVERNANCE.late_quorum_s,
        GOVERNANCE.timelock_s,
    )
    return deployer.deploy(
        ape.project.TrainingGovernor,
        network.token,
        periods,
        GOVERNANCE.proposal_threshold_wei,
        GOVERNANCE.quorum_percent,
    )


@pytest.mark.parametrize("voting_delay_s", [1, GOVERNANCE.voting_delay_s])
def test_votes_count_after_the_proposal(network: Network, deployer: Any, voting_delay_s: int) -> None:
    assert deploy(network, deployer, voting_delay_s).votingDelay() == voting_delay_s


def test_votes_borrowed_for_a_transaction_cannot_be_allowed(network: Network, deployer: Any) -> None:
    governor = deploy(network, deployer, 1)
    with ape.reverts(governor.TrainingGovernor__DelayZero):
        deploy(network, deployer, 0)
