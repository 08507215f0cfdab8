"""The client's own record of its orders, on disk: what the daemon needs to keep its promises."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

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

    def document(self) -> TaskDocument:
        """The task document."""
        return read_task(self.task.encode())


class OrderRecords:
    """All orders of a client's data folder; several processes may share it."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "placed"
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, oid: bytes, record: OrderRecord) -> None:
        """Write one record durably."""
        path = self._folder / f"{oid.hex()}.json"
        partial = path.with_suffix(".new")
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    def all(self) -> dict[bytes, OrderRecord]:
        """Every record, by OID; raises `InvalidDocument` for a damaged one."""
        records = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                records[bytes.fromhex(path.stem)] = OrderRecord(
                    **json.loads(path.read_text(encoding="utf-8"))
                )
            except (ValueError, TypeError) as reason:
                raise InvalidDocument(f"{path} is damaged: {reason}") from reason
        return records
