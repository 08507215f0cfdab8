"""Watching an order through aggregators that die, lie and keep silent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse

from offchain import watching
from offchain.committee import Committee
from offchain.network import Network, NetworkFile
from offchain.watching import MAX_EVENT_BYTES, BadStream, Event, EventParser, Update, concerns, watch
from protocol.transactions import Cancel
from tests.api.network import Network as Aggregator
from tests.api.network import running
from tests.client.test_overview import network_file

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long in a test."""
    monkeypatch.setattr(watching, "POLL_S", 0.05)


def test_a_stream_cut_anywhere_gives_the_same_events() -> None:
    text = 'retry: 2000\n\n: keep-alive\n\nevent: view\ndata: {"view":0}\n\nid: 4-1\r\nevent: phase\r\n'
    text += 'data: {"oid":"0x\\u00e9é"}\r\n\r\n'
    data = text.encode()
    whole = EventParser().feed(data)
    assert whole == [Event(None, "view", {"view": 0}), Event("4-1", "phase", {"oid": "0xéé"})]
    for cut in range(len(data)):
        parser = EventParser()
        found = parser.feed(data[:cut]) + parser.feed(data[cut:])
        assert found == whole, cut


@pytest.mark.parametrize(
    "data",
    [b"x" * (MAX_EVENT_BYTES + 1), b"data: {\n\n", b"data: 5\n\n", b"data: " + b"[" * 100_000 + b"\n\n"],
)
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(BadStream):
        EventParser().feed(data)


def test_an_event_concerns_the_orders_that_it_names() -> None:
    assert concerns(Event("1-0", "phase", {"oid": "0xaa"}), "0xaa")
    assert concerns(Event("1-0", "settlement", {"orders": ["0xbb", "0xaa"]}), "0xaa")
    assert concerns(Event(None, "gap", {}), "0xaa")
    assert not concerns(Event("1-0", "phase", {"oid": "0xbb"}), "0xaa")
    assert not concerns(Event("1-0", "settlement", {"orders": "0xaa"}), "0xaa")


def seen(
    folder: Path,
    urls: Callable[[str], list[str]],
    size: int,
    before: Callable[[str], contextlib.AbstractAsyncContextManager[list[str]]] | None = None,
) -> list[Update]:
    """What somebody sees of an order that is cancelled and settled while it watches."""

    async def whole() -> list[Update]:
        async with running(folder) as net, net.served() as url:
            oid = await net.place()
            listed = urls(url)
            async with before(url) if before else contextlib.nullcontext([]) as more:
                file = NetworkFile.read(network_file(folder, *listed, *more))
                return await _watched(net, file, oid, size)

    return asyncio.run(whole())


async def _watched(net: Aggregator, file: NetworkFile, oid: bytes, size: int) -> list[Update]:
    network, found, ended = Network(file), [], threading.Event()

    def look() -> None:
        committee = Committee(size, file.aggregators)
        for update in watch(network, oid, lambda: committee, stop=ended.is_set):
            found.append(update)

    watching_it = asyncio.create_task(asyncio.to_thread(look))
    try:
        await net.until(lambda: found)
        await net.send("client", Cancel, oid=oid)
        await net.settle()
        await asyncio.wait_for(asyncio.shield(watching_it), PATIENCE_S)
    finally:
        ended.set()
        await watching_it
        network.close()
    return found


def test_an_order_is_seen_to_its_settlement(tmp_path: Path) -> None:
    found = seen(tmp_path, lambda url: [url], 1)
    phases = [update.phase for update in found]
    assert phases[0] == "training" and phases[-1] == "settled" and len(phases) == len(set(phases))
    assert found[-1].detail["settlement"]["epoch"] == 1


def test_aggregators_that_are_down_are_passed_over(tmp_path: Path) -> None:
    found = seen(tmp_path, lambda url: ["http://127.0.0.1:9", url], 1)
    assert found[-1].phase == "settled"


@contextlib.asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """An app on a socket."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, lifespan="off", log_config=None, log_level="critical")
    )
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        await serving


def misbehaving(
    honest: str, lie: Callable[[Any], Any], stream: Callable[[], AsyncIterator[bytes]] | None
) -> FastAPI:
    """An aggregator that passes on what an honest one answers, changed."""
    app = FastAPI()

    @app.get("/v1/events")
    async def events() -> Any:
        if stream is None:
            return JSONResponse({"error": {"code": "NotFound", "reason": "no stream"}}, 404)
        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.get("/v1/orders/{oid}")
    async def order(oid: str) -> Any:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"{honest}/v1/orders/{oid}")
        return JSONResponse(lie(answer.json()), answer.status_code)

    return app


def test_a_liar_is_believed_by_nobody_and_hides_nothing(tmp_path: Path) -> None:
    """It says that the order is settled and streams nonsense; the two honest ones are heard all the same."""

    async def nonsense() -> AsyncIterator[bytes]:
        yield b"id: 999999999-0\nevent: phase\ndata: {}\n\ndata: [\n\n"

    @contextlib.asynccontextmanager
    async def others(url: str) -> AsyncIterator[list[str]]:
        liar = misbehaving(url, lambda detail: detail | {"phase": "settled", "winner": "0x66"}, nonsense)
        second = misbehaving(url, lambda detail: detail, None)
        async with served(liar) as first_url, served(second) as second_url:
            yield [first_url, second_url]

    found = seen(tmp_path, lambda url: [url], 4, others)
    assert found[0].phase == "training" and found[-1].phase == "settled"
    assert all(update.detail["winner"] is None for update in found)


def test_where_nobody_streams_the_order_is_polled(tmp_path: Path) -> None:
    @contextlib.asynccontextmanager
    async def others(url: str) -> AsyncIterator[list[str]]:
        async with served(misbehaving(url, lambda detail: detail, None)) as only:
            yield [only]

    found = seen(tmp_path, lambda url: [], 1, others)
    assert found[-1].phase == "settled"


def test_a_stream_that_keeps_silent_hides_an_order_no_longer_than_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RECHECK_S", 0.1)

    async def silent() -> AsyncIterator[bytes]:
        while True:
            yield b": keep-alive\n\n"
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def others(url: str) -> AsyncIterator[list[str]]:
        async with served(misbehaving(url, lambda detail: detail, silent)) as only:
            yield [only]

    found = seen(tmp_path, lambda url: [], 1, others)
    assert found[-1].phase == "settled"
