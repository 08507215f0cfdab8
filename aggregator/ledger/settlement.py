"""Manage.Update: what one update cycle sends to the chain (PoT 3.3.4).

At the end of a cycle the ledger makes one report from the orders sealed so far, the penalties imposed and the
stake whose unbonding is over. Members sign it and the contracts check and apply it; the ledger learns of that
from the chain and only then drops the orders. There is never more than one report under way, and making it
again gives the same bytes, so nothing can be paid twice.

Guarantee: the credits of a report equal the escrow of its orders plus its slashes, exactly; the contract
checks the same sum. A report may hold penalties and no order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from aggregator.ledger.draft import Draft, releasable
from aggregator.ledger.events import ReportMade, ReportSettled
from aggregator.ledger.root import value_hash
from aggregator.ledger.state import (
    Entry,
    Outcome,
    Penalty,
    PendingReport,
    Receipt,
    Settlement,
    Stake,
    State,
    Unbonding,
)
from protocol.crypto import keccak256
from protocol.merkle import receipt_leaf, root
from protocol.roles import Role
from protocol.transactions import Report

MAX_REPORT_ORDERS = 200
MAX_REPORT_CREDITS = 2000
MAX_REPORT_SLASHES = 800
MAX_REPORT_RELEASES = 100
MAX_REPORT_PENALTIES = 100
"""Together they keep a settlement under nine tenths of 2^24 gas; what is left over waits for the next cycle.

One order may pass the bounds on credits and slashes by itself and then has a report of its own, which the
bounds of an order (claims, validations, jurors) keep as small. `tests/contracts/test_gas.py` measures both.
"""


def is_due(state: State) -> bool:
    """Whether the ledger should make a report now."""
    due_ms = next_report_ms(state)
    return due_ms is not None and due_ms <= state.now_ms


def next_report_ms(state: State) -> int | None:
    """Ledger time of the next report as things stand; none while there is nothing to report or nobody to."""
    if state.report is not None or not state.committee.members:
        return None
    if state.sealed or state.penalties:
        return state.next_update_ms
    # Stake that a lock still holds gives no reason to report: its release would be zero.
    due = [item.due_ms for item in state.unbonding if releasable(_stake(state, item), item.amount_wei)]
    return max(state.next_update_ms, min(due)) if due else None


def _stake(state: State, item: Unbonding) -> Stake:
    return state.nodes[item.account].stake(item.role)


def make_report(draft: Draft) -> None:
    """Make the cycle's report and start the next cycle."""
    state = draft.state
    orders: list[bytes] = []
    # Penalties come first, and count in the bounds: an order never waits for long, since each costs a stake.
    penalties = state.penalties[:MAX_REPORT_PENALTIES]
    credited = {receipt.account for penalty in penalties for receipt in penalty.credits}
    slashed = {(penalty.slash.account, penalty.slash.role) for penalty in penalties}
    for oid in state.sealed[:MAX_REPORT_ORDERS]:
        outcome = _outcome_of(state.table[oid])
        accounts = credited | {receipt.account for receipt in outcome.credits}
        stakes = slashed | {(slash.account, slash.role) for slash in outcome.slashes}
        if (orders or penalties) and (len(accounts) > MAX_REPORT_CREDITS or len(stakes) > MAX_REPORT_SLASHES):
            break
        orders.append(oid)
        credited, slashed = accounts, stakes
    releases = _take_releases(draft)
    report = _report(draft.state, tuple(orders), penalties, releases)
    sealed = tuple(oid for oid in state.sealed if oid not in set(orders))
    draft.state = dataclasses.replace(
        draft.state,
        report=report,
        sealed=sealed,
        penalties=state.penalties[len(penalties) :],
        next_update_ms=draft.now_ms + state.parameters["update_s"] * 1000,
    )
    draft.emit(ReportMade(report=report, at_ms=draft.now_ms))


def remake_report(draft: Draft, *, without: bytes | None = None) -> None:
    """Make the pending report again: for another committee epoch, or without a reclaimed order.

    A report that would do nothing any more is dropped; the next one takes its epoch.
    """
    old = draft.state.report
    assert old is not None
    orders = tuple(oid for oid in old.orders if oid != without)
    if not orders and not old.releases and not old.penalties:
        draft.state = dataclasses.replace(draft.state, report=None)
        return
    report = dataclasses.replace(
        _report(draft.state, orders, old.penalties, old.releases), made_ms=old.made_ms
    )
    draft.state = dataclasses.replace(draft.state, report=report)
    draft.emit(ReportMade(report=report, at_ms=draft.now_ms))


