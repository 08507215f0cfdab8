"""How the ledger changes: ``apply_block(state, block) -> Applied``, pure, total and deterministic.

A block is one batch that the committee ordered. In this sequence, always:

1. time moves to the batch's timestamp and every phase whose time has come changes (PoT ``Manage.Refresh``);
2. chain events are taken in, if the batch carries a newer origin;
3. transactions are applied one by one; a refused one leaves no trace but its result;
4. at the end of an update cycle the settlement report is made (PoT ``Manage.Update``);
5. at the agreed sequence number after a committee change the new committee takes over the ordering.

By which version of the rules a block is executed is decided in `aggregator.ledger.rules`; what differs
between versions asks ``state.version``.

Undecodable or badly signed transactions get a result too: the function is total, whatever a batch holds.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

from aggregator.ledger.changed import changed
from aggregator.ledger.draft import Draft
from aggregator.ledger.events import LedgerEvent, OrderTaken
from aggregator.ledger.penalties import punish
from aggregator.ledger.refusals import Refused, StaleNonce, UnknownOrder, WrongKind
from aggregator.ledger.settlement import is_due, make_report, next_report_ms, remake_report, settle
from aggregator.ledger.state import (
    Committee,
    Entry,
    Node,
    Origin,
    Outcome,
    Receipt,
    State,
    Unbonding,
    Upgrade,
)
from aggregator.ledger.tasks import PROTOCOLS
from protocol.chain_events import (
    AnyChainEvent,
    CommitteeChanged,
    EndpointChanged,
    OrderPlaced,
    OrderReclaimed,
    ParameterChanged,
    Settled,
    Staked,
    UnstakeRequested,
)
from protocol.crypto import keccak256
from protocol.errors import ProtocolError
from protocol.parameters import PARAMETERS
from protocol.roles import Role
from protocol.transactions import OrderTransaction, SignedTransaction, authenticate, decode_transaction
from protocol.typed_data import Domain

ACCEPTED = "Accepted"
"""The result code of a transaction that took effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One ordered batch, decoded: what the ledger consumes."""

    sequence: int
    timestamp_ms: int
    origin: Origin | None = None
    """A newer origin, or none."""
    origin_after: int = -1
    """Number of the origin that ``chain_events`` follow; they hold everything in between."""
    chain_events: tuple[AnyChainEvent, ...] = ()
    transactions: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionResult:
    """What became of one transaction: ``code`` is `ACCEPTED` or the name of a refusal."""

    tx_id: bytes
    code: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """Everything that applying one block gives."""

    state: State
    results: tuple[TransactionResult, ...]
    events: tuple[LedgerEvent, ...]


def apply_block(state: State, block: Block) -> Applied:
    """The ledger after ``block``, what became of each transaction, and what happened."""
    assert block.sequence == state.sequence + 1, (block.sequence, state.sequence)
    events: list[LedgerEvent] = []
    now_ms = max(state.now_ms, block.timestamp_ms)
    state = dataclasses.replace(state, sequence=block.sequence, now_ms=now_ms)
    state = _refresh(state, events)
    if block.origin is not None:
        state = _take_origin(state, block, events)
    results = []
    for data in block.transactions:
        state, result = _apply_transaction(state, data, events)
        results.append(result)
    if is_due(state):
        draft = Draft(state)
        make_report(draft)
        events.extend(draft.events)
        state = draft.state
    if state.handover == state.sequence:
        state = dataclasses.replace(state, ordering=state.committee, handover=None)
    return Applied(state=state, results=tuple(results), events=tuple(events))


def next_deadline_ms(state: State) -> int | None:
    """When the ledger needs a batch even if nobody sends anything; none if nothing is pending."""
    deadlines = [
        deadline
        for entry in state.table.values()
        if entry.outcome is None and (deadline := PROTOCOLS[entry.order.kind].deadline_ms(entry)) is not None
    ]
    report_ms = next_report_ms(state)
    if report_ms is not None:
        deadlines.append(report_ms)
    return min(deadlines, default=None)


def check(state: State, data: bytes) -> TransactionResult:
    """What would become of a transaction if it came next: for a node's front door, not for consensus."""
    return _apply_transaction(state, data, [])[1]


