"""What participants sign: orders on the chain, transactions on the ledger, reports of the committee.

Each struct is EIP-712 typed data under the network's one domain, so a wallet shows what it signs. The
id of a transaction is its EIP-712 digest. ``nonce`` grows strictly per sender (gaps allowed; the
clients use milliseconds), which makes execution at-most-once without a history.

Bodies that are committed first and revealed later (PoT equations 1 to 3) share one commitment scheme,
`protocol.crypto.commitment`; the ``*_body`` functions here say what is committed to.

Source: PoT table 1, sections 2.4 and 3.3; design section 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from protocol import typed_data
from protocol.crypto import keccak256, recover
from protocol.errors import InvalidEncoding, InvalidSignature
from protocol.signer import Signer
from protocol.typed_data import (
    Address,
    Blob,
    Bytes32,
    Bytes32List,
    Domain,
    Int64,
    Signature,
    SignatureBlob,
    Text,
    TextList,
    Typed,
    Uint8,
    Uint32,
    Uint64,
    Uint96,
)

MAX_TRANSACTION_BYTES: Final = 64 * 1024
INVALID_SCORE: Final = -(2**63)
"""The score that validators give an artifact that is no model of the order; it voids the claim."""
IRRETRIEVABLE_SCORE: Final = -(2**63) + 1
"""What jurors say of a model or a test set that they cannot fetch; no score of any metric is as low."""


class Order(Typed, frozen=True, kw_only=True):
    """A training order as escrowed by ``OrderBook.put``; its digest is the ``OID`` (PoT table 1)."""

    client: Address
    nonce: Uint64
    kind: Text
    reward: Uint96
    deposit: Uint96
    train_window: Uint32
    validate_window: Uint32
    challenge_window: Uint32
    task_hash: Bytes32
    task_link: Text
    data_root: Bytes32
    baseline: Int64


class Report(Typed, frozen=True, kw_only=True):
    """What one settlement applies on the chain (PoT 3.3.4 ``Manage.Update``); packed as in Settlement.sol."""

    epoch: Uint64
    committee_epoch: Uint64
    orders: Blob
    slashes: Blob
    releases: Blob
    credits: Blob


class ValidationId(Typed, frozen=True, kw_only=True):
    """Names one validation; its digest is the ``VID``."""

    oid: Bytes32
    mid: Bytes32
    validator: Address


class Transaction(Typed, frozen=True, kw_only=True):
    """Base of ledger transactions: who sends, and the sender's growing nonce."""

    sender: Address
    nonce: Uint64


class OrderTransaction(Transaction, frozen=True, kw_only=True):
    """Base of what an order's task protocol takes."""

    oid: Bytes32


class Cancel(OrderTransaction, frozen=True, kw_only=True, tag="Cancel"):
    """The client takes the order back while no claim exists."""


class Claim(OrderTransaction, frozen=True, kw_only=True, tag="Claim"):
    """A provider commits to its latest model at t1; a later claim replaces the earlier one."""

    commitment: Bytes32


class ClaimReveal(OrderTransaction, frozen=True, kw_only=True, tag="ClaimReveal"):
    """A provider opens its claim at t2 and says where the model file is."""

    mid: Bytes32
    size_bytes: Uint64
    links: TextList
    salt: Bytes32


class TestRelease(OrderTransaction, frozen=True, kw_only=True, tag="TestRelease"):
    """The client releases the test fragments at t3; ``fragments`` must hash to the order's data root."""

    __test__ = False  # not a pytest class

    fragments: Bytes32List
    links: TextList


class Validation(OrderTransaction, frozen=True, kw_only=True, tag="Validation"):
    """A validator commits to a score at t4 and stakes on it."""

    mid: Bytes32
    commitment: Bytes32
    v_stake: Uint96


class ValidationReveal(OrderTransaction, frozen=True, kw_only=True, tag="ValidationReveal"):
    """A validator opens its validation at t5."""

    mid: Bytes32
    score: Int64
    digest: Bytes32
    salt: Bytes32


class Challenge(OrderTransaction, frozen=True, kw_only=True, tag="Challenge"):
    """A verifier commits at t6 to a different score for the validation ``vid`` and stakes on it."""

    vid: Bytes32
    commitment: Bytes32
    c_stake: Uint96


class ChallengeReveal(OrderTransaction, frozen=True, kw_only=True, tag="ChallengeReveal"):
    """A verifier opens its challenge at t7."""

    vid: Bytes32
    score: Int64
    digest: Bytes32
    salt: Bytes32


class Verdict(OrderTransaction, frozen=True, kw_only=True, tag="Verdict"):
    """A juror commits to its answer on what is disputed: a model, or under the data root the test set."""

    mid: Bytes32
    commitment: Bytes32


class VerdictReveal(OrderTransaction, frozen=True, kw_only=True, tag="VerdictReveal"):
    """A juror opens its verdict."""

    mid: Bytes32
    score: Int64
    digest: Bytes32
    salt: Bytes32


class IrretrievableReport(OrderTransaction, frozen=True, kw_only=True, tag="IrretrievableReport"):
    """Somebody staked in ``role`` says that a revealed model, or the released test set, cannot be fetched.

    ``subject`` is the model's MID, or the order's data root for the test set (PoT 3.4 "Achieving
    Retrievability"). The votes on it are verdicts, in which `IRRETRIEVABLE_SCORE` agrees.
    """

    subject: Bytes32
    role: Uint8


