"""An append-only file of checksummed records; see `aggregator.pbft.records` for what is in them.

File: an 8-byte magic, then records ``crc32 (u32) | length (u32) | synced (u64) | payload``, little endian;
``synced`` is where the journal ended when it was last known to be on the disk.

Guarantees: what `sync` returned for survives power loss. On opening, a torn tail is cut off: records after
the last sync, of which nobody was told, may have reached the disk in part and in any order. Damage before
that is reported as `JournalDamaged` and never used or skipped silently. One process at a time (an advisory
lock on the file). Committed batches can be read back by sequence number.
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

MAGIC: Final = b"DTNLOG2\n"
MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
_HEADER: Final = struct.Struct("<IIQ")
HEADER_BYTES: Final = _HEADER.size


WAY_OUT: Final = (
    "keep this member stopped: one that starts empty forgets its votes. Move it away only while no other "
    "member is down, and after the others have gone on past this one's last batch (docs/operating.md, Backup)"
)


class JournalDamaged(ProtocolError):
    """Bytes in the middle of the journal are not what was written; a copy must come from peers."""


class JournalLocked(ProtocolError):
    """Another process has this journal open."""


class JournalFull(ProtocolError):
    """The disk took no record, did not keep it, or has no such place; nothing was promised to anyone."""


class Journal:
    """One replica's journal at ``path``."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as reason:
            raise JournalFull(f"cannot open {path}: {reason.strerror}; choose another data_dir") from reason
        self.path = path
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as reason:
            os.close(self._fd)
            raise JournalLocked(f"{path} is in use; is this aggregator running already?") from reason
        self._committed: dict[int, int] = {}
        """Where the record of each committed sequence number starts."""
        self._end = 0
        self._synced = 0
        try:
            self._open()
        except OSError as reason:
            self.close()
            raise JournalFull(f"cannot use {path}: {reason.strerror}; free some space") from reason
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        size = os.fstat(self._fd).st_size
        if size < len(MAGIC):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, MAGIC, 0)
            self._end = len(MAGIC)
            self._sync_folder()
        elif os.pread(self._fd, len(MAGIC), 0) != MAGIC:
            raise JournalDamaged(f"{self.path} is not a journal of this version; {WAY_OUT}")
        else:
            self._end = self._scan(size)
            os.ftruncate(self._fd, self._end)
        # What was read may be in memory only, if a process ended before it synced.
        os.fsync(self._fd)
        self._synced = self._end

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
            found = self._read(at, size)
            if found is None:
                if self._was_synced(at, size):
                    raise JournalDamaged(f"{self.path} is damaged at byte {at}; {WAY_OUT}")
                return at
            _, payload = found
            self._index(at, decode_record(payload))
            at += HEADER_BYTES + len(payload)
        return at

    def _read(self, at: int, size: int) -> tuple[int, bytes] | None:
        """``synced`` and payload of the record at ``at``; none if there is no whole one."""
        header = os.pread(self._fd, HEADER_BYTES, at)
        if len(header) < HEADER_BYTES:
            return None
        checksum, length, synced = _HEADER.unpack(header)
        if not 0 < length <= MAX_RECORD_BYTES or at + HEADER_BYTES + length > size or synced > at:
            return None
        payload = os.pread(self._fd, length, at + HEADER_BYTES)
        if len(payload) != length or zlib.crc32(payload, zlib.crc32(header[4:])) != checksum:
            return None
        return synced, payload

    def _was_synced(self, bad: int, size: int) -> bool:
        """Whether a whole record after ``bad`` says that the disk once held more than that.

        Looks for the next record byte by byte, at most `MAX_RECORD_BYTES` far: the bad one is no larger.
        """
        at, stop = bad + 1, min(size, bad + HEADER_BYTES + MAX_RECORD_BYTES)
        window = os.pread(self._fd, stop - at + HEADER_BYTES, at)
        for offset in range(len(window) - HEADER_BYTES + 1):
            _, length, synced = _HEADER.unpack_from(window, offset)
            at = bad + 1 + offset
            if not 0 < length <= size - at - HEADER_BYTES or not len(MAGIC) <= synced <= at:
                continue
            while (found := self._read(at, size)) is not None:
                if found[0] > bad:
                    return True
                at += HEADER_BYTES + len(found[1])
        return False

    def _index(self, at: int, record: Record) -> None:
        if isinstance(record, BecameCommitted):
            self._committed[record.committed.sequence] = at

    def records(self) -> Iterator[Record]:
        """All records, oldest first."""
        at = len(MAGIC)
        while at < self._end:
            payload = self._intact(at)
            yield decode_record(payload)
            at += HEADER_BYTES + len(payload)

    def _intact(self, at: int) -> bytes:
        found = self._read(at, self._end)
        if found is None:
            raise JournalDamaged(f"{self.path} changed under this process at byte {at}; check the disk")
        return found[1]

    def append(self, record: Record) -> None:
        """Write a record; it is durable only after `sync`.

        Raises:
            JournalFull: no room on the disk, or no reader would take it; the journal is as it was.
        """
        payload = encode_record(record)
        if len(payload) > MAX_RECORD_BYTES:
            raise JournalFull(f"a record has at most {MAX_RECORD_BYTES} bytes, this one {len(payload)}")
        described = _HEADER.pack(0, len(payload), self._synced)[4:]
        checksum = zlib.crc32(payload, zlib.crc32(described))
        data = checksum.to_bytes(4, "little") + described + payload
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self._end + written)
        except OSError as reason:
            os.ftruncate(self._fd, self._end)
            raise JournalFull(f"cannot write to {self.path}: {reason.strerror}; free some space") from reason
        self._index(self._end, record)
        self._end += len(data)

    def sync(self) -> None:
        """Make everything appended so far durable (group commit: one call for many records).

        Raises:
            JournalFull: the disk did not keep it; the process must stop, for what is on the disk is unknown.
        """
        if self._synced == self._end:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as reason:
            raise JournalFull(f"the disk did not keep {self.path}: {reason.strerror}; check it") from reason
        self._synced = self._end

    def committed(self, sequence: int) -> Committed | None:
        """The committed batch at ``sequence``, if this journal has it."""
        at = self._committed.get(sequence)
        if at is None:
            return None
        record = decode_record(self._intact(at))
        assert isinstance(record, BecameCommitted)
        return record.committed

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)
