"""The ledger's lists in the order they are shown, kept between requests.

The ledger's maps are persistent and unordered: a list is sorted anew only when its map has changed, and at
most `SHARE` of the time goes into sorting. Under a fast ledger a list may therefore lie a little behind; its
sequence number says how far.
"""

from __future__ import annotations

import bisect
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from aggregator.api import views
from aggregator.api.reading import Key
from aggregator.ledger.state import Entry, Receipt, Settlement
from aggregator.node import Aggregator

SHARE: Final = 0.05
"""Of the process's time, what sorting may take."""
FREE_S: Final = 0.002
"""Sorting that takes no longer is done whenever something changed."""

Row = tuple[Key, Any]


class Sorted:
    """One sorted list over something that changes by being replaced."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.sequence = 0
        """The ledger's sequence number when the list was last right."""
        self._clock = clock
        self._source: tuple[Any, ...] = ()
        self._keys: list[Key] = []
        self._rows: list[Any] = []
        self._not_before_s = float("-inf")

    def refresh(self, source: tuple[Any, ...], sequence: int, build: Callable[[], list[Row]]) -> None:
        """Sort again if ``source`` is not what it was, unless that was done just now."""
        same = len(source) == len(self._source) and all(
            a is b for a, b in zip(source, self._source, strict=True)
        )
        if same:
            self.sequence = sequence
            return
        started_s = self._clock()
        if started_s < self._not_before_s:
            return
        rows = sorted(build(), key=lambda row: row[0])
        self._keys, self._rows = [row[0] for row in rows], [row[1] for row in rows]
        self._source, self.sequence = source, sequence
        took_s = self._clock() - started_s
        if took_s > FREE_S:
            self._not_before_s = started_s + took_s / SHARE

    def after(self, key: Key | None) -> Iterator[Row]:
        """The rows behind ``key``, all of them if it is none."""
        start = 0 if key is None else bisect.bisect_right(self._keys, key)
        for place in range(start, len(self._keys)):
            yield self._keys[place], self._rows[place]


class Listing:
    """All lists of one aggregator's ledger."""

    def __init__(self, node: Aggregator) -> None:
        self._node = node
        self._running, self._settled, self._nodes, self._pending = Sorted(), Sorted(), Sorted(), Sorted()

    def orders(self, after: Key | None) -> tuple[int, Iterator[tuple[Key, tuple[Entry, int | None]]]]:
        """Running orders by reward rate, then settled ones, latest first; and as of which sequence number.

        A row is an entry and the epoch that settled it. Keys are (0, -rate, OID) and (1, -epoch, OID).
        """
        state, archive = self._node.state, self._node.archive
        self._running.refresh(
            (state.table,),
            state.sequence,
            lambda: [((0, -views.reward_rate(e), e.oid.hex()), (e, None)) for e in state.table.values()],
        )
        self._settled.refresh(
            (archive, archive.latest),
            state.sequence,
            lambda: [((1, -epoch, e.oid.hex()), (e, epoch)) for e, epoch in archive.entries.values()],
        )
        sequence = min(self._running.sequence, self._settled.sequence)
        return sequence, itertools.chain(self._running.after(after), self._settled.after(after))

    def nodes(self, after: Key | None) -> tuple[int, Iterator[tuple[Key, bytes]]]:
        """Accounts of registered nodes, ascending; and as of which sequence number."""
        state = self._node.state
        self._nodes.refresh(
            (state.nodes,),
            state.sequence,
            lambda: [((account.hex(),), account) for account in state.nodes],
        )
        return self._nodes.sequence, self._nodes.after(after)

    def settlements(self, after: Key | None) -> Iterator[tuple[Key, Settlement]]:
        """Settlements, latest first. Key: (-epoch,). Epochs are consecutive, so nothing is sorted."""
        kept = self._node.archive.settlements
        latest = next(reversed(kept), 0)
        start = latest if after is None else min(latest, -int(after[0]) - 1)
        return (((-epoch,), kept[epoch]) for epoch in range(start, 0, -1) if epoch in kept)

    def pending(self, account: bytes) -> tuple[int, list[Receipt]]:
        """Receipts of an account that no settlement has paid yet; and as of which sequence number."""
        state = self._node.state
        penalties = (*(state.report.penalties if state.report else ()), *state.penalties)
        self._pending.refresh(
            (state.table, state.report, state.penalties),
            state.sequence,
            lambda: [
                ((receipt.account.hex(), number, place), receipt)
                for number, source in enumerate(
                    [*(state.table[oid].outcome for oid in sorted(state.table)), *penalties]
                )
                if source is not None
                for place, receipt in enumerate(source.receipts)
            ],
        )
        found: list[Receipt] = []
        for _, receipt in self._pending.after((account.hex(),)):
            if receipt.account != account or len(found) >= views.MAX_PENDING:
                break
            found.append(receipt)
        return self._pending.sequence, found
