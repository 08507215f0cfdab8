"""The embedded backend: blocks as files on disk, some of them public.

``private/`` holds every block this participant keeps, ``public/`` links to those that others may fetch (a
client's test fragments stay private until training has closed), ``roots/`` lists the blocks of each file.
All writes are atomic (temporary file, then rename), so several processes of one participant may share it.

Guarantee: `get` returns bytes only after every block matched its CID.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from offchain.storage.cid import Cid
from offchain.storage.unixfs import build, children_of
from protocol.errors import ProtocolError


class NotStored(ProtocolError):
    """The store does not have this file, or a block of it is damaged."""


class StorageFull(ProtocolError):
    """The disk has no room; nothing was stored."""


class EmbeddedStore:
    """Files of one participant under ``path``."""

    def __init__(self, path: Path) -> None:
        self._private = path / "private"
        self._public = path / "public"
        self._roots = path / "roots"
        for folder in (self._private, self._public, self._roots):
            folder.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> Cid:
        """Keep a file; returns its CID."""
        root, blocks = build(data)
        for cid, block in blocks.items():
            self._write(self._private / str(cid), block)
        listing = json.dumps(sorted(str(cid) for cid in blocks)).encode()
        self._write(self._roots / str(root), listing)
        return root

    def _write(self, path: Path, data: bytes) -> None:
        if path.exists():
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except OSError as reason:
            Path(name).unlink(missing_ok=True)
            raise StorageFull(
                f"cannot write to {path.parent}: {reason.strerror}; free some space"
            ) from reason

    def get(self, cid: Cid) -> bytes:
        """A kept file.

        Raises:
            NotStored: a block is missing or damaged.
        """
        block = self._block(self._private, cid)
        if block is None:
            raise NotStored(f"{cid} is not stored here")
        children = children_of(cid, block)
        return b"".join(self.get(child.cid) for child in children) if children else block

    def has(self, cid: Cid) -> bool:
        """Whether the whole file is kept."""
        return (self._roots / str(cid)).exists()

    def publish(self, cid: Cid) -> None:
        """Let others fetch a kept file; publishing twice changes nothing."""
        for name in self._blocks_of(cid):
            target = self._public / name
            if not target.exists():
                try:
                    os.link(self._private / name, target)
                except FileExistsError:
                    continue  # another process of this participant was faster

    def unpin(self, cid: Cid) -> None:
        """Keep a file no longer; blocks that other files share stay."""
        mine = set(self._blocks_of(cid))
        (self._roots / str(cid)).unlink()
        shared = {name for root in self._roots.iterdir() for name in json.loads(root.read_text())}
        for name in mine - shared:
            (self._private / name).unlink(missing_ok=True)
            (self._public / name).unlink(missing_ok=True)

    def public_block(self, cid: Cid) -> bytes | None:
        """A block that others may fetch; none if it is not public or damaged."""
        return self._block(self._public, cid)

    def _blocks_of(self, cid: Cid) -> list[str]:
        try:
            return list(json.loads((self._roots / str(cid)).read_text()))
        except OSError as reason:
            raise NotStored(f"{cid} is not stored here") from reason

    @staticmethod
    def _block(folder: Path, cid: Cid) -> bytes | None:
        try:
            block = (folder / str(cid)).read_bytes()
        except OSError:
            return None
        return block if cid.names(block) else None
