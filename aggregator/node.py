"""One aggregator in real time: the shell that gives a `Member` a clock, a queue and a chain.

One task owns the member; everything else talks to it through `Aggregator.post`. The chain node is asked in
a thread; an answer comes back as an event like any other.

Source: design sections 6 and 11; PoT 3.1.2.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from aggregator.ledger.transition import Applied, TransactionResult, authenticated
from aggregator.member.execution import OrderedResult
from aggregator.member.inbox import Inbox
from aggregator.member.member import Member
from aggregator.member.pooling import Submitted
from aggregator.origin.origin import OriginSource
from aggregator.pbft.events import Event, Received
from aggregator.pbft.messages import Committed, LinkMessage
from protocol.certificate import MemberSignature, TransactionCertificate, place_leaf
from protocol.crypto import keccak256
from protocol.errors import ChainError, ProtocolError
from protocol.merkle import proof
from protocol.state_proof import StateProof

log = logging.getLogger(__name__)

TICK_S: Final = 0.05
ORIGIN_PERIOD_S: Final = 0.5
MAX_WAITERS: Final = 4_096
"""Requests that may wait for an outcome at once; further ones are told at once that it is not there yet."""
MAX_GUESTS: Final = 256
"""Requests with transactions that wait for their turn before further ones are refused."""
MAX_STEP_EVENTS: Final = 256
TURN: Final = 64
"""Transactions that are looked at between two rounds of votes, some milliseconds' work."""


def now_ms() -> int:
    """Unix time in milliseconds: the one clock of this room."""
    return time.time_ns() // 1_000_000


