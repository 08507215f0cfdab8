"""Float32 to integers, exactly: how ``exact-1`` reads parameters and samples.

A float32 is a dyadic rational ``m * 2**e``; everything here computes with those integers, so no
rounding of the platform's floating point can enter. Guarantees: any finite parameters, from denormals
to 3e38, have one reading; the same on every machine.

Source: docs/exact-1.md, "Parameters" and "Inputs"; PoT section 2.5 "Validation Definiteness".
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offchain.evaluation.arithmetic import ACTIVATION_BITS, ACTIVATION_LIMIT, FINEST, Activations, bit_length

WEIGHT_BITS: Final = 8
WEIGHT_LIMIT: Final = 2 ** (WEIGHT_BITS - 1) - 1
MULTIPLIER_BITS: Final = 15
MANTISSA_BITS: Final = 24
IMAGE_FRACTION: Final = 12
"""uint8 images are read in 4096ths: fine against 255 steps, and first layers then need one limb."""
IMAGE_LIMIT: Final = 2**IMAGE_FRACTION
_BLOCK: Final = 1 << 20
"""Weights quantised at once: bounds the temporaries, whatever the kernel's size."""


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
    flat = kernel.reshape(-1, kernel.shape[-1])
    top, top_exponent = dyadic(np.maximum(flat.max(axis=0), -flat.min(axis=0)))
    weight = np.empty(flat.shape, np.int8)
    rows = max(1, _BLOCK // flat.shape[1])
    for start in range(0, len(flat), rows):
        mantissa, exponent = dyadic(flat[start : start + rows])
        # A weight below 2**-16 of its channel's largest rounds to zero: a clipped distance gives zero too.
        distance = np.clip(top_exponent - exponent, 0, 16)
        weight[start : start + rows] = round_ratio(WEIGHT_LIMIT * mantissa, np.maximum(top, 1) << distance)
    multiplier, fraction = _multipliers(top, top_exponent)
    whole, bias_fraction = (None, np.int64(0)) if bias is None else _bias(bias)
    return Linear(weight.reshape(kernel.shape), multiplier, fraction, whole, bias_fraction)


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


def _bias(bias: NDArray[Any]) -> tuple[NDArray[Any], np.int64]:
    """The bias in the fraction in which its largest entry is a 24-bit integer, exactly."""
    mantissa, exponent = dyadic(bias)
    if not mantissa.any():
        return mantissa, np.int64(FINEST)
    fraction = -exponent[mantissa != 0].max()
    return scale_to(bias, fraction), np.int64(fraction)


def quantise_mean(count: int) -> tuple[int, int]:
    """``(m, g)``: the factor ``1 / count`` as ``m * 2**-g``, with ``m`` rounded, in ``[2**14, 2**15]``."""
    fraction = (count - 1).bit_length() + MULTIPLIER_BITS - 1
    return (2 ** (fraction + 1) + count) // (2 * count), fraction


def quantise_inputs(x: NDArray[Any]) -> Activations:
    """Samples as activations.

    uint8 values are images: ``round(v / 255 * 4096)`` in fraction 12. A float32 sample takes the largest
    fraction in which each of its values fits.

    Args:
        x: ``[n, ...]`` uint8 or finite float32.
    """
    if x.dtype == np.uint8:
        return Activations(_IMAGE_VALUES[x], np.full(len(x), IMAGE_FRACTION, np.int64))
    largest = np.abs(x).reshape(len(x), -1).max(axis=1)
    top, exponent = dyadic(largest)
    fraction = ACTIVATION_BITS - MANTISSA_BITS - exponent
    fraction = fraction - (scale_to(largest, fraction) > ACTIVATION_LIMIT)
    shaped = fraction.reshape((-1,) + (1,) * (x.ndim - 1))
    return Activations(scale_to(x, shaped), np.where(top == 0, FINEST, fraction))


_IMAGE_VALUES: Final = round_ratio(np.arange(256, dtype=np.int64) * IMAGE_LIMIT, np.int64(255))
