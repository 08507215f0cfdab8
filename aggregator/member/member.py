"""One member of the committee: replica, ledger, pool and journal in one synchronous piece.

Time comes in with every call and messages leave through a function, so the same code runs in a process
(`aggregator.node`), in the simulator and in benchmarks. Per round it lets the replica step through events,
writes all `Persist` effects and syncs the journal once, and only then lets messages leave and batches reach
the ledger: "persist before send" is decided here and nowhere else.

Source: design sections 6 and 11; PoT 3.1.2.
"""

from __future__ import annotations

import logging
from collections import deque

from aggregator.ledger.root import state_root
from aggregator.member.ordering import Ordering
from aggregator.member.snapshot import decode_snapshot
from aggregator.pbft.events import (
    Broadcast,
    Deliver,
    Effect,
    EnteredView,
    Event,
    Executed,
    Misbehaved,
    Persist,
    Received,
    Send,
    Serve,
    Tick,
    Transfer,
    Validate,
)
from aggregator.pbft.messages import (
    MAX_FORWARDED,
    Bodies,
    CheckpointProof,
    FetchBodies,
    FetchSnapshot,
    Forward,
    LinkMessage,
    ReportSignature,
    SnapshotPart,
    Vote,
)
from aggregator.pbft.records import BecameStable

log = logging.getLogger(__name__)


class Member(Ordering):
    """Replica, ledger, pool and journal of the member with this ``key``. Not thread-safe.

    ``members`` is the network's first committee; who orders later batches follows from the ledger. Whoever
    is not, not yet or no longer one of them follows without a vote.
    """

    def recover(self) -> None:
        """Rebuild ledger and replica from the journal: call once, before anything else.

        Raises:
            UnknownVersion: the journal was written by newer software, beyond what this one can execute.
        """
        stored = self._journal.snapshot()
        if stored is not None:
            snapshot = decode_snapshot(stored[1], self.rules.versions)
            self._adopt(snapshot)
            if self._journal.empty:  # its log was damaged
                self._journal.append(BecameStable(snapshot.checkpoint))
                self._journal.sync()
            if stored[0] == self._journal.generation:
                self._offer = snapshot.offer
            if not snapshot.checkpoint.proof and snapshot.epoch in self.committees:
                self._start_closing(self._committee(snapshot.epoch), snapshot)
            self._follow_ordering()
        for committed in self._journal.recent(self.state.sequence):
            self._apply(committed)
            if committed.sequence == self._journal.generation:
                self._follow_ordering()  # the records of the current log are promises to this committee
        self.replica = self._restored(self._journal.records())
        if self.state.ordering.epoch > self.members.epoch:
            self._hand_over()  # the power failed between the last batch of a committee and this
        if self.version_alarm is not None:
            log.error("%s", self.version_alarm)

    def _follow_ordering(self) -> None:
        """A log of the journal starts from the ledger as it is: see who orders from here on."""
        self.members = self._ordering(base=(self.state.sequence, state_root(self.state)))

    def tick(self, now_ms: int) -> None:
        """Time passed: watch the primary, propose what is due, remind the others of what waits here."""
        self.now_ms = now_ms
        self._vote_again_if_due()
        self.round(deque([Tick(now_ms=now_ms, waiting_since_ms=self._waiting_since_ms())]))
        self._forward_again()
        self._fetch_missing()
        self._say_closing()
        if self._transfer is not None and self._transfer.stalled(now_ms):
            self._transfer = None

    def receive(self, sender: int, message: LinkMessage, now_ms: int) -> None:
        """Take in what arrived from another member, save report signatures (see `aggregator.service`)."""
        self.now_ms = now_ms
        events = deque(self.take(sender, message))
        while self.look_at_forwarded(MAX_FORWARDED):
            pass
        self.round(events)

    def take(self, sender: int, message: LinkMessage) -> list[Event]:
        """The events for the replica that a message leads to; what is for others here is dealt with."""
        match message:
            case Vote() if self._closing is not None and self._closing.about(message):
                return self._close(sender, self._closing, (message,))
            case CheckpointProof(checkpoint=checkpoint) if (
                self._closing is not None and checkpoint.sequence == self._closing.sequence
            ):
                return self._close(sender, self._closing, checkpoint.proof)
            case Forward(transactions=items):
                self._queue_forwarded(sender, items)
                return self._bodies_arrived(items)
            case Bodies(transactions=transactions):
                return self._bodies_arrived(transactions)
            case FetchBodies(contents=contents):
                self._send_bodies(sender, contents)
                return []
            case FetchSnapshot():
                self._send_part(sender, message)
                return []
            case SnapshotPart():
                return self._take_part(sender, message)
            case ReportSignature():
                raise AssertionError("report signatures go to the update room")
            case _:
                return [Received(sender=sender, message=message, now_ms=self.now_ms)]

    def round(self, events: deque[Event]) -> None:
        """Step through events and act on their effects; follow-up events and proposals are part of it."""
        self._settle(events)
        while (proposal := self._due_proposal()) is not None:
            self._settle(deque([proposal]))

    def _settle(self, events: deque[Event]) -> None:
        while events:
            effects: list[Effect] = []
            while events:
                effects.extend(self.replica.step(events.popleft()))
            for effect in effects:
                if isinstance(effect, Persist):
                    self._journal.append(effect.record)
            self._journal.sync()
            replica = self.replica
            for effect in effects:
                follow_up = self._act(effect)
                if follow_up is not None:
                    events.append(follow_up)
            if self.replica is not replica:
                # What the last committee's replica was to be told is of no use to the next one's.
                events = deque(event for event in events if not isinstance(event, Executed))

    def _act(self, effect: Effect) -> Event | None:
        match effect:
            case Broadcast(message=message):
                self._send(None, message)
            case Send(to=to, message=message):
                self._send(to, message)
            case Deliver(committed=committed):
                return self._execute(committed)
            case Validate():
                return self._validate(effect)
            case Serve(to=to, sequence=sequence):
                self._serve(to, sequence)
            case Transfer(source=source, epoch=epoch, checkpoint=checkpoint):
                self._start_transfer(source, epoch, checkpoint)
            case EnteredView(view=view, primary=primary):
                self.counters.events["views_entered"] += 1
                self._proposed_ids.clear()
                self._origin_in_flight = 0
                log.info("view %d begins with member %d as primary", view, primary)
            case Misbehaved(sender=sender, reason=reason, evidence=evidence):
                self.counters.misbehaviour[sender] += 1
                if evidence is not None:
                    self.accusations.note(evidence)
                log.warning("member %d: %s", sender, reason)
            case Persist(record=BecameStable(checkpoint=checkpoint)):
                self._start_anew_if_due(checkpoint)
            case Persist():
                pass
        return None
