"""Hashes, keys and signatures: the only cryptography every party must agree on.

Guarantees: one hash for identifiers (Keccak-256, as on the chain), one for files (SHA-256), and one
signature form: secp256k1, 65 bytes ``r || s || v`` with ``v`` in {27, 28} and a low ``s``, so that a
signed thing has exactly one valid encoding and its id cannot be malleated.

Source: PoT section 2.1 (``Sig`` and ``VRF_Sig``); EIP-2 for the low-s rule.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import coincurve
from sha3 import keccak_256 as _keccak_256

from protocol.errors import InvalidKey, InvalidSignature

if TYPE_CHECKING:
    from web3 import Web3

    from protocol.signer import Document

SIGNATURE_BYTES: Final = 65
_CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HALF_ORDER: Final = _CURVE_ORDER // 2


def keccak256(data: bytes) -> bytes:
    """Keccak-256 of ``data``, 32 bytes: the hash of identifiers, commitments and signed things."""
    digest: bytes = _keccak_256(data).digest()
    return digest


def sha256(data: bytes) -> bytes:
    """SHA-256 of ``data``, 32 bytes: the hash of files (``MID``, fragments, task documents)."""
    return hashlib.sha256(data).digest()


def address_of(public_key: bytes) -> bytes:
    """Ethereum address (20 bytes) of an uncompressed 65-byte public key."""
    return keccak256(public_key[1:])[12:]


class Key:
    """A participant's secp256k1 key: the Ethereum account that stakes and that signs."""

    __slots__ = ("_private", "address")

    def __init__(self, secret: bytes) -> None:
        try:
            self._private = coincurve.PrivateKey(secret)
        except (ValueError, TypeError) as reason:
            raise InvalidKey("a private key is 32 bytes between 1 and the curve order") from reason
        self.address: bytes = address_of(self._private.public_key.format(compressed=False))

    @classmethod
    def generate(cls) -> Key:
        """A fresh random key."""
        return cls(secrets.token_bytes(32))

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes, for key files and chain clients only."""
        return self._private.secret

    def sign(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest; returns 65 canonical bytes ``r || s || v``."""
        signature = self._private.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes([27 + signature[64]])

    def sign_typed(self, digest: bytes, document: Document) -> bytes:
        """As `protocol.signer.Signer` says; the document is not looked at."""
        return self.sign(digest)

    def send_transaction(self, node: Web3, transaction: Mapping[str, Any]) -> bytes:
        """As `protocol.signer.Signer` says."""
        from eth_account import Account  # here: consensus needs keys, and no chain

        signed = Account.from_key(self.secret).sign_transaction(dict(transaction))
        return bytes(node.eth.send_raw_transaction(signed.raw_transaction))

    def __repr__(self) -> str:
        return f"Key(0x{self.address.hex()})"


def recover(digest: bytes, signature: bytes) -> bytes:
    """Address (20 bytes) that signed ``digest``.

    Raises:
        InvalidSignature: not 65 bytes, ``v`` not 27 or 28, high ``s``, or no key fits.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise InvalidSignature(f"a signature has {SIGNATURE_BYTES} bytes, this one has {len(signature)}")
    recovery_id = signature[64] - 27
    if recovery_id not in (0, 1):
        raise InvalidSignature(f"the last byte of a signature is 27 or 28, this one is {signature[64]}")
    if int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        raise InvalidSignature("the signature's s is in the upper half of the curve order")
    try:
        public_key = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([recovery_id]), digest, hasher=None
        )
    except Exception as reason:  # coincurve raises bare Exception for unrecoverable signatures
        raise InvalidSignature("no public key fits this signature") from reason
    return address_of(public_key.format(compressed=False))


def commitment(oid: bytes, committer: bytes, body: bytes, salt: bytes) -> bytes:
    """``keccak256(oid, committer, body, salt)``: the one commitment scheme of the protocol.

    Bound to the committer, so that a copied commitment is worthless to the copier. Every part has a
    fixed size (32, 20, 32 and 32 bytes), so the concatenation has one reading.

    Source: PoT 2.5 "Commitment Scheme"; equations 1 to 3 (t1/t2, t4/t5, t6/t7).
    """
    if (len(oid), len(committer), len(body), len(salt)) != (32, 20, 32, 32):
        raise ValueError("a commitment takes oid, committer, body and salt of 32, 20, 32 and 32 bytes")
    return keccak256(oid + committer + body + salt)
