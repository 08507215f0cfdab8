"""The benchmark of downloads delays what it says it delays, and its rows are of whole files."""

from __future__ import annotations

import json

import pytest

from benchmarks import fetching


def test_one_block_at_a_time_waits_for_a_round_trip_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetching.main(["--latency-ms", "40", "--mib", "4", "--json"]) == 0
    told = capsys.readouterr()
    alone, together = json.loads(told.out)["rows"]
    assert (alone["at_once"], together["at_once"]) == (1, 4)
    assert alone["seconds"] >= 17 * 0.04, "16 leaves and their node"
    assert together["seconds"] >= 0.04 * 17 / 4
    assert told.err == ""
