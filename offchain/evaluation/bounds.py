"""Proof, before anything runs, that every partial sum of a contraction fits its container.

An integer sum has one value whatever the order of its terms, provided no partial sum leaves the
container. For a sum of ``w[k] * q[k]`` any partial sum, of any subset in any order, is at most
``sum |w[k]| * max |q|``. Guarantees: the ``Contraction`` returned is safe by that bound, either from the
shape alone (``|w| <= 127``) or from the weights themselves; when no plan is safe, ``UnprovenBound``.

    container   exact up to   used for
    float32     2**24         one 8-bit limb of the activations times the weights; whole activations
                              where the fan-in is small
    float64     2**53         limbs put together, times the multiplier, plus the bias
    int64       2**63         the same where the fan-in is beyond 2**15

Source: design section 7; docs/exact-1.md, "Why every sum is exact".
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, HEADROOM_BITS
from offchain.evaluation.quantise import MANTISSA_BITS, MULTIPLIER_BITS, WEIGHT_LIMIT
from protocol.errors import ProtocolError

FLOAT32_EXACT: Final = 2**24
INT32_EXACT: Final = 2**31 - 1
FLOAT64_EXACT: Final = 2**52
"""One bit below float64's reach, which rounding half up needs."""
INT64_EXACT: Final = 2**60
"""``round_shift`` asks for it."""
LIMB_LIMIT: Final = 128


class UnprovenBound(ProtocolError):
    """A layer for which no container is proved wide enough; ``Architecture`` admits none such."""


class Contraction(NamedTuple):
    """How to compute one contraction: static, so that one compiled program serves many parameters."""

    limbs: Literal[1, 2]
    """1: whole activations in float32. 2: their two balanced 8-bit limbs in float32."""
    parts: int
    """Into how many slices the summed axis is cut, each summed in float32."""
    wide: Literal["float64", "int64"]
    """Container of everything after float32."""


def largest_row(weight: NDArray[Any], parts: int = 1) -> int:
    """``max over channels of sum |weight|``, over any one of ``parts`` slices of the last input axis."""
    slices = np.array_split(weight, parts, axis=-2)
    axes = tuple(range(weight.ndim - 1))
    return max(int(np.abs(piece, dtype=np.int32).sum(axis=axes, dtype=np.int64).max()) for piece in slices)


def plan_contraction(weight: NDArray[Any], input_limit: int) -> Contraction:
    """A safe way to compute ``weight`` against activations of magnitude at most ``input_limit``.

    Args:
        weight: ``[..., inputs, channels]``, ``|weight| <= 127``.

    Raises:
        UnprovenBound: none is safe.
    """
    fan_in = int(np.prod(weight.shape[:-1]))
    wide = plan_wide(fan_in * WEIGHT_LIMIT * input_limit)
    if fan_in * WEIGHT_LIMIT * input_limit <= FLOAT32_EXACT:
        return Contraction(1, 1, wide)
    if fan_in * WEIGHT_LIMIT * LIMB_LIMIT <= FLOAT32_EXACT:
        return Contraction(2, 1, wide)
    # Beyond that the shape alone proves nothing; the weights at hand usually do, if need be in slices.
    parts = 1
    while largest_row(weight, parts) * LIMB_LIMIT > FLOAT32_EXACT:
        if parts == weight.shape[-2]:
            raise UnprovenBound(f"sums over {fan_in} terms do not fit: use a smaller kernel")
        parts = min(2 * parts, weight.shape[-2])
    return Contraction(2, parts, wide)


def plan_wide(sum_limit: int) -> Literal["float64", "int64"]:
    """Container in which a sum of that magnitude can be multiplied, biased and rounded.

    Raises:
        UnprovenBound: not even int64.
    """
    total = (sum_limit << MULTIPLIER_BITS) + (1 << (MANTISSA_BITS + HEADROOM_BITS))
    if total < FLOAT64_EXACT:
        return "float64"
    if total < INT64_EXACT:
        return "int64"
    raise UnprovenBound(f"a sum of magnitude {sum_limit} leaves no room for its multiplier")


def plan_add() -> Literal["float64"]:
    """Two activations refined by the headroom: 2 * 32639 * 2**24 < 2**41."""
    assert 2 * ACTIVATION_LIMIT << HEADROOM_BITS < FLOAT64_EXACT
    return "float64"
