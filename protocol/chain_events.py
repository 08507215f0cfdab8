"""What the contracts said, as the ledger takes it in: one frozen struct per contract event.

The origin room reads logs from a chain node and turns them into these; a batch carries them, and a
replica accepts the batch only if it derived the same ones from its own node (design section 5).

Guarantees: `encode_event` is canonical; `decode_event` refuses everything else.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol.errors import InvalidEncoding
from protocol.transactions import Order
from protocol.typed_data import Address, Bytes32, Text, Uint8, Uint64, Uint96


class ChainEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all contract events."""


class OrderPlaced(ChainEvent, frozen=True, kw_only=True, tag="OrderPlaced"):
    """``OrderBook``: reward and deposit are escrowed. ``block_hash`` seeds the data split."""

    oid: Bytes32
    order: Order
    block_hash: Bytes32


class OrderReclaimed(ChainEvent, frozen=True, kw_only=True, tag="OrderReclaimed"):
    """``OrderBook``: the client took an order's escrow back after the long timeout."""

    oid: Bytes32


class Staked(ChainEvent, frozen=True, kw_only=True, tag="Staked"):
    """``NodeRegistry``: ``bonded`` is the account's stake in the role afterwards."""

    account: Address
    role: Uint8
    amount: Uint96
    bonded: Uint96


class EndpointChanged(ChainEvent, frozen=True, kw_only=True, tag="EndpointChanged"):
    """``NodeRegistry``: where a node is reached, and its link key."""

    account: Address
    endpoint: Text
    link_key: Bytes32


class UnstakeRequested(ChainEvent, frozen=True, kw_only=True, tag="UnstakeRequested"):
    """``NodeRegistry``: stake moved from bonded to unbonding; it leaves only through a settlement."""

    account: Address
    role: Uint8
    amount: Uint96


class CommitteeChanged(ChainEvent, frozen=True, kw_only=True, tag="CommitteeChanged"):
    """``Committee``: members in ascending order, threshold of signatures for a settlement."""

    epoch: Uint64
    members: tuple[Address, ...]
    threshold: int


class ParameterChanged(ChainEvent, frozen=True, kw_only=True, tag="ParameterChanged"):
    """``Parameters``: a value was set."""

    key: Text
    value: int


class Settled(ChainEvent, frozen=True, kw_only=True, tag="Settled"):
    """``Settlement``: the report of ``epoch`` was applied; ``root`` is its credits' Merkle root."""

    epoch: Uint64
    root: Bytes32
    transaction_hash: Bytes32
    gas_used: Uint64


AnyChainEvent = (
    OrderPlaced
    | OrderReclaimed
    | Staked
    | EndpointChanged
    | UnstakeRequested
    | CommitteeChanged
    | ParameterChanged
    | Settled
)

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(AnyChainEvent)


def encode_event(event: AnyChainEvent) -> bytes:
    """The canonical bytes of an event."""
    return _ENCODER.encode(event)


def decode_event(data: bytes) -> AnyChainEvent:
    """Inverse of `encode_event`; raises `InvalidEncoding` for anything else."""
    try:
        event = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
        raise InvalidEncoding(f"not a chain event: {reason}") from reason
    if _ENCODER.encode(event) != data:
        raise InvalidEncoding("not the canonical encoding of this chain event")
    return event
