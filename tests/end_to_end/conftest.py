"""What all end-to-end tests share: compiled programs, and a time of day that may leap."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.ahead import sitecustomize


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Local networks of one test run share a compilation cache, whichever of its workers starts them."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DTN_COMPILED", str(folder / "compiled"))
        yield


@pytest.fixture(scope="module", autouse=True)
def time_of_day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The time of day that `Driver.leap` moves, for this process and for all that it starts."""
    file = tmp_path_factory.mktemp("time") / "ahead"
    file.write_bytes(sitecustomize.NANOSECONDS.pack(0))
    folder = str(Path(sitecustomize.__file__).parent)
    undo = sitecustomize.follow(str(file))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(sitecustomize.FILE, str(file))
            patch.setenv("PYTHONPATH", folder, prepend=os.pathsep)
            yield
    finally:
        undo()
