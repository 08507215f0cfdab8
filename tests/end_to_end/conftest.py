"""What all end-to-end tests share: programs that JAX compiled once are not compiled again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Local networks of one test run share a compilation cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTN_COMPILED", str(tmp_path_factory.mktemp("compiled")))
        yield
