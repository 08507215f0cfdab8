"""The client's own record of its orders, on disk: what the daemon needs to keep its promises.

``placed/OID.json`` is one order and how far the daemon has come with it; ``prepared/HASH.json`` is a task
document whose data is held here, so that an order for it is known whoever's program placed it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from offchain.files import write_whole
from protocol.errors import InvalidDocument
from protocol.task import TaskDocument, read_task


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """One order: its task document, and how far the daemon has come with it."""

    task: str
    """The canonical task document."""
    training_published: bool = False
    test_released: bool = False
    finished: bool = False
    told: int = 0
    """Of how many phases the webhook's receiver was told."""

    @classmethod
    def of(cls, document: TaskDocument) -> Self:
        """The record that a new order starts with."""
        return cls(task=document.canonical().decode())

    def document(self) -> TaskDocument:
        """The task document."""
        return read_task(self.task.encode())


class OrderRecords:
    """All orders of a client's data folder; several processes may share it."""

    def __init__(self, data_dir: Path) -> None:
        self._placed = data_dir / "placed"
        self._prepared = data_dir / "prepared"
        for folder in (self._placed, self._prepared):
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, oid: bytes, record: OrderRecord) -> None:
        """Write one record durably."""
        write_whole(self._placed / f"{oid.hex()}.json", json.dumps(asdict(record)))

    def all(self) -> dict[bytes, OrderRecord]:
        """Every record, by OID; raises `InvalidDocument` for a damaged one."""
        records = {}
        for path in sorted(self._placed.glob("*.json")):
            try:
                records[bytes.fromhex(path.stem)] = OrderRecord(
                    **json.loads(path.read_text(encoding="utf-8"))
                )
            except (ValueError, TypeError) as reason:
                raise InvalidDocument(f"{path} is damaged: {reason}") from reason
        return records

    def prepare(self, document: TaskDocument) -> None:
        """Remember durably that the data of this task is held here."""
        write_whole(self._prepared / f"{document.digest().hex()}.json", document.canonical().decode())

    def drop_prepared(self, document: TaskDocument) -> None:
        """The data of this task is about to go."""
        (self._prepared / f"{document.digest().hex()}.json").unlink(missing_ok=True)

    def prepared(self, task_hash: bytes) -> TaskDocument | None:
        """The task prepared here under this hash; raises `InvalidDocument` for a damaged one."""
        try:
            return read_task((self._prepared / f"{task_hash.hex()}.json").read_bytes())
        except FileNotFoundError:
            return None
