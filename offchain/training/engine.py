"""The training engine: trains one order's model until told to stop, reporting each exact improvement.

Guarantees: what decides an improvement is the exact score (``exact-1``) on held-out training samples, the
same function by which validators will pay; ``should_stop`` is asked between dispatches, which are kept
under half a second; a killed run started again with the same directory goes on where it was and reports
nothing older than its best. Of the time it is given it keeps enough to score its last steps (`schedule`).

Where several processes share few cores, set ``NPROC`` (XLA's threads per process) before JAX starts; call
``keep_compiled_programs`` once per process to compile each architecture once per machine.

Source: PoT section 2.3 (providers train until the window closes and claim their best); design section 8.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from offchain.evaluation.score import Scorer
from offchain.models.artifact import encode_model
from offchain.models.network import to_tensors
from offchain.training.checkpoint import Best, Checkpoints
from offchain.training.parallel import Stepping, Team
from offchain.training.schedule import fall_at, is_exhausted, rate, reserve_s
from offchain.training.task import TrainingConfig, TrainingTask, deal, fingerprint
from protocol.errors import InvalidArtifact
from protocol.metric import perfect_score

__all__ = [
    "Improvement",
    "Progress",
    "Result",
    "TrainingConfig",
    "TrainingTask",
    "train",
]

FIRST_STEPS: Final = 16
"""Most steps of the first dispatch, when one step is all that is known."""
MAX_GROWTH: Final = 4
"""By how much a dispatch may be longer than the one before: a mismeasured one cannot run away."""

Reason = Literal["stopped", "steps", "patience", "perfect", "diverged", "time", "exhausted"]


@dataclass(frozen=True, slots=True)
class Improvement:
    """A model better than all before it."""

    model: bytes
    """The model file."""
    score: int
    """Exact score on the holdout, in millionths."""
    step: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands after a dispatch."""

    step: int
    steps: int
    """Steps of this dispatch."""
    loss: float
    steps_per_s: float
    best_score: int | None
    """Millionths; None before the first scoring."""
    time_left_s: float
    """Seconds in which a last improvement is still worth something; infinite if nobody set an end."""
    device_bytes: int | None
    """Memory in use on the device; None where the platform does not tell, as the CPU's."""


@dataclass(frozen=True, slots=True)
class Result:
    """How training ended."""

    model: bytes | None
    """The best model's file; None if it was stopped before the first scoring."""
    score: int | None
    step: int
    reason: Reason


def next_steps(steps: int, taken_s: float, dispatch_s: float) -> int:
    """How many steps to dispatch after ``steps`` took ``taken_s``, so as to take ``dispatch_s``."""
    return min(max(int(dispatch_s * steps / taken_s), 1), MAX_GROWTH * steps)


def train(
    task: TrainingTask,
    config: TrainingConfig,
    *,
    checkpoint_dir: Path | None,
    should_stop: Callable[[], bool],
    on_improved: Callable[[Improvement], None],
    on_progress: Callable[[Progress], None],
    time_left: Callable[[], float] = lambda: math.inf,
    clock: Callable[[], float] = time.perf_counter,
    team: Team | None = None,
) -> Result:
    """Train until ``should_stop``, until ``time_left`` is used up, or until nothing improves any more.

    ``time_left`` are the seconds in which a last improvement is still worth something: training ends before,
    with enough of them to score the last steps. Runs in the calling thread and holds it; callbacks run in it
    too, and what they raise ends training. With a ``team`` this is its process 0; the others `follow`.

    Raises:
        InvalidArtifact: the fragments or initial parameters do not fit the task.
        TeamMismatch: another process of the team trains something else.
        CheckpointMismatch: ``checkpoint_dir`` belongs to another run.
    """
    run = _Run(task, config, checkpoint_dir, on_improved, time_left, clock, team)
    try:
        while (reason := run.ended(should_stop)) is None:
            on_progress(run.advance())
        return run.finish(reason)
    finally:
        run.close()


