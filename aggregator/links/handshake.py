"""Handshakes over sockets: the same steps at both ends, one at a time.

A step is up to a millisecond of computing that anybody may cause. Of all handshakes of a member one step is
taken per turn of the event loop, so strangers delay each other and not the members.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from aggregator.links.errors import LinkBroken
from aggregator.links.tls import Channel

HANDSHAKE_S: Final = 10.0
"""From the first byte to the welcome: a whole committee may come at once."""
_READ_BYTES: Final = 4096
_KEEPALIVE: Final = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, 1),
    "TCP_NODELAY": (socket.IPPROTO_TCP, 1),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, 5),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, 2),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, 3),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, 10_000),
}
"""A machine that vanishes is noticed within 11 seconds, where the system has these options."""


def prepare(connection: socket.socket) -> None:
    """Never block, never hold back small messages, notice when the other side is gone."""
    connection.setblocking(False)
    for name, (level, value) in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(level, getattr(socket, name), value)


async def prove(
    connection: socket.socket, channel: Channel, gate: asyncio.Lock, expected: Callable[[bytes], bool]
) -> None:
    """Shake hands; `Channel.peer_key` is known and ``expected`` afterwards.

    Raises:
        LinkBroken: the other side is not what it must be.
        OSError: the connection ended.
    """
    loop, data = asyncio.get_running_loop(), b""
    if channel.dialled:
        await _step(loop, connection, channel, gate, data)
    while channel.peer_key is None:
        data = await _read(loop, connection)
        await _step(loop, connection, channel, gate, data)
    if not expected(channel.peer_key):
        raise LinkBroken("the other side has proved a key that is not expected here")


async def await_welcome(connection: socket.socket, channel: Channel) -> None:
    """At the dialling end: wait until the other side has found our key among the registered ones."""
    loop, data = asyncio.get_running_loop(), b""
    while not channel.welcomed(data):
        data = await _read(loop, connection)


async def _step(
    loop: asyncio.AbstractEventLoop,
    connection: socket.socket,
    channel: Channel,
    gate: asyncio.Lock,
    data: bytes,
) -> None:
    async with gate:
        await asyncio.sleep(0)
        leaving = channel.advance(data)
    if leaving:
        await loop.sock_sendall(connection, leaving)


async def _read(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    data = await loop.sock_recv(connection, _READ_BYTES)
    if not data:
        raise ConnectionResetError("the other side ended the connection")
    return data
