"""What a batch did to orders, as log lines: with the order's id and the batch's, so that processes join.

One line per change of an order or settlement, at INFO; one per transaction, at DEBUG. Costs nothing where
nobody listens.
"""

from __future__ import annotations

import logging

from aggregator.ledger.events import (
    LedgerEvent,
    OrderSealed,
    OrderTaken,
    PenaltyImposed,
    PhaseEntered,
    ReportMade,
    ReportSettled,
)
from aggregator.ledger.transition import Applied
from protocol.logs import about

log = logging.getLogger(__name__)


def tell(sequence: int, applied: Applied) -> None:
    """Log what the batch ``sequence`` did."""
    if not log.isEnabledFor(logging.INFO):
        return
    with about(sequence=sequence):
        for event in applied.events:
            _tell_event(sequence, event)
        if log.isEnabledFor(logging.DEBUG):
            for result in applied.results:
                with about(tx="0x" + result.tx_id.hex()):
                    log.debug("batch %d: transaction 0x%s: %s", sequence, result.tx_id.hex(), result.code)


def _tell_event(sequence: int, event: LedgerEvent) -> None:
    match event:
        case OrderTaken(oid=oid):
            _of_order(oid, "batch %d takes order 0x%s in", sequence, oid.hex())
        case PhaseEntered(oid=oid, phase=phase):
            _of_order(oid, "batch %d: order 0x%s enters phase %s", sequence, oid.hex(), phase)
        case OrderSealed(oid=oid):
            _of_order(oid, "batch %d seals order 0x%s", sequence, oid.hex())
        case ReportMade(report=report):
            with about(epoch=report.epoch):
                log.info("batch %d: settlement %d waits for signatures", sequence, report.epoch)
        case ReportSettled(settlement=settlement, entries=entries):
            for entry in entries:
                with about(epoch=settlement.report.epoch):
                    _of_order(
                        entry.oid, "settlement %d pays order 0x%s", settlement.report.epoch, entry.oid.hex()
                    )
        case PenaltyImposed():
            log.warning("batch %d: an aggregator lost stake for contradicting itself", sequence)


def _of_order(oid: bytes, text: str, *arguments: object) -> None:
    with about(oid="0x" + oid.hex()):
        log.info(text, *arguments)
