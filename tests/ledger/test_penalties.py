"""Evidence at the ledger: who loses stake for contradicting itself, who gets it, that every wei adds up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.ledger import penalties
from aggregator.ledger.events import PenaltyImposed
from aggregator.ledger.state import PendingReport
from protocol.certificate import SignedVote
from protocol.crypto import keccak256
from protocol.evidence import COMMIT, NEW_VIEW, PRE_PREPARE, PREPARE, evidence_fields
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import Evidence
from protocol.typed_data import sign
from tests.ledger.chain_model import ChainModel
from tests.ledger.world import DOMAIN, STAKE, TREASURY, World, key, who

LIAR, ACCUSER = "aggregator0", "verifier0"


@pytest.fixture
def world() -> World:
    """Four staked aggregators and one verifier."""
    return staked_world()


def staked_world() -> World:
    world = World.new()
    for number in range(4):
        world.stake(f"aggregator{number}", Role.AGGREGATOR)
    world.stake(ACCUSER, Role.VERIFIER)
    return world


def votes(
    name: str = LIAR, kind: int = PREPARE, view: int = 3, sequence: int = 7, a: bytes = b"a", b: bytes = b"b"
) -> dict[str, Any]:
    """The fields of evidence of two votes by a named member."""
    pair = []
    for story in (a, b):
        vote = SignedVote(kind=kind, view=view, sequence=sequence, digest=keccak256(story))
        pair.append((vote, sign(DOMAIN, vote, key(name))))
    return evidence_fields(pair[0], pair[1])


def test_who_contradicts_itself_loses_half_its_stake_and_the_accuser_gets_less_than_half_of_that(
    world: World,
) -> None:
    world.accept(ACCUSER, Evidence, **votes())
    (penalty,) = pending(world).penalties
    lost = STAKE // 2
    assert [(item.account, item.role, item.amount_wei) for item in penalty.receipts] == [
        (who(LIAR), "aggregator", -lost),
        (who(ACCUSER), "accuser", lost * 4 // 10),
        (TREASURY, "treasury", lost - lost * 4 // 10),
    ]
    assert all(item.refs[0] == penalty.id and len(item.refs) == 3 for item in penalty.receipts)
    assert world.state.nodes[who(LIAR)].stake(Role.AGGREGATOR).standing == STAKE - lost
    assert [event.penalty for event in world.events if isinstance(event, PenaltyImposed)] == [penalty]


def test_a_penalty_settles_without_any_order_and_the_contracts_would_take_the_report(world: World) -> None:
    chain = ChainModel()
    chain.stake(who(LIAR), Role.AGGREGATOR, STAKE)
    world.accept(ACCUSER, Evidence, **votes())
    world.wait(0)
    report = pending(world)
    assert report.orders == () and report.penalties and not world.state.penalties
    assert report.slashes == ((who(LIAR), Role.AGGREGATOR, STAKE // 2),)
    chain.apply(report)
    chain.assert_solvent()
    world.settle()
    stake = world.state.nodes[who(LIAR)].stake(Role.AGGREGATOR)
    assert (stake.bonded, stake.slashed) == (STAKE - STAKE // 2, 0)
    assert stake.bonded == chain.bonded[who(LIAR), Role.AGGREGATOR]
    assert report.penalties[0].id in world.state.receipt_roots


def pending(world: World) -> PendingReport:
    """The report under way; there must be one."""
    assert world.state.report is not None
    return world.state.report


def test_orders_and_penalties_share_a_report_whose_sums_are_exact(world: World) -> None:
    world.accept(ACCUSER, Evidence, **votes())  # the first cycle is over at once
    world.settle()
    world.accept(ACCUSER, Evidence, **votes("aggregator1"))
    oid = world.place(reward=10 * TOKEN_WEI + 1)
    world.wait_out(oid)
    world.wait(world.state.parameters["update_s"])
    report = pending(world)
    assert report.orders == (oid,) and len(report.penalties) == 1
    escrow = world.entry(oid).order.reward + world.entry(oid).order.deposit
    assert sum(wei for _, wei in report.credits) == escrow + sum(wei for *_, wei in report.slashes)


def test_a_reclaimed_order_leaves_the_penalty_in_the_report(world: World) -> None:
    oid = world.place(kind="alchemy")
    world.settle()
    world.accept(ACCUSER, Evidence, **votes())
    oid = world.place(kind="alchemy")
    world.wait(world.state.parameters["update_s"])
    assert pending(world).orders == (oid,)
    world.reclaim(oid)
    assert pending(world).orders == () and pending(world).penalties


@pytest.mark.parametrize("kind", [PRE_PREPARE, PREPARE, COMMIT, NEW_VIEW])
def test_each_offence_is_punished_once_whoever_reports_it_and_whatever_third_story_is_found(
    world: World, kind: int
) -> None:
    world.accept(ACCUSER, Evidence, **votes(kind=kind))
    for name, fields in (
        (ACCUSER, votes(kind=kind)),
        ("aggregator1", votes(kind=kind)),
        ("aggregator1", votes(kind=kind, b=b"c")),
    ):
        assert "punished" in world.refuse("AlreadyDone", name, Evidence, **fields)
    world.settle()
    world.refuse("AlreadyDone", ACCUSER, Evidence, **votes(kind=kind))
    world.accept(ACCUSER, Evidence, **votes(kind=kind, sequence=8))
    world.accept(ACCUSER, Evidence, **votes("aggregator1", kind=kind))


def test_stake_on_its_way_out_is_slashed_as_well(world: World) -> None:
    world.unstake(LIAR, Role.AGGREGATOR, STAKE)
    world.accept(ACCUSER, Evidence, **votes())
    world.wait(world.state.parameters["unbonding_s"])
    assert (
        pending(world).slashes == ((who(LIAR), Role.AGGREGATOR, STAKE // 2),) and not pending(world).releases
    )
    world.settle()
    world.wait(world.state.parameters["update_s"])
    assert pending(world).releases == ((who(LIAR), Role.AGGREGATOR, STAKE - STAKE // 2),)


def test_what_is_no_evidence_is_refused_with_the_reason(world: World) -> None:
    good = votes()
    for kind in (4, 5):
        world.refuse("NotProven", ACCUSER, Evidence, **votes(kind=kind))
    same = good | {"second_digest": good["first_digest"], "second_signature": good["first_signature"]}
    assert "different digests" in world.refuse("NotProven", ACCUSER, Evidence, **same)
    swapped = {
        **good,
        "first_digest": good["second_digest"], "first_signature": good["second_signature"],
        "second_digest": good["first_digest"], "second_signature": good["first_signature"],
    }  # fmt: skip
    world.refuse("NotProven", ACCUSER, Evidence, **swapped)
    mixed = good | {"second_signature": votes("aggregator1")["second_signature"]}
    assert "two accounts" in world.refuse("NotProven", ACCUSER, Evidence, **mixed)
    world.refuse("NotProven", ACCUSER, Evidence, **good | {"view": 4})
    world.refuse("NotProven", ACCUSER, Evidence, **good | {"first_signature": bytes(65)})
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    signature = good["first_signature"]
    high = (order - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")
    malleated = signature[:32] + high + bytes([55 - signature[64]])
    assert "upper half" in world.refuse(
        "NotProven", ACCUSER, Evidence, **good | {"first_signature": malleated}
    )


def test_who_may_accuse_and_who_can_be_punished(world: World) -> None:
    world.refuse("NoStanding", "outsider0", Evidence, **votes())
    world.refuse("NotAllowed", LIAR, Evidence, **votes())
    world.refuse("NothingToSlash", ACCUSER, Evidence, **votes("outsider0"))
    world.stake("provider0", Role.PROVIDER)
    world.refuse("NothingToSlash", ACCUSER, Evidence, **votes("provider0"))
    world.accept("provider0", Evidence, **votes())


def test_a_cycle_takes_in_a_bounded_number_of_penalties_and_the_rest_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.accept(ACCUSER, Evidence, **votes(sequence=1))
    monkeypatch.setattr("aggregator.ledger.settlement.MAX_REPORT_PENALTIES", 2)
    for sequence in range(2, 5):
        world.accept(ACCUSER, Evidence, **votes(sequence=sequence))
    world.settle()
    world.wait(world.state.parameters["update_s"])
    assert len(pending(world).penalties) == 2 and len(world.state.penalties) == 1
    monkeypatch.setattr(penalties, "MAX_WAITING_PENALTIES", 1)
    world.refuse("QueueFull", ACCUSER, Evidence, **votes(sequence=9))


@settings(max_examples=40)
@given(
    stakes=st.lists(st.integers(1, 10**24), min_size=4, max_size=4),
    bps=st.integers(100, 10_000),
    accuser_bps=st.integers(0, 5000),
    offences=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([1, 2, 3, 6]), st.integers(0, 2)),
        max_size=12,
    ),
)
def test_no_wei_is_made_or_lost_by_any_series_of_penalties(
    stakes: list[int], bps: int, accuser_bps: int, offences: list[tuple[int, int, int, int]]
) -> None:
    chain, world = ChainModel(), World.new()
    for number, amount in enumerate(stakes):
        chain.stake(who(f"aggregator{number}"), Role.AGGREGATOR, amount)
    world.block(events=list(chain.events))
    chain.events.clear()
    world.set_parameter("equivocation_slash_bps", bps)
    world.set_parameter("accuser_bps", accuser_bps)
    for accused, accuser, kind, sequence in offences:
        fields = votes(f"aggregator{accused}", kind=kind, sequence=sequence)
        world.send(f"aggregator{accuser}", Evidence, **fields)
        if world.state.report is not None:
            chain.apply(world.state.report)
            chain.assert_solvent()
            world.block(events=[chain.events.popleft()])
            world.wait(world.state.parameters["update_s"])
    while world.state.report is not None:
        chain.apply(world.state.report)
        world.block(events=[chain.events.popleft()])
        world.wait(world.state.parameters["update_s"])
    chain.assert_solvent()
    for number, amount in enumerate(stakes):
        account = who(f"aggregator{number}")
        stake = world.state.nodes[account].stake(Role.AGGREGATOR)
        assert stake.slashed == 0 and stake.bonded == chain.bonded[account, Role.AGGREGATOR] <= amount
    credited = sum(chain.credited.values())
    assert credited == sum(stakes) - chain.bonded.total()
