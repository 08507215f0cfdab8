"""The classic stories of PBFT, each a script with what happens in it: read them to learn the protocol.

    REWRITE=1 python -m pytest tests/scenarios

writes what happens now into the scripts; read the difference before committing it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scenarios.runner import play

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_story_goes_as_it_is_told(path: Path) -> None:
    script = path.read_text(encoding="utf-8")
    told = play(script)
    if os.environ.get("REWRITE"):
        path.write_text(told, encoding="utf-8")
    else:
        assert told == script


def test_there_are_stories() -> None:
    assert len(SCRIPTS) >= 7
