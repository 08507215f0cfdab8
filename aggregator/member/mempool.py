"""Transactions waiting for the committee's order (PoT table 1, ``txPool``); outside consensus.

Bounds: `MAX_TRANSACTIONS` and `MAX_POOL_BYTES` in all and `MAX_PER_SENDER` of one account; a full pool
refuses with a reason instead of dropping what it took. A transaction leaves when it is ordered, or when its
nonce is used up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from protocol.transactions import SignedTransaction

MAX_TRANSACTIONS: Final = 20_000
MAX_PER_SENDER: Final = 256
MAX_POOL_BYTES: Final = 64 * 1024 * 1024
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A transaction that was authenticated here."""

    tx_id: bytes
    content: bytes
    """Keccak-256 of ``data``: what a proposal names it by."""
    data: bytes
    signed: SignedTransaction
    arrived_ms: int


class PoolFull(Exception):
    """The pool cannot take the transaction now; the sender may try again later."""


class Mempool:
    """Authenticated transactions by id, in order of arrival."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Waiting] = {}
        self._by_content: dict[bytes, Waiting] = {}
        self._per_sender: Counter[bytes] = Counter()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, tx_id: bytes) -> bool:
        return tx_id in self._waiting

    def body(self, content: bytes) -> bytes | None:
        """The waiting transaction with this hash."""
        item = self._by_content.get(content)
        return item.data if item is not None else None

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the transaction that has waited longest."""
        return next((item.arrived_ms for item in self._waiting.values()), None)

    def oldest(self, before_ms: int, limit: int) -> list[Waiting]:
        """Up to ``limit`` transactions that arrived before ``before_ms``, oldest first."""
        found: list[Waiting] = []
        for item in self._waiting.values():
            if item.arrived_ms >= before_ms or len(found) == limit:
                break
            found.append(item)
        return found

    def require_room(self, sender: bytes, size: int) -> None:
        """Raise `PoolFull` unless ``size`` bytes of ``sender`` would find room now."""
        if self._per_sender.get(sender, 0) >= MAX_PER_SENDER:
            raise PoolFull(f"{MAX_PER_SENDER} of your transactions are waiting; try again in a few seconds")
        if len(self._waiting) >= MAX_TRANSACTIONS or self._bytes + size > MAX_POOL_BYTES:
            raise PoolFull("too many transactions are waiting; try again in a few seconds")

    def add(self, item: Waiting) -> None:
        """Take a transaction in; a repeated one changes nothing.

        Raises:
            PoolFull: no room in all, or for this sender.
        """
        if item.tx_id in self._waiting:
            return
        sender = item.signed.body.sender
        self.require_room(sender, len(item.data))
        self._waiting[item.tx_id] = self._by_content[item.content] = item
        self._bytes += len(item.data)
        self._per_sender[sender] += 1

    def select(self, exclude: set[bytes], limit: int) -> list[Waiting]:
        """Up to ``limit`` transactions for a batch: by arrival, but each sender's by nonce.

        ``exclude`` holds ids that are in batches under way.
        """
        chosen: list[Waiting] = []
        size = 0
        for item in self._waiting.values():
            if len(chosen) == limit or size + len(item.data) > MAX_BATCH_BYTES:
                break
            if item.tx_id not in exclude:
                chosen.append(item)
                size += len(item.data)
        first: dict[bytes, int] = {}
        for position, item in enumerate(chosen):
            first.setdefault(item.signed.body.sender, position)
        return sorted(chosen, key=lambda item: (first[item.signed.body.sender], item.signed.body.nonce))

    def forget(self, ids: Iterable[bytes], nonces: Mapping[bytes, int]) -> None:
        """Drop ordered transactions and those whose nonce their sender has used up."""
        for tx_id in ids:
            self._drop(tx_id)
        stale = [
            item.tx_id
            for item in self._waiting.values()
            if item.signed.body.nonce <= nonces.get(item.signed.body.sender, -1)
        ]
        for tx_id in stale:
            self._drop(tx_id)

    def _drop(self, tx_id: bytes) -> None:
        item = self._waiting.pop(tx_id, None)
        if item is not None:
            self._by_content.pop(item.content, None)
            sender = item.signed.body.sender
            self._bytes -= len(item.data)
            self._per_sender[sender] -= 1
            if not self._per_sender[sender]:
                del self._per_sender[sender]
