"""A disk that loses power: what was not synced is lost, torn, or written in another order.

A `Folder` in memory for the real `Journal`. `crash_after` operations it raises `PowerLoss` in the middle of
whatever the member was doing; `crash` then decides what had reached the platter: each unsynced write may be
whole, cut short or missing whatever became of the others, and of unsynced changes of names a first part
stays. What was synced stays as it was, unless `rot` changes it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from aggregator.journal.journal import DAMAGED


class PowerLoss(Exception):
    """The machine went dark during this operation."""


@dataclass
class _Inode:
    content: bytearray = field(default_factory=bytearray)
    """What reads see."""
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes ``(at, data)`` and truncations ``(size, None)`` since the last sync."""
    before: int = 0
    """Length at the sync before the last one."""

    def sync(self) -> None:
        if self.unsynced:
            self.before = len(self.durable)
        self.settle()

    def settle(self) -> None:
        for change in self.unsynced:
            _apply(self.durable, *change)
        self.unsynced.clear()


def _apply(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        return
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


class SimulatedFolder:
    """A `Folder` whose files survive `crash` as a disk's would."""

    def __init__(self) -> None:
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._unsynced_names: list[dict[str, _Inode]] = []
        self.crash_after: int | None = None
        """Operations until the power fails; none for never."""

    def _work(self) -> None:
        if self.crash_after is not None:
            if self.crash_after == 0:
                raise PowerLoss
            self.crash_after -= 1

    def _renamed(self) -> None:
        self._unsynced_names.append(dict(self._names))

    def names(self) -> list[str]:
        """See `Folder`."""
        return sorted(self._names)

    def open(self, name: str) -> _SimulatedFile:
        """See `Folder`."""
        if name not in self._names:
            self._names[name] = _Inode()
            self._renamed()
        return _SimulatedFile(self, self._names[name])

    def rename(self, old: str, new: str) -> None:
        """See `Folder`."""
        self._work()
        self._names[new] = self._names.pop(old)
        self._renamed()

    def remove(self, name: str) -> None:
        """See `Folder`."""
        self._work()
        del self._names[name]
        self._renamed()

    def sync(self) -> None:
        """See `Folder`."""
        self._work()
        self._durable_names = dict(self._names)
        self._unsynced_names.clear()

    def close(self) -> None:
        """See `Folder`."""

    def crash(self, choose: random.Random, lose_unsynced: float) -> None:
        """Decide what the disk holds when the power comes back."""
        self.crash_after = None
        if choose.random() < lose_unsynced:
            kept = choose.randint(0, len(self._unsynced_names))
            if kept:
                self._durable_names = self._unsynced_names[kept - 1]
        elif self._unsynced_names:
            self._durable_names = self._unsynced_names[-1]
        self._names = dict(self._durable_names)
        self._unsynced_names.clear()
        for name in sorted(self._names):
            inode = self._names[name]
            inode.unsynced = [
                change
                for change in inode.unsynced
                if choose.random() >= lose_unsynced or choose.random() < 0.5
            ]
            if inode.unsynced and choose.random() < lose_unsynced:
                at, data = inode.unsynced[-1]
                inode.unsynced[-1] = (at, data and data[: choose.randint(0, len(data))])
            inode.settle()
            inode.content = bytearray(inode.durable)

    def rot(self, choose: random.Random) -> str | None:
        """Change a byte that was synced, as a misdirected write does; the file's name, if there was one.

        Not in what the last sync of a log brought: no reader can tell that from the torn end of a power loss.
        """
        old = {name: self._old_bytes(name) for name in self._names if name != DAMAGED}
        names = [name for name in sorted(old) if old[name] > 8]
        if not names:
            return None
        name = choose.choice(names)
        inode = self._names[name]
        inode.durable[choose.randrange(old[name])] ^= 1 << choose.randrange(8)
        inode.content = bytearray(inode.durable)
        return name

    def _old_bytes(self, name: str) -> int:
        inode = self._names[name]
        whole = len(inode.durable)
        return min(inode.before, whole) if name.startswith("log-") else whole

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(len(inode.content) for inode in self._names.values())

    def __str__(self) -> str:
        return "disk"


class _SimulatedFile:
    def __init__(self, folder: SimulatedFolder, inode: _Inode) -> None:
        self._folder, self._inode = folder, inode

    def size(self) -> int:
        return len(self._inode.content)

    def read(self, at: int, size: int) -> bytes:
        return bytes(self._inode.content[at : at + size])

    def write(self, at: int, data: bytes) -> None:
        self._inode.unsynced.append((at, data))
        _apply(self._inode.content, at, data)
        self._folder._work()

    def truncate(self, size: int) -> None:
        if size == len(self._inode.content):
            return
        self._inode.unsynced.append((size, None))
        _apply(self._inode.content, size, None)
        self._folder._work()

    def sync(self) -> None:
        self._folder._work()
        self._inode.sync()

    def close(self) -> None:
        pass
