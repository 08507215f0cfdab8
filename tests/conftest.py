"""How the suite is shared out among pytest's workers (`pytest -n 2`, as `make test` runs it).

Tests of one file stay together, since they share compiled programs and local networks. Those that drive real
processes come first: they mostly wait, and what computes fills the gaps.
"""

from __future__ import annotations

import hashlib

import pytest


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
