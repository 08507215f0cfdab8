"""Putting proposals together: a primary shows hashes, the transactions come from the pool or from peers.

A proposal waits here until all its transactions have arrived. What is missing is asked for at once from
whoever proposed it, and again from everyone; only what was asked for is taken. A proposal that stays
incomplete is never voted for, and the primary that made it is replaced by the timer.

Bodies come in by their hashes: whoever takes them from a peer hashes them once, with `by_hash`.

Bounds: `MAX_ASSEMBLIES` proposals at a time; `MAX_RECENT_BYTES` of transactions from proposals under way,
kept so that others can be given what they lack.

Source: design section 6 ("a batched mempool: bodies spread by whoever receives them, the primary orders
digests").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aggregator.pbft.events import Validate
from aggregator.pbft.messages import Batch
from protocol.crypto import keccak256

MAX_ASSEMBLIES: Final = 256
MAX_RECENT_BYTES: Final = 32 * 1024 * 1024
ASK_AGAIN_MS: Final = 200


def by_hash(transactions: Iterable[bytes]) -> dict[bytes, bytes]:
    """Transactions by their hashes."""
    return {keccak256(data): data for data in transactions}


@dataclass(slots=True)
class _Waiting:
    request: Validate
    bodies: dict[bytes, bytes]
    missing: set[bytes]
    asked_ms: int


@dataclass(slots=True)
class Assembly:
    """Proposals with transactions missing; ``known`` looks a transaction up by its hash."""

    known: Callable[[bytes], bytes | None]
    _waiting: dict[tuple[int, int], _Waiting] = field(default_factory=dict)
    _recent: dict[bytes, bytes] = field(default_factory=dict)
    _recent_bytes: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def start(self, request: Validate, now_ms: int) -> tuple[Batch | None, list[bytes]]:
        """The batch that is proposed, or the hashes of what it lacks; then it waits here."""
        item = _Waiting(request, {}, set(request.outline.transactions), now_ms)
        self._fill(item)
        if not item.missing:
            return self._finish(item), []
        if len(self._waiting) >= MAX_ASSEMBLIES:
            return None, []
        self._waiting[(request.view, request.sequence)] = item
        return None, sorted(item.missing)

    def _fill(self, item: _Waiting) -> None:
        for content in sorted(item.missing):
            data = self.body(content)
            if data is not None:
                item.bodies[content] = data
                item.missing.discard(content)

    def _finish(self, item: _Waiting) -> Batch:
        self.keep(item.bodies)
        return item.request.outline.batch(item.bodies)

    def take(self, bodies: Mapping[bytes, bytes]) -> list[tuple[Validate, Batch]]:
        """Proposals that are complete with these transactions, given by their hashes."""
        for content, data in bodies.items():
            for item in self._waiting.values():
                if content in item.missing:
                    item.bodies[content] = data
                    item.missing.discard(content)
        done = [place for place, item in self._waiting.items() if not item.missing]
        finished = [self._waiting.pop(place) for place in done]
        return [(item.request, self._finish(item)) for item in finished]

    def due(self, view: int, executed: int, now_ms: int) -> list[bytes]:
        """Hashes to ask for again; proposals of other views and of the past are given up."""
        self._waiting = {
            (of, sequence): item
            for (of, sequence), item in self._waiting.items()
            if of == view and sequence > executed
        }
        late = [item for item in self._waiting.values() if now_ms - item.asked_ms >= ASK_AGAIN_MS]
        for item in late:
            item.asked_ms = now_ms
        return sorted(set().union(*(item.missing for item in late)))

    def keep(self, bodies: Mapping[bytes, bytes]) -> None:
        """Remember the transactions of a proposal, given by their hashes, to give them to others."""
        for content, data in bodies.items():
            if content not in self._recent:
                self._recent[content] = data
                self._recent_bytes += len(data)
        while self._recent_bytes > MAX_RECENT_BYTES:
            oldest = next(iter(self._recent))
            self._recent_bytes -= len(self._recent.pop(oldest))

    def body(self, content: bytes) -> bytes | None:
        """A transaction by its hash, if it is here."""
        return self.known(content) or self._recent.get(content)
