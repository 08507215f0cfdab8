"""Exact evaluation against float32 inference: how much the agreed integer costs.

    python -m benchmarks.evaluation [--json] [--samples 2048] [--repeats 9]

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
from offchain.evaluation.score import evaluate
from offchain.models.artifact import encode_model
from offchain.models.families import cnn, mlp
from offchain.models.network import build, from_tensors, initialise, to_tensors
from protocol.architecture import (
    Add,
    Architecture,
    Conv,
    Dense,
    GlobalAvgPool,
    Layer,
    Relu,
    parameter_count,
    shapes,
)


def residual(width: int = 32, blocks: int = 3) -> Architecture:
    """A small residual network on 28×28 images."""
    layers: list[Layer] = [Conv(features=width, strides=(2, 2)), Relu(name="b0")]
    for block in range(blocks):
        layers += [Conv(features=width), Relu(), Conv(features=width), Add(other=f"b{block}")]
        layers.append(Relu(name=f"b{block + 1}"))
    return Architecture(input_shape=(28, 28, 1), layers=(*layers, GlobalAvgPool(), Dense(features=10)))


MODELS: dict[str, Architecture] = {
    "mlp digits 64-128-64-10": mlp((64,), 10),
    "cnn digits 16-32-64": cnn((8, 8, 1), 10),
    "mlp 784-512-256-10": mlp((28, 28, 1), 10, (512, 256)),
    "mlp 1024-2048-2048-10": mlp((1024,), 10, (2048, 2048)),
    "cnn 28x28 32-64-128": cnn((28, 28, 1), 10, (32, 64), (128,)),
    "resnet 28x28 7 conv of 32": residual(),
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


def measure(architecture: Architecture, samples: int, repeats: int) -> dict[str, float | int]:
    """One model's row: milliseconds, ratios, compile time in seconds."""
    rng = np.random.default_rng(0)
    tensors = to_tensors(initialise(architecture, 0))
    images = len(architecture.input_shape) == 3
    shape = (samples, *architecture.input_shape)
    x = rng.integers(0, 256, shape, np.uint8) if images else rng.standard_normal(shape, np.float32)
    fragment = Fragment(x, rng.integers(0, shapes(architecture)[-1][0], samples, dtype=np.int32))
    size = exact_jax.batch_size_for(architecture, samples)
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
    exact_jax.run(prepared, architecture, x)
    first = time.perf_counter() - start
    in_float, exact, whole = medians(
        [
            real,
            lambda: exact_jax.run(prepared, architecture, x),
            lambda: evaluate(model, architecture, [fragment], "accuracy"),
        ],
        repeats,
    )
    return {
        "parameters": parameter_count(architecture),
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
    arguments = parser.parse_args()
    rows = {name: measure(model, arguments.samples, arguments.repeats) for name, model in MODELS.items()}
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
