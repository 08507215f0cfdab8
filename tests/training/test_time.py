"""Never late: whatever compiling, steps and scorings take, the last model is claimed before the time is up.

The engine runs on a clock of the test's: each of its parts takes as long as the test says.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offchain.data import Fragment
from offchain.models.families import mlp
from offchain.training import engine, schedule, step
from offchain.training.engine import Improvement, Result, TrainingConfig, TrainingTask, train

SAMPLES = Fragment(
    np.linspace(-1, 1, 240, dtype=np.float32).reshape(120, 2), (np.arange(120) >= 60).astype(np.int32)
)
TASK = TrainingTask(mlp((2,), 2, (4,)), [SAMPLES], "cross_entropy")


class SlowMachine:
    """A clock that only the engine's own work moves."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        compile_s: float,
        step_s: float,
        scoring_s: float,
        jitter: list[float],
    ) -> None:
        self.now = 0.0
        self.dies_at = math.inf
        self._jitter = jitter
        self._works = 0
        compiled, score = step.compiled, engine.Scorer.score
        self._compiled = False

        def slow_compiled(*recipe: Any) -> step.Dispatch:
            dispatch = compiled(*recipe)

            def slow(state: Any, data: Any, key: Any, steps: Any, rate: Any) -> Any:
                if not self._compiled:
                    self._compiled = True
                    self.now += compile_s
                self._work(step_s * int(steps))
                # What is learned does not matter here, only when.
                return dispatch(state, data, key, np.int32(min(int(steps), 4)), rate)

            return slow

        def slow_score(scorer: Any, tensors: Any) -> int:
            self._work(scoring_s)
            return score(scorer, tensors)

        patch.setattr(step, "compiled", slow_compiled)
        patch.setattr(engine.Scorer, "score", slow_score)

    def _work(self, seconds: float) -> None:
        self._works += 1
        self.now += seconds * self._jitter[self._works % len(self._jitter)]


def run(
    machine: SlowMachine, window_s: float, directory: Path | None = None, *, stop_early: bool = False
) -> tuple[Result, list[tuple[float, Improvement]]]:
    heard: list[tuple[float, Improvement]] = []
    result = train(
        TASK,
        TrainingConfig(budget_s=window_s, patience_steps=None, checkpoint_every_s=5.0, stop_early=stop_early),
        checkpoint_dir=directory,
        should_stop=lambda: machine.now >= machine.dies_at,
        on_improved=lambda improvement: heard.append((machine.now, improvement)),
        on_progress=lambda _: None,
        time_left=lambda: window_s - machine.now,
        clock=lambda: machine.now,
    )
    return result, heard


