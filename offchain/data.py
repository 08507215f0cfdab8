"""Data fragments: the pieces in which a client publishes training data and commits to test data.

A fragment is a safetensors file with two tensors: ``x``, ``[n, *input_shape]``, float32 or uint8, and
``y``, int32 labels ``[n]``; and one metadata entry, ``salt``: 32 random bytes in hex, without which the
hash of a low-entropy test fragment would give away its content. Guarantees: a decoded fragment has the
shape it must have, finite values and labels within the classes; a file that has not is an
``InvalidArtifact``, found before anything large is allocated.

uint8 values are images and stand for ``v / 255``: training sees that quotient in float32, exact scoring
sees it as an exact rational rounded once (docs/exact-1.md, "Inputs").

Source: PAI section 4.2.2 (at least ten fragments, hashed before the split is known); design section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from offchain.tensors import open_tensors, write_tensors
from protocol.errors import InvalidArtifact

SALT_BYTES: Final = 32
MAX_SAMPLES: Final = 2**24
"""Samples in one fragment."""


@dataclass(frozen=True, slots=True, eq=False)
class Fragment:
    """Samples and their labels, in the canonical order in which they are scored."""

    x: NDArray[Any]
    """``[n, *input_shape]``, float32 or uint8 (an image value ``v`` stands for ``v / 255``)."""
    y: NDArray[Any]
    """``[n]``, int32, in ``[0, classes)``."""

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.y)

    def real(self) -> NDArray[Any]:
        """``x`` as float32, the way training sees it."""
        if self.x.dtype == np.uint8:
            return self.x.astype(np.float32) / np.float32(255)
        return self.x

    def select(self, index: NDArray[Any]) -> Fragment:
        """The samples at ``index``, in that order."""
        return Fragment(self.x[index], self.y[index])


def encode_fragment(x: NDArray[Any], y: NDArray[Any], salt: bytes) -> bytes:
    """The file of one fragment.

    Args:
        x: ``[n, ...]``, float32 or uint8. y: ``[n]``, int32. salt: 32 random bytes of this fragment alone.

    Raises:
        InvalidArtifact: what ``decode_fragment`` would refuse; clients learn it before they publish.
    """
    if len(salt) != SALT_BYTES:
        raise InvalidArtifact(f"a fragment's salt has {SALT_BYTES} bytes, this one has {len(salt)}")
    if x.dtype not in (np.float32, np.uint8) or y.dtype != np.int32:
        raise InvalidArtifact(
            f"a fragment has x in float32 or uint8 and y in int32, not {x.dtype}, {y.dtype}"
        )
    _checked(x, y, x.shape[1:], None)
    return write_tensors({"x": x, "y": y}, {"salt": salt.hex()})


def decode_fragment(data: bytes, input_shape: tuple[int, ...], classes: int) -> Fragment:
    """The fragment in ``data``, for a model that takes ``input_shape`` and tells ``classes`` apart.

    Raises:
        InvalidArtifact: not a fragment, or not for such a model.
    """
    tensors, metadata = open_tensors(data)
    if set(tensors) != {"x", "y"}:
        raise InvalidArtifact(f"a fragment has the tensors x and y, this one has {sorted(tensors)[:8]}")
    if set(metadata) != {"salt"} or not _is_salt(metadata["salt"]):
        raise InvalidArtifact(f"a fragment's metadata is a salt of {SALT_BYTES} bytes in lower-case hex")
    x, y = tensors["x"], tensors["y"]
    if x.dtype not in (np.float32, np.uint8) or y.dtype != np.int32:
        raise InvalidArtifact(
            f"a fragment has x in float32 or uint8 and y in int32, not {x.dtype}, {y.dtype}"
        )
    return _checked(x, y, input_shape, classes)


def concatenate(fragments: Sequence[Fragment]) -> Fragment:
    """All samples in the order of the fragments.

    Raises:
        InvalidArtifact: no fragment at all, or some are images and some are not.
    """
    if not fragments:
        raise InvalidArtifact("there is no fragment to read: name at least one")
    if len({fragment.x.dtype for fragment in fragments}) != 1:
        raise InvalidArtifact("the fragments of one task must all be float32 or all be uint8")
    if len(fragments) == 1:
        return fragments[0]
    return Fragment(
        np.concatenate([fragment.x for fragment in fragments]),
        np.concatenate([fragment.y for fragment in fragments]),
    )


def _is_salt(text: str) -> bool:
    return len(text) == 2 * SALT_BYTES and all(character in "0123456789abcdef" for character in text)


def _checked(x: NDArray[Any], y: NDArray[Any], input_shape: tuple[int, ...], classes: int | None) -> Fragment:
    if y.ndim != 1 or not 1 <= len(y) <= MAX_SAMPLES:
        raise InvalidArtifact(f"a fragment has 1 to {MAX_SAMPLES} labels in a vector, not {y.shape}")
    if x.shape != (len(y), *input_shape):
        raise InvalidArtifact(f"x must have the shape {(len(y), *input_shape)}, it has {x.shape}")
    if math.prod(input_shape) == 0:
        raise InvalidArtifact("a sample must have at least one value")
    if x.dtype == np.float32 and not np.isfinite(x).all():
        raise InvalidArtifact("x contains NaN or infinity")
    if y.min() < 0 or (classes is not None and y.max() >= classes):
        raise InvalidArtifact(f"labels must lie in [0, {classes}), these lie in [{y.min()}, {y.max()}]")
    return Fragment(x, y)
