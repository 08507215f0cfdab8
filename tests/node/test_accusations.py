"""A member that lies to the others loses stake, and one that noticed is paid: real nodes, start to end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from aggregator.ledger.root import state_root
from aggregator.ledger.state import State, genesis
from aggregator.member.accusations import AGAIN_MS, MAX_ACCUSATIONS, MAX_OFFERED, Accusations
from aggregator.pbft.messages import LinkMessage, PrePrepare, Vote, VoteKind, cast
from protocol.chain_events import OrderPlaced, Settled
from protocol.crypto import keccak256
from protocol.roles import Role
from protocol.transactions import decode_transaction, order_id
from tests.ledger.soundness import assert_sound
from tests.ledger.world import DOMAIN, STAKE, TREASURY, World, key, who
from tests.node.committee import NAMES, Committee, running

LIAR = 0
"""The first primary."""


def two_stories(sender: int, to: int, message: LinkMessage) -> list[LinkMessage]:
    """The primary shows the last member other batches than the rest."""
    if sender != LIAR or to != 3 or not isinstance(message, PrePrepare):
        return [message]
    vote, outline = message.vote, message.outline
    outline = msgspec.structs.replace(outline, timestamp_ms=outline.timestamp_ms + 1)
    other = cast(
        DOMAIN, key(NAMES[LIAR]), LIAR, VoteKind.PRE_PREPARE, vote.view, vote.sequence, outline.digest()
    )
    return [PrePrepare(other, outline)]


def test_an_equivocating_primary_is_slashed_and_its_accuser_paid(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as committee:
            honest = committee.nodes[1:]
            committee.bend = two_stories
            place_order(committee)
            await committee.until(lambda: all(node.state.punished for node in honest))
            committee.bend = lambda sender, to, message: [message]
            for node in honest:
                assert_sound(node.state)
            await committee.until(lambda: all(node.state.report for node in honest))
            report = honest[0].state.report
            assert report is not None
            (penalty,) = report.penalties[:1]
            debit, paid, rest = penalty.receipts
            assert debit.account == who(NAMES[LIAR]) and debit.amount_wei == -(STAKE // 2)
            assert paid.account in {who(name) for name in NAMES[1:]} and paid.role == "accuser"
            assert paid.amount_wei * 2 <= STAKE // 2 and rest.account == TREASURY
            assert not report.orders, "the order still runs: the report consists of penalties"
            settled = Settled(epoch=report.epoch, root=bytes(32), transaction_hash=bytes(32), gas_used=1)
            committee.chain.blocks.append([settled])
            await committee.until(lambda: all(node.state.settled_epoch for node in honest))
            for node in honest:
                stake = node.state.nodes[who(NAMES[LIAR])].stake(Role.AGGREGATOR)
                assert stake.bonded <= STAKE // 2
                assert all(n.state.nodes[who(name)].stake(Role.AGGREGATOR).bonded == STAKE
                           for n in honest for name in NAMES[1:]), "nobody honest lost anything"  # fmt: skip
            await committee.until(lambda: len({node.state.sequence for node in honest}) == 1)
            assert len({state_root(node.state) for node in honest}) == 1

    asyncio.run(scenario())


def place_order(committee: Committee) -> None:
    """Something for the primary to propose."""
    order = World(genesis(DOMAIN, TREASURY), [], []).order()
    oid = order_id(DOMAIN, order)
    committee.chain.blocks.append([OrderPlaced(oid=oid, order=order, block_hash=keccak256(oid))])


# What is kept ----------------------------------------------------------------------------------------------


def lie(sequence: int, name: str = "aggregator0") -> tuple[Vote, Vote]:
    """Two contradicting prepares."""
    one, other = (cast(DOMAIN, key(name), 0, VoteKind.PREPARE, 0, sequence, bytes([n]) * 32) for n in (1, 2))
    return one, other


def fresh() -> tuple[Accusations, State]:
    return Accusations(DOMAIN, key("aggregator1")), genesis(DOMAIN, TREASURY)


def test_one_lie_is_offered_once_in_a_while_however_often_it_is_seen() -> None:
    accusations, state = fresh()
    for _ in range(5):
        accusations.note(lie(1))
        accusations.note((lie(1)[1], lie(1)[0]))
    assert len(accusations) == 1
    (data,) = accusations.due(state, 1_000_000)
    assert decode_transaction(data).body.sender == who("aggregator1")
    assert accusations.due(state, 1_000_000 + AGAIN_MS - 1) == []
    assert len(accusations.due(state, 1_000_000 + AGAIN_MS)) == 1


def test_accusations_are_bounded_and_offered_a_few_at_a_time() -> None:
    accusations, state = fresh()
    for sequence in range(MAX_ACCUSATIONS + 10):
        accusations.note(lie(sequence))
    assert len(accusations) == MAX_ACCUSATIONS
    offered = accusations.due(state, 1_000_000)
    assert len(offered) == MAX_OFFERED
    nonces = [decode_transaction(data).body.nonce for data in offered]
    assert nonces == sorted(set(nonces))
    assert not set(offered) & set(accusations.due(state, 1_000_001))


def test_nobody_accuses_itself_and_what_is_punished_is_forgotten() -> None:
    accusations, _ = fresh()
    accusations.note(lie(1, "aggregator1"))
    assert len(accusations) == 0
    world = World.new()
    for number in (0, 1):
        world.stake(f"aggregator{number}", Role.AGGREGATOR)
    accusations.note(lie(1))
    (data,) = accusations.due(world.state, 1_000_000)
    assert [result.code for result in world.block([data]).results] == ["Accepted"]
    assert accusations.due(world.state, 10**7) == [] and len(accusations) == 0
