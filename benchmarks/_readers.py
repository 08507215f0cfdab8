"""Readers as no operator wants them, in a process of their own.

    python -m benchmarks._readers KIND COUNT URL …

``COUNT`` of them per URL, over plain sockets with a small receive buffer, each as if from another address
(``X-Forwarded-For``, which aggregators believe from their own machine), so that the limits per address apply
as they would to so many strangers:

    streams   follow ``/v1/events`` and never read a byte
    loris     send a request a byte a second: half of them its headers, half a transaction's body
    pages     ask for the largest pages and do not read the answers; closed and opened again every `HOLD_S`
    hungry    ask for the largest pages at `HUNGRY_PER_S` in all per URL, and read them at once

``all`` is the first three together. Prints what it has done so far as a line of JSON every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

RECEIVE_BYTES: Final = 2_048
HOLD_S: Final = 3.0
HUNGRY_PER_S: Final = 20
PAGES: Final = ("/v1/orders?limit=500", "/v1/nodes?limit=500", "/v1/orders?limit=500&phase=training")
KINDS: Final = ("streams", "loris", "pages", "hungry", "all")

Told = Counter[str]


def request(method: str, path: str, address: str, more: str = "") -> bytes:
    """A request's head."""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\n{more}\r\n".encode()


async def connect(url: str) -> socket.socket:
    """A connection that takes as little as it can."""
    where = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (where.hostname, where.port))
    return connection


async def stream(url: str, number: int, address: str, told: Told) -> None:
    """Follow events and read none."""
    loop = asyncio.get_running_loop()
    with await connect(url) as connection:
        await loop.sock_sendall(connection, request("GET", "/v1/events", address))
        told["streams"] += 1
        while await still_open(connection):
            await asyncio.sleep(1.0)
    told["streams cut off"] += 1


async def still_open(connection: socket.socket) -> bool:
    """Whether the other side has not hung up, as far as shows without reading what waits."""
    with contextlib.suppress(BlockingIOError):
        return bool(connection.recv(1, socket.MSG_PEEK))
    return True


async def loris(url: str, number: int, address: str, told: Told) -> None:
    """A byte a second, and never a whole request."""
    if number % 2:
        head, drip = request("GET", "/v1/status", address)[:-2], b"X-Slow: "
    else:
        head, drip = request("POST", "/v1/transactions", address, "Content-Length: 4000\r\n"), b"{"
    loop = asyncio.get_running_loop()
    with await connect(url) as connection:
        await loop.sock_sendall(connection, head)
        told["half requests"] += 1
        for byte in itertools.chain(drip, itertools.repeat(ord("a"))):
            await loop.sock_sendall(connection, bytes([byte]))
            await asyncio.sleep(1.0)


async def pages(url: str, number: int, address: str, told: Told) -> None:
    """Ask for a giant page and leave it in the socket."""
    loop = asyncio.get_running_loop()
    with await connect(url) as connection:
        await loop.sock_sendall(connection, request("GET", PAGES[number % len(PAGES)], address))
        told["pages not read"] += 1
        await asyncio.sleep(HOLD_S)


async def hungry(url: str, address: str, told: Told, page: str) -> None:
    """Read a giant page as fast as it comes."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        writer.write(request("GET", page, address, "Connection: close\r\n"))
        data = await reader.read(-1)
        told["pages read"] += 1
        told["bytes read"] += len(data)
        told["refused"] += not data.startswith(b"HTTP/1.1 200")
    finally:
        writer.close()


async def again(once: Callable[[], Awaitable[None]], told: Told) -> None:
    """One after the other, for ever; who is refused or cut off comes back."""
    while True:
        try:
            await once()
        except OSError:
            told["connections lost"] += 1
            await asyncio.sleep(0.5)


async def run(kind: str, count: int, urls: list[str]) -> None:
    """All readers of a kind."""
    told: Told = Counter()
    tasks = []
    chosen = {"streams": stream, "loris": loris, "pages": pages}
    for place, url in enumerate(urls):
        for name, reader in chosen.items():
            for number in range(count if kind in (name, "all") else 0):
                address = f"198.{18 + len(name) % 2}.{place}.{number % 250 + 1}"

                def once(
                    reader: Callable[[str, int, str, Told], Awaitable[None]] = reader,
                    url: str = url,
                    number: int = number,
                    address: str = address,
                ) -> Awaitable[None]:
                    return reader(url, number, address, told)

                tasks.append(asyncio.create_task(again(once, told)))
        if kind == "hungry":
            tasks.append(asyncio.create_task(hunger(url, count, place, told)))
    while True:
        await asyncio.sleep(1.0)
        print(json.dumps(told), flush=True)


async def hunger(url: str, count: int, place: int, told: Told) -> None:
    """`hungry` at a steady rate, from ``count`` addresses in turn."""
    asking: set[asyncio.Task[None]] = set()
    for number in itertools.count():
        if len(asking) < count:  # who waits asks no second time
            page, address = PAGES[number % len(PAGES)], f"198.18.{place}.{number % count % 250 + 1}"
            task = asyncio.create_task(hungry(url, address, told, page))
            asking.add(task)
            task.add_done_callback(asking.discard)
        await asyncio.sleep(1 / HUNGRY_PER_S)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
