"""Link addresses: ``tcp://HOST:PORT``, where a host is an IPv4 or IPv6 address or a name.

Peers choose the names that they register, and a name server of theirs may never answer. So names are looked
up in threads of their own, at most `MAX_LOOKUPS` at once, and nothing else ever waits for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import urlsplit

from aggregator.links.errors import LinkError
from aggregator.pbft.messages import MAX_MEMBERS

MAX_LOOKUPS: Final = MAX_MEMBERS
"""One per member: those who register bad names keep nobody else waiting."""


def parse(address: str) -> tuple[str, int]:
    """Host and port; raises `LinkError` for anything else."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as reason:
        raise LinkError(f"{address!r} is no link address: {reason}") from reason
    if parts.scheme != "tcp" or not host or port is None or parts.path or parts.query or parts.username:
        raise LinkError(f"{address!r} is no link address; write tcp://HOST:PORT")
    return ("0.0.0.0" if host == "*" else host), port


def family_of(host: str) -> socket.AddressFamily | None:
    """The family of a numeric address; none for a name."""
    with contextlib.suppress(ValueError):
        return socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    return None


class Resolver:
    """Looks up the names of hosts."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="link-names")

    async def resolve(self, host: str) -> tuple[socket.AddressFamily, str]:
        """A numeric address; raises `OSError` if the name has none."""
        family = family_of(host)
        if family is not None:
            return family, host
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._threads, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            )
        except UnicodeError as reason:
            raise OSError(f"{host!r} is no name of a host") from reason
        return found[0][0], str(found[0][4][0])

    def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)
