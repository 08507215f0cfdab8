"""Planted bugs: each is a real part of a member with one rule broken. The checkers must catch every one.

``python -m tests.simulation.mutants`` prints which seed caught which bug and how. A bug that no seed in
`LIMIT` catches means that the simulator is blind to it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Iterable
from typing import Any, Final

from aggregator.journal.journal import Journal
from aggregator.journal.pledge import Pledge
from aggregator.ledger.state import Origin
from aggregator.origin.origin import OriginSource
from aggregator.pbft import views as views_module
from aggregator.pbft.events import Deliver, Persist, Validate
from aggregator.pbft.messages import (
    Batch,
    Committed,
    CommittedBatches,
    NewView,
    PrePrepare,
    StableCheckpoint,
    Status,
    Vote,
)
from aggregator.pbft.quorum import Members
from aggregator.pbft.records import Accepted, BecamePrepared, EnteredNewView, LeftView, Record
from aggregator.pbft.replica import Replica
from aggregator.pbft.slots import Slot
from aggregator.pbft.view_change import NULL_BATCH, NULL_DIGEST
from protocol.errors import InvalidEncoding
from tests.simulation.checkers import Violation
from tests.simulation.world import World

LIMIT: Final = 200


class _Trusting(Members):
    """Members whose signatures and certificates are taken on faith."""

    def verify(self, vote: Vote) -> None:
        return

    def verify_committed(self, committed: Any) -> None:
        return


class _Few(Members):
    """Members of whom one fewer makes a quorum."""

    @property
    def quorum(self) -> int:
        return super().quorum - 1


def _with_members(kind: type[Members]) -> type[Replica]:
    class Mutant(Replica):
        def __init__(self, members: Members, *rest: Any, **named: Any) -> None:
            fields = [field.name for field in dataclasses.fields(members) if field.init]
            named_fields = {name: getattr(members, name) for name in fields}
            super().__init__(kind(**named_fields), *rest, **named)

    return Mutant


def _without_record(*kinds: type[Record]) -> type[Replica]:
    class Mutant(Replica):
        def step(self, event: Any) -> list[Any]:
            return [
                effect
                for effect in super().step(event)
                if not (isinstance(effect, Persist) and isinstance(effect.record, kinds))
            ]

    return Mutant


class QuorumOffByOne(_with_members(_Few)):  # type: ignore[misc]
    """One vote too few makes a quorum."""


class SignaturesUnchecked(_with_members(_Trusting)):  # type: ignore[misc]
    """Votes and certificates are believed without a look at their signatures."""


class ProposalNotPersisted(_without_record(Accepted, BecamePrepared)):  # type: ignore[misc]
    """Votes leave before the proposal they are for is on disk."""


class ViewNotPersisted(_without_record(LeftView, EnteredNewView)):  # type: ignore[misc]
    """A restarted member falls back into the view it had left."""


class LockNotCarried(Replica):
    """A view change forgets what was prepared."""

    def _ask_for_view(self) -> None:
        kept = {sequence: slot.prepared for sequence, slot in self._slots.items()}
        for slot in self._slots.values():
            slot.prepared = None
        super()._ask_for_view()
        for sequence, slot in self._slots.items():
            slot.prepared = kept[sequence]


class VotesNotCarried(Replica):
    """A view change forgets what was voted for, and so what all have voted for."""

    def _ask_for_view(self) -> None:
        kept = {sequence: slot.voted for sequence, slot in self._slots.items()}
        for slot in self._slots.values():
            slot.voted = None
        super()._ask_for_view()
        for sequence, slot in self._slots.items():
            slot.voted = kept[sequence]


class UnanimousWithoutOne(Replica):
    """One vote may be missing where those of all are needed."""

    def _check_prepared(self, sequence: int, *, asked: bool = False) -> None:
        slot = self._slots[sequence]
        if slot.proposal is not None and slot.batch is not None and slot.committed is None:
            prepares = slot.matching(views_module.VoteKind.PREPARE, slot.proposal.digest)
            if len(prepares) >= self.members.count - 2:
                self._commit_unanimous(Committed(sequence, slot.batch, (slot.proposal, *prepares)))
        super()._check_prepared(sequence, asked=asked)


class WatermarksIgnored(Replica):
    """Any sequence number is as good as another."""

    def _in_window(self, sequence: int) -> bool:
        return sequence > self.low


class DigestUnchecked(Replica):
    """A batch is taken for the one that was signed."""

    def _on_pre_prepare(self, message: PrePrepare) -> None:
        vote = message.vote
        slot = self._slots.get(vote.sequence)
        usable = vote.view == self.view and self.active and self._in_window(vote.sequence)
        if not usable or vote.signer != self.primary or (slot is not None and slot.proposal is not None):
            return
        self.members.verify(vote)
        self._slot(vote.sequence).proposal = vote
        self._out.append(
            Validate(view=vote.view, sequence=vote.sequence, digest=vote.digest, outline=message.outline)
        )


class SecondProposalTaken(Replica):
    """Later proposals and votes for the same number replace the first ones."""

    def _on_vote(self, vote: Vote) -> None:
        slot = self._slots.get(vote.sequence)
        if slot is not None:
            known = slot.votes(vote.kind).get(vote.signer)
            if known is not None and known.digest != vote.digest:
                del slot.votes(vote.kind)[vote.signer]
        super()._on_vote(vote)

    def _on_pre_prepare(self, message: PrePrepare) -> None:
        slot = self._slots.get(message.vote.sequence)
        if slot is not None and slot.proposal is not None and slot.proposal.digest != message.vote.digest:
            slot.leave_view()
        super()._on_pre_prepare(message)


class NewViewUnchecked(Replica):
    """Whatever a new primary starts with is accepted."""

    def _on_new_view(self, message: NewView) -> None:
        view = message.contents.view
        if view > self.view or (view == self.view and not self.active):
            self._enter_view(message)


class PreparedTooEarly(Replica):
    """A commit vote leaves without a quorum of prepares."""

    def _check_prepared(self, sequence: int, *, asked: bool = False) -> None:
        slot = self._slots[sequence]
        if slot.accepted and slot.own_commit is None and slot.proposal is not None and not self.observing:
            slot.own_commit = self._cast(
                views_module.VoteKind.COMMIT, self.view, sequence, slot.proposal.digest
            )
            slot.commits[self.index] = slot.own_commit
            self._out.append(views_module.Broadcast(message=slot.own_commit))
            self._check_committed(sequence)


class ForgetfulRestart(Replica):
    """A restarted member remembers what was committed, but not what it promised."""

    def _recall(self, record: Record) -> None:
        if not isinstance(record, Accepted | BecamePrepared):
            super()._recall(record)


class VotesInLeftView(Replica):
    """A member that has asked for another view goes on voting in the old one."""

    def step(self, event: Any) -> list[Any]:
        left = not self.active
        if left and self._new_view_seen < self.view:
            asked, self.view, self.active = self.view, self._new_view_seen, True
            effects = super().step(event)
            if self.view == self._new_view_seen and self.active:
                self.view, self.active = asked, False
            return effects
        effects = super().step(event)
        if self.active:
            self._new_view_seen = self.view
        return effects

    _new_view_seen = 0


class CatchUpUnchecked(Replica):
    """Batches from a peer are taken without their certificate."""

    def _on_committed_batches(self, sender: int, message: CommittedBatches) -> None:
        for committed in message.batches:
            if committed.sequence == self.delivered + 1:
                self._commit(committed)


class NeverCatchesUp(Replica):
    """Nobody who fell behind asks for what it missed."""

    def _on_status(self, sender: int, status: Status) -> None:
        return


class NeverChangesView(Replica):
    """A primary that is gone is waited for."""

    def _leave_for(self, view: int) -> None:
        return


class ForgetsAboveCheckpoint(Replica):
    """A stable checkpoint frees what is still needed as well."""

    def _make_stable(self, checkpoint: StableCheckpoint) -> None:
        super()._make_stable(checkpoint)
        for slot in self._slots.values():
            slot.prepared = None
            slot.leave_view()


class NullsEverything(Replica):
    """A new primary proposes nothing but null batches."""

    def _enter_view(self, message: NewView) -> None:
        super()._enter_view(message)
        for slot in self._slots.values():
            if slot.proposal is not None and slot.committed is None:
                slot.proposal, slot.batch = replace_digest(slot.proposal, NULL_DIGEST), NULL_BATCH


class DeliversTwice(Replica):
    """After a restart, committed batches are handed to the ledger again."""

    @classmethod
    def restore(cls, *arguments: Any, **named: Any) -> Replica:
        replica = super().restore(*arguments, **named)
        replica.delivered = max(0, replica.delivered - 1)
        replica.executed = replica.delivered
        return replica


class OutOfOrder(Replica):
    """Whatever is committed is delivered at once."""

    def _deliver_next(self) -> None:
        for sequence in sorted(self._slots):
            slot: Slot = self._slots[sequence]
            if slot.committed is not None and sequence > self.delivered:
                self.delivered = sequence
                self._out.append(Deliver(committed=slot.committed))


class PromisesForgottenAtSnapshot(Replica):
    """A journal that starts anew from a snapshot forgets the promises above it."""

    def promises(self, checkpoint: StableCheckpoint) -> list[Record]:
        return super().promises(checkpoint)[:1]


class FenceIgnored(Replica):
    """A committee goes on ordering after its hand-over."""

    def _on_executed(self, event: Any) -> None:
        super()._on_executed(dataclasses.replace(event, fence=None))
        self.limits = dataclasses.replace(self.limits, window=10_000)


class AnyBodyTaken(Replica):
    """Whatever batch arrives is taken for the one that was asked for."""

    def _on_batch_body(self, batch: Batch) -> None:
        for sequence, slot in sorted(self._slots.items()):
            if self.active and slot.carried and not slot.accepted and slot.proposal is not None:
                self._accept(slot.proposal, batch)
                self._vote_prepare(sequence, slot)

    def _on_fetch_batch(self, sender: int, digest: bytes) -> None:
        for batch in list(self._bodies.values())[-1:]:
            self._out.append(views_module.Send(to=sender, message=views_module.BatchBody(batch)))


class SnapshotsRefused(Replica):
    """A member that is far behind waits for batches that nobody has any more."""

    def _on_snapshot_offer(self, sender: int, offer: Any) -> None:
        return


def replace_digest(vote: Vote, digest: bytes) -> Vote:
    """A vote with another digest and the old signature."""
    return Vote(vote.kind, vote.view, vote.sequence, digest, vote.signer, vote.signature)


class StarvationForgiven(Replica):
    """A primary may pass over whom it likes, as long as it serves others."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.limits = dataclasses.replace(self.limits, starvation_timeout_ms=10**9)


