"""A journal's generations: a snapshot and a log begin together or not at all, and what is kept is enough.

On a simulated disk that loses power at every operation, and on a real one.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.journal.folder import FolderLocked
from aggregator.journal.journal import Journal
from aggregator.pbft.records import BecameCommitted, LeftView
from tests.journal.test_log import committed
from tests.simulation.disk import PowerLoss, SimulatedFolder

ROOT = Path(__file__).parents[2]


def grown(journal: Journal, first: int, last: int) -> None:
    """Commit batches ``first`` to ``last``."""
    for sequence in range(first, last + 1):
        journal.append(committed(sequence))
    journal.sync()


def cut(journal: Journal, sequence: int) -> None:
    """Begin a generation at ``sequence`` with a snapshot that says so, one promise, and later batches."""
    later = (journal.committed(number) for number in range(sequence + 1, sequence + 100))
    batches = [BecameCommitted(batch) for batch in later if batch is not None]
    journal.cut(sequence, b"ledger %d" % sequence, [LeftView(sequence), *batches])


def story(journal: Journal) -> tuple[int, list[int]]:
    """Where a restart would start from and which batches it would work off."""
    stored = journal.snapshot()
    after = 0 if stored is None else stored[0]
    if stored is not None:
        assert stored[1] == b"ledger %d" % stored[0]
    return after, [batch.sequence for batch in journal.recent(after)]


def test_a_cut_keeps_promises_and_batches_above_it_and_one_generation_below(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    grown(journal, 1, 12)
    cut(journal, 8)
    assert story(journal) == (8, [9, 10, 11, 12])
    assert next(iter(journal.records())) == LeftView(8)
    grown(journal, 13, 20)
    assert journal.committed(3) is not None, "the generation before still serves"
    cut(journal, 16)
    assert journal.committed(3) is None and journal.committed(9) is not None
    journal.close()
    journal = Journal.at(tmp_path)
    assert story(journal) == (16, [17, 18, 19, 20])
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("pledge")) == [
        f"{kind}-{number:016d}" for kind in ("log", "snapshot") for number in (8, 16)
    ]
    journal.close()


def test_batches_committed_out_of_order_are_worked_off_in_order(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    for sequence in (1, 3, 2, 5, 4, 7):
        journal.append(committed(sequence))
    journal.sync()
    assert story(journal) == (0, [1, 2, 3, 4, 5])
    journal.close()


def test_power_may_fail_at_any_operation_of_a_cut() -> None:
    reached = set()
    for operations, seed in itertools.product(range(30), range(6)):
        disk = SimulatedFolder()
        journal = Journal(disk)
        grown(journal, 1, 12)
        cut(journal, 4)
        grown(journal, 13, 14)
        disk.crash_after = operations
        with contextlib.suppress(PowerLoss):
            cut(journal, 8)
        disk.crash(random.Random(seed), lose_unsynced=1.0)
        journal = Journal(disk)
        after, batches = story(journal)
        assert batches == list(range(after + 1, 15)), "whatever was synced is there"
        assert LeftView(after) in journal.records()
        reached.add(after)
        grown(journal, 15, 16)
        cut(journal, 12)
        assert story(journal) == (12, [13, 14, 15, 16])
    assert reached == {4, 8}


def test_a_damaged_snapshot_is_not_used_while_the_one_before_it_leads_as_far(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    journal.serve(0)
    grown(journal, 1, 12)
    cut(journal, 4)
    cut(journal, 8)
    journal.close()
    path = tmp_path / f"snapshot-{8:016d}"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    journal = Journal.at(tmp_path)
    assert story(journal) == (4, list(range(5, 13)))
    journal.close()
    (tmp_path / f"snapshot-{4:016d}").unlink()
    journal = Journal.at(tmp_path)
    assert story(journal) == (0, []), "nothing to start from but the other members"
    assert journal.forgetful is not None and len(journal.damage) == 2
    journal.close()


def test_parts_of_a_snapshot_add_up_to_it(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    grown(journal, 1, 8)
    cut(journal, 8)
    parts = [journal.snapshot_part(8, offset, 3) for offset in (0, 3, 6)]
    assert [part for part in parts if part] == [(8, b"led"), (8, b"ger"), (8, b" 8")]
    assert journal.snapshot_part(4, 0, 3) is None
    journal.close()


def test_a_second_process_is_kept_out_and_let_in_when_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.at(path)
    script = "import sys; from pathlib import Path\n"
    script += "from aggregator.journal.folder import FolderLocked\n"
    script += "from aggregator.journal.journal import Journal\n"
    script += "try: Journal.at(Path(sys.argv[1]))\nexcept FolderLocked as reason: print(reason)"
    told = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "running already" in told.stdout, told.stderr
    with pytest.raises(FolderLocked):
        Journal.at(path)
    journal.close()
    Journal.at(path).close()
