"""Commit certificates: proof, for anyone who knows the committee, that a transaction was ordered.

A batch's digest is the hash of a fixed-size header with Merkle roots of its contents. A quorum of members
signs ``commit(view, sequence, digest)``, or all of them sign the proposal; with the header, a Merkle path
and those signatures, an answer from one aggregator can be checked without trusting it. What the transaction
*did* is in the ledger's state: a certificate proves order, not acceptance.

Leaves carry their place: the tree's inner nodes do not, and a digest that forgot the order of transactions
would let two members execute them differently under one certificate.

Source: Castro and Liskov 1999, section 4.2; design section 6 ("A commit certificate … is transferable").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from protocol import merkle, typed_data
from protocol.crypto import keccak256, recover
from protocol.errors import InvalidEncoding, InvalidSignature, ProtocolError
from protocol.typed_data import Bytes32, Domain, Signature, Typed, Uint8, Uint64

PRE_PREPARE: Final = 1
"""`SignedVote.kind` of the primary's proposal."""
PREPARE: Final = 2
"""`SignedVote.kind` of the others' votes for it."""
COMMIT: Final = 3
"""`SignedVote.kind` of a commit vote."""
CHECKPOINT: Final = 4
"""`SignedVote.kind` of a vote on the ledger's state root; its view is 0."""
MAX_SIGNATURES: Final = 256


class InvalidCertificate(ProtocolError):
    """A certificate that does not prove what it claims; whoever sent it may be lying."""


class SignedVote(Typed, frozen=True, kw_only=True):
    """The EIP-712 struct behind every signature of an aggregator in consensus."""

    kind: Uint8
    view: Uint64
    sequence: Uint64
    digest: Bytes32


class BatchHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a batch's digest is over; everything has a fixed size."""

    timestamp_ms: Uint64
    origin: Bytes32
    """Hash of the batch's origin; zero if it carries none."""
    events_count: Uint64
    events_root: Bytes32
    transactions_count: Uint64
    transactions_root: Bytes32

    def digest(self) -> bytes:
        """The digest that members vote on, 32 bytes."""
        return keccak256(
            self.timestamp_ms.to_bytes(8, "big")
            + self.origin
            + self.events_count.to_bytes(8, "big")
            + self.events_root
            + self.transactions_count.to_bytes(8, "big")
            + self.transactions_root
        )


def place_leaf(index: int, content: bytes) -> bytes:
    """Merkle leaf of the thing with hash ``content`` (its Keccak-256) at place ``index`` of a batch."""
    return keccak256(keccak256(index.to_bytes(8, "big") + content))


def places_root(contents: Sequence[bytes]) -> bytes:
    """Merkle root over all things of a batch, given by their hashes in their order."""
    return merkle.root([place_leaf(index, content) for index, content in enumerate(contents)])


class MemberSignature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One member's signature in a certificate; the vote it is on follows from the rest."""

    member: Uint64
    signature: Signature


class TransactionCertificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a transaction was ordered, and the quorum that says so."""

    view: Uint64
    sequence: Uint64
    unanimous: bool
    """Whether all members signed the proposal, and not a quorum its commit."""
    header: BatchHeader
    index: Uint64
    """The transaction's place in the batch."""
    path: tuple[Bytes32, ...]
    signatures: tuple[MemberSignature, ...]

    def verify(self, domain: Domain, members: Sequence[bytes], transaction: bytes) -> None:
        """Raise unless a quorum of ``members`` ordered ``transaction`` (its canonical bytes).

        Raises:
            InvalidCertificate: with what does not fit.
        """
        if not 0 <= self.index < self.header.transactions_count:
            raise InvalidCertificate("the certificate's place is not in its batch")
        leaf = place_leaf(self.index, keccak256(transaction))
        if not merkle.verify(leaf, self.path, self.header.transactions_root):
            raise InvalidCertificate("the transaction is not in the certificate's batch")
        if not members:
            raise InvalidCertificate("a committee has members")
        digest = self.header.digest()
        if not self.unanimous:
            commit = SignedVote(kind=COMMIT, view=self.view, sequence=self.sequence, digest=digest)
            verify_quorum(domain, members, commit, self.signatures)
            return
        primary = self.view % len(members)
        proposal = SignedVote(kind=PRE_PREPARE, view=self.view, sequence=self.sequence, digest=digest)
        prepare = SignedVote(kind=PREPARE, view=self.view, sequence=self.sequence, digest=digest)
        by_primary = [item for item in self.signatures if item.member == primary]
        others = [item for item in self.signatures if item.member != primary]
        _verify_signed(domain, members, proposal, by_primary, 1)
        _verify_signed(domain, members, prepare, others, len(members) - 1)