class Aggregator(Member):
    """A `Member` that runs until it is cancelled."""

    def __init__(self, *, origins: OriginSource, confirmations: int, **member: Any) -> None:
        super().__init__(**member)
        self._origins = origins
        self._confirmations = confirmations
        self.inbox = Inbox()
        self._arrived = asyncio.Event()
        self._unyielded = 0
        self._guests: deque[tuple[asyncio.Future[None], int]] = deque()
        """Requests from the public that wait for their `turn`, and how much they bring."""
        self._guests_served = False
        self._turns_of_members = 0
        """Since the public had its turn."""
        self._waiters: dict[bytes, list[asyncio.Future[OrderedResult]]] = {}
        self._waiting_count = 0
        self.on_applied: Callable[[Committed, Applied], None] | None = None
        """Told of every batch after it was applied, but for those of the journal's that `recover` applies."""
        self._recovering = False
        self.chain_answered_s: float | None = None
        """When the chain node last answered, on this machine's monotonic clock."""

    # Executing -------------------------------------------------------------------------------------

    def recover(self) -> None:
        self._recovering = True
        super().recover()
        self._recovering = False

    def _apply(self, committed: Committed) -> Applied:
        applied = super()._apply(committed)
        if self.on_applied is not None and not self._recovering:
            try:
                self.on_applied(committed, applied)
            except Exception:  # whoever looks on must not end a member, nor all of them at the same batch
                log.exception("what looks on at batch %d failed; the ledger goes on", committed.sequence)
        return applied

    # Life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled. A bug or a full disk ends it; what was promised is on disk."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._consume())
            tasks.create_task(self._keep_time())
            tasks.create_task(self._follow_chain())

    async def _keep_time(self) -> None:
        while True:
            self.tick(now_ms())
            await asyncio.sleep(TICK_S)

    def post(self, event: Event) -> None:
        """Queue an event of this member's own for the replica."""
        self.inbox.put(event)
        self._arrived.set()

    async def on_link_message(self, sender: int, message: LinkMessage) -> None:
        """Take in what arrived from another member, save report signatures (see `aggregator.service`).

        Never waits for the replica: what finds its sender's queue full is dropped and counted.
        """
        self.now_ms = now_ms()
        for event in self.take(sender, message):
            if isinstance(event, Received):
                self.inbox.receive(event)
                self._arrived.set()
            else:
                self.post(event)
        if self.intake:
            self._arrived.set()
        self._unyielded += 1
        if self._unyielded >= MAX_STEP_EVENTS:
            # A socket that always has more would keep the replica from ever running.
            self._unyielded = 0
            await asyncio.sleep(0)

    async def _consume(self) -> None:
        """Rounds of what consensus brings, and between them a turn for what was forwarded and for a guest."""
        while True:
            await self._arrived.wait()
            self.now_ms = now_ms()
            events = self.inbox.take(MAX_STEP_EVENTS)
            if self.look_at_forwarded(TURN) or events or self._guests_served:
                self.round(events)
            self._guests_served = self._public_has_turn() and self._serve_guests()
            if not (self.inbox or self.intake or self._guests or self._guests_served):
                self._arrived.clear()
            # Let sockets and the API breathe between rounds.
            await asyncio.sleep(0)

    def _public_has_turn(self) -> bool:
        """Whether every member whose transactions wait has had a turn since the public had one."""
        self._turns_of_members += 1
        if self._turns_of_members <= self.intake.members:
            return False
        self._turns_of_members = 0
        return True

    def _serve_guests(self) -> bool:
        """Let the next guests in, who bring at most `TURN` transactions together; whether there were any."""
        room, served = TURN, False
        while self._guests and self._guests[0][1] <= room:
            guest, size = self._guests.popleft()
            if not guest.done():  # otherwise the request was given up
                guest.set_result(None)
                room, served = room - size, True
        return served

    async def turn(self, size: int) -> None:
        """Wait for a moment between two rounds to take in ``size`` transactions, at most `TURN`."""
        assert size <= TURN
        guest: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._guests.append((guest, size))
        self._arrived.set()
        await guest

    @property
    def crowded(self) -> bool:
        """Whether so many requests wait for their turn that the public should come back later.

        What members forward says nothing about it: one that floods must not keep the public out.
        """
        return len(self._guests) >= MAX_GUESTS

    # Chain -----------------------------------------------------------------------------------------

    async def _follow_chain(self) -> None:
        """Look for new origins and confirm held proposals; a chain node that is down only delays."""
        down = False
        while True:
            try:
                proposal = await asyncio.to_thread(self._origins.propose, self.state.origin, self._depth())
                if proposal is not None:
                    self.chain_moved(proposal, now_ms())
                await self._confirm_held()
                self.chain_answered_s = time.monotonic()
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

    async def _confirm_held(self) -> None:
        for item in self.take_held():
            answer = await asyncio.to_thread(
                self._origins.confirm, item.proposal, self.state.origin, self._depth()
            )
            if answer is None:
                self.hold(item)
            else:
                self.post(self.confirm(item, answer))

    @property
    def chain_alarm(self) -> str | None:
        """Why new origins are halted; none in good times."""
        return self._origins.alarm

    @property
    def chain_head(self) -> int | None:
        """The last block of this member's chain node with enough confirmations; none before it answered."""
        return self._origins.head

    @property
    def journal_bytes(self) -> int:
        """Size of the journal's current log."""
        return self._journal.size_bytes

    @property
    def journal_generation(self) -> int:
        """Sequence number that the journal's current log starts from."""
        return self._journal.generation

    @property
    def disk_free_bytes(self) -> int | None:
        """Room left on the journal's disk; none where there is no such thing."""
        return self._journal.free_bytes()

    @property
    def unready(self) -> str | None:
        """Why clients should ask another member for now; none while they are well served here."""
        if self.index is None:
            return "this aggregator is not in the committee now"
        if self._transfer is not None:
            return "it takes over the ledger from other members"
        if self.outdated:
            return self.version_alarm
        return None if self.replica.active else "changing view"

    @property
    def ready(self) -> bool:
        """Whether there is nothing that `unready` would name."""
        return self.unready is None

    # Transactions ----------------------------------------------------------------------------------

    def offer(self, data: bytes) -> tuple[bytes, TransactionResult | None]:
        """Take a transaction from the public: see `Member.submit`."""
        return self.submit(data, now_ms(), forward=True)

    def offer_all(self, items: Sequence[bytes]) -> list[Submitted]:
        """Take many transactions from the public: see `Member.submit_all`."""
        return self.submit_all(items, now_ms())

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
        leaves = [place_leaf(place, keccak256(data)) for place, data in enumerate(transactions)]
        return TransactionCertificate(
            view=committed.certificate[0].view,
            sequence=committed.sequence,
            unanimous=committed.unanimous,
            header=committed.batch.outline.header,
            index=index,
            path=tuple(proof(leaves, index)),
            signatures=tuple(
                MemberSignature(member=vote.signer, signature=vote.signature)
                for vote in committed.certificate
            ),
        )

    def proof(self, section: str, key: bytes) -> StateProof | None:
        """Proof of a ledger row at the last stable checkpoint; none if it is not there."""
        return self.checkpoints.prove(self.replica.stable, section, key)

    def _id_of(self, data: bytes) -> bytes | None:
        try:
            return authenticated(self.members.domain, data)[1]
        except ProtocolError:
            return None

    async def outcome(self, tx_id: bytes, timeout_s: float) -> OrderedResult | None:
        """What became of a transaction, waiting at most ``timeout_s`` for it to be ordered."""
        if tx_id in self.results:
            return self.results[tx_id]
        if self._waiting_count >= MAX_WAITERS:
            return None  # not ordered yet, as far as this answer knows: the asker comes again
        future: asyncio.Future[OrderedResult] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(tx_id, []).append(future)
        self._waiting_count += 1
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            return None
        finally:
            self._waiting_count -= 1
            waiting = self._waiters.get(tx_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiters.pop(tx_id, None)

    def _record(self, ordered: OrderedResult) -> None:
        super()._record(ordered)
        for future in self._waiters.pop(ordered.result.tx_id, ()):
            if not future.done():
                future.set_result(ordered)
