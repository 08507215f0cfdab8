"""Fetching files from other participants: block by block, each checked against its CID before use.

Any holder may continue what another began: a source that is dead, slow or wrong is given up for the next link
at the block where it fails. `fetch_file` keeps what came in a file beside the target, so that an interrupted
download goes on where it stopped, whoever holds the file then.

Blocks are taken in the file's order. While one is awaited the next leaves are asked for too, so that a far
source costs little more than a near one; what fails while others are under way decides nothing and is asked
for again alone.

Bounds: `max_bytes` of file, one block at most `MAX_BLOCK_BYTES`, `MAX_DEPTH` levels, `MAX_UNDER_WAY` requests
at once, a deadline per block and one per source. No redirect is followed and nothing is unpacked.
`fetch_file` has `MAX_UNDER_WAY` leaves and one path of nodes in memory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeVar

import httpx

from offchain.storage.cid import RAW, Cid, InvalidCid
from offchain.storage.embedded import Progress, StorageFull
from offchain.storage.unixfs import CHUNK_BYTES, MAX_BLOCK_BYTES, MAX_DEPTH, Child, children_of, size_of
from protocol.errors import ProtocolError

T = TypeVar("T")

BLOCK_TIMEOUT_S: Final = 10.0
GRACE_S: Final = 30.0
MIN_RATE_BYTES_S: Final = 64 * 1024
"""A source gets `GRACE_S` and then as long as the largest file allowed takes at this rate."""
MAX_SOURCES: Final = 8
MAX_UNDER_WAY: Final = 4
"""Requests at once. A gateway takes 256 connections: 64 readers may do so at the same time."""
BUSY_S: Final = 0.2
"""A source that says it is busy (503) is asked again after this, and then after twice as long, and so on."""
PARTIAL: Final = ".part"
"""What the name of an unfinished download ends with."""


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
    """The file ``cid`` from those gateways that give it; callable inside a running event loop.

    Raises:
        Unavailable: some of it none gives, or it is larger than allowed; with the reason for each.
    """
    memory = _Memory()
    _wait(_fetch(cid, gateways, max_bytes, timeout_s, memory))
    return b"".join(memory.parts)


def fetch_file(
    cid: Cid,
    gateways: Sequence[str],
    path: Path,
    *,
    max_bytes: int,
    timeout_s: float = BLOCK_TIMEOUT_S,
    progress: Progress = lambda _: None,
) -> None:
    """The file ``cid`` to ``path``; what was fetched before, whole leaves of it, is not fetched again.

    Raises:
        Unavailable: as `fetch`; what came is kept beside ``path`` for the next try.
        StorageFull: no room, or the folder cannot be written.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(partial, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            _wait(_fetch(cid, gateways, max_bytes, timeout_s, _OnDisk(file, progress)))
            file.truncate(file.tell())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as reason:
        raise StorageFull(f"cannot write to {path}: {reason.strerror}; free some space") from reason


def probe(
    cid: Cid, gateways: Sequence[str], choose: Callable[[int], int], *, timeout_s: float = BLOCK_TIMEOUT_S
) -> None:
    """Fetch one leaf of a file, drawn at random by its bytes, and drop it: whether the holders still have it.

    Args:
        choose: a number below the one it is given, each as likely.

    Raises:
        Unavailable: nobody gives it, or a node on the way to it.
    """
    _wait(_probe(cid, gateways, choose, timeout_s))


async def _probe(root: Cid, gateways: Sequence[str], choose: Callable[[int], int], timeout_s: float) -> None:
    async with httpx.AsyncClient(timeout=timeout_s, follow_redirects=False) as client:
        sources = _Sources(client, gateways[:MAX_SOURCES], MAX_BLOCK_BYTES, timeout_s)
        try:
            cid = root
            for _ in range(MAX_DEPTH + 1):
                block = await sources.block(cid)
                children = [child for child in children_of(cid, block) if child.file_bytes]
                if not children:
                    return
                at = choose(sum(child.file_bytes for child in children))
                for child in children:
                    cid = child.cid
                    at -= child.file_bytes
                    if at < 0:
                        break
        except (_Refused, InvalidCid) as reason:
            told = [*sources.failures, str(reason)]
            raise Unavailable(f"a block of {root} could not be fetched ({'; '.join(told)})") from reason


def _wait(work: Coroutine[None, None, T]) -> T:
    # A thread with a loop of its own: only asyncio bounds a wait as a whole. A timeout per read does not,
    # as a source that sends one byte now and then would hold a validator for days.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="fetch") as pool:
        return pool.submit(asyncio.run, work).result()


async def _fetch(
    cid: Cid, gateways: Sequence[str], max_bytes: int, timeout_s: float, target: _Target
) -> None:
    async with httpx.AsyncClient(timeout=timeout_s, follow_redirects=False) as client:
        sources = _Sources(client, gateways[:MAX_SOURCES], max_bytes, timeout_s)
        ahead = _Ahead(sources)
        try:
            await _Download(sources, ahead, max_bytes, target).file(cid, None, 0)
        except (_Refused, InvalidCid) as reason:
            told = [*sources.failures, str(reason)]
            raise Unavailable(f"{cid} could not be fetched ({'; '.join(told)})") from reason
        finally:
            await ahead.stop()


class _Refused(Exception):
    """What came is not what was asked for, or nothing came."""


class _Target(Protocol):
    """Where the leaves of a file go, in their order."""

    @property
    def found_bytes(self) -> int:
        """Of so many bytes of the file, from its start, some may be here already."""
        ...

    def has(self, cid: Cid, size_bytes: int) -> bool:
        """Whether the next leaf is here already; if so, it counts as written."""
        ...

    def write(self, leaf: bytes) -> None:
        """Take the next leaf."""
        ...


class _Memory:
    """Keeps everything."""

    found_bytes = 0

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def has(self, cid: Cid, size_bytes: int) -> bool:
        return False

    def write(self, leaf: bytes) -> None:
        self.parts.append(leaf)


class _OnDisk:
    """A file that may hold the beginning already; believes nothing of it that does not match its CID."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._at = 0
        self.found_bytes = os.fstat(file.fileno()).st_size

    def has(self, cid: Cid, size_bytes: int) -> bool:
        there = size_bytes <= MAX_BLOCK_BYTES and cid.names(self._file.read(size_bytes))
        self._move(self._at + size_bytes if there else self._at)
        return there

    def write(self, leaf: bytes) -> None:
        self._file.write(leaf)
        self._move(self._at + len(leaf))

    def _move(self, at: int) -> None:
        self._at = at
        self._file.seek(at)
        self._progress(at)


class _Download:
    """One file; counts what it has taken."""

    def __init__(self, sources: _Sources, ahead: _Ahead, max_bytes: int, target: _Target) -> None:
        self._sources = sources
        self._ahead = ahead
        self._target = target
        self._max_bytes = self._left = max_bytes
        # A tree of empty leaves costs no bytes of file, so blocks have a bound of their own.
        self._blocks_left = 64 + 2 * max_bytes // CHUNK_BYTES

    async def file(self, cid: Cid, size_bytes: int | None, depth: int) -> None:
        """Fetch what is below a block, of which the parent says that it is so many bytes."""
        if depth > MAX_DEPTH:
            raise _Refused("the file's tree is too deep")
        self._blocks_left -= 1
        if self._blocks_left < 0:
            raise _Refused("the file has more blocks than a file of this size needs")
        if cid.codec == RAW and size_bytes is not None and self._target.has(cid, size_bytes):
            self._left -= size_bytes
            return
        block = await self._ahead.take(cid)
        size = size_of(cid, block)
        if size > self._left:
            raise _Refused("the file is larger than allowed")
        if size_bytes not in (None, size):
            raise _Refused("the file's tree misstates the size of a block")
        if cid.codec == RAW:
            self._left -= size
            self._target.write(block)
            return
        children = children_of(cid, block)
        for index, child in enumerate(children):
            self._ahead.wish(self._soon(children[index : index + MAX_UNDER_WAY]))
            await self.file(child.cid, child.file_bytes, depth + 1)

    def _soon(self, children: Sequence[Child]) -> list[Cid]:
        """Of the next blocks, the leaves that will be asked for if their node is right."""
        at = self._max_bytes - self._left
        wished = []
        for child in children[: max(0, self._blocks_left)]:
            end = at + child.file_bytes
            if child.cid.codec != RAW or child.file_bytes > MAX_BLOCK_BYTES or end > self._max_bytes:
                break
            if at >= self._target.found_bytes:
                wished.append(child.cid)
            at = end
        return wished


class _Ahead:
    """Asks for several leaves at once, as many as the source bears."""

    def __init__(self, sources: _Sources) -> None:
        self._sources = sources
        self._under_way: dict[Cid, asyncio.Task[bytes | None]] = {}
        self._at_once = 1

    def wish(self, leaves: Sequence[Cid]) -> None:
        """The next leaves, in their order, from the one whose turn it is."""
        soon = leaves[: self._at_once]
        if len(soon) < 2 and not self._under_way:
            return
        for cid in soon:
            if cid not in self._under_way and len(self._under_way) < self._at_once:
                self._under_way[cid] = asyncio.create_task(self._sources.early(cid))

    async def take(self, cid: Cid) -> bytes:
        """A checked block, whether it was asked for early or not; raises `_Refused` as `_Sources.block`."""
        early = self._under_way.pop(cid, None)
        if early is not None:
            if (block := await self._sources.awaited(early)) is not None:
                self._adapt()
                return block
            self._at_once = 1
            # Given up, they would still keep the source busy while it is asked alone.
            if await self._sources.awaited(asyncio.gather(*self._under_way.values())) is None:
                await self.stop()
        block = await self._sources.block(cid)
        self._adapt()
        return block

    def _adapt(self) -> None:
        # A slow line gives everything slower the more is asked for: nothing may come near its deadline.
        share = self._sources.took_s / self._sources.timeout_s
        if share < 1 / 8:
            self._at_once = min(MAX_UNDER_WAY, self._at_once + 1)
        elif share > 1 / 4:
            self._at_once = max(1, self._at_once // 2)

    async def stop(self) -> None:
        """Give up what is under way."""
        tasks = list(self._under_way.values())
        self._under_way.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Sources:
    """The gateways, of which the first that did not fail yet is asked."""

    def __init__(
        self, client: httpx.AsyncClient, gateways: Sequence[str], max_bytes: int, timeout_s: float
    ) -> None:
        self._client = client
        self._waiting = list(gateways)
        self.timeout_s = timeout_s
        self.took_s = 0.0
        """How long the last block took."""
        self._max_bytes = max_bytes
        self._patience_s = self._left_s = GRACE_S + max_bytes / MIN_RATE_BYTES_S
        self.failures: list[str] = [] if gateways else ["no gateway is known"]

    async def block(self, cid: Cid) -> bytes:
        """A checked block; raises `_Refused` when every gateway has failed."""
        while self._waiting:
            gateway = self._waiting[0]
            try:
                return await self._ask(gateway, cid)
            except (httpx.HTTPError, httpx.InvalidURL, _Refused) as reason:
                self.failures.append(f"{gateway}: {reason or type(reason).__name__}")
            del self._waiting[0]
            self._left_s = self._patience_s
        raise _Refused("nobody else is known to have it")

    async def early(self, cid: Cid) -> bytes | None:
        """A checked block from the first source, if that gives it; nobody is given up for it."""
        began_s = self._now()
        try:
            async with asyncio.timeout(self.timeout_s):
                data = await self._download(self._waiting[0], cid)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, IndexError, _Refused):
            return None
        self.took_s = self._now() - began_s
        return data if cid.names(data) else None

    async def awaited(self, early: Awaitable[T]) -> T | None:
        """What was asked for early, within the patience that the source has left; none if that ends."""
        began_s = self._now()
        try:
            async with asyncio.timeout(self._left_s):
                return await early
        except TimeoutError:
            return None
        finally:
            self._left_s -= self._now() - began_s

    async def _ask(self, gateway: str, cid: Cid) -> bytes:
        began_s = self._now()
        try:
            async with asyncio.timeout(min(self.timeout_s, self._left_s)):
                data = await self._download(gateway, cid)
        except TimeoutError as reason:
            if self._now() - began_s >= self._left_s:
                raise _Refused(f"too slow for a file of {self._max_bytes} bytes") from reason
            raise _Refused(f"gave no whole block in {self.timeout_s:g} s") from reason
        self.took_s = self._now() - began_s
        self._left_s -= self.took_s
        if not cid.names(data):
            raise _Refused(f"sent other bytes than {cid}")
        return data

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _download(self, gateway: str, cid: Cid) -> bytes:
        """What a source sends; waits for ever for one that says that it is busy."""
        pause_s = BUSY_S
        while (data := await self._once(gateway, cid)) is None:
            await asyncio.sleep(pause_s)
            pause_s *= 2
        return data

    async def _once(self, gateway: str, cid: Cid) -> bytes | None:
        url = link_to(gateway, cid)
        # Not compressed: a block is small, and unpacking has no bound.
        headers = {"Accept": "application/vnd.ipld.raw", "Accept-Encoding": "identity"}
        data = bytearray()
        async with self._client.stream("GET", url, params={"format": "raw"}, headers=headers) as response:
            if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                return None
            if response.status_code != 200:
                raise _Refused(f"answered {response.status_code} for {cid}")
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_BLOCK_BYTES:
                    raise _Refused("a block is larger than allowed")
        return bytes(data)
