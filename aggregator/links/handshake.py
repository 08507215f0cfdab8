"""Handshakes over sockets: the same steps at both ends, one at a time.

A step is up to a millisecond of computing that anybody may cause. Of all handshakes of a member one step is
taken per turn of the event loop, so strangers delay each other and not the members; those that have begun go
first, so that a committee that comes all at once is let in one by one, and none waits for all.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from aggregator.links.errors import LinkBroken
from aggregator.links.tls import Channel

_READ_BYTES: Final = 4096
_OPTIONS: Final = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, 1),
    "TCP_NODELAY": (socket.IPPROTO_TCP, 1),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, 5),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, 2),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, 3),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, 10_000),
    "TCP_NOTSENT_LOWAT": (socket.IPPROTO_TCP, 128 * 1024),
}
"""Where the system has these options, a machine that vanishes is noticed within 11 seconds, and what cannot
be sent yet stays here, where votes overtake it."""


def prepare(connection: socket.socket) -> None:
    """Never block, never hold back small messages, notice when the other side is gone."""
    connection.setblocking(False)
    for name, (level, value) in _OPTIONS.items():
        if hasattr(socket, name):
            connection.setsockopt(level, getattr(socket, name), value)


class Steps:
    """Who may take the next step of a handshake."""

    def __init__(self) -> None:
        self._begun: deque[asyncio.Future[None]] = deque()
        self._new: deque[asyncio.Future[None]] = deque()
        self._next_comes = False

    async def turn(self, *, begun: bool) -> None:
        """Wait for one's turn."""
        turn = asyncio.get_running_loop().create_future()
        (self._begun if begun else self._new).append(turn)
        self._next_soon()
        await turn

    def _next_soon(self) -> None:
        if not self._next_comes:
            self._next_comes = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._next_comes = False
        while line := self._begun or self._new:
            turn = line.popleft()
            if not turn.done():  # else whoever waited for it has given up
                turn.set_result(None)
                break
        if self._begun or self._new:
            self._next_soon()


class Handshake:
    """One handshake; waits ``patience_s`` in all for the other side, and for its turns until they come."""

    def __init__(self, connection: socket.socket, channel: Channel, steps: Steps, patience_s: float) -> None:
        self._socket, self._channel, self._steps = connection, channel, steps
        self._patience_s = patience_s

    async def prove(self, expected: Callable[[bytes], bool]) -> None:
        """Shake hands, after the dialler's hello; `Channel.peer_key` is known and ``expected`` afterwards.

        Raises:
            LinkBroken: the other side is not what it must be.
            TimeoutError: it takes too long.
            OSError: the connection ended.
        """
        begun = self._channel.dialled
        while self._channel.peer_key is None:
            data = await self._read()
            await self._steps.turn(begun=begun)
            leaving = self._channel.advance(data)
            if leaving:
                await asyncio.get_running_loop().sock_sendall(self._socket, leaving)
            begun = True
        if not expected(self._channel.peer_key):
            raise LinkBroken("the other side has proved a key that is not expected here")

    async def await_welcome(self) -> None:
        """At the dialling end: wait until the other side has found our key among the registered ones."""
        data = b""
        while not self._channel.welcomed(data):
            data = await self._read()

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with asyncio.timeout(self._patience_s):
            data = await loop.sock_recv(self._socket, _READ_BYTES)
        self._patience_s -= loop.time() - began_s
        if not data:
            raise ConnectionResetError("the other side ended the connection")
        return data
