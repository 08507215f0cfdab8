"""Writing files that must be whole: after a crash at any point there is the old file or the new one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from protocol.errors import ProtocolError


class NotWritten(ProtocolError):
    """The disk does not take a file; says which, why, and what to do. What was there is there still."""


def write_whole(path: Path, data: bytes | str, *, advice: str = "free some space") -> None:
    """Write a file durably, or leave the one that is there.

    Raises:
        NotWritten: the disk is full, or the folder cannot be written; ends with ``advice``.
    """
    partial = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as reason:
        with contextlib.suppress(OSError):
            partial.unlink()  # a full disk needs its room
        raise NotWritten(f"cannot write {path}: {reason.strerror}; {advice}") from reason
