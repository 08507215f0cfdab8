"""One bounded queue per member, served in turns: who sends much fills its own and delays nobody else."""

from __future__ import annotations

from collections import Counter, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """What members sent, each member's in order, and whose turn it is."""

    def __init__(self, most_bytes: int, most: int | None = None) -> None:
        self._most_bytes, self._most = most_bytes, most
        """Per member."""
        self._queues: dict[int, deque[tuple[Item, int]]] = {}
        self._weights: Counter[int] = Counter()
        self._turns: deque[int] = deque()
        """Members with something in their queue."""

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def members(self) -> int:
        """How many members have something in their queue."""
        return len(self._turns)

    def put(self, sender: int, item: Item, weight: int) -> bool:
        """Queue what a member sent, of that many bytes; whether there was room for it."""
        queue = self._queues.setdefault(sender, deque())
        if len(queue) == self._most or self._weights[sender] + weight > self._most_bytes:
            return False
        if not queue:
            self._turns.append(sender)
        queue.append((item, weight))
        self._weights[sender] += weight
        return True

    def take(self, limit: int) -> tuple[int, list[Item]] | None:
        """Up to ``limit`` items of the member whose turn it is, and that member; none if all is empty."""
        if not self._turns:
            return None
        sender = self._turns.popleft()
        queue = self._queues[sender]
        taken: list[Item] = []
        while queue and len(taken) < limit:
            item, weight = queue.popleft()
            self._weights[sender] -= weight
            taken.append(item)
        if queue:
            self._turns.append(sender)
        return sender, taken
