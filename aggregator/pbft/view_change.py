"""What a new view starts with: pure functions over the view changes of a quorum.

A new primary must propose again whatever may have been committed in an earlier view. A batch committed
anywhere was prepared by a quorum, and any quorum of view changes holds one honest member of that one, so
the prepared proof with the highest view decides each sequence number; numbers without a proof get the null
batch. `proposals` is that rule; every member computes it and refuses a new view that differs.

Source: Castro and Liskov 1999, section 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable

from aggregator.pbft.messages import (
    Batch,
    NewView,
    StableCheckpoint,
    ViewChange,
    VoteKind,
    contents_digest,
)
from aggregator.pbft.quorum import InvalidProof, Members

NULL_BATCH = Batch()
NULL_DIGEST = NULL_BATCH.digest()


def verify_view_change(members: Members, message: ViewChange, *, window: int) -> None:
    """Raise unless a view change is signed and all its proofs hold.

    Raises:
        InvalidProof, InvalidSignature: it does not prove what it claims.
    """
    contents, vote = message.contents, message.vote
    if contents.epoch != members.epoch:
        raise InvalidProof(f"a view change of committee {contents.epoch} in that of {members.epoch}")
    expected = (VoteKind.VIEW_CHANGE, contents.view, members.epoch, contents_digest(contents))
    if vote.subject() != expected:
        raise InvalidProof("the view change's vote is about something else")
    members.verify(vote)
    low = 0
    if contents.stable is not None:
        members.verify_stable(contents.stable)
        low = contents.stable.sequence
    seen = set()
    for prepared in contents.prepared:
        proposal = prepared.pre_prepare
        if not low < proposal.sequence <= low + window or proposal.sequence in seen:
            raise InvalidProof(f"sequence {proposal.sequence} is out of place")
        if proposal.view >= contents.view:
            raise InvalidProof("a prepared proof is from a view that has not begun")
        seen.add(proposal.sequence)
        members.verify_prepared(prepared)


def highest_stable(view_changes: Iterable[ViewChange]) -> StableCheckpoint | None:
    """The latest stable checkpoint that any of them proves."""
    stable = [message.contents.stable for message in view_changes if message.contents.stable is not None]
    return max(stable, key=lambda checkpoint: checkpoint.sequence, default=None)


def proposals(view_changes: Iterable[ViewChange]) -> tuple[tuple[int, bytes], ...]:
    """Sequence numbers and digests that the new view starts with, ascending and without gaps."""
    messages = tuple(view_changes)
    stable = highest_stable(messages)
    low = stable.sequence if stable is not None else 0
    best: dict[int, tuple[int, bytes]] = {}
    for message in messages:
        for prepared in message.contents.prepared:
            proposal = prepared.pre_prepare
            if proposal.sequence > low:
                candidate = (proposal.view, proposal.digest)
                best[proposal.sequence] = max(best.get(proposal.sequence, candidate), candidate)
    high = max(best, default=low)
    return tuple(
        (sequence, best[sequence][1] if sequence in best else NULL_DIGEST)
        for sequence in range(low + 1, high + 1)
    )


def verify_new_view(members: Members, message: NewView, *, window: int) -> None:
    """Raise unless a new view follows from a quorum of view changes by `proposals`.

    Raises:
        InvalidProof, InvalidSignature: it does not.
    """
    contents, vote = message.contents, message.vote
    if contents.epoch != members.epoch:
        raise InvalidProof(f"a new view of committee {contents.epoch} in that of {members.epoch}")
    if vote.subject() != (VoteKind.NEW_VIEW, contents.view, members.epoch, contents_digest(contents)):
        raise InvalidProof("the new view's vote is about something else")
    if vote.signer != members.primary(contents.view):
        raise InvalidProof(f"member {vote.signer} is not the primary of view {contents.view}")
    members.verify(vote)
    signers = {change.vote.signer for change in contents.view_changes}
    if len(signers) != len(contents.view_changes) or len(signers) < members.quorum:
        raise InvalidProof("a new view needs view changes of a quorum of distinct members")
    for change in contents.view_changes:
        if change.contents.view != contents.view:
            raise InvalidProof("a view change asks for another view")
        verify_view_change(members, change, window=window)
    proposed = tuple((vote.sequence, vote.digest) for vote in contents.pre_prepares)
    if proposed != proposals(contents.view_changes):
        raise InvalidProof("the new view does not propose what the view changes require")
    for pre_prepare in contents.pre_prepares:
        if (pre_prepare.kind, pre_prepare.view, pre_prepare.signer) != (
            VoteKind.PRE_PREPARE,
            contents.view,
            vote.signer,
        ):
            raise InvalidProof("a proposal of the new view is not its primary's")
        members.verify(pre_prepare)
