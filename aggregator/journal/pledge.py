"""How far a member's votes may have gone: all it must know of a log that it can no longer read.

A log is one file; when bytes in its middle change, what it promised cannot be told. So an upper bound on
the promises stands in two small files of its own, each rewritten whole and synced before the first vote
beyond the bound leaves. It moves in strides, so that few votes wait for it.

A member whose log is damaged takes the ledger from its peers and votes for nothing until the stable
checkpoint has passed ``horizon``, and then in no view below ``view``: it never voted on a number above the
horizon, left no view above ``view``, and what it may have prepared up to the horizon is stable, so no view
change needs to carry it. A committee that the member joins later has none of its promises.

Source: Castro and Liskov 2000 ("Proactive recovery", the bound on a recovering replica's numbers).
"""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from aggregator.journal.folder import Folder
from aggregator.pbft.records import Accepted, BecamePrepared, EnteredNewView, LeftView, Record

STRIDE: Final = 256
"""Numbers that one write covers: a window of the replica, so a member is repaired within two of them."""
NEVER: Final = 2**63
"""A horizon that no checkpoint passes: silent until another committee orders, see `Journal` backups."""
_NAMES: Final = ("pledge-0", "pledge-1")
_MAGIC: Final = b"DTNPLDG1"
_BODY: Final = struct.Struct("<QQQ?")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pledge:
    """No vote of this member goes beyond this."""

    epoch: int = 0
    """The last committee that it voted in."""
    view: int = 0
    """The last view of that committee in which it voted, or for which it left the one before."""
    horizon: int = 0
    """No vote of it is on a higher sequence number."""
    lost: bool = False
    """The log of these promises was damaged: it must not vote in this epoch up to the horizon."""

    def covering(self, record: Record, epoch: int, stride: int) -> Pledge:
        """The pledge that the votes which ``record`` allows are within; itself if they are already.

        Whoever has lost its promises only follows, and so does whoever is still on the way to the epoch of
        its last vote: what they write down allows no vote.
        """
        if epoch < self.epoch or (self.lost and epoch == self.epoch):
            return self
        match record:
            case Accepted(vote=vote):
                view, sequence = vote.view, vote.sequence
            case BecamePrepared(prepared=prepared):
                view, sequence = prepared.pre_prepare.view, prepared.pre_prepare.sequence
            case LeftView(view=view):
                sequence = 0
            case EnteredNewView(new_view=new_view):
                view = new_view.contents.view
                sequence = max((vote.sequence for vote in new_view.contents.pre_prepares), default=0)
            case _:
                return self
        before = 0 if self.horizon >= NEVER else self.horizon
        known = self if epoch == self.epoch else Pledge(epoch=epoch, horizon=before)
        return dataclasses.replace(
            known,
            view=max(known.view, view),
            horizon=known.horizon if sequence <= known.horizon else sequence + stride,
        )


class PledgeFiles:
    """The pledge of the journal in a folder. Errors of the disk leave as `OSError`."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        copies = [self._read(name) for name in _NAMES]
        found = [copy for copy in copies if copy is not None]
        self.found = bool(found)
        """Whether a copy was intact."""
        self.pledge = max(found, default=Pledge())
        """What is on the disk in both copies."""
        if found and copies.count(self.pledge) < len(_NAMES):
            # Both are written before a vote leaves: the later one binds, and both must hold it again.
            self.write(self.pledge)

    def _read(self, name: str) -> Pledge | None:
        if name not in self._folder.names():
            return None
        with contextlib.closing(self._folder.open(name)) as file:
            data = file.read(0, len(_MAGIC) + 4 + _BODY.size)
        head, checksum, body = data[:8], data[8:12], data[12:]
        if head != _MAGIC or len(body) != _BODY.size or zlib.crc32(body).to_bytes(4, "little") != checksum:
            return None
        epoch, view, horizon, lost = _BODY.unpack(body)
        return Pledge(epoch=epoch, view=view, horizon=horizon, lost=lost)

    def write(self, pledge: Pledge) -> None:
        """Make a pledge durable, one copy after the other: a power loss leaves one of them whole."""
        body = _BODY.pack(pledge.epoch, pledge.view, pledge.horizon, pledge.lost)
        data = _MAGIC + zlib.crc32(body).to_bytes(4, "little") + body
        new = any(name not in self._folder.names() for name in _NAMES)
        for name in _NAMES:
            with contextlib.closing(self._folder.open(name)) as file:
                file.write(0, data)
                file.sync()
        if new:
            self._folder.sync()
        self.pledge, self.found = pledge, True