class Appeal(OrderTransaction, frozen=True, kw_only=True, tag="Appeal"):
    """Somebody staked in ``role`` asks for one larger round on a verdict, against a bond.

    ``subject`` is what the verdict is on: a MID, or the order's data root.
    """

    subject: Bytes32
    role: Uint8


class Evidence(Transaction, frozen=True, kw_only=True, tag="Evidence"):
    """Two votes by one member of the committee that contradict each other: see `protocol.evidence`.

    ``vote_kind``, ``view`` and ``sequence`` are those of both votes; the lower digest comes first.
    """

    vote_kind: Uint8
    view: Uint64
    sequence: Uint64
    first_digest: Bytes32
    first_signature: SignatureBlob
    second_digest: Bytes32
    second_signature: SignatureBlob


LedgerTransaction = (
    Cancel
    | Claim
    | ClaimReveal
    | TestRelease
    | Validation
    | ValidationReveal
    | Challenge
    | ChallengeReveal
    | Verdict
    | VerdictReveal
    | IrretrievableReport
    | Appeal
    | Evidence
)
TRANSACTION_TYPES: Final[dict[str, type[Transaction]]] = {
    cls.__name__: cls for cls in LedgerTransaction.__args__
}


class SignedTransaction(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A ledger transaction with its sender's signature, as it travels and is stored."""

    body: LedgerTransaction
    signature: Signature

    def encode(self) -> bytes:
        """The canonical bytes of this transaction."""
        return _ENCODER.encode(self)


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(SignedTransaction)


def sign_transaction(domain: Domain, body: Transaction, signer: Signer) -> SignedTransaction:
    """``body`` signed by ``signer``; the sender must be its account."""
    if body.sender != signer.address:
        raise InvalidSignature("a transaction is signed by its sender")
    return SignedTransaction(body, typed_data.sign(domain, body, signer))  # type: ignore[arg-type]


def decode_transaction(data: bytes) -> SignedTransaction:
    """The transaction that ``data`` encodes canonically.

    Raises:
        InvalidEncoding: too large, not a transaction, or not its canonical encoding.
    """
    if len(data) > MAX_TRANSACTION_BYTES:
        raise InvalidEncoding(
            f"a transaction has at most {MAX_TRANSACTION_BYTES} bytes, this one {len(data)}"
        )
    try:
        signed = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
        raise InvalidEncoding(f"not a transaction: {reason}") from reason
    if signed.encode() != data:
        raise InvalidEncoding("not the canonical encoding of this transaction")
    return signed


def authenticate(domain: Domain, signed: SignedTransaction) -> bytes:
    """Check the signature and return the transaction's id (32 bytes).

    Raises:
        InvalidSignature: not canonical, or not by the sender.
    """
    digest = typed_data.digest_of(domain, signed.body)
    signer = recover(digest, signed.signature)
    if signer != signed.body.sender:
        raise InvalidSignature(f"signed by 0x{signer.hex()}, not by its sender 0x{signed.body.sender.hex()}")
    return digest


def transaction_to_json(signed: SignedTransaction) -> dict[str, Any]:
    """The public JSON form: ``{"type", "message", "signature"}``."""
    return {
        "type": type(signed.body).__name__,
        "message": typed_data.to_json(signed.body),
        "signature": "0x" + signed.signature.hex(),
    }


def transaction_from_json(document: object) -> SignedTransaction:
    """Inverse of `transaction_to_json`; raises `InvalidEncoding` with the reason."""
    if not isinstance(document, dict) or set(document) != {"type", "message", "signature"}:
        raise InvalidEncoding('a transaction is {"type": …, "message": …, "signature": …}')
    cls = TRANSACTION_TYPES.get(str(document["type"]))
    if cls is None:
        raise InvalidEncoding(
            f"no transaction is called {document['type']!r}; known: {', '.join(TRANSACTION_TYPES)}"
        )
    try:
        signature = typed_data.parse_hex(document["signature"])
    except ValueError as reason:
        raise InvalidEncoding(f"signature: {reason}") from reason
    if len(signature) != 65:
        raise InvalidEncoding("a signature has 65 bytes")
    return SignedTransaction(typed_data.from_json(cls, document["message"]), signature)  # type: ignore[arg-type]


def claim_body(mid: bytes, size_bytes: int) -> bytes:
    """What a claim commits to: the model file's SHA-256 and its size."""
    return keccak256(mid + size_bytes.to_bytes(32, "big"))


def score_body(mid: bytes, score: int, digest: bytes) -> bytes:
    """What validations, challenges and verdicts commit to: a model's score and per-sample digest."""
    return keccak256(mid + score.to_bytes(32, "big", signed=True) + digest)


def retrieval_digest(fragments: Iterable[bytes]) -> bytes:
    """What jurors say of a test set that they have fetched: Keccak-256 over that of its files in order.

    The files' SHA-256 hashes are public; this one knows only who has the bytes.
    """
    return keccak256(b"".join(keccak256(data) for data in fragments))


def data_root(fragments: tuple[bytes, ...]) -> bytes:
    """The commitment to all data fragments of an order: the hash of their SHA-256 hashes in order."""
    return keccak256(b"".join(fragments))


def order_id(domain: Domain, order: Order) -> bytes:
    """The ``OID`` of an order."""
    return typed_data.digest_of(domain, order)


def validation_id(domain: Domain, oid: bytes, mid: bytes, validator: bytes) -> bytes:
    """The ``VID`` of a validator's validation of a model."""
    return typed_data.digest_of(domain, ValidationId(oid=oid, mid=mid, validator=validator))
