"""What aggregators say to each other, and how it is signed.

Everything signed is a `Vote`: a kind, a view, a sequence number and a digest, signed as EIP-712 data by the
member's Ethereum key, so that contradicting votes are evidence anyone can check. Larger messages carry a
vote over the hash of their contents. Batches are opaque to consensus: transactions and chain events are
byte strings.

Bounds (checked on decoding): a message has at most `MAX_MESSAGE_BYTES`; lists inside have their own limits.

Source: Castro and Liskov 1999, sections 4.2 to 4.5.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from protocol import typed_data
from protocol.certificate import BatchHeader, SignedVote, places_root
from protocol.crypto import Key, keccak256, recover
from protocol.errors import InvalidEncoding, InvalidSignature
from protocol.typed_data import Bytes32, Domain, Signature

MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
MAX_BATCH_TRANSACTIONS: Final = 2048
MAX_BATCH_EVENTS: Final = 4096
MAX_FORWARDED: Final = 512
MAX_MEMBERS: Final = 256
MAX_SLOTS: Final = 1024
MAX_PART_BYTES: Final = 1024 * 1024

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Index = Annotated[int, Meta(ge=0, lt=MAX_MEMBERS)]


class VoteKind(IntEnum):
    """What a vote says about ``(view, sequence, digest)``."""

    PRE_PREPARE = 1
    PREPARE = 2
    COMMIT = 3
    CHECKPOINT = 4
    VIEW_CHANGE = 5
    NEW_VIEW = 6


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of everything that travels between aggregators."""


class BatchOrigin(Message, frozen=True):
    """Chain blocks whose contract events a batch carries: ``(after, number]``."""

    after: int
    """Number of the origin before; -1 for none."""
    number: Count
    hash: Bytes32


class Batch(Message, frozen=True, dict=True):
    """What one sequence number orders. The null batch (all defaults) fills gaps after a view change."""

    timestamp_ms: Count = 0
    origin: BatchOrigin | None = None
    chain_events: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BATCH_EVENTS)] = ()
    transactions: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BATCH_TRANSACTIONS)] = ()

    def digest(self) -> bytes:
        """What members vote on, 32 bytes: see `protocol.certificate.BatchHeader`."""
        return self.outline.digest()

    @functools.cached_property
    def outline(self) -> Outline:
        """Asked for often, by everyone who votes on the batch or checks its certificate."""
        return Outline(
            self.timestamp_ms,
            self.origin,
            self.chain_events,
            tuple(keccak256(data) for data in self.transactions),
        )


class Outline(Message, frozen=True, dict=True):
    """A batch with the hashes of its transactions in their place: what a primary proposes.

    Transactions travel once, from the member that received them; the primary decides about their order. A
    batch and its outline have one digest.
    """

    timestamp_ms: Count = 0
    origin: BatchOrigin | None = None
    chain_events: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BATCH_EVENTS)] = ()
    transactions: Annotated[tuple[Bytes32, ...], Meta(max_length=MAX_BATCH_TRANSACTIONS)] = ()

    def digest(self) -> bytes:
        """What members vote on, 32 bytes."""
        return self.header.digest()

    @functools.cached_property
    def header(self) -> BatchHeader:
        """The header that a batch and its outline share: what the batch's certificate is about."""
        return BatchHeader(
            timestamp_ms=self.timestamp_ms,
            origin=bytes(32) if self.origin is None else keccak256(_ENCODER.encode(self.origin)),
            events_count=len(self.chain_events),
            events_root=places_root([keccak256(data) for data in self.chain_events]),
            transactions_count=len(self.transactions),
            transactions_root=places_root(self.transactions),
        )

    def batch(self, bodies: Mapping[bytes, bytes]) -> Batch:
        """The batch, from transactions by their true hashes; raises `KeyError` if one is missing."""
        batch = Batch(
            self.timestamp_ms,
            self.origin,
            self.chain_events,
            tuple(bodies[content] for content in self.transactions),
        )
        batch.__dict__["outline"] = self  # no need to hash again what was found by its hash
        return batch


