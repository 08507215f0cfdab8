"""Normalisations: batch norm, layer norm and rms norm.

Batch norm in scoring is a factor and a summand per channel: its statistics are tensors of the model. Layer
and rms norm divide each vector by the root of its own variance or mean square: one integer square root and
one integer division per vector. Guarantees: the root and the quotient are exact floors and roundings on
every device; what is learned is rounded once.

In training, batch norm uses the statistics of the batch and reports them (``sow``); whoever takes the step
moves the running statistics towards them, in float32 (``offchain/models/network.py``).

Source: docs/exact-1.md, "Normalisations"; design section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from numpy.typing import NDArray

from offchain.evaluation import arithmetic, arithmetic_jax
from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, Activations, bit_length
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import FLOAT32_EXACT, FLOAT64_EXACT, Way
from offchain.evaluation.quantise import (
    AFFINE_BITS,
    EPSILON,
    EPSILON_BITS,
    MANTISSA_BITS,
    SCALE_BITS,
    Affine,
    quantise_batch_norm,
    quantise_vector,
)
from offchain.models.layers.kind import LayerKind, Module
from offchain.models.layers.rows import on_rows, weighted_sum
from protocol.architecture import BatchNorm, LayerNorm, RmsNorm, Shape

_ROOT_BITS: Final = 52
"""Squares are brought just below ``2**52`` before their root is taken."""
_QUOTIENT_BITS: Final = 18
_SPREAD_BITS: Final = 49
"""An epsilon beyond that is counted coarser, and the squares with it."""


Statistics = tuple[jax.Array, jax.Array]
"""Mean and variance of each channel, in float32."""


def _mean_row(rows: jax.Array) -> jax.Array:
    return weighted_sum(rows, 1 / len(rows))


@jax.custom_vjp
def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, Statistics]:
    """``x`` ``[rows, channels]`` by the statistics of its rows, and these; no gradient flows through them.

    The gradient is the closed form (Ioffe and Szegedy, section 3): half the passes over memory that
    differentiating the forward pass takes.
    """
    return _batch_norm(x, scale, bias)[0]


def _batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[tuple[jax.Array, Statistics], Any]:
    real = x.astype(jnp.float32)
    mean = _mean_row(real)
    var = _mean_row(jnp.square(real - mean))
    inverse = jax.lax.rsqrt(var + EPSILON)
    y = ((x - mean) * (scale * inverse) + bias).astype(x.dtype)
    return (y, (mean, var)), (x, scale, bias, mean, inverse)


def _batch_norm_gradient(kept: Any, given: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, scale, bias, mean, inverse = kept
    change = given[0].astype(jnp.float32)
    standard = (x - mean) * inverse
    along, across = _mean_row(change), _mean_row(change * standard)
    back = (scale * inverse) * (change - along - standard * across)
    grown = len(x) * across, len(x) * along
    return back.astype(x.dtype), grown[0].astype(scale.dtype), grown[1].astype(bias.dtype)


batch_norm.defvjp(_batch_norm, _batch_norm_gradient)


class BatchNormModule(linen.Module):
    """Batch norm whose running statistics are parameters, so that they are part of the model's file."""

    training: bool

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = (x.shape[-1],)
        scale = self.param("scale", linen.initializers.ones, channels)
        bias = self.param("bias", linen.initializers.zeros, channels)
        mean = self.param("mean", linen.initializers.zeros, channels)
        var = self.param("var", linen.initializers.ones, channels)
        if self.training:
            y, (mean, var) = batch_norm(x.reshape(-1, *channels), scale, bias)
            self.sow("statistics", "mean", mean)
            self.sow("statistics", "var", var)
            return y.reshape(x.shape)
        factor = scale * jax.lax.rsqrt(jnp.maximum(var, 0) + EPSILON)
        return ((x - mean) * factor + bias).astype(x.dtype)


