"""Floods: strangers cost no cryptography, one member costs the others neither their turn nor their memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.ledger import transition
from aggregator.member.admission import (
    BAD_FORWARDS_PERIOD_MS,
    MAX_BAD_FORWARDS,
    MAX_NONCE_LEAD_MS,
    Forwarders,
    has_standing,
    knock,
)
from aggregator.member.inbox import MAX_QUEUED, MAX_QUEUED_BYTES, Inbox
from aggregator.member.mempool import MAX_PER_SENDER, MAX_POOL_BYTES, MAX_TRANSACTIONS
from aggregator.node import MAX_WAITERS, now_ms
from aggregator.pbft.events import Received, Validated
from aggregator.pbft.messages import (
    Batch,
    Forward,
    LinkMessage,
    PrePrepare,
    Status,
    Vote,
    VoteKind,
    cast,
)
from protocol.crypto import keccak256
from protocol.errors import InvalidSignature
from protocol.roles import Role
from protocol.transactions import (
    Cancel,
    Claim,
    Evidence,
    SignedTransaction,
    TestRelease,
    Transaction,
    sign_transaction,
)
from tests.ledger.world import DOMAIN, STAKE, START_MS, World, key, who
from tests.node.committee import NAMES, running
from tests.node.test_accusations import place_order


def claim(name: str, nonce: int, oid: bytes = bytes(32)) -> Claim:
    return Claim(sender=who(name), nonce=nonce, oid=oid, commitment=bytes(32))


# The front door ------------------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    """A ledger with a staked provider and a client's order."""
    world = World.new()
    world.stake("provider0", Role.PROVIDER)
    return world


def code(world: World, body: Transaction, at_ms: int = START_MS) -> str:
    refusal = knock(world.state, body, at_ms)
    return refusal.code if refusal else "welcome"


def test_stake_or_the_order_itself_opens_the_door(world: World) -> None:
    oid, other = world.place(), world.place(client="client2")
    assert code(world, claim("provider0", 1, oid)) == "welcome"
    assert code(world, Cancel(sender=who("client"), nonce=1, oid=oid)) == "welcome"
    assert code(world, Cancel(sender=who("client"), nonce=1, oid=other)) == "NoStanding"
    assert code(world, claim("outsider0", 1, oid)) == "NoStanding"
    assert "dtn provider register" in str(knock(world.state, claim("outsider0", 1, oid), START_MS))
    evidence = {
        "vote_kind": 1, "view": 0, "sequence": 1, "first_digest": bytes(32), "first_signature": bytes(65),
        "second_digest": bytes(32), "second_signature": bytes(65),
    }  # fmt: skip
    assert code(world, Evidence(sender=who("client"), nonce=1, **evidence)) == "NoStanding"
    assert code(world, Evidence(sender=who("provider0"), nonce=1, **evidence)) == "welcome"


def test_stake_on_its_way_out_opens_the_door_until_it_is_out(world: World) -> None:
    """Whoever unstakes while its claim is open must still be able to reveal it."""
    oid = world.place()
    world.claim("provider0", oid, "model")
    world.unstake("provider0", Role.PROVIDER, STAKE)
    assert code(world, claim("provider0", START_MS, oid)) == "welcome"
    world.wait_out(oid)
    world.reveal("provider0", oid, "model")
    world.wait(world.state.parameters["unbonding_s"])
    while world.state.report is not None:
        world.settle()
        world.wait(world.state.parameters["update_s"])
    assert not has_standing(world.state, claim("provider0", 1))


def test_a_nonce_is_neither_used_nor_from_the_far_future(world: World) -> None:
    oid = world.place()
    world.accept("provider0", Claim, oid=oid, commitment=bytes(32))
    last = world.state.nonces[who("provider0")]
    assert code(world, claim("provider0", last, oid)) == "StaleNonce"
    assert code(world, claim("provider0", last + 1, oid)) == "welcome"
    assert code(world, claim("provider0", START_MS + MAX_NONCE_LEAD_MS, oid)) == "welcome"
    assert code(world, claim("provider0", START_MS + MAX_NONCE_LEAD_MS + 1, oid)) == "NonceTooFar"
    assert code(world, claim("provider0", 2**64 - 1, oid)) == "NonceTooFar"
    assert code(world, claim("provider0", last + MAX_NONCE_LEAD_MS, oid), at_ms=0) == "welcome"


