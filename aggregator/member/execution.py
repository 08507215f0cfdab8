"""What a member knows and does alone: the ledger, the journal, results, and batches for those behind.

The lowest of the layers that make a `Member`: `execution`, `pooling`, `succession`, `ordering`, `member`;
each uses those below it only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from aggregator.journal.journal import Journal
from aggregator.journal.pledge import NEVER
from aggregator.ledger.rules import RULES, Rulebook
from aggregator.ledger.state import genesis
from aggregator.ledger.transition import (
    ACCEPTED,
    Applied,
    TransactionResult,
)
from aggregator.member.accusations import Accusations
from aggregator.member.admission import Forwarders
from aggregator.member.archive import Archive
from aggregator.member.assembly import Assembly
from aggregator.member.checkpoints import Checkpoints
from aggregator.member.closing import Closing
from aggregator.member.history import History
from aggregator.member.intake import Intake
from aggregator.member.mempool import Mempool
from aggregator.member.proposals import block_of
from aggregator.member.state_transfer import StateTransfer
from aggregator.origin.origin import Proposal
from aggregator.pbft.events import (
    Validate,
)
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import (
    Batch,
    Committed,
    CommittedBatches,
    LinkMessage,
    SnapshotOffer,
)
from aggregator.pbft.quorum import Members
from aggregator.pbft.records import Record
from aggregator.pbft.replica import Replica
from protocol.crypto import Key

MAX_SERVED: Final = 64
MAX_SERVED_BYTES: Final = 8 * 1024 * 1024
MAX_KNOWN_RESULTS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedResult:
    """What became of a transaction, and where it was ordered."""

    sequence: int
    result: TransactionResult


@dataclass(slots=True)
class Held:
    """A proposal whose origin this member's chain node has not confirmed yet."""

    request: Validate
    batch: Batch
    proposal: Proposal


Outbox = Callable[[int | None, LinkMessage], None]
"""Sends a message to one member, or to all others when the member is none."""


@dataclass(slots=True)
class Counters:
    """What an operator watches."""

    events: Counter[str] = field(default_factory=Counter)
    misbehaviour: Counter[int] = field(default_factory=Counter)