class BatchNormKind(LayerKind[BatchNorm]):
    """``(x - mean) / sqrt(var + 2**-17) * scale + bias``, folded."""

    schema = BatchNorm

    def prepare(self, layer: BatchNorm, tensors: Mapping[str, NDArray[Any]]) -> Affine:
        return quantise_batch_norm(**tensors)

    def plan(self, layer: BatchNorm, shape: Shape, limit: int, prepared: Affine, way: Way) -> tuple[str, int]:
        assert (limit << AFFINE_BITS) + (1 << 2 * MANTISSA_BITS) < FLOAT64_EXACT
        return "float64", ACTIVATION_LIMIT

    def module(self, layer: BatchNorm, name: str, training: bool) -> Module:
        return BatchNormModule(training, name=name)

    def specification(self, layer: BatchNorm, prepared: Affine, *inputs: Activations) -> Activations:
        (x,) = inputs
        fraction = x.fraction + prepared.multiplier_fraction
        return arithmetic.normalise(
            *arithmetic.accumulate(x.q * prepared.multiplier, fraction, prepared.bias, prepared.bias_fraction)
        )

    def exact(self, layer: BatchNorm, prepared: Affine, plan: str, *inputs: Traced) -> Traced:
        (x,) = inputs
        products = x.q.astype(plan) * jnp.asarray(prepared.multiplier).astype(plan)
        fraction = x.fraction + prepared.multiplier_fraction
        return arithmetic_jax.normalise(
            *arithmetic_jax.accumulate(products, fraction, jnp.asarray(prepared.bias), prepared.bias_fraction)
        )


class Learned(NamedTuple):
    """What a layer or rms norm has learned."""

    scale: NDArray[Any]
    """``[width]`` int64, ``|scale| <= 2**15``."""
    scale_fraction: Any
    bias: NDArray[Any] | None
    """``[width]`` int64, ``|bias| <= 2**24``, or None."""
    bias_fraction: Any


def _learned(tensors: Mapping[str, NDArray[Any]]) -> Learned:
    bias = quantise_vector(tensors["bias"], MANTISSA_BITS) if "bias" in tensors else (None, np.int64(0))
    return Learned(*quantise_vector(tensors["scale"], SCALE_BITS), *bias)


def _root_of_width(width: int) -> tuple[int, int]:
    """``(c, k)``: ``floor(sqrt(width) * 2**k)`` in ``[2**25, 2**26)``."""
    k = (_ROOT_BITS - width.bit_length()) // 2
    return int(arithmetic.square_root(np.int64(width << (2 * k)))), k


def _divide_by_root(x: Activations, epsilon_factor: int, learned: Learned) -> Activations:
    """``x * sqrt(width / (sum x^2 + epsilon)) * scale + bias``, where ``epsilon`` is ``epsilon_factor *
    2**-17`` in units of squares of ``x``."""
    squares = (x.q * x.q).sum(axis=-1)
    beyond = 2 * x.fraction - EPSILON_BITS
    coarser = np.maximum((epsilon_factor.bit_length() + beyond - _SPREAD_BITS + 1) >> 1, 0)
    left = np.clip(beyond - 2 * coarser, 0, _SPREAD_BITS)
    epsilon = arithmetic.round_shift(np.int64(epsilon_factor) << left, np.maximum(2 * coarser - beyond, 0))
    total = arithmetic.round_shift(squares, 2 * coarser) + epsilon
    finer = (_ROOT_BITS - bit_length(total)) >> 1
    root = arithmetic.square_root(total << (2 * finer))
    own, own_bits = _root_of_width(x.q.shape[-1])
    quotient = ((own << (_QUOTIENT_BITS + 1)) + root) // (2 * root)
    fraction = _QUOTIENT_BITS + own_bits + coarser - finer + learned.scale_fraction
    products = x.q * learned.scale * quotient[..., None]
    return arithmetic.normalise(
        *arithmetic.accumulate(products, fraction, learned.bias, learned.bias_fraction)
    )


