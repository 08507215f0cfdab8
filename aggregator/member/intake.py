"""Forwarded transactions that nobody has looked at yet: one bounded queue per member, served in turns.

To look at a transaction takes a signature, some hundred times what it takes to read a vote. So transactions
stand here, in small turns between rounds of votes, however many are forwarded; and a proposal that names one
finds it by its hash meanwhile, instead of fetching it.

Bounds: `MAX_WAITING_BYTES` per member. What finds no room is dropped and counted: whoever took it in from the
public forwards it again, and whoever is shown a proposal with it fetches it.

Source: design section 6 ("bodies are spread by whoever receives them"), section 11.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aggregator.member.turns import Turns
from protocol.crypto import keccak256

MAX_WAITING_BYTES: Final = 2 * 1024 * 1024
"""Per member: some seconds' work."""
OVERHEAD_BYTES: Final = 200
"""What the smallest transaction weighs here beside its own bytes."""


class Intake:
    """Transactions that other members forwarded, each once, in the order of their turns."""

    def __init__(self) -> None:
        self._waiting: Turns[bytes] = Turns(MAX_WAITING_BYTES)
        """Hashes of transactions."""
        self._bodies: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._bodies)

    @property
    def members(self) -> int:
        """How many members' transactions wait."""
        return self._waiting.members

    def put(self, sender: int, items: Iterable[bytes]) -> int:
        """Queue what a member forwarded; how much of it found no room."""
        dropped = 0
        for data in items:
            content = keccak256(data)
            if content in self._bodies:
                continue
            if self._waiting.put(sender, content, len(data) + OVERHEAD_BYTES):
                self._bodies[content] = data
            else:
                dropped += 1
        return dropped

    def take(self, limit: int) -> tuple[int, list[bytes]] | None:
        """Up to ``limit`` transactions of the member whose turn it is; none if none wait."""
        turn = self._waiting.take(limit)
        if turn is None:
            return None
        sender, contents = turn
        return sender, [self._bodies.pop(content) for content in contents]

    def body(self, content: bytes) -> bytes | None:
        """The queued transaction with this hash."""
        return self._bodies.get(content)
