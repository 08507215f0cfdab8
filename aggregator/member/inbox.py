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

from aggregator.member.turns import Turns
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
        self._received: Turns[Received] = Turns(MAX_QUEUED_BYTES, MAX_QUEUED)

    def __len__(self) -> int:
        return len(self._own) + len(self._received)

    def put(self, event: Event) -> None:
        """An event of this member's own."""
        self._own.append(event)

    def receive(self, event: Received) -> bool:
        """A message from another member; whether there was room for it."""
        room = self._received.put(event.sender, event, _weight_of(event))
        if not room:
            self.dropped[event.sender] += 1
        return room

    def take(self, limit: int) -> deque[Event]:
        """Up to ``limit`` events: own ones first, then one of each member in turn, each member's in order."""
        taken: deque[Event] = deque()
        while self._own and len(taken) < limit:
            taken.append(self._own.popleft())
        while len(taken) < limit and (turn := self._received.take(1)) is not None:
            taken += turn[1]
        return taken


def _weight_of(event: Received) -> int:
    message = event.message
    return SMALL_BYTES if isinstance(message, Vote | Status | Fetch) else len(encode_message(message))
