"""Checks of this machine: data folder, disk, ports, devices, versions."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

import httpx

from dtn.doctor.finding import Finding, failed, ok, warning
from offchain.storage.cid import Cid, InvalidCid
from protocol.version import SUPPORTED, software_version

LEAST_FREE_BYTES: Final = 2**30
"""Below this a few models fill the disk, or a day of journal."""
ENOUGH_FREE_BYTES: Final = 10 * 2**30
LEAST_PYTHON: Final = (3, 11)
TIMEOUT_S: Final = 3.0
_NOWHERE: Final = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
"""The CID of nothing: a gateway of ours says that it is not public, or has it."""


def check_data_dir(folder: Path) -> Finding:
    """Whether files can be made where the role keeps its own."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".doctor-"):
            pass
    except OSError as reason:
        do = f"make it writable for this account (chown, chmod), or choose another data_dir: {folder}"
        return failed("data folder", f"cannot write to {there}: {reason.strerror}", do)
    if there != folder:
        return ok("data folder", f"{folder} is not there yet; {there} is writable")
    mode = folder.stat().st_mode & 0o077
    if mode & 0o022:
        do = f"chmod go-w {folder}"
        return warning("data folder", f"others may write to {folder}", do)
    return ok("data folder", f"{folder} is writable")


def check_disk(folder: Path, least: int = LEAST_FREE_BYTES, enough: int = ENOUGH_FREE_BYTES) -> Finding:
    """Whether there is room."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    usage = shutil.disk_usage(there)
    what = f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB are free at {there}"
    do = "make room, or move data_dir to a larger disk; old orders' folders may be removed once settled"
    if usage.free < least:
        return failed("disk", what, do)
    if usage.free < enough:
        return warning("disk", what, do)
    return ok("disk", what)


def port_is_free(host: str, port: int) -> bool:
    """Whether somebody could listen there; raises `OSError` if not even that can be tried."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as reason:
            if reason.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def check_gateway(host: str, port: int, public_url: str | None, store: Path, fixed: bool) -> Finding:
    """Whether the gateway can listen or does already, and whether its public link leads to it.

    ``fixed``: whether the role's links outlive a restart, so that the port must not change.
    """
    name = "gateway"
    if port == 0:
        if fixed and public_url is None:
            return failed(
                name, "gateway_port is 0: links change with every start", "set a fixed gateway_port"
            )
        return ok(name, "listens on any free port")
    where = f"{host}:{port}"
    try:
        free = port_is_free(host, port)
    except OSError as reason:
        do = "set gateway_host to an address of this machine, and a gateway_port above 1023"
        return failed(name, f"cannot listen on {where}: {reason.strerror}", do)
    if free:
        reached = "" if public_url is None else f"; {public_url} is looked at while the role runs"
        return ok(name, f"{where} is free, so the role is not running{reached}")
    local = "127.0.0.1" if host in ("0.0.0.0", "") else "[::1]" if host == "::" else host
    wrong = _not_ours(f"http://{local}:{port}", store)
    if wrong is not None:
        do = "end the other program, or choose another gateway_port"
        return failed(name, f"something else listens on {where}: {wrong}", do)
    if public_url is None:
        return ok(name, f"serves files at {where}")
    wrong = _not_ours(public_url.rstrip("/"), store)
    if wrong is not None:
        do = "forward the port, or correct public_url: what others cannot fetch costs claims and deposits"
        return failed(name, f"it runs, but {public_url} does not lead to it: {wrong}", do)
    return ok(name, f"serves files at {where}, and so does {public_url}")


def _not_ours(url: str, store: Path) -> str | None:
    """Why what answers at ``url`` is not the gateway of ``store``; None if it is."""
    try:
        name = next(iter(sorted(os.listdir(store / "public"))), _NOWHERE)
    except OSError:
        name = _NOWHERE
    try:
        cid = Cid.parse(name)
        answer = httpx.get(f"{url}/ipfs/{name}", params={"format": "raw"}, timeout=TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as reason:
        return f"no answer ({reason or type(reason).__name__})"
    except InvalidCid:
        return f"{store / 'public' / name} is no block"
    if answer.status_code == 200 and cid.names(answer.content):
        return None
    if answer.status_code == 404 and "not public here" in answer.text and name == _NOWHERE:
        return None
    return f"it answers {answer.status_code} where this store has a block"


def check_devices(platform: str | None) -> Finding:
    """Whether JAX finds something to compute on."""
    name = "devices"
    if platform is not None:
        os.environ["JAX_PLATFORMS"] = platform
    try:
        import jax
    except ImportError as reason:
        do = 'install it: pip install "proof-of-training[train]"'
        return failed(name, f"JAX cannot be imported: {reason}", do)
    try:
        devices = jax.local_devices()
    except RuntimeError as reason:
        first = str(reason).splitlines()[0]
        do = "correct `platform`, or install JAX for this machine's accelerator and its driver"
        return failed(name, f"JAX finds no device: {first}", do)
    what = ", ".join(f"{device.platform}:{device.id} {device.device_kind}" for device in devices)
    if platform is None and all(device.platform == "cpu" for device in devices):
        return warning(
            name, f"{what}: the processor only", "install JAX for this machine's GPU, if it has one"
        )
    return ok(name, what)


def check_versions(packages: Sequence[str] = ("web3", "jax")) -> Finding:
    """What runs here."""
    name = "versions"
    found = []
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    python = ".".join(map(str, sys.version_info[:3]))
    what = f"DTN {software_version()}, protocol {SUPPORTED}, Python {python}, {', '.join(found)}"
    if sys.version_info < LEAST_PYTHON:
        return failed(name, what, "install Python 3.11 or newer")
    return ok(name, what)
