"""What the last batches did, for whoever follows the ledger live: a bounded ring, filled on the way past.

A read model, never part of consensus. `note` costs the replica a few references per batch; what they say is
put into words only when somebody listens (`aggregator.api.feed`).

Guarantees: `Deed.sequence` rises by one; a member that skipped batches (it took the ledger over from another)
forgets what came before, so that nothing here has a hole. Bounded by `MAX_DEEDS` and `MAX_DEED_BYTES`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aggregator.ledger.events import LedgerEvent
from aggregator.ledger.transition import ACCEPTED, Applied

MAX_DEEDS: Final = 16_384
"""Batches that did something and are remembered."""
MAX_DEED_BYTES: Final = 16 * 1024 * 1024
"""Bytes of the transactions in them."""


@dataclass(slots=True)
class Deed:
    """What one batch did, if it did anything."""

    sequence: int
    at_ms: int
    """Ledger time of the batch."""
    transactions: tuple[tuple[bytes, bytes], ...]
    """Id and encoding of every accepted transaction, in the order of the batch."""
    events: tuple[LedgerEvent, ...]
    size_bytes: int

    @property
    def count(self) -> int:
        """Its events: one per transaction, then the ledger's own."""
        return len(self.transactions) + len(self.events)


class History:
    """The deeds of the batches in ``(floor, top]``; what a batch there is missing from did nothing."""

    def __init__(self) -> None:
        self.floor = 0
        """Up to here nothing is known any more."""
        self.top = 0
        self.deeds: deque[Deed] = deque()
        self.on_news: Callable[[], None] | None = None
        """Called after a batch that did something; must return at once."""
        self._bytes = 0

    def note(self, sequence: int, transactions: tuple[bytes, ...], applied: Applied) -> None:
        """Remember what batch ``sequence`` did with its ``transactions``."""
        if sequence != self.top + 1:
            self.deeds.clear()
            self._bytes = 0
            self.floor = sequence - 1
        self.top = sequence
        accepted = tuple(
            (result.tx_id, data)
            for result, data in zip(applied.results, transactions, strict=True)
            if result.code == ACCEPTED
        )
        if not accepted and not applied.events:
            return
        size = sum(len(data) for _, data in accepted)
        self.deeds.append(Deed(sequence, applied.state.now_ms, accepted, applied.events, size))
        self._bytes += size
        while len(self.deeds) > MAX_DEEDS or self._bytes > MAX_DEED_BYTES:
            oldest = self.deeds.popleft()
            self.floor = oldest.sequence
            self._bytes -= oldest.size_bytes
        if self.on_news is not None:
            self.on_news()
