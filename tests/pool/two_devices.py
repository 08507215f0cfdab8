"""A provider on a machine with two devices, for ``test_devices.py``: says what it does with three orders.

usage: two_devices.py FOLDER

XLA_FLAGS=--xla_force_host_platform_device_count=2 makes two devices of one CPU.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from offchain.config import ProviderConfig
from offchain.evaluation import exact_jax, specification
from offchain.evaluation.arithmetic_jax import Traced
from offchain.models.families import mlp
from offchain.models.network import initialise, to_tensors
from offchain.provider import Provider
from offchain.training import engine, step
from offchain.training.parallel import Stepping, Team
from offchain.training.task import TrainingConfig
from protocol.crypto import Key
from tests.pool.one_order import ledger
from tests.pool.two_processes import outcome


def main(folder: Path) -> None:
    seen: dict[str, set[str]] = {}
    gate = threading.Event()

    class Watched(Stepping):
        """Notes on which devices which job's state and samples lie, and waits at the gate."""

        def run(self, steps: int, rate: float) -> Any:
            loss = super().run(steps, rate)
            arrays = jax.tree.leaves((self.state, self._data, loss))
            devices = {str(device) for array in arrays for device in array.devices()}
            seen.setdefault(threading.current_thread().name, set()).update(devices)
            assert gate.wait(60)
            return loss

    engine.Stepping = Watched  # type: ignore[attr-defined]
    with ledger(folder, orders=3) as stands:
        path = stands.write_actor(folder / "provider", Key.generate(), patience_steps=1)
        provider = Provider(ProviderConfig.read(path))
        provider.act()
        first = [job.oid for job in provider.jobs.values() if job.running]
        wait_for(lambda: len(seen) == 2)
        provider.act()
        still = list(provider.jobs)
        gate.set()
        for job in list(provider.jobs.values()):
            job.join(60)
        provider.act()
        later = [oid for oid in provider.jobs if oid not in first]
        wait_for(lambda: len(seen) == 3)
        provider.close()
        claims = len({claim["message"]["oid"] for claim in stands.claims})
    engine.Stepping = Stepping  # type: ignore[attr-defined]
    print(
        json.dumps(
            {
                "devices": {name: sorted(devices) for name, devices in seen.items()},
                "first": first,
                "still": still,
                "later": later,
                "claims": claims,
                "both": outcome(0, Team()),
                "program": program_for_both(),
                "scored": [scored_on(device) for device in jax.devices()],
                "scored_beside_tpu": scored_beside_tpu(jax.devices()[1]),
            }
        )
    )


def program_for_both() -> str:
    """What XLA makes of a dispatch for both devices, of images that are moved about."""
    architecture, recipe = mlp((20, 20, 1), 10, (16,)), TrainingConfig().recipe(shift=2)
    dispatch: Any = step.compiled(architecture, recipe, Team().mesh)
    data = step.Data(*map(jnp.asarray, (np.zeros((100, 20, 20, 1), np.uint8), np.zeros(100, np.int32))))
    state = step.start(architecture, recipe, 0, None)
    lowered = dispatch.lower(state, data, jax.random.key(0), np.int32(3), np.float32(1))
    return str(lowered.compile().as_text())


def scored_on(device: jax.Device) -> list[str]:
    """Devices that hold outputs of batches which a thread scores whose own device that one is."""
    seen: set[str] = set()

    class Watched(exact_jax.Program):
        def __call__(self, prepared: tuple[Any, ...], value: Traced) -> Traced:
            outputs = super().__call__(prepared, value)
            seen.update(str(holder) for holder in outputs.q.devices())
            return outputs

    architecture = mlp((7,), 3, (5,))
    prepared = specification.prepare(to_tensors(initialise(architecture, 0)), architecture)
    exact_jax.compiled.cache_clear()
    with jax.default_device(device), mock.patch.object(exact_jax, "Program", Watched):
        exact_jax.run(prepared, architecture, np.ones((9, 7), np.float32), 2)
    exact_jax.compiled.cache_clear()
    return sorted(seen)


def scored_beside_tpu(accelerator: jax.Device) -> list[str]:
    """The same where ``accelerator`` is what JAX computes on, and says that it is a TPU."""
    with mock.patch.object(jax, "default_backend", lambda: "tpu"):
        return scored_on(accelerator)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
