"""What all end-to-end tests share: compiled programs, a leaping time of day, and logs of what failed."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.ahead import sitecustomize
from tests.end_to_end.driving import LOGS, ends_of

LINES: Final = 25
"""Of each process's log that are shown of a test that failed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what processes wrote during a test that failed: on another machine it may never fail again."""
    report = yield
    if report.failed and LOGS not in report.longreprtext:
        factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
        report.sections.append((LOGS, logs_since(call.start, factory.getbasetemp())))
    return report


def logs_since(start_s: float, folder: Path) -> str:
    """The ends of all logs of local networks below a folder that were written to since then."""
    found = (path for path in sorted(folder.rglob("devnet/logs/*")) if path.stat().st_mtime >= start_s)
    return ends_of(found, LINES)


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
