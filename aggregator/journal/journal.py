"""An append-only file of checksummed records; see `aggregator.pbft.records` for what is in them.

File: an 8-byte magic, then records ``length (u32) | crc32 (u32) | payload``, little endian.

Guarantees: what `sync` returned for survives power loss; a torn last record is cut off on opening; a damaged
record with good ones after it is reported as `JournalDamaged` and never used or skipped silently. One
process at a time (an advisory lock on the file). Committed batches can be read back by sequence number.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aggregator.pbft.messages import Committed
from aggregator.pbft.records import BecameCommitted, Record, decode_record, encode_record
from protocol.errors import ProtocolError

MAGIC: Final = b"DTNLOG1\n"
MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
_HEADER: Final = struct.Struct("<II")


class JournalDamaged(ProtocolError):
    """Bytes in the middle of the journal are not what was written; a copy must come from peers."""


class JournalLocked(ProtocolError):
    """Another process has this journal open."""


class JournalFull(ProtocolError):
    """The disk has no room for a record; nothing was promised to anyone."""


class Journal:
    """One replica's journal at ``path``."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as reason:
            os.close(self._fd)
            raise JournalLocked(f"{path} is in use; is this aggregator running already?") from reason
        self._committed: dict[int, tuple[int, int]] = {}
        self._end = 0
        self._unsynced = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        size = os.fstat(self._fd).st_size
        if size < len(MAGIC):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, MAGIC, 0)
            os.fsync(self._fd)
            self._sync_folder()
            self._end = len(MAGIC)
            return
        if os.pread(self._fd, len(MAGIC), 0) != MAGIC:
            raise JournalDamaged(f"{self.path} is not a journal of this version; move it away to start anew")
        self._end = self._scan(size)
        if self._end < size:
            # A torn write at the very end: it was never synced, so nobody relied on it.
            os.ftruncate(self._fd, self._end)
            os.fsync(self._fd)

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _scan(self, size: int) -> int:
        """Index committed batches; returns where the good records end."""
        at = len(MAGIC)
        while at < size:
            payload = self._read(at, size)
            if payload is None:
                if self._good_record_after(at + 1, size):
                    raise JournalDamaged(
                        f"{self.path} is damaged at byte {at}; move it away and restart: "
                        "the aggregator then catches up from its peers"
                    )
                return at
            self._index(at, decode_record(payload), len(payload))
            at += _HEADER.size + len(payload)
        return at

    def _read(self, at: int, size: int) -> bytes | None:
        header = os.pread(self._fd, _HEADER.size, at)
        if len(header) < _HEADER.size:
            return None
        length, checksum = _HEADER.unpack(header)
        if not 0 < length <= MAX_RECORD_BYTES or at + _HEADER.size + length > size:
            return None
        payload = os.pread(self._fd, length, at + _HEADER.size)
        return payload if len(payload) == length and zlib.crc32(payload) == checksum else None

    def _good_record_after(self, start: int, size: int) -> bool:
        """Whether any whole record follows: then the damage is no torn tail. Searches a bounded stretch."""
        stop = min(size, start + 4 * 1024 * 1024)
        for at in range(start, stop - _HEADER.size):
            length, _ = _HEADER.unpack(os.pread(self._fd, _HEADER.size, at))
            if 8 <= length <= size - at - _HEADER.size and self._read(at, size) is not None:
                return True
        return False

    def _index(self, at: int, record: Record, length: int) -> None:
        if isinstance(record, BecameCommitted):
            self._committed[record.committed.sequence] = (at, length)

    def records(self) -> Iterator[Record]:
        """All records, oldest first."""
        at = len(MAGIC)
        while at < self._end:
            payload = self._read(at, self._end)
            if payload is None:
                raise JournalDamaged(f"{self.path} changed under this process at byte {at}")
            yield decode_record(payload)
            at += _HEADER.size + len(payload)

    def append(self, record: Record) -> None:
        """Write a record; it is durable only after `sync`.

        Raises:
            JournalFull: no room on the disk; the journal is as it was.
        """
        payload = encode_record(record)
        data = _HEADER.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self._end + written)
        except OSError as reason:
            os.ftruncate(self._fd, self._end)
            raise JournalFull(f"cannot write to {self.path}: {reason.strerror}; free some space") from reason
        self._index(self._end, record, len(payload))
        self._end += len(data)
        self._unsynced = True

    def sync(self) -> None:
        """Make everything appended so far durable (group commit: one call for many records)."""
        if self._unsynced:
            os.fdatasync(self._fd)
            self._unsynced = False

    def committed(self, sequence: int) -> Committed | None:
        """The committed batch at ``sequence``, if this journal has it."""
        where = self._committed.get(sequence)
        if where is None:
            return None
        at, length = where
        payload = os.pread(self._fd, length, at + _HEADER.size)
        record = decode_record(payload)
        assert isinstance(record, BecameCommitted)
        return record.committed

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)
