"""The reference case of training: a GPT on characters (6 layers, 384 wide, context 256), tokens per second.

    python -m benchmarks.reference_gpt [--json] [--seconds 20] [--batch-size N] [--peak-tflops X]

The engine's loop against the same model in PyTorch, where that is installed: on a GPU compiled
(``torch.compile``) under bfloat16 autocast, as the engine computes there; on a CPU as it is, in float32. They
take turns, medians of five. Model FLOP utilisation is what a step's multiply-adds would take at the chip's
peak over what the step takes; the peak is that of dense bfloat16 by the maker's data sheet, or is given.
A step of 64 sequences is the usual one; a CPU takes 2 by default, and has no peak unless one is given.

Source: design sections 8 and 12; the sizes are nanoGPT's ``train_shakespeare_char``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
from typing import Any, Final

import jax
import numpy as np

from benchmarks.training import Run, engine, rate_of
from offchain.data import Fragment
from offchain.models.estimate import estimate
from offchain.models.families import transformer
from offchain.training.engine import TrainingConfig
from offchain.training.freed_memory import keep_freed_memory
from offchain.training.step import on_device

CONTEXT: Final = 256
CHARACTERS: Final = 65
GPT: Final = transformer((CONTEXT,), CHARACTERS, 384, 6, 6, vocabulary=CHARACTERS)
SEQUENCES: Final = 512
TURNS: Final = 5
PEAK_TFLOPS: Final = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5": 459.0,
}
"""Dense bfloat16 with float32 sums, by what a device's name contains; the first that fits."""


def peak_tflops(device_kind: str) -> float | None:
    """A chip's peak by its name; none if it is not known."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device_kind), None)


def runs(batch_size: int) -> dict[str, Run]:
    """What trains so many steps, by name."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, CHARACTERS, (2, SEQUENCES, CONTEXT), np.int32)
    recipe = TrainingConfig(batch_size=batch_size).recipe()
    found = {"ours": engine(GPT, recipe, on_device(Fragment(x, y)))}
    if importlib.util.find_spec("torch") is not None:
        from benchmarks._torch_models import trainer

        found["torch"] = trainer("reference_gpt", x, y, batch_size)
    return found


def measure(batch_size: int, seconds: float, peak: float | None) -> dict[str, Any]:
    """The result as printed."""
    trained = runs(batch_size)
    for run in trained.values():
        run(2)
    taken: dict[str, list[float]] = {name: [] for name in trained}
    steps = {
        name: max(2, int(seconds / TURNS / len(trained) * rate_of(run, 2))) for name, run in trained.items()
    }
    for _ in range(TURNS):
        for name, run in trained.items():
            taken[name].append(rate_of(run, steps[name]))
    flops = estimate(GPT).training_flops_per_sample * batch_size
    results = {}
    for name, rates in taken.items():
        rate = statistics.median(rates)
        tflops = flops * rate / 1e12
        results[name] = {
            "steps_per_s": round(rate, 3),
            "tokens_per_s": round(rate * batch_size * CONTEXT),
            "tflops": round(tflops, 3),
            "mfu": None if peak is None else round(tflops / peak, 4),
        }
    return results


def main() -> None:
    """Measure; print a table, or JSON as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--batch-size", type=int, help="sequences; 64, on a CPU 2")
    parser.add_argument("--peak-tflops", type=float, help="of the chip, if its name is not known")
    arguments = parser.parse_args()
    if any(given is not None and given <= 0 for given in (arguments.batch_size, arguments.peak_tflops)):
        parser.error("--batch-size and --peak-tflops are more than 0")
    keep_freed_memory()
    device = jax.devices()[0]
    batch_size = arguments.batch_size or (2 if device.platform == "cpu" else 64)
    peak = arguments.peak_tflops or peak_tflops(device.device_kind)
    results = measure(batch_size, arguments.seconds, peak)
    print(f"{device.device_kind}, {batch_size} sequences of {CONTEXT}, {estimate(GPT).parameters} parameters")
    print(f"{'':8}{'tokens/s':>12}{'TFLOP/s':>10}{'MFU':>8}")
    for name, result in results.items():
        used = "-" if result["mfu"] is None else f"{result['mfu']:.1%}"
        print(f"{name:8}{result['tokens_per_s']:>12}{result['tflops']:>10}{used:>8}")
    if arguments.json:
        config = {
            "device": device.device_kind,
            "jax": jax.__version__,
            "cores": os.cpu_count(),
            "batch_size": batch_size,
            "peak_tflops": peak,
        }
        print(json.dumps({"config": config, "results": results}))


if __name__ == "__main__":
    main()
