"""Layers that take values one by one: flatten, add, dropout, relu, leaky relu, softmax.

Guarantees: flatten of an image, dropout and relu change no integer but by their meaning; add and flatten
of a sequence align their terms and round once more; softmax is built from pinned tables and one integer
division.

Source: docs/exact-1.md, "Flatten, relu, add" and "Softmax"; design section 7.
"""

from __future__ import annotations

from typing import Any, Final

import jax.numpy as jnp
import numpy as np
from flax import linen

from offchain.evaluation import arithmetic, arithmetic_jax, tables
from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, Activations
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import FLOAT64_EXACT, Way, plan_add
from offchain.models.layers.kind import LayerKind, Module
from protocol.architecture import Add, Dropout, Flatten, LeakyRelu, Relu, Shape, Softmax


class FlattenKind(LayerKind[Flatten]):
    """Any shape to a vector, last axis fastest."""

    schema = Flatten
    copies_kept = 0
    light = True

    def module(self, layer: Flatten, name: str, training: bool) -> Module:
        return lambda x: x.reshape(len(x), -1)

    def specification(self, layer: Flatten, prepared: Any, *inputs: Activations) -> Activations:
        (x,) = inputs
        x = arithmetic.join(x, 1) if x.fraction.ndim > 1 else x
        return Activations(x.q.reshape(len(x.q), -1), x.fraction)

    def exact(self, layer: Flatten, prepared: Any, plan: Any, *inputs: Traced) -> Traced:
        (x,) = inputs
        x = arithmetic_jax.join(x, 1) if x.fraction.ndim > 1 else x
        return Traced(x.q.reshape(len(x.q), -1), x.fraction)


class ReluKind(LayerKind[Relu]):
    """``max(x, 0)``."""

    schema = Relu
    copies_kept = 0
    light = True

    def module(self, layer: Relu, name: str, training: bool) -> Module:
        return linen.relu

    def specification(self, layer: Relu, prepared: Any, *inputs: Activations) -> Activations:
        (x,) = inputs
        return Activations(np.maximum(x.q, 0), x.fraction)

    def exact(self, layer: Relu, prepared: Any, plan: Any, *inputs: Traced) -> Traced:
        (x,) = inputs
        return Traced(jnp.maximum(x.q, 0), x.fraction)


class AddKind(LayerKind[Add]):
    """The sum of two outputs."""

    schema = Add
    copies_kept = 0

    def plan(self, layer: Add, shape: Shape, limit: int, prepared: Any, way: Way) -> tuple[str, int]:
        return plan_add(), ACTIVATION_LIMIT

    def module(self, layer: Add, name: str, training: bool) -> Module:
        return lambda x, other: x + other

    def specification(self, layer: Add, prepared: Any, *inputs: Activations) -> Activations:
        return arithmetic.add(*inputs)

    def exact(self, layer: Add, prepared: Any, plan: Any, *inputs: Traced) -> Traced:
        return arithmetic_jax.add(*inputs)


_SLOPE_BITS: Final = 15


class LeakyReluKind(LayerKind[LeakyRelu]):
    """``x`` where it is positive, else ``x`` times the slope, which is rounded to ``2**-15``."""

    schema = LeakyRelu
    copies_kept = 0

    def plan(self, layer: LeakyRelu, shape: Shape, limit: int, prepared: Any, way: Way) -> tuple[str, int]:
        assert limit << _SLOPE_BITS < FLOAT64_EXACT
        return "float64", ACTIVATION_LIMIT

    def module(self, layer: LeakyRelu, name: str, training: bool) -> Module:
        return lambda x: linen.leaky_relu(x, layer.slope_permille / 1000)

    def specification(self, layer: LeakyRelu, prepared: Any, *inputs: Activations) -> Activations:
        (x,) = inputs
        wide = x.q * np.where(x.q < 0, _slope(layer), 1 << _SLOPE_BITS)
        return arithmetic.normalise(wide, x.fraction + _SLOPE_BITS)

    def exact(self, layer: LeakyRelu, prepared: Any, plan: str, *inputs: Traced) -> Traced:
        (x,) = inputs
        wide = x.q.astype(plan) * jnp.where(x.q < 0, float(_slope(layer)), float(1 << _SLOPE_BITS))
        return arithmetic_jax.normalise(wide, x.fraction + _SLOPE_BITS)


def _slope(layer: LeakyRelu) -> int:
    return ((layer.slope_permille << (_SLOPE_BITS + 1)) + 1000) // 2000


class DropoutKind(LayerKind[Dropout]):
    """Zeros at random in training, nothing in scoring."""

    schema = Dropout
    copies_kept = 0
    light = True

    def module(self, layer: Dropout, name: str, training: bool) -> Module:
        return linen.Dropout(layer.rate_permille / 1000, deterministic=not training, name=name)

    def specification(self, layer: Dropout, prepared: Any, *inputs: Activations) -> Activations:
        return inputs[0]

    def exact(self, layer: Dropout, prepared: Any, plan: Any, *inputs: Traced) -> Traced:
        return inputs[0]


class SoftmaxKind(LayerKind[Softmax]):
    """``exp(x) / sum(exp(x))`` over the last axis, in fraction 14."""

    schema = Softmax

    def plan(self, layer: Softmax, shape: Shape, limit: int, prepared: Any, way: Way) -> tuple[None, int]:
        return None, 1 << tables.PROBABILITY_FRACTION

    def module(self, layer: Softmax, name: str, training: bool) -> Module:
        return linen.softmax

    def specification(self, layer: Softmax, prepared: Any, *inputs: Activations) -> Activations:
        (x,) = inputs
        powers = tables.exponentials(x)
        total = powers.sum(axis=-1, keepdims=True)
        q = ((powers << (tables.PROBABILITY_FRACTION + 1)) + total) // (2 * total)
        return Activations(q, np.full_like(x.fraction, tables.PROBABILITY_FRACTION))

    def exact(self, layer: Softmax, prepared: Any, plan: Any, *inputs: Traced) -> Traced:
        (x,) = inputs
        whole = x.q.astype(jnp.int64)
        distance = tables.distances(whole, x.fraction.astype(jnp.int64), jnp)
        powers = tables.power(distance, jnp)
        total = powers.sum(axis=-1, keepdims=True)
        q = ((powers << (tables.PROBABILITY_FRACTION + 1)) + total) // (2 * total)
        return Traced(q.astype(jnp.float32), jnp.full_like(x.fraction, tables.PROBABILITY_FRACTION))
