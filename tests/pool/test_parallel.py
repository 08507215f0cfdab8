"""Two processes on two CPU devices train what one trains: `jax.distributed`, gloo, named sharding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from jax.experimental import multihost_utils

from dtn.devnet.ports import free_port
from offchain.training.parallel import Team, TeamMismatch
from offchain.training.task import fingerprint
from tests.pool.two_processes import config, outcome, task

ROOT: Final = Path(__file__).parents[2]
TOLERANCE: Final = 1e-4
"""Of parameters of size one after 60 steps: gradients are the same sums, added in another order."""
SCORE_TOLERANCE: Final = 200
"""Millionths of a nat, by which the exact held-out score may differ for the same reason."""


def two_processes() -> list[dict[str, Any]]:
    """What each of them says."""
    script, port = str(Path(__file__).with_name("two_processes.py")), str(free_port())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, script, port, str(process)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for process in range(2)
    ]
    try:
        return [json.loads(process.communicate(timeout=180)[0]) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_two_processes_train_the_model_that_one_trains() -> None:
    leader, follower = two_processes()
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


def test_processes_that_mean_different_runs_refuse_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, so that none is left in a collective."""
    team, mine = Team(), fingerprint(task(), config(0))
    monkeypatch.setattr(team, "_several", True)

    def gathered(*digests: bytes) -> None:
        everybody = np.stack([np.frombuffer(digest, np.uint8) for digest in digests])
        monkeypatch.setattr(multihost_utils, "process_allgather", lambda _: everybody)
        team.require_one_run(mine)

    gathered(mine, mine, mine)
    with pytest.raises(TeamMismatch, match=r"processes \[1, 2\] .* same version"):
        gathered(mine, fingerprint(task(), config(1)), fingerprint(task(), config(2)))
