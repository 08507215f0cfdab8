"""What orders need stays until they are settled, and for the paid time after; then it goes.

One file per order, ``needed/OID.json``, names the files in the store that it needs and says since when the
order is known to be settled. A file that several orders need stays as long as any of them needs it. Pure but
for these files: the caller brings the time, in Unix milliseconds, and asks the network.

Guarantees: nothing is given up for an order that is not marked as settled, nor earlier than `keep_s` after
that; a crash at any point repeats work and loses nothing.

Source: PoT 3.4 "Achieving Retrievability"; design section 9.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from offchain.files import write_whole
from offchain.storage import Cid, InvalidCid
from protocol.errors import ProtocolError


class DamagedRecord(ProtocolError):
    """A file of this folder that cannot be read; says which."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What one order needs."""

    cids: frozenset[Cid]
    settled_ms: int | None = None
    """When it was first known to be settled."""


class Retention:
    """The orders whose files are kept."""

    def __init__(self, folder: Path, keep_s: int) -> None:
        """Read what is there; raises `DamagedRecord`."""
        self._folder = folder
        self._keep_ms = keep_s * 1000
        folder.mkdir(parents=True, exist_ok=True)
        self._orders = {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}

    def need(self, oid: str, cids: Iterable[Cid] = ()) -> None:
        """An order (0x-hex) needs these files too; with none, it is looked after all the same."""
        known = self._orders.get(oid)
        wanted = frozenset(cids) | (known.cids if known else frozenset())
        if known is None or wanted != known.cids:
            self._write(oid, Needed(wanted, known.settled_ms if known else None))

    def knows(self, oid: str) -> bool:
        """Whether the order is looked after."""
        return oid in self._orders

    def unsettled(self) -> list[str]:
        """Orders that are not known to be settled."""
        return [oid for oid, needed in self._orders.items() if needed.settled_ms is None]

    def settled(self, oid: str, now_ms: int) -> None:
        """An order is settled: its time runs from now on."""
        known = self._orders[oid]
        if known.settled_ms is None:
            self._write(oid, Needed(known.cids, now_ms))

    def due(self, now_ms: int) -> dict[str, frozenset[Cid]]:
        """Orders whose time is over, each with the files that nobody needs once it is gone."""
        over = {
            oid: needed.cids
            for oid, needed in self._orders.items()
            if needed.settled_ms is not None and now_ms - needed.settled_ms >= self._keep_ms
        }
        still = {cid for oid, needed in self._orders.items() if oid not in over for cid in needed.cids}
        return {oid: cids - still for oid, cids in over.items()}

    def forget(self, oid: str) -> None:
        """What the order needed is gone."""
        (self._folder / f"{oid}.json").unlink(missing_ok=True)
        del self._orders[oid]

    def _write(self, oid: str, needed: Needed) -> None:
        fields = {"cids": sorted(map(str, needed.cids)), "settled_ms": needed.settled_ms}
        write_whole(self._folder / f"{oid}.json", json.dumps(fields))
        self._orders[oid] = needed


def _read(path: Path) -> Needed:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        settled_ms = fields["settled_ms"]
        return Needed(
            frozenset(map(Cid.parse, fields["cids"])), None if settled_ms is None else int(settled_ms)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidCid) as reason:
        raise DamagedRecord(
            f"{path} cannot be read: {reason}; remove it to keep its files for good"
        ) from reason
