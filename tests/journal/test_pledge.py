"""A bound on the votes outlives the log that they are in: damage is noticed, said, and never forgotten."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from aggregator.journal.journal import DAMAGED, Journal
from aggregator.journal.log import JournalDamaged
from aggregator.journal.pledge import Pledge
from aggregator.pbft.messages import Vote, VoteKind
from aggregator.pbft.records import Accepted, LeftView
from tests.journal.test_journal import cut, grown, story
from tests.journal.test_log import committed
from tests.simulation.disk import PowerLoss, SimulatedFolder


def accepted(sequence: int) -> Accepted:
    """What is written before a vote on ``sequence`` in view 0."""
    vote = Vote(VoteKind.PRE_PREPARE, 0, sequence, bytes(32), 0, bytes(65))
    return Accepted(vote, committed(sequence).committed.batch)


def promise(journal: Journal, *records: Accepted | LeftView) -> None:
    for record in records:
        journal.append(record)
    journal.sync()


def spoil(path: Path, at: int | None = None) -> None:
    """Change a byte in the middle of a file, or at ``at``."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3 if at is None else at] ^= 1
    path.write_bytes(data)


def test_votes_stay_within_the_bound_on_the_disk(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    horizons = []
    for sequence in range(1, 600):
        promise(journal, accepted(sequence))
        horizons.append(journal._pledges.pledge.horizon)
        assert horizons[-1] >= sequence
    assert len(set(horizons)) == 3, "few votes wait for it"
    promise(journal, LeftView(7))
    journal.close()
    journal = Journal.at(tmp_path)
    assert journal._pledges.pledge == Pledge(view=7, horizon=horizons[-1])
    assert journal.forgetful is None
    journal.close()


def test_a_damaged_log_is_reported_moved_aside_and_its_promises_remembered_as_lost(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    for sequence in range(1, 20):
        promise(journal, accepted(sequence))
    promise(journal, LeftView(3))
    journal.close()
    spoil(tmp_path / f"log-{0:016d}")
    for _ in range(2):  # a restart before the repair changes nothing
        journal = Journal.at(tmp_path)
        assert journal.forgetful == Pledge(view=3, horizon=257, lost=True)
        assert list(journal.records()) == []
        assert (tmp_path / DAMAGED).exists()
        # Whoever only follows writes down what it follows: that is no vote.
        promise(journal, accepted(900))
        assert journal.forgetful == Pledge(view=3, horizon=257, lost=True)
        journal.close()
        (tmp_path / f"log-{0:016d}").unlink()
    journal = Journal.at(tmp_path)
    journal.serve(1)
    assert journal.forgetful is None, "a committee joined later has none of the promises"
    journal.serve(0)
    journal.remembered()
    assert journal.forgetful is None
    promise(journal, accepted(901))
    journal.close()
    assert Journal.at(tmp_path)._pledges.pledge == Pledge(view=3, horizon=901 + 256)


def test_either_copy_of_the_bound_may_be_damaged_but_not_both_and_the_log(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    promise(journal, *map(accepted, range(1, 9)))
    promise(journal, *map(accepted, range(9, 12)))
    known = journal._pledges.pledge
    journal.close()
    for copy in ("pledge-0", "pledge-1", "pledge-0"):
        spoil(tmp_path / copy)
        journal = Journal.at(tmp_path)  # heals the copy
        assert journal._pledges.pledge == known and not journal.damage
        journal.close()
    for copy in ("pledge-0", "pledge-1"):
        spoil(tmp_path / copy)
    journal = Journal.at(tmp_path)
    journal.serve(0)
    assert journal._pledges.pledge.horizon >= 11, "an intact log tells as much"
    journal.close()
    for name in ("pledge-0", "pledge-1", f"log-{0:016d}"):
        spoil(tmp_path / name)
    with pytest.raises(JournalDamaged, match="keep this member stopped"):
        Journal.at(tmp_path)


def test_a_damaged_older_log_loses_no_promise(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    grown(journal, 1, 12)
    cut(journal, 4)
    grown(journal, 13, 16)
    cut(journal, 8)
    journal.close()
    spoil(tmp_path / f"log-{4:016d}")
    journal = Journal.at(tmp_path)
    assert journal.damage and journal.forgetful is None
    assert story(journal) == (8, list(range(9, 17)))
    journal.close()


def test_a_snapshot_that_a_peer_gave_is_not_replaced_by_one_that_does_not_lead_there(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    journal.serve(0)
    grown(journal, 1, 8)
    cut(journal, 4)
    journal.cut(40, b"ledger 40", [LeftView(2)])  # batches 9 to 40 were never here
    journal.close()
    spoil(tmp_path / f"snapshot-{40:016d}", at=-1)
    journal = Journal.at(tmp_path)
    assert story(journal) == (0, []) and journal.forgetful is not None
    journal.close()


def test_no_power_loss_lets_a_vote_beyond_the_bound_leave() -> None:
    for operations, seed in itertools.product(range(40), range(4)):
        disk, choose = SimulatedFolder(), random.Random(f"{operations} {seed}")
        said = 0
        try:
            journal = Journal(disk, stride=2)
            disk.crash_after = operations
            for sequence in range(1, 12):
                promise(journal, accepted(sequence))
                said = sequence
        except PowerLoss:
            pass
        disk.crash(choose, 0.7)
        journal = Journal(disk, stride=2)
        assert journal._pledges.pledge.horizon >= said and not journal.damage
        disk.rot(choose)


def test_a_bound_told_from_the_log_belongs_to_the_committee_of_that_log(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    journal.serve(3)
    promise(journal, accepted(5))
    promise(journal, LeftView(2))
    journal.close()
    for copy in ("pledge-0", "pledge-1"):
        spoil(tmp_path / copy)
    journal = Journal.at(tmp_path)
    journal.serve(3)
    assert journal._pledges.pledge == Pledge(epoch=3, view=2, horizon=261)
    journal.close()
    spoil(tmp_path / f"log-{0:016d}")
    journal = Journal.at(tmp_path)
    journal.serve(3)
    assert journal.forgetful == Pledge(epoch=3, view=2, horizon=261, lost=True)
    journal.close()


def test_without_the_bound_nothing_that_could_hold_promises_is_given_up(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    grown(journal, 1, 8)
    journal.cut(40, b"ledger 40", [LeftView(2)])
    promise(journal, accepted(41))
    journal.close()
    for name in ("pledge-0", "pledge-1", f"snapshot-{40:016d}"):
        spoil(tmp_path / name, at=-1)
    with pytest.raises(JournalDamaged, match="keep this member stopped"):
        Journal.at(tmp_path)
    assert (tmp_path / f"log-{40:016d}").exists()


def test_a_log_that_is_gone_is_not_taken_for_one_that_never_was(tmp_path: Path) -> None:
    journal = Journal.at(tmp_path)
    promise(journal, accepted(1))
    journal.close()
    (tmp_path / f"log-{0:016d}").unlink()
    journal = Journal.at(tmp_path)
    assert journal.forgetful == Pledge(horizon=257, lost=True) and journal.damage
    journal.close()