class VotesAfterDamage(Journal):
    """A member whose log was damaged votes as if it had never promised anything."""

    @property
    def forgetful(self) -> Pledge | None:
        return None


class PledgeNotKept(Journal):
    """Votes leave before the bound on them is on disk."""

    def sync(self) -> None:
        self._current.sync()


class GoesOnAfterReorganisation(OriginSource):
    """The chain took back what the ledger has, and the ledger takes in what comes after it."""

    def _still_on_chain(self, current: Origin | None) -> bool:
        return True


class TakesUnconfirmedBlocks(OriginSource):
    """A block is as good as settled when it is there."""

    def confirmed_head(self, confirmations: int) -> int:
        return super().confirmed_head(0)


Mutant = type[Replica] | type[Journal] | type[OriginSource]
MUTANTS: Final[tuple[Mutant, ...]] = (
    QuorumOffByOne,
    SignaturesUnchecked,
    ProposalNotPersisted,
    ViewNotPersisted,
    LockNotCarried,
    VotesNotCarried,
    UnanimousWithoutOne,
    WatermarksIgnored,
    DigestUnchecked,
    SecondProposalTaken,
    NewViewUnchecked,
    PreparedTooEarly,
    ForgetfulRestart,
    VotesInLeftView,
    CatchUpUnchecked,
    NeverCatchesUp,
    NeverChangesView,
    ForgetsAboveCheckpoint,
    NullsEverything,
    DeliversTwice,
    OutOfOrder,
    PromisesForgottenAtSnapshot,
    FenceIgnored,
    AnyBodyTaken,
    SnapshotsRefused,
    VotesAfterDamage,
    PledgeNotKept,
    StarvationForgiven,
    GoesOnAfterReorganisation,
    TakesUnconfirmedBlocks,
)


