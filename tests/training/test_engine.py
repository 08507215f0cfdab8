"""The training engine: learns real data in seconds, stops when told, repeats itself, survives a kill."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from offchain.data import Fragment
from offchain.evaluation.score import evaluate
from offchain.models.artifact import decode_model
from offchain.models.families import cnn, mlp
from offchain.training import engine, step
from offchain.training.checkpoint import CheckpointMismatch
from offchain.training.engine import Improvement, Progress, Result, TrainingConfig, TrainingTask, train
from protocol.architecture import Architecture
from protocol.errors import InvalidArtifact

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def digits() -> Fragment:
    data = load_digits()
    return Fragment((data.images * 255 / 16).astype(np.uint8)[..., None], data.target.astype(np.int32))


class Witness:
    """Records what the engine says."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.improvements: list[Improvement] = []
        self.progress: list[Progress] = []
        self._stop_after = stop_after

    def should_stop(self) -> bool:
        return self._stop_after is not None and len(self.progress) >= self._stop_after

    def run(self, task: TrainingTask, config: TrainingConfig, directory: Path | None = None) -> Result:
        return train(
            task,
            config,
            checkpoint_dir=directory,
            should_stop=self.should_stop,
            on_improved=self.improvements.append,
            on_progress=self.progress.append,
        )


SHORT = TrainingConfig(max_steps=400, steps_per_dispatch=50)


@pytest.mark.parametrize("architecture", [mlp((8, 8, 1), 10), cnn((8, 8, 1), 10)])
def test_it_learns_digits_and_reports_only_strict_improvements(
    architecture: Architecture, digits: Fragment
) -> None:
    witness = Witness()
    result = witness.run(TrainingTask(architecture, [digits], "accuracy"), TrainingConfig(max_steps=1500))
    scores = [improvement.score for improvement in witness.improvements]
    assert result.score is not None and result.score > 930_000
    assert scores == sorted(set(scores)) and scores[-1] == result.score
    assert witness.improvements[-1].model == result.model


def test_the_reported_score_is_the_one_validators_compute_on_the_held_out_samples(digits: Fragment) -> None:
    task = TrainingTask(cnn((8, 8, 1), 10), [digits], "cross_entropy")
    result = Witness().run(task, SHORT)
    assert result.model is not None
    _, holdout = step.split(digits, SHORT.holdout_share, SHORT.seed)
    again = evaluate(result.model, task.architecture, [holdout], "cross_entropy", backend="specification")
    assert again.score == result.score


def test_the_same_seed_gives_the_same_models(digits: Fragment) -> None:
    task = TrainingTask(mlp((8, 8, 1), 10), [digits], "accuracy")
    one, two, other = Witness(), Witness(), Witness()
    one.run(task, SHORT)
    two.run(task, SHORT)
    other.run(task, dataclasses.replace(SHORT, seed=1))
    assert one.improvements == two.improvements != other.improvements


def test_it_stops_when_told_and_not_a_dispatch_later(digits: Fragment) -> None:
    task = TrainingTask(mlp((8, 8, 1), 10), [digits], "cross_entropy")
    for dispatches in (0, 1, 3):
        witness = Witness(stop_after=dispatches)
        result = witness.run(task, SHORT)
        assert (result.reason, result.step) == ("stopped", 50 * dispatches)
        assert (result.model is None) == (dispatches == 0)


def test_it_ends_when_nothing_improves_any_more(digits: Fragment) -> None:
    task = TrainingTask(mlp((8, 8, 1), 10), [digits], "cross_entropy")
    config = TrainingConfig(patience_steps=200, steps_per_dispatch=50, learning_rate=1e-12)
    assert Witness().run(task, config).reason == "patience"


def test_a_run_that_diverges_ends_and_keeps_its_best(digits: Fragment) -> None:
    task = TrainingTask(mlp((8, 8, 1), 10), [digits], "accuracy")
    wild = TrainingConfig(learning_rate=1e38, warmup_steps=200, steps_per_dispatch=50)
    assert Witness().run(task, wild).reason == "diverged"


