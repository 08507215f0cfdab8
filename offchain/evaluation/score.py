"""``VRF_Model``: the validation function that the network supplies, version ``exact-1``.

A pure function of a model file, an architecture, the test samples in their order and a metric. It
returns the same score and digest on every honest machine, so that a validation can be checked by
whoever repeats it. Guarantees: a bad model file is ``InvalidArtifact``, always with the same reason; any
other error is this machine's trouble and says nothing about the model.

Source: PoT section 2.1, footnote 3 (``VRF_Model``) and 2.5 "Validation Definiteness"; design section 7.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import jax
import numpy as np
from numpy.typing import NDArray

from offchain.data import Fragment, check_alike, check_inputs, in_batches
from offchain.evaluation import exact_jax, metrics, specification
from offchain.evaluation.arithmetic import Activations
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.containers import ways
from offchain.evaluation.means import USUAL_MEANS, Means
from offchain.evaluation.memory import pass_bytes
from offchain.evaluation.place import device
from offchain.models.artifact import Tensors, check_tensors, decode_model
from protocol.architecture import Architecture
from protocol.crypto import keccak256
from protocol.merkle import root

EVALUATOR: Final = "exact-1"
"""The version that a task document names; any change of any integer is another version."""

_INTEGER_BYTES: Final = 4
"""Of a sample's value on the device; twice that counts the filling of the last batch, too."""

