"""Reads: pages, tags, limits, ids and headers, the same for every route."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from aggregator import node as node_room
from aggregator.api import gate as gate_room
from aggregator.api import reading as reading_room
from aggregator.api.gate import Allowance, network_of
from aggregator.api.listing import FREE_S, SHARE, Sorted
from aggregator.api.reads import ORDERS
from aggregator.api.writes import MAX_BODY_BYTES
from protocol.transactions import Cancel, Claim
from tests.api.network import Network, assert_error
from tests.api.test_api import hexed, run
from tests.ledger.world import REWARD, who


async def pages(net: Network, path: str, name: str, limit: int, **query: Any) -> list[list[Any]]:
    """All pages of a list."""
    found: list[list[Any]] = []
    cursor: str | None = None
    while cursor is not None or not found:
        asked = query | ({"cursor": cursor} if cursor else {})
        answer = await net.get(path, limit=limit, **asked)
        found.append(answer[name])
        assert len(answer[name]) <= limit
        cursor = answer["next"]
        assert len(found) < 50
    return found


async def three_settled(net: Network) -> list[str]:
    """Three orders settled in two epochs, oldest first."""
    first = await net.place()
    await net.send("client", Cancel, oid=first)
    await net.settle(b"1")
    others = sorted([await net.place(), await net.place()])
    for oid in others:
        await net.send("client", Cancel, oid=oid)
    await net.until(lambda: net.node.state.report is not None)
    while net.node.state.table:
        await net.settle(b"2")
    return [hexed(oid) for oid in (first, *others)]


def test_pages_together_are_the_list(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        settled = await three_settled(net)
        running = [hexed(await net.place(reward=REWARD + 1000 * number)) for number in range(4)]
        whole = (await net.get("/v1/orders"))["orders"]
        assert [item["oid"] for item in whole[:4]] == list(reversed(running)), "best paid first"
        assert {item["oid"] for item in whole[4:]} == set(settled)
        for limit in (1, 2, 3, 100):
            cut = await pages(net, "/v1/orders", "orders", limit)
            assert [item for part in cut for item in part] == whole
        only = await pages(net, "/v1/orders", "orders", 1, phase="settled")
        assert [item["oid"] for part in only for item in part] == [item["oid"] for item in whole[4:]]
        for path, name in (
            ("/v1/nodes", "nodes"),
            ("/v1/settlements", "settlements"),
            (f"/v1/accounts/{hexed(who('client'))}/receipts", "receipts"),
            (f"/v1/accounts/{hexed(who('client'))}/credits", "credits"),
        ):
            whole = [item for part in await pages(net, path, name, 32) for item in part]
            assert len(whole) >= 2
            assert [item for part in await pages(net, path, name, 1) for item in part] == whole

    run(tmp_path, scenario)


def test_a_page_stands_though_orders_come_and_go(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        placed = [hexed(await net.place(reward=REWARD + 1000 * number)) for number in range(3)]
        first = await net.get("/v1/orders", limit=1)
        better = hexed(await net.place(reward=3 * REWARD))
        second = await net.get("/v1/orders", limit=5, cursor=first["next"])
        assert [item["oid"] for item in second["orders"]] == [placed[1], placed[0]]
        assert better not in str(second)

    run(tmp_path, scenario)


def test_receipts_of_an_account_come_latest_first_and_say_what_paid_them(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        settled = await three_settled(net)
        path = f"/v1/accounts/{hexed(who('client'))}"
        receipts = (await net.get(path + "/receipts"))["receipts"]
        assert [item["epoch"] for item in receipts] == sorted((r["epoch"] for r in receipts), reverse=True)
        assert {item["oid"] for item in receipts} == set(settled)
        assert (await net.get(path))["receipts"] == receipts
        assert (await net.get(path + "/receipts", role="winner"))["receipts"] == []

    run(tmp_path, scenario)


def test_filters_pick(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        mine = hexed(await net.place())
        other = hexed(await net.place(client="client2"))
        odd = hexed(await net.place(kind="alchemy"))

        async def ids(**query: str) -> list[str]:
            return [item["oid"] for item in (await net.get("/v1/orders", **query))["orders"]]

        assert await ids(kind="alchemy") == [odd]
        assert await ids(phase="sealed") == [odd]
        assert await ids(client=hexed(who("client2"))) == [other]
        assert set(await ids(phase="training")) == {mine, other}
        assert await ids(winner=hexed(who("provider0"))) == []
        nodes = (await net.get("/v1/nodes", role="verifier"))["nodes"]
        assert [node["account"] for node in nodes] == [hexed(who("verifier0"))]

    run(tmp_path, scenario)


def test_a_filter_that_finds_little_looks_through_a_bounded_stretch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_room, "MAX_SCANNED", 2)

    async def scenario(net: Network) -> None:
        wanted = hexed(await net.place(client="client2"))
        for number in range(5):
            await net.place(reward=REWARD + 1 + number)
        cut = await pages(net, "/v1/orders", "orders", 10, client=hexed(who("client2")))
        assert len(cut) == 3, "short pages, but the list goes on"
        assert [item["oid"] for part in cut for item in part] == [wanted]

    run(tmp_path, scenario)


@pytest.mark.parametrize("cursor", ["x", "AAAA", "é", "W10", ORDERS.encode((0, 1, "00"))[:-4], "W" * 250])
def test_a_cursor_that_nobody_gave_is_refused(tmp_path: Path, cursor: str) -> None:
    async def scenario(net: Network) -> None:
        for path in ("/v1/orders", "/v1/nodes", "/v1/settlements", f"/v1/accounts/{'00' * 20}/receipts"):
            answer = await net.get(path, 400, cursor=cursor)
            assert answer["error"]["code"] == "BadCursor"
        of_another = await net.get("/v1/nodes", 400, cursor=ORDERS.encode((0, 1, "00")))
        assert of_another["error"]["code"] == "BadCursor"

    run(tmp_path, scenario)


def test_what_has_not_changed_is_not_sent_again(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        oid = hexed(await net.place())
        for path in ("/v1/orders", f"/v1/orders/{oid}", "/v1/nodes", "/v1/parameters", "/v1/settlements"):
            first = await net.http.get(path)
            tag = first.headers["etag"]
            again = await net.http.get(path, headers={"If-None-Match": f'W/"other", {tag}'})
            assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag
        nothing = await net.http.get(f"/v1/orders/{'ab' * 32}", headers={"If-None-Match": "*"})
        assert nothing.status_code == 404
        await net.place()
        later = await net.http.get("/v1/orders", headers={"If-None-Match": tag})
        assert later.status_code == 200 and len(later.json()["orders"]) == 2

    run(tmp_path, scenario)


def test_what_is_not_there_yet_is_not_remembered_as_missing(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        await net.get("/v1/proofs/head", 404)
        while net.node.replica.low == 0:
            await net.place()
        assert (await net.get("/v1/proofs/head"))["sequence"] == net.node.replica.low

    run(tmp_path, scenario)


def test_every_answer_has_a_request_id_and_a_good_one_is_kept(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        given = await net.http.get("/v1/status", headers={"X-Request-Id": "abc-123"})
        assert given.headers["x-request-id"] == "abc-123"
        ids = set()
        for path in ("/v1/status", "/v1/nonsense", "/", "/v1/orders/zz"):
            answer = await net.http.get(path, headers={"X-Request-Id": "a b\u007f" * 40})
            ids.add(answer.headers["x-request-id"])
        assert len(ids) == 4 and all(len(one) == 32 for one in ids)

    run(tmp_path, scenario)


def test_any_page_may_read_and_none_may_write(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        read = await net.http.get("/v1/orders", headers={"Origin": "https://elsewhere.example"})
        assert read.headers["access-control-allow-origin"] == "*"
        asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
        preflight = await net.http.options("/v1/transactions", headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-methods"] == "GET"
        sent = await net.http.post("/v1/transactions", json={})
        assert "access-control-allow-origin" not in sent.headers

    run(tmp_path, scenario)


def test_the_frameworks_own_refusals_have_the_one_shape(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        for answer, status, code in (
            (await net.http.get("/nowhere"), 404, "NotFound"),
            (await net.http.delete("/v1/orders"), 405, "MethodNotAllowed"),
            (await net.http.get("/v1/orders", params={"limit": "x"}), 400, "BadRequest"),
            (await net.http.get("/v1/orders?q=" + "x" * 5000), 413, "TooLarge"),
            (await net.http.post("/v1/transactions", content=bytes(MAX_BODY_BYTES + 1)), 413, "TooLarge"),
        ):
            assert answer.status_code == status, answer.text
            assert_error(answer)
            assert answer.json()["error"]["code"] == code

    run(tmp_path, scenario)


def test_no_page_of_the_api_fetches_anything_from_another_host(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        for path in ("/docs", "/redoc"):
            await net.get(path, 404)
        policy = (await net.http.get("/")).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "https:" not in policy and "*" not in policy

    run(tmp_path, scenario)


def test_a_bug_in_a_handler_is_an_error_like_any_other_and_the_next_request_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(net: Network) -> None:
        with monkeypatch.context() as broken:
            broken.setattr("aggregator.api.views.order_summary", lambda *_: 1 / 0)
            await net.place()
            answer = await net.http.get("/v1/orders")
        assert answer.status_code == 500 and answer.json()["error"]["code"] == "Internal"
        assert answer.headers["x-request-id"] in answer.json()["error"]["reason"]
        assert len((await net.get("/v1/orders"))["orders"]) == 1

    run(tmp_path, scenario)


def test_a_head_request_is_answered_like_a_get_without_its_body(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        got, head = await net.http.get("/v1/nodes"), await net.http.head("/v1/nodes")
        assert head.status_code == 200 and head.headers["etag"] == got.headers["etag"] and not head.content

    run(tmp_path, scenario)


# Limits ------------------------------------------------------------------------------------------------


def test_an_address_gets_its_burst_and_then_its_rate() -> None:
    now_s = 0.0
    allowance = Allowance(10, clock=lambda: now_s)
    burst = int(10 * gate_room.BURST_S)
    assert [allowance.wait_s("10.0.0.1") for _ in range(burst)] == [0.0] * burst
    assert 0 < allowance.wait_s("10.0.0.1") <= 0.1
    assert allowance.wait_s("10.0.0.2") == 0, "another address has its own"
    now_s += 0.5
    assert [allowance.wait_s("10.0.0.1") for _ in range(5)] == [0.0] * 5
    assert allowance.wait_s("10.0.0.1") > 0


def test_addresses_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_room, "MAX_ADDRESSES", 3)
    allowance = Allowance(1, clock=lambda: 0.0)
    for number in range(50):
        allowance.wait_s(f"10.0.0.{number}")
    assert len(allowance._buckets) == 3


def test_what_counts_as_one_address() -> None:
    assert network_of("127.0.0.1") is network_of("::1") is network_of("::ffff:127.0.0.1") is None
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1") == "10.0.0.1"
    assert network_of("nonsense") == "nonsense"


def test_who_asks_too_much_is_told_when_to_come_again(tmp_path: Path) -> None:
    async def scenario(net: Network) -> None:
        transport = httpx.ASGITransport(app=net.app, client=("203.0.113.9", 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://aggregator") as stranger:
            answers = [await stranger.get("/v1/nonsense") for _ in range(400)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused and int(refused[0].headers["retry-after"]) >= 1
        assert_error(refused[0])
        await net.get("/v1/status")

    run(tmp_path, scenario)


def test_who_brings_transactions_while_many_wait_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(net: Network) -> None:
        oid = await net.place()
        monkeypatch.setattr(node_room, "MAX_GUESTS", 0)
        refused = await net.send("provider0", Claim, 429, oid=oid, commitment=bytes(32))
        assert refused["error"]["code"] == "PoolFull"
        batch = await net.http.post("/v1/transactions/batch", content=msgspec.msgpack.encode([b"one"]))
        assert batch.status_code == 429
        monkeypatch.undo()
        await net.send("provider0", Claim, oid=oid, commitment=bytes(32))

    run(tmp_path, scenario)


def test_the_replica_gets_a_turn_between_any_two_reads(tmp_path: Path) -> None:
    """However many readers come at once, no two of their answers are worked on in one turn of the loop."""

    async def scenario(net: Network) -> None:
        turns, worked = 0, []

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        inner = gate_room.Gate._in_turn

        async def in_turn(self: Any, scope: Any, receive: Any, send: Any) -> None:
            app = self._app

            async def noted(*arguments: Any) -> None:
                worked.append(turns)
                await app(*arguments)

            shadow = gate_room.Gate.__new__(gate_room.Gate)
            shadow.__dict__ = self.__dict__ | {"_app": noted}
            await inner(shadow, scope, receive, send)

        counting = asyncio.create_task(count())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gate_room.Gate, "_in_turn", in_turn)
            answers = await asyncio.gather(*(net.http.get("/v1/nodes") for _ in range(50)))
        counting.cancel()
        assert all(answer.status_code == 200 for answer in answers)
        assert len(worked) == len(set(worked)) == 50

    run(tmp_path, scenario)


def test_sorting_takes_a_bounded_share_of_the_time() -> None:
    now_s, built = 0.0, 0

    def build() -> list[Any]:
        nonlocal now_s, built
        built += 1
        now_s += 10 * FREE_S
        return [((1,), "row")]

    listing = Sorted(clock=lambda: now_s)
    for change in range(1000):
        listing.refresh((object(),), change, build)
        now_s += FREE_S
    assert built * 10 * FREE_S <= 2 * SHARE * now_s
    assert 0 < listing.sequence < 999, "it says how far behind it is"
