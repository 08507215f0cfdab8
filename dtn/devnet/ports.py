"""Ports on loopback for processes that are yet to start.

They lie below those that systems give to outgoing connections and to whoever asks for any port. On Linux,
`Ports` also keeps them from whoever else looks for one: a socket stays bound to each, beside which only a
server that names the port (and reuses addresses, as all of ours and Anvil do) can listen.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
from types import TracebackType
from typing import Final, Self

from protocol.errors import ProtocolError

RANGE: Final = range(20_000, 32_768)
"""Linux gives to connections what is above, others what is above 49,152."""
KEEPS: Final = sys.platform == "linux"
"""Whether a server may listen beside a socket that is bound and does not listen."""


class NoPorts(ProtocolError):
    """So many free ports are not to be had."""


class Ports:
    """Ports that were free when they were taken, kept until `release` if the system can."""

    def __init__(self) -> None:
        self._kept = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def take(self, count: int) -> list[int]:
        """Different ports, of which nobody else has taken any.

        Raises:
            NoPorts: there are not so many.
        """
        found: list[int] = []
        with contextlib.ExitStack() as probes:
            # Its own source: a test that fixes the seed would draw the ports of every other one.
            for port in random.SystemRandom().sample(RANGE, len(RANGE)):
                if len(found) == count:
                    break
                probe = socket.socket()
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    probe.close()
                    continue
                probes.enter_context(probe)
                found.append(port)
                if KEEPS:
                    # Only now: with it, another's probe would have been let in beside a bound one.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if len(found) < count:
                raise NoPorts(f"{count} free ports are not to be had between {RANGE[0]} and {RANGE[-1]}")
            if KEEPS:
                self._kept.push(probes.pop_all())
        return found

    def release(self) -> None:
        """Keep none of them any longer."""
        self._kept.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with Ports() as ports:
        return ports.take(1)[0]
