"""One ledger after another: executing, starting the journal anew, taking a ledger over, changing hands.

Source: Castro and Liskov 1999, sections 4.3 and 4.6; design section 6 ("Committee changes take effect at an
agreed sequence number").
"""

from __future__ import annotations

import dataclasses
import logging

from aggregator.ledger.root import state_root
from aggregator.member.chronicle import tell
from aggregator.member.closing import SAY_AGAIN_MS, Closing
from aggregator.member.pooling import Pooling
from aggregator.member.snapshot import Snapshot, decode_snapshot
from aggregator.member.state_transfer import StateTransfer
from aggregator.pbft.events import (
    Event,
    Executed,
    Installed,
)
from aggregator.pbft.messages import (
    MAX_PART_BYTES,
    CheckpointProof,
    Committed,
    FetchSnapshot,
    SnapshotOffer,
    SnapshotPart,
    StableCheckpoint,
    Vote,
)
from aggregator.pbft.quorum import InvalidProof, Members
from aggregator.pbft.records import BecameCommitted, BecameStable, LeftView, Record
from protocol.errors import InvalidEncoding, ProtocolError, UnknownVersion

log = logging.getLogger(__name__)


class Succession(Pooling):
    """`Pooling` whose ledger goes on whatever happens to the journal, this member or the committee."""

    # Executing -----------------------------------------------------------------------------------

    def _execute(self, committed: Committed) -> Executed | None:
        announced = self.state.upgrade
        applied = self._apply(committed)
        tell(committed.sequence, applied)
        self.mempool.forget((result.tx_id for result in applied.results), self.state.nonces)
        self._proposed_ids.pop(committed.sequence, None)
        if committed.batch.origin is not None:
            self._origin_in_flight = 0
            self._origin_ready, self._origin_since_ms = None, None
        if self.state.handover is None and self.state.upgrade is None:
            self._passing_since_ms = None
        elif self._passing_since_ms is None:
            self._passing_since_ms = self.now_ms
        if self.state.upgrade != announced:
            self._say_upgrade()
        if self.state.ordering.epoch > self.members.epoch:
            self._hand_over()
            return None
        if self.outdated:
            self._halt()
            return None
        due = committed.sequence % self._limits.checkpoint_interval == 0
        root = self.checkpoints.root(committed.sequence) if due else None
        return Executed(sequence=committed.sequence, root=root, fence=self._fence)

    # Versions ------------------------------------------------------------------------------------

    def _say_upgrade(self) -> None:
        upgrade = self.state.upgrade
        if self.version_alarm is not None:
            log.error("%s", self.version_alarm)
        elif upgrade is not None:
            log.info("version %d of the protocol is in force from %d on", upgrade.version, upgrade.first)
        else:
            log.info("version %d of the protocol is in force", self.state.version)

    def _halt(self) -> None:
        """The next batch is beyond this software: follow no further, and say nothing about what comes.

        What was promised stays in the journal, for the newer software that goes on from it. A ledger that is
        being fetched is no later than this one, or beyond this software too.
        """
        self._transfer = None
        self._forget_proposals()
        self.replica = self._restored(self._journal.records())
        log.error("halted at %d: %s", self.state.sequence, self.version_alarm)

    # Snapshots -----------------------------------------------------------------------------------

    def _start_anew_if_due(self, checkpoint: StableCheckpoint) -> None:
        """Let the journal start from a stable checkpoint once it has grown long."""
        sequence = checkpoint.sequence
        state = self.checkpoints.state(sequence)
        grown = (
            (self._offer is None and self._journal.generation > 0)
            or sequence - self._journal.generation >= self._limits.snapshot_interval
            or self._journal.size_bytes >= self._limits.snapshot_log_bytes
        )
        if state is not None and grown and sequence > self._journal.generation:
            epoch = self.members.epoch
            snapshot = Snapshot(epoch=epoch, checkpoint=checkpoint, state=state, archive=self.archive)
            self._start_anew(snapshot, snapshot.encode(), self.replica.promises(checkpoint))

    def _start_anew(self, snapshot: Snapshot, data: bytes, promises: list[Record]) -> None:
        checkpoint = snapshot.checkpoint
        above = range(checkpoint.sequence + 1, checkpoint.sequence + self._limits.window + 1)
        committed = (self._journal.committed(sequence) for sequence in above)
        batches = [BecameCommitted(batch) for batch in committed if batch is not None]
        self._journal.cut(checkpoint.sequence, data, [*promises, *batches])
        self._offer = snapshot.offer
        self.counters.events["snapshots"] += 1

    def _start_transfer(self, source: int, epoch: int, checkpoint: StableCheckpoint) -> None:
        if self._transfer is not None or self.outdated:
            return
        if source in self._strange and self._strange[source][0] >= checkpoint.sequence:
            return
        try:
            self._committee_of(epoch).verify_stable(checkpoint)
        except ProtocolError as reason:
            self.counters.misbehaviour[source] += 1
            log.warning("member %d offers a ledger that its committee did not sign: %s", source, reason)
        else:
            self._transfer = StateTransfer(source, epoch, checkpoint, self.now_ms)
            log.info("fetching the ledger at %d from member %d", checkpoint.sequence, source)
            self._send(source, self._transfer.next_request())

    def _send_part(self, to: int, request: FetchSnapshot) -> None:
        found = self._journal.snapshot_part(request.sequence, request.offset, MAX_PART_BYTES)
        if found is not None and found[1]:
            self._send(to, SnapshotPart(request.sequence, request.offset, *found))

    def _take_part(self, sender: int, part: SnapshotPart) -> list[Event]:
        transfer = self._transfer
        if transfer is None or not transfer.take(sender, part, self.now_ms):
            return []
        if not transfer.complete(part):
            self._send(sender, transfer.next_request())
            return []
        self._transfer = None
        return self._install(sender, transfer)

    def _install(self, sender: int, transfer: StateTransfer) -> list[Event]:
        checkpoint = transfer.checkpoint
        if checkpoint.sequence <= self.state.sequence:
            return []  # caught up by batches meanwhile
        try:
            snapshot = decode_snapshot(bytes(transfer.data), self.rules.versions)
            if (snapshot.checkpoint.sequence, snapshot.checkpoint.root) != (
                checkpoint.sequence,
                checkpoint.root,
            ):
                raise InvalidEncoding("it is of another checkpoint")
            snapshot = dataclasses.replace(snapshot, epoch=transfer.epoch, checkpoint=checkpoint)
        except UnknownVersion as reason:
            # One member's word: it halts nobody, but whoever is behind for good should know why.
            self._strange[sender] = (checkpoint.sequence, f"member {sender} offers {reason}: upgrade")
            log.error("%s", self._strange[sender][1])
            return []
        except InvalidEncoding as reason:
            self.counters.misbehaviour[sender] += 1
            log.warning("member %d sent a snapshot that is none: %s", sender, reason)
            return []
        other = snapshot.state.ordering.epoch != self.members.epoch
        began: list[Record] = [BecameStable(checkpoint)]
        promises = began if other else self.replica.promises(checkpoint)
        self._start_anew(snapshot, snapshot.encode(), promises)
        self._adopt(snapshot)
        self.mempool.forget((), self.state.nonces)
        self._forget_proposals()
        if not other:
            return [Installed(checkpoint=checkpoint, fence=self._fence)]
        self._begin(self._ordering(base=(checkpoint.sequence, checkpoint.root)), promises)
        return []

    def _adopt(self, snapshot: Snapshot) -> None:
        self.state, self.archive = snapshot.state, snapshot.archive
        self.checkpoints.remember(self.state, self.state.sequence)

    # Committees ----------------------------------------------------------------------------------

    def _ordering(self, base: tuple[int, bytes]) -> Members:
        """The committee that orders what comes after the ledger's present state."""
        ordering = self.state.ordering
        if not ordering.members:
            return dataclasses.replace(self.members, base=base)
        return Members(
            domain=self.members.domain, addresses=ordering.members, epoch=ordering.epoch, base=base
        )

    def _committee_of(self, epoch: int) -> Members:
        """The committee of an epoch that may still speak for the ledger.

        Whoever was replaced long ago could sign another history at leisure: only the latest committee that
        the chain names is believed, and the one before it, which orders until the hand-over.
        """
        if epoch == self.members.epoch:
            return self.members
        if epoch < max(self.committees) - 1 or epoch not in self.committees:
            raise InvalidProof(f"the committee of epoch {epoch} does not speak for the ledger")
        return self._committee(epoch)

    def _committee(self, epoch: int) -> Members:
        return Members(domain=self.members.domain, addresses=self.committees[epoch], epoch=epoch)

    def _hand_over(self) -> None:
        """The batch just executed was the last of its committee: go on with the next one.

        Nobody's word is needed for that: the batch has its certificate, and the ledger is a function of it.
        Promises to the old committee concern numbers that are done, so the journal starts anew without them.
        """
        checkpoint = StableCheckpoint(self.state.sequence, state_root(self.state), ())
        snapshot = Snapshot(
            epoch=self.members.epoch, checkpoint=checkpoint, state=self.state, archive=self.archive
        )
        promises: list[Record] = [BecameStable(checkpoint)]
        self._start_anew(snapshot, snapshot.encode(), promises)
        self._start_closing(self.members, snapshot)
        self._forget_proposals()
        self._begin(self._ordering(base=(checkpoint.sequence, checkpoint.root)), promises)

    def _vote_again_if_due(self) -> None:
        """After a damaged log: once nothing depends on the lost promises any more, be a member again."""
        lost, stable = self._journal.forgetful, self.replica.stable
        if (
            lost is None
            or stable is None
            or self.members.epoch != lost.epoch
            or stable.sequence < lost.horizon
        ):
            return
        if self.replica.view < lost.view:
            self._journal.append(LeftView(lost.view))
            self._journal.sync()
        self._journal.remembered()
        self.replica = self._restored(self._journal.records())
        self.counters.events["votes_again"] += 1
        log.warning("the journal is repaired: this member votes again from %d on", stable.sequence + 1)

    def _begin(self, members: Members, promises: list[Record]) -> None:
        self.members = members
        self.committees[members.epoch] = members.addresses
        self._passing_since_ms = None
        self.replica = self._restored(promises)
        self.counters.events["handovers"] += 1
        log.info("committee %d orders from %d on", members.epoch, self.state.sequence + 1)

    def _start_closing(self, members: Members, snapshot: Snapshot) -> None:
        checkpoint = snapshot.checkpoint
        self._closing = Closing(members, checkpoint.sequence, checkpoint.root)
        self._closing.sign(self._key)

    def _close(self, sender: int, closing: Closing, votes: tuple[Vote, ...]) -> list[Event]:
        """Signatures on the last committee's last checkpoint: whoever lacks the proof is given it."""
        if closing.proof is not None:
            if len(votes) == 1:
                self._send(sender, CheckpointProof(closing.proof))
            return []
        try:
            for vote in votes:
                if closing.about(vote):
                    closing.take(vote)
        except ProtocolError as reason:
            self.counters.misbehaviour[sender] += 1
            log.warning("member %d: a signature on the last checkpoint is no good: %s", sender, reason)
        if closing.proof is not None and closing.sequence == self._journal.generation:
            self._offer = SnapshotOffer(closing.members.epoch, closing.proof)
        return []

    def _say_closing(self) -> None:
        closing = self._closing
        if closing is None or self._offer is not None or self.now_ms - closing.said_ms < SAY_AGAIN_MS:
            return
        closing.said_ms = self.now_ms
        own = closing.own(self._key.address)
        if own is not None:
            self._send(None, own)

    def _forget_proposals(self) -> None:
        self._proposed_ids.clear()
        self._held.clear()
        self._origin_ready, self._origin_since_ms, self._origin_in_flight = None, None, 0
