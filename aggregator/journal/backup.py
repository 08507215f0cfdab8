"""Backups of a journal: one file, taken while its member runs or after it stopped, and how it is restored.

A member must not vote against what it voted for, and a backup is older than the last vote. So two kinds:

*A copy* is taken at any time. Whoever restores one has the ledger, the archive and the batches, but does not
know what was promised since: the restored member follows **without a vote** until the chain has appointed
another committee and that one orders, for in it nothing was promised (`aggregator.journal.pledge`). No
sequence number would do as a bound: the member may have left views that nobody else has heard of.

*A move* is taken of a stopped member and retires the journal it was taken of, which never opens again. It is
complete, so the member that is restored from it votes at once. It must be restored once only.

The file is a tar of the folder's files with a manifest in front: whose it is, of which network, of which
kind, and the SHA-256 of every file. Nothing in it is secret; the key is not in it.

Guarantees: what `restore` puts in place is what `backup` read, for the same member of the same network; a
power loss in between leaves no journal rather than half of one; a copy's pledge is on the disk before
anything else has its name.

Source: Castro and Liskov 2000, "Proactive recovery": what a replica that lost its state may do.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

import msgspec

from aggregator.journal.folder import DiskFolder
from aggregator.journal.journal import MAX_SNAPSHOT_BYTES, RETIRED
from aggregator.journal.log import MAX_RECORD_BYTES
from aggregator.journal.pledge import NEVER, Pledge, PledgeFiles
from protocol.errors import ProtocolError

Kind = Literal["copy", "move"]

VERSION: Final = 1
MANIFEST: Final = "manifest.json"
MAX_MANIFEST_BYTES: Final = 64 * 1024
MAX_FILE_BYTES: Final = MAX_SNAPSHOT_BYTES + 16 * MAX_RECORD_BYTES
"""More than any log or snapshot grows to before the journal starts anew."""
MAX_FILES: Final = 8
_NAMES: Final = re.compile(r"(?:log|snapshot)-\d{16}|pledge-[01]")
_PLEDGES: Final = ("pledge-0", "pledge-1")
_ATTEMPTS: Final = 5
"""A journal that starts anew while it is read is read again; that takes thousands of batches."""
_CHUNK_BYTES: Final = 1 << 20


class BackupRefused(ProtocolError):
    """A backup that cannot be made or restored; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose journal it is."""

    account: bytes
    chain_id: int
    parameters: bytes
    """The network's identity."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup says of itself."""

    version: int
    kind: Kind
    account: str
    chain_id: int
    parameters: str
    made_ms: int
    files: dict[str, str]
    """SHA-256 in hex by name."""

    @property
    def owner(self) -> Owner:
        """Whose it is; raises ``ValueError`` for what is no address."""
        return Owner(bytes.fromhex(self.account[2:]), self.chain_id, bytes.fromhex(self.parameters[2:]))


def backup(folder: Path, target: Path, owner: Owner, kind: Kind, now_ms: int) -> Manifest:
    """Write the journal in ``folder`` to the file ``target``, which must not be there.

    Raises:
        BackupRefused: no journal, nothing may be written there, or for a move, it is retired already.
        FolderLocked: a move of a member that runs.
    """
    if not folder.is_dir():
        raise BackupRefused(f"there is no journal at {folder}; is data_dir right?")
    if target.exists():
        raise BackupRefused(f"{target} exists already; name another file")
    with contextlib.ExitStack() as stack:
        if kind == "move":
            lock = stack.enter_context(contextlib.closing(DiskFolder(folder)))
            if RETIRED in lock.names():
                raise BackupRefused(f"{folder} was moved away before; restore that backup")
        try:
            manifest = _write(folder, target, owner, kind, now_ms)
            if kind == "move":
                # Only once the backup is safe: before that this journal is the only one.
                with contextlib.closing(lock.open(RETIRED)) as mark:
                    mark.write(0, str(now_ms).encode())
                    mark.sync()
                lock.sync()
        except OSError as reason:
            raise BackupRefused(f"cannot write {target}: {reason.strerror}; free some space") from reason
    return manifest


def _write(folder: Path, target: Path, owner: Owner, kind: Kind, now_ms: int) -> Manifest:
    partial = target.with_name(target.name + ".new")
    try:
        for attempt in range(_ATTEMPTS):
            partial.unlink(missing_ok=True)
            try:
                manifest = _write_once(folder, partial, owner, kind, now_ms)
                break
            except FileNotFoundError:
                if attempt == _ATTEMPTS - 1:
                    raise
        os.replace(partial, target)
        _sync_folder(target.parent)
        return manifest
    finally:
        partial.unlink(missing_ok=True)


