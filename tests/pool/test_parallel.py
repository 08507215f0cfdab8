"""Two processes on two CPU devices train what one trains: `jax.distributed`, gloo, named sharding, for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from dtn.devnet.network import free_port

ROOT: Final = Path(__file__).parents[2]
TOLERANCE: Final = 1e-4
"""Of parameters of size one after 60 steps: gradients are the same sums, added in another order."""
SCORE_TOLERANCE: Final = 200
"""Millionths of a nat, by which the exact held-out score may differ for the same reason."""


def train(family: str, processes: int, seeds: tuple[int, ...] = (0, 0)) -> list[dict[str, Any]]:
    """What each process says; 0 processes is the engine without a team."""
    port = str(free_port())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("two_processes.py"))]
            + [port, str(process), str(processes), family, str(seeds[process])],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for process in range(max(processes, 1))
    ]
    try:
        return [json.loads(process.communicate(timeout=180)[0]) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.parametrize("family", ["mlp", "resnet"])
def test_two_processes_train_the_model_that_one_trains(family: str) -> None:
    (alone,) = train(family, 0)
    leader, follower = train(family, 2)
    assert leader["step"] == alone["step"] == follower["followed_to"] == 60
    assert np.allclose(leader["losses"], alone["losses"], atol=TOLERANCE)
    assert leader["tensors"].keys() == alone["tensors"].keys()
    for name, values in alone["tensors"].items():
        assert np.allclose(leader["tensors"][name], values, atol=TOLERANCE), name
    assert abs(leader["score"] - alone["score"]) <= SCORE_TOLERANCE
    assert alone["losses"][-1] < alone["losses"][0] - 0.3, "nothing was learnt, so nothing was compared"


def test_processes_that_mean_different_runs_refuse_each_other() -> None:
    leader, follower = train("mlp", 2, seeds=(0, 1))
    for answer in (leader, follower):
        assert "processes [1]" in answer["refused"] and "same version" in answer["refused"]
