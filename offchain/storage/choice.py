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
    @property
    def ipfs_rpc(self) -> str: ...
    @property
    def ipfs_any_version(self) -> bool: ...
    @property
    def ipfs_timeout_s(self) -> float: ...


def open_store(settings: StorageSettings) -> EmbeddedStore:
    """The store of one participant.

    Raises:
        StorageFull: the folder cannot be written.
        DaemonError: the daemon does not answer, or is of an unknown version.
    """
    folder = settings.data_dir / "store"
    if settings.storage == "embedded":
        return EmbeddedStore(folder)
    # The client library takes a while to import, and only this backend needs it.
    from offchain.storage.kubo import Kubo, KuboStore

    daemon = Kubo(settings.ipfs_rpc, timeout_s=settings.ipfs_timeout_s, any_version=settings.ipfs_any_version)
    daemon.check()
    return KuboStore(folder, daemon)
