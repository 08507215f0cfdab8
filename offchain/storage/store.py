"""What every storage backend can do (design section 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol

from offchain.storage.cid import Cid
from offchain.storage.embedded import Collected, Pin
from offchain.storage.unixfs import Block


class Store(Protocol):
    """Content-addressed files of one participant."""

    def put(self, data: bytes) -> Cid:
        """Keep a file; returns its CID. Kept files stay until `unpin`."""
        ...

    def put_file(self, file: BinaryIO, progress: Callable[[int], None] = ...) -> Cid:
        """Keep a file that need not fit in memory."""
        ...

    def take(
        self, roots: Iterable[Cid], blocks: Iterable[Block], progress: Callable[[int], None] = ...
    ) -> None:
        """Keep files out of their blocks, in any order."""
        ...

    def get(self, cid: Cid) -> bytes:
        """A kept file; raises `NotStored`."""
        ...

    def read(self, cid: Cid, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """A kept file, or a part of it, block by block; raises `NotStored`."""
        ...

    def blocks(self, cid: Cid) -> Iterator[Block]:
        """The blocks of a kept file in depth-first order, each once; raises `NotStored`."""
        ...

    def size(self, cid: Cid) -> int:
        """Bytes of a kept file; raises `NotStored`."""
        ...

    def has(self, cid: Cid) -> bool:
        """Whether the whole file is kept."""
        ...

    def pins(self) -> list[Pin]:
        """The kept files."""
        ...

    def publish(self, cid: Cid, progress: Callable[[int], None] = ...) -> None:
        """Let others fetch a kept file."""
        ...

    def public_block(self, cid: Cid) -> bytes | None:
        """A block that others may fetch; none if it is not public or damaged."""
        ...

    def unpin(self, cid: Cid) -> None:
        """Keep a file no longer."""
        ...

    def collect(self) -> Collected:
        """Remove what no kept file needs."""
        ...
