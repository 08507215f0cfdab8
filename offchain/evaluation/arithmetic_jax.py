"""The arithmetic of ``exact-1`` in JAX: equal to ``arithmetic.py`` bit for bit, and fast.

Activations are float32 arrays that hold integers below 2**15, so that contractions run on the fast
float32 units. Everything wider is float64 holding integers below 2**52, where a shift is a product by a
power of two and half-up rounding a floor, both exact; or int64 where ``bounds.py`` says that float64
does not reach. Guarantees: no operation here rounds except where the definition does.

Must be traced inside ``x64()``, which widens this thread's JAX types and nobody else's: training in the
same process stays in float32.

Source: docs/exact-1.md, "Why every sum is exact"; design section 7.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from offchain.evaluation.arithmetic import (
    ACTIVATION_BITS,
    ACTIVATION_LIMIT,
    FINEST,
    HEADROOM_BITS,
    spread,
)

_MAX_SHIFT = 62
_LEADING_LIMIT = 2 * ACTIVATION_LIMIT
"""Up to here 16 leading bits round to 15 that are an activation."""


class Traced(NamedTuple):
    """``Activations`` on the device."""

    q: jax.Array
    """``[n, ...]`` float32 holding integers."""
    fraction: jax.Array
    """``[n]`` int32, or ``[n, positions]`` for a sequence."""


def x64() -> AbstractContextManager[Any]:
    """64-bit types for this thread, for as long as the context lasts; any JAX from 0.7 on."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64

    return enable_x64()


def power_of_two(exponent: jax.Array, dtype: Any = jnp.float64) -> jax.Array:
    """``2.0**exponent``, exactly, from its bit pattern: for ``|exponent| <= 1000``, in float32 for 120."""
    if dtype == jnp.float32:
        return jax.lax.bitcast_convert_type((exponent.astype(jnp.int32) + 127) << 23, jnp.float32)
    return jax.lax.bitcast_convert_type((exponent.astype(jnp.int64) + 1023) << 52, jnp.float64)


def round_shift(values: jax.Array, shift: jax.Array) -> jax.Array:
    """``floor(values / 2**shift + 1/2)`` for ``shift >= 0``, in the container of ``values``.

    In float32 for ``|values| <= 2**23``: then the half that is added is no finer than what float32 holds
    wherever it decides.
    """
    shift = jnp.minimum(shift, _MAX_SHIFT)
    if values.dtype == jnp.int64:
        shift = shift.astype(jnp.int64)
        return (values + ((jnp.int64(1) << shift) >> 1)) >> shift
    return jnp.floor(values * power_of_two(-shift, values.dtype) + 0.5)


def align(values: jax.Array, have: jax.Array, want: jax.Array) -> jax.Array:
    """``values`` of fraction ``have`` in the fraction ``want``; the caller bounds ``want - have``."""
    if values.dtype == jnp.int64:
        left = jnp.clip(want - have, 0, _MAX_SHIFT).astype(jnp.int64)
        return round_shift(values << left, jnp.maximum(have - want, 0))
    # One factor for either direction: what is shifted to the left stays whole when a half is added.
    shift = jnp.clip(want - have, -_MAX_SHIFT, _MAX_SHIFT)
    return jnp.floor(values * power_of_two(shift, values.dtype) + 0.5)


def align_saturating(values: jax.Array, have: jax.Array, want: Any, bits: int) -> jax.Array:
    """``values`` of fraction ``have`` in the fraction ``want``, saturated at ``2**bits``, in float64."""
    if values.dtype == jnp.int64:
        left = jnp.clip(want - have, 0, bits).astype(jnp.int64)
        limit = jnp.int64(1) << (bits - left)
        shifted = jnp.clip(values, -limit, limit) << left
        aligned = round_shift(jnp.where(have > want, values, shifted), jnp.maximum(have - want, 0))
        return jnp.clip(aligned, -(1 << bits), 1 << bits).astype(jnp.float64)
    # float64 overflows into nothing: 2**52 times 2**62 is exact, and so is a shift right.
    factor = power_of_two(jnp.clip(want - have, -_MAX_SHIFT, _MAX_SHIFT))
    limit = float(1 << bits)
    return jnp.clip(jnp.floor(values.astype(jnp.float64) * factor + 0.5), -limit, limit)


