"""Taking over the ledger from another member, part by part.

One transfer at a time, from one member, asked for in order. Nothing of it is believed until all parts are
there and the ledger in them has the root that a quorum signed; a source that sent anything else, or nothing
for `PATIENCE_MS`, is dropped and the next offer is taken.

Source: Castro and Liskov 1999, section 4.6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aggregator.journal.journal import MAX_SNAPSHOT_BYTES
from aggregator.pbft.messages import FetchSnapshot, SnapshotPart, StableCheckpoint

PATIENCE_MS: Final = 5_000
"""A source that sends no part for so long is given up."""


@dataclass(slots=True)
class StateTransfer:
    """What has arrived of the snapshot at ``checkpoint`` from member ``source``."""

    source: int
    epoch: int
    checkpoint: StableCheckpoint
    heard_ms: int
    data: bytearray = field(default_factory=bytearray)

    def next_request(self) -> FetchSnapshot:
        """What to ask the source for."""
        return FetchSnapshot(self.checkpoint.sequence, len(self.data))

    def stalled(self, now_ms: int) -> bool:
        """Whether the source has been silent for too long."""
        return now_ms - self.heard_ms >= PATIENCE_MS

    def take(self, sender: int, part: SnapshotPart, now_ms: int) -> bool:
        """Add a part; whether it was the one asked for."""
        fits = (
            sender == self.source
            and (part.sequence, part.offset) == (self.checkpoint.sequence, len(self.data))
            and 0 < len(part.data) <= part.total_bytes - len(self.data)
            and part.total_bytes <= MAX_SNAPSHOT_BYTES
        )
        if fits:
            self.data += part.data
            self.heard_ms = now_ms
        return fits

    def complete(self, part: SnapshotPart) -> bool:
        """Whether ``part``, just taken, was the last one."""
        return len(self.data) == part.total_bytes
