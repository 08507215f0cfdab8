"""One member of the committee: replica, ledger, pool and journal in one synchronous piece.

Time comes in with every call and messages leave through a function, so the same code runs in a process
(`aggregator.node`), in the simulator and in benchmarks. Per round it lets the replica step through events,
writes all `Persist` effects and syncs the journal once, and only then lets messages leave and batches reach
the ledger: "persist before send" is decided here and nowhere else.

Source: design sections 6 and 11; PoT 3.1.2.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aggregator.accusations import Accusations
from aggregator.admission import Forwarders, knock
from aggregator.archive import Archive
from aggregator.assembly import Assembly
from aggregator.checkpoints import Checkpoints
from aggregator.closing import SAY_AGAIN_MS, Closing
from aggregator.journal.journal import Journal
from aggregator.ledger.refusals import Refused
from aggregator.ledger.root import state_root
from aggregator.ledger.state import genesis
from aggregator.ledger.transition import (
    ACCEPTED,
    Applied,
    TransactionResult,
    apply_block,
    authenticated,
    check,
    next_deadline_ms,
)
from aggregator.mempool import Mempool, PoolFull, Waiting
from aggregator.origin.origin import Proposal
from aggregator.pbft.agreement import Limits
from aggregator.pbft.events import (
    Broadcast,
    Deliver,
    Effect,
    EnteredView,
    Event,
    Executed,
    Installed,
    Misbehaved,
    Persist,
    Propose,
    Received,
    Send,
    Serve,
    Tick,
    Transfer,
    Validate,
    Validated,
)
from aggregator.pbft.messages import (
    MAX_BATCH_TRANSACTIONS,
    MAX_FORWARDED,
    MAX_PART_BYTES,
    Batch,
    Bodies,
    CheckpointProof,
    Committed,
    CommittedBatches,
    FetchBodies,
    FetchSnapshot,
    Forward,
    LinkMessage,
    ReportSignature,
    SnapshotOffer,
    SnapshotPart,
    StableCheckpoint,
    Vote,
)
from aggregator.pbft.quorum import InvalidProof, Members
from aggregator.pbft.records import BecameCommitted, BecameStable, Record
from aggregator.pbft.replica import Replica
from aggregator.proposals import block_of, fault_in, forgery_in
from aggregator.snapshot import Snapshot, decode_snapshot
from aggregator.state_transfer import StateTransfer
from protocol.crypto import Key, keccak256
from protocol.errors import InvalidEncoding, ProtocolError
from protocol.transactions import Transaction, decode_transaction
from protocol.typed_data import digest_of

log = logging.getLogger(__name__)

FORWARD_AGAIN_MS: Final = 1_000
"""A transaction that waits longer is sent to the others again: they may have lost it."""
MAX_FORWARDED_AGAIN: Final = 64
MAX_SERVED: Final = 64
MAX_SERVED_BYTES: Final = 8 * 1024 * 1024
MAX_KNOWN_RESULTS: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedResult:
    """What became of a transaction, and where it was ordered."""

    sequence: int
    result: TransactionResult


@dataclass(slots=True)
class Held:
    """A proposal whose origin this member's chain node has not confirmed yet."""

    request: Validate
    batch: Batch
    proposal: Proposal


Submitted = tuple[bytes, TransactionResult | None] | ProtocolError | PoolFull
"""What became of one of many transactions: as `Member.submit` returns it, or what it would raise."""
Outbox = Callable[[int | None, LinkMessage], None]
"""Sends a message to one member, or to all others when the member is none."""


@dataclass(slots=True)
class Counters:
    """What an operator watches."""

    events: Counter[str] = field(default_factory=Counter)
    misbehaviour: Counter[int] = field(default_factory=Counter)


