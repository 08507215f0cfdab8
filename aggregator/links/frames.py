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

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream."""
        self._buffer += data

    def take(self, limit: int) -> list[bytes]:
        """The next whole messages, at most ``limit``; fewer if more bytes are needed.

        Raises:
            LinkBroken: a message is too long; those before it are lost, as the link is.
        """
        found: list[bytes] = []
        buffer, start, end = self._buffer, 0, len(self._buffer)
        while end - start >= LENGTH_BYTES and len(found) < limit:
            begin = start + LENGTH_BYTES
            length = int.from_bytes(buffer[start:begin], "big")
            if length > MAX_MESSAGE_BYTES:
                raise LinkBroken(f"a message has at most {MAX_MESSAGE_BYTES} bytes, this one {length}")
            if end - begin < length:
                break
            start = begin + length
            found.append(bytes(memoryview(buffer)[begin:start]))
        del buffer[:start]
        return found
