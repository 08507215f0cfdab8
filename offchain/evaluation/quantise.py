"""Float32 to integers, exactly: how ``exact-1`` reads parameters and samples.

A float32 is a dyadic rational ``m * 2**e``; everything here computes with those integers, so no
rounding of the platform's floating point can enter. Guarantees: any finite parameters, from denormals
to 3e38, have one reading; the same on every machine.

Source: docs/exact-1.md, "Parameters" and "Inputs"; PoT section 2.5 "Validation Definiteness".
"""

from __future__ import annotations

from fractions import Fraction
from functools import reduce
from math import isqrt
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offchain.evaluation.arithmetic import (
    ACTIVATION_BITS,
    ACTIVATION_LIMIT,
    FINEST,
    Activations,
    bit_length,
    groups_of,
    spread,
)

WEIGHT_BITS: Final = 8
WEIGHT_LIMIT: Final = 2 ** (WEIGHT_BITS - 1) - 1
MULTIPLIER_BITS: Final = 15
MANTISSA_BITS: Final = 24
IMAGE_FRACTION: Final = 12
"""uint8 images are read in 4096ths: fine against 255 steps, and first layers then need one limb."""
IMAGE_LIMIT: Final = 2**IMAGE_FRACTION
EPSILON_BITS: Final = 17
"""Normalisations add ``2**-17`` (7.6e-6) to a variance before they divide by its root."""
EPSILON: Final = 2.0**-EPSILON_BITS
SCALE_BITS: Final = 15
"""Learned scales of layer and rms norm."""
AFFINE_BITS: Final = 23
"""Factors of a folded batch norm."""
_BLOCK: Final = 1 << 16
"""Weights quantised at once: bounds the temporaries, whatever the kernel's size; a cache holds them."""
_MAGNITUDE: Final = (1 << 31) - 1
"""All of a float32's pattern but its sign."""
_PLAIN: Final = 2.0**-100
"""Where a channel's largest weight is no smaller, denormals, below ``2**-126``, round to zero anyway."""


class Linear(NamedTuple):
    """A contraction's parameters: output channel ``c`` is ``multiplier[c] * (weight[..., c] · q)``,
    standing for that times ``2**-(multiplier_fraction + fraction of q)``, plus the bias."""

    weight: NDArray[Any]
    """Kernel's shape, int8, ``|weight| <= WEIGHT_LIMIT``; the last axis is the output channel."""
    multiplier: NDArray[Any]
    """``[channels]`` int64 in ``[0, 2**15)``."""
    multiplier_fraction: Any
    """Scalar int64: ``g``; a JAX scalar once on the device."""
    bias: NDArray[Any] | None
    """``[channels]`` int64, ``|bias| <= 2**24``, or None."""
    bias_fraction: Any
    """Scalar int64."""


