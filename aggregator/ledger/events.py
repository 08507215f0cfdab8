"""What the ledger reports of its own changes, for read models, logs and people; never for consensus."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.ledger.state import Entry, Penalty, PendingReport, Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTaken:
    """An order entered the network record table."""

    oid: bytes
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEntered:
    """An order moved to another phase."""

    oid: bytes
    phase: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSealed:
    """Winner, receipts and slashes of an order are fixed."""

    oid: bytes
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PenaltyImposed:
    """An aggregator that contradicted itself lost stake."""

    penalty: Penalty
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMade:
    """The settlement of an update cycle is ready to be signed."""

    report: PendingReport
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettled:
    """The chain applied a report; ``entries`` are the orders that the ledger drops with it."""

    settlement: Settlement
    entries: tuple[Entry, ...]


LedgerEvent = OrderTaken | PhaseEntered | OrderSealed | PenaltyImposed | ReportMade | ReportSettled
