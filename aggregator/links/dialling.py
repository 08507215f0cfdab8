"""The way out: one connection to one peer, dialled again and again, and what waits to leave on it.

Bounds: `MAX_QUEUED` messages and `MAX_QUEUED_BYTES` wait per peer; what finds no room is dropped and counted
(consensus repeats what matters). Messages wait as they were encoded, once for all peers, and are encrypted
when the system takes them; small ones that waited leave together. A connection that ends is dialled anew
after `FIRST_REDIAL_S`, doubling up to `MAX_REDIAL_S`: a peer refuses us until it has read our registration.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from aggregator.links.address import Resolver, parse
from aggregator.links.errors import LinkBroken
from aggregator.links.handshake import HANDSHAKE_S, await_welcome, prepare, prove
from aggregator.links.tls import MAX_DATA_BYTES, MAX_RECORDS, Channel

MAX_QUEUED: Final = 4096
MAX_QUEUED_BYTES: Final = 8 * 1024 * 1024
"""A larger message finds room in an empty queue only."""
MAX_FLUSHED: Final = 64
"""Records that leave for one peer before others get a turn."""
FIRST_REDIAL_S: Final = 0.1
MAX_REDIAL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Dialler:
    """What all ways out of one member share."""

    context: SSL.Context
    counters: Counter[str]
    resolver: Resolver
    gate: asyncio.Lock
    """See `aggregator.links.handshake`."""


class WayOut:
    """Messages to one peer, whether or not it can be reached now."""

    def __init__(self, dialler: Dialler, address: str, peer_key: bytes) -> None:
        self._dialler = dialler
        self._counters = dialler.counters
        self._where = parse(address)
        self._peer_key = peer_key
        self._loop = asyncio.get_running_loop()
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._offset = 0
        """Of the first frame in the queue, so many bytes have been encrypted."""
        self._leaving: bytes | memoryview = b""
        """Encrypted, not taken by the system yet."""
        self._socket: socket.socket | None = None
        """Only while the link stands."""
        self._channel: Channel | None = None
        self._ended: asyncio.Future[None] | None = None
        self._task = self._loop.create_task(self._keep())

    @property
    def stands(self) -> bool:
        """Whether the peer has welcomed us."""
        return self._socket is not None

    # Sending ---------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> bool:
        """Send a frame now or later; whether there was room for it."""
        if self._socket is not None and not self._queue and not self._leaving:
            if len(frame) <= MAX_DATA_BYTES:
                self._transmit(frame)
                return True
        elif len(self._queue) >= MAX_QUEUED or (
            self._queue and self._queued_bytes + len(frame) > MAX_QUEUED_BYTES
        ):
            return False
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        if self._socket is not None and not self._leaving and len(self._queue) == 1:
            self._flush()
        return True

    def _transmit(self, data: bytes | memoryview) -> None:
        """Encrypt one record and give the system as much of it as it takes."""
        assert self._socket is not None and self._channel is not None
        record = self._channel.encrypt(data)
        try:
            sent = self._socket.send(record)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._end()
            return
        if sent < len(record):
            self._leaving = memoryview(record)[sent:]
            self._loop.add_writer(self._socket, self._flush)
        elif self._channel.records >= MAX_RECORDS:
            self._end()

    def _flush(self) -> None:
        """Send what waits, as long as the system takes it."""
        assert self._socket is not None
        if self._leaving:
            try:
                sent = self._socket.send(self._leaving)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._end()
                return
            self._leaving = self._leaving[sent:]
            if self._leaving:
                return
        for _ in range(MAX_FLUSHED):
            if not self._queue:
                self._loop.remove_writer(self._socket)
                return
            self._transmit(self._next_piece())
            if self._socket is None or self._leaving:
                return
        self._loop.add_writer(self._socket, self._flush)

    def _next_piece(self) -> bytes | memoryview:
        """Takes as much from the queue as one record carries."""
        first, start = self._queue[0], self._offset
        if len(first) - start > MAX_DATA_BYTES:
            self._offset += MAX_DATA_BYTES
            return memoryview(first)[start : self._offset]
        piece, self._offset = first[start:] if start else first, 0
        size, several = len(piece), [piece]
        self._drop_first()
        while self._queue and size + len(self._queue[0]) <= MAX_DATA_BYTES:
            size += len(self._queue[0])
            several.append(self._drop_first())
        return piece if len(several) == 1 else b"".join(several)

    def _drop_first(self) -> bytes:
        frame = self._queue.popleft()
        self._queued_bytes -= len(frame)
        return frame

    # Connecting ------------------------------------------------------------------------------------

    def redial(self) -> None:
        """End the connection, if one stands, and dial anew."""
        self._end()

    def close(self) -> asyncio.Task[None]:
        """End for good; what waits is lost, as in a crash. The task returned ends with the connection."""
        self._end()
        self._task.cancel()
        return self._task

    async def _keep(self) -> None:
        pause_s = FIRST_REDIAL_S
        while True:
            try:
                stood_s = await self._once()
            except (OSError, TimeoutError, LinkBroken):
                self._counters["dials_failed"] += 1
                stood_s = 0.0
            pause_s = FIRST_REDIAL_S if stood_s > MAX_REDIAL_S else min(2 * pause_s, MAX_REDIAL_S)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))

    async def _once(self) -> float:
        """Dial, and stay until the link ends; for how many seconds it stood."""
        family, host = await self._dialler.resolver.resolve(self._where[0])
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            async with asyncio.timeout(HANDSHAKE_S):
                prepare(connection)
                await self._loop.sock_connect(connection, (host, self._where[1]))
                channel = Channel(self._dialler.context, dialled=True)
                await prove(connection, channel, self._dialler.gate, self._peer_key.__eq__)
                await await_welcome(connection, channel)
            began_s = self._loop.time()
            self._socket, self._channel = connection, channel
            self._ended = self._loop.create_future()
            # Nothing is said on this side after the welcome: whatever arrives is its end.
            self._loop.add_reader(connection, self._end)
            try:
                self._flush()
                await self._ended
            finally:
                self._loop.remove_reader(connection)
                self._loop.remove_writer(connection)
                self._socket = self._channel = None
                # A new connection begins with a whole frame; what the system did not take is lost.
                self._leaving, self._offset = b"", 0
        return self._loop.time() - began_s

    def _end(self) -> None:
        if self._socket is not None and self._ended is not None and not self._ended.done():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None
            self._ended.set_result(None)