class Member:
    """Replica, ledger, pool and journal of the member with this ``key``. Not thread-safe.

    ``members`` is the network's first committee; who orders later batches follows from the ledger. Whoever
    is not, not yet or no longer one of them follows without a vote.
    """

    def __init__(
        self,
        *,
        members: Members,
        key: Key,
        treasury: bytes,
        journal: Journal,
        send: Outbox,
        limits: Limits | None = None,
        replica: type[Replica] = Replica,
    ) -> None:
        self.members = members
        """The committee that orders the next batch."""
        self.committees: dict[int, tuple[bytes, ...]] = {members.epoch: members.addresses}
        """Committees by epoch, as the chain has named them so far; the shell keeps this up to date."""
        self.mempool = Mempool()
        self.counters = Counters()
        self.accusations = Accusations(members.domain, key)
        self.results: dict[bytes, OrderedResult] = {}
        self.archive = Archive()
        self.now_ms = 0
        """The latest time this member was told."""
        self._limits = limits or Limits()
        self.state = genesis(members.domain, treasury, lead=self._limits.window)
        self._key = key
        self._journal = journal
        self._send = send
        self._assembly = Assembly(self.mempool.body)
        self._held: list[Held] = []
        # The window may hold so many checkpoints above the stable one.
        self.checkpoints = Checkpoints(2 + self._limits.window // self._limits.checkpoint_interval)
        self._transfer: StateTransfer | None = None
        self._offer: SnapshotOffer | None = None
        """What the journal starts from, as far as others can check it."""
        self._handover_since_ms: int | None = None
        self._closing: Closing | None = None
        """The last checkpoint of the committee before this one."""
        self._proposed_ids: dict[int, set[bytes]] = {}
        self._origin_ready: Proposal | None = None
        self._origin_since_ms: int | None = None
        self._origin_in_flight = 0
        self._forwarded_ms = 0
        self._forwarders = Forwarders()
        self._replica_type = replica
        self.replica = replica(members, self.index, key, self._limits)

    @property
    def index(self) -> int | None:
        """This member's place in the committee; none for an observer."""
        addresses = self.members.addresses
        return addresses.index(self._key.address) if self._key.address in addresses else None

    # Life ------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Rebuild ledger and replica from the journal: call once, before anything else.

        Raises:
            JournalDamaged: what this member promised cannot be told any more.
        """
        stored = self._journal.snapshot()
        if stored is not None:
            snapshot = decode_snapshot(stored[1])
            self._adopt(snapshot)
            if stored[0] == self._journal.generation:
                self._offer = _offer_of(snapshot)
            checkpoint = snapshot.checkpoint
            if not checkpoint.proof and snapshot.epoch in self.committees:
                old = Members(
                    domain=self.members.domain,
                    addresses=self.committees[snapshot.epoch],
                    epoch=snapshot.epoch,
                )
                self._start_closing(old, snapshot)
            self.members = self._ordering(base=(checkpoint.sequence, checkpoint.root))
        for committed in self._journal.recent(self.state.sequence):
            self._apply(committed)
        self.replica = self._restored(self._journal.records())
        self.replica.fence = self.state.handover
        if self.state.ordering.epoch > self.members.epoch:
            self._hand_over()  # the power failed between the last batch of a committee and this

    def _restored(self, records: Iterable[Record]) -> Replica:
        return self._replica_type.restore(
            self.members,
            self.index,
            self._key,
            records,
            executed=self.state.sequence,
            limits=self._limits,
        )

    def tick(self, now_ms: int) -> None:
        """Time passed: watch the primary, propose what is due, remind the others of what waits here."""
        self.now_ms = now_ms
        self.round(deque([Tick(now_ms=now_ms, waiting_since_ms=self._waiting_since_ms())]))
        self._forward_again()
        self._fetch_missing()
        self._say_closing()
        if self._transfer is not None and self._transfer.stalled(now_ms):
            self._transfer = None

    def receive(self, sender: int, message: LinkMessage, now_ms: int) -> None:
        """Take in what arrived from another member, save report signatures (see `aggregator.service`)."""
        self.now_ms = now_ms
        self.round(deque(self.take(sender, message)))

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
                self._take_forwarded(sender, items)
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

    def _take_forwarded(self, sender: int, items: tuple[bytes, ...]) -> None:
        if self._forwarders.muted(sender, self.now_ms):
            self.counters.events["forwards_ignored"] += len(items)
            return
        for data in items:
            try:
                self._take_in(data, self.now_ms, ask=False)
            except PoolFull:
                self.counters.events["pool_full"] += 1
            except ProtocolError as reason:
                self._forwarders.blame(sender)
                self.counters.misbehaviour[sender] += 1
                log.warning("member %d forwarded a bad transaction: %s", sender, reason)
                return  # no honest member forwards one: do not pay for the rest

    def _forward_again(self) -> None:
        """Let all members know what waits here; one that alone waited would ask for views in vain."""
        if self.now_ms - self._forwarded_ms < FORWARD_AGAIN_MS:
            return
        self._forwarded_ms = self.now_ms
        self._accuse()
        again = []
        for item in self.mempool.oldest(self.now_ms - FORWARD_AGAIN_MS, MAX_FORWARDED_AGAIN):
            outlook = check(self.state, item.data)
            if outlook.code == ACCEPTED:
                again.append(item.data)
            else:
                # Its time has passed while it waited: nobody will order it, so nobody should wait for it.
                self.mempool.forget([item.tx_id], {})
                self._record(OrderedResult(sequence=self.state.sequence, result=outlook))
        if again:
            self._send(None, Forward(tuple(again)))

    def _accuse(self) -> None:
        """Offer what proves that another member lied; a refusal is tried again later."""
        for data in self.accusations.due(self.state, self.now_ms):
            try:
                self.submit(data, self.now_ms, forward=True)
            except PoolFull:
                self.counters.events["pool_full"] += 1

    def _waiting_since_ms(self) -> int | None:
        """Since when there is work that the ledger has not done: a stalled primary is measured by it."""
        since = [self.mempool.oldest_ms, self._origin_since_ms, self._handover_since_ms]
        deadline = next_deadline_ms(self.state)
        if deadline is not None and deadline <= self.now_ms:
            since.append(deadline)
        return min((at for at in since if at is not None), default=None)

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

    # Executing -------------------------------------------------------------------------------------

    def _execute(self, committed: Committed) -> Executed | None:
        applied = self._apply(committed)
        self.mempool.forget((result.tx_id for result in applied.results), self.state.nonces)
        self._proposed_ids.pop(committed.sequence, None)
        if committed.batch.origin is not None:
            self._origin_in_flight = 0
            self._origin_ready, self._origin_since_ms = None, None
        if self.state.handover is None:
            self._handover_since_ms = None
        elif self._handover_since_ms is None:
            self._handover_since_ms = self.now_ms
        if self.state.ordering.epoch > self.members.epoch:
            self._hand_over()
            return None
        due = committed.sequence % self._limits.checkpoint_interval == 0
        root = self.checkpoints.root(committed.sequence) if due else None
        return Executed(sequence=committed.sequence, root=root, fence=self.state.handover)

    def _apply(self, committed: Committed) -> Applied:
        applied = apply_block(self.state, block_of(committed.sequence, committed.batch))
        self.state = applied.state
        if self.state.sequence % self._limits.checkpoint_interval == 0:
            self.checkpoints.remember(self.state, self.replica.low)
        self.counters.events["batches"] += 1
        for result in applied.results:
            self.counters.events["accepted" if result.code == ACCEPTED else "refused"] += 1
            self._record(OrderedResult(sequence=committed.sequence, result=result))
        self.archive.listen(applied.events)
        return applied

    def _record(self, ordered: OrderedResult) -> None:
        tx_id = ordered.result.tx_id
        known = self.results.get(tx_id)
        if known is None or known.result.code != ACCEPTED:
            # Ordered again after a view change, an accepted transaction is refused; it stays accepted.
            self.results[tx_id] = ordered
        if len(self.results) > MAX_KNOWN_RESULTS:
            del self.results[next(iter(self.results))]

    def _serve(self, to: int, sequence: int) -> None:
        batches: list[Committed] = []
        size = 0
        while len(batches) < MAX_SERVED and size < MAX_SERVED_BYTES:
            committed = self._journal.committed(sequence + len(batches))
            if committed is None:
                break
            batches.append(committed)
            size += sum(map(len, committed.batch.transactions + committed.batch.chain_events))
        if batches:
            self._send(to, CommittedBatches(tuple(batches)))
        elif self._offer is not None and sequence <= self._offer.checkpoint.sequence:
            self._send(to, self._offer)

    # Snapshots -------------------------------------------------------------------------------------

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
        self._offer = _offer_of(snapshot)
        self.counters.events["snapshots"] += 1

    def _start_transfer(self, source: int, epoch: int, checkpoint: StableCheckpoint) -> None:
        if self._transfer is not None:
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
            snapshot = decode_snapshot(bytes(transfer.data))
            if (snapshot.checkpoint.sequence, snapshot.checkpoint.root) != (
                checkpoint.sequence,
                checkpoint.root,
            ):
                raise InvalidEncoding("it is of another checkpoint")
            snapshot = dataclasses.replace(snapshot, epoch=transfer.epoch, checkpoint=checkpoint)
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
            return [Installed(checkpoint=checkpoint)]
        self._begin(self._ordering(base=(checkpoint.sequence, checkpoint.root)), promises)
        return []

    # Committees ------------------------------------------------------------------------------------

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

    def _begin(self, members: Members, promises: list[Record]) -> None:
        self.members = members
        self.committees[members.epoch] = members.addresses
        self._handover_since_ms = None
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

    def _adopt(self, snapshot: Snapshot) -> None:
        self.state, self.archive = snapshot.state, snapshot.archive
        self.checkpoints.remember(self.state, self.state.sequence)

    # Proposing and validating ----------------------------------------------------------------------

    def _due_proposal(self) -> Event | None:
        """The next batch, if this member is primary and has work for one."""
        if not self.replica.can_propose:
            return None
        under_way = set().union(*self._proposed_ids.values()) if self._proposed_ids else set()
        chosen = self.mempool.select(under_way, MAX_BATCH_TRANSACTIONS)
        origin = self._origin_ready if not self._origin_in_flight else None
        deadline = next_deadline_ms(self.state)
        overdue = deadline is not None and deadline <= self.now_ms
        # On the way to a hand-over batches may be empty: nobody should have to wait for work.
        overdue = (overdue or self.state.handover is not None) and not self.replica.in_flight
        if not (chosen or origin or overdue):
            return None
        batch = Batch(
            timestamp_ms=max(self.now_ms, self.state.now_ms),
            origin=origin.origin if origin else None,
            chain_events=origin.chain_events if origin else (),
            transactions=tuple(item.data for item in chosen),
        )
        sequence = self.replica.executed + self.replica.in_flight + 1
        self._proposed_ids[sequence] = {item.tx_id for item in chosen}
        self._assembly.keep(batch.transactions)
        self._origin_in_flight = sequence if origin else self._origin_in_flight
        return Propose(batch=batch, now_ms=self.now_ms)

    def _validate(self, request: Validate) -> Event | None:
        reason = fault_in(request.outline, self.now_ms)
        if reason is not None:
            return self._refuse(request, reason)
        batch, missing = self._assembly.start(request, self.now_ms)
        if batch is not None:
            return self._check_assembled(request, batch)
        if missing:
            self._send(self.members.primary(request.view), FetchBodies(tuple(missing)))
        return None

    def _refuse(self, request: Validate, reason: str) -> Validated:
        log.warning("proposal %d is not valid: %s", request.sequence, reason)
        return _verdict(request, None)

    def _check_assembled(self, request: Validate, batch: Batch) -> Event | None:
        reason = forgery_in(batch.transactions, self.members.domain)
        if reason is not None:
            return self._refuse(request, reason)
        if batch.origin is None:
            return _verdict(request, batch)
        proposal = Proposal(origin=batch.origin, chain_events=batch.chain_events)
        if len(self._held) < self._limits.window:
            self._held.append(Held(request, batch, proposal))
        return None

    def _bodies_arrived(self, transactions: tuple[bytes, ...]) -> list[Event]:
        """Proposals that were waiting for these transactions, checked."""
        if not len(self._assembly):
            return []
        complete = self._assembly.take(transactions)
        return [event for item in complete if (event := self._check_assembled(*item)) is not None]

    def _send_bodies(self, to: int, contents: tuple[bytes, ...]) -> None:
        found: list[bytes] = []
        size = 0
        for content in contents:
            data = self._assembly.body(content)
            if data is not None and size + len(data) <= MAX_SERVED_BYTES:
                found.append(data)
                size += len(data)
        if found:
            self._send(to, Bodies(tuple(found)))

    def _fetch_missing(self) -> None:
        missing = self._assembly.due(self.replica.view, self.replica.executed, self.now_ms)
        if missing:
            self._send(None, FetchBodies(tuple(missing[:MAX_BATCH_TRANSACTIONS])))

    # Chain -----------------------------------------------------------------------------------------

    def chain_moved(self, proposal: Proposal, now_ms: int) -> None:
        """This member's chain node has new events; a primary orders them next."""
        current = self.state.origin.number if self.state.origin is not None else -1
        if proposal.origin.after == current:
            self._origin_ready = proposal
            self._origin_since_ms = self._origin_since_ms or now_ms

    def take_held(self) -> list[Held]:
        """Proposals that wait for the chain node's word; answer each with `confirm` or `hold` it again."""
        held, self._held = self._held, []
        return [
            item
            for item in held
            if item.request.view == self.replica.view and item.request.sequence > self.replica.executed
        ]

    def hold(self, item: Held) -> None:
        """The chain node cannot tell yet."""
        self._held.append(item)

    def confirm(self, item: Held, answer: bool) -> Event:
        """The chain node said whether a held proposal's events are what the chain said."""
        return _verdict(item.request, item.batch if answer else None)

    # Transactions ----------------------------------------------------------------------------------

    def submit(self, data: bytes, now_ms: int, *, forward: bool) -> tuple[bytes, TransactionResult | None]:
        """Take a transaction from the public into the pool; ``forward`` tells the other members.

        Returns its id and, if the ledger would refuse it as things stand, that refusal (it is not pooled).

        Raises:
            ProtocolError: malformed or badly signed.
            PoolFull: no room.
        """
        pooled = len(self.mempool)
        answer = self._take_in(data, now_ms, ask=True)
        if forward and len(self.mempool) > pooled:
            self._send(None, Forward((data,)))
        return answer

    def submit_all(self, items: Sequence[bytes], now_ms: int) -> list[Submitted]:
        """Take transactions from the public into the pool, and tell the other members in few messages.

        The answers stand in the order of ``items``; see `submit` for what each is.
        """
        answers: list[Submitted] = []
        taken: list[bytes] = []
        for data in items:
            try:
                pooled = len(self.mempool)
                answers.append(self._take_in(data, now_ms, ask=True))
                if len(self.mempool) > pooled:
                    taken.append(data)
            except (ProtocolError, PoolFull) as reason:
                answers.append(reason)
        for start in range(0, len(taken), MAX_FORWARDED):
            self._send(None, Forward(tuple(taken[start : start + MAX_FORWARDED])))
        return answers

    def _take_in(self, data: bytes, now_ms: int, *, ask: bool) -> tuple[bytes, TransactionResult | None]:
        """Into the pool; ``ask`` the ledger first what it would say.

        It is not asked about what members forward, for they have asked theirs. Whoever forwards what the
        ledger refuses gains nothing: it is refused when ordered, its sender has bounded room in the pool,
        and what waits too long is asked about again (`_forward_again`).
        """
        body = decode_transaction(data).body
        refusal = knock(self.state, body, now_ms)
        if refusal is not None:
            return self._turn_away(body, refusal)
        try:
            self.mempool.require_room(body.sender, len(data))
        except PoolFull:
            if digest_of(self.members.domain, body) not in self.mempool:
                raise
        signed, tx_id = authenticated(self.members.domain, data)
        known = self.results.get(tx_id)
        if known is not None and known.result.code == ACCEPTED:
            return tx_id, known.result
        if tx_id not in self.mempool:
            outlook = check(self.state, data) if ask else None
            if outlook is not None and outlook.code != ACCEPTED:
                return tx_id, outlook
            self.results.pop(tx_id, None)  # an earlier refusal no longer says anything
            self.mempool.add(
                Waiting(tx_id=tx_id, content=keccak256(data), data=data, signed=signed, arrived_ms=now_ms)
            )
        return tx_id, None

    def _turn_away(self, body: Transaction, refusal: Refused) -> tuple[bytes, TransactionResult]:
        """The refusal; or what became of the transaction, if this is one sent again."""
        tx_id = digest_of(self.members.domain, body)
        known = self.results.get(tx_id)
        if known is not None and known.result.code == ACCEPTED:
            return tx_id, known.result
        return tx_id, TransactionResult(tx_id=tx_id, code=refusal.code, reason=str(refusal))


def _offer_of(snapshot: Snapshot) -> SnapshotOffer | None:
    checkpoint = snapshot.checkpoint
    return SnapshotOffer(snapshot.epoch, checkpoint) if checkpoint.proof else None


def _verdict(request: Validate, batch: Batch | None) -> Validated:
    return Validated(view=request.view, sequence=request.sequence, digest=request.digest, batch=batch)
