"""Data fragments: the pieces in which a client publishes training data and commits to test data.

A fragment is a safetensors file with two tensors, ``x`` and ``y``; and one metadata entry, ``salt``: 32
random bytes in hex, without which the hash of a low-entropy test fragment would give away its content.
``x`` is ``[n, *input_shape]``: float32, or uint8 (images), or int32 (token ids). ``y`` depends on what the
model puts out: int32 labels ``[n]``, int32 next tokens ``[n, positions]``, or float32 targets ``[n, values]``
of a regression. Guarantees: a decoded fragment has the shapes and types it must have, finite values, and
labels and tokens within their ranges; a file that has not is an ``InvalidArtifact``, found before anything
large is allocated.

uint8 values are images and stand for ``v / 255``: training sees that quotient in float32, exact scoring
sees it as an exact rational rounded once (docs/exact-1.md, "Inputs").

Source: PAI section 4.2.2 (at least ten fragments, hashed before the split is known); design section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offchain.tensors import open_tensors, write_tensors
from protocol.architecture import MAX_DIMENSION, Architecture, shapes
from protocol.errors import InvalidArtifact

SALT_BYTES: Final = 32
MAX_SAMPLES: Final = 2**24
"""Samples in one fragment."""


@dataclass(frozen=True, slots=True, eq=False)
class Fragment:
    """Samples and their labels, in the canonical order in which they are scored."""

    x: NDArray[Any]
    """``[n, *input_shape]``, float32, int32 or uint8 (an image value ``v`` stands for ``v / 255``)."""
    y: NDArray[Any]
    """``[n]`` or ``[n, positions]``, int32, in ``[0, classes)``; or ``[n, values]``, float32."""

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.y)

    def real(self) -> NDArray[Any]:
        """``x`` the way training sees it: float32, or token ids."""
        if self.x.dtype == np.uint8:
            return self.x.astype(np.float32) / np.float32(255)
        return self.x

    def select(self, index: NDArray[Any]) -> Fragment:
        """The samples at ``index``, in that order."""
        return Fragment(self.x[index], self.y[index])


class Form(NamedTuple):
    """What the samples of a task must look like."""

    input_shape: tuple[int, ...]
    vocabulary: int | None
    """How many token ids there are; None unless ``x`` holds tokens."""
    target_shape: tuple[int, ...]
    """Of one sample's ``y``: ``()`` for a label."""
    classes: int | None
    """How many classes labels tell apart; None for a regression."""


def form_of(architecture: Architecture, classes: int | None) -> Form:
    """The form of samples for a model; ``classes`` as in the task's document."""
    ending = shapes(architecture)[-1]
    target_shape = {"classification": (), "next_token": ending[:1], "regression": ending}
    return Form(architecture.input_shape, architecture.vocabulary, target_shape[architecture.output], classes)


def encode_fragment(x: NDArray[Any], y: NDArray[Any], salt: bytes) -> bytes:
    """The file of one fragment.

    Args:
        x: ``[n, ...]``, float32, uint8 or int32. y: ``[n, ...]``, int32 or float32. salt: 32 random bytes of
            this fragment alone.

    Raises:
        InvalidArtifact: what ``decode_fragment`` would refuse for any model; clients learn it before they
            publish.
    """
    if len(salt) != SALT_BYTES:
        raise InvalidArtifact(f"a fragment's salt has {SALT_BYTES} bytes, this one has {len(salt)}")
    check_samples(x, y)
    return write_tensors({"x": x, "y": y}, {"salt": salt.hex()})


def check_samples(x: NDArray[Any], y: NDArray[Any]) -> None:
    """Whether a fragment can hold these samples, for whatever model; raises `InvalidArtifact`."""
    vocabulary = MAX_DIMENSION if x.dtype == np.int32 else None
    classes = None if y.dtype == np.float32 else MAX_DIMENSION
    _checked(x, y, Form(x.shape[1:], vocabulary, y.shape[1:], classes))


def decode_fragment(data: bytes, form: Form) -> Fragment:
    """The fragment in ``data``.

    Raises:
        InvalidArtifact: not a fragment, or not of that form.
    """
    tensors, metadata = open_tensors(data)
    if set(tensors) != {"x", "y"}:
        raise InvalidArtifact(f"a fragment has the tensors x and y, this one has {sorted(tensors)[:8]}")
    if set(metadata) != {"salt"} or not _is_salt(metadata["salt"]):
        raise InvalidArtifact(f"a fragment's metadata is a salt of {SALT_BYTES} bytes in lower-case hex")
    return _checked(tensors["x"], tensors["y"], form)