class Execution:
    """Ledger, journal and what became of transactions. Not thread-safe."""

    def __init__(
        self,
        *,
        members: Members,
        key: Key,
        treasury: bytes,
        journal: Journal,
        send: Outbox,
        limits: Limits | None = None,
        replica: type[Replica] = Replica,
        rules: Rulebook = RULES,
    ) -> None:
        self.rules = rules
        """What this software can execute."""
        self.members = members
        """The committee that orders the next batch."""
        self.committees: dict[int, tuple[bytes, ...]] = {members.epoch: members.addresses}
        """Committees by epoch, as the chain has named them so far; the shell keeps this up to date."""
        self.mempool = Mempool()
        self.intake = Intake()
        self.counters = Counters()
        self.accusations = Accusations(members.domain, key)
        self.results: dict[bytes, OrderedResult] = {}
        self.archive = Archive()
        self.history = History()
        self.now_ms = 0
        """The latest time this member was told."""
        self._limits = limits or Limits()
        self.state = genesis(members.domain, treasury, lead=self._limits.window)
        self._key = key
        self._journal = journal
        self._send = send
        self._assembly = Assembly(lambda content: self.mempool.body(content) or self.intake.body(content))
        self._held: list[Held] = []
        # The window may hold so many checkpoints above the stable one.
        self.checkpoints = Checkpoints(2 + self._limits.window // self._limits.checkpoint_interval)
        self._transfer: StateTransfer | None = None
        self._strange: dict[int, tuple[int, str]] = {}
        """By member that offers a ledger beyond this software: its sequence number, and why."""
        self._offer: SnapshotOffer | None = None
        """What the journal starts from, as far as others can check it."""
        self._passing_since_ms: int | None = None
        """Since when a hand-over or a version waits for its batch."""
        self._closing: Closing | None = None
        """The last checkpoint of the committee before this one."""
        self._proposed_ids: dict[int, set[bytes]] = {}
        self._origin_ready: Proposal | None = None
        self._origin_since_ms: int | None = None
        self._origin_in_flight = 0
        self._forwarded_ms = 0
        self._forwarders = Forwarders()
        self._replica_type = replica
        self.replica = replica(members, self._voting_index, key, self._limits)

    @property
    def index(self) -> int | None:
        """This member's place in the committee; none for an observer."""
        addresses = self.members.addresses
        return addresses.index(self._key.address) if self._key.address in addresses else None

    @property
    def _voting_index(self) -> int | None:
        """`index`, but none while this member only follows.

        It does while it does not know what it promised, and where its software does not know the rules.
        """
        return None if self.outdated or self._journal.forgetful is not None else self.index

    @property
    def outdated(self) -> bool:
        """Whether the next batch is executed by rules that this software does not know."""
        return self.rules.last_known(self.state) == self.state.sequence

    @property
    def version_alarm(self) -> str | None:
        """Why this member halts, or will, unless newer software takes its place; none in good times."""
        offered = next((reason for _, reason in self._strange.values()), None)
        return self.rules.unknown_after(self.state) or offered

    @property
    def _fence(self) -> int | None:
        """The last batch that this member takes part in as the ledger stands, once that is known."""
        ends = (self.state.handover, self.rules.last_known(self.state))
        return min((end for end in ends if end is not None), default=None)

    @property
    def repair_alarm(self) -> str | None:
        """Why this member has no vote although it is one; none in good times."""
        lost = self._journal.forgetful
        if lost is None:
            return None
        if lost.horizon >= NEVER:
            return (
                f"the journal comes from a backup: no vote before a committee after epoch {lost.epoch} "
                "orders; have the owner of Committee appoint one, of the same members if need be"
            )
        return (
            f"the journal was damaged: no vote until a checkpoint at {lost.horizon} is stable; check the disk"
        )

    def _apply(self, committed: Committed) -> Applied:
        applied = self.rules.apply(self.state, block_of(committed.sequence, committed.batch))
        self.state = applied.state
        self._strange = {who: item for who, item in self._strange.items() if item[0] > committed.sequence}
        if self.state.sequence % self._limits.checkpoint_interval == 0:
            self.checkpoints.remember(self.state, self.replica.low)
        self.counters.events["batches"] += 1
        self.counters.events["batches_unanimous"] += committed.unanimous
        for result in applied.results:
            self.counters.events["accepted" if result.code == ACCEPTED else "refused"] += 1
            self._record(OrderedResult(sequence=committed.sequence, result=result))
        self.archive.listen(applied.events)
        self.history.note(committed.sequence, committed.batch.transactions, applied)
        return applied

    def _record(self, ordered: OrderedResult) -> None:
        tx_id = ordered.result.tx_id
        known = self.results.get(tx_id)
        if known is None or known.result.code != ACCEPTED:
            # Ordered again after a view change, an accepted transaction is refused; it stays accepted.
            self.results[tx_id] = ordered
        if len(self.results) > MAX_KNOWN_RESULTS:
            del self.results[next(iter(self.results))]

    def _serve(self, to: int, sequence: int) -> None:
        batches: list[Committed] = []
        size = 0
        while len(batches) < MAX_SERVED and size < MAX_SERVED_BYTES:
            committed = self._journal.committed(sequence + len(batches))
            if committed is None:
                break
            batches.append(committed)
            size += sum(map(len, committed.batch.transactions + committed.batch.chain_events))
        if batches:
            self._send(to, CommittedBatches(tuple(batches)))
        elif self._offer is not None and sequence <= self._offer.checkpoint.sequence:
            self._send(to, self._offer)

    def _restored(self, records: Iterable[Record]) -> Replica:
        self._journal.serve(self.members.epoch)
        replica = self._replica_type.restore(
            self.members,
            self._voting_index,
            self._key,
            records,
            executed=self.state.sequence,
            limits=self._limits,
        )
        replica.fence = self._fence
        return replica
