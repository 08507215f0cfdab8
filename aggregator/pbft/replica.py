"""One member of the committee: ``step(event) -> effects``, pure and synchronous.

Normal case: the primary of the view proposes a batch for the next sequence number (`Propose`); everyone
has its node check the batch (`Validate`), then votes prepare; with a quorum of those it votes commit; with
a quorum of those the batch is delivered in sequence order. Up to `Limits.pipeline` proposals may be under
way and no sequence number leaves the window above the last stable checkpoint.

Two questions are kept apart. *May I vote?* is answered from what was promised and persisted: one proposal
per view and number, none in a view that was left, none outside the window. *Whose turn, and since when?*
is answered from time and changes no promise: it only decides when to ask for another view.

Guarantees: no two honest replicas deliver different batches at one sequence number while at most f of n
members lie, whatever messages are lost, late or repeated; every promise is in a `Persist` before the
message that makes it.

Source: Castro and Liskov 1999, section 4; PoT 3.1.2. Journal, sockets and clocks: `aggregator.node`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aggregator.pbft.events import (
    Broadcast,
    Deliver,
    Effect,
    EnteredView,
    Event,
    Executed,
    Misbehaved,
    Persist,
    Propose,
    Received,
    Send,
    Serve,
    Tick,
    Validate,
    Validated,
)
from aggregator.pbft.messages import (
    Batch,
    CheckpointProof,
    Committed,
    CommittedBatches,
    Fetch,
    NewView,
    NewViewContents,
    Prepared,
    PrePrepare,
    StableCheckpoint,
    Status,
    ViewChange,
    ViewChangeContents,
    Vote,
    VoteKind,
    cast,
    contents_digest,
)
from aggregator.pbft.quorum import InvalidProof, Members
from aggregator.pbft.records import (
    Accepted,
    BecameCommitted,
    BecamePrepared,
    BecameStable,
    EnteredNewView,
    LeftView,
    Record,
)
from aggregator.pbft.slots import Slot
from aggregator.pbft.view_change import (
    NULL_DIGEST,
    bodies_by_digest,
    highest_stable,
    missing_bodies,
    proposals,
    verify_new_view,
    verify_view_change,
)
from protocol.crypto import Key
from protocol.errors import ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds and periods of a replica; all times in milliseconds."""

    pipeline: int = 8
    """Proposals of a primary under way at once."""
    window: int = 256
    """Sequence numbers above the last stable checkpoint for which anything is kept."""
    checkpoint_interval: int = 32
    view_timeout_ms: int = 4_000
    """First timeout; it doubles with every view that brings no progress."""
    max_view_timeout_ms: int = 120_000
    retransmit_ms: int = 500
    """After this long without progress, own votes and the own position are said again."""
    view_lead: int = 1_000
    """View changes further ahead than this are ignored: nobody honest is there."""


class StateDiverged(Exception):
    """This replica's ledger differs from a quorum's: a bug here, not an expected fault. It must stop."""


