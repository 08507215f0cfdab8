"""The models a provider has claimed, on disk: written before the claim is sent, so that a kill loses nothing.

For each order a folder with ``<commitment>.safetensors`` files. On the ledger stands one commitment; `find`
says which model opens it. Guarantee: that of the commitment last known to stand there is never dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from offchain.files import write_whole

KEPT: Final = 3
"""Of the models stored last: while the network is silent, any of their claims may have been taken."""


class ClaimedModels:
    """Model files by commitment, for one order."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._placed: bytes | None = None

    def keep(self, commitment: bytes, model: bytes) -> None:
        """Store a model durably under the commitment about to be sent; drops old ones, see `KEPT`."""
        write_whole(self._path(commitment), model)
        for old in self._oldest_first()[:-KEPT]:
            if self._placed is None or old != self._path(self._placed):
                old.unlink(missing_ok=True)

    def placed(self, commitment: bytes) -> None:
        """Say that this commitment stands on the ledger now."""
        self._placed = commitment

    def find(self, commitment: bytes) -> bytes | None:
        """The model that a commitment on the ledger is for."""
        path = self._path(commitment)
        return path.read_bytes() if path.exists() else None

    def latest(self) -> bytes | None:
        """The commitment whose model was stored last: the best one."""
        files = self._oldest_first()
        return bytes.fromhex(files[-1].stem) if files else None

    def _path(self, commitment: bytes) -> Path:
        return self._folder / f"{commitment.hex()}.safetensors"

    def _oldest_first(self) -> list[Path]:
        return sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
