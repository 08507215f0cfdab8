"""One member of a committee under measurement: the product's replica, the node's discipline, no sockets.

What a node does around a replica (`aggregator.node`) is done here too: journal records are appended and
synced before anything leaves, proposals are checked before they are voted for, delivered batches are executed
and answered. Whoever carries the messages (`benchmarks._sockets`, `benchmarks._virtual`) passes them in and
is handed what leaves, so both run the same code.

A request is signed by its client; a reply is signed by its member and names what was executed, and where.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from aggregator.journal.journal import Journal
from aggregator.ledger.root import state_root
from aggregator.ledger.state import State
from aggregator.ledger.transition import ACCEPTED, apply_block
from aggregator.member.assembly import Assembly, by_hash
from aggregator.member.proposals import block_of, fault_in, forgery_in
from aggregator.pbft.events import (
    Broadcast,
    Deliver,
    Effect,
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
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import (
    MAX_BATCH_TRANSACTIONS,
    Batch,
    Bodies,
    Committed,
    CommittedBatches,
    FetchBodies,
    ReplicaMessage,
)
from aggregator.pbft.quorum import Members
from aggregator.pbft.replica import Replica
from protocol.crypto import Key, keccak256, sha256
from protocol.typed_data import Address, Bytes32, Domain, Typed, Uint64, sign, verify

DOMAIN: Final = Domain(31337, b"\x11" * 20)
MAX_WAITING_BATCHES: Final = 64
"""Batches of one request that wait for the primary's pipeline."""
MAX_KEPT_BATCHES: Final = 32
"""For whoever left the view while the others went on; a node has its journal for that."""


@dataclass(frozen=True, slots=True, eq=False)
class OwnDomain(Domain):
    """A member's own copy of the network's domain, equal to no other.

    The product caches what it hashed and authenticated by domain, once per process; members that share a
    process must not profit from each other's work.
    """

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Ask(Typed, frozen=True, kw_only=True):
    """What a client signs."""

    client: Address
    number: Uint64
    payload: Bytes32


class Answer(Typed, frozen=True, kw_only=True):
    """What a member signs: the batch it executed, where, and what came of it."""

    transactions: Bytes32
    """Merkle root of the batch's transactions: how the client knows its own."""
    sequence: Uint64
    result: Bytes32


class Request(msgspec.Struct, frozen=True, array_like=True):
    """A client's payload as it travels: one opaque blob, or ledger transactions."""

    client: bytes
    number: int
    opaque: bool
    payload: tuple[bytes, ...]
    signature: bytes


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """A member's answer as it travels."""

    member: int
    transactions: bytes
    sequence: int
    result: bytes
    signature: bytes


_ENCODER: Final = msgspec.msgpack.Encoder()
_REQUESTS: Final = msgspec.msgpack.Decoder(Request)
_REPLIES: Final = msgspec.msgpack.Decoder(Reply)


def make_request(key: Key, number: int, payload: Sequence[bytes], *, opaque: bool) -> bytes:
    """A signed request for the wire."""
    ask = Ask(client=key.address, number=number, payload=sha256(b"".join(payload)))
    return _ENCODER.encode(Request(key.address, number, opaque, tuple(payload), sign(DOMAIN, ask, key)))


def open_request(data: bytes) -> Request:
    """The request in ``data``; raises unless its client signed it."""
    request = _REQUESTS.decode(data)
    ask = Ask(client=request.client, number=request.number, payload=sha256(b"".join(request.payload)))
    verify(DOMAIN, ask, request.signature, request.client)
    return request


def batches_of(data: bytes, request: Request) -> list[tuple[bytes, ...]]:
    """What the request becomes: one batch for a blob, as few as the product allows for transactions."""
    if request.opaque:
        return [(data,)]
    return [
        request.payload[start : start + MAX_BATCH_TRANSACTIONS]
        for start in range(0, len(request.payload), MAX_BATCH_TRANSACTIONS)
    ]


def open_reply(data: bytes, members: Members) -> Reply:
    """The reply in ``data``; raises unless its member signed it."""
    reply = _REPLIES.decode(data)
    answer = Answer(transactions=reply.transactions, sequence=reply.sequence, result=reply.result)
    verify(members.domain, answer, reply.signature, members.addresses[reply.member])
    return reply


def committee(count: int) -> tuple[Members, list[Key]]:
    """Members with fixed keys, in ascending order of address; as one member sees them: see `OwnDomain`."""
    keys = sorted((Key(keccak256(b"member %d" % n)) for n in range(count)), key=lambda key: key.address)
    domain = OwnDomain(DOMAIN.chain_id, DOMAIN.verifying_contract)
    return Members(domain=domain, addresses=tuple(key.address for key in keys)), keys


MemberMessage = ReplicaMessage | Bodies | FetchBodies
Outbox = Callable[[int | None, MemberMessage], None]
"""Takes a message to one member, or to all others."""