def _divide_by_root_traced(x: Traced, epsilon_factor: int, learned: Learned) -> Traced:
    """``_divide_by_root`` in float64; what there is once per vector is int64."""
    wide = x.q.astype(jnp.float64)
    squares = (wide * wide).sum(axis=-1)
    beyond = 2 * x.fraction - EPSILON_BITS
    coarser = jnp.maximum((epsilon_factor.bit_length() + beyond - _SPREAD_BITS + 1) >> 1, 0)
    # A factor below 2**48, and shifts that together leave it below 2**50: exact in float64.
    net = jnp.clip(beyond - 2 * coarser, -62, _SPREAD_BITS)
    epsilon = jnp.floor(epsilon_factor * arithmetic_jax.power_of_two(net) + 0.5)
    total = arithmetic_jax.round_shift(squares, 2 * coarser) + epsilon
    length = 64 - jax.lax.clz(total.astype(jnp.int64)).astype(jnp.int32)
    finer = (_ROOT_BITS - length) >> 1
    root = arithmetic_jax.square_root(total * arithmetic_jax.power_of_two(2 * finer)).astype(jnp.int64)
    own, own_bits = _root_of_width(x.q.shape[-1])
    quotient = (((own << (_QUOTIENT_BITS + 1)) + root) // (2 * root)).astype(jnp.float64)
    fraction = _QUOTIENT_BITS + own_bits + coarser - finer + learned.scale_fraction
    products = wide * jnp.asarray(learned.scale).astype(jnp.float64) * quotient[..., None]
    bias = None if learned.bias is None else jnp.asarray(learned.bias)
    return arithmetic_jax.normalise(
        *arithmetic_jax.accumulate(products, fraction, bias, learned.bias_fraction)
    )


def _check_products() -> None:
    """``|x| * |scale| * quotient``, and the bias beside it."""
    product = ACTIVATION_LIMIT << (SCALE_BITS + _QUOTIENT_BITS + 1)
    assert product + (1 << 2 * MANTISSA_BITS) < FLOAT64_EXACT


class LayerNormKind(LayerKind[LayerNorm]):
    """``(x - mean) / sqrt(variance + 2**-17) * scale + bias``."""

    schema = LayerNorm

    def prepare(self, layer: LayerNorm, tensors: Mapping[str, NDArray[Any]]) -> Learned:
        return _learned(tensors)

    def plan(
        self, layer: LayerNorm, shape: Shape, limit: int, prepared: Learned, way: Way
    ) -> tuple[str, int]:
        _check_products()
        # Width times a value, less the sum: at most twice that; rounding needs a bit more.
        return ("float32" if 4 * shape[-1] * limit <= FLOAT32_EXACT else "float64"), ACTIVATION_LIMIT

    def module(self, layer: LayerNorm, name: str, training: bool) -> Module:
        return on_rows(linen.LayerNorm(epsilon=EPSILON, use_fast_variance=False, name=name))

    def specification(self, layer: LayerNorm, prepared: Learned, *inputs: Activations) -> Activations:
        (x,) = inputs
        width = x.q.shape[-1]
        centred = arithmetic.normalise(width * x.q - x.q.sum(axis=-1, keepdims=True), x.fraction)
        return _divide_by_root(centred, width**3, prepared)

    def exact(self, layer: LayerNorm, prepared: Learned, plan: str, *inputs: Traced) -> Traced:
        (x,) = inputs
        width, wide = x.q.shape[-1], x.q.astype(plan)
        centred = arithmetic_jax.normalise(width * wide - wide.sum(axis=-1, keepdims=True), x.fraction)
        return _divide_by_root_traced(centred, width**3, prepared)


class RmsNormKind(LayerKind[RmsNorm]):
    """``x / sqrt(mean of x^2 + 2**-17) * scale``."""

    schema = RmsNorm

    def prepare(self, layer: RmsNorm, tensors: Mapping[str, NDArray[Any]]) -> Learned:
        return _learned(tensors)

    def plan(self, layer: RmsNorm, shape: Shape, limit: int, prepared: Learned, way: Way) -> tuple[str, int]:
        _check_products()
        return "float64", ACTIVATION_LIMIT

    def module(self, layer: RmsNorm, name: str, training: bool) -> Module:
        return on_rows(linen.RMSNorm(epsilon=EPSILON, name=name))

    def specification(self, layer: RmsNorm, prepared: Learned, *inputs: Activations) -> Activations:
        return _divide_by_root(inputs[0], inputs[0].q.shape[-1], prepared)

    def exact(self, layer: RmsNorm, prepared: Learned, plan: str, *inputs: Traced) -> Traced:
        return _divide_by_root_traced(inputs[0], inputs[0].q.shape[-1], prepared)
