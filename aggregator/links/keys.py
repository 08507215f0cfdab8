"""Link keys: the Curve25519 key pair of an aggregator, derived from its one Ethereum key.

The public half is registered in ``NodeRegistry``; whoever connects must prove to hold the private half of a
registered key, and a server is only believed under its registered key.
"""

from __future__ import annotations

from dataclasses import dataclass

import zmq
from zmq.utils import z85

from protocol.crypto import Key, keccak256


@dataclass(frozen=True, slots=True)
class LinkKey:
    """A CURVE key pair; both halves are 32 bytes."""

    public: bytes
    secret: bytes

    @classmethod
    def derive(cls, key: Key) -> LinkKey:
        """The link key that belongs to a participant's Ethereum key."""
        secret = keccak256(b"DTN link key v1" + key.secret)
        return cls(z85.decode(zmq.curve_public(z85.encode(secret))), secret)
