"""What must hold, judged from outside: from what honest members deliver, answer and remember.

Each checker raises `Violation` with what it saw. None of them asks a replica what it thinks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aggregator.ledger.state import State
from aggregator.ledger.transition import ACCEPTED, TransactionResult
from aggregator.pbft.messages import Committed
from aggregator.pbft.quorum import InvalidProof, Members
from aggregator.pbft.replica import Replica
from protocol.errors import ProtocolError


class Violation(Exception):
    """A promise of the committee was broken."""


@dataclass
class Checkers:
    """All checkers over one run."""

    members: Members
    window: int
    ordered: dict[int, bytes] = field(default_factory=dict)
    """Agreement: the one batch digest of each sequence number."""
    roots: dict[int, bytes] = field(default_factory=dict)
    submitted: set[bytes] = field(default_factory=set)
    accepted: dict[bytes, int] = field(default_factory=dict)
    """At-most-once and durability: where each accepted transaction took effect."""

    def delivered(self, member: int, committed: Committed) -> None:
        """Agreement, total order, and a certificate that a stranger can check."""
        digest = committed.batch.digest()
        known = self.ordered.setdefault(committed.sequence, digest)
        if known != digest:
            raise Violation(f"member {member} delivers another batch at {committed.sequence} than others did")
        try:
            self.members.verify_committed(committed)
        except ProtocolError as reason:
            raise Violation(
                f"member {member} delivers {committed.sequence} without a certificate: {reason}"
            ) from reason

    def applied(
        self,
        member: int,
        sequence: int,
        transactions: tuple[bytes, ...],
        results: tuple[TransactionResult, ...],
    ) -> None:
        """Validity and at-most-once."""
        for data, result in zip(transactions, results, strict=True):
            if data not in self.submitted:
                raise Violation(f"member {member} ordered a transaction that nobody sent at {sequence}")
            if result.code == ACCEPTED and self.accepted.setdefault(result.tx_id, sequence) != sequence:
                raise Violation(f"a transaction took effect at {self.accepted[result.tx_id]} and {sequence}")

    def root(self, member: int, sequence: int, root: bytes) -> None:
        """Equal ledgers after equal batches."""
        if self.roots.setdefault(sequence, root) != root:
            raise Violation(f"member {member} has another state root at {sequence} than others had")

    def bounded(self, member: int, replica: Replica) -> None:
        """Memory of a replica stays within what its limits say."""
        slots, bodies = len(replica._slots), len(replica._bodies)
        changes = sum(len(by) for by in replica._view_changes.values())
        if slots > self.window + 8 or bodies > 4 * self.window or changes > 2 * self.members.count:
            raise Violation(
                f"member {member} keeps {slots} slots, {bodies} batches and {changes} view changes"
            )

    def durable(self, member: int, state: State, sequence: int) -> None:
        """Whatever any honest member called accepted is in every healed member's ledger."""
        late = [at for at in self.accepted.values() if at > sequence]
        if late:
            raise Violation(
                f"member {member} stands at {sequence} and misses accepted work up to {max(late)}"
            )
        if state.sequence != sequence:
            raise Violation(f"member {member} counts {state.sequence} batches where it delivered {sequence}")


__all__ = ["Checkers", "InvalidProof", "Violation"]
