"""What the ledger has dropped but people still ask for: settled orders, receipts, settlements.

A read model: built from ledger events alone and never part of consensus. The ledger keeps a hash chain over
all settlements (`State.history`), so an archive that comes from a snapshot or from another member is held
against it and taken whole or not at all. Orders are bounded by `MAX_SETTLED_ORDERS`; older ones are forgotten
here (their receipt roots stay in the ledger). An account's question costs as much as its own settlements, not
as much as everybody's.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterator
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


Place = tuple[int, bytes, int]
"""Where a receipt stands: the epoch that paid it, its order or penalty, its number there."""


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
    latest: Settlement | None = None
    _epochs: dict[bytes, list[int]] = field(default_factory=dict)
    """Per account the epochs that credited it."""
    _paid: dict[bytes, list[Place]] = field(default_factory=dict)
    """Per account the orders that credited or debited it, oldest first."""
    _punished: dict[bytes, list[Place]] = field(default_factory=dict)
    """The same for penalties."""

    def listen(self, events: tuple[LedgerEvent, ...]) -> None:
        """Take in what one batch did."""
        for event in events:
            if isinstance(event, ReportSettled):
                self._add(event.settlement, event.entries)

    def _add(self, settlement: Settlement, entries: tuple[Entry, ...]) -> None:
        epoch = settlement.report.epoch
        self.settlements[epoch] = self.latest = settlement
        for account, _ in settlement.report.credits:
            self._epochs.setdefault(account, []).append(epoch)
        for entry in sorted(entries, key=lambda entry: entry.oid):
            self.entries[entry.oid] = (entry, epoch)
            for number, receipt in enumerate(_receipts(entry)):
                self._paid.setdefault(receipt.account, []).append((epoch, entry.oid, number))
        for penalty in sorted(settlement.report.penalties, key=lambda penalty: penalty.id):
            for number, receipt in enumerate(penalty.receipts):
                self._punished.setdefault(receipt.account, []).append((epoch, penalty.id, number))
        while len(self.entries) > MAX_SETTLED_ORDERS:
            self._forget(self.entries.pop(next(iter(self.entries)))[0])

    def _forget(self, entry: Entry) -> None:
        """Orders leave oldest first, so what an account knows of one stands at the front of its list."""
        for receipt in _receipts(entry):
            places = self._paid[receipt.account]
            del places[0]
            if not places:
                del self._paid[receipt.account]

    def receipts_of(
        self, account: bytes, before: Place | None = None
    ) -> Iterator[tuple[Place, Receipt, Settlement]]:
        """An account's settled receipts, latest first, each with its place and the settlement that paid it.

        With ``before`` only those at lower places: what comes after a page that ended there.
        """

        def latest_first(places: list[Place]) -> Iterator[Place]:
            end = len(places) if before is None else bisect.bisect_left(places, before)
            return (places[number] for number in range(end - 1, -1, -1))

        ways = (latest_first(index.get(account, [])) for index in (self._paid, self._punished))
        for place in heapq.merge(*ways, reverse=True):
            epoch, source, number = place
            settlement = self.settlements[epoch]
            if source in self.entries:
                receipts = _receipts(self.entries[source][0])
            else:
                receipts = next(p.receipts for p in settlement.report.penalties if p.id == source)
            yield place, receipts[number], settlement

    def credits_of(self, account: bytes, after: int = 0) -> Iterator[tuple[int, int, list[bytes]]]:
        """What ``Settlement.claim`` needs of every credit after an epoch: epoch, amount in wei, Merkle proof.

        A proof hashes all credits of its epoch: whoever serves it bounds how many are taken.
        """
        epochs = self._epochs.get(account, [])
        for epoch in epochs[bisect.bisect_right(epochs, after) :]:
            paid = self.settlements[epoch].report.credits
            index = next(place for place, (who, _) in enumerate(paid) if who == account)
            leaves = [credit_leaf(who, amount) for who, amount in paid]
            yield epoch, paid[index][1], list(proof(leaves, index))

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


def _receipts(entry: Entry) -> tuple[Receipt, ...]:
    return entry.outcome.receipts if entry.outcome is not None else ()
