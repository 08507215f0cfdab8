"""Fetching files from other participants: block by block, each checked against its CID before use.

Bounds: `max_bytes` of file, one block at most `MAX_BLOCK_BYTES`, `MAX_DEPTH` levels, a deadline per
block and one per source. A source that is dead, slow or wrong is given up for the next link; no redirect is
followed and nothing is unpacked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx

from offchain.storage.cid import Cid, InvalidCid
from offchain.storage.unixfs import CHUNK_BYTES, MAX_BLOCK_BYTES, children_of
from protocol.errors import ProtocolError

BLOCK_TIMEOUT_S: Final = 10.0
GRACE_S: Final = 30.0
MIN_RATE_BYTES_S: Final = 64 * 1024
"""A source gets `GRACE_S` and then as long as the largest file allowed takes at this rate."""
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
    """The file ``cid`` from the first gateway that gives all of it; callable inside a running event loop.

    Raises:
        Unavailable: none did; with the reason for each.
    """
    # A thread with a loop of its own: only asyncio bounds a wait as a whole. A timeout per read does not,
    # as a source that sends one byte now and then would hold a validator for days.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="fetch") as pool:
        return pool.submit(asyncio.run, _fetch(cid, gateways, max_bytes, timeout_s)).result()


async def _fetch(cid: Cid, gateways: Sequence[str], max_bytes: int, timeout_s: float) -> bytes:
    failures = []
    patience_s = GRACE_S + max_bytes / MIN_RATE_BYTES_S
    async with httpx.AsyncClient(timeout=timeout_s, follow_redirects=False) as client:
        for gateway in gateways[:MAX_SOURCES]:
            try:
                async with asyncio.timeout(patience_s):
                    return await _Download(client, gateway, max_bytes, timeout_s).file(cid, 0)
            except TimeoutError:
                failures.append(f"{gateway}: too slow for a file of {max_bytes} bytes")
            except (httpx.HTTPError, httpx.InvalidURL, InvalidCid, _Refused) as reason:
                failures.append(f"{gateway}: {reason or type(reason).__name__}")
    raise Unavailable(f"{cid} could not be fetched ({'; '.join(failures) or 'no gateway is known'})")


class _Refused(Exception):
    """A source answered, but not with what was asked for."""


class _Download:
    """One file from one gateway; counts what it has taken."""

    def __init__(self, client: httpx.AsyncClient, gateway: str, max_bytes: int, timeout_s: float) -> None:
        self._client = client
        self._gateway = gateway
        self._timeout_s = timeout_s
        self._left = max_bytes
        # A tree of empty leaves costs no bytes of file, so requests have a bound of their own.
        self._requests_left = 64 + 2 * max_bytes // CHUNK_BYTES

    async def file(self, cid: Cid, depth: int) -> bytes:
        if depth > MAX_DEPTH:
            raise _Refused("the file's tree is too deep")
        block = await self._block(cid)
        children = children_of(cid, block)
        if not children:
            self._left -= len(block)
            if self._left < 0:
                raise _Refused("the file is larger than allowed")
            return block
        if sum(child.file_bytes for child in children) > self._left:
            raise _Refused("the file is larger than allowed")
        return b"".join([await self.file(child.cid, depth + 1) for child in children])

    async def _block(self, cid: Cid) -> bytes:
        self._requests_left -= 1
        if self._requests_left < 0:
            raise _Refused("the file has more blocks than a file of this size needs")
        try:
            async with asyncio.timeout(self._timeout_s):
                data = await self._download(cid)
        except TimeoutError as reason:
            raise _Refused(f"gave no whole block in {self._timeout_s:g} s") from reason
        if not cid.names(data):
            raise _Refused(f"sent other bytes than {cid}")
        return data

    async def _download(self, cid: Cid) -> bytes:
        url = link_to(self._gateway, cid)
        # Not compressed: a block is small, and unpacking has no bound.
        headers = {"Accept": "application/vnd.ipld.raw", "Accept-Encoding": "identity"}
        data = bytearray()
        async with self._client.stream("GET", url, params={"format": "raw"}, headers=headers) as response:
            if response.status_code != 200:
                raise _Refused(f"answered {response.status_code} for {cid}")
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_BLOCK_BYTES:
                    raise _Refused("a block is larger than allowed")
        return bytes(data)
