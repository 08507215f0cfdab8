"""Pooling: the largest or the mean of a window, of a whole image or sequence; the end of a sequence.

Guarantees: a maximum is exact in any container; a mean is an exact integer sum times the rounded factor
``1 / count``, brought back to 16 bits like any contraction, so that it keeps the bits that the sum gained.

Source: docs/exact-1.md, "Pooling"; design section 7.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from numpy.typing import NDArray

from offchain.evaluation import arithmetic, arithmetic_jax
from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, Activations
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import FLOAT32_EXACT, Way, plan_wide
from offchain.evaluation.quantise import quantise_mean
from offchain.models.layers.kind import LayerKind, Module
from offchain.models.layers.linear import padding_of
from protocol.architecture import AvgPool, GlobalAvgPool, Last, MaxPool, Shape

MeanPlan = tuple[Literal["float32", "float64", "int64"], Literal["float64", "int64"]]
"""Containers of the sum and of the sum times its factor."""


def _windows(x: NDArray[Any], layer: MaxPool | AvgPool, fill: int) -> NDArray[Any]:
    """``[n, rows, columns, channels, height * width]``: the values of each window."""
    (height, width), (down, right) = layer.window, layer.strides
    borders = (
        padding_of(x.shape[1], height, down, layer.padding),
        padding_of(x.shape[2], width, right, layer.padding),
    )
    padded = np.pad(x, ((0, 0), *borders, (0, 0)), constant_values=fill)
    # NumPy 1's stubs know one axis only.
    views: NDArray[Any] = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (1, 2))  # type: ignore
    kept = views[:, ::down, ::right]
    return kept.reshape(*kept.shape[:-2], height * width)


def _reduce(x: jax.Array, layer: MaxPool | AvgPool, fill: Any, operation: Any) -> jax.Array:
    window, strides = (1, *layer.window, 1), (1, *layer.strides, 1)
    return jax.lax.reduce_window(x, jnp.asarray(fill, x.dtype), operation, window, strides, layer.padding)


def _in_tiles(layer: MaxPool, shape: Shape) -> bool:
    """Whether the windows neither overlap nor reach over a border."""
    whole = all(size % window == 0 for size, window in zip(shape[1:3], layer.window, strict=True))
    return layer.window == layer.strides and (layer.padding == "VALID" or whole)


def _tiles(x: jax.Array, window: tuple[int, int]) -> jax.Array:
    """``[n, rows, height, columns, width, channels]``; what fills no window is left out.

    The gradient of a maximum over such an axis is a comparison. That of a sliding window is a scatter, which
    XLA's CPU backend runs ten times slower, and which keeps it from fusing its surroundings.
    """
    count, height, width, channels = x.shape
    rows, columns = height // window[0], width // window[1]
    kept = x[:, : rows * window[0], : columns * window[1]]
    return kept.reshape(count, rows, window[0], columns, window[1], channels)


def _plan_mean(count: int, limit: int) -> MeanPlan:
    wide = plan_wide(count * limit)
    return ("float32" if count * limit <= FLOAT32_EXACT else wide), wide


def _mean(sums: NDArray[Any], count: int, fraction: NDArray[Any]) -> Activations:
    multiplier, multiplier_fraction = quantise_mean(count)
    return arithmetic.normalise(sums * multiplier, fraction + multiplier_fraction)


def _mean_traced(sums: jax.Array, count: int, fraction: jax.Array, plan: MeanPlan) -> Traced:
    multiplier, multiplier_fraction = quantise_mean(count)
    return arithmetic_jax.normalise(sums.astype(plan[1]) * multiplier, fraction + multiplier_fraction)


class MaxPoolKind(LayerKind[MaxPool]):
    """Largest value of each window; padding never wins."""

    schema = MaxPool
    light = True

    def module(self, layer: MaxPool, name: str, training: bool) -> Module:
        def pool(x: jax.Array) -> jax.Array:
            if _in_tiles(layer, x.shape):
                return _tiles(x, layer.window).max((2, 4))
            return linen.max_pool(x, layer.window, layer.strides, layer.padding)

        return pool

    def specification(self, layer: MaxPool, prepared: Any, *inputs: Activations) -> Activations:
        (x,) = inputs
        return Activations(_windows(x.q, layer, -ACTIVATION_LIMIT - 1).max(axis=-1), x.fraction)

    def exact(self, layer: MaxPool, prepared: Any, plan: Any, *inputs: Traced) -> Traced:
        (x,) = inputs
        return Traced(_reduce(x.q, layer, -ACTIVATION_LIMIT - 1, jax.lax.max), x.fraction)


class AvgPoolKind(LayerKind[AvgPool]):
    """Sum of each window over the window's area."""

    schema = AvgPool

    def plan(self, layer: AvgPool, shape: Shape, limit: int, prepared: Any, way: Way) -> tuple[MeanPlan, int]:
        return _plan_mean(math.prod(layer.window), limit), ACTIVATION_LIMIT

    def module(self, layer: AvgPool, name: str, training: bool) -> Module:
        return lambda x: linen.avg_pool(x, layer.window, layer.strides, layer.padding)

    def specification(self, layer: AvgPool, prepared: Any, *inputs: Activations) -> Activations:
        (x,) = inputs
        return _mean(_windows(x.q, layer, 0).sum(axis=-1), math.prod(layer.window), x.fraction)

    def exact(self, layer: AvgPool, prepared: Any, plan: MeanPlan, *inputs: Traced) -> Traced:
        (x,) = inputs
        sums = _reduce(x.q.astype(plan[0]), layer, 0, jax.lax.add)
        return _mean_traced(sums, math.prod(layer.window), x.fraction, plan)


