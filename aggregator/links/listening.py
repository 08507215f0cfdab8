"""The door: accepts connections, lets those in whose key is registered, ends all others.

Strangers may knock as they like: at most `MAX_UNPROVED` connections stand without a finished handshake, a new
one ends the oldest; each has `HANDSHAKE_S` and `MAX_HANDSHAKE_BYTES` to prove a key. What is refused is
counted.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from typing import Final

from OpenSSL import SSL

from aggregator.links.address import family_of, parse
from aggregator.links.errors import LinkBroken, LinkError
from aggregator.links.handshake import Handshake, Steps, prepare
from aggregator.links.tls import Channel, welcome
from aggregator.pbft.messages import MAX_MEMBERS
from protocol.version import Versions

MAX_UNPROVED: Final = 2 * MAX_MEMBERS
"""Room for a whole committee that comes at once; about 40 MiB when all are in the midst of a handshake."""
HANDSHAKE_S: Final = 10.0
"""Waiting for the other side, all its bytes together."""
BACKLOG: Final = 512
BREATH_S: Final = 1.0
"""No connection is accepted for so long when the process has no more file descriptors."""


class Door:
    """Listens at an address; ``admit`` is handed whoever proved a key that is ``registered``."""

    def __init__(
        self,
        context: SSL.Context,
        address: str,
        *,
        counters: Counter[str],
        steps: Steps,
        registered: Callable[[bytes], bool],
        admit: Callable[[socket.socket, Channel], None],
        versions: Versions,
    ) -> None:
        self._welcome = welcome(versions)
        self.context = context
        """What new connections are accepted with."""
        self._counters, self._steps = counters, steps
        self._registered, self._admit = registered, admit
        self._unproved: dict[asyncio.Task[None], None] = {}
        self._loop = asyncio.get_running_loop()
        self._listener = _listen(address)
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        """Take in one connection per turn."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            self._counters["accepts_failed"] += 1
            self._loop.remove_reader(self._listener)
            self._loop.call_later(BREATH_S, self._listen_again)
            return
        if len(self._unproved) >= MAX_UNPROVED:
            self._counters["handshakes_crowded_out"] += 1
            oldest = next(iter(self._unproved))
            del self._unproved[oldest]
            oldest.cancel()
        task = self._loop.create_task(self._receive(connection))
        self._unproved[task] = None
        task.add_done_callback(lambda done: self._unproved.pop(done, None))

    def _listen_again(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)

    async def _receive(self, connection: socket.socket) -> None:
        """Let the other side prove its key; ends the connection unless it is admitted."""
        admitted = False
        try:
            prepare(connection)
            channel = Channel(self.context, dialled=False)
            await Handshake(connection, channel, self._steps, HANDSHAKE_S).prove(self._registered)
            await self._loop.sock_sendall(connection, channel.encrypt(self._welcome))
            admitted = True
        except TimeoutError:
            self._counters["handshakes_late"] += 1
        except (OSError, LinkBroken):
            self._counters["handshakes_refused"] += 1
        finally:
            if not admitted:
                connection.close()
        if admitted:
            self._admit(connection, channel)

    async def close(self) -> None:
        """Listen no more and end what is not proved."""
        self._loop.remove_reader(self._listener)
        self._listener.close()
        tasks = list(self._unproved)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _listen(address: str) -> socket.socket:
    host, port = parse(address)
    listener = socket.socket(family_of(host) or socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as reason:
        listener.close()
        raise LinkError(f"cannot listen on {address}: {reason.strerror}; choose another address") from reason
    return listener
