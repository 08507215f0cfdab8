"""What a new view starts with: pure functions over the view changes of a quorum.

A new primary must propose again whatever may have been committed in an earlier view; `proposals` says what
that is. Every member computes it and refuses a new view that differs. Two kinds of batch may have been
committed:

With a quorum of commits. It was prepared by a quorum, and any quorum of view changes holds one honest
member of that one: it shows the prepared proof. The proof with the highest view counts.

With the votes of all. Every honest member voted for it, and says what it voted for last. So among m view
changes at least m - f name it, each from that view or a later one. No two batches are named by so many, and
an honest member among them has the batch and found it valid. Against a proof, the view counts by which
m - f of them had voted for it: a proof from there or later is of no other batch if this one was committed.

Numbers with neither get the null batch. It holds in every later view: while all new views propose what was
committed, no honest member votes for anything else at that number, so what they voted for last, and what
they can prove, stays the same.

Source: Castro and Liskov 1999, section 4.4; Golan Gueta et al. 2019 (SBFT), section V; the rule between
proofs and votes is what Abraham et al. 2017 ("Revisiting Fast Practical Byzantine Fault Tolerance") found
missing.
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
    before = low
    for voted in contents.voted:
        if not before < voted.sequence <= low + window:
            raise InvalidProof(f"what was voted for at {voted.sequence} is out of place")
        if voted.view >= contents.view:
            raise InvalidProof("a vote is from a view that has not begun")
        before = voted.sequence


def highest_stable(view_changes: Iterable[ViewChange]) -> StableCheckpoint | None:
    """The latest stable checkpoint that any of them proves."""
    stable = [message.contents.stable for message in view_changes if message.contents.stable is not None]
    return max(stable, key=lambda checkpoint: checkpoint.sequence, default=None)


def proposals(view_changes: Iterable[ViewChange], faults: int) -> tuple[tuple[int, bytes], ...]:
    """Sequence numbers and digests that the new view starts with, ascending and without gaps.

    ``view_changes`` are of a quorum of distinct members, of whom ``faults`` may lie.
    """
    messages = tuple(view_changes)
    stable = highest_stable(messages)
    low = stable.sequence if stable is not None else 0
    best = {
        sequence: max(candidates)
        for sequence, candidates in _candidates(messages, len(messages) - faults).items()
        if sequence > low
    }
    high = max(best, default=low)
    return tuple(
        (sequence, best[sequence][2] if sequence in best else NULL_DIGEST)
        for sequence in range(low + 1, high + 1)
    )


def _candidates(messages: tuple[ViewChange, ...], need: int) -> dict[int, list[tuple[int, bool, bytes]]]:
    """What may have been committed at each number: its view, whether that is proved, and its digest."""
    found: dict[int, list[tuple[int, bool, bytes]]] = {}
    votes: dict[tuple[int, bytes], list[int]] = {}
    for message in messages:
        for prepared in message.contents.prepared:
            proposal = prepared.pre_prepare
            found.setdefault(proposal.sequence, []).append((proposal.view, True, proposal.digest))
        for voted in message.contents.voted:
            votes.setdefault((voted.sequence, voted.digest), []).append(voted.view)
    for (sequence, digest), views in votes.items():
        if len(views) >= need:
            since = sorted(views, reverse=True)[need - 1]
            found.setdefault(sequence, []).append((since, False, digest))
    return found


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
    if proposed != proposals(contents.view_changes, members.faults):
        raise InvalidProof("the new view does not propose what the view changes require")
    for pre_prepare in contents.pre_prepares:
        if (pre_prepare.kind, pre_prepare.view, pre_prepare.signer) != (
            VoteKind.PRE_PREPARE,
            contents.view,
            vote.signer,
        ):
            raise InvalidProof("a proposal of the new view is not its primary's")
        members.verify(pre_prepare)
