"""What more time buys: the exact test score of the engine's best model, by budget, for each example.

    python -m benchmarks.quality [--budgets 10 30 90] [--tasks tabular series …]
        [--mnist FOLDER] [--text FILE] [--json]

Each row trains a task of ``examples/`` as a provider does, with so many seconds from the first line of work
to the last claim, compilation included, and scores the claimed model on samples that training never saw.
``--mnist``: the test file of MNIST as 8,000 training and 2,000 test images, a `cnn` with dropout.
``--text``: a text file, a small GPT; nine tenths of it to train on, in order.

Source: design section 8 ("improves until the deadline").
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

from offchain.client.model_section import Model
from offchain.client.task_file import load_samples, read_task_file
from offchain.data import Fragment
from offchain.datasets.files import read_images, read_text
from offchain.datasets.samples import Samples
from offchain.evaluation.score import Scorer
from offchain.models.artifact import decode_model
from offchain.training.engine import TrainingConfig, TrainingTask, train
from protocol.architecture import Architecture

EXAMPLES: Final = Path(__file__).resolve().parents[1] / "examples"
TASKS: Final = ("digits", "tabular", "series", "characters")
TEST_SHARE: Final = 0.2
TEXT_LENGTH: Final = 64


def split(samples: Samples) -> tuple[Fragment, Fragment]:
    """Training and test samples, drawn as an order's block would."""
    order = np.random.default_rng(1).permutation(len(samples.y))
    border = int(len(order) * (1 - TEST_SHARE))
    whole = Fragment(samples.x, samples.y)
    return whole.select(np.sort(order[:border])), whole.select(np.sort(order[border:]))


def measure(
    name: str, architecture: Architecture, metric: str, parts: tuple[Fragment, Fragment], budget_s: float
) -> dict[str, Any]:
    """One row."""
    training, test = parts
    end = time.monotonic() + budget_s
    jax.clear_caches()
    result = train(
        TrainingTask(architecture, [training], metric),
        TrainingConfig(budget_s=budget_s, patience_steps=None),
        checkpoint_dir=None,
        should_stop=lambda: False,
        on_improved=lambda _: None,
        on_progress=lambda _: None,
        time_left=lambda: end - time.monotonic(),
    )
    late_s = time.monotonic() - end
    score = None
    if result.model is not None:
        score = Scorer(architecture, test, metric).score(decode_model(result.model, architecture))
    row = {"task": name, "metric": metric, "budget_s": budget_s, "steps": result.step, "score": score}
    print(f"{name:12} {metric:14} {budget_s:6.0f} s  {result.step:7} steps  {score}", flush=True)
    return row | {"holdout_score": result.score, "reason": result.reason, "late_s": round(late_s, 2)}


def tasks(arguments: argparse.Namespace) -> list[tuple[str, Architecture, str, tuple[Fragment, Fragment]]]:
    """Everything that was asked for."""
    found = []
    for name in arguments.tasks:
        task = read_task_file(EXAMPLES / f"{name}.yaml")
        samples = load_samples(task.data)
        found.append((name, task.model.architecture(samples), task.metric, split(samples)))
    if arguments.mnist:
        (images,), (labels,) = (list(arguments.mnist.glob(f"*{what}*")) for what in ("images", "labels"))
        samples = read_images(images, labels)
        whole, border = Fragment(samples.x, samples.y), np.arange(len(samples.y)) < 8_000
        parts = (whole.select(np.flatnonzero(border)), whole.select(np.flatnonzero(~border)))
        model = Model(family="cnn", dropout_permille=250)
        found.append(("mnist", model.architecture(samples), "accuracy", parts))
    if arguments.text:
        samples = read_text(arguments.text, length=TEXT_LENGTH)
        whole, border = Fragment(samples.x, samples.y), int(0.9 * len(samples.y))
        parts = (whole.select(np.arange(border)), whole.select(np.arange(border, len(samples.y))))
        model = Model(family="transformer", features=64, depth=2, heads=4)
        found.append(("text", model.architecture(samples), "cross_entropy", parts))
    return found


def main() -> None:
    """Print a line per task and budget; with ``--json`` one object as the last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", type=float, nargs="+", default=[10, 30, 90])
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [measure(*task, budget_s) for task in tasks(arguments) for budget_s in arguments.budgets]
    if arguments.json:
        config = {"device": jax.default_backend(), "jax": jax.__version__, "cores": os.cpu_count()}
        print(json.dumps({"config": config, "results": rows}))


if __name__ == "__main__":
    main()
