"""However ``dtn demo`` is ended, no process of its network stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dtn.devnet import Devnet
from tests.end_to_end.driving import dtn, until

pytestmark = pytest.mark.end_to_end


DTN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from dtn.__main__ import main
main()
"""
"""``dtn`` as a terminal starts it: a shell's background ignores Ctrl-C, and a test there hands that down."""


def of_home(home: Path) -> list[psutil.Process]:
    """Every process that was started for this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("DTN_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue  # it ended, or belongs to somebody else
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_demo_that_is_ended_leaves_nothing_running(tmp_path: Path, how: signal.Signals) -> None:
    """After a SIGKILL ``dtn devnet down`` cleans up, even if the chain's node was killed as well."""
    demo = subprocess.Popen(
        [sys.executable, "-c", DTN, "demo", "-o", str(tmp_path / "model.safetensors")],
        env={**os.environ, "DTN_HOME": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    devnet = Devnet(tmp_path / "devnet")
    try:
        # A kill may come between the start of a process and its record: that one nobody can know of.
        count = 11 if how is signal.SIGKILL else 4
        until("the network's processes start", lambda: len(devnet.running()) >= count, devnet)
        demo.send_signal(how)
        demo.wait(timeout=60)
        if how is signal.SIGKILL:
            devnet.children.all()["chain"].find().kill()  # type: ignore[union-attr]
            assert dtn("devnet", "down", home=tmp_path).returncode == 0
        assert of_home(tmp_path) == []
    finally:
        demo.kill()
        demo.wait()
        devnet.down()


LIFETIME = """
import sys, time
from pathlib import Path
from dtn.devnet import Devnet, Shape
with Devnet(Path(sys.argv[1])).lifetime(Shape(aggregators=1, providers=0, validators=0, verifiers=0)):
    print("up", flush=True)
    time.sleep(120)
"""
"""A local network for as long as a block of code runs, as benchmarks use it."""


def test_a_network_ends_with_the_block_of_code_though_a_signal_ends_that(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", LIFETIME, str(tmp_path / "devnet")],
        env={**os.environ, "DTN_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert owner.stdout is not None and owner.stdout.readline() == b"up\n"
        owner.send_signal(signal.SIGTERM)
        owner.wait(timeout=60)
        assert of_home(tmp_path) == []
    finally:
        owner.kill()
        owner.communicate()
        Devnet(tmp_path / "devnet").down()
