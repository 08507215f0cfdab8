"""What all end-to-end tests share: programs that JAX compiled once are not compiled again."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Local networks of one test run share a compilation cache, whichever of its workers starts them."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTN_COMPILED", str(folder / "compiled"))
        yield
