"""What a replica takes in and what it asks for: the whole surface between consensus and the world.

Effects are returned in order. A `Persist` must be durable before any later effect of the same step
leaves the process ("persist before send"); nothing else about their timing matters.
"""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.pbft.messages import Batch, Committed, Outline, ReplicaMessage, StableCheckpoint, Vote
from aggregator.pbft.records import Record

# Events ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passed. ``waiting_since_ms``: since when this node has known work the ledger has not done."""

    now_ms: int
    waiting_since_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message arrived from member ``sender``, as its link proved."""

    sender: int
    message: ReplicaMessage
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """The node, being primary, wants this batch ordered next (only when `Replica.can_propose`)."""

    batch: Batch
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """The node checked a proposal against its own chain node, clock and signatures.

    ``batch`` is the proposal with its transactions; none if an honest primary would not have made it.
    """

    view: int
    sequence: int
    digest: bytes
    batch: Batch | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """The ledger applied a delivered batch; ``root`` is its state root where a checkpoint is due.

    ``fence`` is the last sequence number that this replica takes part in, once that is known: the last that
    its committee orders, or that its software can execute.
    """

    sequence: int
    root: bytes | None
    fence: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The node took over the ledger at a stable checkpoint; the journal starts from it.

    ``fence`` as in `Executed`.
    """

    checkpoint: StableCheckpoint
    fence: int | None = None


Event = Tick | Received | Propose | Validated | Executed | Installed

# Effects -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Append to the journal; durable before any later effect of the step leaves."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """Send to every other member."""

    message: ReplicaMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send to one member."""

    to: int
    message: ReplicaMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Validate:
    """Check a proposal and answer with `Validated`, once its transactions are here and the chain node has
    caught up."""

    view: int
    sequence: int
    digest: bytes
    outline: Outline


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Apply the next batch to the ledger and answer with `Executed`. In sequence order, each once."""

    committed: Committed


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """Send member ``to`` committed batches from ``sequence`` on, out of the journal."""

    to: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Take over the ledger at ``checkpoint`` from member ``source``, check it against the root, and answer
    with `Installed`: the batches in between are gone."""

    source: int
    epoch: int
    """The committee whose quorum signed the checkpoint; checked already if it is the replica's own."""
    checkpoint: StableCheckpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class EnteredView:
    """The replica takes part in a new view."""

    view: int
    primary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaved:
    """Member ``sender`` said something no honest member says; kept, counted, never fatal."""

    sender: int
    reason: str
    evidence: tuple[Vote, Vote] | None = None
    """Two votes that the member signed and that contradict each other: proof for anyone."""


Effect = Persist | Broadcast | Send | Validate | Deliver | Serve | Transfer | EnteredView | Misbehaved
