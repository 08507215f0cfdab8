"""Samples in a client's hands: what every reader in this room returns, and how they are dealt out.

Guarantees: what a `Samples` holds fits into fragments (``offchain.data``) and says what it is for: labels
make a classification, real targets a regression, a token per position a next-token task.

Source: PAI section 4.2.2 (fragments); design section 3.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from offchain.data import check_samples, encode_fragment
from protocol.architecture import MAX_DIMENSION, Output
from protocol.errors import InvalidArtifact, InvalidDocument

MIN_SAMPLES: Final = 10
"""At least one per fragment."""


class InvalidData(InvalidDocument):
    """Data that fragments cannot represent; the message names the file, and row and column if it has any."""


@dataclass(frozen=True, eq=False)
class Samples:
    """All data of a task.

    Raises:
        InvalidData: fragments cannot hold it.
    """

    x: NDArray[Any]
    """``[n, ...]``: float32, uint8 images, or int32 token ids."""
    y: NDArray[Any]
    """``[n]`` int32 labels, ``[n, positions]`` int32 next tokens, or ``[n, values]`` float32."""
    about: dict[str, Any] = field(default_factory=dict)
    """What the numbers stand for: ``labels``, ``alphabet``, ``columns``, ``mean``, ``scale``."""

    def __post_init__(self) -> None:
        if len(self.y) < MIN_SAMPLES:
            raise InvalidData(f"a task needs at least {MIN_SAMPLES} samples, here are {len(self.y)}")
        if len(self.x) != len(self.y):
            raise InvalidData(f"{len(self.x)} samples in x, {len(self.y)} in y")
        try:
            check_samples(self.x, self.y)
        except InvalidArtifact as reason:
            raise InvalidData(str(reason)) from reason

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.x.shape[1:])

    @property
    def output(self) -> Output:
        """What a model of this data puts out."""
        if self.y.dtype == np.float32:
            return "regression"
        return "classification" if self.y.ndim == 1 else "next_token"

    @cached_property
    def vocabulary(self) -> int | None:
        """How many token ids there are; none unless samples are tokens."""
        if self.x.dtype != np.int32:
            return None
        alphabet = self.about.get("alphabet")
        return len(alphabet) if alphabet is not None else self._largest_token + 1

    @property
    def _largest_token(self) -> int:
        both = (self.x, self.y) if self.output == "next_token" else (self.x,)
        return max(int(tokens.max()) for tokens in both)

    @cached_property
    def classes(self) -> int | None:
        """How many classes labels or next tokens tell apart; none for a regression."""
        if self.output == "regression":
            return None
        if self.output == "next_token":
            return self.vocabulary
        labels = self.about.get("labels")
        return max(2, len(labels) if labels is not None else int(self.y.max()) + 1)

    @property
    def outputs(self) -> int:
        """Values that a model puts out (per position, if it does for each)."""
        return self.classes if self.classes is not None else int(self.y.shape[1])

    def fragments(self, count: int) -> Iterator[tuple[bytes, int]]:
        """``count`` fragment files with their sample counts; samples are dealt out at random."""
        if not MIN_SAMPLES <= count <= len(self.y):
            raise InvalidData(
                f"{len(self.y)} samples make {MIN_SAMPLES} to {len(self.y)} fragments, not {count}"
            )
        order = np.random.default_rng(secrets.randbits(128)).permutation(len(self.y))
        for part in np.array_split(order, count):
            yield encode_fragment(self.x[part], self.y[part], secrets.token_bytes(32)), len(part)


def standardised(x: NDArray[Any]) -> tuple[NDArray[Any], list[float], list[float]]:
    """Columns (last axis) with mean 0 and deviation 1, and both; a constant column becomes zeros."""
    axes = tuple(range(x.ndim - 1))
    mean, scale = x.mean(axes, dtype=np.float64), x.std(axes, dtype=np.float64)
    scale = np.where(scale > 0, scale, 1.0)
    return ((x - mean) / scale).astype(np.float32), mean.tolist(), scale.tolist()


def check_vocabulary(size: int, what: str) -> None:
    """Raise unless a model can tell so many things apart."""
    if not 2 <= size <= MAX_DIMENSION:
        raise InvalidData(f"{what}: {size} different ones, a model tells 2 to {MAX_DIMENSION} apart")
