"""Random lives of the ledger whose every chain event and every report goes through the real contracts."""

from __future__ import annotations

import pytest

from tests.chain import running_chain
from tests.ledger.driver import PEOPLE, Driver
from tests.ledger.world import World, key
from tests.update.contracts_beside import ContractsBeside

STEPS = 220


@pytest.mark.parametrize("seed", range(2))
def test_random_epochs_settle_alike_in_python_and_solidity(seed: int) -> None:
    with running_chain(list(World.committee(1, 4).members)) as chain:
        domain = chain.client(chain.owner).domain
        beside = ContractsBeside(chain, map(key, PEOPLE), [key(f"aggregator{place}") for place in range(7)])
        life = Driver(seed, beside, domain)
        for _ in range(STEPS):
            life.step()
        assert beside.epoch >= 3, "a life without settlements shows nothing"
        assert life.reasons["won"]
        beside.claim_everything()
