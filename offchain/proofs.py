"""Questions to the ledger whose answers nobody has to be believed for: every one comes with its proof.

    network.trust(chain.speaking_committees)
    stake = proved_node(network, account).row.stake(Role.PROVIDER)

An aggregator that cannot prove its answer is passed over. An answer says of which sequence number it is: the
last stable checkpoint, so it may be behind what the ledger holds now, and an old one can be served on
purpose. Whoever minds asks for ``not_before``.

Source: design section 6; `protocol.state_proof`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from offchain.network import Network
from protocol import merkle
from protocol.certificate import InvalidCertificate
from protocol.errors import InvalidEncoding
from protocol.state_proof import HEAD, StateProof, state_proof_from_json
from protocol.state_rows import EntryRow, HeadRow, NodeRow, ReceiptRow, decode_row
from protocol.typed_data import Domain, parse_hex

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved(Generic[R]):
    """A row, and the sequence number of the checkpoint that holds it."""

    row: R
    sequence: int


def proved_head(network: Network, *, not_before: int = 0) -> Proved[HeadRow]:
    """Where the ledger stands: time, committee, parameters."""
    return _proved(network, HEAD, b"", HeadRow, not_before)


def proved_node(network: Network, account: bytes, *, not_before: int = 0) -> Proved[NodeRow]:
    """A participant's stakes and endpoint."""
    return _proved(network, "nodes", account, NodeRow, not_before)


def proved_nonce(network: Network, account: bytes, *, not_before: int = 0) -> Proved[int]:
    """The last nonce that an account used."""
    return _proved(network, "nonces", account, int, not_before)


def proved_order(network: Network, oid: bytes, *, not_before: int = 0) -> Proved[EntryRow]:
    """An order that is not settled yet."""
    return _proved(network, "table", oid, EntryRow, not_before)


def proved_receipts(network: Network, oid: bytes, *, not_before: int = 0) -> Proved[tuple[ReceiptRow, ...]]:
    """All receipts of a settled order: none can be missing, added or changed.

    Raises:
        InvalidCertificate: nobody proves them. NotFound: nobody knows them. NetworkError: nobody answers.
    """

    def check(answer: Any, domain: Domain, members: Sequence[bytes]) -> Proved[tuple[ReceiptRow, ...]]:
        if not isinstance(answer, dict):
            raise InvalidCertificate("not receipts with their proof")
        proof = _checked(answer.get("proof"), domain, members, ("receipt_roots", oid), not_before)
        receipts = _receipts(answer.get("receipts"))
        if _root(receipts) != _decoded(proof):
            raise InvalidCertificate("the receipts are not those of the order")
        return Proved(row=receipts, sequence=proof.sequence)

    return network.proved(f"/v1/orders/0x{oid.hex()}/receipts", check)


def _proved(network: Network, section: str, key: bytes, kind: type[R], not_before: int) -> Proved[R]:
    """One row.

    Raises:
        InvalidCertificate: nobody proves it. NotFound: nobody knows it. NetworkError: nobody answers.
    """

    def check(answer: Any, domain: Domain, members: Sequence[bytes]) -> Proved[R]:
        proof = _checked(answer, domain, members, (section, key), not_before)
        row = _decoded(proof)
        if not isinstance(row, kind):
            raise InvalidCertificate(f"a row of {section} that is no {kind.__name__}")
        return Proved(row=row, sequence=proof.sequence)

    path = f"/v1/proofs/{section}" + (f"/0x{key.hex()}" if key else "")
    return network.proved(path, check)


def _checked(
    document: Any, domain: Domain, members: Sequence[bytes], wanted: tuple[str, bytes], not_before: int
) -> StateProof:
    proof = state_proof_from_json(document)
    if (proof.section, proof.key) != wanted:
        raise InvalidCertificate("the proof is about another row than asked for")
    proof.verify(domain, members)
    if proof.sequence < not_before:
        raise InvalidCertificate(f"the proof is of sequence {proof.sequence}, before {not_before}")
    return proof


def _decoded(proof: StateProof) -> object:
    try:
        return decode_row(proof.section, proof.value)
    except InvalidEncoding as reason:
        # A quorum signed it: this program is older than the ledger's format.
        raise InvalidCertificate(f"this version cannot read the row: {reason}") from reason


def _root(receipts: Sequence[ReceiptRow]) -> bytes:
    try:
        return merkle.root(
            [
                merkle.receipt_leaf(
                    item.account, item.oid, item.amount_wei, item.role, item.reason, item.refs
                )
                for item in receipts
            ]
        )
    except (ValueError, OverflowError) as reason:  # a lone surrogate, or more than 256 bits
        raise InvalidCertificate(f"not receipts: {reason}") from reason


def _receipts(items: Any) -> tuple[ReceiptRow, ...]:
    try:
        assert isinstance(items, list)
        return tuple(
            msgspec.convert(
                [
                    "Receipt",
                    parse_hex(item["account"]),
                    parse_hex(item["oid"]),
                    item["role"],
                    item["reason"],
                    int(item["amountWei"]),
                    [parse_hex(ref) for ref in item["refs"]],
                ],
                ReceiptRow,
                builtin_types=(bytes,),
            )
            for item in items
        )
    except (AssertionError, KeyError, TypeError, ValueError) as reason:
        raise InvalidCertificate(f"not receipts: {reason}") from reason
