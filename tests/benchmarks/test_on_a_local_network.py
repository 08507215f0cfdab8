"""Benchmarks that start a local network, at tiny sizes: the shape of what they print. No times."""

from __future__ import annotations

import json

import pytest

from benchmarks import readers, throughput, view_change

pytestmark = pytest.mark.end_to_end


def test_throughput_counts_transactions_that_were_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert throughput.main(["--aggregators", "4", "--transactions", "300", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = result["results"]
    assert {"aggregators", "tx_per_s", "p50_ms", "p99_ms", "cpu_us_per_tx"} <= set(row)
    assert row["aggregators"] == 4 and row["tx_per_s"] > 0 and row["cpu_us_per_tx"] > 0
    assert 250 < row["transaction_bytes"] < 350


def test_readers_of_every_kind_are_there_while_the_ledger_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--seconds", "2", "--orders", "5", "--readers", "3", "--kinds", "none,all,hungry", "--json"]
    assert readers.main(given) == 0
    none, everything, hungry = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert none["they_did"] == {} and none["ledger_p99_ms"] >= none["ledger_p50_ms"] > 0
    did = everything["they_did"]
    assert did["streams"] >= 9 and did["half requests"] >= 9 and did["pages not read"] >= 9
    assert hungry["they_did"]["pages read"] > 0 and hungry["they_did"]["refused"] == 0
    assert all(row["tx_per_s"] > 0 and row["probes"] > 0 for row in (none, everything, hungry))


def test_after_the_primarys_death_the_next_claim_is_ordered(capsys: pytest.CaptureFixture[str]) -> None:
    assert view_change.main(["--repeat", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = result["results"]
    assert row["seconds"]["max"] > 0 and result["config"]["view_timeout_ms"] > 0
