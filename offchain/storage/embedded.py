"""The embedded backend: blocks as files on disk, some of them public.

``private/`` holds every block this participant keeps, ``public/`` links to those that others may fetch (a
client's test fragments stay private until training has closed), ``roots/`` lists the blocks of each file: a
file is pinned as long as it is listed. What comes in is written to a folder of its own below ``incoming/``
first, and moved when it is whole. All writes are atomic (temporary file, then rename) and one process at a
time makes them (an advisory lock), so several processes of one participant may share a store.

Guarantees: `get` and `read` give bytes only after their block matched its CID; a file is kept whole or not at
all, whatever happens in between, and what a killed process leaves is removed by `collect`; no more than one
block of a file is in memory, except with `put` and `get`.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from offchain.storage.cid import RAW, Cid, InvalidCid
from offchain.storage.unixfs import MAX_DEPTH, Block, blocks_of, children_of, read_range, size_of, walk
from protocol.errors import ProtocolError

_UNFINISHED: Final = ".new-"
"""How the names of half-written files begin."""
Progress = Callable[[int], None]
"""Told how many bytes of a file have been dealt with so far."""


class NotStored(ProtocolError):
    """The store does not have this file, or a block of it is damaged."""


class StorageFull(ProtocolError):
    """The disk has no room or cannot be written; nothing was stored."""


class IncompleteFile(ProtocolError):
    """Blocks that were to be kept do not make up the files they were said to; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A kept file."""

    cid: Cid
    blocks: int
    size_bytes: int | None
    """None if its root block is damaged."""
    is_public: bool


@dataclass(frozen=True, slots=True)
class Collected:
    """What `EmbeddedStore.collect` removed."""

    blocks: int
    size_bytes: int


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
        self._incoming = path / "incoming"
        with _disk(path):
            for folder in (self._private, self._public, self._roots, self._incoming):
                folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time, so that no process drops a block another is about to count on."""
        with _disk(self._path), open(self._path / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # Writing -----------------------------------------------------------------------------------------

    def put(self, data: bytes) -> Cid:
        """Keep a file; returns its CID. Damaged blocks of it are healed.

        Raises:
            StorageFull: no room; the file is not kept.
        """
        return self.put_file(io.BytesIO(data))

    def put_file(self, file: BinaryIO, progress: Progress = lambda _: None) -> Cid:
        """Keep what ``file`` holds from where it stands, one block in memory at a time; as `put`."""
        with self._staging() as staged:
            root = None
            done = 0
            names = set()
            for root, block in blocks_of(file):
                staged.write(root, block)
                names.add(str(root))
                if root.codec == RAW:
                    done += len(block)
                    progress(done)
            assert root is not None, "even an empty file has a block"
            self._commit({root: names}, staged)
        return root

    def take(
        self, roots: Iterable[Cid], blocks: Iterable[Block], progress: Progress = lambda _: None
    ) -> None:
        """Keep the files ``roots``, out of checked blocks that come in any order, and out of what is kept.

        Blocks that no root needs are dropped.

        Raises:
            IncompleteFile: a block is missing, or is no file node.
            StorageFull: no room. Whichever it is, or if ``blocks`` raises, nothing is kept.
        """
        with self._staging() as staged:
            done = 0
            for cid, block in blocks:
                staged.write(cid, block)
                done += len(block)
                progress(done)
            listings = {root: self._needed(root, staged) for root in roots}
            self._commit(listings, staged)

    def _needed(self, root: Cid, staged: _Staging) -> set[str]:
        """Names of all blocks of a file, each seen once and each node's sizes held against its children's."""
        known: dict[Cid, tuple[int, int]] = {}

        def look(cid: Cid, depth: int) -> tuple[int, int]:
            """Bytes of file and levels of nodes below a block."""
            if cid in known:
                return known[cid]
            block = staged.read(cid)
            if block is None and (block := self._block(cid)) is None:
                raise IncompleteFile(f"block {cid} of file {root} is missing; nothing was kept")
            if depth > MAX_DEPTH:
                raise IncompleteFile(f"the tree of {root} is too deep for a file")
            try:
                children = children_of(cid, block)
            except InvalidCid as reason:
                raise IncompleteFile(f"{root} is no file: {reason}") from reason
            levels = 0
            for child in children:
                size_bytes, below = look(child.cid, depth + 1)
                # An empty leaf would let a few blocks stand for a walk without end.
                if not size_bytes or size_bytes != child.file_bytes:
                    raise IncompleteFile(f"{root} is no file: block {cid} misstates the size of a child")
                levels = max(levels, below + 1)
            if levels > MAX_DEPTH:
                raise IncompleteFile(f"the tree of {root} is too deep for a file")
            known[cid] = size_of(cid, block), levels
            return known[cid]

        look(root, 0)
        return {str(cid) for cid in known}

    @contextlib.contextmanager
    def _staging(self) -> Iterator[_Staging]:
        with self._alone():
            staged = _Staging(self._incoming)
        try:
            yield staged
        finally:
            staged.close()

    def _commit(self, listings: dict[Cid, set[str]], staged: _Staging) -> None:
        """Move the staged blocks that are listed, then list the files."""
        with self._alone():
            for name in set().union(*listings.values()):
                staged.move(name, self._private / name)
            _sync_folder(self._private)
            for root, names in listings.items():
                # Last, so that a file that is listed is whole. What was dropped meanwhile, with a file
                # that it had come from, is missed here.
                missing = [name for name in names if not self._has_block(name)]
                if missing:
                    raise IncompleteFile(
                        f"block {missing[0]} of file {root} was removed meanwhile; try again"
                    )
                self._write(self._roots / str(root), json.dumps(sorted(names)).encode())
            _sync_folder(self._roots)

    def _has_block(self, name: str) -> bool:
        return (self._private / name).exists()

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

    # Reading -----------------------------------------------------------------------------------------

    def get(self, cid: Cid) -> bytes:
        """A kept file.

        Raises:
            NotStored: a block is missing or damaged.
        """
        return b"".join(self.read(cid))

    def read(self, cid: Cid, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes of a kept file from ``start`` to before ``end``, one block at a time; raises as `get`."""
        return read_range(cid, self.block, start, self.size(cid) if end is None else end)

    def blocks(self, cid: Cid) -> Iterator[Block]:
        """The blocks of a kept file in depth-first order, each once; raises as `get`."""
        seen = set()
        for _, each, block in walk(cid, self.block):
            if each not in seen:
                seen.add(each)
                yield each, block

    def size(self, cid: Cid) -> int:
        """Bytes of a kept file; raises as `get`."""
        return size_of(cid, self.block(cid))

    def block(self, cid: Cid) -> bytes:
        """A kept block; raises as `get`."""
        block = self._block(cid)
        if block is None:
            raise NotStored(f"{cid} is not stored here")
        return block

    def has(self, cid: Cid) -> bool:
        """Whether the whole file is kept."""
        return (self._roots / str(cid)).exists()

    def pins(self) -> list[Pin]:
        """The kept files, by CID."""
        found = []
        for path in sorted(self._listings()):
            cid = Cid.parse(path.name)
            block = self._block(cid)
            try:
                blocks = len(json.loads(path.read_text()))
            except FileNotFoundError:
                continue  # unpinned meanwhile
            size = None if block is None else size_of(cid, block)
            found.append(Pin(cid, blocks, size, self._is_public(cid)))
        return found

    def public_block(self, cid: Cid) -> bytes | None:
        """A block that others may fetch; none if it is not public or damaged."""
        return _checked(self._public, cid)

    def _block(self, cid: Cid) -> bytes | None:
        return _checked(self._private, cid)

    def _is_public(self, cid: Cid) -> bool:
        return (self._public / str(cid)).exists()

    # Publishing and dropping -------------------------------------------------------------------------

    def publish(self, cid: Cid, progress: Progress = lambda _: None) -> None:
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
                self._drop(name)

    def collect(self) -> Collected:
        """Remove blocks that no kept file needs, and what killed processes left half-written."""
        blocks = size_bytes = 0
        with self._alone():
            _Staging.clear(self._incoming)
            listed = self._listed()
            for folder in (self._private, self._public, self._roots):
                for path in folder.iterdir():
                    unfinished = path.name.startswith(_UNFINISHED)
                    if not unfinished and (folder == self._roots or path.name in listed):
                        continue
                    if folder == self._private:
                        blocks += 1
                        size_bytes += path.stat().st_size
                    path.unlink()
        return Collected(blocks, size_bytes)

    def _drop(self, name: str) -> None:
        (self._private / name).unlink(missing_ok=True)
        (self._public / name).unlink(missing_ok=True)

    def _listings(self) -> list[Path]:
        return [path for path in self._roots.iterdir() if not path.name.startswith(_UNFINISHED)]

    def _listed(self) -> set[str]:
        return {name for path in self._listings() for name in json.loads(path.read_text())}

    def _blocks_of(self, cid: Cid) -> list[str]:
        try:
            return list(json.loads((self._roots / str(cid)).read_text()))
        except FileNotFoundError as reason:
            raise NotStored(f"{cid} is not stored here") from reason


def _checked(folder: Path, cid: Cid) -> bytes | None:
    """The block in the file that its CID names; none if it is not there, or is another."""
    try:
        block = (folder / str(cid)).read_bytes()
    except OSError:
        return None
    return block if cid.names(block) else None


class _Staging:
    """A folder for blocks that are coming in; its lock tells the living from what was left behind."""

    def __init__(self, incoming: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(dir=incoming, prefix=_UNFINISHED))
        self._lock = open(self._folder / "lock", "wb")  # noqa: SIM115
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def write(self, cid: Cid, block: bytes) -> None:
        """Keep a checked block for now, durably."""
        path = self._folder / str(cid)
        if path.exists():
            return
        with _disk(self._folder.parents[1]), open(path, "wb") as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())

    def read(self, cid: Cid) -> bytes | None:
        """A block that came; checked again, since it was on a disk."""
        return _checked(self._folder, cid)

    def move(self, name: str, target: Path) -> None:
        """Put a block where it belongs, unless a good one is there."""
        source = self._folder / name
        if source.exists() and _checked(target.parent, Cid.parse(name)) is None:
            os.replace(source, target)

    def close(self) -> None:
        """Remove what was not moved."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()

    @staticmethod
    def clear(incoming: Path) -> None:
        """Remove folders whose process is gone. The caller holds the store's lock: none is being made."""
        for folder in incoming.iterdir():
            with contextlib.suppress(FileNotFoundError), open(folder / "lock", "rb") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
            shutil.rmtree(folder, ignore_errors=True)
