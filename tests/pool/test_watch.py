"""A round that hangs, fails or must end is ended in bounded time; the decision, on a clock of the test's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offchain.provider.pool.job import STOP_PATIENCE_S, PooledJob, TrainingFailed, _Ending, _Watch
from offchain.provider.pool.letters import Round
from offchain.provider.pool.settings import PoolSettings

LEADER, MEMBER = "0x" + "aa" * 20, "0x" + "bb" * 20
SETTINGS = PoolSettings(
    leader=LEADER, members=(MEMBER,), url="http://127.0.0.1:7801", stall_s=30, start_s=120, regroup_s=60
)
GATHERING = Round(number=5, coordinator="127.0.0.1:1", accounts=(LEADER, MEMBER), training={})
PROGRESS = {
    "event": "progress",
    "step": 10,
    "steps": 10,
    "loss": None,
    "steps_per_s": 5.0,
    "best_score": None,
    "time_left_s": 100.0,
    "device_bytes": None,
}
JOINED = {"event": "joined", "devices": [1, 1], "batch_size": 64}


class Clock:
    """Monotonic and wall time, moved by waiting for events."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("offchain.provider.pool.job.time.monotonic", lambda: self.now)
        monkeypatch.setattr("offchain.provider.pool.job.time.time", lambda: self.now)


class Process:
    """A training process that says what it is told to, then nothing; it hears ``stop`` or not."""

    def __init__(self, clock: Clock, events: list[Any], *, obeys: bool = True) -> None:
        self._clock, self._events, self._obeys = clock, iter(events), obeys
        self.running = True
        self.words: list[str] = []

    def next_event(self, timeout_s: float) -> Any:
        if "stop" in self.words and self._obeys:
            return {"event": "ended", "reason": "stopped", "step": 10, "score": None}
        event = next(self._events, None)
        self._clock.now += timeout_s if event is None else 0.1
        return event

    def tell(self, word: str) -> None:
        self.words.append(word)


class Desk:
    """Says who is ready and lost."""

    settings = SETTINGS

    def __init__(self) -> None:
        self.missing: tuple[str, ...] = ()
        self.waiting: tuple[str, ...] = (MEMBER,)

    def lost(self, gathering: Round) -> tuple[str, ...]:
        return self.missing

    def ready(self, oid: str) -> tuple[str, ...]:
        return self.waiting


class Leader:
    """As much of a provider as a job needs here."""

    def __init__(self) -> None:
        self.stopping = threading.Event()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    yield Clock(monkeypatch)


def watched(
    clock: Clock, folder: Path, process: Process, gathering: Round = GATHERING, window_s: float = 10_000
) -> tuple[_Watch, Desk, Leader]:
    desk, leader = Desk(), Leader()
    config: Any = type("Config", (), {"deadline_margin_s": 3.0})()
    detail = {"oid": "0x" + "ab" * 32, "deadlineMs": (clock.now + window_s) * 1000}
    provider: Any = leader
    counter: Any = desk
    job = PooledJob(provider, config, detail, folder, counter, folder / "contributions.jsonl")
    child: Any = process
    return _Watch(job, child, gathering), desk, leader


def test_a_round_that_shows_nothing_fails_after_its_patience(clock: Clock, tmp_path: Path) -> None:
    began = clock.now
    watch, _, _ = watched(clock, tmp_path, Process(clock, [JOINED]))
    assert watch.until_over() is _Ending.FAILED
    assert SETTINGS.start_s < clock.now - began < SETTINGS.start_s + 1
    began = clock.now
    watch, _, _ = watched(clock, tmp_path, Process(clock, [JOINED, PROGRESS]))
    assert watch.until_over() is _Ending.FAILED and watch.culprits == ()
    assert SETTINGS.stall_s < clock.now - began < SETTINGS.stall_s + 1


def test_a_lost_member_ends_the_round_at_once_and_is_named(clock: Clock, tmp_path: Path) -> None:
    process = Process(clock, [JOINED, PROGRESS, *[None] * 1_000])
    watch, desk, _ = watched(clock, tmp_path, process)
    desk.missing = (MEMBER,)
    began = clock.now
    assert watch.until_over() is _Ending.FAILED and watch.culprits == (MEMBER,)
    assert clock.now - began < 1


@pytest.mark.parametrize("obeys", [True, False])
def test_at_the_deadline_the_round_is_over_even_if_the_process_hangs(
    clock: Clock, tmp_path: Path, obeys: bool
) -> None:
    process = Process(clock, [JOINED, *[PROGRESS] * 10_000], obeys=obeys)
    watch, _, _ = watched(clock, tmp_path, process, window_s=20)
    began = clock.now
    assert watch.until_over() is _Ending.OVER and process.words == ["stop"]
    assert clock.now - began < 20 + STOP_PATIENCE_S


def test_a_latecomer_is_taken_in_when_the_round_is_old_enough_and_time_is_left(
    clock: Clock, tmp_path: Path
) -> None:
    alone = GATHERING.model_copy(update={"accounts": (LEADER,)})
    began = clock.now
    joined = {**JOINED, "devices": [1]}
    watch, _, _ = watched(clock, tmp_path, Process(clock, [joined, *[PROGRESS] * 10_000]), alone)
    assert watch.until_over() is _Ending.REGROUP
    assert SETTINGS.regroup_s <= clock.now - began < SETTINGS.regroup_s + 1
    # Shortly before the end a new start would cost more than it brings.
    short = 2.5 * SETTINGS.regroup_s
    watch, _, _ = watched(clock, tmp_path, Process(clock, [*[PROGRESS] * 10_000]), alone, window_s=short)
    assert watch.until_over() is _Ending.OVER


def test_a_member_that_fails_twice_is_left_out_and_a_leader_that_fails_alone_gives_up(
    clock: Clock, tmp_path: Path
) -> None:
    class Dead(Process):
        def last_words(self) -> str:
            return "out of memory"

    process: Any = Dead(clock, [])
    watch, _, leader = watched(clock, tmp_path, process)
    job = watch._job
    leader.stopping.set()  # no pauses
    for _ in range(2):
        assert job._welcome() == (MEMBER,)
        job._blame((MEMBER,), (MEMBER,), process)
    assert job._welcome() == ()
    with pytest.raises(TrainingFailed, match="see its log"):
        for _ in range(3):
            job._blame((), (), process)
