"""The normal case: from a proposal to a delivered batch, and the checkpoints that free its memory.

The primary of the view proposes a batch for the next sequence number; every member has its node check the
batch, then votes prepare; with a quorum of those it votes commit; with a quorum of those the batch is
delivered in sequence order. With the prepares of all others a batch needs no commits: a member that has a
quorum of them waits for the rest, not for long, and for a while not at all once it waited in vain. A quorum
of equal state roots makes a checkpoint stable, and nothing at or below it is kept.

Guarantees: one vote per view and sequence number; every promise is in a `Persist` before the message that
makes it; nothing is kept for numbers outside the window.

Source: Castro and Liskov 1999, sections 4.2 and 4.3; Golan Gueta et al. 2019 (SBFT), section V, for the votes
of all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from aggregator.pbft.events import (
    Broadcast,
    Deliver,
    Effect,
    Executed,
    Misbehaved,
    Persist,
    Send,
    Validate,
    Validated,
)
from aggregator.pbft.evidence import Contradiction, Equivocation, contradict
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import (
    Batch,
    Committed,
    NewView,
    Prepared,
    PrePrepare,
    RelayedVotes,
    StableCheckpoint,
    ViewChange,
    Vote,
    VoteKind,
    cast,
)
from aggregator.pbft.quorum import InvalidProof, Members
from aggregator.pbft.records import (
    Accepted,
    BecameCommitted,
    BecamePrepared,
    BecameStable,
)
from aggregator.pbft.slots import Slot
from protocol.crypto import Key

OBSERVER: Final = -1
"""The place of whoever has none in the committee."""
MAX_DOUBTS: Final = 6
"""How often `Limits.doubt_ms` doubles."""


class StateDiverged(Exception):
    """This replica's ledger differs from a quorum's: a bug here, not an expected fault. It must stop."""


class Agreement:
    """State of one member and the normal case over it; `views` and `replica` build on it."""

    def __init__(self, members: Members, index: int | None, key: Key, limits: Limits | None = None) -> None:
        assert index is None or members.addresses[index] == key.address, "a replica signs with its key"
        self.members = replace(members)  # its own memory of what it has checked
        self.index = OBSERVER if index is None else index
        """Place in the committee; `OBSERVER` for a node that follows it without a vote."""
        self.fence: int | None = None
        """The last sequence number that this committee orders, once that is known."""
        self.limits = limits or Limits()
        self._key = key
        self.view = 0
        self.active = True
        self.executed = 0
        """Highest sequence number the ledger has applied."""
        self.delivered = 0
        """Highest sequence number handed to the ledger."""
        self.stable: StableCheckpoint | None = None
        self._proposed = 0
        self._slots: dict[int, Slot] = {}
        self._bodies: dict[bytes, Batch] = {}
        self._checkpoints: dict[int, dict[int, Vote]] = {}
        self._roots: dict[int, bytes] = {}
        """State roots found here at sequence numbers whose checkpoint is not stable yet."""
        self._view_changes: dict[int, dict[int, ViewChange]] = {}
        self._new_view: NewView | None = None
        self._now_ms = 0
        self._ticked_ms = 0
        self._progress_ms = 0
        self._entered_ms = 0
        self._wanted_ms = 0
        self._said_ms = 0
        self._fetched_ms = 0
        self._fetched_from = OBSERVER
        self._fruitless_views = 0
        self._doubts = 0
        self._doubting_until_ms = 0
        self._heard = {self.index}
        """Who was heard since the start, until they are a quorum."""
        self._out: list[Effect] = []

    # Questions the node may ask --------------------------------------------------------------------

    @property
    def low(self) -> int:
        """Low watermark: the last stable sequence number."""
        return self.stable.sequence if self.stable is not None else 0

    @property
    def primary(self) -> int:
        """Index of the current view's primary."""
        return self.members.primary(self.view)

    @property
    def observing(self) -> bool:
        """Whether this replica only follows: it is not, not yet, or no longer a member."""
        return self.index == OBSERVER

    @property
    def is_primary(self) -> bool:
        """Whether this replica orders batches now."""
        return self.active and self.primary == self.index

    @property
    def in_flight(self) -> int:
        """Own proposals not yet executed."""
        return max(0, self._proposed - self.executed)

    @property
    def retransmit_ms(self) -> int:
        """How long this member waits before it repeats itself."""
        return max(self.limits.retransmit_ms, self.limits.repeat_ms * self.members.count)

    @property
    def can_propose(self) -> bool:
        """Whether a `Propose` event is allowed now."""
        following = max(self._proposed, self.executed) + 1
        return self.is_primary and self.in_flight < self.limits.pipeline and self._in_window(following)

    # Normal case -----------------------------------------------------------------------------------

    def _cast(self, kind: VoteKind, view: int, sequence: int, digest: bytes) -> Vote:
        assert not self.observing, "whoever only follows signs nothing"
        return cast(self.members.domain, self._key, self.index, kind, view, sequence, digest)

    def _slot(self, sequence: int) -> Slot:
        slot = self._slots.get(sequence)
        if slot is None:
            slot = self._slots[sequence] = Slot()
        return slot

    def _in_window(self, sequence: int) -> bool:
        fenced = self.fence is not None and sequence > self.fence
        return self.low < sequence <= self.low + self.limits.window and not fenced

    def _propose(self, batch: Batch) -> None:
        assert self.can_propose, "the node proposes only when it may"
        sequence = max(self._proposed, self.executed) + 1
        self._proposed = sequence
        digest = batch.digest()
        vote = self._cast(VoteKind.PRE_PREPARE, self.view, sequence, digest)
        self._accept(vote, batch)
        self._out.append(Broadcast(message=PrePrepare(vote, batch.outline)))
        self._check_prepared(sequence)

    def _accept(self, vote: Vote, batch: Batch) -> None:
        """Promise: in this view no other proposal for this number gets this replica's vote."""
        slot = self._slot(vote.sequence)
        slot.proposal, slot.batch, slot.accepted_ms = vote, batch, self._now_ms
        slot.voted = vote
        self._bodies[vote.digest] = batch
        self._out.append(Persist(record=Accepted(vote, batch)))

    def _on_pre_prepare(self, message: PrePrepare) -> None:
        vote = message.vote
        if vote.view != self.view or not self.active or not self._in_window(vote.sequence):
            return
        # Who brings it does not matter: the signature does, and a link key can be registered twice.
        if vote.kind is not VoteKind.PRE_PREPARE or vote.signer != self.primary:
            raise InvalidProof("a proposal is signed by the primary of its view")
        slot = self._slot(vote.sequence)
        if slot.proposal is not None:
            if slot.proposal.digest != vote.digest:
                self.members.verify(vote)
                raise Equivocation(slot.proposal, vote)
            return
        if message.outline.digest() != vote.digest:
            raise InvalidProof("the batch is not the one proposed")
        self.members.verify(vote)
        slot.proposal = vote
        slot.accepted_ms = self._now_ms
        for prepare in slot.prepares.values():
            self._show_proposal(slot, prepare)
        self._out.append(
            Validate(view=vote.view, sequence=vote.sequence, digest=vote.digest, outline=message.outline)
        )

    def _on_validated(self, event: Validated) -> None:
        slot = self._slots.get(event.sequence)
        if slot is None or slot.proposal is None or slot.accepted:
            return
        vote = slot.proposal
        if (
            (vote.view, vote.digest) != (event.view, event.digest)
            or self.view != event.view
            or not self.active
        ):
            return
        if event.batch is None:
            # The timer runs on: a primary whose proposals cannot be confirmed is replaced.
            self._out.append(
                Misbehaved(sender=self.primary, reason=f"proposal {event.sequence} is not valid")
            )
            return
        assert event.batch.digest() == vote.digest, "the node validates what was proposed"
        self._accept(vote, event.batch)
        self._vote_prepare(event.sequence, slot)
        self._check_committed(event.sequence)

    def _vote_prepare(self, sequence: int, slot: Slot) -> None:
        assert slot.proposal is not None and slot.accepted
        slot.voted = slot.proposal
        if self.primary != self.index and not self.observing:
            slot.own_prepare = self._cast(VoteKind.PREPARE, self.view, sequence, slot.proposal.digest)
            slot.prepares[self.index] = slot.own_prepare
            self._say_vote(slot.own_prepare, ())
        self._check_prepared(sequence)

    def _say_vote(self, vote: Vote, relayed: tuple[Vote, ...]) -> None:
        """Tell the others a vote; a primary that relays passes on with it what it stands on."""
        if not self.limits.relay_votes:
            self._out.append(Broadcast(message=vote))
        elif self.primary == self.index:
            self._out.append(Broadcast(message=RelayedVotes((*relayed, vote))))
        else:
            self._out.append(Send(to=self.primary, message=vote))

    def _on_relayed(self, message: RelayedVotes) -> None:
        for vote in message.votes:
            try:
                self._on_vote(vote)
            except Equivocation as lie:
                self._note([lie.votes])

    def _on_vote(self, vote: Vote) -> None:
        if vote.kind is VoteKind.CHECKPOINT:
            self._on_checkpoint(vote)
            return
        if vote.kind is VoteKind.PRE_PREPARE:
            self._on_shown_proposal(vote)
            return
        if vote.kind not in (VoteKind.PREPARE, VoteKind.COMMIT):
            raise InvalidProof(f"a {vote.kind.name} vote does not travel alone")
        if vote.view != self.view or not self.active or not self._in_window(vote.sequence):
            return
        slot = self._slot(vote.sequence)
        votes = slot.votes(vote.kind)
        known = votes.get(vote.signer)
        if known is not None:
            if known.digest != vote.digest:
                self.members.verify(vote)
                raise Equivocation(known, vote)
            return
        # Votes that change nothing any more: do not pay for their signatures.
        if vote.kind is VoteKind.PREPARE and slot.own_commit is not None:
            return
        if vote.kind is VoteKind.COMMIT and slot.committed is not None:
            self._check_prepared(vote.sequence, asked=True)
            return
        if vote.kind is VoteKind.PREPARE and vote.signer == self.primary:
            raise InvalidProof("a primary's proposal is its only vote")
        self.members.verify(vote)
        votes[vote.signer] = vote
        if vote.kind is VoteKind.PREPARE:
            self._show_proposal(slot, vote)
            self._check_prepared(vote.sequence)
        else:
            self._check_prepared(vote.sequence, asked=True)
            self._check_committed(vote.sequence)

    def _show_proposal(self, slot: Slot, prepare: Vote) -> None:
        """Someone prepares another batch than was proposed here: show it the proposal, once per prepare."""
        if slot.proposal is not None and slot.proposal.digest != prepare.digest:
            self._out.append(Send(to=prepare.signer, message=slot.proposal))

    def _on_shown_proposal(self, vote: Vote) -> None:
        """A proposal without its batch changes nothing; it may show that the primary made two."""
        slot = self._slots.get(vote.sequence)
        if slot is None or slot.proposal is None or not contradict(slot.proposal, vote):
            return
        self.members.verify(vote)
        raise Equivocation(slot.proposal, vote)

    def _note(self, found: Iterable[Contradiction]) -> None:
        """Report contradictions that do not stand in the way of what is being done."""
        for known, other in found:
            reason = str(Equivocation(known, other))
            self._out.append(Misbehaved(sender=known.signer, reason=reason, evidence=(known, other)))

    def _check_prepared(self, sequence: int, *, asked: bool = False) -> None:
        """Go on from the prepares that are here; ``asked``: somebody commits, who lacks some of them."""
        slot = self._slot(sequence)
        if slot.proposal is None or slot.batch is None or slot.own_commit is not None:
            return
        if len(slot.prepares) < self.members.quorum - 1:
            return
        digest = slot.proposal.digest
        prepares = slot.matching(VoteKind.PREPARE, digest)
        # What was committed before this view takes its commits again: somebody may lack them.
        fresh = slot.committed is None
        if fresh and len(prepares) == self.members.count - 1 and self.limits.unanimity_ms:
            self._commit_unanimous(Committed(sequence, slot.batch, (slot.proposal, *prepares)))
            if not asked:
                return
        if len(prepares) < self.members.quorum - 1 or self.observing:
            return
        hopeful = fresh and not asked and not slot.commits and len(slot.prepares) == len(prepares)
        if hopeful and self._waits_for_all(slot):
            return
        slot.prepared = Prepared(slot.proposal, prepares)
        self._out.append(Persist(record=BecamePrepared(slot.prepared)))
        slot.own_commit = self._cast(VoteKind.COMMIT, self.view, sequence, digest)
        slot.commits[self.index] = slot.own_commit
        self._say_vote(slot.own_commit, prepares)
        self._check_committed(sequence)

    def _commit_unanimous(self, committed: Committed) -> None:
        self._doubts = 0
        self._commit(committed)
        if self.limits.relay_votes and self.primary == self.index:
            self._out.append(Broadcast(message=RelayedVotes(committed.certificate[1:])))

    def _waits_for_all(self, slot: Slot) -> bool:
        """Whether to hope for more prepares than a quorum."""
        # Where votes go through the primary, it waits for all and says so by its commit if it does no more.
        led = self.limits.relay_votes and self.primary != self.index
        if not self.limits.unanimity_ms or (self._now_ms < self._doubting_until_ms and not led):
            return False
        if slot.quorate_ms is None:
            slot.quorate_ms = self._now_ms
        if self._now_ms - slot.quorate_ms < self.limits.unanimity_ms:
            return True
        if self._now_ms >= self._doubting_until_ms:
            self._doubting_until_ms = self._now_ms + (self.limits.doubt_ms << self._doubts)
            self._doubts = min(self._doubts + 1, MAX_DOUBTS)
        return False

    def _end_waiting(self) -> None:
        """Look again at what waits for the prepares of all."""
        for sequence in [s for s, slot in self._slots.items() if slot.quorate_ms is not None]:
            if self._slots[sequence].committed is None:
                self._check_prepared(sequence)

    def _check_committed(self, sequence: int) -> None:
        slot = self._slot(sequence)
        if slot.proposal is None or slot.batch is None or slot.committed is not None:
            return
        if len(slot.commits) < self.members.quorum:
            return
        commits = slot.matching(VoteKind.COMMIT, slot.proposal.digest)
        if len(commits) < self.members.quorum:
            return
        self._commit(Committed(sequence, slot.batch, commits))
        if self.limits.relay_votes and self.primary == self.index:
            self._out.append(Broadcast(message=RelayedVotes(commits)))

    def _commit(self, committed: Committed) -> None:
        slot = self._slot(committed.sequence)
        slot.committed = committed
        self._bodies[committed.batch.digest()] = committed.batch
        self._out.append(Persist(record=BecameCommitted(committed)))
        self._deliver_next()

    def _deliver_next(self) -> None:
        while (slot := self._slots.get(self.delivered + 1)) is not None and slot.committed is not None:
            self.delivered += 1
            self._out.append(Deliver(committed=slot.committed))

    def _on_executed(self, event: Executed) -> None:
        assert event.sequence == self.executed + 1 <= self.delivered, (event.sequence, self.executed)
        self.executed = event.sequence
        self._progress_ms = self._now_ms
        self._fruitless_views = 0
        slot = self._slots[event.sequence]
        if slot.proposal is None and slot.prepared is None and slot.voted is None:
            del self._slots[event.sequence]  # fetched from a peer: nothing was promised here
        self.fence = event.fence
        if event.root is not None and event.sequence > self.low:
            self._roots[event.sequence] = event.root
            if not self.observing:
                vote = self._cast(VoteKind.CHECKPOINT, 0, event.sequence, event.root)
                self._checkpoints.setdefault(event.sequence, {})[self.index] = vote
                self._out.append(Broadcast(message=vote))
            self._check_stable(event.sequence)

    # Checkpoints -----------------------------------------------------------------------------------

    def _on_checkpoint(self, vote: Vote) -> None:
        if not self._in_window(vote.sequence) or vote.sequence % self.limits.checkpoint_interval:
            return
        votes = self._checkpoints.setdefault(vote.sequence, {})
        if vote.signer in votes or vote.view != 0:
            return
        self.members.verify(vote)
        votes[vote.signer] = vote
        self._check_stable(vote.sequence)

    def _check_stable(self, sequence: int) -> None:
        """Only what this replica executed itself becomes stable here; whoever is behind catches up first."""
        votes = self._checkpoints.get(sequence, {})
        root = self._roots.get(sequence)
        if root is None:
            return
        proof = tuple(vote for _, vote in sorted(votes.items()) if vote.digest == root)
        if len(proof) < self.members.quorum:
            return
        self._make_stable(StableCheckpoint(sequence, root, proof))

    def _on_checkpoint_proof(self, checkpoint: StableCheckpoint) -> None:
        if not self.low < checkpoint.sequence <= self.executed:
            return
        self.members.verify_stable(checkpoint)
        if self._roots.get(checkpoint.sequence, checkpoint.root) != checkpoint.root:
            raise StateDiverged(
                f"a quorum has another state root at {checkpoint.sequence}; stop, keep the journal, report it"
            )
        self._make_stable(checkpoint)

    def _make_stable(self, checkpoint: StableCheckpoint) -> None:
        """Nothing at or below a stable checkpoint is needed any more to keep a promise."""
        self._out.append(Persist(record=BecameStable(checkpoint)))
        self._start_from(checkpoint)

    def _start_from(self, checkpoint: StableCheckpoint) -> None:
        self.stable = checkpoint
        low = checkpoint.sequence
        self._slots = {sequence: slot for sequence, slot in self._slots.items() if sequence > low}
        self._checkpoints = {
            sequence: votes for sequence, votes in self._checkpoints.items() if sequence > low
        }
        self._roots = {sequence: root for sequence, root in self._roots.items() if sequence > low}
        wanted = {slot.proposal.digest for slot in self._slots.values() if slot.proposal is not None}
        wanted |= {slot.voted.digest for slot in self._slots.values() if slot.voted is not None}
        wanted |= {s.prepared.pre_prepare.digest for s in self._slots.values() if s.prepared is not None}
        wanted |= {s.committed.batch.digest() for s in self._slots.values() if s.committed is not None}
        self._bodies = {digest: body for digest, body in self._bodies.items() if digest in wanted}
