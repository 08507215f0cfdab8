"""One sample of an evaluation, proved and checked alone.

The digest of an evaluation is a Merkle root over its samples' outputs. So whoever holds the outputs can
show what they say of one sample, in some hundred bytes; and whoever holds the model and that sample can
tell whether it is right, without the rest of the test set. Guarantees: ``committed`` is true for no
outputs but those that the digest stands for; ``correct`` computes by the specification, so it needs no
compiler and takes milliseconds for one sample.

Source: design section 7 ("so that a dispute can point at one sample"); docs/exact-1.md, "One sample".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offchain.data import check_inputs
from offchain.evaluation import specification
from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, Activations
from offchain.evaluation.score import leaves
from offchain.models.artifact import check_tensors
from protocol.architecture import Architecture
from protocol.merkle import proof, verify


@dataclass(frozen=True, slots=True)
class SampleProof:
    """What an evaluation says of one sample, and the way from there to its digest."""

    index: int
    """Place of the sample in the test set."""
    fractions: tuple[int, ...]
    """One, or for a sequence one per position."""
    outputs: tuple[int, ...]
    """The integers, last axis fastest."""
    siblings: tuple[bytes, ...]


def prove(outputs: Activations, index: int) -> SampleProof:
    """The proof for one sample, from the outputs of all (``score.outputs_of``).

    Raises:
        ValueError: there is no sample at ``index``.
    """
    siblings = proof(leaves(outputs), index)
    return SampleProof(
        index,
        tuple(outputs.fraction[index].ravel().tolist()),
        tuple(outputs.q[index].ravel().tolist()),
        tuple(siblings),
    )


def committed(claim: SampleProof, digest: bytes) -> bool:
    """Whether the digest of an evaluation stands for these outputs at this place."""
    if not 0 <= claim.index < 2**63 or any(abs(q) > ACTIVATION_LIMIT for q in claim.outputs):
        return False
    if any(abs(fraction) >= 2**31 for fraction in claim.fractions):
        return False
    one = Activations(np.array([claim.outputs], np.int64), np.array([claim.fractions], np.int64))
    return verify(leaves(one, claim.index)[0], claim.siblings, digest)


class SampleChecker:
    """Judges single samples of one model; reads the model once.

    Raises:
        InvalidArtifact: the tensors are not the architecture's.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], architecture: Architecture) -> None:
        self._architecture = architecture
        self._prepared = specification.prepare(check_tensors(tensors, architecture), architecture)

    def outputs(self, x: NDArray[Any]) -> Activations:
        """What the model puts out for one sample ``[*input_shape]``.

        Raises:
            InvalidArtifact: the sample is not one for this model.
        """
        check_inputs(x[None], self._architecture.input_shape, self._architecture.vocabulary)
        return specification.run(self._prepared, self._architecture, x[None])

    def correct(self, claim: SampleProof, x: NDArray[Any]) -> bool:
        """Whether the claimed outputs are those of the model for the sample ``x``."""
        found = self.outputs(x)
        return _equal(found.q, claim.outputs) and _equal(found.fraction, claim.fractions)


def _equal(found: NDArray[Any], claimed: Sequence[int]) -> bool:
    return found.size == len(claimed) and bool((found.ravel() == np.array(claimed)).all())
