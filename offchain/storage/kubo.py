"""The ``ipfs`` backend: what is public lies in a Kubo daemon, pinned, and everybody on IPFS can fetch it.

A daemon gives any of its blocks to whoever asks for the CID, and the CIDs of a client's test fragments stand
in the task document. So files stay in the embedded store's private folder until they are published: then
their blocks are brought to the daemon, pinned, and dropped here. ``public/`` holds an empty file for each
block that is in the daemon.

Trees are built here, not by the daemon, whose own settings for that have changed between versions: CIDs are
those of the embedded backend by construction. Blocks travel as CARs, one for each node over leaves (at most
46 MB), children before parents: where a node is, all below it is, so that an interrupted `publish` goes on
where it stopped. Pinning, which walks the whole tree offline, is what proves that nothing is missing.

Guarantees: no private block reaches the daemon; every block from the daemon is checked against its CID; no
call makes the daemon search the network; a call ends when the daemon is silent for `timeout_s`.

Source: docs.ipfs.tech/reference/kubo/rpc; PoT 3.1.2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

# The library's own way to leave `requests` as it is: what it replaces there has changed since.
os.environ.setdefault("PY_IPFS_HTTP_CLIENT_PATCH_REQUESTS", "no")

import ipfshttpclient
from ipfshttpclient import exceptions

from offchain.storage.car import write_car
from offchain.storage.cid import RAW, Cid
from offchain.storage.embedded import Collected, EmbeddedStore, Progress
from offchain.storage.unixfs import MAX_BLOCK_BYTES, Block, children_of
from protocol.errors import ProtocolError

CONNECT_TIMEOUT_S: Final = 5.0
_SEND_BYTES: Final = 256 * 1024


class DaemonError(ProtocolError):
    """The IPFS daemon cannot do what was asked of it.

    DaemonError
     ├── DaemonUnreachable
     └── UnknownDaemon
    """


class DaemonUnreachable(DaemonError):
    """No daemon answers at the configured address, or it fell silent."""


class UnknownDaemon(DaemonError):
    """A daemon of a version that the client library does not know."""


class Kubo:
    """The calls of a daemon's RPC that the store needs."""

    def __init__(self, address: str, *, timeout_s: float, any_version: bool = False) -> None:
        """Does not connect yet; see `check`.

        Args:
            address: multiaddress of the RPC. timeout_s: longest silence within a call. any_version: go on
                with versions that the library does not know.

        Raises:
            DaemonError: the address is none.
        """
        self._address = address
        self._any_version = any_version
        self._checked = False
        try:
            self._client: Any = ipfshttpclient.Client(
                address, chunk_size=_SEND_BYTES, offline=True, timeout=(CONNECT_TIMEOUT_S, timeout_s)
            )
        except exceptions.AddressError as reason:
            raise DaemonError(
                f"ipfs_rpc = {address!r} is no address; write it like /ip4/127.0.0.1/tcp/5001/http"
            ) from reason

    def check(self) -> str:
        """The daemon's version.

        Raises:
            DaemonUnreachable: nobody answers. UnknownDaemon: the library does not know it.
        """
        with self._calling("version"):
            version = str(self._client.version()["Version"])
        if not self._any_version:
            try:
                ipfshttpclient.client.assert_version(version)
            except (exceptions.VersionMismatch, ValueError) as reason:
                least = ipfshttpclient.client.VERSION_MINIMUM
                below = ipfshttpclient.client.VERSION_MAXIMUM
                raise UnknownDaemon(
                    f"the IPFS daemon at {self._address} has version {version[:40]}; ipfshttpclient "
                    f"{ipfshttpclient.__version__} knows {least} up to {below}. Set ipfs_any_version = true "
                    'to use it all the same (blocks are checked either way), or storage = "embedded"'
                ) from reason
        self._checked = True
        return version

    def has(self, cid: Cid) -> bool:
        """Whether the daemon has this block."""
        try:
            with self._calling("block/stat"):
                self._client.block.stat(str(cid))
        except _Answered:
            return False
        return True

    def block(self, cid: Cid) -> bytes | None:
        """A checked block; none if the daemon does not have it."""
        data = bytearray()
        try:
            with self._calling("block/get"), self._client.block.get(str(cid), stream=True) as pieces:
                for piece in pieces:
                    data += piece
                    if len(data) > MAX_BLOCK_BYTES:
                        return None
        except _Answered:
            return None
        block = bytes(data)
        return block if cid.names(block) else None

    def bring(self, root: Cid, blocks: Iterable[Block]) -> None:
        """Give the daemon blocks, unpinned."""
        pieces = _Readable(write_car([root], blocks))
        with (
            self._calling("dag/import"),
            self._client.dag.imprt(pieces, opts={"pin-roots": "false"}, stream=True) as lines,
        ):
            for line in lines:
                told = line.get("Root") or {}
                if told.get("PinErrorMsg"):
                    raise DaemonError(f"the IPFS daemon took no {root}: {str(told['PinErrorMsg'])[:200]}")

    def pin(self, cid: Cid) -> bool:
        """Keep a file; whether all its blocks are there."""
        try:
            with self._calling("pin/add"):
                self._client.pin.add(str(cid))
        except _Answered:
            return False
        return True

    def unpin(self, cid: Cid) -> None:
        """Keep a file no longer, if it was kept."""
        try:
            with self._calling("pin/rm"):
                self._client.pin.rm(str(cid))
        except _Answered as reason:
            if "not pinned" not in str(reason):
                raise

    def collect(self) -> None:
        """Remove everything that is not pinned."""
        with self._calling("repo/gc"):
            self._client.repo.gc(quiet=True)

    @contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        if not self._checked and what != "version":
            self.check()
        where = f"the IPFS daemon at {self._address}"
        try:
            yield
        except exceptions.ErrorResponse as reason:
            raise _Answered(f"{where} refused {what}: {str(reason)[:300]}") from reason
        except (exceptions.ConnectionError, exceptions.ProtocolError, exceptions.TimeoutError) as reason:
            self._checked = False  # whoever answers next may be another
            raise DaemonUnreachable(
                f'{where} does not answer ({what}): start it, correct ipfs_rpc, or set storage = "embedded"'
            ) from reason
        except (exceptions.Error, OSError, KeyError, TypeError, AssertionError) as reason:
            raise DaemonError(
                f"{where} gave no answer to {what} that can be read: {reason!r:.300}"
            ) from reason