class _Run:
    """The mutable side of one call of ``train``."""

    def __init__(
        self,
        task: TrainingTask,
        config: TrainingConfig,
        directory: Path | None,
        on_improved: Callable[[Improvement], None],
        time_left: Callable[[], float],
        clock: Callable[[], float],
        team: Team | None,
    ) -> None:
        training, holdout = deal(task, config)
        self._architecture, self._config = task.architecture, config
        self._on_improved, self._time_left, self._clock = on_improved, time_left, clock
        self._checkpoints = None if directory is None else Checkpoints(directory, fingerprint(task, config))
        self._scorer = Scorer(task.architecture, holdout, task.metric)
        self._perfect = perfect_score(task.metric)
        self._stepping = Stepping(task, config, training, team)
        self._best: Best | None = None
        self._began = self._passed
        self._best_fall = fall_at(self._began)
        """The fall of the rate in which the best model came: in this life, or before it began."""
        self._resume()
        self._steps = config.steps_per_dispatch or 1
        self._unscored_s = self._scoring_s = self._longest_scoring_s = 0.0
        self._scored_step = -1
        self._saved_at = clock()
        self._diverged = False
        self._warm_up()

    @property
    def _step(self) -> int:
        return int(self._stepping.state.step)

    def _warm_up(self) -> None:
        """Compile everything by one step and one scoring, so that no later duration is a compiler's.

        Results are dropped. All is done twice: the first time tells how long the compiler takes, the second
        how long the work does.
        """
        for _ in range(2):
            began = self._clock()
            self._stepping.trial()
            taken_s = max(self._clock() - began, 1e-6)
        if self._config.steps_per_dispatch is None:
            self._steps = min(
                FIRST_STEPS, next_steps(FIRST_STEPS, FIRST_STEPS * taken_s, self._config.dispatch_s)
            )
        try:
            for _ in range(2):
                began = self._clock()
                self._scorer.score(to_tensors(self._stepping.state.parameters))
                self._longest_scoring_s = self._clock() - began
        except InvalidArtifact:
            self._diverged = True

    def _resume(self) -> None:
        if self._checkpoints is None:
            self._stepping.begin(None)
            return
        self._stepping.begin(self._checkpoints.restore(self._stepping.fresh))
        self._best = self._checkpoints.load_best()
        if self._best is not None and not self._best.reported:
            self._report(self._best)

    def ended(self, should_stop: Callable[[], bool]) -> Reason | None:
        """Why training is over, or None."""
        config, now = self._config, self._step
        if should_stop():
            return "stopped"
        if self._time_left() <= reserve_s(self._longest_scoring_s, config.dispatch_s):
            return "time"
        if self._diverged:
            return "diverged"
        if self._best is not None and self._best.score >= self._perfect:
            return "perfect"
        if (
            config.stop_early
            and self._best is not None
            and is_exhausted(self._passed, self._began, self._best_fall)
        ):
            return "exhausted"
        if config.max_steps is not None and now >= config.max_steps:
            return "steps"
        last = self._best.step if self._best is not None else 0
        if config.patience_steps is not None and now - last >= config.patience_steps:
            return "patience"
        return None

    def advance(self) -> Progress:
        """One dispatch, and what is due after it: scoring, a checkpoint."""
        steps, began, fall = self._steps, self._clock(), fall_at(self._passed)
        if self._config.max_steps is not None:
            steps = min(steps, self._config.max_steps - self._step)
        mean_loss = float(self._stepping.run(steps, self._rate()))
        taken_s = max(self._clock() - began, 1e-6)
        self._diverged = not np.isfinite(mean_loss)
        self._unscored_s += taken_s
        if self._config.steps_per_dispatch is None:
            self._steps = next_steps(steps, taken_s, self._config.dispatch_s)
        # The rate is lowest at the end of a fall: what came of it is looked at before it rises again.
        if not self._diverged and (self._scoring_is_due() or fall_at(self._passed) > fall):
            self._score(fall)
        if (
            self._checkpoints is not None
            and self._clock() - self._saved_at >= self._config.checkpoint_every_s
        ):
            self._save()
        best_score = None if self._best is None else self._best.score
        return Progress(
            self._step,
            steps,
            mean_loss,
            steps / taken_s,
            best_score,
            self._time_left(),
            self._stepping.device_bytes(),
        )

    @property
    def _passed(self) -> float:
        """The share of the budget that is used up; zero without one."""
        budget_s = self._config.budget_s
        return 0.0 if budget_s is None else 1 - self._time_left() / budget_s

    def _rate(self) -> float:
        return 1.0 if self._config.budget_s is None else rate(self._passed)

    def _scoring_is_due(self) -> bool:
        share = self._config.evaluation_share
        return self._config.steps_per_dispatch is not None or self._scoring_s <= share * (
            self._scoring_s + self._unscored_s
        )

    def _score(self, fall: int) -> None:
        """Score what is there now, which came of a ``fall`` of the rate."""
        began = self._clock()
        tensors = to_tensors(self._stepping.state.parameters)
        try:
            score = self._scorer.score(tensors)
        except InvalidArtifact:
            # Only NaN or infinity can be wrong with tensors of our own making.
            self._diverged = True
            return
        self._scoring_s, self._unscored_s = self._clock() - began, 0.0
        self._longest_scoring_s = max(self._longest_scoring_s, self._scoring_s)
        self._scored_step = self._step
        if self._best is None or score > self._best.score:
            model, self._best_fall = encode_model(tensors, self._architecture), fall
            self._report(Best(model, score, self._step, reported=False))

    def _report(self, best: Best) -> None:
        if self._checkpoints is not None:
            self._checkpoints.save_best(best)
        self._on_improved(Improvement(best.model, best.score, best.step))
        self._best = replace(best, reported=True)
        if self._checkpoints is not None:
            self._checkpoints.save_best(self._best)

    def _save(self) -> None:
        assert self._checkpoints is not None
        self._checkpoints.save(self._stepping.state)
        self._saved_at = self._clock()

    def finish(self, reason: Reason) -> Result:
        """Score the last steps if the time is ours, save, and sum up."""
        # Whoever starts again shortly before the end may have no time left to score in.
        ours = reason in ("steps", "patience", "time") and self._time_left() >= self._longest_scoring_s
        if ours and self._step > max(self._scored_step, 0):
            self._score(fall_at(self._passed))
        if self._checkpoints is not None and not self._diverged:
            self._save()
        self._stepping.end()
        if self._best is None:
            return Result(None, None, self._step, reason)
        return Result(self._best.model, self._best.score, self._step, reason)

    def close(self) -> None:
        """Release what the checkpoints hold."""
        if self._checkpoints is not None:
            self._checkpoints.close()
