"""Link keys: the Ed25519 key pairs of an aggregator, derived from its one Ethereum key.

The public half is registered in ``NodeRegistry``; both ends of a link prove that they hold the private half
of a registered key, and a server is only believed under its registered key.

An account has `MAX_KEYS` link keys, one after the other. Which one is in use stands in the registry alone,
so changing it takes one transaction: a running member finds it there and takes it up (`aggregator.service`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator.links.errors import LinkError
from protocol.crypto import Key, keccak256

MAX_KEYS: Final = 64
"""Whoever needs more of them has lost more than a link key. Trying them all takes a few milliseconds."""


@dataclass(frozen=True, slots=True)
class LinkKey:
    """An Ed25519 key pair; both halves are 32 bytes."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def derive(cls, key: Key, number: int = 0) -> LinkKey:
        """A link key that belongs to a participant's Ethereum key; the first has the number 0."""
        assert 0 <= number < MAX_KEYS, number
        which = number.to_bytes(1, "big") if number else b""
        secret = keccak256(b"DTN link key v2" + key.secret + which)
        return cls(Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw(), secret)

    @classmethod
    def number_of(cls, key: Key, public: bytes) -> int | None:
        """Which of the link keys of ``key`` a registered one is; none if it is none of them."""
        return next((n for n in range(MAX_KEYS) if cls.derive(key, n).public == public), None)

    @classmethod
    def registered(cls, key: Key, public: bytes) -> LinkKey:
        """The link key of ``key`` that is registered; the first one if none of them is."""
        return cls.derive(key, cls.number_of(key, public) or 0)

    @classmethod
    def after(cls, key: Key, public: bytes) -> LinkKey:
        """The link key of ``key`` that follows the registered one; the first if none is registered.

        Raises:
            LinkError: that was the last one.
        """
        number = cls.number_of(key, public)
        if number is None:
            return cls.derive(key)
        if number + 1 >= MAX_KEYS:
            raise LinkError(
                f"this account has used up its {MAX_KEYS} link keys: let another account take its place "
                '(docs/operating.md, "Changing keys")'
            )
        return cls.derive(key, number + 1)