def test_training_may_start_from_given_parameters(digits: Fragment) -> None:
    task = TrainingTask(mlp((8, 8, 1), 10), [digits], "accuracy")
    first = Witness().run(task, SHORT)
    assert first.model is not None and first.score is not None
    initial = decode_model(first.model, task.architecture)
    second = Witness().run(
        dataclasses.replace(task, initial=initial), TrainingConfig(max_steps=1, steps_per_dispatch=1)
    )
    assert second.score is not None and second.score >= first.score - 20_000
    with pytest.raises(InvalidArtifact):
        Witness().run(dataclasses.replace(task, initial={}), SHORT)


def test_dispatches_settle_at_the_wanted_duration_from_either_side_and_never_run_away() -> None:
    for step_s in (1e-5, 1e-2, 1.0):
        steps = engine.FIRST_STEPS
        for _ in range(12):
            before, steps = steps, engine.next_steps(steps, steps * step_s, 0.25)
            assert 1 <= steps <= engine.MAX_GROWTH * before
        assert steps == max(1, int(0.25 / step_s)) or abs(steps * step_s - 0.25) <= step_s


def lines(process: subprocess.Popen[str]) -> list[dict[str, object]]:
    assert process.stdout is not None
    with process.stdout:
        return [json.loads(line) for line in process.stdout]


def start_worker(directory: Path, max_steps: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("resume_worker.py")), str(directory), str(max_steps)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_killed_training_goes_on_where_it_was_and_ends_as_if_never_killed(tmp_path: Path) -> None:
    undisturbed = start_worker(tmp_path / "undisturbed", 500)
    wanted = lines(undisturbed)
    assert undisturbed.wait() == 0

    victim = start_worker(tmp_path / "killed", 500)
    assert victim.stdout is not None
    before = []
    for line in victim.stdout:
        before.append(json.loads(line))
        if before[-1].get("step", 0) >= 200 and "improved" not in before[-1]:
            victim.send_signal(signal.SIGKILL)
            break
    before += [json.loads(line) for line in victim.stdout]
    victim.stdout.close()
    assert victim.wait() == -signal.SIGKILL

    survivor = start_worker(tmp_path / "killed", 500)
    after = lines(survivor)
    assert survivor.wait() == 0
    steps = [event["step"] for event in after if set(event) == {"step"}]
    assert min(steps) > 100, "it began anew"
    best_before = max(event["improved"] for event in before if "improved" in event)
    reported = [event["improved"] for event in after if "improved" in event]
    assert all(score > best_before for score in reported), "an old score was reported again"
    assert after[-1] == wanted[-1]


def test_a_directory_of_another_task_is_refused(tmp_path: Path, digits: Fragment) -> None:
    task = TrainingTask(mlp((8, 8, 1), 10), [digits], "accuracy")
    Witness(stop_after=1).run(task, SHORT, tmp_path)
    with pytest.raises(CheckpointMismatch, match="another directory"):
        Witness().run(dataclasses.replace(task, metric="cross_entropy"), SHORT, tmp_path)


def test_an_unheard_best_model_is_reported_again(tmp_path: Path, digits: Fragment) -> None:
    """Killed between writing the best model and the end of the report: the report is repeated."""
    task = TrainingTask(mlp((8, 8, 1), 10), [digits], "accuracy")

    def dies(_: Improvement) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            task,
            SHORT,
            checkpoint_dir=tmp_path,
            should_stop=lambda: False,
            on_improved=dies,
            on_progress=lambda _: None,
        )
    witness = Witness(stop_after=0)
    result = witness.run(task, SHORT, tmp_path)
    assert [improvement.model for improvement in witness.improvements] == [result.model]
    again = Witness(stop_after=0)
    again.run(task, SHORT, tmp_path)
    assert again.improvements == []


def test_one_sample_cannot_be_trained_on() -> None:
    lonely = Fragment(np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1, np.int32))
    with pytest.raises(InvalidArtifact, match="two samples"):
        Witness().run(TrainingTask(mlp((8, 8, 1), 10), [lonely], "accuracy"), SHORT)
