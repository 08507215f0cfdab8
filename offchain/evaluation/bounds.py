"""Proof, before anything runs, that every partial sum of a contraction fits its container.

An integer sum has one value whatever the order of its terms, provided no partial sum leaves the
container. For a sum of ``w[k] * q[k]`` any partial sum, of any subset in any order, is at most
``sum |w[k]| * max |q|``. Guarantees: the ``Contraction`` returned is safe by that bound, either from the
shape alone (``|w| <= 127``) or from the weights themselves; when no plan is safe, ``UnprovenBound``.

    container   operands, sums      exact up to   sums of
    float32     float32, float32    2**24         8-bit limbs of the activations times the weights; whole
                                                  activations where the fan-in is small
    int8        int8, int32         2**31 - 1     the same limbs, on tensor cores and TPUs
    float64     float64, float64    2**52         whole activations times the weights
    int64       int64, int64        2**60         the same, as the specification has it

What is wider than these sums (limbs put together, times the multiplier, plus the bias) is float64, or
int64 where the fan-in is beyond 2**15. Which container is used is a question of time alone
(``containers.py``).

Source: design section 7; docs/exact-1.md, "Why every sum is exact".
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offchain.evaluation.arithmetic import ACTIVATION_BITS, ACTIVATION_LIMIT, HEADROOM_BITS
from offchain.evaluation.quantise import MANTISSA_BITS, MULTIPLIER_BITS, WEIGHT_LIMIT
from protocol.errors import ProtocolError

Container = Literal["float32", "float64", "int8", "int64"]
"""In what the terms of a sum are held, and (int8: in int32) added up."""

FLOAT32_EXACT: Final = 2**24
INT32_EXACT: Final = 2**31 - 1
FLOAT64_EXACT: Final = 2**52
"""One bit below float64's reach, which rounding half up needs."""
INT64_EXACT: Final = 2**60
"""``round_shift`` asks for it."""
LIMB_LIMIT: Final = 128
REACH: Final[dict[Container, int]] = {
    "float32": FLOAT32_EXACT,
    "float64": FLOAT64_EXACT,
    "int8": INT32_EXACT,
    "int64": INT64_EXACT,
}
"""How large a partial sum may be in each."""
IN_LIMBS: Final = frozenset({"float32", "int8"})
"""Containers that take activations as two 8-bit limbs; the others take them whole."""


class UnprovenBound(ProtocolError):
    """A layer for which no container is proved wide enough; ``Architecture`` admits none such."""


class Way(NamedTuple):
    """In which containers a model is to be computed, wherever they are proved."""

    weights: Container
    """Sums of activations times weights."""
    products: Container
    """Sums of activations times activations (attention)."""


USUAL: Final = Way("float32", "float64")
"""What a CPU does fastest: two float32 products of limbs beat one of float64, but four do not."""


class Contraction(NamedTuple):
    """How to compute one contraction: static, so that one compiled program serves many parameters."""

    container: Container
    limbs: Literal[1, 2]
    """1: whole activations. 2: their two balanced 8-bit limbs."""
    parts: int
    """Into how many slices the summed axis is cut, each summed by itself."""
    wide: Literal["float64", "int64"]
    """Container of everything after that."""


def largest_row(weight: NDArray[Any], parts: int = 1) -> int:
    """``max over channels of sum |weight|``, over any one of ``parts`` slices of the last input axis."""
    slices = np.array_split(weight, parts, axis=-2)
    axes = tuple(range(weight.ndim - 1))
    return max(int(np.abs(piece, dtype=np.int32).sum(axis=axes, dtype=np.int64).max()) for piece in slices)


def plan_contraction(weight: NDArray[Any], input_limit: int, container: Container = "float32") -> Contraction:
    """A safe way to compute ``weight`` against activations of magnitude at most ``input_limit``.

    Args:
        weight: ``[..., inputs, channels]``, ``|weight| <= 127``. container: the one to use if it is proved
            wide enough; else it is float64, which holds whole activations against any kernel there is.

    Raises:
        UnprovenBound: none is safe.
    """
    largest = int(np.prod(weight.shape[:-1])) * WEIGHT_LIMIT
    wide: Literal["float64", "int64"] = "int64" if container == "int64" else plan_wide(largest * input_limit)
    if container in IN_LIMBS:
        whole = container == "float32" or input_limit < LIMB_LIMIT
        if whole and largest * input_limit <= REACH[container]:
            return Contraction(container, 1, 1, wide)
        parts = _parts(weight, largest, REACH[container])
        if parts is not None:
            return Contraction(container, 2, parts, wide)
        container = "float64"
    if largest * input_limit > REACH[container]:
        raise UnprovenBound(f"sums of magnitude {largest * input_limit} do not fit: use a smaller kernel")
    return Contraction(container, 1, 1, wide)


def _parts(weight: NDArray[Any], largest: int, reach: int) -> int | None:
    """In how many slices sums of limbs stay within ``reach``; None if it takes more than there are inputs."""
    if largest * LIMB_LIMIT <= reach:
        return 1
    # Beyond that the shape alone proves nothing; the weights at hand usually do, if need be in slices.
    parts = 1
    while largest_row(weight, parts) * LIMB_LIMIT > reach:
        if parts == weight.shape[-2]:
            return None
        parts = min(2 * parts, weight.shape[-2])
    return parts


def plan_product(terms: int, container: Container) -> Container:
    """A safe container for sums of that many products of two activations: the one named, or float64.

    In limbs, each is the sum of products of two limbs, of at most ``2**14`` each.

    Raises:
        UnprovenBound: none is safe.
    """
    if container in IN_LIMBS and terms * LIMB_LIMIT * LIMB_LIMIT <= REACH[container]:
        return container
    whole: Container = "int64" if container == "int64" else "float64"
    if terms << (2 * ACTIVATION_BITS) > REACH[whole]:
        raise UnprovenBound(f"sums of {terms} products do not fit")
    return whole


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