class _Answered(DaemonError):
    """The daemon said no, in its own words."""


class _Readable:
    """Pieces of bytes as a file that is read once, forwards."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""
        if not self._rest:
            self._rest = next(self._pieces, b"")
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class KuboStore(EmbeddedStore):
    """An embedded store whose public files live in a daemon."""

    def __init__(self, path: Path, daemon: Kubo) -> None:
        """Open or make the store; raises `StorageFull`."""
        super().__init__(path)
        self._daemon = daemon

    def publish(self, cid: Cid, progress: Progress = lambda _: None) -> None:
        """Bring a kept file to the daemon and pin it there; publishing twice changes nothing.

        Raises:
            NotStored: it is not kept here. DaemonError: the daemon cannot be reached, or does not take it;
            nothing is lost, and the next call goes on from there.
        """
        names = self._blocks_of(cid)
        self._bring(cid, progress, self._daemon.has)
        if not self._daemon.pin(cid):
            # The daemon has collected some of what it had: once more, and all of it.
            self._bring(cid, progress, lambda _: False)
            if not self._daemon.pin(cid):
                raise DaemonError(f"the IPFS daemon does not keep {cid}; see its log")
        with self._alone():
            for name in names:
                self._write(self._public / name, b"")
            for name in set(names) - self._needed_here():
                (self._private / name).unlink(missing_ok=True)

    def _needed_here(self) -> set[str]:
        """Blocks of files that are not public, which must stay here."""
        private = [path for path in self._listings() if not (self._public / path.name).exists()]
        return {name for path in private for name in self._blocks_of(Cid.parse(path.name))}

    def _bring(self, root: Cid, progress: Progress, has: Callable[[Cid], bool]) -> None:
        done = 0
        for top, cids, size_bytes in _groups(root, self.block, has):
            self._daemon.bring(top, ((cid, self.block(cid)) for cid in cids))
            done += size_bytes
            progress(done)

    def public_block(self, cid: Cid) -> bytes | None:
        """A block that others may fetch; raises `DaemonError` if the daemon cannot be asked."""
        if not self._is_public(cid):
            return None
        # A store that was `embedded` before has public blocks of its own.
        return super().public_block(cid) or self._daemon.block(cid)

    def _block(self, cid: Cid) -> bytes | None:
        block = super()._block(cid)
        if block is None and self._is_public(cid):
            return self.public_block(cid)
        return block

    def _has_block(self, name: str) -> bool:
        return super()._has_block(name) or (self._public / name).exists()

    def unpin(self, cid: Cid) -> None:
        """Keep a file no longer, here and in the daemon, which forgets it when it collects."""
        self._blocks_of(cid)
        if self._is_public(cid):
            self._daemon.unpin(cid)
        super().unpin(cid)

    def collect(self) -> Collected:
        """As in the embedded store, and in the daemon: all that is not pinned there, whoever brought it."""
        collected = super().collect()
        self._daemon.collect()
        return collected


def _groups(
    root: Cid, read: Callable[[Cid], bytes], has: Callable[[Cid], bool]
) -> Iterator[tuple[Cid, list[Cid], int]]:
    """The blocks of a file that are to be brought, in groups of one node and the leaves below it.

    Each group stands under its node, comes after those of the nodes below, and says how many bytes of file
    its leaves are. What ``has`` says is there is left out, with all that is below it.
    """
    if has(root):
        return
    block = read(root)
    children = children_of(root, block)
    for child in children:
        if child.cid.codec != RAW:
            yield from _groups(child.cid, read, has)
    leaves = [child for child in children if child.cid.codec == RAW]
    size_bytes = sum(leaf.file_bytes for leaf in leaves) if children else len(block)
    # The node last: where it is, all below it is.
    yield root, [*dict.fromkeys(leaf.cid for leaf in leaves), root], size_bytes
