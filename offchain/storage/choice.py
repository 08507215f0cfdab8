"""The store that a configuration names (design section 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from offchain.storage.embedded import EmbeddedStore


class StorageSettings(Protocol):
    """The part of `offchain.config.ActorConfig` that says where files are kept."""

    @property
    def data_dir(self) -> Path: ...
    @property
    def storage(self) -> str: ...


def open_store(settings: StorageSettings) -> EmbeddedStore:
    """The store of one participant; raises `StorageFull`."""
    return EmbeddedStore(settings.data_dir / "store")
