"""Proposing and confirming origins: which chain events may enter the ledger next.

A primary proposes ``(after, number]`` with the events this reader found; a backup confirms it only if its own
chain node has the same block at that number, the confirmations on top of it, and the same events. A block
its node does not have yet means *later*, not *no*.

A reorganisation deeper than the confirmations changes the hash of an origin that the ledger holds already:
from then on nothing is proposed or confirmed and `alarm` says why; the ledger itself never forks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aggregator.ledger.state import Origin
from aggregator.origin.reader import ChainReader
from aggregator.pbft.messages import MAX_BATCH_EVENTS, BatchOrigin
from protocol.chain_events import encode_event

IDLE_BLOCKS: Final = 500
"""Without events an origin still moves after this many blocks, so that log queries stay short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An origin with its encoded events, as it goes into a batch."""

    origin: BatchOrigin
    chain_events: tuple[bytes, ...]


class OriginSource:
    """This member's view of the chain. Blocking calls; one thread at a time."""

    def __init__(self, reader: ChainReader) -> None:
        self._reader = reader
        self._answers: dict[tuple[int, int], Proposal] = {}
        self.alarm: str | None = None
        self.head: int | None = None
        """The last confirmed block that was seen."""

    def confirmed_head(self, confirmations: int) -> int:
        """Highest block with enough confirmations on this member's chain node."""
        self.head = self._reader.head() - confirmations
        return self.head

    def propose(self, current: Origin | None, confirmations: int) -> Proposal | None:
        """What to take in next, or none if nothing of interest happened."""
        if not self._still_on_chain(current):
            return None
        after = current.number if current is not None else -1
        head = self.confirmed_head(confirmations)
        if head <= after or head < self._reader.first_block:
            return None
        proposal = self._derive(after, head)
        if not proposal.chain_events and head - after < IDLE_BLOCKS:
            return None
        return proposal

    def confirm(self, proposal: Proposal, current: Origin | None, confirmations: int) -> bool | None:
        """Whether this member's own node says the same; none if it cannot tell yet.

        An origin that does not follow ``current`` waits too: the batch before it may be on its way.
        """
        if not self._still_on_chain(current):
            return None
        origin = proposal.origin
        if origin.after != (current.number if current is not None else -1):
            return None
        if origin.number > self.confirmed_head(confirmations):
            return None
        return self._derive(origin.after, origin.number) == proposal

    def _still_on_chain(self, current: Origin | None) -> bool:
        if current is not None and self._reader.block_hash(current.number) != current.hash:
            self.alarm = (
                f"the chain replaced block {current.number}, which the ledger had taken in: "
                "a reorganisation deeper than the confirmations; new origins are halted"
            )
            return False
        self.alarm = None
        return True

    def _derive(self, after: int, number: int) -> Proposal:
        """Events of ``(after, number]``; cut at a block border if they are more than a batch holds."""
        known = self._answers.get((after, number))
        if known is not None and self._reader.block_hash(known.origin.number) == known.origin.hash:
            return known
        events = self._reader.read(after, number)
        last = number
        if len(events) > MAX_BATCH_EVENTS:
            last = events[MAX_BATCH_EVENTS][0] - 1
        encoded = tuple(encode_event(event) for block, event in events if block <= last)
        proposal = Proposal(
            origin=BatchOrigin(after, last, self._reader.block_hash(last)), chain_events=encoded
        )
        self._answers = {(after, number): proposal}  # one is enough: the next starts where this ends
        return proposal