# Time --------------------------------------------------------------------------------------------------


def _refresh(state: State, events: list[LedgerEvent]) -> State:
    for oid in sorted(state.table):
        if state.table[oid].outcome is None:
            state = _advance(state, oid, events)
    return state


def _advance(state: State, oid: bytes, events: list[LedgerEvent]) -> State:
    """Let one order's phases run as far as the ledger's time allows."""
    entry = state.table[oid]
    draft = Draft(state)
    advanced = PROTOCOLS[entry.order.kind].advance(draft, entry)
    if advanced is entry:
        return state
    draft.put_entry(advanced)
    if advanced.outcome is not None:
        draft.state = dataclasses.replace(draft.state, sealed=(*draft.state.sealed, oid))
    events.extend(draft.events)
    return draft.state


# Transactions ------------------------------------------------------------------------------------------


MAX_REMEMBERED_BYTES = 2048
"""Larger transactions are authenticated anew each time: what is remembered stays under 32 MiB."""


def authenticated(domain: Domain, data: bytes) -> tuple[SignedTransaction, bytes]:
    """Decode and authenticate, once for most transactions: mempool, vote and execution share the work.

    Raises:
        ProtocolError: not a transaction, or not signed by its sender.
    """
    return _remembered(domain, data) if len(data) <= MAX_REMEMBERED_BYTES else _authenticated(domain, data)


def _authenticated(domain: Domain, data: bytes) -> tuple[SignedTransaction, bytes]:
    signed = decode_transaction(data)
    return signed, authenticate(domain, signed)


_remembered = functools.lru_cache(maxsize=16_384)(_authenticated)


def _apply_transaction(
    state: State, data: bytes, events: list[LedgerEvent]
) -> tuple[State, TransactionResult]:
    try:
        signed, tx_id = authenticated(state.domain, data)
    except ProtocolError as reason:
        # No honest member votes for such a batch; a certificate could still carry one in theory.
        return state, TransactionResult(tx_id=keccak256(data), code=type(reason).__name__, reason=str(reason))
    body = signed.body
    draft = Draft(state)
    try:
        last = state.nonces.get(body.sender, -1)
        if body.nonce <= last:
            raise StaleNonce(body.nonce, last + 1)
        if isinstance(body, OrderTransaction):
            _apply_to_order(draft, body, tx_id)
        else:
            punish(draft, body)
    except Refused as refused:
        return state, TransactionResult(tx_id=tx_id, code=refused.code, reason=str(refused))
    nonces = draft.state.nonces.set(body.sender, body.nonce)  # type: ignore[attr-defined]
    events.extend(draft.events)
    state = changed(draft.state, nonces=nonces)
    if isinstance(body, OrderTransaction):
        state = _advance(state, body.oid, events)
    return state, TransactionResult(tx_id=tx_id, code=ACCEPTED)


def _apply_to_order(draft: Draft, body: OrderTransaction, tx_id: bytes) -> None:
    entry = draft.state.table.get(body.oid)
    if entry is None or entry.outcome is not None:
        raise UnknownOrder(body.oid)
    protocol = PROTOCOLS[entry.order.kind]
    if type(body) not in protocol.transactions:
        raise WrongKind(type(body).__name__, entry.order.kind)
    draft.put_entry(protocol.apply(draft, entry, body, tx_id))


# Chain events ------------------------------------------------------------------------------------------


def _take_origin(state: State, block: Block, events: list[LedgerEvent]) -> State:
    current = state.origin.number if state.origin is not None else -1
    if block.origin_after != current:
        return state  # an origin repeated after a view change: its events were taken in before
    draft = Draft(dataclasses.replace(state, origin=block.origin))
    for event in block.chain_events:
        _take_event(draft, event)
    events.extend(draft.events)
    return draft.state


