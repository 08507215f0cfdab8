"""Where a journal keeps its files: the few operations it needs, and a folder of the disk that has them.

`Folder` and `File` are all that `aggregator.journal` knows of storage, so the simulator can give it a disk
that tears, loses and reorders writes. What was written is durable only after `File.sync`, and names (new,
renamed, removed) only after `Folder.sync`.

Errors of the disk leave here as `OSError`; whoever writes turns them into something an operator can read.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Protocol

from protocol.errors import ProtocolError


class FolderLocked(ProtocolError):
    """Another process uses this folder."""


class FolderUnusable(ProtocolError):
    """There is no such folder and none can be made."""


class File(Protocol):
    """An open file."""

    def size(self) -> int:
        """Its length in bytes."""
        ...

    def read(self, at: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``at`` on; fewer at the end of the file."""
        ...

    def write(self, at: int, data: bytes) -> None:
        """Write all of ``data`` at ``at``, or raise `OSError` having written any part of it."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        ...

    def sync(self) -> None:
        """Make what was written durable."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Folder(Protocol):
    """A folder that one process owns."""

    def names(self) -> list[str]:
        """Names of the files in it."""
        ...

    def open(self, name: str) -> File:
        """Open a file, making an empty one if there is none."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what bore it; a power loss leaves either, never neither."""
        ...

    def remove(self, name: str) -> None:
        """Forget a file."""
        ...

    def sync(self) -> None:
        """Make new, renamed and removed names durable."""
        ...

    def close(self) -> None:
        """Let another process have the folder."""
        ...


class DiskFile:
    """A `File` on the disk."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def size(self) -> int:
        """See `File`."""
        return os.fstat(self._fd).st_size

    def read(self, at: int, size: int) -> bytes:
        """See `File`."""
        return os.pread(self._fd, size, at)

    def write(self, at: int, data: bytes) -> None:
        """See `File`."""
        written = 0
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], at + written)

    def truncate(self, size: int) -> None:
        """See `File`."""
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """See `File`."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """See `File`."""
        os.close(self._fd)


class DiskFolder:
    """A `Folder` on the disk, held by an advisory lock as long as it is open.

    Raises:
        FolderLocked: another process has it.
        FolderUnusable: it cannot be made or opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as reason:
            raise FolderUnusable(
                f"cannot open {path}: {reason.strerror}; choose another data_dir"
            ) from reason
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as reason:
            os.close(self._fd)
            raise FolderLocked(f"{path} is in use; is this aggregator running already?") from reason

    def names(self) -> list[str]:
        """See `Folder`."""
        return sorted(os.listdir(self._fd))

    def open(self, name: str) -> DiskFile:
        """See `Folder`."""
        return DiskFile(self.path / name)

    def rename(self, old: str, new: str) -> None:
        """See `Folder`."""
        os.rename(self.path / old, self.path / new)

    def remove(self, name: str) -> None:
        """See `Folder`."""
        os.unlink(self.path / name)

    def sync(self) -> None:
        """See `Folder`."""
        os.fsync(self._fd)

    def close(self) -> None:
        """See `Folder`."""
        os.close(self._fd)

    def __str__(self) -> str:
        return str(self.path)
