"""Metrics in integers: from a model's outputs to one score in millionths, higher is better.

Guarantees: each sample's share is an integer computed from that sample's outputs alone; shares are
summed exactly and divided once, rounded half up; ties for the largest output go to the lowest index.

Source: design sections 3 ("scores are integers in millionths") and 7; docs/exact-1.md, "Metrics".
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from offchain.evaluation import tables
from offchain.evaluation.arithmetic import Activations

Metric = Literal["accuracy", "cross_entropy"]
METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
MILLIONTHS: Final = 1_000_000


def correct(outputs: Activations, labels: NDArray[Any]) -> NDArray[Any]:
    """1 per sample whose largest output is that of its label, else 0."""
    return (outputs.q.argmax(axis=-1) == labels).astype(np.int64)


def losses(outputs: Activations, labels: NDArray[Any]) -> NDArray[Any]:
    """``-ln softmax(outputs)[label]`` per sample in ``2**-16``, int64, saturated near ``2**30``."""
    distance = tables.distances(outputs.q, outputs.fraction, np)
    own = np.take_along_axis(distance, labels[:, None].astype(np.int64), axis=-1)[:, 0]
    return tables.logarithm(tables.power(distance, np).sum(axis=-1)) + own


def score(outputs: Activations, labels: NDArray[Any], metric: Metric) -> int:
    """The metric over all samples in millionths: share of correct samples, or minus the mean loss in nats."""
    if metric == "accuracy":
        total, unit = int(correct(outputs, labels).sum()), len(labels)
    else:
        total, unit = -int(losses(outputs, labels).sum()), len(labels) << tables.DISTANCE_FRACTION
    return (2 * total * MILLIONTHS + unit) // (2 * unit)
