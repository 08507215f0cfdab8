"""What every storage backend can do (design section 9)."""

from __future__ import annotations

from typing import Protocol

from offchain.storage.cid import Cid


class Store(Protocol):
    """Content-addressed files of one participant."""

    def put(self, data: bytes) -> Cid:
        """Keep a file; returns its CID. Kept files stay until `unpin`."""
        ...

    def get(self, cid: Cid) -> bytes:
        """A kept file; raises `NotStored`."""
        ...

    def has(self, cid: Cid) -> bool:
        """Whether the whole file is kept."""
        ...

    def publish(self, cid: Cid) -> None:
        """Let others fetch a kept file."""
        ...

    def unpin(self, cid: Cid) -> None:
        """Keep a file no longer."""
        ...