def check_inputs(x: NDArray[Any], input_shape: tuple[int, ...], vocabulary: int | None) -> None:
    """Whether these are samples for a model that takes ``input_shape``, tokens if it has a vocabulary.

    Raises:
        InvalidArtifact: a type, a shape or a value is not what it must be.
    """
    kinds = (np.float32, np.uint8) if vocabulary is None else (np.int32,)
    if x.dtype not in kinds:
        wanted = "float32 or uint8" if vocabulary is None else "int32 token ids"
        raise InvalidArtifact(f"x must be {wanted}, it is {x.dtype}")
    if x.ndim < 2 or x.shape[1:] != input_shape:
        raise InvalidArtifact(f"a sample must have the shape {input_shape}, it has {x.shape[1:]}")
    if x.size == 0:
        raise InvalidArtifact("there must be at least one sample, and a sample at least one value")
    if x.dtype == np.float32 and not np.isfinite(x).all():
        raise InvalidArtifact("x contains NaN or infinity")
    if vocabulary is not None and (x.min() < 0 or x.max() >= vocabulary):
        raise InvalidArtifact(f"tokens must lie in [0, {vocabulary}), these lie in [{x.min()}, {x.max()}]")


def concatenate(fragments: Sequence[Fragment]) -> Fragment:
    """All samples in the order of the fragments.

    Raises:
        InvalidArtifact: no fragment at all, or some are images and some are not.
    """
    check_alike(fragments)
    if len(fragments) == 1:
        return fragments[0]
    return Fragment(
        np.concatenate([fragment.x for fragment in fragments]),
        np.concatenate([fragment.y for fragment in fragments]),
    )


def check_alike(fragments: Sequence[Fragment]) -> None:
    """Refuses no fragment at all, and samples of several types or shapes; raises `InvalidArtifact`."""
    if not fragments:
        raise InvalidArtifact("there is no fragment to read: name at least one")
    if len({(fragment.x.dtype, fragment.x.shape[1:]) for fragment in fragments}) != 1:
        raise InvalidArtifact("the fragments of one task must all have samples of one type and shape")


def in_batches(fragments: Sequence[Fragment], size: int) -> Iterator[Fragment]:
    """The samples of alike fragments in their order, ``size`` at a time; the last batch may be smaller.

    What lies within one fragment is a view of it; no more than a batch is ever copied.
    """
    waiting: list[Fragment] = []
    count = 0
    for fragment in fragments:
        start = 0
        while start < fragment.count:
            taken = min(size - count, fragment.count - start)
            waiting.append(Fragment(fragment.x[start : start + taken], fragment.y[start : start + taken]))
            start, count = start + taken, count + taken
            if count == size:
                yield concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield concatenate(waiting)


def _is_salt(text: str) -> bool:
    return len(text) == 2 * SALT_BYTES and all(character in "0123456789abcdef" for character in text)


def _checked(x: NDArray[Any], y: NDArray[Any], form: Form) -> Fragment:
    if y.ndim < 1 or not 1 <= len(y) <= MAX_SAMPLES or len(x) != len(y):
        raise InvalidArtifact(f"a fragment has 1 to {MAX_SAMPLES} samples, each with its y, not {y.shape}")
    check_inputs(x, form.input_shape, form.vocabulary)
    if y.dtype != (np.float32 if form.classes is None else np.int32):
        raise InvalidArtifact(f"y must be float32 for a regression and int32 for labels, it is {y.dtype}")
    if y.shape[1:] != form.target_shape or y.size == 0:
        raise InvalidArtifact(f"y must have the shape {form.target_shape} per sample, it has {y.shape[1:]}")
    if form.classes is None:
        if not np.isfinite(y).all():
            raise InvalidArtifact("y contains NaN or infinity")
    elif y.min() < 0 or y.max() >= form.classes:
        raise InvalidArtifact(f"labels must lie in [0, {form.classes}), these lie in [{y.min()}, {y.max()}]")
    return Fragment(x, y)
