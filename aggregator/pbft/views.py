"""Changing the view: leaving a primary that does not serve, agreeing on what the next one starts with.

What a view change must carry and what a new view must propose are pure functions in `view_change`; here they
meet the state of a member.

Guarantees: once a member has left a view it votes in it no more, restart or not; a batch that was committed
anywhere, by a quorum of commits or the votes of all, is proposed again at its number.

Source: Castro and Liskov 1999, sections 4.4 and 4.5.
"""

from __future__ import annotations

from aggregator.pbft.agreement import Agreement
from aggregator.pbft.events import (
    Broadcast,
    EnteredView,
    Persist,
    Send,
)
from aggregator.pbft.evidence import Equivocation, contradict, contradictions
from aggregator.pbft.messages import (
    Batch,
    BatchBody,
    FetchBatch,
    NewView,
    NewViewContents,
    ViewChange,
    ViewChangeContents,
    Voted,
    VoteKind,
    contents_digest,
)
from aggregator.pbft.records import (
    EnteredNewView,
    LeftView,
)
from aggregator.pbft.view_change import (
    NULL_BATCH,
    NULL_DIGEST,
    highest_stable,
    proposals,
    verify_new_view,
    verify_view_change,
)


class Views(Agreement):
    """`Agreement` that can move to another view."""

    def _leave_for(self, view: int) -> None:
        """Promise: no vote in any view below ``view`` from here on."""
        if self.observing:
            return
        assert view > self.view or not self.active
        self.view, self.active = view, False
        self._fruitless_views += 1
        self._wanted_ms = self._now_ms
        self._proposed = 0
        self._out.append(Persist(record=LeftView(view)))
        self._ask_for_view()
        self._start_view_if_primary()

    def _ask_for_view(self) -> None:
        """Say what this member knows and that it wants the current view to begin."""
        view = self.view
        prepared = tuple(
            slot.prepared
            for sequence, slot in sorted(self._slots.items())
            if slot.prepared is not None and sequence > self.low
        )
        voted = tuple(
            Voted(sequence, slot.voted.view, slot.voted.digest)
            for sequence, slot in sorted(self._slots.items())
            if slot.voted is not None and sequence > self.low
        )
        contents = ViewChangeContents(self.members.epoch, view, self.stable, prepared, voted)
        vote = self._cast(VoteKind.VIEW_CHANGE, view, self.members.epoch, contents_digest(contents))
        own = ViewChange(contents, vote)
        self._forget_view_changes_of(self.index, below=view)
        self._view_changes.setdefault(view, {})[self.index] = own
        self._out.append(Broadcast(message=own))

    def _on_view_change(self, message: ViewChange) -> None:
        view, signer = message.contents.view, message.vote.signer
        if self.observing or message.contents.epoch != self.members.epoch:
            return
        settled = view < self.view or (view == self.view and self.active)
        if settled or view > self.view + self.limits.view_lead:
            return
        if signer in self._view_changes.get(view, {}):
            return
        verify_view_change(self.members, message, window=self.limits.window)
        for proof in message.contents.prepared:
            slot = self._slots.get(proof.pre_prepare.sequence)
            self._note(contradictions(slot, (proof.pre_prepare, *proof.prepares)))
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
        proposed = proposals(chosen, self.members.faults)
        pre_prepares = tuple(
            self._cast(VoteKind.PRE_PREPARE, self.view, sequence, digest) for sequence, digest in proposed
        )
        contents = NewViewContents(self.members.epoch, self.view, chosen, pre_prepares)
        vote = self._cast(VoteKind.NEW_VIEW, self.view, self.members.epoch, contents_digest(contents))
        self._enter_view(NewView(contents, vote))

    def _on_new_view(self, message: NewView) -> None:
        view = message.contents.view
        if message.contents.epoch != self.members.epoch:
            return
        if view == self.view and self._new_view is not None and contradict(self._new_view.vote, message.vote):
            self.members.verify(message.vote)
            raise Equivocation(self._new_view.vote, message.vote)
        if view < self.view or (view == self.view and self.active) or view == 0:
            return
        if view > self.view + self.limits.view_lead:
            return
        verify_new_view(self.members, message, window=self.limits.window)
        self._enter_view(message)

    def _enter_view(self, message: NewView) -> None:
        """Take part in a view. Honest members found its first proposals valid before, so vote at once."""
        self._out.append(Persist(record=EnteredNewView(message)))
        self._adopt_view(message)
        self._progress_ms = self._entered_ms = self._now_ms
        if self.is_primary:
            self._out.append(Broadcast(message=message))
        for vote in message.contents.pre_prepares:
            slot = self._slots.get(vote.sequence)
            if slot is not None and slot.accepted:
                self._vote_prepare(vote.sequence, slot)
            elif slot is not None:
                self._out.append(Broadcast(message=FetchBatch(vote.digest)))
        self._out.append(EnteredView(view=self.view, primary=self.primary))

    def _on_batch_body(self, batch: Batch) -> None:
        """A batch that the view began with has arrived: vote for it."""
        if not self.active:
            return
        digest = batch.digest()
        for sequence, slot in sorted(self._slots.items()):
            if slot.carried and not slot.accepted and slot.proposal and slot.proposal.digest == digest:
                self._accept(slot.proposal, batch)
                self._vote_prepare(sequence, slot)
                self._check_committed(sequence)

    def _on_fetch_batch(self, sender: int, digest: bytes) -> None:
        batch = self._bodies.get(digest)
        if batch is not None:
            self._out.append(Send(to=sender, message=BatchBody(batch)))

    def _adopt_view(self, message: NewView) -> None:
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
                slot.proposal, slot.carried, slot.accepted_ms = vote, True, self._now_ms
                slot.batch = NULL_BATCH if vote.digest == NULL_DIGEST else self._bodies.get(vote.digest)
