"""Frames: how messages stand in a stream of bytes. Four bytes of length, then that many bytes.

What has arrived of a frame is kept, never what its length only promises; a length above the bound is an
error.
"""

from __future__ import annotations

from typing import Final

from aggregator.links.errors import LinkBroken
from aggregator.pbft.messages import MAX_MESSAGE_BYTES

LENGTH_BYTES: Final = 4


def frame(message: bytes) -> bytes:
    """A message as it stands in the stream."""
    assert len(message) <= MAX_MESSAGE_BYTES, "nobody would take so long a message"
    return len(message).to_bytes(LENGTH_BYTES, "big") + message


class Frames:
    """Cuts a stream into messages; holds at most one incomplete message and what was fed since."""

    __slots__ = ("_buffer", "_start")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole message; none if more bytes are needed. Raises `LinkBroken` if it is too long."""
        start = self._start + LENGTH_BYTES
        length = int.from_bytes(self._buffer[self._start : start], "big")
        held = len(self._buffer) - start
        if held >= 0 and length > MAX_MESSAGE_BYTES:
            raise LinkBroken(f"a message has at most {MAX_MESSAGE_BYTES} bytes, this one {length}")
        if held < length:
            del self._buffer[: self._start]
            self._start = 0
            return None
        message = bytes(memoryview(self._buffer)[start : start + length])
        self._start = start + length
        if held == length:
            self._buffer.clear()
            self._start = 0
        return message
