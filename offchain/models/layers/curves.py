"""Smooth activation functions: sigmoid and tanh, and gelu and silu, which are ``x`` times such a curve.

Guarantees: curves are read from pinned tables (``functions.py``); a product with them is exact; one
normalisation ends each layer, so that small outputs keep their bits. Gelu is the form with erf.

Source: docs/exact-1.md, "Curves"; design section 7.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen

from offchain.evaluation import arithmetic, arithmetic_jax
from offchain.evaluation import functions as curves
from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, Activations
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import FLOAT32_EXACT, FLOAT64_EXACT, Way
from offchain.models.layers.kind import L, LayerKind, Module
from protocol.architecture import Gelu, Shape, Sigmoid, Silu, Tanh


class _CurveKind(LayerKind[L]):
    """One pinned curve: ``symmetric`` with ``f(-x) = 1 - f(x)``, else ``f(-x) = -f(x)``."""

    copies_kept = 2
    curve: ClassVar[curves.Curve]
    symmetric: ClassVar[bool]

    def plan(self, layer: L, shape: Shape, limit: int, prepared: Any, way: Way) -> tuple[str, int]:
        assert 2 * curves.ONE <= FLOAT32_EXACT
        return "float32", ACTIVATION_LIMIT

    def specification(self, layer: L, prepared: Any, *inputs: Activations) -> Activations:
        (x,) = inputs
        at = curves.symmetric_at if self.symmetric else curves.odd_at
        value = at(self.curve, curves.argument(x.q, arithmetic.spread(x.fraction, x.q)))
        return arithmetic.normalise(value, _curve_fraction(x.fraction))

    def exact(self, layer: L, prepared: Any, plan: str, *inputs: Traced) -> Traced:
        (x,) = inputs
        at = curves.symmetric_at_traced if self.symmetric else curves.odd_at_traced
        value = at(self.curve, curves.argument_traced(x.q, arithmetic.spread(x.fraction, x.q)))
        return arithmetic_jax.normalise(value.astype(plan), _curve_fraction(x.fraction))


class SigmoidKind(_CurveKind[Sigmoid]):
    """``1 / (1 + exp(-x))``."""

    schema = Sigmoid
    curve = curves.SIGMOID
    symmetric = True

    def module(self, layer: Sigmoid, name: str, training: bool) -> Module:
        return linen.sigmoid


class TanhKind(_CurveKind[Tanh]):
    """``tanh(x)``."""

    schema = Tanh
    curve = curves.TANH
    symmetric = False

    def module(self, layer: Tanh, name: str, training: bool) -> Module:
        return jnp.tanh


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """Gelu for training, by way of ``erf``: cheaper than the ``erfc`` of Flax's, which keeps more bits where
    ``x`` is far below zero and the result next to nothing."""
    return x * _normal(x)


def _normal(x: jax.Array) -> jax.Array:
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


@gelu.defjvp
def _gelu_derivative(at: tuple[jax.Array], change: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = at, change
    whole, density = _normal(x), jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return x * whole, (whole + x * density) * dx


class _GatedKind(LayerKind[L]):
    """``x * curve(x)`` for a curve with ``f(-x) = 1 - f(x)``."""

    copies_kept = 2
    curve: ClassVar[curves.Curve]

    def plan(self, layer: L, shape: Shape, limit: int, prepared: Any, way: Way) -> tuple[str, int]:
        assert limit << curves.CURVE_FRACTION < FLOAT64_EXACT
        return "float64", ACTIVATION_LIMIT

    def specification(self, layer: L, prepared: Any, *inputs: Activations) -> Activations:
        (x,) = inputs
        gate = curves.symmetric_at(self.curve, curves.argument(x.q, arithmetic.spread(x.fraction, x.q)))
        return arithmetic.normalise(x.q * gate, x.fraction + curves.CURVE_FRACTION)

    def exact(self, layer: L, prepared: Any, plan: str, *inputs: Traced) -> Traced:
        (x,) = inputs
        argument = curves.argument_traced(x.q, arithmetic.spread(x.fraction, x.q))
        gate = curves.symmetric_at_traced(self.curve, argument)
        wide = x.q.astype(plan) * gate.astype(plan)
        return arithmetic_jax.normalise(wide, x.fraction + curves.CURVE_FRACTION)


class GeluKind(_GatedKind[Gelu]):
    """``x`` times the normal distribution function of ``x``."""

    schema = Gelu
    curve = curves.NORMAL

    def module(self, layer: Gelu, name: str, training: bool) -> Module:
        return gelu if training else (lambda x: linen.gelu(x, approximate=False))


class SiluKind(_GatedKind[Silu]):
    """``x * sigmoid(x)``."""

    schema = Silu
    curve = curves.SIGMOID

    def module(self, layer: Silu, name: str, training: bool) -> Module:
        return linen.silu


def _curve_fraction(fraction: Any) -> Any:
    """The fraction of the curves' values, once per group."""
    return fraction * 0 + curves.CURVE_FRACTION
