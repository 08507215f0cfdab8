"""``VRF_Model``: the validation function that the network supplies, version ``exact-1``.

A pure function of a model file, an architecture, the test samples in their order and a metric. It
returns the same score and digest on every honest machine, so that a validation can be checked by
whoever repeats it. Guarantees: a bad model file is ``InvalidArtifact``, always with the same reason; any
other error is this machine's trouble and says nothing about the model.

Source: PoT section 2.1, footnote 3 (``VRF_Model``) and 2.5 "Validation Definiteness"; design section 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from offchain.data import Fragment, concatenate
from offchain.evaluation import exact_jax, metrics, specification
from offchain.evaluation.arithmetic import Activations
from offchain.evaluation.metrics import Metric
from offchain.models.artifact import check_tensors, decode_model
from protocol.architecture import Architecture
from protocol.crypto import keccak256
from protocol.merkle import root

EVALUATOR: Final = "exact-1"
"""The version that a task document names; any change of any integer is another version."""

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
) -> Activations:
    """Integer outputs per sample.

    Raises:
        InvalidArtifact: the tensors are not the architecture's.
    """
    prepared = specification.prepare(check_tensors(tensors, architecture), architecture)
    if backend == "specification":
        return specification.run(prepared, architecture, x)
    return exact_jax.run(prepared, architecture, x, batch_size)


def leaves(outputs: Activations) -> list[bytes]:
    """One leaf per sample: ``keccak256(keccak256(index ‖ fraction ‖ outputs))``.

    Big-endian, in 8, 4 and 2 bytes each; hashed twice, so that no inner node can pass for a leaf.
    """
    rows = outputs.q.astype(">i2").reshape(len(outputs.q), -1)
    fractions = outputs.fraction.astype(">i4")
    return [
        keccak256(keccak256(index.to_bytes(8, "big") + fractions[index].tobytes() + rows[index].tobytes()))
        for index in range(len(rows))
    ]


def evaluate(
    model: bytes,
    architecture: Architecture,
    fragments: Sequence[Fragment],
    metric: Metric,
    *,
    backend: Backend = "auto",
    batch_size: int | None = None,
) -> Evaluation:
    """Score and digest of a model file on the samples of the fragments, in their order.

    Args:
        backend: ``auto`` is the fast one; all give the same integers.

    Raises:
        InvalidArtifact: the file is not a model of this architecture, or there is no sample.
    """
    tensors = decode_model(model, architecture)
    samples = concatenate(fragments)
    outputs = outputs_of(tensors, architecture, samples.x, backend=backend, batch_size=batch_size)
    return Evaluation(metrics.score(outputs, samples.y, metric), root(leaves(outputs)), samples.count)


class Scorer:
    """Scores many parameters on the same samples: what a provider optimises while it trains.

    The samples are turned into integers once and stay on the device.
    """

    def __init__(self, architecture: Architecture, samples: Fragment, metric: Metric) -> None:
        self._architecture, self._samples, self._metric = architecture, samples, metric
        size = exact_jax.batch_size_for(architecture, samples.count)
        self._batches = list(exact_jax.inputs_in_batches(samples.x, size))

    def score(self, tensors: Mapping[str, NDArray[Any]]) -> int:
        """Millionths: the score that ``evaluate`` gives the encoded tensors on these samples.

        Raises:
            InvalidArtifact: the tensors are not the architecture's, or not finite.
        """
        checked = check_tensors(tensors, self._architecture)
        prepared = specification.prepare(checked, self._architecture)
        images = self._samples.x.dtype == np.uint8
        outputs = exact_jax.run_batches(prepared, self._architecture, self._batches, images=images)
        return metrics.score(outputs, self._samples.y, self._metric)


def evaluate_params(
    tensors: Mapping[str, NDArray[Any]], architecture: Architecture, samples: Fragment, metric: Metric
) -> int:
    """Millionths: the score of parameters in memory, equal to that of their model file.

    Raises:
        InvalidArtifact: the tensors are not the architecture's, or not finite.
    """
    return Scorer(architecture, samples, metric).score(tensors)
