"""A snapshot: the ledger at a stable checkpoint with the quorum's word for it, and the archive beside it.

Guarantee: what `decode` returns is the ledger that the checkpoint's root names, and the archive that this
ledger names; that the checkpoint is a quorum's is for the caller to check (`Members.verify_stable`).

Source: Castro and Liskov 1999, section 4.6 (state transfer); design section 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from aggregator.ledger import codec
from aggregator.ledger.root import state_root
from aggregator.ledger.state import State
from aggregator.member.archive import Archive
from aggregator.pbft.messages import SnapshotOffer, StableCheckpoint
from protocol.errors import InvalidEncoding, UnknownVersion
from protocol.version import SUPPORTED, Versions


class _Head(msgspec.Struct, frozen=True, array_like=True):
    """What every snapshot begins with, whatever later versions put after it."""

    version: int


class _Stored(_Head, frozen=True, array_like=True):
    epoch: int
    checkpoint: StableCheckpoint
    state: bytes
    archive: bytes


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Stored)
_HEAD_DECODER: Final = msgspec.msgpack.Decoder(_Head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The ledger at ``checkpoint.sequence`` and what it has dropped before (``archive`` may hold more).

    ``epoch`` is that of the committee whose quorum signed the checkpoint. At a hand-over nobody signs: then
    the proof is empty, and the snapshot is good for this member's own restart only.
    """

    epoch: int
    checkpoint: StableCheckpoint
    state: State
    archive: Archive

    @property
    def offer(self) -> SnapshotOffer | None:
        """What to offer to members that are far behind; none if they could not check it."""
        return SnapshotOffer(self.epoch, self.checkpoint) if self.checkpoint.proof else None

    def encode(self) -> bytes:
        """Bytes for the journal and for members that are far behind."""
        archive = self.archive.encode(self.state.settled_epoch)
        state = codec.encode(self.state)
        return _ENCODER.encode(_Stored(self.state.version, self.epoch, self.checkpoint, state, archive))


def decode_snapshot(data: bytes, known: Versions = SUPPORTED) -> Snapshot:
    """Inverse of `Snapshot.encode`, for software that knows these protocol versions.

    Raises:
        UnknownVersion: the ledger says that it follows rules of another one.
        InvalidEncoding: not a snapshot, or not of the ledger that its checkpoint names.
    """
    try:
        head = _HEAD_DECODER.decode(data)
        if head.version not in known:
            raise UnknownVersion(
                f"a ledger of version {head.version} of the protocol; this software knows {known}"
            )
        stored = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as reason:
        raise InvalidEncoding(f"not a snapshot: {reason}") from reason
    state = codec.decode(State, stored.state)
    if state.version != head.version:
        raise InvalidEncoding("the snapshot's ledger is of another version than it says")
    if state.sequence != stored.checkpoint.sequence or state_root(state) != stored.checkpoint.root:
        raise InvalidEncoding("the snapshot's ledger is not the one of its checkpoint")
    return Snapshot(
        epoch=stored.epoch,
        checkpoint=stored.checkpoint,
        state=state,
        archive=Archive.decode(stored.archive, state.history),
    )
