"""The event stream: complete, resumable at any member, and no burden to anybody."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from aggregator.api import feed as feed_room
from aggregator.api.feed import END, Feed, TooManyReaders, event_id, told
from aggregator.ledger.transition import Applied, TransactionResult
from aggregator.member import history as history_room
from aggregator.member.history import History
from protocol.chain_events import OrderPlaced
from protocol.crypto import keccak256
from protocol.transactions import Cancel, Claim, order_id
from tests.api.events import following, take
from tests.api.network import Network
from tests.api.test_api import hexed, run
from tests.ledger.world import DOMAIN, World
from tests.node import committee as committees


def test_a_reader_is_told_of_an_order_from_the_chain_to_its_settlement(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        async with net.served() as url, following(url) as events:
            first = await anext(events)
            assert first.id is None and first.name == "view" and first.data["view"] == 0
            oid = hexed(await net.place())
            await net.send("client", Cancel, oid=bytes.fromhex(oid[2:]))
            await net.settle()
            seen = await take(events, 6)
        assert [event.name for event in seen] == [
            *("order", "transaction", "phase", "sealed", "report", "settlement")
        ]
        assert seen[0].data["oid"] == oid
        assert seen[1].data["type"] == "Cancel" and seen[1].data["oid"] == oid
        assert seen[2].data["phase"] == "sealed"
        assert seen[5].data["epoch"] == 1 and seen[5].data["orders"] == [oid]
        ids = [event_id(event.id or "") for event in seen]
        assert ids == sorted(set(ids), key=lambda one: one or (0, 0)), "each later than the one before"

    run(tmp_path, scenario)


def test_a_reader_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        async with net.served() as url:
            async with following(url) as events:
                await net.place()
                (last,) = await take(events, 1)
            missed = [hexed(await net.place()) for _ in range(3)]
            async with following(url, last.id) as events:
                later = await take(events, 3)
            assert [event.data["oid"] for event in later] == missed
            async with following(url, later[0].id) as events:
                assert await take(events, 2) == later[1:], "the same ids and words again"

    run(tmp_path, scenario)


def test_all_members_tell_the_same_events_under_the_same_ids(tmp_path: Path) -> None:
    async def whole() -> None:
        async with committees.running(tmp_path) as committee:
            makes = World(committee.nodes[0].state, [], [])
            for _ in range(3):
                order = makes.order()
                oid = order_id(DOMAIN, order)
                placed = OrderPlaced(oid=oid, order=order, block_hash=keccak256(oid))
                committee.chain.blocks.append([placed])
                await committee.until(lambda oid=oid: all(oid in n.state.table for n in committee.nodes))
            stories = [
                [
                    (deed.sequence, index, *told(deed, index))
                    for deed in node.history.deeds
                    for index in range(deed.count)
                ]
                for node in committee.nodes
            ]
            assert len(stories[0]) >= 3 and all(story == stories[0] for story in stories)

    asyncio.run(whole())


def test_who_asks_for_what_is_forgotten_is_told_of_the_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_room, "MAX_DEEDS", 2)

    async def scenario(net: Network) -> None:
        for _ in range(4):
            await net.place()
        async with net.served() as url, following(url, "1-0") as events:
            assert (await anext(events)).name == "view"
            gap = await anext(events)
            assert gap.name == "gap" and gap.id is None and gap.data["after"] == net.node.history.floor
            kept = await take(events, 2)
            assert all((event_id(event.id or "") or (0, 0))[0] > gap.data["after"] for event in kept)

    run(tmp_path, scenario)


def test_a_member_that_skipped_batches_forgets_what_came_before() -> None:
    history, state = History(), World.new().state
    applied = Applied(state=state, results=(TransactionResult(tx_id=bytes(32), code="Accepted"),), events=())
    history.note(1, (b"x",), applied)
    assert len(history.deeds) == 1 and history.floor == 0
    history.note(9, (b"x",), applied)
    assert [deed.sequence for deed in history.deeds] == [9] and history.floor == 8


def test_an_id_ahead_of_this_member_is_waited_for(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        ahead = net.node.state.sequence + 2
        async with net.served() as url, following(url, f"{ahead}-0") as events:
            while net.node.state.sequence < ahead:
                await net.place()  # events that the reader has seen at a member further on
            later = hexed(await net.place())
            (event,) = await take(events, 1)
            assert event.data["oid"] == later

    run(tmp_path, scenario)


@pytest.mark.parametrize("given", ["x", "1", "1-", "-1", "1-2-3", "9" * 30 + "-1", "１-1"])
def test_an_id_that_is_none_is_refused(tmp_path: Path, given: str) -> None:
    async def scenario(net: Network) -> None:
        answer = await net.get("/v1/events", 400, after=given)
        assert answer["error"]["code"] == "BadRequest"

    run(tmp_path, scenario)


def test_who_does_not_read_is_cut_off_and_nobody_waits_for_it(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        now_s = 0.0
        feed = Feed(net.node, clock=lambda: now_s)
        stuck, reading = feed.subscribe("a", None), feed.subscribe("b", None)
        for _ in range(3):
            await net.place()
            data = b""
            while b"event: order" not in data:
                data += await reading.take(5)
            now_s += feed_room.PATIENCE_S / 2
        await net.place()
        await net.until(lambda: stuck.cut_off)
        assert not reading.cut_off and await stuck.take(5) == b""
        feed.unsubscribe(stuck)
        feed.unsubscribe(reading)
        assert feed.counters["cut_off"] == 1 and len(feed) == 0 and net.node.history.on_news is None

    run(tmp_path, scenario)


def test_what_waits_for_one_reader_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_room, "MAX_QUEUED_BYTES", 1)

    async def scenario(net: Network) -> None:
        placed = [hexed(await net.place()) for _ in range(4)]
        feed = Feed(net.node)
        reader = feed.subscribe("a", (0, END))
        told_orders: list[str] = []
        while len(told_orders) < len(placed):
            data = (await reader.take(5)).decode()
            lines = [line for line in data.splitlines() if line.startswith("data: ") and "oid" in line]
            assert len(lines) <= 1, "one event is more than may wait, so each comes alone"
            told_orders += [json.loads(line[6:])["oid"] for line in lines]
        assert told_orders == placed
        feed.unsubscribe(reader)

    run(tmp_path, scenario)


def test_readers_are_bounded_in_all_and_per_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_room, "MAX_SUBSCRIBERS", 20)

    async def scenario(net: Network) -> None:
        feed = Feed(net.node)
        readers = [feed.subscribe("one", None) for _ in range(feed_room.MAX_SUBSCRIBERS_PER_ADDRESS)]
        with pytest.raises(TooManyReaders, match="one"):
            feed.subscribe("one", None)
        readers += [feed.subscribe(f"other {number}", None) for number in range(20 - len(readers))]
        with pytest.raises(TooManyReaders, match="another"):
            feed.subscribe("last", None)
        for reader in readers:
            feed.unsubscribe(reader)

    run(tmp_path, scenario)


def test_a_reader_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        async with net.served() as url:
            async with following(url) as events:
                await anext(events)
                assert net.node.history.on_news is not None
            await net.until(lambda: net.node.history.on_news is None)

    run(tmp_path, scenario)


def test_too_many_streams_are_refused_in_the_one_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_room, "MAX_SUBSCRIBERS_PER_ADDRESS", 1)

    async def scenario(net: Network) -> None:
        async with net.served() as url, following(url) as events, httpx.AsyncClient() as http:
            await anext(events)
            answer = await http.get(f"{url}/v1/events")
            body: Any = answer.json()
            assert answer.status_code == 429 and body["error"]["code"] == "TooManyReaders"

    run(tmp_path, scenario)


def test_a_claim_is_told_with_its_sender_and_without_what_it_hides(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place()
        await net.send("provider0", Claim, oid=oid, commitment=bytes(32))
        (deed,) = (deed for deed in net.node.history.deeds if deed.transactions)
        name, data = told(deed, 0)
        assert name == "transaction" and set(data) == {"type", "id", "sender", "atMs", "oid"}

    run(tmp_path, scenario)
