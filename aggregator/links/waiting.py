"""What waits to leave for one peer: votes and the like before transactions and what a peer catches up with.

Bounds: `MAX_QUEUED` messages and `MAX_QUEUED_BYTES` wait in each of the two lanes; what finds no room is for
the caller to count. Messages stand here as they were encoded, once for all peers.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from aggregator.links.tls import MAX_DATA_BYTES

MAX_QUEUED: Final = 4096
MAX_QUEUED_BYTES: Final = 8 * 1024 * 1024
"""A larger message finds room in an empty lane only."""


class Lane:
    """Frames that leave in the order in which they came."""

    __slots__ = ("_bytes", "frames")

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self._bytes = 0

    def put(self, frame: bytes) -> bool:
        """Add a frame; whether there was room."""
        full = len(self.frames) >= MAX_QUEUED or self._bytes + len(frame) > MAX_QUEUED_BYTES
        if self.frames and full:
            return False
        self.frames.append(frame)
        self._bytes += len(frame)
        return True

    def pop(self) -> bytes:
        """Take the first frame out."""
        frame = self.frames.popleft()
        self._bytes -= len(frame)
        return frame


class Waiting:
    """The frames that wait for one peer, cut into pieces that fit a record."""

    __slots__ = ("_bulk", "_offset", "_partly", "_urgent")

    def __init__(self) -> None:
        self._urgent, self._bulk = Lane(), Lane()
        self._partly: Lane | None = None
        """The lane whose first frame has been taken in part: the rest of it comes next."""
        self._offset = 0
        """Of that frame, so many bytes have been taken."""

    def __bool__(self) -> bool:
        return bool(self._urgent.frames or self._bulk.frames)

    def put(self, frame: bytes, *, bulk: bool) -> bool:
        """Add a frame; whether there was room for it."""
        return (self._bulk if bulk else self._urgent).put(frame)

    def begin_again(self) -> None:
        """The next piece begins with a whole frame: what was taken of it went with the last connection."""
        self._partly, self._offset = None, 0

    def next_piece(self) -> bytes | memoryview:
        """Take as much as one record carries; something must be waiting."""
        lane = self._partly or self._next_lane()
        first, start = lane.frames[0], self._offset
        if len(first) - start > MAX_DATA_BYTES:
            self._partly, self._offset = lane, start + MAX_DATA_BYTES
            return memoryview(first)[start : self._offset]
        self.begin_again()
        piece = lane.pop()[start:] if start else lane.pop()
        size, several = len(piece), [piece]
        while self and size + len((lane := self._next_lane()).frames[0]) <= MAX_DATA_BYTES:
            several.append(lane.pop())
            size += len(several[-1])
        return piece if len(several) == 1 else b"".join(several)

    def _next_lane(self) -> Lane:
        return self._urgent if self._urgent.frames else self._bulk
