"""What the rows of the ledger say: the canonical bytes of a `protocol.state_proof.StateProof`, decoded.

The ledger writes a record as an array of its type's name and its fields in order, with integers as decimal
text (`aggregator.ledger.root`). Types here name the fields that people ask for; a task protocol's own state
stays as nested lists.

Guarantee: `decode_row` gives the row of its section or raises `InvalidEncoding`; it never trusts lengths or
types.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocol.errors import InvalidEncoding
from protocol.roles import Role
from protocol.transactions import Order


class Row(msgspec.Struct, frozen=True, array_like=True):
    """Base of records in a row."""


class StakeRow(Row, frozen=True, tag="Stake"):
    """One account's stake in one role, in wei."""

    bonded: int
    unbonding: int
    locked: int
    slashed: int


class NodeRow(Row, frozen=True, tag="Node"):
    """Section ``nodes``, by account: a registered participant."""

    stakes: tuple[tuple[int, StakeRow], ...]
    endpoint: str
    link_key: bytes

    def stake(self, role: Role) -> StakeRow:
        """The stake in ``role``; zero when there is none."""
        return next((stake for number, stake in self.stakes if number == role), StakeRow(0, 0, 0, 0))


class ReceiptRow(Row, frozen=True, tag="Receipt"):
    """One credit (positive) or debit (negative) of an order or a penalty."""

    account: bytes
    oid: bytes
    role: str
    reason: str
    amount_wei: int
    refs: tuple[bytes, ...]


class OutcomeRow(Row, frozen=True, tag="Outcome"):
    """What a sealed order pays."""

    winner: bytes | None
    mid: bytes | None
    score: int | None
    reason: str
    receipts: tuple[ReceiptRow, ...]
    slashes: Any


class EntryRow(Row, frozen=True, tag="Entry"):
    """Section ``table``, by OID: an order that is not settled yet."""

    oid: bytes
    order_fields: list[Any]
    block_hash: bytes
    taken_ms: int
    parameters: tuple[tuple[str, int], ...]
    task: Any
    outcome: OutcomeRow | None

    @property
    def order(self) -> Order:
        """The order as its client signed it."""
        named = dict(zip(Order.__struct_fields__, self.order_fields[1:], strict=True))
        return msgspec.convert(named, Order, strict=False, builtin_types=(bytes,))


class CommitteeRow(Row, frozen=True, tag="Committee"):
    """The committee as the ledger knows it."""

    epoch: int
    members: tuple[bytes, ...]
    threshold: int


class HeadRow(Row, frozen=True):
    """Section ``head``: where the ledger stands."""

    domain: Any
    treasury: bytes
    sequence: int
    now_ms: int
    origin: Any
    parameters: tuple[tuple[str, int], ...]
    committee: CommitteeRow
    ordering: CommitteeRow
    handover: int | None
    lead: int
    version: int
    upgrade: Any
    sealed: tuple[bytes, ...]
    penalties: Any
    unbonding: Any
    report: Any
    settled_epoch: int
    next_update_ms: int
    history: bytes


AnyRow = HeadRow | NodeRow | EntryRow | int | bytes

_TYPES: Final[dict[str, type[Any]]] = {
    "head": HeadRow,
    "nodes": NodeRow,
    "nonces": int,
    "table": EntryRow,
    "receipt_roots": bytes,
    "punished": bytes,
}
_DECODERS: Final = {
    name: msgspec.msgpack.Decoder(of, strict=False)  # integers are decimal text
    for name, of in _TYPES.items()
}


def decode_row(section: str, value: bytes) -> AnyRow:
    """The row that ``value`` encodes; raises `InvalidEncoding` for anything else."""
    decoder = _DECODERS.get(section)
    if decoder is None:
        raise InvalidEncoding(f"the ledger has no section {section!r}")
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as reason:
        raise InvalidEncoding(f"not a row of {section}: {reason}") from reason
