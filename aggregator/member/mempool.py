"""Transactions waiting for the committee's order (PoT table 1, ``txPool``); outside consensus.

Bounds: `MAX_TRANSACTIONS` and `MAX_POOL_BYTES` in all and `MAX_PER_SENDER` of one account; a full pool
refuses with a reason instead of dropping what it took. A transaction leaves when it is ordered, or when its
nonce is used up.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
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


class _OneSenders:
    """One sender's waiting transactions by nonce: what is used up is found without a look at the rest."""

    def __init__(self) -> None:
        self.waiting: set[bytes] = set()
        self._by_nonce: list[tuple[int, bytes]] = []
        """A heap; holds what was dropped too, until its nonce is used up or there is too much of it."""

    def add(self, item: Waiting) -> None:
        self.waiting.add(item.tx_id)
        heapq.heappush(self._by_nonce, (item.signed.body.nonce, item.tx_id))
        if len(self._by_nonce) > 2 * MAX_PER_SENDER:
            self._by_nonce = [entry for entry in self._by_nonce if entry[1] in self.waiting]
            heapq.heapify(self._by_nonce)

    def used(self, nonce: int) -> list[bytes]:
        """Ids of those that wait though their nonce is ``nonce`` or less."""
        found = []
        while self._by_nonce and self._by_nonce[0][0] <= nonce:
            tx_id = heapq.heappop(self._by_nonce)[1]
            if tx_id in self.waiting:
                found.append(tx_id)
        return found


class Mempool:
    """Authenticated transactions by id, in order of arrival."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Waiting] = {}
        self._by_content: dict[bytes, Waiting] = {}
        self._by_sender: dict[bytes, _OneSenders] = defaultdict(_OneSenders)
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
        own = self._by_sender.get(sender)
        if own is not None and len(own.waiting) >= MAX_PER_SENDER:
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
        self._by_sender[sender].add(item)

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
        if nonces:
            for sender, own in list(self._by_sender.items()):
                for tx_id in own.used(nonces.get(sender, -1)):
                    self._drop(tx_id)

    def _drop(self, tx_id: bytes) -> None:
        item = self._waiting.pop(tx_id, None)
        if item is not None:
            self._by_content.pop(item.content, None)
            sender = item.signed.body.sender
            self._bytes -= len(item.data)
            own = self._by_sender[sender]
            own.waiting.discard(tx_id)
            if not own.waiting:
                del self._by_sender[sender]
