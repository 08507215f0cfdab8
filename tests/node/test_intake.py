"""Transactions do not delay votes: those that members forward, and those that the public brings."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from aggregator.member.intake import MAX_WAITING_BYTES, OVERHEAD_BYTES, Intake
from aggregator.node import MAX_GUESTS, TURN, Aggregator, now_ms
from aggregator.pbft.events import Event
from aggregator.pbft.messages import FetchBodies, Forward, LinkMessage, Status
from protocol.crypto import keccak256
from protocol.transactions import Claim, sign_transaction
from tests.ledger.world import DOMAIN, key, who
from tests.node.committee import Committee, running
from tests.node.test_accusations import place_order


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 60), max_size=40)), max_size=12))
def test_each_is_taken_once_in_its_member_s_order_and_found_until_then(
    forwarded: list[tuple[int, list[int]]],
) -> None:
    intake, known = Intake(), set()
    expected: dict[int, list[bytes]] = {n: [] for n in range(4)}
    for sender, numbers in forwarded:
        items = [b"%d" % number for number in numbers]
        assert intake.put(sender, items) == 0
        for data in items:
            if data not in known:
                known.add(data)
                expected[sender].append(data)
    assert len(intake) == len(known)
    assert all(intake.body(keccak256(data)) == data for data in known)
    taken: dict[int, list[bytes]] = {n: [] for n in range(4)}
    last = None
    while (turn := intake.take(7)) is not None:
        sender, items = turn
        assert 0 < len(items) <= 7
        others = any(len(taken[n]) < len(expected[n]) for n in expected if n != sender)
        assert sender != last or not others, "the members take turns"
        last = sender
        taken[sender] += items
        assert all(intake.body(keccak256(data)) is None for data in items)
    assert taken == expected and not intake


def test_a_flood_fills_its_own_queue_and_room_comes_back() -> None:
    intake = Intake()
    items = [number.to_bytes(4, "big") + bytes(300) for number in range(10_000)]
    room = MAX_WAITING_BYTES // (304 + OVERHEAD_BYTES)
    assert intake.put(1, items) == len(items) - room and len(intake) == room
    assert intake.put(2, [b"another's"]) == 0
    intake.take(10)
    assert intake.put(1, items[room:]) == len(items) - room - 10


def claims(oid: bytes, count: int) -> list[bytes]:
    """Signed claims of provider 0, none twice."""
    first = now_ms()
    return [
        sign_transaction(
            DOMAIN,
            Claim(sender=who("provider0"), nonce=first + n, oid=oid, commitment=keccak256(b"%d" % n)),
            key("provider0"),
        ).encode()
        for n in range(count)
    ]


Test = Callable[[Committee, Aggregator, list[bytes]], Awaitable[None]]


def with_claims(folder: Path, count: int, test: Test) -> None:
    """Run a test with a committee that knows an order, one of its members, and claims for the order."""

    async def scenario() -> None:
        async with running(folder) as committee:
            place_order(committee)
            await committee.until(lambda: all(node.state.table for node in committee.nodes))
            node = committee.nodes[1]
            await test(committee, node, claims(next(iter(node.state.table)), count))

    asyncio.run(scenario())


def pooled_at_rounds(node: Aggregator) -> list[int]:
    """How many transactions were in a member's pool when each of its rounds with events began."""
    seen: list[int] = []
    run = node.round

    def round_(events: deque[Event]) -> None:
        if events:
            seen.append(len(node.mempool))
        run(events)

    node.round = round_  # type: ignore[method-assign]
    return seen


def test_a_vote_does_not_wait_for_the_transactions_that_came_before_it(tmp_path: Path) -> None:
    async def test(committee: Committee, node: Aggregator, items: list[bytes]) -> None:
        committee.bend = lambda sender, to, message: []  # nothing else arrives
        seen = pooled_at_rounds(node)
        await node.on_link_message(2, Forward(tuple(items)))
        await node.on_link_message(2, Status(1, 0, True, 0, 0))
        assert not seen and len(node.intake) == len(items), "nothing is looked at on arrival"
        await committee.until(lambda: not node.intake)
        assert seen[0] <= TURN, "after one turn of transactions the vote had its own"
        assert len(node.mempool) == len(items)

    with_claims(tmp_path, 4 * TURN, test)


def test_a_proposal_finds_transactions_that_nobody_has_looked_at_yet(tmp_path: Path) -> None:
    fetched: list[LinkMessage] = []

    async def test(committee: Committee, node: Aggregator, items: list[bytes]) -> None:
        node.look_at_forwarded = lambda limit: False  # type: ignore[method-assign]
        committee.bend = lambda sender, to, message: (
            [message] if not isinstance(message, FetchBodies) else fetched.append(message) or []  # type: ignore[func-returns-value]
        )
        tx_id, _ = committee.nodes[0].offer(items[0])
        await committee.until(lambda: tx_id in node.results)
        assert not fetched and len(node.intake) == 1

    with_claims(tmp_path, 1, test)


def test_between_two_turns_of_the_public_consensus_has_one(tmp_path: Path) -> None:
    async def test(committee: Committee, node: Aggregator, items: list[bytes]) -> None:
        order: list[str] = []
        run = node.round
        node.round = lambda events: (order.append("round"), run(events))[1]  # type: ignore[method-assign]

        async def guest(size: int) -> None:
            await node.turn(size)
            order.append("guest")

        guests = [asyncio.create_task(guest(TURN)) for _ in range(3)]
        small = [asyncio.create_task(guest(1)) for _ in range(2)]
        gave_up = asyncio.create_task(guest(1))
        await asyncio.sleep(0)
        gave_up.cancel()
        for _ in range(100):
            await node.on_link_message(2, Status(1, 0, True, 0, 0))
        await asyncio.gather(*guests, *small)
        turns = " ".join(order).split("round")
        assert [part.split().count("guest") for part in turns if "guest" in part] == [1, 1, 1, 2]
        assert gave_up.cancelled() and not node.crowded

    with_claims(tmp_path, 0, test)


def test_who_comes_when_many_wait_is_told_to_come_later(tmp_path: Path) -> None:
    async def test(committee: Committee, node: Aggregator, items: list[bytes]) -> None:
        waiting = [asyncio.create_task(node.turn(TURN)) for _ in range(MAX_GUESTS)]
        await asyncio.sleep(0)
        assert node.crowded
        await asyncio.gather(*waiting)
        assert not node.crowded
        while node.intake.put(3, [keccak256(len(node.intake).to_bytes(4, "big"))]) == 0:
            pass
        assert not node.crowded, "a member that floods does not keep the public out"

    with_claims(tmp_path, 0, test)
