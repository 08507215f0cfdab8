"""Causal multi-head self-attention, in integers.

Queries, keys and values are 16-bit vectors with a fraction per position and head. A row of scores is
brought to one fraction, its distances from the largest become weights by the pinned table of ``exp``, and
the weighted sum of the values is divided once, at its end. Guarantees: a position depends on none after
it, fractions included; every sum is exact in int64 and in the container that ``plan`` names.

Source: docs/exact-1.md, "Attention"; design section 7; Vaswani et al. 2017 for the layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from numpy.typing import NDArray

from offchain.evaluation import arithmetic, arithmetic_jax
from offchain.evaluation import functions as curves
from offchain.evaluation.arithmetic import ACTIVATION_BITS, ACTIVATION_LIMIT, Activations, bit_length, spread
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import FLOAT64_EXACT, INT64_EXACT, Contraction, plan_contraction
from offchain.evaluation.functions import ARGUMENT_BITS, ARGUMENT_FRACTION, CURVE_FRACTION
from offchain.evaluation.quantise import Linear, quantise_linear
from offchain.models.layers.contraction import contract, dense, dot
from offchain.models.layers.kind import LayerKind, Module
from protocol.architecture import MAX_POSITIONS, CausalAttention, Shape

SCORE_BITS: Final = 30
"""Scores saturate at ``2**30``, which is 1024 nats."""
_ROOT_BITS: Final = 14
_INVERSE_BITS: Final = 15
_FINEST_WEIGHT: Final = 40
"""A weight that is to be taken that many bits coarser is nothing."""


class Attention(NamedTuple):
    """Integers of an attention layer."""

    inner: Linear
    """Columns: queries, keys, values; within each, head by head."""
    outer: Linear


class AttentionPlan(NamedTuple):
    """How to compute."""

    inner: Contraction
    scores: str
    """Container of a score times its scale."""
    outer: Contraction


def scale_of(width: int) -> tuple[int, int]:
    """``(c, g)``: ``1 / sqrt(width)`` as ``c * 2**-g``, with an odd ``c`` below ``2**15``, rounded down."""
    bits = _ROOT_BITS + width.bit_length() // 2
    scale = math.isqrt((1 << (2 * bits)) // width)
    spare = (scale & -scale).bit_length() - 1
    return scale >> spare, bits - spare


class CausalAttentionModule(linen.Module):
    """The float layer."""

    heads: int

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        length, features = x.shape[1:]
        small = linen.initializers.lecun_normal()
        kernel = self.param("kernel", small, (features, 3 * features))
        bias = self.param("bias", linen.initializers.zeros, (3 * features,))
        out_kernel = self.param("out_kernel", small, (features, features))
        out_bias = self.param("out_bias", linen.initializers.zeros, (features,))
        split = (*x.shape[:2], 3, self.heads, features // self.heads)
        query, key, value = jnp.moveaxis((x @ kernel + bias).reshape(split), 2, 0)
        scores = jnp.einsum("nthd,nuhd->nhtu", query, key) / math.sqrt(features // self.heads)
        seen = jnp.tril(jnp.ones((length, length), bool))
        weights = linen.softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min))
        return jnp.einsum("nhtu,nuhd->nthd", weights, value).reshape(x.shape) @ out_kernel + out_bias


class CausalAttentionKind(LayerKind[CausalAttention]):
    """Each position's mean of the values before it, weighted by how its query meets their keys."""

    schema = CausalAttention

    def prepare(self, layer: CausalAttention, tensors: Mapping[str, NDArray[Any]]) -> Attention:
        return Attention(
            quantise_linear(tensors["kernel"], tensors["bias"]),
            quantise_linear(tensors["out_kernel"], tensors["out_bias"]),
        )

    def plan(
        self, layer: CausalAttention, shape: Shape, limit: int, prepared: Attention
    ) -> tuple[AttentionPlan, int]:
        width = shape[1] // layer.heads
        largest = width << (2 * ACTIVATION_BITS)
        scaled = largest * scale_of(width)[0]
        assert largest < FLOAT64_EXACT and scaled < INT64_EXACT
        assert MAX_POSITIONS << (CURVE_FRACTION + ACTIVATION_BITS) < FLOAT64_EXACT
        plan = AttentionPlan(
            plan_contraction(prepared.inner.weight, limit),
            "float64" if scaled < FLOAT64_EXACT else "int64",
            plan_contraction(prepared.outer.weight, ACTIVATION_LIMIT),
        )
        return plan, ACTIVATION_LIMIT

    def module(self, layer: CausalAttention, name: str, training: bool) -> Module:
        return CausalAttentionModule(layer.heads, name=name)

    def specification(self, layer: CausalAttention, prepared: Attention, *inputs: Activations) -> Activations:
        (x,) = inputs
        count, length, features = x.q.shape
        width = features // layer.heads
        wide, fraction = dense(x, prepared.inner)
        parts = arithmetic.normalise(
            wide.reshape(count, length, 3, layer.heads, width),
            np.broadcast_to(fraction[..., None, None], (count, length, 3, layer.heads)),
        )
        query, key, value = (np.moveaxis(parts.q[:, :, i], 2, 1) for i in range(3))
        query_fraction, key_fraction, value_fraction = (
            np.moveaxis(parts.fraction[:, :, i], 2, 1) for i in range(3)
        )
        scale, scale_fraction = scale_of(width)
        have = query_fraction[..., :, None] + key_fraction[..., None, :] + scale_fraction
        products = (query @ np.swapaxes(key, -1, -2)) * scale
        scores = arithmetic.align_saturating(products, have, ARGUMENT_FRACTION, SCORE_BITS)
        seen = np.tril(np.ones((length, length), bool))
        scores = np.where(seen, scores, -(1 << SCORE_BITS))
        distance = np.minimum(scores.max(axis=-1, keepdims=True) - scores, 1 << ARGUMENT_BITS)
        weights = np.where(seen, curves.curve_at(curves.DECAY, distance), 0)
        common = np.minimum.accumulate(value_fraction, axis=-1)
        coarser = np.clip(value_fraction[..., None, :] - common[..., :, None], 0, _FINEST_WEIGHT)
        mixed = arithmetic.normalise(arithmetic.round_shift(weights, coarser) @ value, common)
        total = weights.sum(axis=-1)
        bits = bit_length(total) + _INVERSE_BITS
        inverse = ((np.int64(2) << bits) + total) // (2 * total)
        divided = arithmetic.normalise(mixed.q * inverse[..., None], mixed.fraction + bits)
        heads = Activations(np.moveaxis(divided.q, 1, 2), np.moveaxis(divided.fraction, 1, 2))
        joined = arithmetic.join(heads, 2)
        whole = Activations(joined.q.reshape(x.q.shape), joined.fraction)
        return arithmetic.normalise(*dense(whole, prepared.outer))

    def exact(
        self, layer: CausalAttention, prepared: Attention, plan: AttentionPlan, *inputs: Traced
    ) -> Traced:
        (x,) = inputs
        count, length, features = x.q.shape
        width = features // layer.heads
        wide, fraction = contract(dot, x, prepared.inner, plan.inner)
        groups = (count, length, 3, layer.heads)
        parts = arithmetic_jax.normalise(
            wide.reshape(*groups, width), jnp.broadcast_to(fraction[..., None, None], groups)
        )
        query, key, value = jnp.moveaxis(parts.q, (2, 3), (0, 2)).astype(jnp.float64)
        query_fraction, key_fraction, value_fraction = jnp.moveaxis(parts.fraction, (2, 3), (0, 2))
        scale, scale_fraction = scale_of(width)
        have = query_fraction[..., :, None] + key_fraction[..., None, :] + scale_fraction
        products = _dot64(query, key.swapaxes(-1, -2)).astype(plan.scores) * scale
        scores = arithmetic_jax.align_saturating(products, have, ARGUMENT_FRACTION, SCORE_BITS)
        seen = jnp.tril(jnp.ones((length, length), bool))
        scores = jnp.where(seen, scores, -float(1 << SCORE_BITS))
        distance = jnp.minimum(scores.max(axis=-1, keepdims=True) - scores, float(1 << ARGUMENT_BITS))
        weights = jnp.where(seen, curves.curve_at_traced(curves.DECAY, distance.astype(jnp.int32)), 0)
        common = jax.lax.cummin(value_fraction, axis=2)
        coarser = jnp.clip(value_fraction[..., None, :] - common[..., :, None], 0, _FINEST_WEIGHT)
        shifted = arithmetic_jax.round_shift(weights.astype(jnp.float32), coarser).astype(jnp.float64)
        mixed = arithmetic_jax.normalise(_dot64(shifted, value), common)
        total = weights.astype(jnp.int64).sum(axis=-1)
        bits = (64 - jax.lax.clz(total) + _INVERSE_BITS).astype(jnp.int32)
        inverse = ((jnp.int64(2) << bits.astype(jnp.int64)) + total) // (2 * total)
        products = mixed.q.astype(jnp.float64) * spread(inverse.astype(jnp.float64), mixed.q)
        divided = arithmetic_jax.normalise(products, mixed.fraction + bits)
        heads = Traced(jnp.moveaxis(divided.q, 1, 2), jnp.moveaxis(divided.fraction, 1, 2))
        joined = arithmetic_jax.join(heads, 2)
        whole = Traced(joined.q.reshape(x.q.shape), joined.fraction)
        return arithmetic_jax.normalise(*contract(dot, whole, prepared.outer, plan.outer))


def _dot64(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float64)
