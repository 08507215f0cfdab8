"""A machine with two devices: an order on each, the next one waits; or both on one model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from tests.pool.test_parallel import SCORE_TOLERANCE, TOLERANCE
from tests.pool.two_processes import outcome

ROOT: Final = Path(__file__).parents[2]
TWO: Final = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
}


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the process with two devices did."""
    script = str(Path(__file__).with_name("two_devices.py"))
    folder = str(tmp_path_factory.mktemp("devices"))
    done = subprocess.run([sys.executable, script, folder], env=TWO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_two_orders_are_trained_at_once_each_on_a_device_of_its_own(answer: dict[str, Any]) -> None:
    assert len(answer["first"]) == 2
    jobs = [answer["devices"][f"job {oid[:10]}"] for oid in answer["first"]]
    assert all(len(devices) == 1 for devices in jobs) and jobs[0] != jobs[1]


def test_a_job_scores_on_its_own_device_too(answer: dict[str, Any]) -> None:
    first, second = answer["scored"]
    assert len(first) == len(second) == 1 and first != second


def test_beside_a_tpu_whose_float64_is_none_the_cpu_scores(answer: dict[str, Any]) -> None:
    assert answer["scored_beside_tpu"] == answer["scored"][0]


def test_an_order_more_than_devices_waits_until_one_is_free(answer: dict[str, Any]) -> None:
    assert answer["still"] == answer["first"]
    assert len(answer["later"]) == 1 and answer["claims"] == 3


def test_both_devices_train_the_model_that_one_trains(answer: dict[str, Any]) -> None:
    alone, both = outcome(0, None), answer["both"]
    assert np.allclose(both["losses"], alone["losses"], atol=TOLERANCE)
    for name, values in alone["tensors"].items():
        assert np.allclose(both["tensors"][name], values, atol=TOLERANCE), name
    assert abs(both["score"] - alone["score"]) <= SCORE_TOLERANCE


def test_devices_exchange_sums_of_gradients_and_nothing_else(answer: dict[str, Any]) -> None:
    """No device asks another for samples, parameters or outputs, images that are moved about included."""
    kinds = r"\b(all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast)\("
    assert set(re.findall(kinds, answer["program"])) == {"all-reduce"}
