"""Backup and restore of a member in a committee: it comes back whole, and never contradicts itself."""

from __future__ import annotations

import asyncio
import json
import shutil
import tarfile
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.journal.backup import BackupRefused, Owner, backup, read_manifest, restore
from aggregator.journal.folder import DiskFile, FolderLocked
from aggregator.journal.journal import Journal, JournalRetired
from aggregator.journal.log import Log
from aggregator.ledger.root import state_root
from aggregator.node import now_ms
from aggregator.pbft.messages import LinkMessage, NewView, PrePrepare, ViewChange, Vote, VoteKind
from aggregator.pbft.records import BecamePrepared
from protocol.chain_events import CommitteeChanged, ParameterChanged
from tests.ledger.world import who
from tests.node.committee import LIMITS, NAMES, Committee, running

SICK = 2
OWNER = Owner(who(NAMES[SICK]), 1, bytes(20))
PROMISES = {VoteKind.PREPARE, VoteKind.COMMIT}
BOTH_PHASES = replace(LIMITS, unanimity_ms=0)
"""Every batch takes commits, so that members make both kinds of promise."""


def run(folder: Path, scenario: Callable[[Committee], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with running(folder, BOTH_PHASES) as committee:
            await scenario(committee)

    asyncio.run(whole())


async def work(committee: Committee, batches: int) -> None:
    """Let the committee order so many more batches."""
    goal = committee.nodes[0].state.sequence + batches
    while committee.nodes[0].state.sequence < goal:
        before = committee.nodes[0].state.sequence
        value = 1 + committee.nodes[0].state.parameters["update_s"] % 1000
        committee.chain.blocks.append([ParameterChanged(key="update_s", value=value)])
        await committee.until(lambda before=before: committee.nodes[0].state.sequence > before)  # type: ignore[misc]


def watch(committee: Committee) -> list[Vote]:
    """Everything by which the member binds itself, from now on."""
    said: list[Vote] = []
    place = committee.nodes[SICK].replica.index

    def bend(sender: int, to: int, message: LinkMessage) -> Iterable[LinkMessage]:
        if sender == SICK:
            match message:
                case Vote() if message.kind in PROMISES:
                    said.append(message)
                # Whoever missed the start of a view is sent it by anybody who has it: that binds nobody.
                case PrePrepare(vote=vote) | ViewChange(vote=vote) | NewView(vote=vote) if (
                    vote.signer == place
                ):
                    said.append(vote)
        return [message]

    committee.bend = bend
    return said


def journal_of(committee: Committee) -> Path:
    return committee.folder / NAMES[SICK]


def test_a_member_restored_from_a_copy_follows_in_silence_until_another_committee_orders(
    tmp_path: Path,
) -> None:
    async def scenario(committee: Committee) -> None:
        await work(committee, 6)
        said = watch(committee)
        backup(journal_of(committee), tmp_path / "copy", OWNER, "copy", now_ms())
        await work(committee, 6)
        assert said, "while it is well it votes"
        promised = max(vote.sequence for vote in said)
        assert promised > read_horizon(tmp_path / "copy") - 300
        await committee.stop(SICK)
        shutil.rmtree(journal_of(committee))
        restore(tmp_path / "copy", journal_of(committee), OWNER, epoch=1)
        end_prepared(journal_of(committee))
        said.clear()
        committee.restart(SICK)
        await work(committee, 12)
        sick, well = committee.nodes[SICK], committee.nodes[0]
        await committee.until(lambda: sick.state.sequence == well.state.sequence)
        assert state_root(sick.state) == state_root(well.state), "it has caught up"
        assert not said, "and bound itself to nothing"
        assert "epoch 1" in (sick.repair_alarm or "")
        # Another start forgets nothing of it.
        await committee.stop(SICK)
        committee.restart(SICK)
        await work(committee, 4)
        assert not said
        # The same members, appointed anew.
        members = tuple(map(who, NAMES))
        committee.chain.blocks.append([CommitteeChanged(epoch=2, members=members, threshold=3)])
        for node in committee.nodes:
            node.committees[2] = members
        await committee.until(lambda: all(node.members.epoch == 2 for node in committee.nodes))
        await work(committee, 4)
        await committee.until(lambda: {vote.kind for vote in said} >= PROMISES)
        assert committee.nodes[SICK].repair_alarm is None

    run(tmp_path / "members", scenario)


def end_prepared(folder: Path) -> None:
    """Let the log end where a batch was prepared and not committed: a vote that it could say again."""
    (path,) = sorted(folder.glob("log-*"))[-1:]
    journal = Journal.at(folder)
    records = list(journal.records())
    journal.close()
    last = max(index for index, record in enumerate(records) if isinstance(record, BecamePrepared))
    path.unlink()
    file = DiskFile(path)
    log = Log(file, str(path))
    for record in records[: last + 1]:
        log.append(record)
    log.sync()
    log.close()


def read_horizon(path: Path) -> int:
    """The horizon of the pledge in a copy."""
    with tarfile.open(path) as archive:
        source = archive.extractfile("pledge-0")
        assert source is not None
        return int.from_bytes(source.read()[20:28], "little")


def test_without_the_pledge_an_old_journal_would_vote_at_once(tmp_path: Path) -> None:
    """Why a copy must not simply be put back: what the test above forbids does happen."""

    async def scenario(committee: Committee) -> None:
        await work(committee, 3)
        shutil.copytree(journal_of(committee), tmp_path / "old")
        await work(committee, 3)
        await committee.stop(SICK)
        shutil.rmtree(journal_of(committee))
        shutil.copytree(tmp_path / "old", journal_of(committee))
        said = watch(committee)
        committee.restart(SICK)
        await work(committee, 6)
        await committee.until(lambda: said)

    run(tmp_path / "members", scenario)


def test_a_moved_member_votes_at_once_and_its_old_journal_never_opens_again(tmp_path: Path) -> None:
    async def scenario(committee: Committee) -> None:
        await work(committee, 6)
        with pytest.raises(FolderLocked):
            backup(journal_of(committee), tmp_path / "moved", OWNER, "move", now_ms())
        await committee.stop(SICK)
        before = sorted(path.read_bytes() for path in journal_of(committee).iterdir())
        backup(journal_of(committee), tmp_path / "moved", OWNER, "move", now_ms())
        with pytest.raises(JournalRetired, match="moved away"):
            Journal.at(journal_of(committee))
        with pytest.raises(BackupRefused, match="moved away before"):
            backup(journal_of(committee), tmp_path / "twice", OWNER, "move", now_ms())
        old = journal_of(committee).rename(tmp_path / "old")
        restore(tmp_path / "moved", journal_of(committee), OWNER, epoch=1)
        assert sorted(path.read_bytes() for path in journal_of(committee).iterdir()) == before
        assert (old / "retired").exists()
        said = watch(committee)
        committee.restart(SICK)
        await work(committee, 6)
        await committee.until(lambda: {vote.kind for vote in said} >= PROMISES)
        assert committee.nodes[SICK].repair_alarm is None

    run(tmp_path / "members", scenario)


def test_a_journal_is_copied_whole_while_it_starts_anew_again_and_again(tmp_path: Path) -> None:
    async def scenario(committee: Committee) -> None:
        for number in range(8):
            path = tmp_path / f"copy-{number}"
            copying = asyncio.to_thread(backup, journal_of(committee), path, OWNER, "copy", now_ms())
            await asyncio.gather(copying, work(committee, 2))
            restore(path, tmp_path / f"restored-{number}", OWNER, epoch=1)
            journal = Journal.at(tmp_path / f"restored-{number}")
            assert not journal.damage and journal.forgetful is not None
            journal.close()

    run(tmp_path / "members", scenario)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of a journal with nothing in it."""
    Journal.at(tmp_path / "journal").close()
    backup(tmp_path / "journal", tmp_path / "copy", OWNER, "copy", 1)
    return tmp_path / "copy"


def test_a_backup_of_another_or_over_something_is_refused(tmp_path: Path, copy: Path) -> None:
    for other in (Owner(bytes(20), 1, bytes(20)), Owner(OWNER.account, 2, bytes(20))):
        with pytest.raises(BackupRefused, match="not this member's"):
            restore(copy, tmp_path / "new", other, 1)
    with pytest.raises(BackupRefused, match="move it away first"):
        restore(copy, tmp_path / "journal", OWNER, 1)
    with pytest.raises(BackupRefused, match="exists already"):
        backup(tmp_path / "journal", copy, OWNER, "copy", 1)
    with pytest.raises(BackupRefused, match="no journal"):
        backup(tmp_path / "nothing", tmp_path / "other", OWNER, "copy", 1)
    assert not (tmp_path / "new").exists()


def test_a_damaged_or_hostile_backup_leaves_nothing_behind(tmp_path: Path, copy: Path) -> None:
    good = copy.read_bytes()
    log = good.index(b"DTNLOG2")
    manifest = json.loads(good[512 : 512 + good[512:].index(b"\0")])
    hostile = [good[:1200], b"", b"x" * 4096, good[:log] + b"\xff" + good[log + 1 :]]
    hostile += [good.replace(b'"version":1', b'"version":9'), good.replace(b'"copy"', b'"none"')]
    for names in ({"../log": "00"}, {}, dict.fromkeys(manifest["files"], "00" * 32)):
        path = tmp_path / "made"
        with tarfile.open(path, "w") as archive:
            head = json.dumps({**manifest, "files": names}).encode()
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(head)
            (tmp_path / "head").write_bytes(head)
            with open(tmp_path / "head", "rb") as source:
                archive.addfile(entry, source)
            link = tarfile.TarInfo("log-0000000000000000")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
        hostile.append(path.read_bytes())
    for number, data in enumerate(hostile):
        path = tmp_path / f"hostile-{number}"
        path.write_bytes(data)
        with pytest.raises(BackupRefused):
            restore(path, tmp_path / "new", OWNER, 1)
        assert not (tmp_path / "new").exists() and not (tmp_path / "new.restoring").exists()
    assert read_manifest(copy).owner == OWNER and time.time() > 0
