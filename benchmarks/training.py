"""The training engine against a plain hand-written jitted loop and against PyTorch, in steps per second.

    python -m benchmarks.training [--json] [--seconds 4] [--family NAME …]

The plain loop is what one writes first and well: one jitted step with donated state, batches gathered on
the device, optax's AdamW with clipped gradients, the loss fetched once at the end. PyTorch's is the same in
its own terms. All train the same model on the same data in batches of 64; they take turns, medians of 15,
in one process that keeps freed memory as the engine's does (`offchain/training/freed_memory.py`).
The figure to reach is a ratio of at least 1 to both (design 12). Without PyTorch its column is empty.

Source: design sections 8 and 12.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from offchain.data import Fragment
from offchain.models.families import cnn, lstm, mlp, resnet, transformer
from offchain.models.network import build
from offchain.training.engine import TrainingConfig
from offchain.training.freed_memory import keep_freed_memory
from offchain.training.step import Data, Recipe, compiled, mean_loss, on_device, start
from protocol.architecture import Architecture

FAMILIES: Final[dict[str, Architecture]] = {
    "mlp": mlp((28, 28, 1), 10, (512, 256)),
    "cnn": cnn((28, 28, 1), 10),
    "resnet": resnet((28, 28, 1), 10, (16, 32)),
    "lstm": lstm((24, 1), 1, 32, output="regression"),
    "transformer": transformer((64,), 96, 64, 2, 4, vocabulary=96),
}
TURNS: Final = 15
SAMPLES: Final = 1500

Run = Callable[[int], None]
"""Trains so many steps and waits for them."""


def samples_for(architecture: Architecture) -> Fragment:
    """Random data of the form that a model takes: what is learned does not matter here."""
    rng = np.random.default_rng(0)
    shape = (SAMPLES, *architecture.input_shape)
    if architecture.output == "next_token":
        return Fragment(rng.integers(0, 96, shape, np.int32), rng.integers(0, 96, shape, np.int32))
    if architecture.output == "regression":
        x = rng.standard_normal(shape, np.float32)
        return Fragment(x, rng.standard_normal((SAMPLES, 1), np.float32))
    return Fragment(rng.integers(0, 256, shape, np.uint8), rng.integers(0, 10, SAMPLES, np.int32))


def engine(architecture: Architecture, recipe: Recipe, data: Data) -> Run:
    """The project's loop."""
    dispatch, key = compiled(architecture, recipe), jax.random.key(0)
    state = [start(architecture, recipe, 0, None)]

    def run(steps: int) -> None:
        state[0], loss = dispatch(state[0], data, key, np.int32(steps), np.float32(1))
        jax.block_until_ready((state[0], loss))

    return run


def plain_loop(architecture: Architecture, recipe: Recipe, data: Data) -> Run:
    """The hand-written loop."""
    network = build(architecture, training=True)
    transformation = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(recipe.learning_rate, weight_decay=recipe.weight_decay)
    )

    def loss_of(parameters: Any, x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
        outputs, _ = network.apply({"params": parameters}, x, rngs={"dropout": key}, mutable=["statistics"])
        return mean_loss(architecture, outputs, y)

    def one(parameters: Any, moments: Any, number: Any, data: Data) -> tuple[Any, Any, Any, jax.Array]:
        key = jax.random.fold_in(jax.random.key(0), number)
        drawn = jax.random.randint(key, (recipe.batch_size,), 0, len(data.y))
        x = data.x[drawn]
        x = x.astype(jnp.float32) / 255 if x.dtype == jnp.uint8 else x
        loss, gradient = jax.value_and_grad(loss_of)(parameters, x, data.y[drawn], key)
        updates, moments = transformation.update(gradient, moments, parameters)
        return optax.apply_updates(parameters, updates), moments, number + 1, loss

    step = jax.jit(one, donate_argnums=(0, 1, 2))
    parameters = start(architecture, recipe, 0, None).parameters
    state = [(parameters, transformation.init(parameters), jnp.int32(0))]

    def run(steps: int) -> None:
        loss: Any = None
        for _ in range(steps):
            *now, loss = step(*state[0], data)
            state[0] = (now[0], now[1], now[2])
        jax.block_until_ready((state[0], loss))

    return run


def rate_of(run: Run, steps: int) -> float:
    """Steps per second of one timed turn."""
    began = time.perf_counter()
    run(steps)
    return steps / (time.perf_counter() - began)


def measure(family: str, seconds: float) -> dict[str, Any]:
    """One family's row."""
    architecture, recipe = FAMILIES[family], TrainingConfig().recipe()
    samples = samples_for(architecture)
    data = on_device(samples)
    runs = {
        "ours": engine(architecture, recipe, data),
        "plain_jax": plain_loop(architecture, recipe, data),
    }
    if importlib.util.find_spec("torch") is not None:
        from benchmarks._torch_models import trainer

        runs["torch"] = trainer(family, samples.x, samples.y, recipe.batch_size)
    for run in runs.values():
        run(2)
    steps = max(5, int(seconds / TURNS / len(runs) * rate_of(runs["ours"], 10)))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, run in runs.items():
            taken[name].append(rate_of(run, steps))
    medians = {name: round(statistics.median(rates), 1) for name, rates in taken.items()}
    return {"family": family, "steps_per_s": {"ours": 0.0, "plain_jax": 0.0, "torch": None, **medians}}


def main() -> None:
    """Measure all families; print a table, or JSON as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=4.0, help="per family")
    parser.add_argument("--family", nargs="+", choices=tuple(FAMILIES), default=list(FAMILIES))
    arguments = parser.parse_args()
    keep_freed_memory()
    rows = [measure(family, arguments.seconds) for family in arguments.family]
    print(f"{'family':14}{'ours':>10}{'plain JAX':>12}{'PyTorch':>10}{'ratios':>14}")
    for row in rows:
        speed = row["steps_per_s"]
        ratios = [speed["ours"] / speed[other] for other in ("plain_jax", "torch") if speed[other]]
        print(
            f"{row['family']:14}{speed['ours']:>8}/s{speed['plain_jax']:>10}/s{speed['torch'] or '-':>10}"
            f"{'  '.join(f'{ratio:.2f}x' for ratio in ratios):>14}"
        )
    if arguments.json:
        config = {"device": jax.default_backend(), "jax": jax.__version__, "cores": os.cpu_count()}
        print(json.dumps({"config": config, "results": rows}))


if __name__ == "__main__":
    main()