class Vote(Message, frozen=True, tag="vote"):
    """One member's signed vote."""

    kind: VoteKind
    view: Count
    sequence: Count
    digest: Bytes32
    signer: Index
    signature: Signature

    def subject(self) -> tuple[int, int, int, bytes]:
        """What is voted on, without who votes."""
        return (self.kind, self.view, self.sequence, self.digest)


Votes = Annotated[tuple[Vote, ...], Meta(max_length=MAX_MEMBERS)]


class RelayedVotes(Message, frozen=True, tag="votes"):
    """Votes of others that a primary passes on, each signed by who cast it."""

    votes: Votes


class PrePrepare(Message, frozen=True, tag="pre_prepare"):
    """The primary assigns a sequence number to a batch, of which it shows the outline."""

    vote: Vote
    outline: Outline


class Prepared(Message, frozen=True):
    """Proof that a batch was prepared: the pre-prepare and a quorum, with it, of prepares."""

    pre_prepare: Vote
    prepares: Votes


class StableCheckpoint(Message, frozen=True):
    """Proof that a quorum executed up to ``sequence`` with the same state root."""

    sequence: Count
    root: Bytes32
    proof: Votes


class Voted(Message, frozen=True):
    """The proposal that a member voted for, or made, in the highest view, at one sequence number."""

    sequence: Count
    view: Count
    digest: Bytes32


class ViewChangeContents(Message, frozen=True):
    """What a member knows when it asks for another view of the committee of ``epoch``."""

    epoch: Count
    view: Count
    stable: StableCheckpoint | None
    prepared: Annotated[tuple[Prepared, ...], Meta(max_length=MAX_SLOTS)]
    voted: Annotated[tuple[Voted, ...], Meta(max_length=MAX_SLOTS)]


class ViewChange(Message, frozen=True, tag="view_change"):
    """A signed request for another view."""

    contents: ViewChangeContents
    vote: Vote


class NewViewContents(Message, frozen=True):
    """The view changes a new primary acts on, and what it proposes because of them."""

    epoch: Count
    view: Count
    view_changes: Annotated[tuple[ViewChange, ...], Meta(max_length=MAX_MEMBERS)]
    pre_prepares: Annotated[tuple[Vote, ...], Meta(max_length=MAX_SLOTS)]


class NewView(Message, frozen=True, tag="new_view"):
    """The new primary's signed start of a view; whoever lacks a batch it speaks of fetches it."""

    contents: NewViewContents
    vote: Vote


class Status(Message, frozen=True, tag="status"):
    """A member's position, said regularly; whoever is ahead or behind acts on it."""

    epoch: Count
    view: Count
    active: bool
    executed: Count
    stable: Count


class CheckpointProof(Message, frozen=True, tag="checkpoint_proof"):
    """A stable checkpoint for a member that executed so far but missed the votes."""

    checkpoint: StableCheckpoint


class Fetch(Message, frozen=True, tag="fetch"):
    """Asks for committed batches from ``sequence`` on."""

    sequence: Count


class Committed(Message, frozen=True, tag="committed"):
    """A batch with its certificate: proof for anyone who knows the committee.

    The certificate holds the commits of a quorum; or the primary's pre-prepare, first, and the prepares of
    all others.
    """

    sequence: Count
    batch: Batch
    certificate: Votes

    @property
    def unanimous(self) -> bool:
        """Whether the certificate is of the votes of all."""
        return bool(self.certificate) and self.certificate[0].kind is VoteKind.PRE_PREPARE


class CommittedBatches(Message, frozen=True, tag="committed_batches"):
    """The answer to `Fetch`: consecutive committed batches."""

    batches: Annotated[tuple[Committed, ...], Meta(max_length=256)]


class SnapshotOffer(Message, frozen=True, tag="snapshot_offer"):
    """The answer to `Fetch` from a member that has these batches no more, but the ledger after them.

    ``epoch`` is that of the committee whose quorum signed the checkpoint.
    """

    epoch: Count
    checkpoint: StableCheckpoint


class FetchSnapshot(Message, frozen=True, tag="fetch_snapshot"):
    """Asks for a part of the snapshot at ``sequence``."""

    sequence: Count
    offset: Count


