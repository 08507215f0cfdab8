"""The models a provider has claimed, on disk: written before the claim is sent, so that a kill loses nothing.

For each order a folder with ``<MID>.safetensors`` files and, per commitment sent, which file it is for. On
the ledger stands one commitment; `find` says which file opens it.
"""

from __future__ import annotations

from pathlib import Path

from offchain.files import write_whole
from protocol.crypto import sha256


class ClaimedModels:
    """Model files by commitment, for one order."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def keep(self, commitment: bytes, model: bytes) -> None:
        """Store a model durably under the commitment about to be sent, and drop all but the last two."""
        path = self._folder / f"{commitment.hex()}.safetensors"
        write_whole(path, model)
        for old in self._oldest_first()[:-2]:
            old.unlink(missing_ok=True)

    def find(self, commitment: bytes) -> bytes | None:
        """The model that a commitment on the ledger is for."""
        path = self._folder / f"{commitment.hex()}.safetensors"
        return path.read_bytes() if path.exists() else None

    def latest_mid(self) -> bytes | None:
        """MID of the model stored last."""
        files = self._oldest_first()
        return sha256(files[-1].read_bytes()) if files else None

    def _oldest_first(self) -> list[Path]:
        return sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
