"""Events that wait for the replica: one bounded queue per member, served in turn.

A member that floods fills its own queue and loses its own messages: it takes no place and, but for its turn,
no time from the others. Own events come first and are never dropped: they are answers to `Validate`, of which
there are no more than proposals held, and the end of a state transfer, of which there is one.

Bounds: `MAX_QUEUED` messages and `MAX_QUEUED_BYTES` per member. What is dropped is counted; consensus repeats
what matters.

Source: design section 6 ("bounded in memory"), section 11.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from aggregator.pbft.events import Event, Received
from aggregator.pbft.messages import Fetch, Status, Vote, encode_message

MAX_QUEUED: Final = 1_024
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Per member; twice the largest message, so that none is too large for an empty queue."""
SMALL_BYTES: Final = 512
"""What the smallest messages are taken to weigh, without a look."""


class Inbox:
    """What has arrived and was not taken yet."""

    def __init__(self) -> None:
        self.dropped: Counter[int] = Counter()
        """Per member, messages that found its queue full."""
        self._own: deque[Event] = deque()
        self._queues: dict[int, deque[tuple[Received, int]]] = {}
        self._weights: Counter[int] = Counter()
        self._turns: deque[int] = deque()
        """Members with something in their queue, in the order of their turns."""

    def __len__(self) -> int:
        return len(self._own) + sum(map(len, self._queues.values()))

    def put(self, event: Event) -> None:
        """An event of this member's own."""
        self._own.append(event)

    def receive(self, event: Received) -> bool:
        """A message from another member; whether there was room for it."""
        sender, weight = event.sender, _weight_of(event)
        queue = self._queues.setdefault(sender, deque())
        if len(queue) >= MAX_QUEUED or self._weights[sender] + weight > MAX_QUEUED_BYTES:
            self.dropped[sender] += 1
            return False
        if not queue:
            self._turns.append(sender)
        queue.append((event, weight))
        self._weights[sender] += weight
        return True

    def take(self, limit: int) -> deque[Event]:
        """Up to ``limit`` events: own ones first, then one of each member in turn, each member's in order."""
        taken: deque[Event] = deque()
        while self._own and len(taken) < limit:
            taken.append(self._own.popleft())
        while self._turns and len(taken) < limit:
            sender = self._turns.popleft()
            event, weight = self._queues[sender].popleft()
            self._weights[sender] -= weight
            taken.append(event)
            if self._queues[sender]:
                self._turns.append(sender)
        return taken


def _weight_of(event: Received) -> int:
    message = event.message
    return SMALL_BYTES if isinstance(message, Vote | Status | Fetch) else len(encode_message(message))