def square_root(values: jax.Array) -> jax.Array:
    """``floor(sqrt(values))`` for float64 integers below ``2**52``; see ``arithmetic.square_root``."""
    # A device's root may be off by one unit; squares are exact everywhere and decide.
    root = jnp.floor(jnp.sqrt(values))
    root = root - (root * root > values)
    return root + ((root + 1) * (root + 1) <= values)


def normalise(values: jax.Array, fraction: jax.Array) -> Traced:
    """Accumulators to activations: per group the smallest right shift after which every one fits."""
    exponent, leading = _largest(values, tuple(range(fraction.ndim, values.ndim)))
    # Rounded to 15 bits, the largest may pass the limit; the 16 bits that it begins with decide.
    over = (exponent >= ACTIVATION_BITS - 1) & (leading > _LEADING_LIMIT)
    shift = jnp.maximum(exponent + 1 - ACTIVATION_BITS, 0) + over.astype(jnp.int32)
    q = round_shift(values, spread(shift, values)).astype(jnp.float32)
    return Traced(q, jnp.where(exponent < 0, jnp.int32(FINEST), fraction - shift))


def _largest(values: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Of the largest magnitude over the axes: its exponent (negative for zero), and its first 16 bits.

    Of floats, it is the largest of their bit patterns: whole numbers, whose maximum a processor takes
    several at a time; a maximum of floats it takes one by one, since some might be NaN.
    """
    if values.dtype == jnp.int64:
        largest = jnp.max(jnp.abs(values), axis=axes)
        exponent = 63 - jax.lax.clz(largest).astype(jnp.int32)
        return exponent, ((largest << (62 - jnp.maximum(exponent, 0))) >> 47).astype(jnp.int32)
    if values.dtype == jnp.float32:
        pattern, bias, mantissa = jax.lax.bitcast_convert_type(values, jnp.int32), 127, 23
    else:
        # The upper half is enough: sign, exponent and 20 bits.
        pattern = (jax.lax.bitcast_convert_type(values, jnp.int64) >> 32).astype(jnp.int32)
        bias, mantissa = 1023, 20
    top = jnp.max(pattern & 0x7FFFFFFF, axis=axes)
    leading = (1 << 15) | ((top >> (mantissa - 15)) & 0x7FFF)
    return (top >> mantissa) - bias, leading


def accumulate(
    products: jax.Array, fraction: jax.Array, bias: jax.Array | None, bias_fraction: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Scaled sums plus bias, and their fraction; see ``arithmetic.accumulate``."""
    if bias is None:
        return products, fraction
    common = jnp.minimum(fraction, bias_fraction + HEADROOM_BITS)
    dropped = spread(fraction - common, products)
    added = align(bias.astype(products.dtype), bias_fraction, spread(common, products))
    return round_shift(products, dropped) + added, common


def add(a: Traced, b: Traced) -> Traced:
    """The sum of two activations of one shape; see ``arithmetic.add``."""
    fine, coarse = jnp.maximum(a.fraction, b.fraction), jnp.minimum(a.fraction, b.fraction)
    common = jnp.minimum(fine, coarse + HEADROOM_BITS)
    want = spread(common, a.q)
    wide = [align(t.q.astype(jnp.float64), spread(t.fraction, t.q), want) for t in (a, b)]
    return normalise(wide[0] + wide[1], common)


def join(x: Traced, axes: int) -> Traced:
    """Groups joined into one; see ``arithmetic.join``."""
    rows = x.fraction.reshape(*x.fraction.shape[:axes], -1)
    common = jnp.minimum(rows.max(axis=-1), rows.min(axis=-1) + HEADROOM_BITS)
    wide = align(x.q.astype(jnp.float64), spread(x.fraction, x.q), spread(common, x.q))
    return normalise(wide, common)


def limbs(q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``q == 256 * high + low`` with ``-128 <= low <= 127`` and ``|high| <= 127``; all float32."""
    high = jnp.floor(q * (1 / 256) + 0.5)
    return high, q - 256 * high
