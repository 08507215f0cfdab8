"""One append-only file of checksummed records; see `aggregator.pbft.records` for what is in them.

File: an 8-byte magic, then records ``crc32 (u32) | length (u32) | synced (u64) | payload``, little endian;
``synced`` is where the log ended when it was last known to be on the disk.

Guarantees: what `sync` returned for survives power loss. On opening, a torn tail is cut off: records after
the last sync, of which nobody was told, may have reached the disk in part and in any order. Damage before
that is reported as `JournalDamaged` and never used or skipped silently. Committed batches can be read back
by sequence number.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from aggregator.journal.folder import File
from aggregator.pbft.messages import Committed
from aggregator.pbft.records import BecameCommitted, Record, decode_record, encode_record
from protocol.errors import ProtocolError

MAGIC: Final = b"DTNLOG2\n"
MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
_HEADER: Final = struct.Struct("<IIQ")
HEADER_BYTES: Final = _HEADER.size


class JournalDamaged(ProtocolError):
    """Bytes in the middle of the log are not what was written."""


class JournalFull(ProtocolError):
    """The disk took no record, or did not keep it; nothing was promised to anyone."""


class Log:
    """One file of records; ``name`` is what errors call it."""

    def __init__(self, file: File, name: str) -> None:
        self._file = file
        self.name = name
        self._committed: dict[int, int] = {}
        """Where the record of each committed sequence number starts."""
        self._end = 0
        self._synced = 0
        try:
            self._open()
        except OSError as reason:
            self.close()
            raise JournalFull(f"cannot use {name}: {reason.strerror}; free some space") from reason
        except BaseException:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self._end

    @property
    def empty(self) -> bool:
        """Whether nothing was ever appended."""
        return self._end == len(MAGIC)

    def _open(self) -> None:
        size = self._file.size()
        if size < len(MAGIC):
            self._file.truncate(0)
            self._file.write(0, MAGIC)
            self._end = len(MAGIC)
        elif self._file.read(0, len(MAGIC)) != MAGIC:
            raise JournalDamaged(f"{self.name} is not a journal of this version")
        else:
            self._end = self._scan(size)
            self._file.truncate(self._end)
        # What was read may be in memory only, if a process ended before it synced.
        self._file.sync()
        self._synced = self._end

    def _scan(self, size: int) -> int:
        """Index committed batches; returns where the good records end."""
        at = len(MAGIC)
        while at < size:
            found = self._read(at, size)
            if found is None:
                if self._was_synced(at, size):
                    raise JournalDamaged(f"{self.name} is damaged at byte {at}")
                return at
            _, payload = found
            self._index(at, decode_record(payload))
            at += HEADER_BYTES + len(payload)
        return at

    def _read(self, at: int, size: int) -> tuple[int, bytes] | None:
        """``synced`` and payload of the record at ``at``; none if there is no whole one."""
        header = self._file.read(at, HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return None
        checksum, length, synced = _HEADER.unpack(header)
        if not 0 < length <= MAX_RECORD_BYTES or at + HEADER_BYTES + length > size or synced > at:
            return None
        payload = self._file.read(at + HEADER_BYTES, length)
        if len(payload) != length or zlib.crc32(payload, zlib.crc32(header[4:])) != checksum:
            return None
        return synced, payload

    def _was_synced(self, bad: int, size: int) -> bool:
        """Whether a whole record after ``bad`` says that the disk once held more than that.

        Looks for the next record byte by byte, at most `MAX_RECORD_BYTES` far: the bad one is no larger.
        """
        at, stop = bad + 1, min(size, bad + HEADER_BYTES + MAX_RECORD_BYTES)
        window = self._file.read(at, stop - at + HEADER_BYTES)
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
            raise JournalDamaged(f"{self.name} changed under this process at byte {at}; check the disk")
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
            self._file.write(self._end, data)
        except OSError as reason:
            self._file.truncate(self._end)
            raise JournalFull(f"cannot write to {self.name}: {reason.strerror}; free some space") from reason
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
            self._file.sync()
        except OSError as reason:
            raise JournalFull(f"the disk did not keep {self.name}: {reason.strerror}; check it") from reason
        self._synced = self._end

    def committed(self, sequence: int) -> Committed | None:
        """The committed batch at ``sequence``, if this log has it."""
        at = self._committed.get(sequence)
        if at is None:
            return None
        record = decode_record(self._intact(at))
        assert isinstance(record, BecameCommitted)
        return record.committed

    def close(self) -> None:
        """Release the file."""
        self._file.close()
