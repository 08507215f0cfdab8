"""How far the exact score of a model is from its float32 score, per family, on data it has not seen.

    python -m benchmarks.faithfulness [--json] [--steps 600] [--seeds 2] [--family lstm] [--mnist FOLDER]

Real data that comes with the libraries: handwritten digits and diabetes (scikit-learn), English text (the
help topics of Python's own ``pydoc_data``). Each model is trained here by the training engine, then scored
twice on the same held-out samples. The bar: 0.2 percentage points for accuracy, 0.5 % for losses. Images
are cross-validated by halves, each scored by a model trained on the other, so that all of them count: of the
1,797 small digits one is 0.06 points. With ``--mnist``, the folder of MNIST's test file, classifiers are
trained and scored on its 10,000 images.

Source: design section 7; PoT section 2.5 "Validation Definiteness".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes, load_digits

from offchain.data import Fragment
from offchain.datasets.files import read_images
from offchain.evaluation.score import evaluate
from offchain.models.artifact import decode_model
from offchain.models.families import cnn, lstm, mlp, resnet, transformer
from offchain.models.network import build, from_tensors
from offchain.training.engine import TrainingConfig, TrainingTask, train
from protocol.architecture import Architecture
from protocol.errors import InvalidDocument, ProtocolError

BARS = {"accuracy": 0.2, "cross_entropy": 0.5, "mse": 0.5}
"""Percentage points, per cent, per cent."""
CONTEXT = 32


Folds = list[tuple[Fragment, Fragment]]
"""Training and unseen samples, of each model that is trained."""


class Case(NamedTuple):
    """A model, its data, and the metric that pays for it."""

    architecture: Architecture
    metric: str
    data: Callable[[int], Folds]
    """By seed."""
    learning_rate: float = 3e-3


def _split(x: np.ndarray, y: np.ndarray, train_count: int, seed: int) -> tuple[Fragment, Fragment]:
    order = np.random.default_rng(seed).permutation(len(x))
    kept, unseen = order[:train_count], order[train_count:]
    return Fragment(x[kept], y[kept]), Fragment(x[unseen], y[unseen])


def _halves(x: np.ndarray, y: np.ndarray, seed: int) -> Folds:
    one, other = _split(x, y, len(x) // 2, seed)
    return [(one, other), (other, one)]


def images(seed: int) -> Folds:
    """Digits, 8×8 bytes."""
    data = load_digits()
    x = (data.images * 255 / 16).astype(np.uint8)[..., None]
    return _halves(x, data.target.astype(np.int32), seed)


def rows(seed: int) -> Folds:
    """The same digits as series: eight steps of eight numbers."""
    data = load_digits()
    return _halves((data.images / 16).astype(np.float32), data.target.astype(np.int32), seed)


def diabetes(seed: int) -> Folds:
    """Ten measurements to the progression of the disease, both standardised."""
    data = load_diabetes()
    x = (data.data / data.data.std(axis=0)).astype(np.float32)
    y = ((data.target - data.target.mean()) / data.target.std()).astype(np.float32)[:, None]
    return [_split(x, y, 300, seed)]


def _text() -> str:
    return "".join(topics[name] for name in sorted(topics))


def _alphabet() -> list[str]:
    return sorted({character if character.isascii() else "?" for character in _text()})


def characters(seed: int) -> Folds:
    """Windows of a text and what follows each of their characters; the last tenth of the text is unseen."""
    place = {character: index for index, character in enumerate(_alphabet())}
    ids = np.array([place.get(character, place["?"]) for character in _text()], np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1)[:: CONTEXT // 2]
    cut = len(windows) * 9 // 10
    unseen = windows[cut:][np.random.default_rng(seed).permutation(len(windows) - cut)[:400]]
    training, held_out = (
        Fragment(np.ascontiguousarray(part[:, :-1]), np.ascontiguousarray(part[:, 1:]))
        for part in (windows[:cut], unseen)
    )
    return [(training, held_out)]


def cases() -> dict[str, Case]:
    """One row each of the table."""
    letters = len(_alphabet())
    gpt = transformer((CONTEXT,), letters, 48, 2, 4, vocabulary=letters)
    return {
        "mlp": Case(mlp((8, 8, 1), 10), "accuracy", images),
        "mlp regression": Case(mlp((10,), 1, (32,), output="regression"), "mse", diabetes, 1e-3),
        "cnn": Case(cnn((8, 8, 1), 10), "accuracy", images),
        "resnet": Case(resnet((8, 8, 1), 10, (16, 32)), "accuracy", images),
        "lstm": Case(lstm((8, 8), 10), "accuracy", rows),
        "gru": Case(lstm((8, 8), 10, cell="gru"), "accuracy", rows),
        "lstm characters": Case(
            lstm((CONTEXT,), letters, vocabulary=letters, output="next_token"), "cross_entropy", characters
        ),
        "transformer classifier": Case(
            transformer((8, 8), 10, 32, 1, 4, output="classification"), "accuracy", rows
        ),
        "transformer characters": Case(gpt, "cross_entropy", characters, 2e-3),
    }


def mnist_cases(folder: Path) -> dict[str, Case]:
    """The same for classifiers, on 28×28 images, and on their rows as series of 28 steps."""
    found = [list(folder.glob(f"*{what}*")) for what in ("images", "labels")]
    if [len(files) for files in found] != [1, 1]:
        raise InvalidDocument(f"{folder} holds no single file of images and one of labels")
    (images_file,), (labels_file,) = found
    samples = read_images(images_file, labels_file)

    def pictures(seed: int) -> Folds:
        return _halves(samples.x, samples.y, seed)

    def lines(seed: int) -> Folds:
        return _halves((samples.x.reshape(-1, 28, 28) / 255).astype(np.float32), samples.y, seed)

    def case(architecture: Architecture, data: Callable[[int], Folds]) -> Case:
        return Case(architecture, "accuracy", data, 1e-3)

    shape, series = (28, 28, 1), (28, 28)
    return {
        "mlp": case(mlp(shape, 10), pictures),
        "cnn": case(cnn(shape, 10), pictures),
        "resnet": case(resnet(shape, 10, (16, 32)), pictures),
        "lstm": case(lstm(series, 10), lines),
        "gru": case(lstm(series, 10, cell="gru"), lines),
        "transformer classifier": case(transformer(series, 10, 32, 1, 4, output="classification"), lines),
    }


def real_score(outputs: np.ndarray, y: np.ndarray, metric: str) -> float:
    """The metric of float outputs in float64; losses are positive here."""
    if metric == "mse":
        return float(np.square(outputs.astype(np.float64) - y).mean())
    logits = outputs.astype(np.float64).reshape(-1, outputs.shape[-1])
    labels = y.reshape(-1)
    if metric == "accuracy":
        return float((logits.argmax(axis=-1) == labels).mean())
    logits = logits - logits.max(axis=-1, keepdims=True)
    own = logits[np.arange(len(labels)), labels]
    return float((np.log(np.exp(logits).sum(axis=-1)) - own).mean())


def measure(case: Case, seed: int, steps: int) -> dict[str, float]:
    """Float32 and exact score over all unseen samples, and how far they lie apart."""
    folds = case.data(seed)
    scores = np.array([_scores(case, seed, steps, training, unseen) for training, unseen in folds])
    real, exact = np.average(scores, axis=0, weights=[len(unseen.y) for _, unseen in folds])
    shift = 100 * (exact - real if case.metric == "accuracy" else (exact - real) / real)
    return {"float32": float(real), "exact": float(exact), "shift": float(shift)}


def _scores(case: Case, seed: int, steps: int, training: Fragment, unseen: Fragment) -> tuple[float, float]:
    """Float32 and exact score of one trained model."""
    result = train(
        TrainingTask(case.architecture, [training], case.metric),
        TrainingConfig(
            seed=seed,
            max_steps=steps,
            steps_per_dispatch=max(1, steps // 4),
            schedule_steps=steps,
            learning_rate=case.learning_rate,
        ),
        checkpoint_dir=None,
        should_stop=lambda: False,
        on_improved=lambda _: None,
        on_progress=lambda _: None,
    )
    assert result.model is not None
    parameters = from_tensors(decode_model(result.model, case.architecture))
    outputs = jax.jit(build(case.architecture).apply)({"params": parameters}, jnp.asarray(unseen.real()))
    exact = evaluate(result.model, case.architecture, [unseen], case.metric).score / 1e6
    real = real_score(np.asarray(outputs), unseen.y, case.metric)
    return real, exact if case.metric == "accuracy" else -exact


def main(given: Sequence[str] | None = None) -> None:
    """Train, score twice, print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--family", action="append", choices=tuple(cases()))
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's test images and labels")
    arguments = parser.parse_args(given)
    if min(arguments.steps, arguments.seeds) < 1:
        parser.error("--steps and --seeds are 1 and more")
    table: list[dict[str, Any]] = []
    try:
        chosen = mnist_cases(arguments.mnist) if arguments.mnist else cases()
    except ProtocolError as reason:
        parser.error(str(reason))
    if not set(arguments.family or ()) <= set(chosen):
        parser.error(f"with --mnist a family is one of {', '.join(chosen)}")
    for name, case in chosen.items():
        if arguments.family and name not in arguments.family:
            continue
        runs = [measure(case, seed, arguments.steps) for seed in range(arguments.seeds)]
        worst = max(runs, key=lambda run: abs(run["shift"]))
        row = {"model": name, "metric": case.metric, **worst, "bar": BARS[case.metric]}
        table.append({**row, "within": abs(worst["shift"]) <= BARS[case.metric] + 1e-9})
        if not arguments.json:
            unit = "pp" if case.metric == "accuracy" else "% "
            print(
                f"{name:24}{case.metric:15}{worst['float32']:10.5f}{worst['exact']:10.5f}"
                f"{worst['shift']:+8.3f} {unit} {'' if table[-1]['within'] else 'beyond the bar'}",
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"steps": arguments.steps, "seeds": arguments.seeds, "models": table}))


if __name__ == "__main__":
    main()