class Member:
    """Replica, ledger and journal of one member; ``send`` and ``reply`` take what leaves."""

    def __init__(
        self,
        members: Members,
        index: int,
        key: Key,
        *,
        send: Outbox,
        reply: Callable[[bytes], None],
        clock_ms: Callable[[], int],
        limits: Limits,
        state: State | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.replica = Replica(members, index, key, limits)
        self._members, self._index, self._key = members, index, key
        self._send, self._reply, self._clock_ms = send, reply, clock_ms
        self._state = state
        self._journal = journal
        self._assembly = Assembly(lambda content: None)
        self._waiting: deque[tuple[bytes, ...]] = deque(maxlen=MAX_WAITING_BATCHES)
        self._delivered: deque[Committed] = deque(maxlen=MAX_KEPT_BATCHES)
        self.misbehaved: list[str] = []

    def on_request(self, data: bytes) -> None:
        """A client's request, at the primary."""
        batches = batches_of(data, open_request(data))
        assert len(self._waiting) + len(batches) <= MAX_WAITING_BATCHES, "one request at a time"
        self._waiting.extend(batches)
        for transactions in batches:
            # The member that was asked spreads the transactions; proposals name them by their hashes.
            self._assembly.keep(by_hash(transactions))
            self._send(None, Bodies(transactions))
        self._propose()

    def on_message(self, sender: int, message: MemberMessage) -> None:
        """A message from another member."""
        match message:
            case Bodies(transactions=transactions):
                bodies = by_hash(transactions)
                self._assembly.keep(bodies)
                complete = self._assembly.take(bodies)
                self._round(*(self._check(request, batch) for request, batch in complete))
            case FetchBodies(contents=contents):
                found = (self._assembly.body(content) for content in contents)
                self._send(sender, Bodies(tuple(data for data in found if data is not None)))
            case _:
                self._round(Received(sender=sender, message=message, now_ms=self._clock_ms()))
        self._propose()

    def on_tick(self) -> None:
        """Time passed."""
        now_ms = self._clock_ms()
        self._round(Tick(now_ms=now_ms))
        missing = self._assembly.due(self.replica.view, self.replica.executed, now_ms)
        if missing:
            self._send(self.replica.primary, FetchBodies(tuple(missing)))

    def _propose(self) -> None:
        while self._waiting and self.replica.can_propose:
            batch = Batch(self._clock_ms(), None, (), self._waiting.popleft())
            self._round(Propose(batch=batch, now_ms=self._clock_ms()))

    def _round(self, *first: Event) -> None:
        events = deque(first)
        while events:
            effects: list[Effect] = []
            while events:
                effects.extend(self.replica.step(events.popleft()))
            if self._journal is not None:
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
            case Validate():
                return self._validate(effect)
            case Deliver(committed=committed):
                return self._execute(committed)
            case Serve(to=to, sequence=sequence):
                later = tuple(each for each in self._delivered if each.sequence >= sequence)
                if later and later[0].sequence == sequence:
                    self._send(to, CommittedBatches(later))
            case Misbehaved(reason=reason):
                self.misbehaved.append(reason)
        return None

    def _validate(self, request: Validate) -> Validated | None:
        now_ms = self._clock_ms()
        fault = fault_in(request.outline, now_ms)
        assert fault is None, fault
        batch, missing = self._assembly.start(request, now_ms)
        if batch is not None:
            return self._check(request, batch)
        self._send(self.replica.primary, FetchBodies(tuple(missing)))
        return None

    def _check(self, request: Validate, batch: Batch) -> Validated:
        if self._state is not None:
            forgery = forgery_in(batch.transactions, self._members.domain)
            assert forgery is None, forgery
        else:
            # A blob is no transaction: it carries the signature of a request.
            for data in batch.transactions:
                open_request(data)
        return Validated(view=request.view, sequence=request.sequence, digest=request.digest, batch=batch)

    def _execute(self, committed: Committed) -> Executed:
        self._delivered.append(committed)
        result = bytes(32)
        if self._state is not None:
            applied = apply_block(self._state, block_of(committed.sequence, committed.batch))
            assert all(item.code == ACCEPTED for item in applied.results), applied.results[0]
            self._state = applied.state
            result = keccak256(b"".join(item.tx_id for item in applied.results))
        transactions = committed.batch.outline.header.transactions_root
        answer = Answer(transactions=transactions, sequence=committed.sequence, result=result)
        signature = sign(self._members.domain, answer, self._key)
        self._reply(_ENCODER.encode(Reply(self._index, transactions, committed.sequence, result, signature)))
        root = None
        if committed.sequence % self.replica.limits.checkpoint_interval == 0:
            root = state_root(self._state) if self._state is not None else keccak256(transactions)
        return Executed(sequence=committed.sequence, root=root)