class Replica:
    """The replica of member ``index``. Not thread-safe; all randomness and time come in through events."""

    def __init__(self, members: Members, index: int, key: Key, limits: Limits | None = None) -> None:
        assert members.addresses[index] == key.address, "a replica signs with its member's key"
        self.members = members
        self.index = index
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
        self._view_changes: dict[int, dict[int, ViewChange]] = {}
        self._new_view: NewView | None = None
        self._now_ms = 0
        self._progress_ms = 0
        self._wanted_ms = 0
        self._said_ms = 0
        self._fetched_ms = 0
        self._fruitless_views = 0
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
    def is_primary(self) -> bool:
        """Whether this replica orders batches now."""
        return self.active and self.primary == self.index

    @property
    def in_flight(self) -> int:
        """Own proposals not yet executed."""
        return max(0, self._proposed - self.executed)

    @property
    def can_propose(self) -> bool:
        """Whether a `Propose` event is allowed now."""
        following = max(self._proposed, self.executed) + 1
        return (
            self.is_primary
            and self.in_flight < self.limits.pipeline
            and following <= self.low + self.limits.window
        )

    # The step --------------------------------------------------------------------------------------

    def step(self, event: Event) -> list[Effect]:
        """Take one event in; returns what must happen because of it, in order."""
        self._out = []
        match event:
            case Tick():
                if not self._now_ms:
                    self._progress_ms = event.now_ms  # patience starts when the clock does
                self._now_ms = max(self._now_ms, event.now_ms)
                self._on_tick(event.waiting_since_ms)
            case Received():
                self._now_ms = max(self._now_ms, event.now_ms)
                self._on_message(event.sender, event)
            case Propose():
                self._now_ms = max(self._now_ms, event.now_ms)
                self._propose(event.batch)
            case Validated():
                self._on_validated(event)
            case Executed():
                self._on_executed(event)
        return self._out

    def _on_message(self, sender: int, event: Received) -> None:
        """Dispatch; whatever a peer gets wrong becomes evidence, never an exception."""
        message = event.message
        try:
            match message:
                case PrePrepare():
                    self._on_pre_prepare(sender, message)
                case Vote():
                    self._on_vote(message)
                case ViewChange():
                    self._on_view_change(message)
                case NewView():
                    self._on_new_view(message)
                case Status():
                    self._on_status(sender, message)
                case Fetch():
                    self._out.append(Serve(to=sender, sequence=message.sequence))
                case CommittedBatches():
                    self._on_committed_batches(sender, message)
                case CheckpointProof():
                    self._on_checkpoint_proof(message.checkpoint)
        except ProtocolError as reason:
            self._out.append(Misbehaved(sender=sender, reason=f"{type(message).__name__}: {reason}"))

    # Normal case -----------------------------------------------------------------------------------

    def _cast(self, kind: VoteKind, view: int, sequence: int, digest: bytes) -> Vote:
        return cast(self.members.domain, self._key, self.index, kind, view, sequence, digest)

    def _slot(self, sequence: int) -> Slot:
        return self._slots.setdefault(sequence, Slot())

    def _in_window(self, sequence: int) -> bool:
        return self.low < sequence <= self.low + self.limits.window

    def _propose(self, batch: Batch) -> None:
        assert self.can_propose, "the node proposes only when it may"
        sequence = max(self._proposed, self.executed) + 1
        self._proposed = sequence
        digest = batch.digest()
        vote = self._cast(VoteKind.PRE_PREPARE, self.view, sequence, digest)
        proposal = PrePrepare(vote, batch)
        self._accept(sequence, proposal)
        self._out.append(Broadcast(message=proposal))
        self._check_prepared(sequence)

    def _accept(self, sequence: int, proposal: PrePrepare) -> None:
        """Promise: in this view no other proposal for this number gets this replica's vote."""
        slot = self._slot(sequence)
        slot.proposal, slot.accepted, slot.accepted_ms = proposal, True, self._now_ms
        self._bodies[proposal.vote.digest] = proposal.batch
        self._out.append(Persist(record=Accepted(proposal)))

    def _on_pre_prepare(self, sender: int, message: PrePrepare) -> None:
        vote = message.vote
        if vote.view != self.view or not self.active or not self._in_window(vote.sequence):
            return
        if vote.kind is not VoteKind.PRE_PREPARE or vote.signer != self.primary or sender != vote.signer:
            raise InvalidProof("a proposal comes from the primary of its view")
        slot = self._slot(vote.sequence)
        if slot.proposal is not None:
            if slot.proposal.vote.digest != vote.digest:
                self.members.verify(vote)
                raise InvalidProof(f"two proposals for sequence {vote.sequence} in view {vote.view}")
            return
        if message.batch.digest() != vote.digest:
            raise InvalidProof("the batch is not the one proposed")
        self.members.verify(vote)
        slot.proposal = message
        slot.accepted_ms = self._now_ms
        self._out.append(
            Validate(view=vote.view, sequence=vote.sequence, digest=vote.digest, batch=message.batch)
        )

    def _on_validated(self, event: Validated) -> None:
        slot = self._slots.get(event.sequence)
        if slot is None or slot.proposal is None or slot.accepted:
            return
        vote = slot.proposal.vote
        if (
            (vote.view, vote.digest) != (event.view, event.digest)
            or self.view != event.view
            or not self.active
        ):
            return
        if not event.valid:
            # The timer runs on: a primary whose proposals cannot be confirmed is replaced.
            self._out.append(
                Misbehaved(sender=self.primary, reason=f"proposal {event.sequence} is not valid")
            )
            return
        self._accept(event.sequence, slot.proposal)
        self._vote_prepare(event.sequence, slot)

    def _vote_prepare(self, sequence: int, slot: Slot) -> None:
        assert slot.proposal is not None and slot.accepted
        if self.primary != self.index:
            slot.own_prepare = self._cast(VoteKind.PREPARE, self.view, sequence, slot.proposal.vote.digest)
            slot.prepares[self.index] = slot.own_prepare
            self._out.append(Broadcast(message=slot.own_prepare))
        self._check_prepared(sequence)

    def _on_vote(self, vote: Vote) -> None:
        if vote.kind is VoteKind.CHECKPOINT:
            self._on_checkpoint(vote)
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
                raise InvalidProof(f"member {vote.signer} votes for two digests at {vote.sequence}")
            return
        # Once a phase has its quorum, further votes change nothing: do not pay for their signatures.
        if vote.kind is VoteKind.PREPARE and slot.prepared_in(self.view):
            return
        if vote.kind is VoteKind.COMMIT and slot.committed is not None:
            return
        if vote.kind is VoteKind.PREPARE and vote.signer == self.primary:
            raise InvalidProof("a primary's proposal is its only vote")
        self.members.verify(vote)
        votes[vote.signer] = vote
        self._check_prepared(vote.sequence)
        self._check_committed(vote.sequence)

    def _check_prepared(self, sequence: int) -> None:
        slot = self._slot(sequence)
        if slot.proposal is None or not slot.accepted or slot.own_commit is not None:
            return
        digest = slot.proposal.vote.digest
        prepares = slot.matching(VoteKind.PREPARE, digest)
        if len(prepares) < self.members.quorum - 1:
            return
        slot.prepared = Prepared(slot.proposal.vote, prepares)
        self._out.append(Persist(record=BecamePrepared(slot.prepared)))
        slot.own_commit = self._cast(VoteKind.COMMIT, self.view, sequence, digest)
        slot.commits[self.index] = slot.own_commit
        self._out.append(Broadcast(message=slot.own_commit))
        self._check_committed(sequence)

    def _check_committed(self, sequence: int) -> None:
        slot = self._slot(sequence)
        if slot.proposal is None or slot.committed is not None:
            return
        commits = slot.matching(VoteKind.COMMIT, slot.proposal.vote.digest)
        if len(commits) >= self.members.quorum:
            self._commit(Committed(sequence, slot.proposal.batch, commits))

    def _commit(self, committed: Committed) -> None:
        slot = self._slot(committed.sequence)
        slot.committed = committed
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
        if slot.proposal is None and slot.prepared is None:
            del self._slots[event.sequence]  # fetched from a peer: nothing was promised here
        if event.root is not None and event.sequence > self.low:
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
        own = votes.get(self.index)
        if own is None:
            return
        proof = tuple(vote for _, vote in sorted(votes.items()) if vote.digest == own.digest)
        if len(proof) < self.members.quorum:
            return
        self._make_stable(StableCheckpoint(sequence, own.digest, proof))

    def _on_checkpoint_proof(self, checkpoint: StableCheckpoint) -> None:
        if not self.low < checkpoint.sequence <= self.executed:
            return
        self.members.verify_stable(checkpoint)
        own = self._checkpoints.get(checkpoint.sequence, {}).get(self.index)
        if own is not None and own.digest != checkpoint.root:
            raise StateDiverged(
                f"a quorum has another state root at {checkpoint.sequence}; stop, keep the journal, report it"
            )
        self._make_stable(checkpoint)

    def _make_stable(self, checkpoint: StableCheckpoint) -> None:
        """Nothing at or below a stable checkpoint is needed any more to keep a promise."""
        self.stable = checkpoint
        self._out.append(Persist(record=BecameStable(checkpoint)))
        low = checkpoint.sequence
        self._slots = {sequence: slot for sequence, slot in self._slots.items() if sequence > low}
        self._checkpoints = {
            sequence: votes for sequence, votes in self._checkpoints.items() if sequence > low
        }
        wanted = {slot.proposal.vote.digest for slot in self._slots.values() if slot.proposal is not None}
        wanted |= {
            slot.prepared.pre_prepare.digest for slot in self._slots.values() if slot.prepared is not None
        }
        self._bodies = {digest: body for digest, body in self._bodies.items() if digest in wanted}

    # Time ------------------------------------------------------------------------------------------

    def _timeout_ms(self) -> int:
        return min(
            self.limits.view_timeout_ms << min(self._fruitless_views, 10), self.limits.max_view_timeout_ms
        )

    def _on_tick(self, waiting_since_ms: int | None) -> None:
        now_ms = self._now_ms
        if now_ms - max(self._said_ms, self._progress_ms) >= self.limits.retransmit_ms:
            self._said_ms = now_ms
            self._say_again()
        if not self.active:
            # The clock of a wanted view runs once a quorum wants it; until then asking again must do.
            wanted = len(self._view_changes.get(self.view, {})) >= self.members.quorum
            if not wanted:
                self._wanted_ms = now_ms
            elif now_ms - self._wanted_ms >= self._timeout_ms():
                self._leave_for(self.view + 1)
            return
        waiting = [waiting_since_ms] if waiting_since_ms is not None else []
        waiting += [
            slot.accepted_ms
            for sequence, slot in self._slots.items()
            if sequence > self.executed and slot.accepted_ms is not None
        ]
        if waiting and now_ms - max(min(waiting), self._progress_ms) >= self._timeout_ms():
            self._leave_for(self.view + 1)

    def _say_again(self) -> None:
        """Repeat the own position and, where the own log stands still, the own votes."""
        self._out.append(Broadcast(message=Status(self.view, self.active, self.executed, self.low)))
        if not self.active:
            own = self._view_changes.get(self.view, {}).get(self.index)
            if own is not None:
                self._out.append(Broadcast(message=own))
            return
        for sequence in sorted(self._slots):
            slot = self._slots[sequence]
            if sequence <= self.executed or slot.proposal is None or not slot.accepted:
                continue
            if self.is_primary:
                self._out.append(Broadcast(message=slot.proposal))
            for vote in (slot.own_prepare, slot.own_commit):
                if vote is not None:
                    self._out.append(Broadcast(message=vote))
        for votes in self._checkpoints.values():
            if self.index in votes:
                self._out.append(Broadcast(message=votes[self.index]))

    # Catching up -----------------------------------------------------------------------------------

    def _on_status(self, sender: int, status: Status) -> None:
        behind = status.executed > self.executed
        if behind and self._now_ms - max(self._fetched_ms, self._progress_ms) >= self.limits.retransmit_ms:
            self._fetched_ms = self._now_ms
            self._out.append(Send(to=sender, message=Fetch(self.delivered + 1)))
        # Whoever missed a new view, or waits for one that has begun, gets the proof of it.
        lost = status.view < self.view or (status.view == self.view and not status.active)
        if lost and self.active and self._new_view is not None:
            self._out.append(Send(to=sender, message=self._new_view))
        if self.stable is not None and status.stable < self.low <= status.executed:
            self._out.append(Send(to=sender, message=CheckpointProof(self.stable)))

    def _on_committed_batches(self, sender: int, message: CommittedBatches) -> None:
        before = self.delivered
        for committed in message.batches:
            if committed.sequence != self.delivered + 1:
                continue
            self.members.verify_committed(committed)
            self._commit(committed)
        if self.delivered > before:
            self._out.append(Send(to=sender, message=Fetch(self.delivered + 1)))

    # Changing the view -----------------------------------------------------------------------------

    def _leave_for(self, view: int) -> None:
        """Promise: no vote in any view below ``view`` from here on."""
        assert view > self.view or not self.active
        self.view, self.active = view, False
        self._fruitless_views += 1
        self._wanted_ms = self._now_ms
        self._proposed = 0
        self._out.append(Persist(record=LeftView(view)))
        prepared = tuple(
            slot.prepared
            for sequence, slot in sorted(self._slots.items())
            if slot.prepared is not None and sequence > self.low
        )
        contents = ViewChangeContents(view, self.stable, prepared)
        vote = self._cast(VoteKind.VIEW_CHANGE, view, 0, contents_digest(contents))
        bodies = tuple(
            self._bodies[p.pre_prepare.digest] for p in prepared if p.pre_prepare.digest != NULL_DIGEST
        )
        own = ViewChange(contents, vote, bodies)
        self._forget_view_changes_of(self.index, below=view)
        self._view_changes.setdefault(view, {})[self.index] = own
        self._out.append(Broadcast(message=own))
        self._start_view_if_primary()

    def _on_view_change(self, message: ViewChange) -> None:
        view, signer = message.contents.view, message.vote.signer
        settled = view < self.view or (view == self.view and self.active)
        if settled or view > self.view + self.limits.view_lead:
            return
        if signer in self._view_changes.get(view, {}):
            return
        verify_view_change(self.members, message, window=self.limits.window)
        known = bodies_by_digest(message.bodies)
        wanted = [prepared.pre_prepare.digest for prepared in message.contents.prepared]
        if missing_bodies(wanted, known | self._bodies):
            raise InvalidProof("a view change must bring the batches it speaks of")
        self._forget_view_changes_of(signer, below=view)
        self._view_changes.setdefault(view, {})[signer] = message
        # f + 1 members want a later view: one of them is honest, so follow (liveness, section 4.5.2).
        ahead = sorted(
            {other: v for v, by in self._view_changes.items() if v > self.view for other in by}.items()
        )
        if len(ahead) > self.members.faults:
            self._leave_for(min(v for _, v in ahead))
        self._start_view_if_primary()

    def _forget_view_changes_of(self, signer: int, *, below: int) -> None:
        """Keep one view change per member: memory stays bounded whatever views are asked for."""
        for view in [view for view in self._view_changes if view < below]:
            self._view_changes[view].pop(signer, None)
            if not self._view_changes[view]:
                del self._view_changes[view]

    def _start_view_if_primary(self) -> None:
        if self.active or self.primary != self.index:
            return
        changes = self._view_changes.get(self.view, {})
        if self.index not in changes or len(changes) < self.members.quorum:
            return
        chosen = tuple(change for _, change in sorted(changes.items()))
        known = self._bodies | bodies_by_digest(body for change in chosen for body in change.bodies)
        proposed = proposals(chosen)
        pre_prepares = tuple(
            self._cast(VoteKind.PRE_PREPARE, self.view, sequence, digest) for sequence, digest in proposed
        )
        stripped = tuple(ViewChange(change.contents, change.vote, ()) for change in chosen)
        contents = NewViewContents(self.view, stripped, pre_prepares)
        vote = self._cast(VoteKind.NEW_VIEW, self.view, 0, contents_digest(contents))
        bodies = tuple(known[digest] for digest in sorted({d for _, d in proposed}) if digest != NULL_DIGEST)
        self._enter_view(NewView(contents, vote, bodies), known)

    def _on_new_view(self, message: NewView) -> None:
        view = message.contents.view
        if view < self.view or (view == self.view and self.active) or view == 0:
            return
        if view > self.view + self.limits.view_lead:
            return
        verify_new_view(self.members, message, window=self.limits.window)
        known = self._bodies | bodies_by_digest(message.bodies)
        if missing_bodies((vote.digest for vote in message.contents.pre_prepares), known):
            raise InvalidProof("a new view must bring the batches it proposes")
        self._enter_view(message, known)

    def _enter_view(self, message: NewView, known: dict[bytes, Batch]) -> None:
        """Take part in a view. Its first proposals were validated by a quorum before, so vote at once."""
        self._out.append(Persist(record=EnteredNewView(message)))
        self._adopt_view(message, known)
        self._progress_ms = self._now_ms
        if self.is_primary:
            self._out.append(Broadcast(message=message))
        for vote in message.contents.pre_prepares:
            if self._in_window(vote.sequence):
                self._vote_prepare(vote.sequence, self._slot(vote.sequence))
        self._out.append(EnteredView(view=self.view, primary=self.primary))

    def _adopt_view(self, message: NewView, known: dict[bytes, Batch]) -> None:
        """Set the slots to what the new view proposes; its `EnteredNewView` record is the promise."""
        contents = message.contents
        self.view, self.active, self._new_view = contents.view, True, message
        self._view_changes = {v: changes for v, changes in self._view_changes.items() if v > self.view}
        for slot in self._slots.values():
            slot.leave_view()
        stable = highest_stable(contents.view_changes)
        self._proposed = stable.sequence if stable is not None else 0
        for vote in contents.pre_prepares:
            self._proposed = max(self._proposed, vote.sequence)
            if self._in_window(vote.sequence):
                slot = self._slot(vote.sequence)
                slot.proposal = PrePrepare(vote, known[vote.digest])
                slot.accepted, slot.accepted_ms = True, self._now_ms
                self._bodies[vote.digest] = known[vote.digest]

    # Restart ---------------------------------------------------------------------------------------

    @classmethod
    def restore(
        cls,
        members: Members,
        index: int,
        key: Key,
        records: Iterable[Record],
        *,
        executed: int,
        limits: Limits | None = None,
    ) -> Replica:
        """The replica that wrote ``records``, with all the promises it made.

        The node first applies the journal's committed batches to the ledger, up to ``executed``; nothing
        is delivered again.
        """
        replica = cls(members, index, key, limits)
        for record in records:
            replica._recall(record)
        replica.executed = replica.delivered = executed
        replica._out = []
        return replica

    def _recall(self, record: Record) -> None:
        match record:
            case Accepted(pre_prepare=proposal):
                slot = self._slot(proposal.vote.sequence)
                slot.proposal, slot.accepted, slot.accepted_ms = proposal, True, 0
                self._bodies[proposal.vote.digest] = proposal.batch
                self._proposed = max(self._proposed, proposal.vote.sequence)
                self._recall_prepare(slot)
            case BecamePrepared(prepared=prepared):
                slot = self._slot(prepared.pre_prepare.sequence)
                vote = prepared.pre_prepare
                slot.prepared = prepared
                slot.own_commit = self._cast(VoteKind.COMMIT, vote.view, vote.sequence, vote.digest)
                slot.commits[self.index] = slot.own_commit
            case BecameCommitted(committed=committed):
                if committed.sequence > self.low:
                    self._slot(committed.sequence).committed = committed
            case BecameStable(checkpoint=checkpoint):
                self._make_stable(checkpoint)
            case LeftView(view=view):
                self.view, self.active = view, False
            case EnteredNewView(new_view=message):
                self._adopt_view(message, self._bodies | bodies_by_digest(message.bodies))
                for vote in message.contents.pre_prepares:
                    if self._in_window(vote.sequence):
                        self._recall_prepare(self._slot(vote.sequence))

    def _recall_prepare(self, slot: Slot) -> None:
        assert slot.proposal is not None
        vote = slot.proposal.vote
        if self.members.primary(vote.view) != self.index:
            slot.own_prepare = self._cast(VoteKind.PREPARE, vote.view, vote.sequence, vote.digest)
            slot.prepares[self.index] = slot.own_prepare
