"""Link keys: the Ed25519 key pair of an aggregator, derived from its one Ethereum key.

The public half is registered in ``NodeRegistry``; both ends of a link prove that they hold the private half
of a registered key, and a server is only believed under its registered key.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.crypto import Key, keccak256


@dataclass(frozen=True, slots=True)
class LinkKey:
    """An Ed25519 key pair; both halves are 32 bytes."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def derive(cls, key: Key) -> LinkKey:
        """The link key that belongs to a participant's Ethereum key."""
        secret = keccak256(b"DTN link key v2" + key.secret)
        return cls(Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw(), secret)
