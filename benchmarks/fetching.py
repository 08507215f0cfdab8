"""How long a file takes from a far gateway, with one block under way at a time and with several.

    python -m benchmarks.fetching [--latency-ms 0 20 100] [--mib 32] [--json]

A real gateway and the real client, in one process, with a relay between them that holds every piece of both
directions for half the latency. It does not bound the bandwidth. The file is new in each row; times are those
of the whole call, all hashes checked. Rows: round trip in milliseconds, requests at once, seconds, MiB/s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from unittest import mock

from offchain.storage import EmbeddedStore, Gateway, fetch_file

MIB: Final = 1024 * 1024
PIECE_BYTES: Final = 65_536
QUEUED_PIECES: Final = 256
"""What one direction of one connection may have on the way."""


@contextmanager
def far(url: str, latency_ms: float) -> Iterator[str]:
    """The same server behind a long line."""
    host, port = url.removeprefix("http://").split(":")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # the end; to streams of Python 3.11 it would be an error
            theirs, to_them = await asyncio.open_connection(host, int(port))
            await asyncio.gather(
                *(_carry(*way, latency_ms / 2000) for way in ((reader, to_them), (theirs, writer)))
            )

    async def start() -> asyncio.Server:
        return await asyncio.start_server(relay, "127.0.0.1", 0)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """One direction; a piece leaves so long after it came, however many are on the way."""
    now = asyncio.get_running_loop().time
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_PIECES)

    async def deliver() -> None:
        while True:
            due_s, piece = await on_the_way.get()
            await asyncio.sleep(due_s - now())
            if not piece:
                writer.close()
                return
            writer.write(piece)
            await writer.drain()

    delivering = asyncio.create_task(deliver())
    try:
        while True:
            piece = await reader.read(PIECE_BYTES)
            await on_the_way.put((now() + delay_s, piece))
            if not piece:
                break
        await delivering
    except OSError:
        pass  # one side is gone, and with it what was on the way
    finally:
        delivering.cancel()
        writer.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    open_ones = asyncio.all_tasks() - {asyncio.current_task()}
    for task in open_ones:
        task.cancel()
    await asyncio.gather(*open_ones, return_exceptions=True)


def measure(folder: Path, latency_ms: float, at_once: int, mib: int) -> dict[str, Any]:
    """One row."""
    store = EmbeddedStore(folder / f"store-{latency_ms}-{at_once}")
    data = os.urandom(mib * MIB)
    cid = store.put(data)
    store.publish(cid)
    gateway = Gateway(store)
    gateway.start()
    try:
        with (
            far(gateway.url, latency_ms) as url,
            mock.patch("offchain.storage.fetch.MAX_UNDER_WAY", at_once),
        ):
            began_s = time.perf_counter()
            fetch_file(cid, [url], folder / "file", max_bytes=len(data))
            seconds = time.perf_counter() - began_s
    finally:
        gateway.stop()
    assert (folder / "file").read_bytes() == data
    return {
        "latency_ms": latency_ms,
        "at_once": at_once,
        "seconds": round(seconds, 2),
        "mib_per_s": round(mib / seconds, 1),
    }


def main(given: list[str] | None = None) -> int:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0.0, 20.0, 100.0], help="round trips")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4], help="requests under way at most")
    parser.add_argument("--mib", type=int, default=32, help="of the file")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(given)
    rows = []
    with tempfile.TemporaryDirectory(prefix="dtn-fetching-") as folder:
        for latency_ms in arguments.latency_ms:
            for at_once in arguments.at_once:
                row = measure(Path(folder), latency_ms, at_once, arguments.mib)
                rows.append(row)
                if not arguments.json:
                    print(
                        f"round trip {latency_ms:5.0f} ms, {at_once} at once: {row['seconds']:7.2f} s, "
                        f"{row['mib_per_s']:7.1f} MiB/s"
                    )
    if arguments.json:
        print(json.dumps({"mib": arguments.mib, "rows": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
