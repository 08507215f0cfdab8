"""What the ledger has dropped but people still ask for: settled orders, receipts, settlements.

A read model: built from ledger events alone and never part of consensus. The ledger keeps a hash chain over
all settlements (`State.history`), so an archive that comes from a snapshot or from another member is held
against it and taken whole or not at all. Orders are bounded by `MAX_SETTLED_ORDERS`; older ones are forgotten
here (their receipt roots stay in the ledger). An account's question costs as much as its own settlements, not
as much as everybody's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aggregator.ledger import codec
from aggregator.ledger.events import LedgerEvent, ReportSettled
from aggregator.ledger.root import value_hash
from aggregator.ledger.settlement import next_history
from aggregator.ledger.state import Entry, Receipt, Settlement
from protocol.errors import InvalidEncoding
from protocol.merkle import credit_leaf, proof

MAX_SETTLED_ORDERS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """An archive as it is stored."""

    settlements: tuple[Settlement, ...]
    entries: tuple[Entry, ...]


@dataclass(slots=True)
class Archive:
    """Settled orders by OID and settlements by epoch; both oldest first."""

    entries: dict[bytes, tuple[Entry, int]] = field(default_factory=dict)
    """Settled entry and the epoch that paid it."""
    settlements: dict[int, Settlement] = field(default_factory=dict)
    """All of them are kept: whoever has not claimed yet needs a proof from theirs."""
    _epochs: dict[bytes, list[int]] = field(default_factory=dict)
    """Per account the epochs that credited it."""

    def listen(self, events: tuple[LedgerEvent, ...]) -> None:
        """Take in what one batch did."""
        for event in events:
            if isinstance(event, ReportSettled):
                self._add(event.settlement, event.entries)

    def _add(self, settlement: Settlement, entries: tuple[Entry, ...]) -> None:
        epoch = settlement.report.epoch
        self.settlements[epoch] = settlement
        for account, _ in settlement.report.credits:
            self._epochs.setdefault(account, []).append(epoch)
        for entry in entries:
            self.entries[entry.oid] = (entry, epoch)
        while len(self.entries) > MAX_SETTLED_ORDERS:
            del self.entries[next(iter(self.entries))]

    def receipts_of(self, account: bytes) -> list[tuple[Receipt, Settlement]]:
        """An account's settled receipts with the settlement that paid them: of orders, then of penalties."""
        of_orders = (
            (receipt, self.settlements[epoch])
            for entry, epoch in self.entries.values()
            if entry.outcome is not None
            for receipt in entry.outcome.receipts
        )
        of_penalties = (
            (receipt, settlement)
            for settlement in self.settlements.values()
            for penalty in settlement.report.penalties
            for receipt in penalty.receipts
        )
        return [pair for pair in (*of_orders, *of_penalties) if pair[0].account == account]

    def credits_of(self, account: bytes) -> list[tuple[int, int, list[bytes]]]:
        """What ``Settlement.claim`` needs: epoch, amount in wei and Merkle proof of every credit."""
        found = []
        for epoch in self._epochs.get(account, ()):
            paid = self.settlements[epoch].report.credits
            index = next(place for place, (who, _) in enumerate(paid) if who == account)
            leaves = [credit_leaf(who, amount) for who, amount in paid]
            found.append((epoch, paid[index][1], list(proof(leaves, index))))
        return found

    def encode(self, epoch: int) -> bytes:
        """The archive as it was after the settlement of ``epoch``, as bytes."""
        kept = _Kept(
            settlements=tuple(s for s in self.settlements.values() if s.report.epoch <= epoch),
            entries=tuple(entry for entry, settled in self.entries.values() if settled <= epoch),
        )
        return codec.encode(kept)

    @classmethod
    def decode(cls, data: bytes, history: bytes) -> Archive:
        """The archive in ``data``, if it is the one that a ledger with this ``history`` has dropped.

        Raises:
            InvalidEncoding: it is not.
        """
        kept = codec.decode(_Kept, data)
        entries = {entry.oid: entry for entry in kept.entries}
        archive, chain = cls(), bytes(32)
        for settlement in kept.settlements:
            chain = next_history(chain, settlement)
            present = [(entries.pop(oid), digest) for oid, digest in settlement.entries if oid in entries]
            if any(value_hash(entry) != digest for entry, digest in present):
                raise InvalidEncoding("an order in the archive is not the one that was settled")
            archive._add(settlement, tuple(entry for entry, _ in present))
        if chain != history or entries:
            raise InvalidEncoding("the archive is not the one of this ledger")
        return archive
