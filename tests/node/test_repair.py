"""A member that was away catches up; one with a damaged journal votes again once nothing lost can matter.

Real members on the simulator's disk and network, with no faults but the one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from aggregator.pbft.messages import LinkMessage, NewView, PrePrepare, ViewChange, Vote, VoteKind
from tests.simulation.faults import Faults
from tests.simulation.machine import Machine
from tests.simulation.world import PLEDGE_STRIDE, World

QUIET = replace(Faults.draw(0).calm(), rot=2, transactions=0, duration_ms=0)


@dataclass
class Watched(World):
    """A quiet network that notes what the member with the bad disk signs."""

    said: list[Vote] = field(default_factory=list)

    def __init__(self) -> None:
        self.said = []
        super().__init__(0, QUIET)
        for number in range(300):
            self._at(self.now_ms + number * 80, self._submit)
        for machine in self.machines:
            self._tick(machine)

    @property
    def sick(self) -> Machine:
        return self.machines[2]

    def _transmit(self, machine: Machine, to: int | None, message: LinkMessage) -> None:
        if machine.index == 2:
            match message:
                case Vote():
                    self.said.append(message)
                case PrePrepare(vote=vote) | ViewChange(vote=vote) | NewView(vote=vote):
                    self.said.append(vote)
        super()._transmit(machine, to, message)

    def damage(self) -> None:
        """Power off, a byte in the middle of the log changes, power on."""
        assert self.sick.member is not None
        self.sick.member = None
        disk = self.sick.disk
        (name,) = [name for name in disk.names() if name.startswith("log-")][-1:]
        disk._names[name].durable[len(disk._names[name].durable) // 3] ^= 4
        disk._names[name].content = bytearray(disk._names[name].durable)
        self.said.clear()
        self._restart(self.sick)
        assert self.checkers.counts["damaged journals"] == 1

    def until_it_votes(self) -> int:
        """Advance until the member votes again; its stable checkpoint before that."""
        for _ in range(400):
            assert self.sick.member is not None
            stable = self.sick.member.replica.low
            self._advance(self.now_ms + 50)
            if self.checkers.counts["journals repaired"]:
                return stable
        raise AssertionError("it never votes again")


@pytest.fixture
def world() -> Watched:
    world = Watched()
    world._advance(world.now_ms + 5_000)
    assert world.said, "it takes part"
    return world


def test_it_follows_at_once_and_votes_once_the_lost_promises_are_behind(world: Watched) -> None:
    assert world.sick.member is not None
    height = world.sick.member.state.sequence
    promised = max(vote.sequence for vote in world.said)
    world.damage()
    horizon = world.sick.member._journal._pledges.pledge.horizon
    assert promised <= horizon <= promised + PLEDGE_STRIDE
    before = world.until_it_votes()
    assert not [vote for vote in world.said if vote.sequence <= horizon], (
        "no vote on what it may have voted on"
    )
    assert before <= horizon + 4, "nor does it wait longer than it must"
    world.said.clear()
    world._advance(world.now_ms + 3_000)
    assert world.sick.member.state.sequence > height
    assert {VoteKind.PREPARE, VoteKind.COMMIT} <= {vote.kind for vote in world.said}
    # The committee can do without another one now.
    world._crash(world.machines[3])
    height = world.machines[0].member.state.sequence  # type: ignore[union-attr]
    world._advance(world.now_ms + 4_000)
    assert world.machines[0].member.state.sequence > height + 3  # type: ignore[union-attr]


def test_whoever_was_away_catches_up_though_the_others_never_rest(world: Watched) -> None:
    world._crash(world.sick)
    world._bad = False
    world._advance(world.now_ms + 2_000)
    world._restart(world.sick)
    world._advance(world.now_ms + 2_000)
    heights = [machine.member.state.sequence for machine in world.machines if machine.member is not None]
    assert len(heights) == 4 and max(heights) - min(heights) <= 4, heights


def test_it_never_votes_in_views_it_had_left(world: Watched) -> None:
    member = world.sick.member
    assert member is not None
    member.replica._out = []
    member.replica._leave_for(3)  # alone: a partition that only it has seen, say
    for effect in member.replica._out:
        member._journal.append(effect.record) if hasattr(effect, "record") else None
    member._journal.sync()
    world.damage()
    world.until_it_votes()
    world._advance(world.now_ms + 3_000)
    assert world.sick.member is not None and world.sick.member.replica.view >= 3
    votes = [vote for vote in world.said if vote.kind in (VoteKind.PREPARE, VoteKind.COMMIT)]
    assert all(vote.view >= 3 for vote in votes)


def test_a_restart_in_between_forgets_nothing(world: Watched) -> None:
    world.damage()
    assert world.sick.member is not None
    pledge = world.sick.member._journal.forgetful
    world.sick.member = None
    world._restart(world.sick)
    assert world.sick.member is not None and pledge is not None
    assert world.sick.member._journal.forgetful == pledge
    world.until_it_votes()
    assert not [vote for vote in world.said if vote.sequence <= pledge.horizon]
