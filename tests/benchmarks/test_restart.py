"""A restart after a short history; the benchmark itself compares the ledgers."""

from __future__ import annotations

from benchmarks.restart import measure


def test_a_new_process_ends_with_the_same_ledger() -> None:
    result = measure(3_000)
    assert result["transactions"] == 3_000
    assert result["replayed_batches"] == result["batches"] >= 3
    assert result["seconds"] > 0
