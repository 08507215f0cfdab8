"""The liars' menu. A liar runs the real replica, knows its own key, and bends what it sends.

``bend(message, to)`` returns the messages that really leave for one receiver. Nobody can forge another's
signature; everything else is allowed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from aggregator.member.mempool import Mempool, Waiting
from aggregator.pbft.messages import (
    Batch,
    BatchBody,
    Bodies,
    CommittedBatches,
    LinkMessage,
    NewView,
    NewViewContents,
    Outline,
    Prepared,
    PrePrepare,
    SnapshotOffer,
    SnapshotPart,
    StableCheckpoint,
    ViewChange,
    Vote,
    Voted,
    VoteKind,
    cast,
    contents_digest,
)
from aggregator.pbft.quorum import Members
from aggregator.pbft.view_change import NULL_DIGEST
from protocol.crypto import Key, keccak256
from tests.simulation.workload import PROVIDERS

VICTIM = PROVIDERS[0].address
"""Whom a starving liar passes over."""
Bend = Callable[[LinkMessage, int], list[LinkMessage]]


def liar(lie: str, members: Members, index: int, key: Key, choose: random.Random) -> Bend:
    """How a member with this lie changes what it sends."""
    return _Liar(members, index, key, choose).__getattribute__(lie)


def starve(pool: Mempool) -> None:
    """Let a pool never choose the transactions of one sender for a batch."""
    choose = pool.select

    def select(exclude: set[bytes], limit: int) -> list[Waiting]:
        return [item for item in choose(exclude, limit) if item.signed.body.sender != VICTIM]

    pool.select = select  # type: ignore[method-assign]


class _Liar:
    def __init__(self, members: Members, index: int, key: Key, choose: random.Random) -> None:
        self.members, self.index, self.key, self.choose = members, index, key, choose
        self.sent: list[LinkMessage] = []
        self.other: dict[tuple[int, int], bytes] = {}
        """Equivocation: the digest of the other story, by view and sequence number."""

    def _vote(self, kind: VoteKind, view: int, sequence: int, digest: bytes) -> Vote:
        return cast(self.members.domain, self.key, self.index, kind, view, sequence, digest)

    def silent(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Says nothing at all."""
        return []

    def delaying(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Keeps messages back and sends them later, out of order."""
        self.sent.append(message)
        if len(self.sent) < 20:
            return []
        return [self.sent.pop(self.choose.randrange(len(self.sent)))]

    def equivocating(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Tells one victim another story; afterwards tells it to the others as well, or denies both."""
        victim = (self.index + 2) % self.members.count
        again = [self.choose.choice(self.sent)] if self.sent and self.choose.random() < 0.3 else []
        if isinstance(message, PrePrepare):
            other = self._other_proposal(message)
            self.sent = [*self.sent[-3:], other]
            return [other if to == victim else message, *again]
        if isinstance(message, ViewChange) and message.contents.view % 2:
            return [self._ask(message, (), ())]
        if to != victim:
            return [message, *again]
        if isinstance(message, Vote) and message.kind in (VoteKind.PREPARE, VoteKind.COMMIT):
            digest = self.other.get((message.view, message.sequence), message.digest[::-1])
            return [self._vote(message.kind, message.view, message.sequence, digest)]
        return [message]

    def _other_proposal(self, message: PrePrepare) -> PrePrepare:
        outline = msgspec.structs.replace(message.outline, timestamp_ms=message.outline.timestamp_ms + 1)
        other = self._propose(message, outline)
        self.other[(message.vote.view, message.vote.sequence)] = other.vote.digest
        return other

    def _propose(self, message: PrePrepare, outline: Outline) -> PrePrepare:
        vote = self._vote(VoteKind.PRE_PREPARE, message.vote.view, message.vote.sequence, outline.digest())
        return PrePrepare(vote, outline)

    def forging(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Votes in others' names, commits nobody agreed to, certificates made of its own votes."""
        forged: list[LinkMessage] = [message]
        if isinstance(message, Vote):
            other = self.choose.randrange(self.members.count)
            forged.append(msgspec.structs.replace(message, signer=other))
            forged.append(self._vote(VoteKind.COMMIT, message.view, message.sequence, message.digest))
        if isinstance(message, CommittedBatches):
            forged = [CommittedBatches(tuple(self._lie_about(item) for item in message.batches))]
        return forged

    def _lie_about(self, item: object) -> object:
        committed = msgspec.structs.replace(item, batch=Batch(1, None, (), ()))  # type: ignore[type-var]
        vote = self._vote(VoteKind.COMMIT, 0, committed.sequence, committed.batch.digest())  # type: ignore[attr-defined]
        copies = tuple(msgspec.structs.replace(vote, signer=i) for i in range(self.members.count))
        return msgspec.structs.replace(committed, certificate=(vote, *copies))  # type: ignore[type-var]

    def replaying(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Repeats its old messages for ever."""
        self.sent.append(message)
        del self.sent[:-400]
        return [message, *self.choose.sample(self.sent, min(3, len(self.sent)))]

    def new_view(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """As new primary, drops what was prepared, or shows each member another start."""
        if not isinstance(message, NewView):
            return [message]
        contents = message.contents
        kept = tuple(
            self._vote(VoteKind.PRE_PREPARE, contents.view, vote.sequence, NULL_DIGEST)
            if self.choose.random() < 0.5
            else vote
            for vote in contents.pre_prepares
        )
        changes = contents.view_changes
        if self.choose.random() < 0.5:
            changes = (
                changes[: self.members.quorum - 1]
                if self.choose.random() < 0.5
                else (changes[0],) * len(changes)
            )
        bent = NewViewContents(contents.epoch, contents.view, changes, kept)
        vote = self._vote(VoteKind.NEW_VIEW, contents.view, contents.epoch, contents_digest(bent))
        return [NewView(bent, vote)]

    def misremembering(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Votes like anybody, to some; asked for another view, it says that it voted for something else."""
        if isinstance(message, Vote) and message.kind is VoteKind.PREPARE:
            return [message] if (to + message.sequence) % 2 else []
        if not isinstance(message, ViewChange):
            return [message]
        contents = message.contents
        last = max(0, contents.view - 1)
        voted = tuple(
            Voted(item.sequence, last, self.choose.choice((NULL_DIGEST, item.digest[::-1])))
            for item in contents.voted
        )
        return [self._ask(message, contents.prepared if self.choose.random() < 0.5 else (), voted)]

    def _ask(
        self, message: ViewChange, prepared: tuple[Prepared, ...], voted: tuple[Voted, ...]
    ) -> ViewChange:
        bent = msgspec.structs.replace(message.contents, voted=voted, prepared=prepared)
        vote = self._vote(VoteKind.VIEW_CHANGE, bent.view, bent.epoch, contents_digest(bent))
        return ViewChange(bent, vote)

    def timestamps(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Proposes batches from the far future or the distant past."""
        if not isinstance(message, PrePrepare):
            return [message]
        shift = self.choose.choice((-(10**9), 10**9, 3_000))
        at_ms = max(0, message.outline.timestamp_ms + shift)
        return [self._propose(message, msgspec.structs.replace(message.outline, timestamp_ms=at_ms))]

    def bodiless(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Proposes transactions that nobody has, and keeps to itself what others lack."""
        if isinstance(message, Bodies | BatchBody):
            return []
        if not isinstance(message, PrePrepare) or self.choose.random() < 0.5:
            return [message]
        made_up = keccak256(b"%d" % message.vote.sequence)
        transactions = (*message.outline.transactions, made_up)
        return [self._propose(message, msgspec.structs.replace(message.outline, transactions=transactions))]

    def starving(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """As primary, orders everything but the transactions of one sender: see `starve`."""
        return [message]

    def withholding(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Proposes to a bare quorum only, and votes to half of the members."""
        if isinstance(message, PrePrepare):
            return [message] if (to - self.index) % self.members.count < self.members.quorum else []
        return [message] if to % 2 else []

    def flooding(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Votes for sequence numbers and views that nobody will ever reach."""
        far = self.choose.randrange(10**6)
        digest = bytes(self.choose.randbytes(32))
        return [
            message,
            self._vote(VoteKind.PREPARE, getattr(message, "view", 0), far, digest),
            self._vote(VoteKind.CHECKPOINT, 0, far * 8, digest),
        ]

    def snapshots(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Offers ledgers that nobody agreed on, and sends other bytes than it offered."""
        if isinstance(message, CommittedBatches):
            first = message.batches[0].sequence
            root, far = self.choose.randbytes(32), first + self.choose.randrange(1, 40)
            votes = tuple(self._vote(VoteKind.CHECKPOINT, 0, far, root) for _ in range(self.members.quorum))
            proof = tuple(msgspec.structs.replace(vote, signer=i) for i, vote in enumerate(votes))
            return [SnapshotOffer(1, StableCheckpoint(far, root, self.choose.choice((votes, proof))))]
        if isinstance(message, SnapshotPart):
            data = bytearray(message.data)
            data[self.choose.randrange(len(data))] ^= 1 << self.choose.randrange(8)
            return [msgspec.structs.replace(message, data=bytes(data))]
        return [message]

    def corrupting(self, message: LinkMessage, to: int) -> list[LinkMessage]:
        """Shows some members other transactions than it signed for, and breaks signatures."""
        if isinstance(message, PrePrepare) and to % 2 == 0:
            return [message]
        if isinstance(message, PrePrepare):
            return [PrePrepare(message.vote, Outline(message.outline.timestamp_ms, None, (), ()))]
        if isinstance(message, Vote):
            broken = bytes([message.signature[0] ^ 1]) + message.signature[1:]
            return [msgspec.structs.replace(message, signature=broken)]
        return [message]
