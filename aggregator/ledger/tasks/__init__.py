"""Task protocols: one file per kind of order, all of one shape.

A task protocol is a table of phases, the transactions it accepts in each, and a settlement function.
It keeps its own state in `Entry.task`; stakes, receipts, time, identity and the chain are the ledger's.
``open`` (Proof of Training) is the first; ``competition`` (WekaCoin), ``search`` (Coin.AI) and
``collaborative`` (PAI) become files beside it and lines in `PROTOCOLS`, and touch nothing else.

Source: design sections 2 and 13.
"""

from __future__ import annotations

from typing import Protocol

from aggregator.ledger.draft import Draft
from aggregator.ledger.state import Entry
from aggregator.ledger.tasks.open import OPEN
from protocol.transactions import OrderTransaction


class TaskProtocol(Protocol):
    """What the ledger asks of a kind of order. All functions are pure but for the draft they write."""

    kind: str
    transactions: frozenset[type[OrderTransaction]]

    def open(self, entry: Entry) -> Entry:
        """The entry with the task state that a new order starts with."""
        ...

    def deadline_ms(self, entry: Entry) -> int | None:
        """Ledger time at which the current phase ends; none once sealed."""
        ...

    def apply(self, draft: Draft, entry: Entry, transaction: OrderTransaction, tx_id: bytes) -> Entry:
        """The entry after one transaction; raises `Refused` to refuse it."""
        ...

    def advance(self, draft: Draft, entry: Entry) -> Entry:
        """The entry after every phase change that is due at the draft's time; seals when all are done."""
        ...

    def abandon(self, draft: Draft, entry: Entry) -> None:
        """Give every lock back: the order left the ledger without being sealed."""
        ...


PROTOCOLS: dict[str, TaskProtocol] = {OPEN.kind: OPEN}
"""The registry of task protocols by order kind."""
