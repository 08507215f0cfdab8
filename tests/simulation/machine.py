"""A member's machine in a run, and the member on it, watched by the checkers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aggregator.ledger.root import state_root
from aggregator.ledger.rules import Rulebook
from aggregator.ledger.transition import Applied
from aggregator.member.member import Member
from aggregator.member.snapshot import Snapshot
from aggregator.pbft.events import Effect, Event, Executed, Misbehaved
from aggregator.pbft.messages import Committed
from protocol.crypto import Key
from tests.ledger.versions import OLD
from tests.simulation.byzantine import Bend
from tests.simulation.chain import ChainNode
from tests.simulation.checkers import Checkers
from tests.simulation.disk import SimulatedFolder


@dataclass
class Machine:
    """One member's machine: what runs on it, and a disk that outlives it."""

    index: int
    key: Key
    chain: ChainNode
    """The chain node that its operator runs; no crash of the member touches it."""
    disk: SimulatedFolder = field(default_factory=SimulatedFolder)
    member: Member | None = None
    """None while the machine is down."""
    paused_until_ms: int = 0
    skew_ms: int = 0
    bend: Bend | None = None
    rules: Rulebook = OLD
    """The release that is installed: what starts next executes by these rules."""


class WatchedMember(Member):
    """A member under the eyes of the checkers; they see what it does, never what it thinks."""

    def __init__(self, number: int, checkers: Checkers | None, **named: Any) -> None:
        self.number = number
        """Its machine, whatever its place in the committee of the day."""
        self._checkers = checkers
        super().__init__(**named)

    def _apply(self, committed: Committed) -> Applied:
        if self._checkers is not None:
            self._checkers.delivered(self.number, self.members, committed)
        applied = super()._apply(committed)
        if self._checkers is not None and self.state.origin is not None:
            self._checkers.origins[committed.sequence] = self.state.origin
        if self._checkers is not None:
            self._checkers.applied(
                self.number, committed.sequence, committed.batch.transactions, applied.results
            )
        return applied

    def _act(self, effect: Effect) -> Event | None:
        if self._checkers is not None and isinstance(effect, Misbehaved) and effect.evidence is not None:
            self._checkers.proven(self.number, self.members.addresses[effect.sender])
        return super()._act(effect)

    def _execute(self, committed: Committed) -> Executed | None:
        executed = super()._execute(committed)
        if self._checkers is not None and executed is not None and executed.root is not None:
            self._checkers.root(self.number, executed.sequence, executed.root)
        return executed

    def _halt(self) -> None:
        super()._halt()
        if self._checkers is not None:
            self._checkers.root(self.number, self.state.sequence, state_root(self.state))
            self._checkers.count("halts before a version")

    def _hand_over(self) -> None:
        super()._hand_over()
        if self._checkers is not None:
            self._checkers.root(self.number, self.state.sequence, state_root(self.state))
            self._checkers.count("hand-overs")

    def _vote_again_if_due(self) -> None:
        before = self.counters.events["votes_again"]
        super()._vote_again_if_due()
        if self._checkers is not None and self.counters.events["votes_again"] > before:
            self._checkers.count("journals repaired")

    def _adopt(self, snapshot: Snapshot) -> None:
        super()._adopt(snapshot)
        if self._checkers is not None:
            self._checkers.root(self.number, self.state.sequence, state_root(self.state))
            self._checkers.count("snapshots taken over or read")
