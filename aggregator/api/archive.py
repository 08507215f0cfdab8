"""What the ledger has dropped but people still ask for: settled orders, receipts, settlements.

A read model: built from ledger events alone, rebuilt by replaying the journal, never part of consensus.
Orders are bounded by `MAX_SETTLED_ORDERS`; older ones are forgotten here (their receipt roots stay in the
ledger). An account's question costs as much as its own settlements, not as much as everybody's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aggregator.ledger.events import LedgerEvent, ReportSettled
from aggregator.ledger.state import Entry, PendingReport, Receipt, State
from protocol.merkle import credit_leaf, proof

MAX_SETTLED_ORDERS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A report that the chain applied."""

    report: PendingReport
    transaction_hash: bytes
    gas_used: int
    at_ms: int


@dataclass(slots=True)
class Archive:
    """Settled orders by OID and settlements by epoch; both oldest first."""

    entries: dict[bytes, tuple[Entry, int]] = field(default_factory=dict)
    """Settled entry and the epoch that paid it."""
    settlements: dict[int, Settlement] = field(default_factory=dict)
    """All of them are kept: whoever has not claimed yet needs a proof from theirs."""
    _epochs: dict[bytes, list[int]] = field(default_factory=dict)
    """Per account the epochs that credited it."""

    def listen(self, state: State, events: tuple[LedgerEvent, ...]) -> None:
        """Take in what one batch did."""
        for event in events:
            if not isinstance(event, ReportSettled):
                continue
            self.settlements[event.report.epoch] = Settlement(
                report=event.report,
                transaction_hash=event.transaction_hash,
                gas_used=event.gas_used,
                at_ms=event.at_ms,
            )
            for account, _ in event.report.credits:
                self._epochs.setdefault(account, []).append(event.report.epoch)
            for entry in event.entries:
                self.entries[entry.oid] = (entry, event.report.epoch)
            while len(self.entries) > MAX_SETTLED_ORDERS:
                del self.entries[next(iter(self.entries))]

    def receipts_of(self, account: bytes) -> list[tuple[Receipt, Settlement]]:
        """An account's settled receipts with the settlement that paid them, oldest first."""
        return [
            (receipt, self.settlements[epoch])
            for entry, epoch in self.entries.values()
            if entry.outcome is not None
            for receipt in entry.outcome.receipts
            if receipt.account == account
        ]

    def credits_of(self, account: bytes) -> list[tuple[int, int, list[bytes]]]:
        """What ``Settlement.claim`` needs: epoch, amount in wei and Merkle proof of every credit."""
        found = []
        for epoch in self._epochs.get(account, ()):
            paid = self.settlements[epoch].report.credits
            index = next(place for place, (who, _) in enumerate(paid) if who == account)
            leaves = [credit_leaf(who, amount) for who, amount in paid]
            found.append((epoch, paid[index][1], list(proof(leaves, index))))
        return found