def catch(mutant: Mutant, seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first seed that catches a planted bug, and what was seen; none if all are blind to it."""
    for seed in seeds:
        try:
            if issubclass(mutant, Journal):
                World(seed, journal=mutant).run()
            elif issubclass(mutant, OriginSource):
                World(seed, origins=mutant).run()
            else:
                World(seed, replica=mutant).run()
        except Violation as seen:
            return seed, str(seen)
        except (AssertionError, KeyError, InvalidEncoding) as seen:
            return seed, f"{type(seen).__name__}: {seen}"
    return None


def main() -> int:
    """The mutant table."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants")
    parser.add_argument("--only", help="one mutant by name")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    rows: list[dict[str, Any]] = []
    for mutant in MUTANTS:
        if arguments.only in (None, mutant.__name__):
            caught = catch(mutant, range(LIMIT))
            rows.append(
                {"mutant": mutant.__name__, "seed": caught and caught[0], "seen": caught and caught[1]}
            )
            if not arguments.json:
                seed, seen = caught or ("-", f"NOT CAUGHT in {LIMIT} seeds")
                print(f"{mutant.__name__:24} {seed!s:>4}  {str(seen)[:110]}", flush=True)
    if arguments.json:
        print(json.dumps(rows))
    return 0 if all(row["seed"] is not None for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
