"""Exact evaluation against float32 inference: how much the agreed integer costs.

    python -m benchmarks.evaluation [--json] [--samples 2048] [--repeats 9] [--family transformer]
        [--container auto]

For each model, in one run and taking turns: float32 inference (Flax, jitted, same batches) and the exact
outputs (``exact_jax``), both from samples in host memory to outputs in host memory; and the whole of
``evaluate`` with metric and digest. Medians of the repeats. The figure to reach is a ratio of at most 3
(design section 12). Random parameters and samples: neither changes the work.

Source: design section 12; docs/exact-1.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from offchain.data import Fragment
from offchain.evaluation import exact_jax, specification
from offchain.evaluation.containers import CHOICES, Choice
from offchain.evaluation.means import Means
from offchain.evaluation.score import evaluate
from offchain.models.artifact import encode_model
from offchain.models.families import cnn, lstm, mlp, resnet, transformer
from offchain.models.network import build, from_tensors, initialise, to_tensors
from protocol.architecture import Architecture, parameter_count, shapes, work

FULL_WORK = 8_000_000
"""Multiply-adds per sample up to which all samples are scored."""

MODELS: dict[str, dict[str, Architecture]] = {
    "mlp": {
        "mlp digits 64-128-64-10": mlp((64,), 10),
        "mlp 784-512-256-10": mlp((28, 28, 1), 10, (512, 256)),
        "mlp 1024-2048-2048-10": mlp((1024,), 10, (2048, 2048)),
    },
    "cnn": {
        "cnn digits 16-32-64": cnn((8, 8, 1), 10),
        "cnn 28x28 32-64-128": cnn((28, 28, 1), 10, (32, 64), (128,)),
    },
    "resnet": {"resnet 28x28 16-32-64": resnet((28, 28, 1), 10)},
    "lstm": {
        "lstm 64 steps, 64 wide": lstm((64, 8), 10),
        "gru 64 steps, 64 wide": lstm((64, 8), 10, cell="gru"),
    },
    "transformer": {
        "gpt 2x64, context 64": transformer((64,), 65, vocabulary=65),
        "gpt 4x128, context 128": transformer((128,), 65, 128, 4, 4, vocabulary=65),
    },
}


def medians(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each function, measured in turns after one warm-up."""
    seconds: list[list[float]] = [[] for _ in functions]
    for turn in range(repeats + 1):
        for function, taken in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            if turn:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


def random_inputs(architecture: Architecture, count: int, rng: np.random.Generator) -> np.ndarray:
    """Samples of the kind that the model takes."""
    shape = (count, *architecture.input_shape)
    if architecture.vocabulary is not None:
        return rng.integers(0, architecture.vocabulary, shape, np.int32)
    if len(architecture.input_shape) == 3:
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape, np.float32)


def measure(
    architecture: Architecture, samples: int, repeats: int, container: Choice = "auto"
) -> dict[str, float | int]:
    """One model's row: milliseconds, ratios, compile time in seconds."""
    rng = np.random.default_rng(0)
    tensors = to_tensors(initialise(architecture, 0))
    x = random_inputs(architecture, samples, rng)
    ending = shapes(architecture)[-1]
    fragment = Fragment(x, rng.integers(0, ending[-1], (samples, *ending[:-1]), dtype=np.int32))
    means = Means(container=container)
    size = exact_jax.batch_size_for(architecture, samples, means)
    apply, parameters = jax.jit(build(architecture).apply), {"params": from_tensors(tensors)}
    parameters = jax.device_put(parameters)

    def real() -> object:
        outputs = [
            apply(parameters, jnp.asarray(Fragment(x[i : i + size], fragment.y).real()))
            for i in range(0, samples, size)
        ]
        return [np.asarray(part) for part in outputs]

    prepared, model = specification.prepare(tensors, architecture), encode_model(tensors, architecture)
    start = time.perf_counter()
    exact_jax.run(prepared, architecture, x, means=means)
    first = time.perf_counter() - start
    in_float, exact, whole = medians(
        [
            real,
            lambda: exact_jax.run(prepared, architecture, x, means=means),
            lambda: evaluate(model, architecture, [fragment], "accuracy", means=means),
        ],
        repeats,
    )
    return {
        "parameters": parameter_count(architecture),
        "samples": samples,
        "batch": size,
        "float32_ms": round(in_float * 1e3, 2),
        "exact_ms": round(exact * 1e3, 2),
        "evaluate_ms": round(whole * 1e3, 2),
        "ratio": round(exact / in_float, 2),
        "ratio_with_digest": round(whole / in_float, 2),
        "first_call_s": round(first, 2),
    }


def main() -> None:
    """Measure all models; print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--family", action="append", choices=tuple(MODELS))
    parser.add_argument("--container", choices=CHOICES, default="auto")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, float | int | str]] = {}
    for family in arguments.family or MODELS:
        for name, model in MODELS[family].items():
            # Samples as work allows: a sequence model does as much for one as an mlp for hundreds.
            samples = max(16, min(arguments.samples, int(arguments.samples * FULL_WORK / work(model))))
            rows[name] = {"family": family, **measure(model, samples, arguments.repeats, arguments.container)}
    if arguments.json:
        print(json.dumps({"device": jax.default_backend(), "jax": jax.__version__, "models": rows}))
        return
    print(f"{'model':28}{'float32':>10}{'exact':>10}{'ratio':>8}{'evaluate':>10}{'ratio':>8}{'first':>8}")
    for name, row in rows.items():
        print(
            f"{name:28}{row['float32_ms']:8.1f}ms{row['exact_ms']:8.1f}ms{row['ratio']:7.2f}x"
            f"{row['evaluate_ms']:8.1f}ms{row['ratio_with_digest']:7.2f}x{row['first_call_s']:7.2f}s"
        )


if __name__ == "__main__":
    main()
