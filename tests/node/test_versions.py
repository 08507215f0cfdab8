"""A committee upgraded one member at a time: nothing stops, nothing forks, and old software halts in time.

Four real members in one process. The newer software is `tests.ledger.versions.NEWER`, started in the place of
the old as an operator starts another release.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from aggregator.ledger.root import state_root
from aggregator.ledger.rules import Rulebook
from aggregator.node import Aggregator
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import LinkMessage, SnapshotPart, Vote, VoteKind
from protocol.chain_events import CommitteeChanged, OrderPlaced, ParameterChanged
from protocol.errors import UnknownVersion
from protocol.transactions import Claim, Order, order_id, sign_transaction
from tests.ledger.versions import NEWER, OLD, WITHOUT_OLD, tally
from tests.ledger.world import DOMAIN, World, key, who
from tests.node.committee import LIMITS, NAMES, Committee, running

WINDOW = 24
SHORT = dataclasses.replace(LIMITS, window=WINDOW, snapshot_interval=8)
RAISED = ParameterChanged(key="protocol_version", value=2)


def order() -> Order:
    """An order that stays in training, so that claims are taken."""
    return World.new().order(train_window=3600)


def put_order(committee: Committee) -> bytes:
    """The chain has an order; returns its OID."""
    placed = order()
    oid = order_id(DOMAIN, placed)
    committee.chain.blocks.append([OrderPlaced(oid=oid, order=placed, block_hash=bytes(32))])
    return oid


class Load:
    """Somebody who sends claims all the time, to whoever is there."""

    def __init__(self, committee: Committee, oid: bytes) -> None:
        self.committee, self.oid, self.sent = committee, oid, 0

    def send(self, to: Sequence[int]) -> bytes:
        """One more claim, told to one of the members; returns its id."""
        self.sent += 1
        body = Claim(sender=who("provider0"), nonce=self.sent, oid=self.oid, commitment=bytes(31) + b"\x01")
        data = sign_transaction(DOMAIN, body, key("provider0")).encode()
        return self.committee.nodes[to[self.sent % len(to)]].offer(data)[0]

    async def served(self, to: Sequence[int], count: int = 3) -> None:
        """These members order claims, and agree on what became of them."""
        for _ in range(count):
            tx_id = self.send(to)
            nodes = [self.committee.nodes[index] for index in to]
            await self.committee.until(lambda tx=tx_id, who=nodes: all(tx in node.results for node in who))
            assert {node.results[tx_id].result.code for node in nodes} == {"Accepted"}


async def level(committee: Committee, members: Sequence[int]) -> None:
    """Wait until these members stand at one batch, and see that they have one ledger."""
    nodes = [committee.nodes[index] for index in members]
    await committee.until(lambda: len({node.state.sequence for node in nodes}) == 1)
    assert len({state_root(node.state) for node in nodes}) == 1


async def replaced(committee: Committee, index: int, rules: Rulebook) -> None:
    """An operator stops a member and starts another release in its place."""
    await committee.stop(index)
    committee.restart(index, rules=rules)


def votes_beyond(committee: Committee, index: int, sequence: int) -> list[LinkMessage]:
    """From now on, all that a member says about batches after ``sequence``."""
    heard: list[LinkMessage] = []

    def listen(sender: int, to: int, message: LinkMessage) -> list[LinkMessage]:
        about = isinstance(message, Vote) and message.kind is not VoteKind.CHECKPOINT
        if sender == index and about and message.sequence > sequence:  # type: ignore[union-attr]
            heard.append(message)
        return [message]

    committee.bend = listen
    return heard


def drive(scenario, folder: Path, limits: Limits = SHORT, rules: Rulebook = OLD) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        async with running(folder, limits, rules=rules) as committee:
            oid = put_order(committee)
            await committee.until(lambda: all(oid in node.state.table for node in committee.nodes))
            await scenario(committee, Load(committee, oid))

    asyncio.run(run())


def halted(node: Aggregator) -> bool:
    """Whether a member stands before rules that it does not know."""
    return node.outdated and node.replica.observing


def test_members_are_replaced_one_by_one_the_chain_raises_the_version_and_the_one_that_was_left_catches_up(
    tmp_path: Path,
) -> None:
    async def scenario(committee: Committee, load: Load) -> None:
        everyone, newer, old = range(4), (0, 1, 2), 3
        for index in newer:
            await replaced(committee, index, NEWER)
            await load.served(everyone)
            await level(committee, everyone)
        assert {node.state.version for node in committee.nodes} == {1}
        committee.chain.blocks.append([RAISED])
        await committee.until(lambda: committee.nodes[old].state.upgrade is not None)
        upgrade = committee.nodes[old].state.upgrade
        assert upgrade is not None and f"from batch {upgrade.first}" in str(
            committee.nodes[old].version_alarm
        )
        assert all(committee.nodes[index].version_alarm is None for index in newer)
        beyond = votes_beyond(committee, old, upgrade.first - 1)
        await committee.until(lambda: all(committee.nodes[index].state.version == 2 for index in newer))
        await load.served(newer, 8)
        await level(committee, newer)
        left = committee.nodes[old]
        await committee.until(lambda: halted(left))  # it may be a batch behind the others
        assert left.state.sequence == upgrade.first - 1 and not beyond
        assert left.unready is not None and "this software knows 1: upgrade" in left.unready
        assert tally(committee.nodes[0].state) == 1000 + committee.nodes[0].state.sequence - upgrade.first + 1

        await replaced(committee, old, OLD)
        await asyncio.sleep(1)
        assert halted(committee.nodes[old]) and committee.nodes[old].state.sequence == upgrade.first - 1
        await load.served(newer)

        await replaced(committee, old, NEWER)
        await committee.until(lambda: committee.nodes[old].state.version == 2)
        assert not committee.nodes[old].replica.observing and committee.nodes[old].version_alarm is None
        await committee.stop(newer[0])
        await load.served((1, 2, 3))  # three of four: the one that was left votes again
        await level(committee, (1, 2, 3))
        assert not any(node.counters.misbehaviour for node in committee.nodes)

    drive(scenario, tmp_path)


def test_who_was_fetching_a_ledger_when_its_software_ended_says_upgrade_and_fetches_no_more(
    tmp_path: Path,
) -> None:
    """What it was fetching is no later than where it stands: all that it lacks is newer software."""

    async def scenario(committee: Committee, load: Load) -> None:
        newer, old = (0, 1, 2), 3
        for index in newer:
            await replaced(committee, index, NEWER)
        await load.served(range(4), 10)
        await level(committee, range(4))
        left, source = committee.nodes[old], committee.nodes[0]
        assert source.replica.stable is not None
        committee.bend = lambda sender, to, message: [] if isinstance(message, SnapshotPart) else [message]
        left._start_transfer(0, source.members.epoch, source.replica.stable)
        assert left.unready == "it takes over the ledger from other members"
        committee.chain.blocks.append([RAISED])
        await committee.until(lambda: halted(left))
        assert "this software knows 1: upgrade" in str(left.unready) and left._transfer is None

    drive(scenario, tmp_path)


def test_a_committee_of_old_software_stands_still_before_the_version_and_goes_on_once_a_quorum_is_newer(
    tmp_path: Path,
) -> None:
    async def scenario(committee: Committee, load: Load) -> None:
        committee.chain.blocks.append([RAISED])
        await committee.until(lambda: all(map(halted, committee.nodes)))
        (stood,) = {node.state.sequence for node in committee.nodes}
        await level(committee, range(4))
        for index in range(3):
            await replaced(committee, index, NEWER)
        await load.served((0, 1, 2))
        assert committee.nodes[3].state.sequence == stood
        await replaced(committee, 3, NEWER)
        await load.served(range(4))
        await level(committee, range(4))

    drive(scenario, tmp_path)


def test_a_version_and_a_committee_that_come_together_are_taken_one_with_the_other(tmp_path: Path) -> None:
    """The hand-over's last batch is the last of the old version: those who know both lead on."""

    async def scenario(committee: Committee, load: Load) -> None:
        await replaced(committee, 0, NEWER)
        await replaced(committee, 1, NEWER)
        await replaced(committee, 2, NEWER)
        members = tuple(map(who, NAMES))
        committee.chain.blocks.append([CommitteeChanged(epoch=2, members=members, threshold=3), RAISED])
        for node in committee.nodes:
            node.committees[2] = members
        await committee.until(lambda: all(committee.nodes[i].members.epoch == 2 for i in range(4)))
        await load.served((0, 1, 2))
        assert [node.state.version for node in committee.nodes] == [2, 2, 2, 1]
        assert halted(committee.nodes[3])
        await replaced(committee, 3, NEWER)
        await load.served(range(4))
        await level(committee, range(4))

    drive(scenario, tmp_path)


