"""A replica's journal: a log of what it promised and committed, and the snapshot that the log starts from.

Folder: per generation ``g`` (the sequence number of a stable checkpoint, 0 for the first) one file
``log-g`` and, but for 0, one ``snapshot-g`` with the ledger at ``g``. `cut` begins a generation: it writes
the snapshot under another name, syncs it, renames it, and then does the same with the new log. The
generation begins when its log has its name; before that the old one is whole. The generation before the
current one stays, to serve members a little behind and to start from if the newest snapshot is damaged;
what is older is removed, so a journal's size is bounded by what happens between two cuts.

Bytes that changed in the middle of a file are never used. A damaged log is moved aside (`DAMAGED`) and
reported; what it held comes from peers. Without its current log a member has forgotten promises: `forgetful`
says so until `remembered`, see `aggregator.journal.pledge`.

Guarantees: those of `aggregator.journal.log`, and a snapshot is read whole and intact or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from aggregator.journal.folder import DiskFolder, File, Folder
from aggregator.journal.log import JournalDamaged, JournalFull, Log
from aggregator.journal.pledge import STRIDE, Pledge, PledgeFiles
from aggregator.pbft.messages import Committed
from aggregator.pbft.records import Record
from protocol.errors import ProtocolError

log = logging.getLogger(__name__)

SNAPSHOT_MAGIC: Final = b"DTNSNAP1"
MAX_SNAPSHOT_BYTES: Final = 512 * 1024 * 1024
_LOG_NAME: Final = re.compile(r"log-(\d{16})")
_SNAPSHOT_NAME: Final = re.compile(r"snapshot-(\d{16})")
_UNFINISHED: Final = "unfinished"
WAY_OUT: Final = (
    "keep this member stopped: one that starts empty forgets its votes. Move it away only while no other "
    "member is down, and after the others have gone on past this one's last batch (docs/operating.md, Backup)"
)
DAMAGED: Final = "damaged-log"
"""The last log that was moved aside: for whoever wants to know what happened to it."""

RETIRED: Final = "retired"
"""Says that this journal lives on elsewhere, see `aggregator.journal.backup`."""


class JournalRetired(ProtocolError):
    """This journal was moved away: a member that ran from it as well would contradict itself."""


def _generations(names: Iterable[str], pattern: re.Pattern[str]) -> list[int]:
    return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))


class Journal:
    """The journal in ``folder``, which it owns until `close`; ``stride`` is that of the pledge."""

    def __init__(self, folder: Folder, stride: int = STRIDE) -> None:
        self._folder = folder
        self._logs: dict[int, Log] = {}
        self._stride = stride
        self._epoch = 0
        self.damage: list[str] = []
        """What was found damaged on opening."""
        try:
            self._open()
        except OSError as reason:
            self.close()
            raise JournalFull(f"cannot use {folder}: {reason.strerror}; free some space") from reason
        except BaseException:
            self.close()
            raise

    @classmethod
    def at(cls, path: Path) -> Journal:
        """The journal in a folder of the disk.

        Raises:
            FolderLocked, FolderUnusable: see `DiskFolder`.
            JournalDamaged, JournalFull: see `aggregator.journal.log`.
        """
        return cls(DiskFolder(path))

    def _open(self) -> None:
        if RETIRED in self._folder.names():
            raise JournalRetired(
                f"{self._folder} was moved away with `dtn aggregator backup --move`: the member lives where "
                "that backup was restored. To bring it back, move this folder away and restore it here"
            )
        self._pledges = PledgeFiles(self._folder)
        self._due = self._pledges.pledge
        kept = _generations(self._folder.names(), _LOG_NAME)[-2:]
        if not kept and (self._due.view, self._due.horizon) != (0, 0):
            self._report(f"{self._folder} has no log any more")
            self._forget()
        kept = kept or [0]
        current = kept[-1]
        for generation in kept:
            self._open_log(generation, current)
        start = self._newest_intact(kept)
        if start is None or not self._leads(start, current):
            self._start_from_nothing(kept)
        elif current not in self._logs:
            self._logs[current] = self._log(current)
        self._folder.sync()
        self._clear()

    def _log(self, generation: int) -> Log:
        name = f"log-{generation:016d}"
        return Log(self._folder.open(name), f"{self._folder}/{name}")

    def _open_log(self, generation: int, current: int) -> None:
        """Open a log if it is as it was left, else move it aside."""
        try:
            self._logs[generation] = self._log(generation)
        except JournalDamaged as reason:
            self._report(str(reason))
            if generation == current:
                self._forget()  # before anything could look as if nothing had been promised
            self._move_aside(f"log-{generation:016d}")

    def _newest_intact(self, kept: list[int]) -> int | None:
        """The newest generation whose ledger can be read; 0 needs none."""
        for generation in sorted(kept, reverse=True):
            if generation == 0 or self._intact_snapshot(generation) is not None:
                return generation
            self._report(f"{self._folder}/snapshot-{generation:016d} is damaged")
        return None

    def _leads(self, start: int, current: int) -> bool:
        """Whether the batches between are here; they are not where a peer's snapshot began a generation."""
        older = self._logs.get(start)
        return start == current or (
            older is not None
            and all(older.committed(sequence) is not None for sequence in range(start + 1, current + 1))
        )

    def _start_from_nothing(self, kept: list[int]) -> None:
        """What is intact leads to no ledger: begin as a new member does, and forgetful."""
        self._forget()
        for generation in kept:
            if generation in self._logs:
                self._logs.pop(generation).close()
                self._move_aside(f"log-{generation:016d}")
        self._logs[0] = self._log(0)

    def _forget(self) -> None:
        """Promises cannot be told any more; raises `JournalDamaged` if their bound cannot either."""
        if not self._pledges.found:
            raise JournalDamaged(f"{'; '.join(self.damage)}; so is the bound on its votes: {WAY_OUT}")
        self._write_pledge(dataclasses.replace(self._pledges.pledge, lost=True))

    def _report(self, reason: str) -> None:
        self.damage.append(reason)
        log.error("%s; what it held comes from the other members", reason)

    def _move_aside(self, name: str) -> None:
        self._folder.rename(name, DAMAGED)
        self._folder.sync()

    def _clear(self) -> None:
        """Remove generations no longer kept, and what a power loss left of one that never began."""
        for name in self._folder.names():
            match = _LOG_NAME.fullmatch(name) or _SNAPSHOT_NAME.fullmatch(name)
            if name == _UNFINISHED or (match and int(match[1]) not in self._logs):
                self._folder.remove(name)

    # The log ---------------------------------------------------------------------------------------

    def serve(self, epoch: int) -> None:
        """Say to which committee the records to come are promises; on opening, those of the log are too."""
        self._epoch = epoch
        if not self._pledges.found:
            for record in self.records():
                self._due = self._due.covering(record, epoch, self._stride)
            self._write_pledge(self._due)

    @property
    def generation(self) -> int:
        """Sequence number that the current log starts from."""
        return max(self._logs)

    @property
    def _current(self) -> Log:
        return self._logs[self.generation]

    @property
    def empty(self) -> bool:
        """Whether the current log holds nothing yet."""
        return self._current.empty

    @property
    def size_bytes(self) -> int:
        """Length of the current log."""
        return self._current.size_bytes

    def free_bytes(self) -> int | None:
        """Room left on its disk; none if it is not on one."""
        try:
            return shutil.disk_usage(self._folder.path).free if isinstance(self._folder, DiskFolder) else None
        except OSError:
            return None

    def records(self) -> Iterator[Record]:
        """All records of the current log, oldest first: every promise that still binds."""
        return self._current.records()

    def append(self, record: Record) -> None:
        """Write a record; it is durable only after `sync`.

        Raises:
            JournalFull: no room on the disk, or no reader would take it; the journal is as it was.
        """
        self._current.append(record)
        self._due = self._due.covering(record, self._epoch, self._stride)

    def sync(self) -> None:
        """Make everything appended so far durable (group commit: one call for many records).

        Raises:
            JournalFull: the disk did not keep it; the process must stop, for what is on the disk is unknown.
        """
        if self._due != self._pledges.pledge:
            self._write_pledge(self._due)
        self._current.sync()

    # Promises that were lost -------------------------------------------------------------------------

    @property
    def forgetful(self) -> Pledge | None:
        """What this member may have promised in the present epoch and no longer knows; else none."""
        pledge = self._pledges.pledge
        return pledge if pledge.lost and pledge.epoch >= self._epoch else None

    def remembered(self) -> None:
        """What was promised and lost binds no more; records that say so must be synced before."""
        self._write_pledge(dataclasses.replace(self._pledges.pledge, lost=False))

    def _write_pledge(self, pledge: Pledge) -> None:
        try:
            self._pledges.write(pledge)
        except OSError as reason:
            raise JournalFull(
                f"cannot write to {self._folder}: {reason.strerror}; free some space"
            ) from reason
        self._due = pledge

    def committed(self, sequence: int) -> Committed | None:
        """The committed batch at ``sequence``, if this journal still has it."""
        for _, log in sorted(self._logs.items(), reverse=True):
            found = log.committed(sequence)
            if found is not None:
                return found
        return None

    # Snapshots -------------------------------------------------------------------------------------

    def snapshot(self) -> tuple[int, bytes] | None:
        """Sequence number and bytes of the newest intact snapshot; none at the beginning."""
        for generation in sorted(self._logs, reverse=True):
            if generation == 0:
                return None
            data = self._intact_snapshot(generation)
            if data is not None:
                return generation, data
        raise JournalDamaged(f"{self._folder} changed under this process; {WAY_OUT}")

    def _intact_snapshot(self, generation: int) -> bytes | None:
        name = f"snapshot-{generation:016d}"
        if name not in self._folder.names():
            return None
        with contextlib.closing(self._folder.open(name)) as file:
            data = file.read(0, min(file.size(), MAX_SNAPSHOT_BYTES))
        head, checksum, body = data[:8], data[8:12], data[12:]
        whole = head == SNAPSHOT_MAGIC and checksum == zlib.crc32(body).to_bytes(4, "little")
        return body if whole else None

    def cut(self, sequence: int, snapshot: bytes, records: Iterable[Record]) -> None:
        """Begin the generation of the stable checkpoint at ``sequence``.

        ``snapshot`` is the ledger there; ``records`` are the promises that still bind, and the batches
        committed after it.

        Raises:
            JournalFull: no room; the generation before goes on.
        """
        assert sequence > self.generation, (sequence, self.generation)
        if len(snapshot) + 12 > MAX_SNAPSHOT_BYTES:
            raise JournalFull(f"a snapshot has at most {MAX_SNAPSHOT_BYTES} bytes, this one {len(snapshot)}")
        try:
            checksum = zlib.crc32(snapshot).to_bytes(4, "little")
            with self._unfinished() as file:
                file.write(0, SNAPSHOT_MAGIC + checksum + snapshot)
                file.sync()
            # The log's name begins the generation: it must not be there before the snapshot's is.
            self._folder.rename(_UNFINISHED, f"snapshot-{sequence:016d}")
            self._folder.sync()
            with self._unfinished() as file:
                log = Log(file, f"{self._folder}/{_UNFINISHED}")
                for record in records:
                    log.append(record)
                log.sync()
            self._folder.rename(_UNFINISHED, f"log-{sequence:016d}")
            self._folder.sync()
        except OSError as reason:
            raise JournalFull(
                f"cannot write to {self._folder}: {reason.strerror}; free some space"
            ) from reason
        self._logs[sequence] = self._log(sequence)
        for generation in sorted(self._logs)[:-2]:
            self._logs.pop(generation).close()
        self._clear()

    def snapshot_part(self, sequence: int, offset: int, size: int) -> tuple[int, bytes] | None:
        """Length of the current snapshot and up to ``size`` bytes of it; none if it is another one."""
        if sequence != self.generation or not sequence:
            return None
        with contextlib.closing(self._folder.open(f"snapshot-{sequence:016d}")) as file:
            return file.size() - 12, file.read(offset + 12, size)

    def _unfinished(self) -> contextlib.closing[File]:
        file = self._folder.open(_UNFINISHED)
        file.truncate(0)
        return contextlib.closing(file)

    def recent(self, after: int) -> Iterator[Committed]:
        """Committed batches from ``after + 1`` on, as far as they follow each other.

        A pipeline commits out of order, so the order of the records says nothing.
        """
        while (following := self.committed(after + 1)) is not None:
            yield following
            after += 1

    def close(self) -> None:
        """Let go of the folder."""
        for log in self._logs.values():
            log.close()
        self._logs.clear()
        self._folder.close()
