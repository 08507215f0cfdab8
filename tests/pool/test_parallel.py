"""Two processes on two CPU devices train what one trains: `jax.distributed`, gloo, named sharding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from dtn.devnet.network import free_port
from tests.pool.two_processes import outcome

ROOT: Final = Path(__file__).parents[2]
TOLERANCE: Final = 1e-4
"""Of parameters of size one after 60 steps: gradients are the same sums, added in another order."""
SCORE_TOLERANCE: Final = 200
"""Millionths of a nat, by which the exact held-out score may differ for the same reason."""


def two_processes(*seeds: int) -> list[dict[str, Any]]:
    """What each of them says."""
    script, port = str(Path(__file__).with_name("two_processes.py")), str(free_port())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, script, port, str(process), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for process, seed in enumerate(seeds)
    ]
    try:
        return [json.loads(process.communicate(timeout=180)[0]) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_two_processes_train_the_model_that_one_trains() -> None:
    leader, follower = two_processes(0, 0)
    alone = outcome(0, None)
    assert leader["step"] == alone["step"] == follower["followed_to"] == 60
    assert np.allclose(leader["losses"], alone["losses"], atol=TOLERANCE)
    assert leader["tensors"].keys() == alone["tensors"].keys()
    for name, values in alone["tensors"].items():
        assert np.allclose(leader["tensors"][name], values, atol=TOLERANCE), name
    assert abs(leader["score"] - alone["score"]) <= SCORE_TOLERANCE
    # It could not be otherwise if nothing were learnt, or another run were as like.
    other = outcome(1, None)
    assert alone["losses"][-1] < alone["losses"][0] - 0.5
    assert abs(other["score"] - alone["score"]) > SCORE_TOLERANCE


def test_processes_that_mean_different_runs_refuse_each_other() -> None:
    for answer in two_processes(0, 1):
        assert "processes [1]" in answer["refused"] and "same version" in answer["refused"]
