"""What an aggregator tells traces of orders: phases, transactions ordered, settlements (`protocol.tracing`).

Told from outside of what consensus runs: it looks at what a batch did after it was applied, and changes
nothing. Every member tells its own view; the resource's ``service.instance.id`` says which one it is.
"""

from __future__ import annotations

from typing import Final

from aggregator.ledger.events import LedgerEvent, OrderSealed, OrderTaken, PhaseEntered, ReportSettled
from aggregator.ledger.state import State
from aggregator.ledger.transition import Applied, authenticated
from aggregator.pbft.messages import Committed
from protocol import tracing
from protocol.errors import ProtocolError
from protocol.transactions import OrderTransaction
from protocol.typed_data import Domain

MAX_FOLLOWED: Final = 10_000
"""Orders whose phases are followed at once; of more, the oldest are followed no longer."""


class OrderTraces:
    """Follows the orders of one member's ledger."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._phases: dict[bytes, tuple[str, int]] = {}
        """By OID the phase that an order is in, and since when."""

    def applied(self, committed: Committed, applied: Applied) -> None:
        """Record what a batch did."""
        codes = {result.tx_id: result.code for result in applied.results}
        for data in committed.batch.transactions:
            try:
                signed, tx_id = authenticated(self._domain, data)
            except ProtocolError:
                continue
            if isinstance(signed.body, OrderTransaction):
                tracing.record(
                    f"order {type(signed.body).__name__}",
                    signed.body.oid,
                    committed.batch.timestamp_ms,
                    tx="0x" + tx_id.hex(),
                    sequence=committed.sequence,
                    code=codes.get(tx_id, ""),
                )
        for event in applied.events:
            self._event(event, applied.state)

    def _event(self, event: LedgerEvent, state: State) -> None:
        match event:
            case OrderTaken(oid=oid, at_ms=at_ms):
                entry = state.table.get(oid)
                # Anybody may put an order of a kind that no task protocol knows; it has no phases.
                if entry is not None and entry.task is not None:
                    self._entered(oid, entry.task.phase, at_ms)
            case PhaseEntered(oid=oid, phase=phase, at_ms=at_ms):
                self._left(oid, at_ms)
                self._entered(oid, phase, at_ms)
            case OrderSealed(oid=oid):
                self._phases.pop(oid, None)  # nothing follows on "sealed" but the settlement
            case ReportSettled(settlement=settlement):
                report = settlement.report
                for oid in report.orders:
                    tx = "0x" + settlement.transaction_hash.hex()
                    tracing.record("settle", oid, report.made_ms, settlement.at_ms, epoch=report.epoch, tx=tx)
            case _:
                pass

    def _entered(self, oid: bytes, phase: str, at_ms: int) -> None:
        if len(self._phases) >= MAX_FOLLOWED:
            del self._phases[next(iter(self._phases))]
        self._phases[oid] = (phase, at_ms)

    def _left(self, oid: bytes, at_ms: int) -> None:
        before = self._phases.pop(oid, None)
        if before is not None:
            phase, since_ms = before
            tracing.record(f"phase {phase}", oid, since_ms, at_ms)