def _write_once(folder: Path, target: Path, owner: Owner, kind: Kind, now_ms: int) -> Manifest:
    names = [name for name in sorted(os.listdir(folder)) if _NAMES.fullmatch(name)]
    # Pledges last: what is read of a log is then within them.
    names.sort(key=lambda name: name in _PLEDGES)
    if not any(name.startswith("log-") for name in names):
        raise BackupRefused(f"{folder} holds no journal; is data_dir right?")
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as out, contextlib.ExitStack() as stack:
        # All are opened at once: what the journal removes meanwhile stays readable.
        sources = {name: stack.enter_context(open(folder / name, "rb")) for name in names}
        # A running member appends: what is there now is what is copied.
        sizes = {name: os.fstat(source.fileno()).st_size for name, source in sources.items()}
        digests = {name: _digest(source, sizes[name]) for name, source in sources.items()}
        manifest = Manifest(
            version=VERSION,
            kind=kind,
            account="0x" + owner.account.hex(),
            chain_id=owner.chain_id,
            parameters="0x" + owner.parameters.hex(),
            made_ms=now_ms,
            files=digests,
        )
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            head = msgspec.json.encode(manifest)
            _add(archive, MANIFEST, io.BytesIO(head), len(head))
            for name, source in sources.items():
                source.seek(0)
                _add(archive, name, source, sizes[name])
        out.flush()
        os.fsync(out.fileno())
    _check(target, manifest)  # a pledge may have been rewritten between the two readings
    return manifest


def _add(archive: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    archive.addfile(entry, source)


def _digest(source: IO[bytes], size: int) -> str:
    digest = hashlib.sha256()
    while size > 0 and (chunk := source.read(min(size, _CHUNK_BYTES))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()


def _check(path: Path, manifest: Manifest) -> None:
    with _opened(path) as archive:
        for entry in archive:
            source = archive.extractfile(entry)
            if entry.name != MANIFEST and source is not None:
                if entry.name in _PLEDGES and manifest.kind == "copy":
                    continue  # a copy's are replaced
                if _digest(source, entry.size) != manifest.files[entry.name]:
                    raise BackupRefused(f"{entry.name} changed while it was read: try again")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, mode="r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError, UnicodeDecodeError) as reason:
        raise BackupRefused(f"{path} is no backup, or damaged: {reason}") from reason
    except OSError as reason:
        raise BackupRefused(f"cannot read {path}: {reason.strerror}") from reason


def read_manifest(path: Path) -> Manifest:
    """What a backup says of itself, nothing of it proved yet; raises `BackupRefused`."""
    with _opened(path) as archive:
        entry = archive.next()
        if entry is None or entry.name != MANIFEST or not entry.isreg() or entry.size > MAX_MANIFEST_BYTES:
            raise BackupRefused(f"{path} is no backup of a journal")
        source = archive.extractfile(entry)
        assert source is not None, "a regular file"
        try:
            manifest = msgspec.json.decode(source.read(), type=Manifest)
            _ = manifest.owner
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as reason:
            raise BackupRefused(f"{path}: its manifest cannot be read: {reason}") from reason
    if manifest.version != VERSION:
        raise BackupRefused(
            f"{path} is a backup of version {manifest.version}, this software reads {VERSION}: upgrade it"
        )
    if len(manifest.files) > MAX_FILES or not all(_NAMES.fullmatch(name) for name in manifest.files):
        raise BackupRefused(f"{path} holds what is no part of a journal")
    return manifest


def restore(source: Path, folder: Path, owner: Owner, epoch: int) -> Manifest:
    """Put the journal of a backup at ``folder``, where none may be.

    ``epoch`` is that of the last committee which the chain has appointed: of it and all before, a member
    that is restored from a copy may have promised anything.

    Raises:
        BackupRefused: another's backup, damaged, or a journal is there.
    """
    manifest = read_manifest(source)
    if manifest.owner != owner:
        raise BackupRefused(
            f"{source} is the backup of {manifest.account} on chain {manifest.chain_id}, network "
            f"{manifest.parameters}: not this member's"
        )
    if folder.exists() and any(folder.iterdir()):
        raise BackupRefused(f"there is a journal at {folder}: move it away first, and keep it")
    partial = folder.with_name(folder.name + ".restoring")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        _extract(source, partial, manifest)
        if manifest.kind == "copy":
            for name in _PLEDGES:
                (partial / name).unlink(missing_ok=True)
            with contextlib.closing(DiskFolder(partial)) as lock:
                PledgeFiles(lock).write(Pledge(epoch=epoch, horizon=NEVER, lost=True))
        _sync_folder(partial)
        if folder.exists():
            folder.rmdir()
        os.rename(partial, folder)
        _sync_folder(folder.parent)
    except OSError as reason:
        raise BackupRefused(f"cannot write to {folder}: {reason.strerror}; free some space") from reason
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _extract(source: Path, folder: Path, manifest: Manifest) -> None:
    left = dict(manifest.files)
    with _opened(source) as archive:
        for entry in archive:
            if entry.name == MANIFEST:
                continue
            wanted = left.pop(entry.name, None)
            if wanted is None or not entry.isreg() or entry.size > MAX_FILE_BYTES:
                raise BackupRefused(f"{source} holds {entry.name!r:.60}, which its manifest does not name")
            data = archive.extractfile(entry)
            assert data is not None, "a regular file"
            digest = hashlib.sha256()
            with open(folder / entry.name, "xb") as out:
                while chunk := data.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            replaced = entry.name in _PLEDGES and manifest.kind == "copy"
            if digest.hexdigest() != wanted and not replaced:
                raise BackupRefused(f"{source} is damaged: {entry.name} is not what was written")
    if left:
        raise BackupRefused(f"{source} is not whole: it lacks {', '.join(sorted(left))}")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