def verify_quorum(
    domain: Domain, members: Sequence[bytes], vote: SignedVote, signatures: Sequence[MemberSignature]
) -> None:
    """Raise `InvalidCertificate` unless a quorum of ``members``, each once, signed ``vote``."""
    _verify_signed(domain, members, vote, signatures, quorum(len(members)))


def _verify_signed(
    domain: Domain,
    members: Sequence[bytes],
    vote: SignedVote,
    signatures: Sequence[MemberSignature],
    need: int,
) -> None:
    try:
        digest = typed_data.digest_of(domain, vote)
    except InvalidEncoding as reason:
        raise InvalidCertificate(f"the certificate's {reason}") from reason
    signers = set()
    for item in signatures:
        if not 0 <= item.member < len(members) or item.member in signers:
            raise InvalidCertificate(f"member {item.member} is unknown or signs twice")
        try:
            signer = recover(digest, item.signature)
        except InvalidSignature as reason:
            raise InvalidCertificate(f"member {item.member}: {reason}") from reason
        if signer != members[item.member]:
            raise InvalidCertificate(f"the signature is not member {item.member}'s")
        signers.add(item.member)
    if len(signers) < need:
        raise InvalidCertificate(f"{len(signers)} members signed where {need} are needed")


def quorum(count: int) -> int:
    """``ceil((n + f + 1) / 2)`` with ``f = (n - 1) // 3``: any two quorums share an honest member."""
    return (count + (count - 1) // 3 + 2) // 2


def certificate_to_json(certificate: TransactionCertificate) -> dict[str, Any]:
    """The public JSON form: hex for bytes, numbers for counts, indices and times."""
    header = certificate.header
    return {
        "view": certificate.view,
        "sequence": certificate.sequence,
        "unanimous": certificate.unanimous,
        "header": {
            "timestampMs": header.timestamp_ms,
            "origin": _hex(header.origin),
            "eventsCount": header.events_count,
            "eventsRoot": _hex(header.events_root),
            "transactionsCount": header.transactions_count,
            "transactionsRoot": _hex(header.transactions_root),
        },
        "index": certificate.index,
        "path": [_hex(item) for item in certificate.path],
        "signatures": signatures_to_json(certificate.signatures),
    }


def signatures_to_json(signatures: Sequence[MemberSignature]) -> list[dict[str, Any]]:
    """The public JSON form of a quorum's signatures."""
    return [{"member": item.member, "signature": _hex(item.signature)} for item in signatures]


def certificate_from_json(document: object) -> TransactionCertificate:
    """Inverse of `certificate_to_json`; raises `InvalidCertificate` for anything else."""
    try:
        assert isinstance(document, dict)
        header, signatures = document["header"], document["signatures"]
        if len(signatures) > MAX_SIGNATURES or len(document["path"]) > 64:
            raise InvalidCertificate("a certificate with too many parts")
        fields = {
            "view": document["view"],
            "sequence": document["sequence"],
            "unanimous": document["unanimous"],
            "header": {
                "timestamp_ms": header["timestampMs"],
                "origin": typed_data.parse_hex(header["origin"]),
                "events_count": header["eventsCount"],
                "events_root": typed_data.parse_hex(header["eventsRoot"]),
                "transactions_count": header["transactionsCount"],
                "transactions_root": typed_data.parse_hex(header["transactionsRoot"]),
            },
            "index": document["index"],
            "path": tuple(typed_data.parse_hex(item) for item in document["path"]),
            "signatures": tuple(
                {"member": item["member"], "signature": typed_data.parse_hex(item["signature"])}
                for item in signatures
            ),
        }
        certificate = msgspec.convert(fields, TransactionCertificate, builtin_types=(bytes,))
        certificate.header.digest()
    except (AssertionError, KeyError, TypeError, ValueError, OverflowError) as reason:
        raise InvalidCertificate(f"not a certificate: {reason}") from reason
    return certificate


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
