"""The ledger's state root: one 32-byte hash that two ledgers share exactly when they are equal.

Every row (node, nonce, order, …) is a Merkle leaf under its own key, so that a single row can be proved
against a checkpointed root (`protocol.state_proof`). Values are hashed in a canonical form: msgpack arrays in
field order, maps sorted by key, integers as decimal text where they may exceed 64 bits.

Source: design section 6 ("State has a root hash; checkpoints sign it").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from aggregator.ledger.state import State
from protocol.crypto import keccak256
from protocol.merkle import root
from protocol.parameters import Parameters
from protocol.state_proof import HEAD, SECTIONS, row_leaf

_ENCODER = msgspec.msgpack.Encoder()


def canonical(value: Any) -> Any:
    """``value`` as nested lists, bytes, strings and booleans: the form that is hashed."""
    if value is None or isinstance(value, bool | bytes | str):
        return value
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, Parameters):
        return [[name, str(number)] for name, number in value.values]
    if isinstance(value, msgspec.Struct):
        return [type(value).__name__, *(canonical(item) for item in msgspec.structs.astuple(value))]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (canonical(getattr(value, field.name)) for field in dataclasses.fields(value))
        return [type(value).__name__, *fields]
    if isinstance(value, Mapping):
        return [[canonical(key), canonical(value[key])] for key in sorted(value)]
    if isinstance(value, tuple | list):
        return [canonical(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no canonical form")


def row_value(row: Any) -> bytes:
    """The bytes of a row: what its leaf is over and what a proof shows."""
    return _ENCODER.encode(canonical(row))


def head_of(state: State) -> list[Any]:
    """The one row of section ``head``: everything but the maps."""
    return [getattr(state, name) for name in _HEAD]


def state_root(state: State) -> bytes:
    """Merkle root over all rows of the ledger: the definition; `row_tree` computes the same, faster."""
    leaves = [row_leaf(HEAD, b"", row_value(head_of(state)))]
    for name in MAPS:
        rows: Mapping[bytes, Any] = getattr(state, name)
        leaves.extend(row_leaf(name, key, row_value(rows[key])) for key in sorted(rows))
    return root(leaves)


def value_hash(value: Any) -> bytes:
    """32 bytes that two ledger values share exactly when they are equal."""
    return keccak256(row_value(value))


MAPS: Final = SECTIONS[1:]
"""The maps of the ledger, in the order of their leaves."""
_HEAD: Final = tuple(field.name for field in dataclasses.fields(State) if field.name not in MAPS)
