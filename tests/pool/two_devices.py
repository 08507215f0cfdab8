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

import jax

from offchain.config import ProviderConfig
from offchain.provider import Provider
from offchain.training import engine
from offchain.training.parallel import Stepping, Team
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

    engine.Stepping = Watched  # type: ignore[misc,attr-defined]
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
    engine.Stepping = Stepping  # type: ignore[misc,attr-defined]
    alone, both = outcome(0, None), outcome(0, Team())
    print(
        json.dumps(
            {
                "devices": {name: sorted(devices) for name, devices in seen.items()},
                "first": first,
                "still": still,
                "later": later,
                "claims": claims,
                "alone": alone,
                "both": both,
            }
        )
    )


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
