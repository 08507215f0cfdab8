"""The way out: one connection to one peer, dialled again and again, and what waits to leave on it.

What finds no room (`waiting`) is dropped and counted: consensus repeats what matters. Messages are encrypted
when the system takes them: at the end of the loop's turn, and small ones together; the system holds back
little that it cannot send, so that votes need not wait behind it. A connection that ends is dialled anew
after `FIRST_REDIAL_S`, doubling up to `MAX_REDIAL_S`: a peer refuses us until it has read our registration.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import Counter
from typing import Final

from OpenSSL import SSL

from aggregator.links.address import Resolver, parse
from aggregator.links.errors import LinkBroken, OtherVersion
from aggregator.links.handshake import Handshake, Steps, prepare
from aggregator.links.tls import MAX_RECORDS, Channel
from aggregator.links.waiting import Waiting
from protocol.version import Versions

log = logging.getLogger(__name__)

MAX_FLUSHED: Final = 64
"""Records that leave for one peer before others get a turn."""
FIRST_REDIAL_S: Final = 0.1
MAX_REDIAL_S: Final = 5.0
CONNECT_S: Final = 10.0
WELCOME_S: Final = 30.0
"""Waiting for the peer, which may have a whole committee at its door."""


class Dialler:
    """What all ways out of one member share."""

    def __init__(
        self, context: SSL.Context, counters: Counter[str], steps: Steps, versions: Versions
    ) -> None:
        self.context, self.counters, self.versions = context, counters, versions
        self.steps = steps
        self.resolver = Resolver()
        self._unsent: list[WayOut] = []
        """Those that have got something to send in this turn."""

    def flush_soon(self, way_out: WayOut) -> None:
        """Let what a way out holds leave at the end of this turn."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(way_out)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        for way_out in unsent:
            way_out.flush()


class WayOut:
    """Messages to one peer, whether or not it can be reached now."""

    def __init__(self, dialler: Dialler, address: str, peer_key: bytes) -> None:
        self._dialler = dialler
        self._counters = dialler.counters
        self._where = parse(address)
        self._peer_key = peer_key
        self._loop = asyncio.get_running_loop()
        self._waiting = Waiting()
        self._leaving: bytes | memoryview = b""
        """Encrypted, not taken by the system yet."""
        self._watching = False
        """Whether the system is full and calls us when it has room."""
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

    def send(self, frame: bytes, *, bulk: bool) -> bool:
        """Send a frame soon, ``bulk`` after what is more urgent; whether there was room for it."""
        if not self._waiting and self._socket is not None and not self._leaving:
            self._dialler.flush_soon(self)
        return self._waiting.put(frame, bulk=bulk)

    def flush(self) -> None:
        """Give the system what waits, as long as it takes it."""
        for _ in range(MAX_FLUSHED):
            if self._socket is None or self._channel is None:
                return  # what waits leaves on the next connection
            if not self._leaving:
                if not self._waiting:
                    self._watch_room(False)
                    return
                if self._channel.records >= MAX_RECORDS:
                    self._end()
                    return
            try:
                if not self._leaving:
                    self._leaving = self._channel.encrypt(self._waiting.next_piece())
                sent = self._socket.send(self._leaving)
            except (BlockingIOError, InterruptedError):
                break
            except (OSError, LinkBroken):
                self._end()
                return
            self._leaving = b"" if sent == len(self._leaving) else memoryview(self._leaving)[sent:]
        self._watch_room(True)

    def _watch_room(self, watch: bool) -> None:
        """Be called, or not any more, when the system takes more."""
        if watch != self._watching and self._socket is not None:
            self._watching = watch
            if watch:
                self._loop.add_writer(self._socket, self.flush)
            else:
                self._loop.remove_writer(self._socket)

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
        pause_s, told = FIRST_REDIAL_S, False
        while True:
            try:
                stood_s = await self._once()
                told = False
            except OtherVersion as reason:
                if not told:
                    log.error("no link to %s:%d: %s", *self._where, reason)
                told, stood_s = True, 0.0
                self._counters["dials_to_other_version"] += 1
            except (OSError, TimeoutError, LinkBroken):
                self._counters["dials_failed"] += 1
                stood_s = 0.0
            except Exception:  # a member that stops dialling hears all and is heard by none, for ever
                log.exception("no link to %s:%d for a reason that nobody thought of", *self._where)
                self._counters["dials_failed"] += 1
                stood_s = 0.0
            pause_s = FIRST_REDIAL_S if stood_s > MAX_REDIAL_S else min(2 * pause_s, MAX_REDIAL_S)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))

    async def _once(self) -> float:
        """Dial, and stay until the link ends; for how many seconds it stood."""
        family, host = await self._dialler.resolver.resolve(self._where[0])
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            prepare(connection)
            channel = Channel(self._dialler.context, dialled=True, versions=self._dialler.versions)
            # The hello first: whoever accepts a connection does not wait long for it.
            await self._dialler.steps.turn(begun=False)
            hello = channel.advance(b"")
            async with asyncio.timeout(CONNECT_S):
                await self._loop.sock_connect(connection, (host, self._where[1]))
                await self._loop.sock_sendall(connection, hello)
            handshake = Handshake(connection, channel, self._dialler.steps, WELCOME_S)
            await handshake.prove(self._peer_key.__eq__)
            await handshake.await_welcome()
            began_s = self._loop.time()
            self._socket, self._channel = connection, channel
            self._ended = self._loop.create_future()
            # Nothing is said on this side after the welcome: whatever arrives is its end.
            self._loop.add_reader(connection, self._end)
            try:
                self.flush()
                await self._ended
            finally:
                self._loop.remove_reader(connection)
                self._loop.remove_writer(connection)
                self._socket = self._channel = None
                # A new connection begins with a whole frame; what the system did not take is lost.
                self._waiting.begin_again()
                self._leaving, self._watching = b"", False
        return self._loop.time() - began_s

    def _end(self) -> None:
        if self._socket is not None and self._ended is not None and not self._ended.done():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = None
            self._ended.set_result(None)
