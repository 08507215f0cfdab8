"""What a log promised survives kills, torn writes and full disks; what it cannot promise it says.

Real files, real processes, real limits of the operating system.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.journal.folder import DiskFile
from aggregator.journal.log import HEADER_BYTES, MAGIC, JournalDamaged, JournalFull, Log
from aggregator.pbft.messages import Batch, Committed
from aggregator.pbft.records import BecameCommitted, LeftView, Record, encode_record

ROOT = Path(__file__).parents[2]


def opened(path: Path) -> Log:
    """The log in a file of the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return Log(DiskFile(path), str(path))


def committed(sequence: int, size: int = 10) -> BecameCommitted:
    """A committed batch with one transaction of ``size`` bytes."""
    batch = Batch(timestamp_ms=sequence, transactions=(bytes([sequence % 256]) * size,))
    return BecameCommitted(Committed(sequence, batch, ()))


def written(path: Path, records: list[Record], *, sync_each: bool = True) -> list[int]:
    """Write a journal; returns where each record starts, and where the last one ends."""
    journal = opened(path)
    starts = []
    for record in records:
        starts.append(path.stat().st_size)
        journal.append(record)
        if sync_each:
            journal.sync()
    journal.sync()
    journal.close()
    return [*starts, path.stat().st_size]


def read(path: Path) -> list[Record]:
    """All records of a journal."""
    journal = opened(path)
    try:
        return list(journal.records())
    finally:
        journal.close()


RECORDS: list[Record] = [committed(1), LeftView(3), committed(2, 5000), committed(3)]


# Good days ---------------------------------------------------------------------------------------------


def test_records_come_back_in_order_and_committed_batches_by_sequence(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal"
    written(path, RECORDS)
    assert read(path) == RECORDS
    journal = opened(path)
    journal.append(committed(4))
    expected = [
        None,
        committed(1).committed,
        committed(2, 5000).committed,
        committed(3).committed,
        committed(4).committed,
    ]
    assert [journal.committed(n) for n in range(6)] == [*expected, None]
    journal.close()
    assert read(path) == [*RECORDS, committed(4)], "closing loses nothing that was written"


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "journal") == []
    assert read(tmp_path / "journal") == []


# Torn tails --------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_torn_last_record_is_cut_off_and_the_journal_goes_on(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    *_, last, end = written(path, RECORDS)
    cut = data.draw(st.integers(last, end - 1), label="cut at")
    with path.open("r+b") as file:
        file.truncate(cut)
    assert read(path) == RECORDS[:-1]
    journal = opened(path)
    journal.append(committed(9))
    journal.close()
    assert read(path) == [*RECORDS[:-1], committed(9)]


def test_a_tail_of_zeros_as_some_file_systems_leave_it_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    *_, end = written(path, RECORDS)
    with path.open("ab") as file:
        file.write(bytes(5000))
    assert read(path) == RECORDS
    assert path.stat().st_size == end


def test_a_group_torn_in_its_middle_was_never_promised_and_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = opened(path)
    journal.append(committed(1))
    journal.sync()
    start = path.stat().st_size
    for sequence in (2, 3, 4):
        journal.append(committed(sequence, 5000))
    journal.close()  # power fails here: the pages of one group reach the disk in any order
    with path.open("r+b") as file:
        file.seek(start + 100)
        file.write(bytes(4096))
    assert read(path) == [committed(1)]
    assert path.stat().st_size == start


@pytest.mark.parametrize("size", range(len(MAGIC)))
def test_a_journal_torn_at_its_creation_starts_anew(tmp_path: Path, size: int) -> None:
    path = tmp_path / "journal"
    path.write_bytes(MAGIC[:size])
    assert read(path) == []


# Damage ------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
@given(data=st.data())
def test_damage_in_the_middle_is_reported_never_skipped(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    *starts, last, _ = written(path, RECORDS)
    place = data.draw(st.integers(starts[0], last - 1), label="byte")
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    path.write_bytes(content)
    with pytest.raises(JournalDamaged, match="damaged at byte"):
        opened(path)
    assert path.read_bytes() == content, "a damaged journal is left as it is"


def test_damage_under_an_open_journal_is_reported_when_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = opened(path)
    journal.append(committed(1, 500))
    journal.append(committed(2))
    with path.open("r+b") as file:
        file.seek(len(MAGIC) + HEADER_BYTES + 100)
        file.write(b"rot")
    with pytest.raises(JournalDamaged):
        journal.committed(1)
    with pytest.raises(JournalDamaged):
        list(journal.records())
    assert journal.committed(2) == committed(2).committed
    journal.close()


def test_what_is_no_journal_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"my diary, do not touch")
    with pytest.raises(JournalDamaged):
        opened(path)
    assert path.read_bytes() == b"my diary, do not touch"


# Kills and full disks ----------------------------------------------------------------------------------

_WRITER = """
import sys
from pathlib import Path
from tests.journal.test_log import committed, opened
journal = opened(Path(sys.argv[1]))
sequence = max((r.committed.sequence for r in journal.records()), default=0)
while True:
    for _ in range(3):
        sequence += 1
        journal.append(committed(sequence, 700))
    journal.sync()
    print(sequence, flush=True)
"""


def test_what_was_synced_survives_kills_in_the_middle_of_writing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    promised = 0
    for kill_after in (1, 7, 20):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(kill_after):
            promised = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        promised = max([promised, *(int(line) for line in writer.stdout.read().split()[:-1])])
        writer.stdout.close()
        writer.wait(30)
        records = read(path)
        assert records == [committed(n, 700) for n in range(1, len(records) + 1)]
        assert len(records) >= promised


_FULL = """
import resource, sys
from pathlib import Path
from aggregator.journal.log import JournalFull
from tests.journal.test_log import committed, opened
journal = opened(Path(sys.argv[1]))
journal.append(committed(1, 300))
journal.sync()
before = Path(sys.argv[1]).read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 500, len(before) + 500))
try:
    journal.append(committed(2, 5000))
except JournalFull as reason:
    print(reason)
assert Path(sys.argv[1]).read_bytes() == before
journal.append(committed(3, 50))
journal.sync()
assert journal.committed(2) is None and journal.committed(3) is not None
"""


def test_a_full_disk_is_a_typed_error_and_the_journal_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    told = subprocess.run(
        [sys.executable, "-c", _FULL, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    assert "free some space" in told.stdout
    assert read(path) == [committed(1, 300), committed(3, 50)]


def test_a_device_without_room_is_a_typed_error(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    link = tmp_path / "journal"
    link.symlink_to(full)
    with pytest.raises((JournalFull, JournalDamaged)):
        opened(link)


def test_a_record_larger_than_any_reader_takes_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.journal.log.MAX_RECORD_BYTES", 1000)
    journal = opened(tmp_path / "journal")
    journal.append(committed(1, 100))
    with pytest.raises(JournalFull, match="1000"):
        journal.append(committed(2, 2000))
    journal.close()
    assert read(tmp_path / "journal") == [committed(1, 100)]
    assert len(encode_record(committed(2, 2000))) > 1000
