"""The integer arithmetic of ``exact-1``, in plain NumPy int64: every rule by which a number is rounded.

A sample's activations are integers ``q`` with ``|q| <= 32639`` that stand for ``q * 2**-fraction``; the
fraction is one integer per sample and layer, chosen from that sample alone. So one sample's outputs
depend on the model and on that sample and on nothing else: not on the batch, not on the machine, and a
dispute about one sample is settled by computing one sample. Guarantees: no value overflows, for any
finite float32 parameters (the bounds are proved in ``bounds.py``); every rounding is half up.

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
    """What flows from layer to layer: integers and, per sample, the power of two they stand for."""

    q: NDArray[Any]
    """``[n, ...]`` int64, ``|q| <= ACTIVATION_LIMIT``."""
    fraction: NDArray[Any]
    """``[n]`` int64; a value is ``q * 2**-fraction``."""


def per_sample(values: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """``[n]`` shaped ``[n, 1, …, 1]``, to combine with ``like`` of ``[n, …]``."""
    return values.reshape((-1,) + (1,) * (like.ndim - 1))


def round_shift(values: NDArray[Any], shift: NDArray[Any]) -> NDArray[Any]:
    """``floor(values / 2**shift + 1/2)`` for ``shift >= 0`` and ``|values| < 2**60``."""
    shift = np.minimum(shift, _MAX_SHIFT)
    half = (np.int64(1) << shift) >> 1
    return (values + half) >> shift


def align(values: NDArray[Any], have: NDArray[Any], want: NDArray[Any]) -> NDArray[Any]:
    """``values`` of fraction ``have`` in the fraction ``want``; the caller bounds ``want - have``."""
    left = np.clip(want - have, 0, _MAX_SHIFT)
    return round_shift(values << left, np.maximum(have - want, 0))


def bit_length(values: NDArray[Any]) -> NDArray[Any]:
    """Bits of each non-negative integer: 0 for 0, 1 for 1, 2 for 2 and 3, …"""
    length = np.zeros_like(values)
    for bits in (32, 16, 8, 4, 2, 1):
        big = values >> bits > 0
        length = length + np.where(big, bits, 0)
        values = np.where(big, values >> bits, values)
    return length + values


def normalise(values: NDArray[Any], fraction: NDArray[Any]) -> Activations:
    """Accumulators to activations: per sample the smallest right shift after which every one fits.

    Args:
        values: ``[n, ...]``, ``|values| < 2**60``. fraction: ``[n]``, what they stand for.
    """
    largest = np.abs(values).reshape(len(values), -1).max(axis=1)
    shift = np.maximum(bit_length(largest) - ACTIVATION_BITS, 0)
    shift = shift + (round_shift(largest, shift) > ACTIVATION_LIMIT)
    q = round_shift(values, per_sample(shift, values))
    return Activations(q, np.where(largest == 0, FINEST, fraction - shift))


def accumulate(
    products: NDArray[Any], fraction: NDArray[Any], bias: NDArray[Any] | None, bias_fraction: NDArray[Any]
) -> Activations:
    """Scaled sums plus bias, to activations: the end of every contraction.

    The two are added in the finer of their fractions, except that the bias is refined by at most
    ``HEADROOM_BITS``.

    Args:
        products: ``[n, ..., channels]``. fraction: ``[n]``. bias: ``[channels]`` or None.
        bias_fraction: scalar.
    """
    if bias is None:
        return normalise(products, fraction)
    common = np.minimum(fraction, bias_fraction + HEADROOM_BITS)
    have, want = per_sample(fraction, products), per_sample(common, products)
    return normalise(align(products, have, want) + align(bias, bias_fraction, want), common)


def add(a: Activations, b: Activations) -> Activations:
    """The sum of two activations of one shape, in the finer fraction but for the headroom."""
    fine, coarse = np.maximum(a.fraction, b.fraction), np.minimum(a.fraction, b.fraction)
    common = np.minimum(fine, coarse + HEADROOM_BITS)
    want = per_sample(common, a.q)
    total = align(a.q, per_sample(a.fraction, a.q), want) + align(b.q, per_sample(b.fraction, b.q), want)
    return normalise(total, common)
