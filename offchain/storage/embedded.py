"""The embedded backend: blocks as files on disk, some of them public.

``private/`` holds every block this participant keeps, ``public/`` links to those that others may fetch (a
client's test fragments stay private until training has closed), ``roots/`` lists the blocks of each file.
All writes are atomic (temporary file, then rename) and one process at a time makes them (an advisory lock),
so several processes of one participant may share a store.

Guarantee: `get` returns bytes only after every block matched its CID.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from offchain.storage.cid import Cid
from offchain.storage.unixfs import build, children_of
from protocol.errors import ProtocolError

_UNFINISHED: Final = ".new-"
"""How the names of half-written files begin."""


class NotStored(ProtocolError):
    """The store does not have this file, or a block of it is damaged."""


class StorageFull(ProtocolError):
    """The disk has no room or cannot be written; nothing was stored."""


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as reason:
        raise StorageFull(f"cannot write to {path}: {reason.strerror}; free some space") from reason


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class EmbeddedStore:
    """Files of one participant under ``path``."""

    def __init__(self, path: Path) -> None:
        """Open or make the store.

        Raises:
            StorageFull: the folder cannot be written.
        """
        self._path = path
        self._private = path / "private"
        self._public = path / "public"
        self._roots = path / "roots"
        with _disk(path):
            for folder in (self._private, self._public, self._roots):
                folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time, so that no process drops a block another is about to count on."""
        with _disk(self._path), open(self._path / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def put(self, data: bytes) -> Cid:
        """Keep a file; returns its CID. Damaged blocks of it are healed.

        Raises:
            StorageFull: no room; the file is not kept.
        """
        root, blocks = build(data)
        listing = json.dumps(sorted(str(cid) for cid in blocks)).encode()
        with self._alone():
            for cid, block in blocks.items():
                self._write(self._private / str(cid), block)
            _sync_folder(self._private)
            # Last, so that a file that is listed is whole.
            self._write(self._roots / str(root), listing)
            _sync_folder(self._roots)
        return root

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        if path.exists() and path.read_bytes() == data:
            return
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise

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
        with self._alone():
            for name in self._blocks_of(cid):
                source, target = self._private / name, self._public / name
                if target.exists() and not target.samefile(source):
                    target.unlink()  # the block was healed since it was published
                if not target.exists():
                    os.link(source, target)

    def unpin(self, cid: Cid) -> None:
        """Keep a file no longer; blocks that other files share stay."""
        with self._alone():
            mine = set(self._blocks_of(cid))
            (self._roots / str(cid)).unlink()
            for name in mine - self._listed():
                (self._private / name).unlink(missing_ok=True)
                (self._public / name).unlink(missing_ok=True)

    def _listed(self) -> set[str]:
        roots = [path for path in self._roots.iterdir() if not path.name.startswith(_UNFINISHED)]
        return {name for path in roots for name in json.loads(path.read_text())}

    def public_block(self, cid: Cid) -> bytes | None:
        """A block that others may fetch; none if it is not public or damaged."""
        return self._block(self._public, cid)

    def _blocks_of(self, cid: Cid) -> list[str]:
        try:
            return list(json.loads((self._roots / str(cid)).read_text()))
        except FileNotFoundError as reason:
            raise NotStored(f"{cid} is not stored here") from reason

    @staticmethod
    def _block(folder: Path, cid: Cid) -> bytes | None:
        try:
            block = (folder / str(cid)).read_bytes()
        except OSError:
            return None
        return block if cid.names(block) else None
