"""The DAO on a real chain: nothing is changed but by a vote that passed, after the timelock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from web3 import Web3

from protocol.chain.dao import Dao, Proposal
from protocol.chain.deployment import Governance
from protocol.crypto import Key
from protocol.errors import ChainError
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from tests.chain import Chain, running_chain

ALICE, BOB, MALLORY = (Key(bytes([number]) * 32) for number in (0x51, 0x52, 0x53))
GOVERNANCE = Governance(
    voting_delay_s=10,
    voting_period_s=100,
    late_quorum_s=50,
    timelock_s=1_000,
    proposal_threshold_wei=100 * TOKEN_WEI,
    quorum_percent=4,
)
MUCH, ENOUGH, LITTLE = 60_000_000 * TOKEN_WEI, 50_000_000 * TOKEN_WEI, 99 * TOKEN_WEI


@pytest.fixture(scope="module")
def governed() -> Iterator[Chain]:
    with running_chain(governance=GOVERNANCE) as chain:
        yield chain


@pytest.fixture
def chain(governed: Chain) -> Iterator[Chain]:
    """The same chain for each test, as it was deployed."""
    snapshot = governed.rpc("evm_snapshot", [])
    for key, amount in ((ALICE, MUCH), (BOB, ENOUGH), (MALLORY, LITTLE)):
        Dao(governed.fund(key, amount)).delegate(key.address)
    # A proposer's votes are those of the second before.
    passes(governed, 2)
    yield governed
    governed.rpc("evm_revert", [snapshot])


def dao_of(chain: Chain, key: Key) -> Dao:
    return Dao(chain.client(key))


def passes(chain: Chain, seconds: int) -> None:
    chain.rpc("evm_increaseTime", [seconds])
    chain.mine()


def decided(chain: Chain, dao: Dao, proposal: Proposal) -> None:
    """Alice votes for it, and the vote ends."""
    passes(chain, GOVERNANCE.voting_delay_s + 1)
    dao.vote(dao.refreshed(proposal), "for")
    passes(chain, GOVERNANCE.voting_period_s + 1)


def test_a_vote_changes_a_parameter_after_the_timelock_and_not_before(chain: Chain) -> None:
    dao = dao_of(chain, ALICE)
    before = chain.client(ALICE).parameter("update_s")
    proposal = dao.propose([dao.set_parameter("update_s", 77)], "shorter cycles")
    assert (proposal.state, proposal.says) == ("pending", ("Parameters.set(update_s, 77)",))
    with pytest.raises(ChainError, match="votes are taken while one is active"):
        dao.vote(proposal, "for")
    decided(chain, dao, proposal)
    dao.execute(dao.refreshed(proposal))
    assert dao.refreshed(proposal).state == "queued"
    assert chain.client(ALICE).parameter("update_s") == before
    with pytest.raises(ChainError, match="the timelock holds it for"):
        dao.execute(dao.refreshed(proposal))
    passes(chain, GOVERNANCE.timelock_s)
    dao.execute(dao.refreshed(proposal))
    assert chain.client(ALICE).parameter("update_s") == 77
    with pytest.raises(ChainError, match="is executed"):
        dao.execute(dao.refreshed(proposal))


def test_one_proposal_may_do_several_things_and_all_or_none_happens(chain: Chain) -> None:
    dao, client = dao_of(chain, ALICE), chain.client(ALICE)
    newcomers = [Key(bytes([number]) * 32).address for number in range(0x61, 0x68)]
    actions = [
        dao.appoint(newcomers),
        dao.set_guardian(BOB.address),
        dao.set_parameter("tax_bps", 123),
    ]
    proposal = dao.propose(actions, "a new committee")
    assert proposal.says[0].startswith("Committee.change([0x")
    decided(chain, dao, proposal)
    dao.execute(dao.refreshed(proposal))
    passes(chain, GOVERNANCE.timelock_s)
    dao.execute(dao.refreshed(proposal))
    assert client.members() == tuple(sorted(newcomers)) and client.committee_epoch() == 2
    assert client.parameter("tax_bps") == 123
    assert client.settlement.functions.guardian().call() == Web3.to_checksum_address(BOB.address)


def test_a_member_is_replaced_by_one_that_can_take_part_and_one_at_a_time(chain: Chain) -> None:
    dao, client = dao_of(chain, ALICE), chain.client(ALICE)
    before = client.members()
    threshold = client.committee.functions.threshold().call()
    newcomer = Key(b"\x71" * 32)
    with pytest.raises(ChainError, match="is no member"):
        dao.replace_member(newcomer.address, before[0])
    with pytest.raises(ChainError, match="is one already"):
        dao.replace_member(before[0], before[1])
    with pytest.raises(ChainError, match="could not take part"):
        dao.replace_member(before[0], newcomer.address)
    alice_wei = client.parameter("min_stake_aggregator_wei")
    client.send(
        client.token.functions.transfer(Web3.to_checksum_address(newcomer.address), alice_wei), "funding"
    )
    chain.client(newcomer).register(
        Role.AGGREGATOR, alice_wei, "tcp://127.0.0.1:1,http://127.0.0.1:2", b"k" * 32
    )
    proposal = dao.propose([dao.replace_member(before[0], newcomer.address)], "a lost key")
    with pytest.raises(ChainError, match="changes the committee and is pending: wait"):
        dao.replace_member(before[1], newcomer.address)
    decided(chain, dao, proposal)
    dao.execute(dao.refreshed(proposal))
    passes(chain, GOVERNANCE.timelock_s)
    dao.execute(dao.refreshed(proposal))
    assert client.members() == tuple(sorted([*before[1:], newcomer.address]))
    assert client.committee.functions.threshold().call() == threshold


def test_who_holds_the_votes_but_lost_or_missed_the_quorum_changes_nothing(chain: Chain) -> None:
    dao = dao_of(chain, ALICE)
    lost = dao.propose([dao.set_parameter("update_s", 78)], "no")
    missed = dao.propose([dao.set_parameter("update_s", 79)], "nobody comes")
    passes(chain, GOVERNANCE.voting_delay_s + 1)
    dao.vote(dao.refreshed(lost), "against")
    dao_of(chain, BOB).vote(dao.refreshed(lost), "for")
    dao_of(chain, MALLORY).vote(dao.refreshed(missed), "for")
    passes(chain, GOVERNANCE.voting_period_s + GOVERNANCE.late_quorum_s + 1)
    for proposal in (dao.refreshed(lost), dao.refreshed(missed)):
        assert proposal.state == "defeated"
        with pytest.raises(ChainError, match="is defeated"):
            dao.execute(proposal)


def test_proposals_are_read_from_the_chain_the_latest_first(chain: Chain) -> None:
    dao = dao_of(chain, ALICE)
    made = [dao.propose([dao.set_parameter("update_s", value)], f"because {value}") for value in (5, 6, 7)]
    found = list(dao_of(chain, BOB).proposals())
    assert found == made[::-1]
    assert [each.description for each in found] == ["because 7", "because 6", "because 5"]
    assert dao.find(lambda number: number == made[1].number) == made[1]
    assert dao.find(lambda number: False) is None


def test_votes_that_come_after_the_proposal_do_not_count(chain: Chain) -> None:
    """What is borrowed for a vote is too late: a flash loan decides nothing."""
    dao, late = dao_of(chain, ALICE), Key(b"\x54" * 32)
    proposal = dao.propose([dao.set_parameter("update_s", 80)], "borrowed votes")
    passes(chain, GOVERNANCE.voting_delay_s + 1)
    Dao(chain.fund(late, 500_000_000 * TOKEN_WEI)).delegate(late.address)
    dao_of(chain, late).vote(dao.refreshed(proposal), "for")
    assert dao.refreshed(proposal).votes_for == 0
    dao_of(chain, BOB).vote(dao.refreshed(proposal), "against")
    passes(chain, GOVERNANCE.voting_period_s + GOVERNANCE.late_quorum_s + 1)
    assert dao.refreshed(proposal).state == "defeated"


def test_few_votes_propose_nothing_and_nobody_goes_around_the_vote(chain: Chain) -> None:
    mallory = dao_of(chain, MALLORY)
    with pytest.raises(ChainError, match="GovernorInsufficientProposerVotes"):
        mallory.propose([mallory.set_parameter("update_s", 81)], "mine")
    client = chain.client(MALLORY)
    for call in (
        client.parameters.functions.set(b"update_s".ljust(32, b"\0"), 81),
        client.committee.functions.change([Web3.to_checksum_address(MALLORY.address)], 1),
        client.settlement.functions.setGuardian(Web3.to_checksum_address(MALLORY.address)),
        client.settlement.functions.unpause(),
    ):
        with pytest.raises(ChainError, match="OwnableUnauthorizedAccount"):
            client.send(call, "taking over")
    with pytest.raises(ChainError, match="Settlement__NotGuardian"):
        client.send(client.settlement.functions.pause(), "stopping payouts")
    # Neither does whoever deployed it.
    deployer = chain.client(chain.owner)
    with pytest.raises(ChainError, match="OwnableUnauthorizedAccount"):
        deployer.send(deployer.parameters.functions.set(b"update_s".ljust(32, b"\0"), 81), "taking over")


def test_what_cannot_be_done_is_refused_before_it_is_proposed(chain: Chain) -> None:
    dao = dao_of(chain, ALICE)
    with pytest.raises(ChainError, match="no parameter is called"):
        dao.set_parameter("no_such_parameter", 1)
    with pytest.raises(ChainError, match="must lie in"):
        dao.set_parameter("accuser_bps", 5_001)
    with pytest.raises(ChainError, match="threshold"):
        dao.appoint([ALICE.address], 2)
    with pytest.raises(ChainError, match="does nothing"):
        dao.propose([], "nothing")


def test_a_network_without_a_dao_says_so() -> None:
    with running_chain() as chain, pytest.raises(ChainError, match="one account owns"):
        Dao(chain.client(ALICE))
