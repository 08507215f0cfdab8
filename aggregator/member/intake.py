"""Forwarded transactions that nobody has looked at yet: one bounded queue per member, served in turns.

To look at a transaction takes a signature, some hundred times what it takes to read a vote. So transactions
stand here, in small turns between rounds of votes, however many are forwarded; and a proposal that names one
finds it by its hash meanwhile, instead of fetching it.

Bounds: `MAX_WAITING_BYTES` per member. What finds no room is dropped and counted: whoever took it in from the
public forwards it again, and whoever is shown a proposal with it fetches it.

Source: design section 6 ("bodies are spread by whoever receives them"), section 11.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from protocol.crypto import keccak256

MAX_WAITING_BYTES: Final = 2 * 1024 * 1024
"""Per member: some seconds' work."""
OVERHEAD_BYTES: Final = 200
"""What the smallest transaction weighs here beside its own bytes."""


class Intake:
    """Transactions that other members forwarded, each once, in the order of their turns."""

    def __init__(self) -> None:
        self._queues: dict[int, deque[bytes]] = {}
        """Per member, the hashes of what it forwarded."""
        self._bodies: dict[bytes, bytes] = {}
        self._weights: Counter[int] = Counter()
        self._turns: deque[int] = deque()
        """Members with something in their queue."""

    def __len__(self) -> int:
        return len(self._bodies)

    @property
    def lanes(self) -> int:
        """How many members have something in their queue."""
        return len(self._turns)

    def put(self, sender: int, items: Iterable[bytes]) -> int:
        """Queue what a member forwarded; how much of it found no room."""
        dropped = 0
        queue = self._queues.setdefault(sender, deque())
        had_turn = bool(queue)
        for data in items:
            weight = len(data) + OVERHEAD_BYTES
            if self._weights[sender] + weight > MAX_WAITING_BYTES:
                dropped += 1
                continue
            content = keccak256(data)
            if content not in self._bodies:
                self._bodies[content] = data
                self._weights[sender] += weight
                queue.append(content)
        if queue and not had_turn:
            self._turns.append(sender)
        return dropped

    def take(self, limit: int) -> tuple[int, list[bytes]] | None:
        """Up to ``limit`` transactions of the member whose turn it is; none if all queues are empty."""
        if not self._turns:
            return None
        sender = self._turns.popleft()
        queue = self._queues[sender]
        taken = [self._bodies.pop(queue.popleft()) for _ in range(min(limit, len(queue)))]
        self._weights[sender] -= sum(map(len, taken)) + OVERHEAD_BYTES * len(taken)
        if queue:
            self._turns.append(sender)
        return sender, taken

    def body(self, content: bytes) -> bytes | None:
        """The queued transaction with this hash."""
        return self._bodies.get(content)