def test_a_stranger_costs_no_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    true_check = transition.authenticate

    def watched(domain: object, signed: SignedTransaction) -> bytes:
        checked.append(signed.body.sender)
        return true_check(DOMAIN, signed)

    monkeypatch.setattr(transition, "authenticate", watched)

    async def scenario() -> None:
        async with running(tmp_path) as committee:
            node = committee.nodes[1]
            for body in (
                claim("outsider0", now_ms()),
                claim("provider0", now_ms() + 2 * MAX_NONCE_LEAD_MS),
            ):
                data = SignedTransaction(body, bytes(65)).encode()
                _, refusal = node.offer(data)
                assert refusal is not None and refusal.code in ("NoStanding", "NonceTooFar")
            assert checked == [] and len(node.mempool) == 0
            with pytest.raises(InvalidSignature):
                node.offer(SignedTransaction(claim("provider0", now_ms()), bytes(65)).encode())
            assert checked == [who("provider0")]

    asyncio.run(scenario())


def test_large_transactions_are_not_remembered() -> None:
    transition._remembered.cache_clear()
    before = transition._remembered.cache_info().currsize
    body = claim("provider0", 1)
    small = sign_transaction(DOMAIN, body, key("provider0")).encode()
    transition.authenticated(DOMAIN, small)
    assert transition._remembered.cache_info().currsize == before + 1
    fields = {"sender": who("provider0"), "nonce": 9, "oid": bytes(32)}
    many = tuple(keccak256(b"%d" % n) for n in range(100))
    release = TestRelease(**fields, fragments=many, links=())
    large = sign_transaction(DOMAIN, release, key("provider0")).encode()
    assert len(large) > transition.MAX_REMEMBERED_BYTES
    assert transition.authenticated(DOMAIN, large) == transition.authenticated(DOMAIN, large)
    assert transition._remembered.cache_info().currsize == before + 1


def test_a_member_that_forwards_bad_transactions_is_not_listened_to_for_a_while() -> None:
    forwarders = Forwarders()
    for _ in range(MAX_BAD_FORWARDS):
        assert not forwarders.muted(2, 1_000_000)
        forwarders.blame(2)
    assert forwarders.muted(2, 1_000_001) and not forwarders.muted(1, 1_000_001)
    assert not forwarders.muted(2, 1_000_000 + BAD_FORWARDS_PERIOD_MS)


# The inbox -------------------------------------------------------------------------------------------------


def message(sender: int, number: int) -> Received:
    return Received(sender=sender, message=Status(1, 0, True, number, 0), now_ms=0)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), max_size=20), st.integers(1, 64))
def test_everyone_gets_turns_and_keeps_its_order(bursts: list[tuple[int, int]], limit: int) -> None:
    inbox, sent, served = Inbox(), dict.fromkeys(range(5), 0), dict.fromkeys(range(5), 0)
    for sender, count in bursts:
        for _ in range(count):
            assert inbox.receive(message(sender, sent[sender]))
            sent[sender] += 1
    while inbox:
        waiting = {n for n in sent if served[n] < sent[n]}
        taken = inbox.take(limit)
        assert 0 < len(taken) <= limit
        got = dict.fromkeys(range(5), 0)
        for event in taken:
            assert isinstance(event, Received) and isinstance(event.message, Status)
            assert event.message.executed == served[event.sender], "in order, none lost, none twice"
            served[event.sender] += 1
            got[event.sender] += 1
        shares = [got[n] for n in waiting if served[n] < sent[n]]
        assert max(shares, default=0) - min(shares, default=0) <= 1, "equal turns for all who wait"
    assert served == sent and not inbox.dropped


