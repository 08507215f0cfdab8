"""What a provider trains can be read from its disk while it runs: every field, bounded, whatever is torn."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dtn.app import app
from offchain.provider.progress import MAX_BYTES, NAME, ProgressLog, standing
from protocol.crypto import Key
from tests.pool.one_order import ledger

OID = "ab" * 32


def note_progress(log: ProgressLog, step: int) -> None:
    log.note(
        "progress",
        step=step,
        loss=0.25,
        best_score=900_000,
        steps_per_s=12.5,
        time_left_s=math.inf,
        device_bytes=None,
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr("offchain.provider.progress.time.time", lambda: now[0])
    return now


def test_where_a_training_stands_is_the_last_of_each_field(tmp_path: Path, clock: list[float]) -> None:
    log = ProgressLog(tmp_path)
    assert standing(tmp_path / NAME) is None
    log.note("started", device="cpu:0")
    note_progress(log, 10)
    log.keep(claimed_score=880_000)
    log.note("claimed", step=10)
    clock[0] += 2
    note_progress(log, 20)
    now = standing(tmp_path / NAME)
    assert now is not None and (now["event"], now["step"], now["claimed_score"]) == ("progress", 20, 880_000)
    assert now["time_left_s"] is None, "JSON knows no infinity"
    for _ in range(1_000):
        clock[0] += 2
        note_progress(log, 30)
    again = ProgressLog(tmp_path)
    again.note("started", device="cpu:0")
    begun = standing(tmp_path / NAME)
    assert begun is not None and (begun["claimed_score"], begun["event"]) == (880_000, "started")


def test_progress_is_written_once_a_second_and_all_else_at_once(tmp_path: Path, clock: list[float]) -> None:
    log = ProgressLog(tmp_path)
    for step in range(40):
        note_progress(log, step)
        clock[0] += 0.1
    log.note("ended", reason="time", step=40)
    events = [json.loads(line)["event"] for line in (tmp_path / NAME).read_text().splitlines()]
    assert events == ["progress"] * 4 + ["ended"]


def test_the_file_is_bounded_and_a_torn_line_is_passed_over(tmp_path: Path, clock: list[float]) -> None:
    log = ProgressLog(tmp_path)
    (tmp_path / NAME).write_bytes(b"x" * (MAX_BYTES + 1))
    note_progress(log, 1)
    with (tmp_path / NAME).open("a") as file:
        file.write('{"event": "progr')
    now = standing(tmp_path / NAME)
    assert (tmp_path / NAME).stat().st_size < 1_000 and now is not None and now["step"] == 1


def test_the_command_shows_what_is_trained(tmp_path: Path) -> None:
    with ledger(tmp_path) as stands:
        config = stands.write_actor(tmp_path / "provider", Key.generate())
    runner = CliRunner()
    nothing = runner.invoke(app, ["provider", "status", "--config", str(config)])
    assert nothing.exit_code == 0 and "none" in nothing.stdout
    log = ProgressLog(tmp_path / "provider" / "data" / "orders" / OID)
    log.note("started", device="cpu:0")
    note_progress(log, 1234)
    shown = runner.invoke(app, ["provider", "status", "--config", str(config)])
    assert "1234" in shown.stdout and "0.900000" in shown.stdout and "training" in shown.stdout
    machine = runner.invoke(app, ["provider", "status", "--config", str(config), "--json"])
    (order,) = json.loads(machine.stdout)["orders"]
    assert order["oid"] == "0x" + OID and order["step"] == 1234 and order["device_bytes"] is None
