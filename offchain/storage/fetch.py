"""Fetching files from other participants: block by block, each checked against its CID before use.

Bounds: `max_bytes` of file, one block at most `MAX_BLOCK_BYTES`, `MAX_DEPTH` levels, a timeout per block. A
source that is dead, slow or wrong is given up for the next link; no redirect is followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import httpx

from offchain.storage.cid import Cid, InvalidCid
from offchain.storage.unixfs import CHUNK_BYTES, MAX_BLOCK_BYTES, children_of
from protocol.errors import ProtocolError

BLOCK_TIMEOUT_S: Final = 10.0
MAX_DEPTH: Final = 8
MAX_SOURCES: Final = 8


class Unavailable(ProtocolError):
    """No source gave the file; says what each one did."""


def link_to(gateway: str, cid: Cid) -> str:
    """The link under which ``gateway`` serves a file."""
    return f"{gateway.rstrip('/')}/ipfs/{cid}"


def parse_link(link: str) -> tuple[str, Cid]:
    """Gateway and CID of a link; raises `InvalidCid`."""
    gateway, separator, text = link.partition("/ipfs/")
    if not separator or not gateway.startswith(("http://", "https://")):
        raise InvalidCid(f"{link[:100]!r} is no http link to /ipfs/CID")
    return gateway, Cid.parse(text)


def fetch(cid: Cid, gateways: Sequence[str], *, max_bytes: int, timeout_s: float = BLOCK_TIMEOUT_S) -> bytes:
    """The file ``cid`` from the first gateway that gives all of it.

    Raises:
        Unavailable: none did; with the reason for each.
    """
    failures = []
    with httpx.Client(timeout=timeout_s, follow_redirects=False) as client:
        for gateway in gateways[:MAX_SOURCES]:
            try:
                return _Download(client, gateway, max_bytes).file(cid, 0)
            except (httpx.HTTPError, httpx.InvalidURL, InvalidCid, _Refused) as reason:
                failures.append(f"{gateway}: {reason or type(reason).__name__}")
    raise Unavailable(f"{cid} could not be fetched ({'; '.join(failures) or 'no gateway is known'})")


class _Refused(Exception):
    """A source answered, but not with what was asked for."""


class _Download:
    """One file from one gateway; counts what it has taken."""

    def __init__(self, client: httpx.Client, gateway: str, max_bytes: int) -> None:
        self._client = client
        self._gateway = gateway
        self._left = max_bytes
        # A tree of empty leaves costs no bytes of file, so requests have a bound of their own.
        self._requests_left = 64 + 2 * max_bytes // CHUNK_BYTES

    def file(self, cid: Cid, depth: int) -> bytes:
        if depth > MAX_DEPTH:
            raise _Refused("the file's tree is too deep")
        block = self._block(cid)
        children = children_of(cid, block)
        if not children:
            self._left -= len(block)
            if self._left < 0:
                raise _Refused("the file is larger than allowed")
            return block
        if sum(child.file_bytes for child in children) > self._left:
            raise _Refused("the file is larger than allowed")
        return b"".join(self.file(child.cid, depth + 1) for child in children)

    def _block(self, cid: Cid) -> bytes:
        self._requests_left -= 1
        if self._requests_left < 0:
            raise _Refused("the file has more blocks than a file of this size needs")
        url = link_to(self._gateway, cid)
        headers = {"Accept": "application/vnd.ipld.raw"}
        with self._client.stream("GET", url, params={"format": "raw"}, headers=headers) as response:
            if response.status_code != 200:
                raise _Refused(f"answered {response.status_code} for {cid}")
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_BLOCK_BYTES:
                    raise _Refused("a block is larger than allowed")
        if not cid.names(bytes(data)):
            raise _Refused(f"sent other bytes than {cid}")
        return bytes(data)
