"""How the suite is shared out among pytest's workers (`pytest -n 3`, as `make test` runs it).

Tests of one file stay together, since they share local networks. Those that drive real processes come first:
they wait a good deal, and what computes fills the gaps. Programs that JAX has compiled for one serve all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile

import pytest
from hypothesis import HealthCheck, settings

# A failure is somebody's change, never the machine's load or luck: no test of properties has a deadline, and
# each run tries the same examples. `make soak` tries others.
SLOW = [HealthCheck.too_slow]
settings.register_profile("same", deadline=None, suppress_health_check=SLOW, derandomize=True)
settings.register_profile("other", deadline=None, suppress_health_check=SLOW)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Let all processes of this run share a compilation cache that ends with it, if none is set."""
    if "PYTEST_XDIST_WORKER" in os.environ or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="compiled-for-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


# First: xdist reads the groups in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("end_to_end") is None)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def pytest_make_parametrize_id(val: object) -> str | None:
    """A short name for bytes, the same in every worker, that people can read."""
    if not isinstance(val, bytes):
        return None
    return f"{len(val)}-bytes-{hashlib.sha256(val).hexdigest()[:6]}"
