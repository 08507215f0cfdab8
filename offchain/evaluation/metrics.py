"""Metrics in integers: from a model's outputs to one score in millionths, higher is better.

Outputs come batch by batch and are gone afterwards: a ``Tally`` keeps what its metric needs of them, which
is a sum, or a class per sample, or (for ``auc``) a number per sample and class. Guarantees: what is kept
of a sample is computed from that sample alone; sums are exact and divided once, rounded half up; ties for
the largest output go to the lowest index; every case that divides by nothing is defined.

Source: design sections 3 ("scores are integers in millionths") and 7; docs/exact-1.md, "Metrics".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from offchain.evaluation import tables
from offchain.evaluation.arithmetic import Activations, align_saturating, bit_length, spread
from offchain.evaluation.quantise import dyadic
from protocol.metric import MILLIONTHS, rank_of

_BLOCK: Final = 1 << 20
"""Outputs looked at together: bounds the temporaries, whatever the batch."""
ERROR_FRACTION: Final = 24
"""Errors of a regression are counted in ``2**-24``, and saturate at ``2**20``."""
_ERROR_BITS: Final = 44
_SHARE_BITS: Final = 40
"""Shares of classes are rounded to ``2**-40`` before they are averaged."""


def divide(numerator: int, denominator: int) -> int:
    """``round(numerator / denominator)``, half up."""
    return (2 * numerator + denominator) // (2 * denominator)


class Tally(ABC):
    """What one metric keeps of the samples it has seen."""

    def add(self, outputs: Activations, targets: NDArray[Any]) -> None:
        """Take in some samples, or positions of sequences."""
        values = outputs.q.shape[-1]
        q, fraction = (
            outputs.q.reshape(-1, values),
            np.broadcast_to(spread(outputs.fraction, outputs.q), (*outputs.q.shape[:-1], 1)).reshape(-1),
        )
        own = targets.reshape(len(q), -1)
        step = max(1, _BLOCK // values)
        for start in range(0, len(q), step):
            part = slice(start, start + step)
            self._add(Activations(q[part].astype(np.int64), fraction[part].astype(np.int64)), own[part])

    @abstractmethod
    def _add(self, outputs: Activations, targets: NDArray[Any]) -> None:
        """Rows: ``[n, values]`` with a fraction each, and ``[n, 1]`` labels or ``[n, values]`` targets."""

    @abstractmethod
    def score(self) -> int:
        """Millionths."""


class _Mean(Tally):
    """A sum of integers over a count."""

    unit = 1
    """What stands for one."""

    def __init__(self) -> None:
        self.total = self.count = 0

    def score(self) -> int:
        return divide(self.total * MILLIONTHS, self.count * self.unit)


class Top(_Mean):
    """Share of samples whose class is among the ``rank`` largest outputs."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def _add(self, outputs: Activations, targets: NDArray[Any]) -> None:
        labels = targets.astype(np.int64)
        own = np.take_along_axis(outputs.q, labels, axis=-1)
        before = np.arange(outputs.q.shape[-1]) < labels
        ahead = ((outputs.q > own) | ((outputs.q == own) & before)).sum(axis=-1)
        self.total += int((ahead < self._rank).sum())
        self.count += len(labels)


class CrossEntropy(_Mean):
    """Minus the mean of ``-ln softmax(outputs)[label]`` in nats, saturated near ``2**14`` per sample."""

    unit = 1 << tables.DISTANCE_FRACTION

    def _add(self, outputs: Activations, targets: NDArray[Any]) -> None:
        distance = tables.distances(outputs.q, outputs.fraction, np)
        own = np.take_along_axis(distance, targets.astype(np.int64), axis=-1)[:, 0]
        losses = tables.logarithm(tables.power(distance, np).sum(axis=-1)) + own
        self.total -= int(losses.sum())
        self.count += len(losses)


class SquaredError(_Mean):
    """Minus the mean square of the errors."""

    unit = 1 << (2 * ERROR_FRACTION)

    def _add(self, outputs: Activations, targets: NDArray[Any]) -> None:
        errors = errors_of(outputs, targets)
        self.total -= sum(error * error for error in errors.ravel().tolist())
        self.count += errors.size


class AbsoluteError(_Mean):
    """Minus the mean size of the errors."""

    unit = 1 << ERROR_FRACTION

    def _add(self, outputs: Activations, targets: NDArray[Any]) -> None:
        errors = errors_of(outputs, targets)
        self.total -= sum(np.abs(errors).ravel().tolist())
        self.count += errors.size


def errors_of(outputs: Activations, targets: NDArray[Any]) -> NDArray[Any]:
    """Outputs less float32 targets in ``2**-24``: each rounded, their difference saturated."""
    found = align_saturating(outputs.q, spread(outputs.fraction, outputs.q), ERROR_FRACTION, 60)
    mantissa, exponent = dyadic(targets)
    wanted = align_saturating(mantissa, -exponent, ERROR_FRACTION, 60)
    return np.clip(found - wanted, -(1 << _ERROR_BITS), 1 << _ERROR_BITS)