def dyadic(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """``(m, e)`` in int64 with ``values == m * 2**e`` and ``2**23 <= |m| < 2**24``; ``(0, 0)`` for zero."""
    bits = np.ascontiguousarray(values, np.float32).view(np.int32).astype(np.int64)
    field, low = (bits >> 23) & 255, bits & ((1 << 23) - 1)
    # From the bit pattern alone: some libraries make the processor flush denormals to zero.
    whole = np.where(field > 0, low | (1 << 23), low)
    up = np.zeros_like(whole)
    denormal = (field == 0) & (whole != 0)
    up[denormal] = MANTISSA_BITS - bit_length(whole[denormal])
    exponent = np.where(whole == 0, 0, np.maximum(field, 1) - 150 - up)
    return np.where(bits < 0, -1, 1) * (whole << up), exponent


def largest_pattern(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """The pattern, int32, of the largest magnitude along ``axis`` of float32 values.

    Patterns are in the order of magnitudes; comparing floats would take denormals for zero where the
    processor flushes them.
    """
    return (np.ascontiguousarray(values, np.float32).view(np.int32) & _MAGNITUDE).max(axis=axis)


def round_ratio(numerator: NDArray[Any], denominator: NDArray[Any] | np.int64 | int) -> NDArray[Any]:
    """``floor(numerator / denominator + 1/2)`` in int64 for ``denominator > 0``."""
    return (2 * numerator + denominator) // (2 * denominator)


def scale_to(values: NDArray[Any], fraction: int | NDArray[Any]) -> NDArray[Any]:
    """``floor(values * 2**fraction + 1/2)`` in int64; the caller keeps results within ``2**38``."""
    mantissa, exponent = dyadic(values)
    shift = exponent + fraction
    left, right = np.clip(shift, 0, 14), np.clip(-shift, 0, 40)
    return ((mantissa << left) + ((np.int64(1) << right) >> 1)) >> right


def quantise_linear(kernel: NDArray[Any], bias: NDArray[Any] | None) -> Linear:
    """Integers of a dense or convolution layer.

    Each output channel ``c`` is scaled by its own ``a = max |kernel[..., c]|``: weights become
    ``round(127 * kernel / a)`` and the channel's multiplier ``round(a / 127 * 2**g)``, where ``g`` is the
    largest integer that keeps every multiplier of the layer below ``2**15``.

    Args:
        kernel: ``[..., channels]`` float32, finite. bias: ``[channels]`` float32, finite, or None.
    """
    flat = np.ascontiguousarray(kernel.reshape(-1, kernel.shape[-1]), np.float32)
    rows = max(1, _BLOCK // flat.shape[1])
    blocks = [slice(start, start + rows) for start in range(0, len(flat), rows)]
    largest = reduce(np.maximum, (largest_pattern(flat[block], axis=0) for block in blocks)).view(np.float32)
    weight = np.empty(flat.shape, np.int8)
    rounded = _divided if ((largest >= _PLAIN) | (largest.view(np.int32) == 0)).all() else _ratios
    for block in blocks:
        weight[block] = rounded(flat[block], largest)
    multiplier, fraction = _multipliers(*dyadic(largest))
    whole, bias_fraction = (None, np.int64(0)) if bias is None else quantise_vector(bias, MANTISSA_BITS)
    return Linear(weight.reshape(kernel.shape), multiplier, fraction, whole, bias_fraction)


def _ratios(weights: NDArray[Any], largest: NDArray[Any]) -> NDArray[Any]:
    """``floor(127 * weights / largest + 1/2)`` in integers; zero where ``largest`` is."""
    top, top_exponent = dyadic(largest)
    mantissa, exponent = dyadic(weights)
    # A weight below 2**-16 of its channel's largest rounds to zero: a clipped distance gives zero too.
    distance = np.clip(top_exponent - exponent, 0, 16)
    return round_ratio(WEIGHT_LIMIT * mantissa, np.maximum(top, 1) << distance)


def _divided(weights: NDArray[Any], largest: NDArray[Any]) -> NDArray[Any]:
    """``_ratios`` where each of ``largest`` is zero or at least ``_PLAIN``, in a fraction of the time.

    A product of 127 is exact in float64. A quotient that is not halfway between two whole numbers is at
    least ``2**-41`` away from that, ``|254 m - (2 k - 1) t 2**d| / (t 2**(d + 1))`` for mantissas below
    ``2**24`` and exponents ``d <= 16`` apart; beyond that all are below a quarter. One that is halfway
    comes out exact. So what float64 rounds, at most ``2**-46``, decides nothing.
    """
    quotient = weights.astype(np.float64)
    quotient *= WEIGHT_LIMIT
    quotient /= np.where(largest == 0, 1, largest.astype(np.float64))
    quotient += 0.5
    return np.floor(quotient, out=quotient)


def _multipliers(top: NDArray[Any], top_exponent: NDArray[Any]) -> tuple[NDArray[Any], np.int64]:
    """``round(a / 127 * 2**g)`` per channel for ``a = top * 2**top_exponent``, and ``g``."""
    if not top.any():
        return np.zeros_like(top), np.int64(0)
    highest = top_exponent[top > 0].max()
    largest = top[(top > 0) & (top_exponent == highest)].max()
    # largest / 127 lies just above [2**16, 2**17), so a right shift of 2 or 3 is the first that fits.
    shift = next(s for s in (2, 3) if round_ratio(largest, WEIGHT_LIMIT << s) < 2**MULTIPLIER_BITS)
    right = np.clip(shift + highest - top_exponent, 0, 30)
    return round_ratio(top, np.int64(WEIGHT_LIMIT) << right), np.int64(-shift - highest)


def quantise_vector(values: NDArray[Any], bits: int) -> tuple[NDArray[Any], np.int64]:
    """Values in the fraction in which the largest has ``bits`` bits, at most 24; a bias has all 24.

    With 24 bits the largest is exact.
    """
    mantissa, exponent = dyadic(values)
    if not mantissa.any():
        return mantissa, np.int64(FINEST)
    fraction = bits - MANTISSA_BITS - exponent[mantissa != 0].max()
    return scale_to(values, fraction), np.int64(fraction)


class Affine(NamedTuple):
    """A factor and a summand per channel: what is left of a batch norm once its statistics stand."""

    multiplier: NDArray[Any]
    """``[channels]`` int64, ``|multiplier| <= 2**23``."""
    multiplier_fraction: Any
    bias: NDArray[Any]
    """``[channels]`` int64, ``|bias| <= 2**24``."""
    bias_fraction: Any


_ROOT_BITS: Final = 96


def quantise_batch_norm(
    scale: NDArray[Any], bias: NDArray[Any], mean: NDArray[Any], var: NDArray[Any]
) -> Affine:
    """``a = scale / sqrt(max(var, 0) + 2**-17)`` and ``b = bias - mean * a`` per channel, each rounded once.

    The root is ``floor(sqrt(.) * 2**96)``; all else up to the rounding is exact.
    """
    factors, summands = [], []
    for s, b, m, v in zip(*(_fractions(part) for part in (scale, bias, mean, var)), strict=True):
        root = isqrt(int((max(v, Fraction(0)) + Fraction(1, 1 << EPSILON_BITS)) * (1 << 2 * _ROOT_BITS)))
        factor = s * (1 << _ROOT_BITS) / root
        factors.append(factor)
        summands.append(b - m * factor)
    return Affine(*_whole(factors, AFFINE_BITS), *_whole(summands, MANTISSA_BITS))


def _fractions(values: NDArray[Any]) -> list[Fraction]:
    mantissa, exponent = dyadic(values)
    return [
        Fraction(m << e) if e >= 0 else Fraction(m, 1 << -e)
        for m, e in zip(mantissa.tolist(), exponent.tolist(), strict=True)
    ]


def _whole(values: list[Fraction], bits: int) -> tuple[NDArray[Any], np.int64]:
    """``quantise_vector`` of rationals."""
    largest = max(abs(value) for value in values)
    if largest == 0:
        return np.zeros(len(values), np.int64), np.int64(FINEST)
    exponent = largest.numerator.bit_length() - largest.denominator.bit_length()
    exponent -= largest < Fraction(2) ** exponent
    fraction = bits - 1 - exponent
    scaled = [value * Fraction(2) ** fraction + Fraction(1, 2) for value in values]
    return np.array([value.numerator // value.denominator for value in scaled]), np.int64(fraction)


def quantise_mean(count: int) -> tuple[int, int]:
    """``(m, g)``: the factor ``1 / count`` as ``m * 2**-g``, with ``m`` rounded, in ``[2**14, 2**15]``."""
    fraction = (count - 1).bit_length() + MULTIPLIER_BITS - 1
    return (2 ** (fraction + 1) + count) // (2 * count), fraction


def quantise_inputs(x: NDArray[Any]) -> Activations:
    """Samples as activations.

    uint8 values are images: ``round(v / 255 * 4096)`` in fraction 12. int32 values are token ids, taken as
    they are. A float32 group (a sample, or a position of a sequence) takes the largest fraction in which
    each of its values fits.

    Args:
        x: ``[n, ...]`` uint8, int32 or finite float32.
    """
    if x.dtype == np.uint8:
        return Activations(_IMAGE_VALUES[x], np.full(groups_of(x.shape), IMAGE_FRACTION, np.int64))
    if x.dtype == np.int32:
        return Activations(x.astype(np.int64), np.zeros(groups_of(x.shape), np.int64))
    return quantise_groups(x, groups_of(x.shape))


def quantise_groups(x: NDArray[Any], groups: tuple[int, ...]) -> Activations:
    """Finite float32 values as activations, with a fraction for each of the leading axes ``groups``."""
    largest = largest_pattern(x.reshape(*groups, -1), axis=-1).view(np.float32)
    top, exponent = dyadic(largest)
    fraction = ACTIVATION_BITS - MANTISSA_BITS - exponent
    fraction = fraction - (scale_to(largest, fraction) > ACTIVATION_LIMIT)
    return Activations(scale_to(x, spread(fraction, x)), np.where(top == 0, FINEST, fraction))


_IMAGE_VALUES: Final = round_ratio(np.arange(256, dtype=np.int64) * IMAGE_LIMIT, np.int64(255))
