"""Programs that JAX compiled, kept on the disk for the processes that come after.

JAX neither bounds what it keeps nor mends it: a process killed while it wrote leaves half a program, which is
refused, compiled again and not replaced at every start to come. Guarantees: what is torn is gone after the
next start, and at most `MOST_BYTES` are kept from one start to the next, of what was used last.

A process that still writes a file removed here loses no more than that file: it, or the next one, compiles
again.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import jax

MOST_BYTES: Final = 2 << 30
"""Some thousand programs of a CPU, some hundred of a GPU."""
_ENTRIES: Final = "*-cache"
_ZLIB: Final = 0x78
"""First byte of an entry, unless a package is at hand by which JAX compresses otherwise."""
_PIECE_BYTES: Final = 1 << 20
_LOOKED: Final = ".looked-through"
"""Its time is that of the last look: what was there before was whole then, or is gone."""
_OVERLAP_S: Final = 600.0
"""So long before it a file may have been begun that was torn after it."""


class _Entry(NamedTuple):
    used_s: float
    bytes: int
    path: Path


def keep_compiled_programs(directory: Path, most_bytes: int = MOST_BYTES) -> None:
    """Let JAX keep in ``directory`` what takes long to compile, for this process and those after it."""
    with contextlib.suppress(OSError):  # a full disk, or another's folder: JAX compiles all the same
        directory.mkdir(parents=True, exist_ok=True)
        _tidy(directory, most_bytes)
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _tidy(directory: Path, most_bytes: int) -> None:
    looked = directory / _LOOKED
    whole_until_s = looked.stat().st_mtime - _OVERLAP_S if looked.exists() else 0.0
    kept: list[_Entry] = []
    for path in directory.glob(_ENTRIES):
        with contextlib.suppress(OSError):  # another process tidies, too; or it is another's file
            about = path.stat()
            if about.st_mtime >= whole_until_s and _is_torn(path):
                path.unlink()
            else:
                kept.append(_Entry(max(about.st_atime, about.st_mtime), about.st_size, path))
    for path in _too_much(kept, most_bytes):
        path.unlink(missing_ok=True)
    looked.touch()  # last: a look that was not finished is none


def _is_torn(path: Path) -> bool:
    """Whether the file ends before what it holds does, or holds something else than was written."""
    with path.open("rb") as file:
        piece = file.read(_PIECE_BYTES)
        if piece[:1] != bytes([_ZLIB]):
            return not piece
        stream = zlib.decompressobj()
        try:
            while piece:
                stream.decompress(piece)
                piece = file.read(_PIECE_BYTES)
        except zlib.error:
            return True
    return not stream.eof


def _too_much(entries: list[_Entry], most_bytes: int) -> Iterator[Path]:
    """Those used longest ago, as many as keep the others within the bound."""
    excess = sum(entry.bytes for entry in entries) - most_bytes
    for entry in sorted(entries):
        if excess <= 0:
            return
        excess -= entry.bytes
        yield entry.path