def test_a_flood_fills_its_own_queue_and_delays_nobody_else() -> None:
    inbox = Inbox()
    for number in range(50 * MAX_QUEUED):
        inbox.receive(message(3, number))
    assert len(inbox) == MAX_QUEUED and inbox.dropped == {3: 49 * MAX_QUEUED}
    assert inbox.receive(message(1, 7))
    verdict = Validated(view=0, sequence=1, digest=bytes(32), batch=None)
    inbox.put(verdict)
    taken = inbox.take(3)
    assert taken[0] == verdict and message(1, 7) in taken


def test_large_messages_fill_a_queue_by_their_bytes() -> None:
    inbox = Inbox()
    batch = Batch(0, None, (), (bytes(8 * 1024 * 1024),))
    vote = cast(DOMAIN, key(NAMES[0]), 0, VoteKind.PRE_PREPARE, 0, 1, batch.digest())
    proposal = Received(sender=0, message=PrePrepare(vote, batch), now_ms=0)
    kept = 0
    while inbox.receive(proposal):
        kept += 1
    assert kept == MAX_QUEUED_BYTES // (8 * 1024 * 1024) - 1, "and a little for the envelope"
    while inbox:
        inbox.take(1)
    assert inbox.receive(proposal), "room comes back"


# A member that floods ------------------------------------------------------------------------------------


def test_a_flooding_member_stops_nobody_and_fills_nothing(tmp_path: Path) -> None:
    """Member 3 sends ninety more messages with each of its own: votes for anything, stolen transactions."""
    flooder = 3
    secret = key(NAMES[flooder])
    junk: list[LinkMessage] = []
    for number in range(30):
        digest = keccak256(b"junk %d" % number)
        junk.append(cast(DOMAIN, secret, flooder, VoteKind.PREPARE, number % 3, number, digest))
        junk.append(Vote(VoteKind.COMMIT, 0, number, digest, number % 4, bytes(65)))
        stolen = claim("provider0", now_ms() + 600_000 + number)  # not stale before the test ends
        junk.append(Forward((SignedTransaction(stolen, bytes([number]) * 65).encode(),)))

    async def scenario() -> None:
        async with running(tmp_path) as committee:
            honest = committee.nodes[:3]
            committee.bend = lambda sender, to, message: [message, *(junk if sender == flooder else ())]
            place_order(committee)
            await committee.until(lambda: all(node.state.table for node in honest))
            oid = next(iter(honest[0].state.table))
            body = claim("provider0", now_ms(), oid)
            tx_id, refusal = honest[1].offer(sign_transaction(DOMAIN, body, key("provider0")).encode())
            assert refusal is None
            await committee.until(lambda: all(tx_id in node.results for node in honest))
            await committee.until(lambda: all(node.counters.events["forwards_ignored"] for node in honest))
            for node in honest:
                replica, limits = node.replica, node._limits
                assert len(node.inbox) <= MAX_QUEUED * len(NAMES) and len(node.intake) <= len(junk)
                assert len(node.mempool) <= MAX_PER_SENDER <= MAX_TRANSACTIONS
                assert node.mempool._bytes <= MAX_POOL_BYTES
                assert len(replica._slots) <= limits.window and len(replica._bodies) <= 2 * limits.window
                assert len(node._held) <= limits.window and len(node.accusations) <= 1
                assert len(node.checkpoints) <= 2 + limits.window // limits.checkpoint_interval

    asyncio.run(scenario())


def test_no_more_than_so_many_wait_for_outcomes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as committee:
            node = committee.nodes[0]
            waits = [asyncio.create_task(node.outcome(bytes(32), 30)) for _ in range(MAX_WAITERS)]
            await asyncio.sleep(0)
            assert await asyncio.wait_for(node.outcome(bytes(32), 30), 1) is None
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            assert not node._waiters and node._waiting_count == 0

    asyncio.run(scenario())
