"""Manage.Update: what one update cycle sends to the chain (PoT 3.3.4).

At the end of a cycle the ledger makes one report from the orders sealed so far and the stake whose
unbonding is over. Members sign it and the contracts check and apply it; the ledger learns of that from
the chain and only then drops the orders. There is never more than one report under way, and making it
again gives the same bytes, so nothing can be paid twice.

Guarantee: the credits of a report equal the escrow of its orders plus its slashes, exactly; the contract
checks the same sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from aggregator.ledger.draft import Draft
from aggregator.ledger.events import ReportMade, ReportSettled
from aggregator.ledger.state import Entry, PendingReport, Receipt, State
from protocol.crypto import keccak256
from protocol.merkle import root
from protocol.roles import Role
from protocol.transactions import Report

MAX_REPORT_ORDERS = 200
MAX_REPORT_CREDITS = 2000
"""Together they keep a settlement well under 2^24 gas; what is left over waits for the next cycle."""


def is_due(state: State) -> bool:
    """Whether the ledger should make a report now."""
    if state.report is not None or not state.committee.members or state.now_ms < state.next_update_ms:
        return False
    return bool(state.sealed) or any(item.due_ms <= state.now_ms for item in state.unbonding)


def make_report(draft: Draft) -> None:
    """Make the cycle's report and start the next cycle."""
    state = draft.state
    orders: list[bytes] = []
    credited: set[bytes] = set()
    for oid in state.sealed[:MAX_REPORT_ORDERS]:
        accounts = {receipt.account for receipt in _credits_of(state.table[oid])}
        if orders and len(credited | accounts) > MAX_REPORT_CREDITS:
            break
        orders.append(oid)
        credited |= accounts
    releases = _take_releases(draft)
    report = _report(draft.state, tuple(orders), releases)
    sealed = tuple(oid for oid in state.sealed if oid not in set(orders))
    draft.state = dataclasses.replace(
        draft.state,
        report=report,
        sealed=sealed,
        next_update_ms=draft.now_ms + state.parameters["update_s"] * 1000,
    )
    draft.emit(ReportMade(report=report, at_ms=draft.now_ms))


def remake_report(draft: Draft, *, without: bytes | None = None) -> None:
    """Make the pending report again: for another committee epoch, or without a reclaimed order."""
    old = draft.state.report
    assert old is not None
    orders = tuple(oid for oid in old.orders if oid != without)
    report = dataclasses.replace(_report(draft.state, orders, old.releases), made_ms=old.made_ms)
    draft.state = dataclasses.replace(draft.state, report=report)
    draft.emit(ReportMade(report=report, at_ms=draft.now_ms))


def settle(draft: Draft, epoch: int, transaction_hash: bytes, gas_used: int) -> None:
    """The chain applied the report of ``epoch``: drop its orders and keep their receipt roots."""
    state = draft.state
    report = state.report
    assert report is not None and report.epoch == epoch, "the chain settles only what the ledger reported"
    entries = tuple(state.table[oid] for oid in report.orders)
    table, roots = state.table, state.receipt_roots
    for entry in entries:
        table = table.delete(entry.oid)  # type: ignore[attr-defined]
        roots = roots.set(entry.oid, receipt_root(entry))  # type: ignore[attr-defined]
    draft.state = dataclasses.replace(
        state, table=table, receipt_roots=roots, report=None, settled_epoch=epoch
    )
    draft.emit(
        ReportSettled(
            report=report,
            entries=entries,
            transaction_hash=transaction_hash,
            gas_used=gas_used,
            at_ms=draft.now_ms,
        )
    )


def _credits_of(entry: Entry) -> tuple[Receipt, ...]:
    assert entry.outcome is not None, "only sealed orders are reported"
    return entry.outcome.credits


def _report(
    state: State, orders: tuple[bytes, ...], releases: tuple[tuple[bytes, Role, int], ...]
) -> PendingReport:
    credited: dict[bytes, int] = {}
    slashed: dict[tuple[bytes, Role], int] = {}
    escrow = 0
    for oid in orders:
        entry = state.table[oid]
        escrow += entry.order.reward + entry.order.deposit
        for receipt in _credits_of(entry):
            credited[receipt.account] = credited.get(receipt.account, 0) + receipt.amount_wei
        assert entry.outcome is not None
        for slash in entry.outcome.slashes:
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
    )


def _take_releases(draft: Draft) -> tuple[tuple[bytes, Role, int], ...]:
    """Stake whose unbonding is over and that no lock holds; the rest stays in line."""
    released: dict[tuple[bytes, Role], int] = {}
    waiting = []
    for item in draft.state.unbonding:
        if item.due_ms > draft.now_ms:
            waiting.append(item)
            continue
        amount = draft.release(item.account, item.role, item.amount_wei)
        if amount:
            key = (item.account, item.role)
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


def receipt_leaf(receipt: Receipt) -> bytes:
    """Merkle leaf of a receipt."""
    parts = (
        receipt.account,
        receipt.oid,
        receipt.amount_wei.to_bytes(32, "big", signed=True),
        keccak256(receipt.role.encode()),
        keccak256(receipt.reason.encode()),
        keccak256(b"".join(receipt.refs)),
    )
    return keccak256(keccak256(b"".join(parts)))


def receipt_root(entry: Entry) -> bytes:
    """Merkle root of an order's receipts, which outlives the order in the ledger."""
    assert entry.outcome is not None
    return root([receipt_leaf(receipt) for receipt in entry.outcome.receipts])
