"""The integer arithmetic of ``exact-1``, in plain NumPy int64: every rule by which a number is rounded.

A layer's activations are integers ``q`` with ``|q| <= 32639`` that stand for ``q * 2**-fraction``. The
fraction is one integer per *group*: a sample, or in a sequence (a value of rank 2 per sample) one of its
positions. It is chosen from that group alone. So one sample's outputs depend on the model and on that
sample and on nothing else: not on the batch, not on the machine, and a dispute about one sample is
settled by computing one sample; and in a causal model a position depends on none after it. Guarantees: no
value overflows, for any finite float32 parameters (the bounds are proved in ``bounds.py``); every
rounding is half up, unless it says otherwise.

This file and ``quantise.py`` are the definition; ``arithmetic_jax.py`` is the same, fast.

Source: PoT section 2.5 "Validation Definiteness"; docs/exact-1.md.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

ACTIVATION_LIMIT: Final = 32639
"""``127 * 256 + 127``: the largest 16-bit magnitude whose two balanced 8-bit limbs both fit int8."""
ACTIVATION_BITS: Final = 15
HEADROOM_BITS: Final = 24
"""How far a coarser term is refined before it is added to a finer one."""
FINEST: Final = 1 << 20
"""The fraction of zero: finer than any that arises, so that adding zero never costs precision."""
_MAX_SHIFT: Final = 62


class Activations(NamedTuple):
    """What flows from layer to layer: integers and, per group, the power of two they stand for."""

    q: NDArray[Any]
    """``[n, ...]`` int64, ``|q| <= ACTIVATION_LIMIT``; token ids before an embedding."""
    fraction: NDArray[Any]
    """``[n]`` int64, or ``[n, positions]`` for a sequence; a value is ``q * 2**-fraction``."""


def groups_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the fractions that belong to values of ``shape`` ``[n, ...]``."""
    return shape[:2] if len(shape) == 3 else shape[:1]


def spread(values: Any, like: Any) -> Any:
    """What there is one of per group, shaped to combine with ``like``; arrays of NumPy or of JAX."""
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def round_shift(values: NDArray[Any], shift: NDArray[Any] | np.int64) -> NDArray[Any]:
    """``floor(values / 2**shift + 1/2)`` for ``shift >= 0`` and ``|values| < 2**60``."""
    shift = np.minimum(shift, _MAX_SHIFT)
    half = (np.int64(1) << shift) >> 1
    return (values + half) >> shift


def align(values: NDArray[Any], have: NDArray[Any], want: NDArray[Any]) -> NDArray[Any]:
    """``values`` of fraction ``have`` in the fraction ``want``; the caller bounds ``want - have``."""
    left = np.clip(want - have, 0, _MAX_SHIFT)
    return round_shift(values << left, np.maximum(have - want, 0))


def align_saturating(
    values: NDArray[Any], have: NDArray[Any], want: int | NDArray[Any], bits: int
) -> NDArray[Any]:
    """``values`` of fraction ``have`` in the fraction ``want``, saturated at ``2**bits`` either way.

    Args:
        values: ``|values| < 2**60``. bits: at most 60.
    """
    left = np.clip(want - have, 0, bits)
    # What saturates after a left shift saturates before it, so that the shift cannot overflow.
    room = np.int64(1) << (bits - left)
    shifted = np.clip(values, -room, room) << left
    limit = 1 << bits
    return np.clip(
        round_shift(np.where(have > want, values, shifted), np.maximum(have - want, 0)), -limit, limit
    )


def bit_length(values: NDArray[Any]) -> NDArray[Any]:
    """Bits of each non-negative integer: 0 for 0, 1 for 1, 2 for 2 and 3, …"""
    length = np.zeros_like(values)
    for bits in (32, 16, 8, 4, 2, 1):
        big = values >> bits > 0
        length = length + np.where(big, bits, 0)
        values = np.where(big, values >> bits, values)
    return length + values


def square_root(values: NDArray[Any] | np.int64) -> NDArray[Any]:
    """``floor(sqrt(values))`` for ``0 <= values < 2**52``."""
    # float64 only guesses; the integers decide.
    root = np.sqrt(values.astype(np.float64)).astype(np.int64)
    root = root - (root * root > values)
    return root + ((root + 1) * (root + 1) <= values)


def normalise(values: NDArray[Any], fraction: NDArray[Any]) -> Activations:
    """Accumulators to activations: per group the smallest right shift after which every one fits.

    Args:
        values: ``[n, ...]``, ``|values| < 2**60``. fraction: one per group: ``[n]``, or more of the
            leading axes of ``values``; what they stand for.
    """
    largest = np.abs(values).reshape(*fraction.shape, -1).max(axis=-1)
    shift = np.maximum(bit_length(largest) - ACTIVATION_BITS, 0)
    shift = shift + (round_shift(largest, shift) > ACTIVATION_LIMIT)
    q = round_shift(values, spread(shift, values))
    return Activations(q, np.where(largest == 0, FINEST, fraction - shift))


def accumulate(
    products: NDArray[Any], fraction: NDArray[Any], bias: NDArray[Any] | None, bias_fraction: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scaled sums plus bias, and their fraction: the end of every contraction but for ``normalise``.

    The two are added in the finer of their fractions, except that the bias is refined by at most
    ``HEADROOM_BITS``.

    Args:
        products: ``[n, ..., channels]``. fraction: one per group. bias: ``[channels]`` or None.
        bias_fraction: scalar.
    """
    if bias is None:
        return products, fraction
    common = np.minimum(fraction, bias_fraction + HEADROOM_BITS)
    have, want = spread(fraction, products), spread(common, products)
    return align(products, have, want) + align(bias, bias_fraction, want), common


def add(a: Activations, b: Activations) -> Activations:
    """The sum of two activations of one shape, in the finer fraction but for the headroom."""
    fine, coarse = np.maximum(a.fraction, b.fraction), np.minimum(a.fraction, b.fraction)
    common = np.minimum(fine, coarse + HEADROOM_BITS)
    want = spread(common, a.q)
    total = align(a.q, spread(a.fraction, a.q), want) + align(b.q, spread(b.fraction, b.q), want)
    return normalise(total, common)


def join(x: Activations, axes: int) -> Activations:
    """Groups joined: one fraction for what had several; ``axes`` of the fraction's axes remain.

    As in ``add``: the finest of their fractions, but refined by at most the headroom.
    """
    rows = x.fraction.reshape(*x.fraction.shape[:axes], -1)
    common = np.minimum(rows.max(axis=-1), rows.min(axis=-1) + HEADROOM_BITS)
    return normalise(align(x.q, spread(x.fraction, x.q), spread(common, x.q)), common)