@settings(max_examples=60)
@given(
    compile_s=st.floats(0, 100),
    step_s=st.floats(0.001, 0.4),
    scoring_s=st.floats(0.01, 8),
    window_s=st.floats(5, 60),
    jitter=st.lists(st.floats(0.75, 1.25), min_size=1, max_size=5),
)
def test_every_claim_comes_before_the_deadline_or_there_is_none(
    compile_s: float, step_s: float, scoring_s: float, window_s: float, jitter: list[float]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        machine = SlowMachine(patch, compile_s, step_s, scoring_s, jitter)
        result, heard = run(machine, window_s)
    assert all(at <= window_s for at, _ in heard)
    ready_s = compile_s + 2 * (scoring_s + step_s) * 1.25
    if window_s - ready_s > 3.0 * scoring_s * 1.25 + 1.5:
        assert result.model is not None and heard, "there was time for a claim"
    assert result.reason in ("time", "perfect")


def test_the_last_steps_are_scored_before_the_time_is_up() -> None:
    with pytest.MonkeyPatch.context() as patch:
        machine = SlowMachine(patch, 1.0, 0.01, 0.5, [1.0])
        result, heard = run(machine, 30.0)
    assert heard[-1][1].step > 0.8 * result.step, "the lowest rate gives the best model, and it is claimed"
    assert machine.now <= 30.0


def test_whoever_starts_again_too_late_claims_nothing(tmp_path: Path) -> None:
    """Killed shortly before the end, and the compiler takes what is left."""
    with pytest.MonkeyPatch.context() as patch:
        machine = SlowMachine(patch, 1.0, 0.01, 0.5, [1.0])
        machine.dies_at = 20.0
        before, _ = run(machine, 30.0, tmp_path)
        assert before.reason == "stopped" and before.step > 0
    with pytest.MonkeyPatch.context() as patch:
        machine = SlowMachine(patch, 10.0, 0.01, 0.5, [1.0])
        machine.now = 25.0
        after, heard = run(machine, 30.0, tmp_path)
    assert not heard and (after.reason, after.score) == ("time", before.score)


def test_the_rate_falls_three_times_and_follows_the_clock_alone() -> None:
    passed = np.linspace(0, 1, 1001)
    rates = np.array([schedule.rate(float(share)) for share in passed])
    assert rates.max() <= 1 and rates.min() >= schedule.LEAST and rates[-1] == pytest.approx(schedule.LEAST)
    rises = passed[1:][np.diff(rates) > 0.1]
    assert rises == pytest.approx(schedule.BORDERS[1:-1], abs=2e-3)
    assert schedule.rate(-1) == schedule.rate(0) == 1 and schedule.rate(7) == pytest.approx(schedule.LEAST)


def test_images_are_moved_and_nothing_is_lost_of_them() -> None:
    import jax

    images = np.zeros((64, 20, 20, 1), np.uint8)
    images[:, 8:12, 8:12] = 200
    moved = np.asarray(step.shifted(jax.numpy.asarray(images), jax.random.key(0), 3))
    assert (moved.sum(axis=(1, 2, 3)) == images.sum(axis=(1, 2, 3))).all()
    places = {tuple(np.argwhere(image[..., 0])[0]) for image in moved}
    assert len(places) > 20 and all(5 <= y <= 11 and 5 <= x <= 11 for y, x in places)


# Stopping where nothing is left to learn -----------------------------------------------------------------


def scoring(patch: pytest.MonkeyPatch, machine: SlowMachine, scores: Any) -> None:
    """Every model scores what ``scores`` says of the second in which it is scored."""

    def score(scorer: Any, tensors: Any) -> int:
        machine.now += 0.5
        return int(scores(machine.now))

    patch.setattr(engine.Scorer, "score", score)


WINDOW_S = 100.0


@pytest.mark.parametrize(
    ("scores", "reason", "until_s"),
    [
        (lambda now: -1000 + min(now, 8), "exhausted", (35, 38)),  # nothing new after the first fall
        (lambda now: -1000 + min(now, 34), "time", (95, 100)),  # the second found something
        (lambda now: -1000 + (now >= 35), "time", (95, 100)),  # at its very end
    ],
)
def test_a_fall_that_brings_nothing_better_is_the_last(
    scores: Any, reason: str, until_s: tuple[float, float]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        machine = SlowMachine(patch, 1.0, 0.01, 0.5, [1.0])
        scoring(patch, machine, scores)
        result, _ = run(machine, WINDOW_S, stop_early=True)
    assert result.reason == reason and until_s[0] <= machine.now <= until_s[1]


def test_whoever_missed_a_part_of_the_fall_goes_on(tmp_path: Path) -> None:
    """Killed in the first fall and back in the second: it may be for want of time that nothing got better."""
    with pytest.MonkeyPatch.context() as patch:
        machine = SlowMachine(patch, 1.0, 0.01, 0.5, [1.0])
        scoring(patch, machine, lambda now: -1000 + min(now, 8))
        machine.dies_at = 9.0
        assert run(machine, WINDOW_S, tmp_path, stop_early=True)[0].reason == "stopped"
        machine.now, machine.dies_at = 20.0, math.inf
        assert run(machine, WINDOW_S, tmp_path, stop_early=True)[0].reason == "time"


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, len(schedule.BORDERS) - 2))
def test_nobody_stops_before_a_second_whole_fall_was_seen(
    began: float, passed: float, best_fall: int
) -> None:
    if schedule.is_exhausted(passed, began, best_fall):
        assert began <= schedule.BORDERS[1] and passed >= schedule.BORDERS[2]
        assert best_fall < schedule.fall_at(passed) - 1
