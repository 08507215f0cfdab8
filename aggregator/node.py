"""One aggregator: the shell that gives the pure replica and ledger a clock, a disk, links and a chain.

One task owns replica, ledger, mempool and journal; everything else talks to it through `Aggregator.post`.
Per round it takes the events that have queued up, lets the replica step through them, writes all `Persist`
effects and syncs the journal once, and only then lets messages leave and batches reach the ledger.

Source: design sections 6 and 11; PoT 3.1.2.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aggregator.journal.journal import Journal
from aggregator.ledger.events import LedgerEvent
from aggregator.ledger.root import state_root
from aggregator.ledger.state import State, genesis
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
from aggregator.origin.origin import OriginSource, Proposal
from aggregator.pbft.agreement import Limits
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
    MAX_BATCH_TRANSACTIONS,
    MAX_FORWARDED,
    Batch,
    Committed,
    CommittedBatches,
    Forward,
    LinkMessage,
    ReportSignature,
    header_of,
)
from aggregator.pbft.quorum import Members
from aggregator.pbft.records import BecameCommitted
from aggregator.pbft.replica import Replica
from aggregator.proposals import block_of, fault_in
from protocol.certificate import CommitSignature, TransactionCertificate, place_leaf
from protocol.crypto import Key
from protocol.errors import ChainError, ProtocolError
from protocol.merkle import proof
from protocol.transactions import SignedTransaction

log = logging.getLogger(__name__)

TICK_S: Final = 0.05
ORIGIN_PERIOD_S: Final = 0.5
MAX_QUEUED_EVENTS: Final = 10_000
MAX_STEP_EVENTS: Final = 256
FORWARD_AGAIN_MS: Final = 1_000
"""A transaction that waits longer is sent to the others again: they may have lost it."""
MAX_FORWARDED_AGAIN: Final = 64
MAX_SERVED: Final = 64
MAX_SERVED_BYTES: Final = 8 * 1024 * 1024
MAX_KNOWN_RESULTS: Final = 100_000


def now_ms() -> int:
    """Unix time in milliseconds: the one clock of this room."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedResult:
    """What became of a transaction, and where it was ordered."""

    sequence: int
    result: TransactionResult


@dataclass(slots=True)
class Held:
    """A proposal whose origin this member's chain node cannot confirm yet."""

    request: Validate
    proposal: Proposal


Submitted = tuple[bytes, TransactionResult | None] | ProtocolError | PoolFull
"""What became of one of many transactions: as `Aggregator.submit` returns it, or what it would raise."""
Outbox = Callable[[int | None, LinkMessage], None]
"""Sends a message to one member, or to all others when the member is none."""
Listener = Callable[[State, tuple[LedgerEvent, ...]], None]


@dataclass(slots=True)
class Counters:
    """What an operator watches."""

    events: Counter[str] = field(default_factory=Counter)
    misbehaviour: Counter[int] = field(default_factory=Counter)