class SnapshotPart(Message, frozen=True, tag="snapshot_part"):
    """A part of a snapshot; what it is worth shows when all are there."""

    sequence: Count
    offset: Count
    total_bytes: Count
    data: Annotated[bytes, Meta(max_length=MAX_PART_BYTES)]


class FetchBatch(Message, frozen=True, tag="fetch_batch"):
    """Asks for a batch by its digest: a new view proposes it, and it is not known here."""

    digest: Bytes32


class BatchBody(Message, frozen=True, tag="batch_body"):
    """The answer to `FetchBatch`; its digest says what it is."""

    batch: Batch


class FetchBodies(Message, frozen=True, tag="fetch_bodies"):
    """Asks for transactions by their hashes: a proposal holds them, and they have not arrived here."""

    contents: Annotated[tuple[Bytes32, ...], Meta(max_length=MAX_BATCH_TRANSACTIONS)]


class Bodies(Message, frozen=True, tag="bodies"):
    """The answer to `FetchBodies`: what the member has of them."""

    transactions: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BATCH_TRANSACTIONS)]


class Forward(Message, frozen=True, tag="forward"):
    """Ledger transactions that a member passes on to the others."""

    transactions: Annotated[tuple[bytes, ...], Meta(max_length=MAX_FORWARDED)]


class ReportSignature(Message, frozen=True, tag="report_signature"):
    """A member's signature over the settlement report of ``epoch`` with EIP-712 digest ``digest``."""

    epoch: Count
    digest: Bytes32
    signature: Signature


ReplicaMessage = (
    Vote
    | RelayedVotes
    | PrePrepare
    | ViewChange
    | NewView
    | Status
    | CheckpointProof
    | Fetch
    | CommittedBatches
    | SnapshotOffer
    | FetchBatch
    | BatchBody
)
"""What the replica understands."""
LinkMessage = ReplicaMessage | FetchSnapshot | SnapshotPart | FetchBodies | Bodies | Forward | ReportSignature
"""Everything that travels on links."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(LinkMessage)


def encode_message(message: LinkMessage) -> bytes:
    """Bytes for the wire."""
    return _ENCODER.encode(message)


def decode_message(data: bytes) -> LinkMessage:
    """Inverse of `encode_message`; raises `InvalidEncoding` for anything else."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise InvalidEncoding(f"a message has at most {MAX_MESSAGE_BYTES} bytes, this one {len(data)}")
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
        raise InvalidEncoding(f"not a message between aggregators: {reason}") from reason


def vote_digest(domain: Domain, vote: Vote) -> bytes:
    """The 32 bytes that a vote's signature is over."""
    return subject_digest(domain, *vote.subject())


@functools.lru_cache(maxsize=1024)
def subject_digest(domain: Domain, kind: int, view: int, sequence: int, digest: bytes) -> bytes:
    """`vote_digest` by what is voted on: a committee signs each subject many times, it is hashed once."""
    return typed_data.digest_of(
        domain, SignedVote(kind=int(kind), view=view, sequence=sequence, digest=digest)
    )


def cast(
    domain: Domain, key: Key, signer: int, kind: VoteKind, view: int, sequence: int, digest: bytes
) -> Vote:
    """A vote signed by ``key``, the key of member ``signer``."""
    signature = key.sign(subject_digest(domain, kind, view, sequence, digest))
    return Vote(kind, view, sequence, digest, signer, signature)


def verify_vote(domain: Domain, members: tuple[bytes, ...], vote: Vote) -> None:
    """Raise `InvalidSignature` unless the member that the vote names signed it."""
    if vote.signer >= len(members):
        raise InvalidSignature(f"there is no member {vote.signer}")
    if recover(vote_digest(domain, vote), vote.signature) != members[vote.signer]:
        raise InvalidSignature(f"not signed by member {vote.signer}")


def contents_digest(contents: ViewChangeContents | NewViewContents) -> bytes:
    """What the vote of a view change or new view is over."""
    return keccak256(_ENCODER.encode(contents))
