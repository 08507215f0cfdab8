"""The training engine against a plain hand-written jitted loop, in steps per second.

    python -m benchmarks.training [--json] [--seconds 3]

The plain loop is what one writes first and well: one jitted step with donated state, batches gathered on
the device, the loss fetched once at the end. Both train the same model on the same data with the same
optimiser; they take turns, medians of five. The figure to reach is a ratio of at least 1 (design 12).

Source: design sections 8 and 12.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from offchain.data import Fragment
from offchain.models.families import cnn, mlp
from offchain.models.network import build
from offchain.training.engine import TrainingConfig
from offchain.training.step import Data, Recipe, State, compiled, on_device, optimiser, start
from protocol.architecture import Architecture

MODELS: dict[str, Architecture] = {
    "mlp digits 64-128-64-10": mlp((8, 8, 1), 10),
    "cnn digits 16-32-64": cnn((8, 8, 1), 10),
    "mlp 784-512-256-10": mlp((28, 28, 1), 10, (512, 256)),
    "cnn 28x28 16-32-64": cnn((28, 28, 1), 10),
}
TURNS = 5


def plain_loop(architecture: Architecture, recipe: Recipe) -> Callable[[State, Data, jax.Array, int], Any]:
    """The hand-written loop."""
    network, transformation = build(architecture), optimiser(recipe)

    def loss_of(parameters: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = network.apply({"params": parameters}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def one(state: State, data: Data, key: jax.Array) -> tuple[State, jax.Array]:
        drawn = jax.random.randint(jax.random.fold_in(key, state.step), (recipe.batch_size,), 0, len(data.y))
        x = data.x[drawn].astype(jnp.float32) / 255
        loss, gradient = jax.value_and_grad(loss_of)(state.parameters, x, data.y[drawn])
        updates, moments = transformation.update(gradient, state.optimiser, state.parameters)
        return State(optax.apply_updates(state.parameters, updates), moments, state.step + 1), loss

    step = jax.jit(one, donate_argnums=0)

    def loop(state: State, data: Data, key: jax.Array, steps: int) -> tuple[State, jax.Array]:
        for _ in range(steps):
            state, loss = step(state, data, key)
        return state, loss

    return loop


def steps_per_s(
    run: Callable[..., Any], architecture: Architecture, recipe: Recipe, data: Data, steps: int
) -> float:
    """One timed run from fresh parameters."""
    state, key = start(architecture, recipe, 0, None), jax.random.key(0)
    began = time.perf_counter()
    jax.block_until_ready(run(state, data, key, steps))
    return steps / (time.perf_counter() - began)


def measure(architecture: Architecture, seconds: float) -> dict[str, float]:
    """One model's row."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (1500, *architecture.input_shape), np.uint8)
    data = on_device(Fragment(x, rng.integers(0, 10, 1500, dtype=np.int32)))
    recipe = TrainingConfig().recipe()
    began = time.perf_counter()
    engine = compiled(architecture, recipe)
    steps_per_s(engine, architecture, recipe, data, 1)
    first = time.perf_counter() - began
    plain = plain_loop(architecture, recipe)
    steps = max(10, int(seconds / TURNS / 2 * steps_per_s(engine, architecture, recipe, data, 20)))
    steps_per_s(plain, architecture, recipe, data, 2)
    ours, theirs = [], []
    for _ in range(TURNS):
        ours.append(steps_per_s(engine, architecture, recipe, data, steps))
        theirs.append(steps_per_s(plain, architecture, recipe, data, steps))
    return {
        "engine_steps_per_s": round(statistics.median(ours), 1),
        "plain_steps_per_s": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 2),
        "first_step_s": round(first, 2),
    }


def main() -> None:
    """Measure all models; print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0, help="per model")
    arguments = parser.parse_args()
    rows = {name: measure(model, arguments.seconds) for name, model in MODELS.items()}
    if arguments.json:
        print(json.dumps({"device": jax.default_backend(), "jax": jax.__version__, "models": rows}))
        return
    print(f"{'model':28}{'engine':>12}{'plain':>12}{'ratio':>8}{'first':>8}")
    for name, row in rows.items():
        print(
            f"{name:28}{row['engine_steps_per_s']:>10}/s{row['plain_steps_per_s']:>10}/s"
            f"{row['ratio']:>7}x{row['first_step_s']:>7}s"
        )


if __name__ == "__main__":
    main()
