"""One member of the committee: ``step(event) -> effects``, pure and synchronous.

Three layers, each using only those below it: `agreement` orders batches within a view, `views` moves to the
next view, and this file takes events in, watches the time, helps others catch up and restarts from a journal.

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

from aggregator.pbft.events import (
    Broadcast,
    Effect,
    Event,
    Executed,
    Installed,
    Misbehaved,
    Propose,
    Received,
    Send,
    Serve,
    Tick,
    Transfer,
    Validated,
)
from aggregator.pbft.evidence import Equivocation, contradictions
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import (
    Batch,
    BatchBody,
    CheckpointProof,
    CommittedBatches,
    Fetch,
    FetchBatch,
    NewView,
    PrePrepare,
    RelayedVotes,
    SnapshotOffer,
    StableCheckpoint,
    Status,
    ViewChange,
    Vote,
    VoteKind,
)
from aggregator.pbft.quorum import Members
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
from aggregator.pbft.view_change import NULL_BATCH, NULL_DIGEST
from aggregator.pbft.views import Views
from protocol.crypto import Key
from protocol.errors import ProtocolError


class Replica(Views):
    """The replica of member ``index``, or of an observer. Not thread-safe.

    All randomness and time come in through events.
    """

    # The step --------------------------------------------------------------------------------------

    def step(self, event: Event) -> list[Effect]:
        """Take one event in; returns what must happen because of it, in order."""
        self._out = []
        match event:
            case Tick():
                if not self._now_ms:
                    self._entered_ms = event.now_ms  # patience starts when the clock does
                if event.now_ms - self._ticked_ms >= self.limits.view_timeout_ms // 2:
                    self._progress_ms = event.now_ms  # who slept suspects nobody of what it slept through
                self._now_ms = self._ticked_ms = max(self._now_ms, event.now_ms)
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
            case Installed():
                self._on_installed(event)
        return self._out

    def _on_message(self, sender: int, event: Received) -> None:
        """Dispatch; whatever a peer gets wrong becomes evidence, never an exception."""
        message = event.message
        self._hear(sender)
        try:
            match message:
                case PrePrepare():
                    self._on_pre_prepare(message)
                case Vote():
                    self._on_vote(message)
                case RelayedVotes():
                    self._on_relayed(message)
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
                case FetchBatch():
                    self._on_fetch_batch(sender, message.digest)
                case BatchBody():
                    self._on_batch_body(message.batch)
                case SnapshotOffer():
                    self._on_snapshot_offer(sender, message)
        except Equivocation as lie:
            self._note([lie.votes])
        except ProtocolError as reason:
            self._out.append(Misbehaved(sender=sender, reason=f"{type(message).__name__}: {reason}"))

    # Time ------------------------------------------------------------------------------------------

    def _hear(self, sender: int) -> None:
        """Note who is up: patience with the primary starts once a quorum is."""
        if self._quorum_heard or not 0 <= sender < self.members.count:
            return
        self._heard.add(sender)
        if self._quorum_heard:
            self._progress_ms = self._entered_ms = self._now_ms

    @property
    def _quorum_heard(self) -> bool:
        return len(self._heard) >= self.members.quorum

    def _timeout_ms(self) -> int:
        return min(
            self.limits.view_timeout_ms << min(self._fruitless_views, 10), self.limits.max_view_timeout_ms
        )

    def _on_tick(self, waiting_since_ms: int | None) -> None:
        now_ms = self._now_ms
        if now_ms - max(self._said_ms, self._progress_ms) >= self.retransmit_ms:
            self._said_ms = now_ms
            self._say_again()
        if not self.active:
            # The clock of a wanted view runs once a quorum has left the views before it (some may be further
            # on already); until then asking again must do.
            left = {who for view, by in self._view_changes.items() if view >= self.view for who in by}
            if len(left) < self.members.quorum:
                self._wanted_ms = now_ms
            elif now_ms - self._wanted_ms >= self._timeout_ms():
                self._leave_for(self.view + 1)
            return
        self._end_waiting()
        # Before a quorum is up nothing can be ordered, whoever is primary; and who asks for a view alone
        # stands aside until the others change theirs.
        if not self._quorum_heard:
            return
        waiting = [waiting_since_ms] if waiting_since_ms is not None else []
        waiting += [
            slot.accepted_ms
            for sequence, slot in self._slots.items()
            if sequence > self.executed and slot.accepted_ms is not None
        ]
        stalled = bool(waiting) and now_ms - max(min(waiting), self._progress_ms) >= self._timeout_ms()
        # Progress with other work does not excuse a primary that passes something over.
        starved = waiting_since_ms is not None and (
            now_ms - max(waiting_since_ms, self._entered_ms) >= self.limits.starvation_timeout_ms
        )
        if stalled or starved:
            self._leave_for(self.view + 1)

    def _say_again(self) -> None:
        """Repeat the own position and, where the own log stands still, the own votes."""
        self._out.append(Broadcast(message=self._position()))
        if not self.active:
            own = self._view_changes.get(self.view, {}).get(self.index)
            if own is not None:
                self._out.append(Broadcast(message=own))
            return
        for sequence in sorted(self._slots):
            slot = self._slots[sequence]
            if sequence <= self.executed or slot.proposal is None:
                continue
            if slot.carried and slot.batch is None:
                self._out.append(Broadcast(message=FetchBatch(slot.proposal.digest)))
            if slot.batch is None:
                continue
            if self.is_primary:
                self._out.append(Broadcast(message=PrePrepare(slot.proposal, slot.batch.outline)))
            for vote in (slot.own_prepare, slot.own_commit):
                if vote is not None:
                    self._out.append(Broadcast(message=vote))
        for votes in self._checkpoints.values():
            if self.index in votes:
                self._out.append(Broadcast(message=votes[self.index]))

    # Catching up -----------------------------------------------------------------------------------

    def _position(self) -> Status:
        return Status(self.members.epoch, self.view, self.active, self.executed, self.low)

    def _on_status(self, sender: int, status: Status) -> None:
        behind = status.executed > self.executed != self.fence
        # Whoever was asked in vain is asked again after the others only: the fastest answer may be a liar's.
        patience_ms = self.retransmit_ms * (1 + (sender == self._fetched_from))
        if behind and self._now_ms - max(self._fetched_ms, self._progress_ms) >= patience_ms:
            self._fetched_ms, self._fetched_from = self._now_ms, sender
            self._out.append(Send(to=sender, message=Fetch(self.delivered + 1)))
            if status.view > self.view:
                # Batches show no view, and whoever makes progress does not say where it stands.
                self._out.append(Send(to=sender, message=self._position()))
        if status.executed < self.executed:
            # A busy member never says where it stands by itself, and whoever is behind must know.
            self._out.append(Send(to=sender, message=self._position()))
        # Whoever missed a new view, or waits for one that has begun, gets the proof of it.
        lost = status.view < self.view or (status.view == self.view and not status.active)
        if lost and status.epoch == self.members.epoch and self.active and self._new_view is not None:
            self._out.append(Send(to=sender, message=self._new_view))
        if self.stable is not None and status.stable < self.low <= status.executed:
            self._out.append(Send(to=sender, message=CheckpointProof(self.stable)))

    def _on_committed_batches(self, sender: int, message: CommittedBatches) -> None:
        before = self.delivered
        for committed in message.batches:
            # A batch not executed yet may change the committee, from a window after it on.
            known = self.executed + self.limits.window
            fence = known if self.fence is None else min(self.fence, known)
            if committed.sequence != self.delivered + 1 or committed.sequence > fence:
                continue
            self.members.verify_committed(committed)
            self._note(contradictions(self._slots.get(committed.sequence), committed.certificate))
            self._commit(committed)
        if self.delivered > before:
            self._out.append(Send(to=sender, message=Fetch(self.delivered + 1)))

    def _on_snapshot_offer(self, sender: int, offer: SnapshotOffer) -> None:
        if offer.checkpoint.sequence <= self.delivered:
            return
        if offer.epoch == self.members.epoch:
            self.members.verify_stable(offer.checkpoint)
        # The node knows later committees from the chain; this replica knows only its own.
        self._out.append(Transfer(source=sender, epoch=offer.epoch, checkpoint=offer.checkpoint))

    def _on_installed(self, event: Installed) -> None:
        """Go on from a ledger that a quorum vouches for; promises above it stay."""
        assert event.checkpoint.sequence > self.delivered, "a ledger never goes back"
        self._start_from(event.checkpoint)
        self.fence = event.fence
        self.executed = self.delivered = event.checkpoint.sequence
        self._progress_ms = self._now_ms
        self._deliver_next()

    # Restart ---------------------------------------------------------------------------------------

    def promises(self, checkpoint: StableCheckpoint) -> list[Record]:
        """The records that a journal starting from ``checkpoint`` must begin with.

        Restored from them, a replica is bound exactly as this one is; committed batches are not among
        them (the journal has them), nor is what concerns numbers up to the checkpoint.
        """
        above = [slot for sequence, slot in sorted(self._slots.items()) if sequence > checkpoint.sequence]
        records: list[Record] = [BecameStable(checkpoint)]
        in_view = self._new_view.contents.view if self._new_view is not None else 0
        for slot in above:
            if slot.prepared is not None and slot.prepared.pre_prepare.view != in_view:
                vote = slot.prepared.pre_prepare
                records.append(Accepted(vote, self._body(vote.digest)))
                records.append(BecamePrepared(slot.prepared))
            if slot.voted is not None and slot.voted.view != in_view:
                records.append(Accepted(slot.voted, self._body(slot.voted.digest)))
        if self._new_view is not None:
            records.append(EnteredNewView(self._new_view))
        for slot in above:
            if slot.batch is not None and slot.proposal is not None:
                records.append(Accepted(slot.proposal, slot.batch))
            if slot.prepared is not None and slot.prepared.pre_prepare.view == in_view:
                records.append(BecamePrepared(slot.prepared))
        if not self.active:
            records.append(LeftView(self.view))
        return records

    def _body(self, digest: bytes) -> Batch:
        return NULL_BATCH if digest == NULL_DIGEST else self._bodies[digest]

    @classmethod
    def restore(
        cls,
        members: Members,
        index: int | None,
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
        if not replica.active and not replica.observing:
            replica._ask_for_view()  # said again on the next ticks, until the view begins
        replica._out = []
        return replica

    def _recall(self, record: Record) -> None:
        match record:
            case Accepted(vote=vote, batch=batch):
                slot = self._slot(vote.sequence)
                slot.proposal, slot.batch, slot.accepted_ms = vote, batch, 0
                self._bodies[vote.digest] = batch
                self._proposed = max(self._proposed, vote.sequence)
                self._recall_prepare(slot)
            case BecamePrepared(prepared=prepared):
                slot = self._slot(prepared.pre_prepare.sequence)
                vote = prepared.pre_prepare
                slot.prepared = prepared
                if not self.observing:
                    slot.own_commit = self._cast(VoteKind.COMMIT, vote.view, vote.sequence, vote.digest)
                    slot.commits[self.index] = slot.own_commit
            case BecameCommitted(committed=committed):
                if committed.sequence > self.low:
                    self._slot(committed.sequence).committed = committed
                    self._bodies[committed.batch.digest()] = committed.batch
            case BecameStable(checkpoint=checkpoint):
                self._make_stable(checkpoint)
            case LeftView(view=view):
                self.view, self.active = view, False
            case EnteredNewView(new_view=message):
                self._adopt_view(message)
                for slot in self._slots.values():
                    if slot.carried and slot.accepted:
                        self._recall_prepare(slot)

    def _recall_prepare(self, slot: Slot) -> None:
        vote = slot.proposal
        assert vote is not None
        slot.voted = vote
        if self.members.primary(vote.view) != self.index and not self.observing:
            slot.own_prepare = self._cast(VoteKind.PREPARE, vote.view, vote.sequence, vote.digest)
            slot.prepares[self.index] = slot.own_prepare