def test_who_was_away_for_long_is_offered_a_ledger_it_cannot_read_and_says_so(tmp_path: Path) -> None:
    """The batches are gone, the snapshot is of version 2: old software says why it stays behind."""

    async def scenario(committee: Committee, load: Load) -> None:
        for index in range(3):
            await replaced(committee, index, NEWER)
        await load.served(range(4))
        await committee.stop(3)
        committee.chain.blocks.append([RAISED])
        await committee.until(lambda: committee.nodes[0].state.version == 2)
        while committee.nodes[0]._journal.generation < 80:
            await load.served((0, 1, 2))
        committee.restart(3, rules=OLD)
        late = committee.nodes[3]
        stood = late.state.sequence
        await committee.until(lambda: late.version_alarm is not None)
        assert "version 2 of the protocol; this software knows 1: upgrade" in str(late.version_alarm)
        assert late.state.sequence == stood and not late.counters.misbehaviour
        await replaced(committee, 3, NEWER)
        await committee.until(lambda: committee.nodes[3].state.version == 2)
        await load.served(range(4))
        assert committee.nodes[3].version_alarm is None

    drive(scenario, tmp_path)


def test_one_liar_that_offers_an_unknown_version_keeps_nobody_from_catching_up(tmp_path: Path) -> None:
    async def scenario(committee: Committee, load: Load) -> None:
        await load.served(range(4))
        await committee.stop(3)
        while committee.nodes[0]._journal.generation < 40:
            await load.served((0, 1, 2))

        def lie(sender: int, to: int, message: LinkMessage) -> list[LinkMessage]:
            if sender == 0 and isinstance(message, SnapshotPart) and message.offset == 0:
                head = message.data[:1] + b"\x09" + message.data[2:]
                message = SnapshotPart(message.sequence, message.offset, message.total_bytes, head)
            return [message]

        committee.bend = lie
        committee.restart(3, rules=OLD)
        await load.served((1, 2))
        await level(committee, (1, 2, 3))
        assert committee.nodes[3].version_alarm is None

    drive(scenario, tmp_path)


def test_older_software_leaves_a_newer_journal_alone(tmp_path: Path) -> None:
    """Started by mistake it ends with one line, and the newer one finds everything as it was."""

    async def scenario(committee: Committee, load: Load) -> None:
        committee.chain.blocks.append([RAISED])
        await committee.until(lambda: committee.nodes[0].state.version == 2)
        await load.served(range(4))
        await committee.stop(3)
        with pytest.raises(UnknownVersion, match=r"version 2 .* this software knows 1: upgrade"):
            committee.make(3, rules=OLD)
        committee.restart(3, rules=NEWER)
        await load.served(range(4))
        while committee.nodes[3]._journal.generation < 40:
            await load.served(range(4))
        await committee.stop(3)
        with pytest.raises(UnknownVersion, match=r"version 2 .* this software knows 1"):
            committee.make(3, rules=OLD)
        committee.restart(3, rules=WITHOUT_OLD)  # the release after next reads the ledger as well
        await load.served(range(4))

    drive(scenario, tmp_path, rules=NEWER)
