"""Exponential and logarithm in integers: tables made by exact arithmetic, their hashes pinned.

Guarantees: the tables are computed with whole numbers of 160 bits and rounded once, half up; a machine
on which they came out differently stops at import instead of scoring. Functions here take ``xp``, NumPy
or ``jax.numpy``, and use int64 operations only, so both give the same integers.

Source: docs/exact-1.md, "Softmax" and "Cross-entropy"; design section 7.
"""

from __future__ import annotations

import hashlib
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from offchain.evaluation.arithmetic import Activations, spread

DISTANCE_FRACTION: Final = 16
"""Distances from the largest logit, and losses, are counted in 2**-16."""
DISTANCE_LIMIT: Final = 1 << 30
"""Saturation of a distance: 16384 nats."""
POWER_FRACTION: Final = 30
PROBABILITY_FRACTION: Final = 14
_FINE_BITS: Final = 11
_COARSE_BITS: Final = 10
_LOG_BITS: Final = 12
_LOG_FRACTION: Final = 32
_GUARD: Final = 160


def _exp_negative(numerator: int, denominator_bits: int) -> int:
    """``exp(-numerator / 2**denominator_bits)`` times ``2**160``, for an argument of at most one."""
    total = term = 1 << _GUARD
    count, sign = 0, 1
    while term:
        count, sign = count + 1, -sign
        term = (term * numerator >> denominator_bits) // count
        total += sign * term
    return total


def _powers(step_numerator: int, step_bits: int, count: int) -> list[int]:
    """``exp(-i * step)`` for ``i < count`` at ``2**30``, half up."""
    base, value, table = _exp_negative(step_numerator, step_bits), 1 << _GUARD, []
    for _ in range(count):
        table.append((value + (1 << (_GUARD - POWER_FRACTION - 1))) >> (_GUARD - POWER_FRACTION))
        value = value * base >> _GUARD
    return table


def _logarithms() -> list[int]:
    """``ln(1 + i / 4096)`` for ``i <= 4096`` at ``2**32``, half up; the last entry is ``ln 2``.

    Successive differences are ``ln((d + 1) / (d - 1)) = 2 (1/d + 1/(3 d^3) + ...)`` with ``d = 8193 + 2 i``.
    """
    value, table = 0, []
    for index in range((1 << _LOG_BITS) + 1):
        table.append((value + (1 << (_GUARD - _LOG_FRACTION - 1))) >> (_GUARD - _LOG_FRACTION))
        d = 2 * ((1 << _LOG_BITS) + index) + 1
        power, odd = (2 << _GUARD) // d, 1
        while power:
            value += power // odd
            power, odd = power // (d * d), odd + 2
    return table


def pinned(name: str, values: list[int], digest: str) -> NDArray[Any]:
    """The table as int64, once the SHA-256 of its big-endian bytes is the agreed one.

    Raises:
        RuntimeError: it is not; this machine must not score.
    """
    table = np.array(values, dtype=">i8")
    found = hashlib.sha256(table.tobytes()).hexdigest()
    if found != digest:
        raise RuntimeError(
            f"the {name} table of exact-1 came out wrong here ({found}): do not score on this machine"
        )
    return table.astype(np.int64)


_COARSE = pinned(
    "coarse exponential",
    _powers(1, 5, 1 << _COARSE_BITS),
    "adf2c4b91cb07ea178ca63159c8d15879baa1e3a5076f908daa5fc976346cc3c",
)
_FINE = pinned(
    "fine exponential",
    _powers(1, 16, 1 << _FINE_BITS),
    "115aa6ab56ac61f67fba006957afac76e023175073c9f15a8ea18afd730c6ecc",
)
_LOG = pinned("logarithm", _logarithms(), "8bd3636d662c118148b58600ebba49a09989c07cc3d2f731a47d7e2276bd2f02")


def distances(q: Any, fraction: Any, xp: ModuleType) -> Any:
    """How far each value lies below its row's largest, in ``2**-16``, saturated at ``DISTANCE_LIMIT``.

    Args:
        q: ``[n, ..., classes]`` int64. fraction: one per group, int64.
    """
    below = q.max(axis=-1, keepdims=True) - q
    shift = spread(DISTANCE_FRACTION - fraction, q)
    right = xp.clip(-shift, 0, 62)
    half = xp.left_shift(xp.ones_like(right), right) >> 1
    return xp.minimum(((below << xp.clip(shift, 0, 40)) + half) >> right, DISTANCE_LIMIT)


def power(distance: Any, xp: ModuleType) -> Any:
    """``exp(-distance / 2**16)`` at ``2**30``; zero from 32 on."""
    inside = distance < 1 << (_COARSE_BITS + _FINE_BITS)
    index = xp.where(inside, distance, 0)
    coarse = xp.asarray(_COARSE)[index >> _FINE_BITS]
    fine = xp.asarray(_FINE)[index & ((1 << _FINE_BITS) - 1)]
    product = (coarse * fine + (1 << (POWER_FRACTION - 1))) >> POWER_FRACTION
    return xp.where(inside, product, 0)


def exponentials(x: Activations) -> NDArray[Any]:
    """``exp(x - max x)`` over the last axis at ``2**30``, int64."""
    return power(distances(x.q, x.fraction, np), np)


def logarithm(total: NDArray[Any]) -> NDArray[Any]:
    """``ln(total / 2**30)`` in ``2**-16``, for int64 ``2**30 <= total < 2**62``: table and straight line."""
    exponent = np.zeros_like(total)
    for bits in (32, 16, 8, 4, 2, 1):
        big = total >> exponent >> bits > 0
        exponent = exponent + np.where(big, bits, 0)
    mantissa = (total << (62 - exponent)) - (np.int64(1) << 62)
    index = mantissa >> (62 - _LOG_BITS)
    rest = (mantissa >> (62 - _LOG_BITS - 20)) & ((1 << 20) - 1)
    line = ((_LOG[index + 1] - _LOG[index]) * rest + (1 << 19)) >> 20
    natural = (exponent - POWER_FRACTION) * _LOG[-1] + _LOG[index] + line
    drop = _LOG_FRACTION - DISTANCE_FRACTION
    return (natural + (1 << (drop - 1))) >> drop
