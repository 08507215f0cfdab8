"""Writing files that must be whole: after a crash at any point there is the old file or the new one."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file durably, or leave the one that is there; raises `OSError` if the disk is full."""
    partial = path.with_name(path.name + ".new")
    with open(partial, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
