"""IPFS content identifiers, as far as this network uses them: CIDv1, SHA-256, ``raw`` or ``dag-pb``, base32.

Guarantee: one text per CID; anything else is `InvalidCid`.

Source: multiformats.io/cid.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final, Self

from protocol.crypto import sha256
from protocol.errors import ProtocolError

RAW: Final = 0x55
DAG_PB: Final = 0x70
_SHA256_32: Final = b"\x12\x20"


class InvalidCid(ProtocolError):
    """A text or bytes that name no CID of the kinds in use."""


@dataclass(frozen=True, slots=True)
class Cid:
    """Codec and SHA-256 digest of one block."""

    codec: int
    digest: bytes

    @classmethod
    def of(cls, codec: int, block: bytes) -> Self:
        """The CID of a block."""
        return cls(codec, sha256(block))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The CID that ``text`` writes; raises `InvalidCid`."""
        if not text.startswith("b") or len(text) != 59:
            raise InvalidCid(f"{text[:80]!r} is no base32 CIDv1 with SHA-256")
        try:
            cid = cls.decode(base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8)))
        except ValueError as reason:
            raise InvalidCid(f"{text[:80]!r} is not base32") from reason
        if str(cid) != text:
            raise InvalidCid(f"{text[:80]!r} is not the canonical text of its CID")
        return cid

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The CID that ``data`` encodes; raises `InvalidCid`."""
        if len(data) != 36 or data[0] != 1 or data[1] not in (RAW, DAG_PB) or data[2:4] != _SHA256_32:
            raise InvalidCid("only CIDv1 of raw or dag-pb blocks with SHA-256 is in use here")
        return cls(data[1], data[4:])

    def encode(self) -> bytes:
        """The 36 bytes of this CID."""
        return bytes([1, self.codec]) + _SHA256_32 + self.digest

    def names(self, block: bytes) -> bool:
        """Whether ``block`` has this CID."""
        return sha256(block) == self.digest

    def __str__(self) -> str:
        return "b" + base64.b32encode(self.encode()).decode().rstrip("=").lower()
