"""How much memory a process really takes while it scores ever larger test sets, for ``test_memory.py``.

usage: peak_memory.py FAMILY BUDGET_BYTES; prints one JSON object
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from offchain.data import Fragment
from offchain.evaluation.means import Means
from offchain.evaluation.score import evaluate
from offchain.models import families
from offchain.models.artifact import encode_model
from offchain.models.network import initialise, to_tensors
from protocol.architecture import Architecture

Case = tuple[Architecture, str, Callable[[int], tuple[Any, Any]], int]


def _images(count: int) -> tuple[Any, Any]:
    return np.zeros((count, 28, 28, 1), np.uint8), np.zeros(count, np.int32)


def _tokens(count: int) -> tuple[Any, Any]:
    return np.zeros((count, 64), np.int32), np.zeros((count, 64), np.int32)


CASES: Final[dict[str, Case]] = {
    "cnn": (families.cnn((28, 28, 1), 10, (16, 32)), "accuracy", _images, 8_000),
    "transformer": (families.transformer((64,), 64, vocabulary=64), "cross_entropy", _tokens, 4_000),
}


def main(family: str, budget_bytes: int) -> None:
    architecture, metric, samples, count = CASES[family]
    x, y = samples(count)
    model = encode_model(to_tensors(initialise(architecture, 0)), architecture)
    sizes = (count // 4, count // 2, count)
    peaks = [_peak_bytes()]
    for size in sizes:
        evaluate(
            model,
            architecture,
            [Fragment(x[:size], y[:size])],
            metric,
            means=Means(memory_bytes=budget_bytes),
        )
        peaks.append(_peak_bytes())
    print(json.dumps({"sizes": sizes, "grown_bytes": [peak - peaks[0] for peak in peaks[1:]]}))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
