"""`Client` and `AsyncClient` against a running aggregator: typed, agreed on, and never blocking the loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from offchain import watching
from offchain.answers import OrderRow, ValidationRow, read
from offchain.client import AsyncClient, Client
from offchain.client import client as client_module
from offchain.network import NetworkError, NetworkFile, NotFound
from protocol.errors import InvalidDocument
from protocol.transactions import Cancel
from tests.api.network import Network, running
from tests.client.test_overview import network_file
from tests.scripts.serving import serving
from tests.scripts.test_get import saying

DEAD = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "AGREEING_PAUSE_S", 0.01)
    monkeypatch.setattr(watching, "POLL_S", 0.05)


def run(folder: Path, scenario: Callable[[Network, AsyncClient], Awaitable[None]]) -> None:
    """An aggregator that is served, and a client that knows it; the chain cannot be reached."""

    async def whole() -> None:
        async with running(folder) as net, net.served() as url:
            file = NetworkFile.read(network_file(folder, url))
            async with AsyncClient(Client(file, None, folder / "client")) as client:
                await scenario(net, client)

    asyncio.run(whole())


def test_orders_are_listed_filtered_and_shown_whole(tmp_path: Path) -> None:
    async def scenario(net: Network, client: AsyncClient) -> None:
        first, second = await net.place(reward=200 * 10**18), await net.place(reward=100 * 10**18)
        rows = await client.orders(phase="training")
        assert [row.oid for row in rows] == ["0x" + first.hex(), "0x" + second.hex()], "best paid first"
        assert [row.reward_wei for row in rows] == [200 * 10**18, 100 * 10**18]
        assert await client.orders(phase="settled") == []
        order = await client.order(first)
        assert (order.oid, order.phase, order.score, order.claims) == (rows[0].oid, "training", None, ())
        assert await client.validations(first) == ()
        with pytest.raises(NotFound):
            await client.order(bytes(32))

    run(tmp_path, scenario)


def test_an_account_shows_what_is_coming_to_it(tmp_path: Path) -> None:
    async def scenario(net: Network, client: AsyncClient) -> None:
        oid = await net.place()
        await net.send("client", Cancel, oid=oid)
        order = await client.order(oid)
        account = await client.account(bytes.fromhex(order.client[2:]))
        assert sum(receipt.amount_wei for receipt in account.pending) == sum(
            receipt.amount_wei for receipt in order.receipts
        )
        assert {receipt.oid for receipt in account.pending} == {order.oid}
        with pytest.raises(InvalidDocument, match="whose account"):
            await client.account()

    run(tmp_path, scenario)


def test_watching_leaves_the_loop_free_and_ends_with_the_order(tmp_path: Path) -> None:
    async def scenario(net: Network, client: AsyncClient) -> None:
        oid, phases = await net.place(), []
        async with contextlib.aclosing(client.watch(oid)) as updates:
            async for update in updates:
                phases.append(update.phase)
                if update.phase == "training":
                    await net.send("client", Cancel, oid=oid)
                elif update.phase == "sealed":
                    await net.settle()
        assert phases == ["training", "sealed", "settled"]

    run(tmp_path, scenario)


def test_who_stops_watching_stops_the_thread(tmp_path: Path) -> None:
    async def scenario(net: Network, client: AsyncClient) -> None:
        oid = await net.place()
        asked: list[bool] = []

        def endless(oid: bytes, *, stop: Callable[[], bool]) -> Any:
            while not stop():
                yield oid
            asked.append(True)

        client.client.watch = endless  # type: ignore[method-assign]
        updates: AsyncIterator[Any] = client.watch(oid)
        assert await anext(updates) == oid
        await updates.aclose()  # type: ignore[attr-defined]
        while not asked:
            await asyncio.sleep(0.01)

    run(tmp_path, scenario)


def test_what_watching_raises_reaches_who_watches(tmp_path: Path) -> None:
    async def scenario(net: Network, client: AsyncClient) -> None:
        def broken(oid: bytes, *, stop: Callable[[], bool]) -> Any:
            yield oid
            raise NetworkError("gone for good")

        client.client.watch = broken  # type: ignore[method-assign]
        with pytest.raises(NetworkError, match="gone for good"):
            async for _ in client.watch(bytes(32)):
                pass

    run(tmp_path, scenario)


def test_members_who_never_agree_are_no_answer(tmp_path: Path) -> None:
    with serving(saying(phase="sealed")) as first, serving(saying(phase="settled")) as second:
        file = NetworkFile.read(network_file(tmp_path, first, second, DEAD, DEAD + "2"))
        client = Client(file, None, tmp_path / "client")
        with contextlib.closing(client.network), pytest.raises(NetworkError, match="fewer than 2 of 4"):
            client.order(bytes(32))


GOOD = {
    "oid": "0x" + "ab" * 32,
    "kind": "open",
    "client": "0x" + "cd" * 20,
    "phase": "training",
    "deadlineMs": 5,
    "claimCount": 0,
    "winner": None,
    "result": None,
    "rewardWei": "1" + 30 * "0",
    "score": "-3",
    "added": "by a newer API",
}


def test_numbers_larger_than_jsons_arrive_whole() -> None:
    row = read("orders", OrderRow, GOOD)
    assert (row.reward_wei, row.score) == (10**30, -3)
    assert msgspec.structs.asdict(row)["deadline_ms"] == 5


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "x",
        GOOD | {"rewardWei": 5},
        GOOD | {"rewardWei": "1e9"},
        GOOD | {"score": "9" * 81},
        GOOD | {"oid": "0x../../escaped"},
        {},
    ],
)
def test_an_answer_of_another_form_is_refused(answer: Any) -> None:
    with pytest.raises(NetworkError, match="about orders cannot be read"):
        read("orders", OrderRow, answer)
    with pytest.raises(NetworkError):
        read("validations", ValidationRow, answer)