class GlobalAvgPoolKind(LayerKind[GlobalAvgPool]):
    """Mean over height and width, or over positions, whose fractions are then joined first."""

    schema = GlobalAvgPool

    def plan(
        self, layer: GlobalAvgPool, shape: Shape, limit: int, prepared: Any, way: Way
    ) -> tuple[MeanPlan, int]:
        # Joining the positions of a sequence may bring any integer up to the limit.
        reached = ACTIVATION_LIMIT if len(shape) == 2 else limit
        return _plan_mean(math.prod(shape[:-1]), reached), ACTIVATION_LIMIT

    def module(self, layer: GlobalAvgPool, name: str, training: bool) -> Module:
        return lambda x: jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))

    def specification(self, layer: GlobalAvgPool, prepared: Any, *inputs: Activations) -> Activations:
        (x,) = inputs
        x = arithmetic.join(x, 1) if x.fraction.ndim > 1 else x
        places = x.q.shape[1:-1]
        return _mean(x.q.sum(axis=tuple(range(1, x.q.ndim - 1))), math.prod(places), x.fraction)

    def exact(self, layer: GlobalAvgPool, prepared: Any, plan: MeanPlan, *inputs: Traced) -> Traced:
        (x,) = inputs
        x = arithmetic_jax.join(x, 1) if x.fraction.ndim > 1 else x
        sums = x.q.astype(plan[0]).sum(axis=tuple(range(1, x.q.ndim - 1)))
        return _mean_traced(sums, math.prod(x.q.shape[1:-1]), x.fraction, plan)


class LastKind(LayerKind[Last]):
    """The last position of a sequence."""

    schema = Last
    copies_kept = 0
    light = True

    def module(self, layer: Last, name: str, training: bool) -> Module:
        return lambda x: x[:, -1]

    def specification(self, layer: Last, prepared: Any, *inputs: Activations) -> Activations:
        (x,) = inputs
        return Activations(x.q[:, -1], x.fraction[:, -1])

    def exact(self, layer: Last, prepared: Any, plan: Any, *inputs: Traced) -> Traced:
        (x,) = inputs
        return Traced(x.q[:, -1], x.fraction[:, -1])
