"""Members with links, and strangers: what the tests of links share."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aggregator.links.dialling import WayOut
from aggregator.links.frames import frame
from aggregator.links.handshake import Handshake, Steps
from aggregator.links.keys import LinkKey
from aggregator.links.links import Links, Peer
from aggregator.links.tls import MAX_DATA_BYTES, Channel, context_for
from aggregator.pbft.messages import LinkMessage
from protocol.crypto import Key, keccak256
from protocol.version import SUPPORTED, Versions

PATIENCE_S = 60.0
KEYS = [LinkKey.derive(Key(keccak256(b"member %d" % index))) for index in range(4)]
STRANGER = LinkKey.derive(Key(keccak256(b"stranger")))


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous test; what hangs fails, and so does what the loop had to report."""
    reported: list[dict[str, Any]] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        await asyncio.wait_for(test(), 3 * PATIENCE_S)

    asyncio.run(bounded())
    assert not reported


def free_address() -> str:
    """A loopback address nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def host_of(peer: Peer) -> tuple[str, int]:
    """Where to connect to."""
    host, _, port = peer.address.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def opened(
    count: int, addresses: list[str] | None = None, versions: Sequence[Versions] = ()
) -> tuple[list[Links], dict[int, Peer]]:
    """``count`` members that all know each other, with software of these ``versions``."""
    addresses = addresses or [free_address() for _ in range(count)]
    peers = {n: Peer(index=n, address=addresses[n], link_key=KEYS[n].public) for n in range(count)}
    known = [*versions, *[SUPPORTED] * (count - len(versions))]
    members = [Links(KEYS[n], addresses[n], known[n]) for n in range(count)]
    for member in members:
        member.start()
        member.set_peers(peers)
    return members, peers


async def closed(*members: Links) -> None:
    """Close all of them."""
    for member in members:
        await member.close()


class Ear:
    """Hears messages one by one."""

    def __init__(self, member: Links) -> None:
        self._member = member
        self._heard: list[tuple[int, LinkMessage]] = []

    async def hear(self, patience_s: float = PATIENCE_S) -> tuple[int, LinkMessage]:
        """The next message."""
        if not self._heard:
            self._heard = list(await asyncio.wait_for(self._member.receive(), patience_s))
        return self._heard.pop(0)


async def heard(member: Links) -> tuple[int, LinkMessage]:
    """The next message, where no more than one is under way."""
    (message,) = await asyncio.wait_for(member.receive(), PATIENCE_S)
    return message


def way_out(member: Links, to: int) -> WayOut:
    """A member's way to another."""
    return member._ways_out[to]


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


class Stranger:
    """A bare connection with a key of one's choice: says whatever it wants."""

    def __init__(self, connection: socket.socket, channel: Channel) -> None:
        self.socket, self.channel = connection, channel

    @classmethod
    async def knock(cls, key: LinkKey, target: Peer) -> Stranger:
        """Connect and prove the key; raises if the target does not welcome it."""
        connection = socket.socket()
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, host_of(target))
        channel = Channel(context_for(key), dialled=True)
        try:
            await loop.sock_sendall(connection, channel.advance(b""))
            handshake = Handshake(connection, channel, Steps(), PATIENCE_S)
            await handshake.prove(target.link_key.__eq__)
            await handshake.await_welcome()
        except BaseException:
            connection.close()
            raise
        return cls(connection, channel)

    async def say(self, message: bytes) -> None:
        """A message as one does."""
        await self.write(frame(message))

    async def write(self, stream: bytes) -> None:
        """Any bytes, encrypted."""
        for start in range(0, len(stream), MAX_DATA_BYTES):
            await self.write_raw(self.channel.encrypt(stream[start : start + MAX_DATA_BYTES]))

    async def write_raw(self, data: bytes) -> None:
        """Any bytes, as they are."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def is_cut(self) -> bool:
        """Whether the other side ends the connection."""
        try:
            return not await asyncio.wait_for(
                asyncio.get_running_loop().sock_recv(self.socket, 1), PATIENCE_S
            )
        except OSError:
            return True

    def close(self) -> None:
        """Leave."""
        self.socket.close()
