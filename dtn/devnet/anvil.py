"""Anvil, the local chain: where it is, and one that lives as long as a block of code."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from web3 import HTTPProvider, Web3

from dtn.devnet.ports import Ports
from dtn.devnet.processes import wait_until
from protocol.errors import ProtocolError

START_TIMEOUT_S = 20.0


class DevnetError(ProtocolError):
    """A local network that cannot be started or found; says what to do."""


def find_anvil() -> str:
    """Anvil's path; raises `DevnetError` if it is not installed.

    The program itself, not npm's starter: that one is a second process, whose end leaves Anvil running.
    """
    packages = Path(__file__).resolve().parents[2] / "node_modules" / "@foundry-rs"
    local = next(iter(sorted(packages.glob("anvil-*/bin/anvil"))), None)
    found = str(local) if local is not None else shutil.which("anvil")
    if found is None:
        raise DevnetError("Anvil is not installed; run `make node_modules`, or put anvil on the PATH")
    return found


@contextlib.contextmanager
def running_anvil() -> Iterator[tuple[Web3, subprocess.Popen[bytes]]]:
    """A fresh chain that mines a block per transaction, and its process, ended by its id at last.

    Raises:
        DevnetError: Anvil is not installed or does not answer.
    """
    with Ports() as ports:
        (port,) = ports.take(1)
        command = [find_anvil(), "--port", str(port), "--accounts", "1", "--quiet", "--hardfork", "prague"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            web3 = Web3(HTTPProvider(f"http://127.0.0.1:{port}"))
            if not wait_until(web3.is_connected, START_TIMEOUT_S):
                raise DevnetError(f"Anvil does not answer on port {port} after {START_TIMEOUT_S:.0f} s")
            yield web3, process
        finally:
            process.terminate()
            process.wait(timeout=10)