class Aggregator:
    """Replica, ledger, mempool and journal of one member."""

    def __init__(
        self,
        *,
        members: Members,
        index: int,
        key: Key,
        treasury: bytes,
        journal: Journal,
        origins: OriginSource,
        confirmations: int,
        send: Outbox,
        limits: Limits | None = None,
    ) -> None:
        self.members = members
        self.index = index
        self.state = genesis(members.domain, treasury)
        self.mempool = Mempool()
        self.counters = Counters()
        self.results: dict[bytes, OrderedResult] = {}
        self.listeners: list[Listener] = []
        self.failure: BaseException | None = None
        self._limits = limits or Limits()
        self._key = key
        self._journal = journal
        self._origins = origins
        self._confirmations = confirmations
        self._send = send
        self._queue: asyncio.Queue[Event] = asyncio.Queue(MAX_QUEUED_EVENTS)
        self._waiters: dict[bytes, list[asyncio.Future[OrderedResult]]] = {}
        self._held: list[Held] = []
        self._proposed_ids: dict[int, set[bytes]] = {}
        self._origin_ready: Proposal | None = None
        self._origin_since_ms: int | None = None
        self._origin_in_flight = 0
        self._forwarded_ms = 0
        self.replica = Replica(members, index, key, self._limits)

    # Life ------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Rebuild ledger and replica from the journal: call once, before `run`, listeners attached."""
        for record in self._journal.records():
            if isinstance(record, BecameCommitted) and record.committed.sequence == self.state.sequence + 1:
                self._apply(record.committed)
        self.replica = Replica.restore(
            self.members,
            self.index,
            self._key,
            self._journal.records(),
            executed=self.state.sequence,
            limits=self._limits,
        )

    async def run(self) -> None:
        """Serve until cancelled. A bug or a full disk ends it; what was promised is on disk."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._consume())
            tasks.create_task(self._tick())
            tasks.create_task(self._follow_chain())

    async def _tick(self) -> None:
        while True:
            await self.post(Tick(now_ms=now_ms(), waiting_since_ms=self._waiting_since_ms()))
            self._forward_again()
            await asyncio.sleep(TICK_S)

    def _forward_again(self) -> None:
        """Let all members know what waits here; one that alone waited would ask for views in vain."""
        at_ms = now_ms()
        if at_ms - self._forwarded_ms < FORWARD_AGAIN_MS:
            return
        self._forwarded_ms = at_ms
        again = []
        for item in self.mempool.oldest(at_ms - FORWARD_AGAIN_MS, MAX_FORWARDED_AGAIN):
            outlook = check(self.state, item.data)
            if outlook.code == ACCEPTED:
                again.append(item.data)
            else:
                # Its time has passed while it waited: nobody will order it, so nobody should wait for it.
                self.mempool.forget([item.tx_id], {})
                self._record(OrderedResult(sequence=self.state.sequence, result=outlook))
        if again:
            self._send(None, Forward(tuple(again)))

    def _waiting_since_ms(self) -> int | None:
        """Since when there is work that the ledger has not done: a stalled primary is measured by it."""
        since = [self.mempool.oldest_ms, self._origin_since_ms]
        deadline = next_deadline_ms(self.state)
        if deadline is not None and deadline <= now_ms():
            since.append(deadline)
        return min((at for at in since if at is not None), default=None)

    async def post(self, event: Event) -> None:
        """Queue an event for the replica; waits while the queue is full (backpressure)."""
        await self._queue.put(event)

    async def _consume(self) -> None:
        while True:
            events = deque([await self._queue.get()])
            while len(events) < MAX_STEP_EVENTS and not self._queue.empty():
                events.append(self._queue.get_nowait())
            self._round(events)
            self._propose_if_due()
            # Let sockets and the API breathe between rounds.
            await asyncio.sleep(0)

    def _round(self, events: deque[Event]) -> None:
        """Step through events and act on their effects; follow-up events are part of the round."""
        while events:
            effects: list[Effect] = []
            while events:
                effects.extend(self.replica.step(events.popleft()))
            for effect in effects:
                if isinstance(effect, Persist):
                    self._journal.append(effect.record)
            self._journal.sync()
            for effect in effects:
                follow_up = self._act(effect)
                if follow_up is not None:
                    events.append(follow_up)

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
            case EnteredView(view=view, primary=primary):
                self.counters.events["views_entered"] += 1
                self._proposed_ids.clear()
                self._origin_in_flight = 0
                log.info("view %d begins with member %d as primary", view, primary)
            case Misbehaved(sender=sender, reason=reason):
                self.counters.misbehaviour[sender] += 1
                log.warning("member %d: %s", sender, reason)
            case Persist():
                pass
        return None

    # Executing -------------------------------------------------------------------------------------

    def _execute(self, committed: Committed) -> Executed:
        applied = self._apply(committed)
        self.mempool.forget((result.tx_id for result in applied.results), self.state.nonces)
        self._proposed_ids.pop(committed.sequence, None)
        if committed.batch.origin is not None:
            self._origin_in_flight = 0
            self._origin_ready, self._origin_since_ms = None, None
        due = committed.sequence % self._limits.checkpoint_interval == 0
        return Executed(sequence=committed.sequence, root=state_root(self.state) if due else None)

    def _apply(self, committed: Committed) -> Applied:
        applied = apply_block(self.state, block_of(committed.sequence, committed.batch))
        self.state = applied.state
        self.counters.events["batches"] += 1
        for result in applied.results:
            self.counters.events["accepted" if result.code == ACCEPTED else "refused"] += 1
            self._record(OrderedResult(sequence=committed.sequence, result=result))
        for listener in self.listeners:
            listener(applied.state, applied.events)
        return applied

    def _record(self, ordered: OrderedResult) -> None:
        tx_id = ordered.result.tx_id
        known = self.results.get(tx_id)
        if known is None or known.result.code != ACCEPTED:
            # Ordered again after a view change, an accepted transaction is refused; it stays accepted.
            self.results[tx_id] = ordered
        if len(self.results) > MAX_KNOWN_RESULTS:
            del self.results[next(iter(self.results))]
        for future in self._waiters.pop(tx_id, ()):
            if not future.done():
                future.set_result(ordered)

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

    # Proposing and validating ----------------------------------------------------------------------

    def _propose_if_due(self) -> None:
        if not self.replica.can_propose:
            return
        under_way = set().union(*self._proposed_ids.values()) if self._proposed_ids else set()
        chosen = self.mempool.select(under_way, MAX_BATCH_TRANSACTIONS)
        origin = self._origin_ready if not self._origin_in_flight else None
        at_ms = now_ms()
        deadline = next_deadline_ms(self.state)
        overdue = deadline is not None and deadline <= at_ms and not self.replica.in_flight
        if not (chosen or origin or overdue):
            return
        batch = Batch(
            timestamp_ms=max(at_ms, self.state.now_ms),
            origin=origin.origin if origin else None,
            chain_events=origin.chain_events if origin else (),
            transactions=tuple(item.data for item in chosen),
        )
        sequence = self.replica.executed + self.replica.in_flight + 1
        self._proposed_ids[sequence] = {item.tx_id for item in chosen}
        self._origin_in_flight = sequence if origin else self._origin_in_flight
        self._round(deque([Propose(batch=batch, now_ms=at_ms)]))

    def _validate(self, request: Validate) -> Event | None:
        reason = fault_in(request.batch, self.members.domain, now_ms())
        if reason is not None:
            log.warning("proposal %d is not valid: %s", request.sequence, reason)
            return self._verdict(request, False)
        if request.batch.origin is None:
            return self._verdict(request, True)
        proposal = Proposal(origin=request.batch.origin, chain_events=request.batch.chain_events)
        if len(self._held) < self._limits.window:
            self._held.append(Held(request, proposal))
        return None

    @staticmethod
    def _verdict(request: Validate, valid: bool) -> Validated:
        return Validated(view=request.view, sequence=request.sequence, digest=request.digest, valid=valid)

    # Chain -----------------------------------------------------------------------------------------

    async def _follow_chain(self) -> None:
        """Look for new origins and confirm held proposals; a chain node that is down only delays."""
        down = False
        while True:
            try:
                proposal = await asyncio.to_thread(self._origins.propose, self.state.origin, self._depth())
                if proposal is not None and self._follows(proposal):
                    self._origin_ready = proposal
                    self._origin_since_ms = self._origin_since_ms or now_ms()
                await self._confirm_held()
                if down:
                    log.info("the chain node answers again")
                down = False
            except ChainError as reason:
                if not down:
                    log.warning("%s; the ledger goes on without new origins", reason)
                down = True
            await asyncio.sleep(ORIGIN_PERIOD_S)

    def _depth(self) -> int:
        return self.state.parameters["confirmations"] if self.state.origin else self._confirmations

    def _follows(self, proposal: Proposal) -> bool:
        current = self.state.origin.number if self.state.origin is not None else -1
        return proposal.origin.after == current

    async def _confirm_held(self) -> None:
        held, self._held = self._held, []
        for item in held:
            request = item.request
            if request.view != self.replica.view or request.sequence <= self.replica.executed:
                continue
            answer = await asyncio.to_thread(
                self._origins.confirm, item.proposal, self.state.origin, self._depth()
            )
            if answer is None:
                self._held.append(item)
            else:
                await self.post(self._verdict(request, answer))

    @property
    def chain_alarm(self) -> str | None:
        """Why new origins are halted; none in good times."""
        return self._origins.alarm

    # Transactions ----------------------------------------------------------------------------------

    def submit_all(self, items: Sequence[bytes]) -> list[Submitted]:
        """Take transactions from the public into the pool, and tell the other members in as few messages.

        The answers stand in the order of ``items``; see `submit` for what each is.
        """
        answers: list[Submitted] = []
        taken: list[bytes] = []
        for data in items:
            try:
                pooled = len(self.mempool)
                answers.append(self._take_in(data, self._outlook))
                if len(self.mempool) > pooled:
                    taken.append(data)
            except (ProtocolError, PoolFull) as reason:
                answers.append(reason)
        for start in range(0, len(taken), MAX_FORWARDED):
            self._send(None, Forward(tuple(taken[start : start + MAX_FORWARDED])))
        return answers

    def submit(self, data: bytes, *, forward: bool) -> tuple[bytes, TransactionResult | None]:
        """Take a transaction from the public into the pool; ``forward`` tells the other members.

        Returns its id and, if the ledger would refuse it as things stand, that refusal (it is not pooled).

        Raises:
            ProtocolError: malformed or badly signed.
            PoolFull: no room.
        """
        pooled = len(self.mempool)
        tx_id, refusal = self._take_in(data, self._outlook)
        if forward and len(self.mempool) > pooled:
            self._send(None, Forward((data,)))
        return tx_id, refusal

    def _outlook(self, signed: SignedTransaction, data: bytes) -> TransactionResult | None:
        """What the ledger would refuse a transaction with if it came next."""
        outlook = check(self.state, data)
        return outlook if outlook.code != ACCEPTED else None

    def _used_up(self, signed: SignedTransaction, data: bytes) -> TransactionResult | None:
        """For what a member forwards, who has asked the ledger: only whether it came too late.

        Whoever forwards what the ledger refuses gains nothing: it is refused when ordered, its senders have
        bounded room in the pool, and what waits too long is asked about again (`_forward_again`).
        """
        body = signed.body
        if body.nonce > self.state.nonces.get(body.sender, -1):
            return None
        return check(self.state, data)

    def _take_in(
        self, data: bytes, refusal_of: Callable[[SignedTransaction, bytes], TransactionResult | None]
    ) -> tuple[bytes, TransactionResult | None]:
        signed, tx_id = authenticated(self.members.domain, data)
        known = self.results.get(tx_id)
        if known is not None and known.result.code == ACCEPTED:
            return tx_id, known.result
        if tx_id not in self.mempool:
            refusal = refusal_of(signed, data)
            if refusal is not None:
                return tx_id, refusal
            self.results.pop(tx_id, None)  # an earlier refusal no longer says anything
            self.mempool.add(Waiting(tx_id=tx_id, data=data, signed=signed, arrived_ms=now_ms()))
        return tx_id, None

    def certificate(self, tx_id: bytes) -> TransactionCertificate | None:
        """Proof of where a transaction was ordered; none if this member does not know."""
        ordered = self.results.get(tx_id)
        committed = self._journal.committed(ordered.sequence) if ordered is not None else None
        if committed is None:
            return None
        transactions = committed.batch.transactions
        ids = [self._id_of(data) for data in transactions]
        if tx_id not in ids:
            return None
        index = ids.index(tx_id)
        leaves = [place_leaf(place, data) for place, data in enumerate(transactions)]
        return TransactionCertificate(
            view=committed.certificate[0].view,
            sequence=committed.sequence,
            header=header_of(committed.batch),
            index=index,
            path=tuple(proof(leaves, index)),
            signatures=tuple(
                CommitSignature(member=vote.signer, signature=vote.signature)
                for vote in committed.certificate
            ),
        )

    def _id_of(self, data: bytes) -> bytes | None:
        try:
            return authenticated(self.members.domain, data)[1]
        except ProtocolError:
            return None

    async def outcome(self, tx_id: bytes, timeout_s: float) -> OrderedResult | None:
        """What became of a transaction, waiting at most ``timeout_s`` for it to be ordered."""
        if tx_id in self.results:
            return self.results[tx_id]
        future: asyncio.Future[OrderedResult] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(tx_id, []).append(future)
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return None
        finally:
            waiting = self._waiters.get(tx_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiters.pop(tx_id, None)

    async def on_link_message(self, sender: int, message: LinkMessage) -> None:
        """Take in what arrived from another member, save report signatures (see `aggregator.service`)."""
        match message:
            case Forward(transactions=items):
                self._take_forwarded(sender, items)
            case ReportSignature():
                raise AssertionError("report signatures go to the update room")
            case _:
                await self.post(Received(sender=sender, message=message, now_ms=now_ms()))

    def _take_forwarded(self, sender: int, items: Sequence[bytes]) -> None:
        for data in items:
            try:
                self._take_in(data, self._used_up)
            except PoolFull:
                self.counters.events["pool_full"] += 1
            except ProtocolError as reason:
                self.counters.misbehaviour[sender] += 1
                log.warning("member %d forwarded a bad transaction: %s", sender, reason)
                return  # no honest member forwards one: do not pay for the rest
