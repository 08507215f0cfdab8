"""The table by which the widths of ``exact-1`` were chosen: faithfulness against speed.

    python -m benchmarks.widths [--json] [--seeds 5]

Faithfulness, on digits with models trained here: float32 against weights of 4, 8 and 16 bits per output
channel (rounded, then computed in float32, so that nothing else is rounded), 8 bits with 16 in the first
layer, in the last or in both, and against ``exact-1`` itself. Speed: float32 products over 2 and over 4
pairs of limbs (16-bit activations with 8-bit and with 16-bit weights) against one float32 product, medians
of turns.

Source: design section 7 ("choose them by a table of faithfulness against speed, then pin them").
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from benchmarks.evaluation import medians
from offchain.data import Fragment
from offchain.evaluation.score import evaluate
from offchain.models.artifact import decode_model
from offchain.models.families import cnn, lstm, mlp
from offchain.models.network import build, from_tensors
from offchain.training.engine import TrainingConfig, TrainingTask, train
from protocol.architecture import Architecture

FAMILIES = {
    "mlp": mlp((8, 8, 1), 10),
    "cnn": cnn((8, 8, 1), 10),
    "gru": lstm((8, 8), 10, cell="gru"),
}

WIDTHS: dict[str, tuple[int, int, int]] = {
    "float32": (24, 24, 24),
    "weights 4": (4, 4, 4),
    "weights 8": (8, 8, 8),
    "first 16": (16, 8, 8),
    "last 16": (8, 8, 16),
    "both 16": (16, 8, 16),
    "weights 16": (16, 16, 16),
}
"""Bits of the first layer, of those between, and of the last."""


def rounded(tensor: np.ndarray, bits: int) -> np.ndarray:
    """Kernels as they are after rounding to ``bits`` per output channel; biases as they are."""
    if tensor.ndim == 1:
        return tensor
    limit = 2 ** (bits - 1) - 1
    largest = np.abs(tensor).max(axis=tuple(range(tensor.ndim - 1)), keepdims=True).astype(np.float64)
    return (np.round(tensor / largest * limit) * largest / limit).astype(np.float32)


def quality(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Share of correct samples, and mean loss in nats."""
    logits = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    own = np.take_along_axis(logits, labels[:, None].astype(int), axis=-1)[:, 0]
    losses = np.log(np.exp(logits).sum(axis=-1)) - own
    return float((logits.argmax(axis=-1) == labels).mean()), float(losses.mean())


def faithfulness(architecture: Architecture, seed: int) -> dict[str, tuple[float, float]]:
    """Accuracy and loss on unseen samples, per width."""
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    images = (data.images * 255 / 16).astype(np.uint8)[..., None][order]
    if len(architecture.input_shape) == 2:
        images = (data.images / 16).astype(np.float32)[order]
    labels = data.target.astype(np.int32)[order]
    test = Fragment(images[900:], labels[900:])
    result = train(
        TrainingTask(architecture, [Fragment(images[:900], labels[:900])], "accuracy"),
        TrainingConfig(seed=seed, max_steps=600, steps_per_dispatch=100),
        checkpoint_dir=None,
        should_stop=lambda: False,
        on_improved=lambda _: None,
        on_progress=lambda _: None,
    )
    assert result.model is not None
    tensors = decode_model(result.model, architecture)
    found = {}
    places = sorted({int(name.split(".")[0]) for name in tensors})
    for width, (first, between, last) in WIDTHS.items():
        bits = dict.fromkeys(places, between) | {places[0]: first, places[-1]: last}
        values = {
            name: tensor if width == "float32" else rounded(tensor, bits[int(name.split(".")[0])])
            for name, tensor in tensors.items()
        }
        logits = build(architecture).apply({"params": from_tensors(values)}, test.real())
        found[width] = quality(np.asarray(logits), test.y)
    accuracy, loss = (
        evaluate(result.model, architecture, [test], m).score for m in ("accuracy", "cross_entropy")
    )
    found["exact-1"] = (accuracy / 1e6, loss / -1e6)
    return found


def limb_cost(product: Callable[[Any, Any], Any], x: jax.Array, weight: jax.Array) -> dict[str, float]:
    """Milliseconds of one float32 product, and of the products of 2 and of 4 limb pairs."""
    once = jax.jit(product)
    many = jax.jit(lambda x, weight: product(jnp.concatenate([x, x]), weight))
    four = jax.jit(
        lambda x, weight: [product(jnp.concatenate([x, x]), part) for part in (weight, weight + 1)]
    )
    runs = [
        lambda: once(x, weight).block_until_ready(),
        lambda: many(x, weight).block_until_ready(),
        lambda: jax.block_until_ready(four(x, weight)),
    ]
    taken = [1e3 * seconds for seconds in medians(runs, 15)]
    return {"float32_ms": taken[0], "8_bit_ratio": taken[1] / taken[0], "16_bit_ratio": taken[2] / taken[0]}


def speed() -> dict[str, dict[str, float]]:
    """Cost of the widths for one dense and one convolution layer."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> jax.Array:
        return jnp.asarray(rng.integers(-127, 128, shape), jnp.float32)

    def conv(x: jax.Array, weight: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    return {
        "dense 784-512, batch 1024": limb_cost(jnp.matmul, numbers(1024, 784), numbers(784, 512)),
        "conv 3x3 32-64 on 14x14, batch 128": limb_cost(
            conv, numbers(128, 14, 14, 32), numbers(3, 3, 32, 64)
        ),
    }


def main() -> None:
    """Measure; print two tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, architecture in FAMILIES.items():
        runs = [faithfulness(architecture, seed) for seed in range(arguments.seeds)]
        table[name] = {
            width: {
                "accuracy_pct": 100 * statistics.mean(run[width][0] for run in runs),
                "worst_accuracy_shift_pp": 100 * max(abs(run[width][0] - run["float32"][0]) for run in runs),
                "worst_loss_shift_pct": 100 * max(abs(run[width][1] / run["float32"][1] - 1) for run in runs),
            }
            for width in runs[0]
        }
    costs = speed()
    if arguments.json:
        print(json.dumps({"faithfulness": table, "speed": costs}))
        return
    print(f"{'digits':6}{'':14}{'accuracy':>10}{'worst shift':>14}{'worst loss shift':>19}")
    for name, rows in table.items():
        for width, row in rows.items():
            print(
                f"{name:6}{width:14}{row['accuracy_pct']:9.2f}%{row['worst_accuracy_shift_pp']:11.2f} pp"
                f"{row['worst_loss_shift_pct']:17.2f} %"
            )
    for name, cost in costs.items():
        print(f"{name}: 8-bit weights {cost['8_bit_ratio']:.2f}x, 16-bit weights {cost['16_bit_ratio']:.2f}x")


if __name__ == "__main__":
    main()
