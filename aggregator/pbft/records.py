"""What a replica must not forget: journal records, from which `Replica.restore` rebuilds it.

Each is written before the message that depends on it leaves. Folding them in order gives back every
promise the replica made, so that a restart can never make it vote twice.
"""

from __future__ import annotations

from typing import Final

import msgspec

from aggregator.pbft.messages import Batch, Committed, NewView, Prepared, StableCheckpoint, Vote
from protocol.errors import InvalidEncoding


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="accepted"):
    """Before a prepare (or, by the primary, a pre-prepare) leaves: the proposal it is for, and the batch."""

    vote: Vote
    batch: Batch


class BecamePrepared(msgspec.Struct, frozen=True, array_like=True, tag="prepared"):
    """Before a commit vote leaves: the proof that the batch is prepared."""

    prepared: Prepared


class BecameCommitted(msgspec.Struct, frozen=True, array_like=True, tag="committed"):
    """Before a batch is executed: the batch and its certificate."""

    committed: Committed


class BecameStable(msgspec.Struct, frozen=True, array_like=True, tag="stable"):
    """A checkpoint became stable; older promises may be forgotten."""

    checkpoint: StableCheckpoint


class LeftView(msgspec.Struct, frozen=True, array_like=True, tag="left_view"):
    """Before a view change leaves: no more votes in views below ``view``."""

    view: int


class EnteredNewView(msgspec.Struct, frozen=True, array_like=True, tag="entered_view"):
    """The view the replica takes part in from now on, with the new-view message that proves it."""

    new_view: NewView


Record = Accepted | BecamePrepared | BecameCommitted | BecameStable | LeftView | EnteredNewView

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """Bytes for the journal."""
    return _ENCODER.encode(record)


def decode_record(data: bytes) -> Record:
    """Inverse of `encode_record`; raises `InvalidEncoding`."""
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
        raise InvalidEncoding(f"not a journal record: {reason}") from reason