Backend = Literal["auto", "specification", "jax"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a validator commits to and reveals."""

    score: int
    """Millionths, higher is better; a loss is negated."""
    digest: bytes
    """Merkle root over the leaves of all samples, 32 bytes."""
    samples: int
    """How many samples were scored."""


def outputs_of(
    tensors: Mapping[str, NDArray[Any]],
    architecture: Architecture,
    x: NDArray[Any],
    *,
    backend: Backend = "auto",
    batch_size: int | None = None,
    means: Means = USUAL_MEANS,
) -> Activations:
    """Integer outputs of all samples; ``evaluate`` does not need them all at once.

    Raises:
        InvalidArtifact: the tensors, or the samples, are not the architecture's.
    """
    size = _size_for(architecture, len(x), batch_size, means)
    checked, images = check_tensors(tensors, architecture), x.dtype == np.uint8
    pieces = _outputs(checked, architecture, exact_jax.cut(x, size), images, size, len(x), backend, means)
    q, fraction = (np.concatenate(part) for part in zip(*pieces, strict=True))
    return Activations(q.astype(np.int64), fraction.astype(np.int64))


def _size_for(architecture: Architecture, samples: int, asked: int | None, means: Means) -> int:
    return exact_jax.batch_size_for(architecture, samples, means) if asked is None else asked


def _outputs(
    tensors: Tensors,
    architecture: Architecture,
    pieces: Iterable[NDArray[Any]],
    images: bool,
    size: int,
    samples: int,
    backend: Backend,
    means: Means,
) -> Iterator[Activations]:
    """Outputs of ``samples`` samples, which come ``size`` at a time."""
    prepared = specification.prepare(tensors, architecture)
    fitting = (_fitting(piece, architecture) for piece in pieces)
    if backend == "specification":
        return (specification.run(prepared, architecture, piece) for piece in fitting)
    plans = exact_jax.plans_for(prepared, architecture, images, size, samples, means.container)
    at_once = exact_jax.batches_at_once(architecture, size, samples, means)
    return exact_jax.stream(
        prepared, architecture, exact_jax.inputs_in_batches(fitting, size), plans, at_once
    )


def _fitting(x: NDArray[Any], architecture: Architecture) -> NDArray[Any]:
    check_inputs(x, architecture.input_shape, architecture.vocabulary)
    return x


def leaves(outputs: Activations, first: int = 0) -> list[bytes]:
    """One leaf per sample: ``keccak256(keccak256(index ‖ fractions ‖ outputs))``.

    Big-endian, in 8, 4 and 2 bytes each; hashed twice, so that no inner node can pass for a leaf.

    Args:
        first: index of the first of these samples.
    """
    rows = outputs.q.astype(">i2").reshape(len(outputs.q), -1)
    fractions = outputs.fraction.astype(">i4").reshape(len(rows), -1)
    return [
        keccak256(
            keccak256((first + place).to_bytes(8, "big") + fractions[place].tobytes() + rows[place].tobytes())
        )
        for place in range(len(rows))
    ]


def evaluate(
    model: bytes,
    architecture: Architecture,
    fragments: Sequence[Fragment],
    metric: str,
    *,
    backend: Backend = "auto",
    batch_size: int | None = None,
    means: Means = USUAL_MEANS,
) -> Evaluation:
    """Score and digest of a model file on the samples of the fragments, in their order.

    Args:
        metric: see ``protocol.metric``. backend: ``auto`` is the fast one; all give the same integers.
            means: how this machine is to compute; changes no integer.

    Raises:
        InvalidArtifact: the file is not a model of this architecture, or there is no sample.
        OverBudget: not even one sample fits the memory budget; nothing was allocated.
    """
    check_alike(fragments)
    samples = sum(fragment.count for fragment in fragments)
    size = _size_for(architecture, samples, batch_size, means)
    tensors, images = decode_model(model, architecture), fragments[0].x.dtype == np.uint8
    pieces = (batch.x for batch in in_batches(fragments, size))
    kept, hashed = metrics.tally(metric), list[bytes]()
    found = _outputs(tensors, architecture, pieces, images, size, samples, backend, means)
    for outputs, batch in zip(found, in_batches(fragments, size), strict=True):
        kept.add(outputs, batch.y)
        hashed += leaves(outputs, len(hashed))
    return Evaluation(kept.score(), root(hashed), samples)


class Scorer:
    """Scores many parameters on the same samples: what a provider optimises while it trains.

    The samples are turned into integers once and stay on the device, if the memory budget has room for them.

    Raises:
        InvalidArtifact: the samples are not the architecture's.
        OverBudget: not even one sample fits the memory budget.
    """

    def __init__(
        self, architecture: Architecture, samples: Fragment, metric: str, means: Means = USUAL_MEANS
    ) -> None:
        check_inputs(samples.x, architecture.input_shape, architecture.vocabulary)
        self._architecture, self._samples, self._metric = architecture, samples, metric
        self._means = means
        self._size = exact_jax.batch_size_for(architecture, samples.count, means)
        self._at_once = exact_jax.batches_at_once(architecture, self._size, samples.count, means)
        taken = pass_bytes(architecture, self._size, self._at_once, ways(means.container, samples.count))
        keeps = taken + 2 * _INTEGER_BYTES * samples.x.size <= means.memory_bytes
        with jax.default_device(device()):
            self._kept = [jax.device_put(batch) for batch in self._read()] if keeps else None

    def _read(self) -> Iterator[tuple[int, Traced]]:
        return exact_jax.inputs_in_batches(exact_jax.cut(self._samples.x, self._size), self._size)

    def score(self, tensors: Mapping[str, NDArray[Any]]) -> int:
        """Millionths: the score that ``evaluate`` gives the encoded tensors on these samples.

        Raises:
            InvalidArtifact: the tensors are not the architecture's, or not finite.
        """
        checked = check_tensors(tensors, self._architecture)
        prepared = specification.prepare(checked, self._architecture)
        plans = exact_jax.plans_for(
            prepared,
            self._architecture,
            self._samples.x.dtype == np.uint8,
            self._size,
            self._samples.count,
            self._means.container,
        )
        kept, first = metrics.tally(self._metric), 0
        batches = self._read() if self._kept is None else self._kept
        for outputs in exact_jax.stream(prepared, self._architecture, batches, plans, self._at_once):
            kept.add(outputs, self._samples.y[first : first + len(outputs.q)])
            first += len(outputs.q)
        return kept.score()