def settle(draft: Draft, epoch: int, transaction_hash: bytes, gas_used: int) -> None:
    """The chain applied the report of ``epoch``: drop its orders and keep their receipt roots."""
    state = draft.state
    report = state.report
    assert report is not None and report.epoch == epoch, "the chain settles only what the ledger reported"
    for account, role, amount in report.slashes:
        draft.settle_slash(account, role, amount)
    state = draft.state
    entries = tuple(state.table[oid] for oid in report.orders)
    table, roots = state.table, state.receipt_roots
    for entry in entries:
        table = table.delete(entry.oid)  # type: ignore[attr-defined]
        roots = roots.set(entry.oid, receipt_root(_outcome_of(entry).receipts))  # type: ignore[attr-defined]
    for penalty in report.penalties:
        roots = roots.set(penalty.id, receipt_root(penalty.receipts))  # type: ignore[attr-defined]
    settlement = Settlement(
        report=report,
        entries=tuple((entry.oid, value_hash(entry)) for entry in entries),
        transaction_hash=transaction_hash,
        gas_used=gas_used,
        at_ms=draft.now_ms,
    )
    draft.state = dataclasses.replace(
        state,
        table=table,
        receipt_roots=roots,
        report=None,
        settled_epoch=epoch,
        history=next_history(state.history, settlement),
    )
    draft.emit(ReportSettled(settlement=settlement, entries=entries))


def next_history(history: bytes, settlement: Settlement) -> bytes:
    """The ledger's hash chain after one more settlement."""
    return keccak256(history + value_hash(settlement))


def _outcome_of(entry: Entry) -> Outcome:
    assert entry.outcome is not None, "only sealed orders are reported"
    return entry.outcome


def _report(
    state: State,
    orders: tuple[bytes, ...],
    penalties: tuple[Penalty, ...],
    releases: tuple[tuple[bytes, Role, int], ...],
) -> PendingReport:
    entries = [state.table[oid] for oid in orders]
    outcomes = [_outcome_of(entry) for entry in entries]
    escrow = sum(entry.order.reward + entry.order.deposit for entry in entries)
    credited: dict[bytes, int] = {}
    slashed: dict[tuple[bytes, Role], int] = {}
    receipts = [receipt for outcome in outcomes for receipt in outcome.credits]
    slashes = [slash for outcome in outcomes for slash in outcome.slashes]
    for receipt in (*receipts, *(receipt for penalty in penalties for receipt in penalty.credits)):
        credited[receipt.account] = credited.get(receipt.account, 0) + receipt.amount_wei
    for slash in (*slashes, *(penalty.slash for penalty in penalties)):
        key = (slash.account, slash.role)
        slashed[key] = slashed.get(key, 0) + slash.amount_wei
    assert sum(credited.values()) == escrow + sum(slashed.values()), "a report pays exactly what came in"
    return PendingReport(
        epoch=state.settled_epoch + 1,
        committee_epoch=state.committee.epoch,
        made_ms=state.now_ms,
        orders=tuple(sorted(orders)),
        slashes=tuple((account, role, amount) for (account, role), amount in sorted(slashed.items())),
        releases=releases,
        credits=tuple(sorted(credited.items())),
        penalties=penalties,
    )


def _take_releases(draft: Draft) -> tuple[tuple[bytes, Role, int], ...]:
    """Stake whose unbonding is over and that no lock holds; the rest stays in line."""
    released: dict[tuple[bytes, Role], int] = {}
    waiting = []
    for item in draft.state.unbonding:
        key = (item.account, item.role)
        if item.due_ms > draft.now_ms or (len(released) >= MAX_REPORT_RELEASES and key not in released):
            waiting.append(item)
            continue
        amount = draft.release(item.account, item.role, item.amount_wei)
        if amount:
            released[key] = released.get(key, 0) + amount
        held = min(item.amount_wei - amount, draft.node(item.account).stake(item.role).unbonding)
        if held:
            waiting.append(dataclasses.replace(item, amount_wei=held))
    draft.state = dataclasses.replace(draft.state, unbonding=tuple(waiting))
    return tuple((account, role, amount) for (account, role), amount in sorted(released.items()))


def typed_report(report: PendingReport) -> Report:
    """The EIP-712 struct that members sign, packed as ``Settlement.sol`` reads it."""
    return Report(
        epoch=report.epoch,
        committee_epoch=report.committee_epoch,
        orders=b"".join(report.orders),
        slashes=_pack_stakes(report.slashes),
        releases=_pack_stakes(report.releases),
        credits=b"".join(account + amount.to_bytes(12, "big") for account, amount in report.credits),
    )


def _pack_stakes(items: Iterable[tuple[bytes, Role, int]]) -> bytes:
    return b"".join(
        account + amount.to_bytes(12, "big") + int(role).to_bytes(32, "big")
        for account, role, amount in items
    )


def receipt_root(receipts: Iterable[Receipt]) -> bytes:
    """Merkle root of an order's or a penalty's receipts, which outlives both in the ledger."""
    return root(
        [
            receipt_leaf(item.account, item.oid, item.amount_wei, item.role, item.reason, item.refs)
            for item in receipts
        ]
    )
