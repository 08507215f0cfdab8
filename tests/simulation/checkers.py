"""What must hold, judged from outside: from what honest members deliver, answer and remember.

Each checker raises `Violation` with what it saw. None of them asks a replica what it thinks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from aggregator.ledger.state import Origin
from aggregator.ledger.transition import ACCEPTED, TransactionResult
from aggregator.member.member import Member
from aggregator.pbft.messages import Committed
from aggregator.pbft.quorum import InvalidProof, Members
from protocol.errors import ProtocolError
from tests.simulation.disk import SimulatedFolder

MAX_DISK_BYTES = 8 * 1024 * 1024
"""Far more than two generations of a simulated journal need, far less than a whole run writes."""


class Violation(Exception):
    """A promise of the committee was broken."""


@dataclass
class Checkers:
    """All checkers over one run."""

    committees: dict[int, tuple[bytes, ...]]
    """Members by epoch, as the chain names them."""
    window: int
    liars: frozenset[bytes] = frozenset()
    """Addresses of the members that lie."""
    ordered: dict[int, bytes] = field(default_factory=dict)
    """Agreement: the one batch digest of each sequence number."""
    origins: dict[int, Origin] = field(default_factory=dict)
    """Up to which block the ledger stands, by batch."""
    roots: dict[int, bytes] = field(default_factory=dict)
    submitted: set[bytes] = field(default_factory=set)
    accepted: dict[bytes, int] = field(default_factory=dict)
    """At-most-once and durability: where each accepted transaction took effect."""
    counts: Counter[str] = field(default_factory=Counter)
    """What happened in the run, to see that seeds reach what they are meant to reach."""

    def count(self, what: str) -> None:
        """Note that something happened once more."""
        self.counts[what] += 1

    def delivered(self, member: int, committee: Members, committed: Committed) -> None:
        """Agreement, total order, and a certificate that a stranger can check."""
        digest = committed.batch.digest()
        known = self.ordered.setdefault(committed.sequence, digest)
        if known != digest:
            raise Violation(f"member {member} delivers another batch at {committed.sequence} than others did")
        try:
            if self.committees.get(committee.epoch) != committee.addresses:
                raise Violation(f"member {member} follows a committee that the chain never named")
            # Its own word on who is in charge is checked; the rest is done without what it runs.
            Members(domain=committee.domain, addresses=committee.addresses).verify_committed(committed)
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

    def proven(self, member: int, liar: bytes) -> None:
        """Evidence is of lies: whoever follows the protocol never signs any, restarts included."""
        if liar not in self.liars:
            raise Violation(f"member {member} holds proof that 0x{liar.hex()} lied, which is honest")
        self.count("lies proven")

    def bounded(self, member: Member, disk: SimulatedFolder) -> None:
        """Memory and disk of a member stay within what its limits say."""
        replica, name = member.replica, f"member {member.replica.index}"
        slots, bodies = len(replica._slots), len(replica._bodies)
        changes = sum(len(by) for by in replica._view_changes.values())
        if slots > self.window + 8 or bodies > 4 * self.window or changes > 2 * replica.members.count:
            raise Violation(f"{name} keeps {slots} slots, {bodies} batches and {changes} view changes")
        states, held = len(member.checkpoints), len(member._held)
        if states > self.window or held > self.window or disk.size_bytes > MAX_DISK_BYTES:
            raise Violation(f"{name} keeps {states} ledgers, {held} proposals, {disk.size_bytes} bytes")

    def origins_stay(self, block_hash: Callable[[int], bytes]) -> None:
        """After a block that the chain took back, nothing more is taken in from it."""
        stays = {at: origin.hash == block_hash(origin.number) for at, origin in self.origins.items()}
        gone = min((at for at, stay in stays.items() if not stay), default=None)
        if gone is not None and any(stay for at, stay in stays.items() if at > gone):
            raise Violation(f"the ledger went on from a block at {gone} that the chain took back")

    def durable(self, member: Member) -> None:
        """Whatever any honest member called accepted is in every healed member's ledger."""
        sequence, name = member.replica.executed, f"member {member.replica.index}"
        late = [at for at in self.accepted.values() if at > sequence]
        if late:
            raise Violation(f"{name} stands at {sequence} and misses accepted work up to {max(late)}")
        if member.state.sequence != sequence:
            raise Violation(f"{name} counts {member.state.sequence} batches where it delivered {sequence}")


__all__ = ["Checkers", "InvalidProof", "Violation"]
