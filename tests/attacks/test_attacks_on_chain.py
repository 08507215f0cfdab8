"""Each attack once more with the real contracts: stakes and escrows are theirs, and they pay every report.

What an account has at the end, in tokens and stakes on the chain, is what the ledger's receipts said, to the
wei; so no attack finds money between the two.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from protocol.roles import Role
from tests.attacks.strategies import STRATEGIES, Strategy, play_out
from tests.chain import Chain, running_chain
from tests.ledger.chained_world import ChainedWorld
from tests.ledger.world import World, key
from tests.update.contracts_beside import FUNDS_WEI, ContractsBeside

MEMBERS = 4


@pytest.fixture(scope="module")
def deployed() -> Iterator[Chain]:
    with running_chain(list(World.committee(1, MEMBERS).members)) as chain:
        yield chain


@pytest.fixture
def chain(deployed: Chain) -> Iterator[Chain]:
    before = deployed.rpc("evm_snapshot", [])
    yield deployed
    assert deployed.rpc("evm_revert", [before])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
def test_the_contracts_pay_what_the_ledger_says(strategy: Strategy, chain: Chain) -> None:
    names = sorted({agent.name for agent, _ in strategy.people(0)} | set(strategy.accounts))
    aggregators = [key(f"aggregator{place}") for place in range(MEMBERS)]
    contracts = ContractsBeside(chain, map(key, names), aggregators)
    world = ChainedWorld.new(MEMBERS, chain.client(chain.owner).domain)
    world.chain = contracts
    market = play_out(strategy, 0, 1, world)
    while world.state.report is not None or world.state.penalties:
        market.settle()
    contracts.claim_everything()
    for name in names:
        account = key(name).address
        client = chain.client(key(name))
        staked = sum(sum(client.stake_of(account, role)) for role in Role)
        gained = client.balance_of(account) + staked - FUNDS_WEI
        assert gained == market.money[account] + market.costs[account], name
