"""The way in: takes in what admitted connections bring, in turns, as fast as it is wanted and no faster.

A turn is one read of at most `READ_BYTES` and at most `MAX_FRAMES` messages. When `MAX_ARRIVED` messages or
`MAX_ARRIVED_BYTES` wait for `take`, connections wait too, in the order in which they came: the systems'
buffers fill, and senders notice. A member that floods gets its turns and no more.

Bounds: a key has `MAX_CONNECTIONS` connections, a new one ends the oldest. Each holds one incomplete message
and one read; with messages of 32 MiB a lying member can make this one hold 65 MiB, beside what waits for
`take`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from aggregator.links.errors import LinkBroken
from aggregator.links.frames import Frames
from aggregator.links.tls import Channel

READ_BYTES: Final = 64 * 1024
MAX_FRAMES: Final = 64
"""Messages of one connection before others get a turn."""
MAX_ARRIVED: Final = 256
MAX_ARRIVED_BYTES: Final = 64 * 1024 * 1024
"""Reached with at most one more message of the largest size."""
MAX_CONNECTIONS: Final = 2
"""Of one key: one that stands, and one whose end has not been noticed yet."""


class Incoming:
    """A connection whose other end has proved its key."""

    __slots__ = ("channel", "frames", "key", "socket", "waits")

    def __init__(self, connection: socket.socket, channel: Channel) -> None:
        assert channel.peer_key is not None
        self.socket, self.channel, self.key = connection, channel, channel.peer_key
        self.frames = Frames()
        self.waits = False
        """Whether it stands in the line for a turn; then nothing is read meanwhile."""


class WaysIn:
    """All connections that bring messages, and the messages that nobody has taken yet."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._connections: dict[bytes, list[Incoming]] = {}
        self._arrived: list[tuple[bytes, bytes]] = []
        self._arrived_bytes = 0
        self._line: deque[Incoming] = deque()
        self._serving: asyncio.Handle | None = None
        self._taker: asyncio.Future[None] | None = None

    def admit(self, connection: socket.socket, channel: Channel) -> None:
        """Read from a connection from now on."""
        incoming = Incoming(connection, channel)
        same = self._connections.setdefault(incoming.key, [])
        if len(same) >= MAX_CONNECTIONS:
            self._counters["connections_replaced"] += 1
            self._end(same[0])
        self._connections.setdefault(incoming.key, []).append(incoming)
        asyncio.get_running_loop().add_reader(connection, self._on_readable, incoming)

    def keep_only(self, registered: Callable[[bytes], bool]) -> None:
        """End all connections of other keys."""
        for key, connections in list(self._connections.items()):
            if not registered(key):
                for incoming in list(connections):
                    self._end(incoming)

    async def take(self) -> list[tuple[bytes, bytes]]:
        """All messages that have arrived, at least one, with the keys of their senders."""
        while not self._arrived:
            self._taker = asyncio.get_running_loop().create_future()
            try:
                await self._taker
            finally:
                self._taker = None
        taken, self._arrived, self._arrived_bytes = self._arrived, [], 0
        if self._line:
            self._serve_soon()
        return taken

    def close(self) -> None:
        """End all connections; what has arrived can still be taken."""
        self.keep_only(lambda key: False)

    # Turns -----------------------------------------------------------------------------------------

    @property
    def _has_room(self) -> bool:
        return len(self._arrived) < MAX_ARRIVED and self._arrived_bytes < MAX_ARRIVED_BYTES

    def _on_readable(self, incoming: Incoming) -> None:
        if not self._has_room:
            self._queue(incoming)
            return
        try:
            data = incoming.socket.recv(READ_BYTES)
            if data:
                incoming.frames.feed(incoming.channel.decrypt(data))
                self._take_frames(incoming)
            else:
                self._end(incoming)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end(incoming)
        except LinkBroken:
            self._counters["links_broken"] += 1
            self._end(incoming)

    def _take_frames(self, incoming: Incoming) -> None:
        """The messages that are whole now; raises `LinkBroken` for one that is too long."""
        messages = incoming.frames.take(MAX_FRAMES)
        for message in messages:
            self._arrived.append((incoming.key, message))
            self._arrived_bytes += len(message)
        if messages and self._taker is not None and not self._taker.done():
            self._taker.set_result(None)
        if len(messages) == MAX_FRAMES:
            self._queue(incoming)
        elif incoming.waits:
            incoming.waits = False
            asyncio.get_running_loop().add_reader(incoming.socket, self._on_readable, incoming)

    def _queue(self, incoming: Incoming) -> None:
        """Read nothing from it until its turn comes."""
        if not incoming.waits:
            incoming.waits = True
            asyncio.get_running_loop().remove_reader(incoming.socket)
        self._line.append(incoming)
        if self._has_room:
            self._serve_soon()

    def _serve_soon(self) -> None:
        if self._serving is None:
            self._serving = asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        """Give a turn to everyone in the line, as long as there is room."""
        self._serving = None
        for _ in range(len(self._line)):
            if not self._has_room:
                return
            incoming = self._line.popleft()
            try:
                self._take_frames(incoming)
            except LinkBroken:
                self._counters["links_broken"] += 1
                self._end(incoming)

    def _end(self, incoming: Incoming) -> None:
        if incoming.waits:
            self._line = deque(other for other in self._line if other is not incoming)
        asyncio.get_running_loop().remove_reader(incoming.socket)
        incoming.socket.close()
        same = self._connections[incoming.key]
        same.remove(incoming)
        if not same:
            del self._connections[incoming.key]