class _Agreement(Tally):
    """What was predicted, beside what was right."""

    def __init__(self) -> None:
        self._labels: list[NDArray[Any]] = []
        self._predicted: list[NDArray[Any]] = []

    def _add(self, outputs: Activations, targets: NDArray[Any]) -> None:
        self._labels.append(targets[:, 0].astype(np.int32))
        self._predicted.append(outputs.q.argmax(axis=-1).astype(np.int32))

    def _counts(self) -> tuple[list[int], list[int], list[int]]:
        """Per class: how often it was right to say it, how often it was said, and how often both."""
        labels, predicted = np.concatenate(self._labels), np.concatenate(self._predicted)
        classes = int(max(labels.max(), predicted.max())) + 1
        hits = labels[labels == predicted]
        return tuple(np.bincount(part, minlength=classes).tolist() for part in (labels, predicted, hits))


class MacroF1(_Agreement):
    """Mean over the classes that occur of ``2 TP / (2 TP + FP + FN)``.

    A class that is neither anyone's label nor predicted for anyone does not count.
    """

    def score(self) -> int:
        shares = [
            divide(2 * both << _SHARE_BITS, right + said)
            for right, said, both in zip(*self._counts(), strict=True)
            if right + said
        ]
        return divide(sum(shares) * MILLIONTHS, len(shares) << _SHARE_BITS)


class Kappa(_Agreement):
    """Cohen's kappa: agreement beyond what chance gives; 0 where chance alone would give all of it."""

    def score(self) -> int:
        right, said, both = self._counts()
        count = sum(right)
        chance = sum(r * s for r, s in zip(right, said, strict=True))
        if chance == count * count:
            return 0
        return divide((count * sum(both) - chance) * MILLIONTHS, count * count - chance)


class Auc(Tally):
    """Area under the receiver operating characteristic; ties count half.

    Two classes: samples are ranked by output 1 less output 0, exactly. More: each class against the rest,
    ranked by its probability in ``2**-32``, and the mean over the classes that have samples and leave some.
    One half where there is no pair to rank.
    """

    def __init__(self) -> None:
        self._labels: list[NDArray[Any]] = []
        self._keys: list[NDArray[Any]] = []

    def _add(self, outputs: Activations, targets: NDArray[Any]) -> None:
        self._labels.append(targets[:, 0])
        keys = _binary_keys if outputs.q.shape[-1] == 2 else _probability_keys
        self._keys.append(keys(outputs))

    def score(self) -> int:
        labels, keys = np.concatenate(self._labels), np.concatenate(self._keys)
        if keys.shape[1] == 1:
            wins, pairs = _wins(keys[:, 0], labels == 1)
            return divide(wins * MILLIONTHS, 2 * pairs) if pairs else MILLIONTHS // 2
        shares = []
        for index in range(keys.shape[1]):
            wins, pairs = _wins(keys[:, index], labels == index)
            if pairs:
                shares.append(divide(wins << _SHARE_BITS, 2 * pairs))
        return divide(sum(shares) * MILLIONTHS, len(shares) << _SHARE_BITS) if shares else MILLIONTHS // 2


_KEY_BITS: Final = 20


def _binary_keys(outputs: Activations) -> NDArray[Any]:
    """Integers in the order of ``(q1 - q0) * 2**-fraction``: sign, then exponent, then mantissa."""
    difference = outputs.q[:, 1] - outputs.q[:, 0]
    length = bit_length(np.abs(difference))
    mantissa = np.abs(difference) << (_KEY_BITS - length)
    exponent = length - outputs.fraction + (1 << 24)
    return (np.sign(difference) * ((exponent << _KEY_BITS) + mantissa))[:, None]


def _probability_keys(outputs: Activations) -> NDArray[Any]:
    powers = tables.power(tables.distances(outputs.q, outputs.fraction, np), np)
    return (powers << 32) // powers.sum(axis=-1, keepdims=True)


def _wins(keys: NDArray[Any], positive: NDArray[Any]) -> tuple[int, int]:
    """Twice the pairs in which the positive sample ranks higher, ties counting once; and all pairs."""
    order, group = np.unique(keys, return_inverse=True)
    above = np.bincount(group[positive], minlength=len(order))
    below = np.bincount(group[~positive], minlength=len(order))
    lower = np.concatenate([[0], np.cumsum(below)[:-1]])
    counts = (part.tolist() for part in (above, lower, below))
    wins = sum(own * (2 * less + tied) for own, less, tied in zip(*counts, strict=True))
    return wins, int(above.sum()) * int(below.sum())


def tally(metric: str) -> Tally:
    """An empty tally of the metric of that name."""
    if metric == "accuracy" or metric.startswith("top_"):
        return Top(rank_of(metric))
    kinds: dict[str, type[Tally]] = {
        "cross_entropy": CrossEntropy,
        "macro_f1": MacroF1,
        "kappa": Kappa,
        "auc": Auc,
        "mse": SquaredError,
        "mae": AbsoluteError,
    }
    return kinds[metric]()


def score(outputs: Activations, targets: NDArray[Any], metric: str) -> int:
    """The metric over all samples at once, in millionths."""
    kept = tally(metric)
    kept.add(outputs, targets)
    return kept.score()