def _take_event(draft: Draft, event: AnyChainEvent) -> None:
    match event:
        case OrderPlaced():
            _take_order(draft, event)
        case OrderReclaimed():
            _drop_reclaimed(draft, event.oid)
        case Staked():
            draft.bond(event.account, Role(event.role), event.amount)
        case UnstakeRequested():
            _start_unbonding(draft, event)
        case EndpointChanged():
            node = draft.node(event.account)
            draft.put_node(
                event.account, Node(stakes=node.stakes, endpoint=event.endpoint, link_key=event.link_key)
            )
        case CommitteeChanged():
            committee = Committee(epoch=event.epoch, members=event.members, threshold=event.threshold)
            draft.state = _appoint(dataclasses.replace(draft.state, committee=committee))
            if draft.state.report is not None:
                remake_report(draft)
        case ParameterChanged():
            if event.key in PARAMETERS:
                parameters = draft.state.parameters.with_value(event.key, event.value)
                draft.state = dataclasses.replace(draft.state, parameters=parameters)
            if event.key == "protocol_version":
                draft.state = _announce(draft.state, event.value)
        case Settled():
            settle(draft, event.epoch, event.transaction_hash, event.gas_used)


def _appoint(state: State) -> State:
    """Let the committee in force order batches too: the first at once, a later one from the hand-over on."""
    if not state.ordering.members:
        return dataclasses.replace(state, ordering=state.committee)
    return dataclasses.replace(state, handover=state.handover or state.sequence + state.lead)


def _announce(state: State, version: int) -> State:
    """Let the rules of a higher version take over, as far from here as a committee that was appointed.

    Named again, it comes when it was to come. There is no way back: the version in force, or a lower one,
    only calls off what has not begun.
    """
    if version <= state.version:
        return dataclasses.replace(state, upgrade=None)
    if state.upgrade is not None and state.upgrade.version == version:
        return state
    upgrade = Upgrade(version=version, first=state.sequence + state.lead + 1)
    return dataclasses.replace(state, upgrade=upgrade)


def _take_order(draft: Draft, event: OrderPlaced) -> None:
    entry = Entry(
        oid=event.oid,
        order=event.order,
        block_hash=event.block_hash,
        taken_ms=draft.now_ms,
        parameters=draft.state.parameters,
        task=None,
    )
    draft.emit(OrderTaken(oid=event.oid, at_ms=draft.now_ms))
    protocol = PROTOCOLS.get(event.order.kind)
    if protocol is not None:
        draft.put_entry(protocol.open(entry))
        return
    draft.put_entry(dataclasses.replace(entry, outcome=_unknown_kind(event)))
    draft.state = dataclasses.replace(draft.state, sealed=(*draft.state.sealed, event.oid))


def _unknown_kind(event: OrderPlaced) -> Outcome:
    """Full refund: no task protocol of this ledger serves the order."""
    reason = f"refund: no task protocol is called {event.order.kind!r}"
    refund = Receipt(
        account=event.order.client,
        oid=event.oid,
        role="client",
        reason=reason,
        amount_wei=event.order.reward + event.order.deposit,
    )
    return Outcome(winner=None, mid=None, score=None, reason=reason, receipts=(refund,), slashes=())


def _drop_reclaimed(draft: Draft, oid: bytes) -> None:
    entry = draft.state.table.get(oid)
    if entry is None:
        return
    if entry.outcome is None:
        PROTOCOLS[entry.order.kind].abandon(draft, entry)
    else:
        for slash in entry.outcome.slashes:
            draft.spare_slash(slash.account, slash.role, slash.amount_wei)
    state = draft.state
    draft.state = dataclasses.replace(
        state,
        table=state.table.delete(oid),  # type: ignore[attr-defined]
        sealed=tuple(other for other in state.sealed if other != oid),
    )
    if state.report is not None and oid in state.report.orders:
        remake_report(draft, without=oid)


def _start_unbonding(draft: Draft, event: UnstakeRequested) -> None:
    role = Role(event.role)
    draft.unbond(event.account, role, event.amount)
    item = Unbonding(
        account=event.account,
        role=role,
        amount_wei=event.amount,
        due_ms=draft.now_ms + draft.state.parameters["unbonding_s"] * 1000,
    )
    draft.state = dataclasses.replace(draft.state, unbonding=(*draft.state.unbonding, item))
