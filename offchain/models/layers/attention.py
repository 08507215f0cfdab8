"""Causal multi-head self-attention, in integers.

Queries, keys and values are 16-bit vectors with a fraction per position and head. A row of scores is
brought to one fraction, its distances from the largest become weights by the pinned table of ``exp``, and
the weighted sum of the values is divided once, at its end. Guarantees: a position depends on none after
it, fractions included; every sum is exact in int64 and in the container that ``plan`` names.

Source: docs/exact-1.md, "Attention"; design section 7; Vaswani et al. 2017 for the layer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import partial
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
from offchain.evaluation.bounds import (
    FLOAT64_EXACT,
    IN_LIMBS,
    INT32_EXACT,
    INT64_EXACT,
    Container,
    Contraction,
    Way,
    plan_contraction,
    plan_product,
)
from offchain.evaluation.functions import ARGUMENT_BITS, ARGUMENT_FRACTION, CURVE_FRACTION
from offchain.evaluation.quantise import Linear, quantise_linear
from offchain.models.layers.attend import apart, attend
from offchain.models.layers.contraction import contract, dense, dot
from offchain.models.layers.kind import LayerKind, Module
from offchain.models.layers.rows import on_rows, plus
from protocol.architecture import MAX_POSITIONS, CausalAttention, Shape

SCORE_BITS: Final = 30
"""Scores saturate at ``2**30``, which is 1024 nats."""
_ROOT_BITS: Final = 14
_INVERSE_BITS: Final = 15
_WEIGHT_DROP: Final = CURVE_FRACTION - 15
"""Weights meet the values with 15 bits, of which two limbs make the product."""
_FINEST_WEIGHT: Final = 40
"""A weight that is to be taken that many bits coarser is nothing."""
_BLOCKS: Final = 2
"""Into how many blocks queries are cut, so that a quarter of the scores, which nobody sees, is never
computed; more blocks cost more to start than they save."""


class Attention(NamedTuple):
    """Integers of an attention layer."""

    inner: Linear
    """Columns: queries, keys, values; within each, head by head."""
    outer: Linear


class AttentionPlan(NamedTuple):
    """How to compute."""

    inner: Contraction
    meeting: Container
    """Of sums of queries times keys."""
    scores: str
    """Of a score times its scale."""
    mixing: Container
    """Of sums of weights times values."""
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
        features = x.shape[-1]
        small = linen.initializers.lecun_normal()
        kernel = self.param("kernel", small, (features, 3 * features))
        bias = self.param("bias", linen.initializers.zeros, (3 * features,))
        out_kernel = self.param("out_kernel", small, (features, features))
        out_bias = self.param("out_bias", linen.initializers.zeros, (features,))
        inward, outward = (
            on_rows(lambda rows: plus(rows @ kernel, bias)),
            on_rows(lambda rows: plus(rows @ out_kernel, out_bias)),
        )
        mixed = attend(*apart(inward(x), self.heads))
        return outward(mixed.swapaxes(1, 2).reshape(x.shape))


class CausalAttentionKind(LayerKind[CausalAttention]):
    """Each position's mean of the values before it, weighted by how its query meets their keys."""

    schema = CausalAttention
    compiles_itself = True

    def kept(self, layer: CausalAttention, shape: Shape, output: Shape) -> int:
        # Weights of all pairs; queries, keys and values; what the heads put out, and its mixture.
        return layer.heads * shape[0] ** 2 + 5 * math.prod(shape)

    def prepare(self, layer: CausalAttention, tensors: Mapping[str, NDArray[Any]]) -> Attention:
        return Attention(
            quantise_linear(tensors["kernel"], tensors["bias"]),
            quantise_linear(tensors["out_kernel"], tensors["out_bias"]),
        )

    def plan(
        self, layer: CausalAttention, shape: Shape, limit: int, prepared: Attention, way: Way
    ) -> tuple[AttentionPlan, int]:
        width = shape[1] // layer.heads
        largest = width << (2 * ACTIVATION_BITS)
        scaled = largest * scale_of(width)[0]
        assert largest < FLOAT64_EXACT and scaled < INT64_EXACT
        assert MAX_POSITIONS << (2 * ACTIVATION_BITS) < FLOAT64_EXACT
        plan = AttentionPlan(
            plan_contraction(prepared.inner.weight, limit, way.weights),
            plan_product(width, way.products),
            "float64" if scaled < FLOAT64_EXACT else "int64",
            plan_product(shape[0], way.products),
            plan_contraction(prepared.outer.weight, ACTIVATION_LIMIT, way.weights),
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
        shifted = arithmetic.round_shift(weights, _WEIGHT_DROP + coarser)
        mixed = arithmetic.normalise(shifted @ value, common - _WEIGHT_DROP)
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
        query, key, value = _split(inputs[0], prepared.inner, layer.heads, plan.inner)
        scores = _scores(query, key, plan)
        weights = _weights(scores)
        mixed = _mixed(weights, value, plan)
        return _outer(_joined(_divided(mixed, weights)), prepared.outer, plan.outer)


# Each piece is compiled apart: see ``exact_jax.compiled``.


@partial(jax.jit, static_argnums=(2, 3))
def _split(x: Traced, inner: Linear, heads: int, plan: Contraction) -> tuple[Traced, Traced, Traced]:
    """Queries, keys and values: ``[n, heads, positions, width]``, a fraction for each vector."""
    wide, fraction = contract(dot, x, inner, plan)
    groups = (*x.q.shape[:2], 3, heads)
    parts = arithmetic_jax.normalise(
        wide.reshape(*groups, -1), jnp.broadcast_to(fraction[..., None, None], groups)
    )
    q, fractions = jnp.moveaxis(parts.q, (2, 3), (0, 2)), jnp.moveaxis(parts.fraction, (2, 3), (0, 2))
    return Traced(q[0], fractions[0]), Traced(q[1], fractions[1]), Traced(q[2], fractions[2])


def _blocks(length: int) -> list[tuple[int, int]]:
    """First and last position of each block of queries: a block meets no key after its last query."""
    edges = sorted({length * part // _BLOCKS for part in range(_BLOCKS + 1)})
    return list(itertools.pairwise(edges))


def _seen(start: int, stop: int) -> jax.Array:
    return jnp.tril(jnp.ones((stop - start, stop), bool), start)


@partial(jax.jit, static_argnums=2)
def _scores(query: Traced, key: Traced, plan: AttentionPlan) -> list[jax.Array]:
    """By block, ``[n, heads, queries, keys]`` int32 in ``2**-20``; what is not seen has the least."""
    scale, scale_fraction = scale_of(query.q.shape[-1])
    scores = []
    for start, stop in _blocks(query.q.shape[2]):
        products = _product(query.q[:, :, start:stop], key.q[:, :, :stop].swapaxes(-1, -2), plan.meeting)
        have = query.fraction[:, :, start:stop, None] + key.fraction[:, :, None, :stop] + scale_fraction
        scaled = products.astype(plan.scores) * scale
        aligned = arithmetic_jax.align_saturating(scaled, have, ARGUMENT_FRACTION, SCORE_BITS)
        scores.append(jnp.where(_seen(start, stop), aligned.astype(jnp.int32), -(1 << SCORE_BITS)))
    return scores


@jax.jit
def _weights(scores: list[jax.Array]) -> list[jax.Array]:
    """``exp`` of each score less its row's largest, int32 at ``2**-23``; zero for what is not seen."""
    weights = []
    for block in scores:
        largest = block.max(axis=-1, keepdims=True)
        # Raised to the furthest that counts before they are subtracted: two scores may lie 2**31 apart.
        distance = largest - jnp.maximum(block, largest - (1 << ARGUMENT_BITS))
        queries, keys = block.shape[-2:]
        value = curves.curve_at_traced(curves.DECAY, distance)
        weights.append(jnp.where(_seen(keys - queries, keys), value, 0))
    return weights


@partial(jax.jit, static_argnums=2)
def _mixed(weights: list[jax.Array], value: Traced, plan: AttentionPlan) -> Traced:
    """Weighted sums of the values, each row in the coarsest fraction of the values it sees."""
    common = jax.lax.cummin(value.fraction, axis=2)
    sums = []
    for block in weights:
        queries, keys = block.shape[-2:]
        rows, values = slice(keys - queries, keys), value.q[:, :, :keys]
        finer = value.fraction[:, :, None, :keys] - common[:, :, rows, None]
        drop = _WEIGHT_DROP + jnp.clip(finer, 0, _FINEST_WEIGHT)
        shifted = arithmetic_jax.round_shift(block.astype(jnp.float32), drop)
        if plan.mixing == "int8":
            # Weights up to 2**15 have no int8 limbs; less a half of it they have, and it is put back.
            half = 1 << (ACTIVATION_BITS - 1)
            whole = values.astype(jnp.float64).sum(axis=-2, keepdims=True) * half
            sums.append(_product(shifted - half, values, plan.mixing) + whole)
        else:
            sums.append(_product(shifted, values, plan.mixing))
    return arithmetic_jax.normalise(jnp.concatenate(sums, axis=2), common - _WEIGHT_DROP)


@jax.jit
def _divided(mixed: Traced, weights: list[jax.Array]) -> Traced:
    """The sums over the totals of their weights: ``[n, positions, heads, width]``."""
    # A weight is at most one.
    narrow = weights[-1].shape[-1] << CURVE_FRACTION <= INT32_EXACT
    totals = [block.sum(axis=-1, dtype=jnp.int32 if narrow else jnp.int64) for block in weights]
    total = jnp.concatenate(totals, axis=2).astype(jnp.int64)
    bits = (64 - jax.lax.clz(total) + _INVERSE_BITS).astype(jnp.int32)
    inverse = ((jnp.int64(2) << bits.astype(jnp.int64)) + total) // (2 * total)
    products = mixed.q.astype(jnp.float64) * spread(inverse.astype(jnp.float64), mixed.q)
    divided = arithmetic_jax.normalise(products, mixed.fraction + bits)
    return Traced(jnp.moveaxis(divided.q, 1, 2), jnp.moveaxis(divided.fraction, 1, 2))


@jax.jit
def _joined(heads: Traced) -> Traced:
    """Heads side by side, in one fraction: ``[n, positions, features]``."""
    joined = arithmetic_jax.join(heads, 2)
    return Traced(joined.q.reshape(*joined.q.shape[:2], -1), joined.fraction)


@partial(jax.jit, static_argnums=2)
def _outer(whole: Traced, outer: Linear, plan: Contraction) -> Traced:
    """The outer contraction."""
    return arithmetic_jax.normalise(*contract(dot, whole, outer, plan))


def _product(a: jax.Array, b: jax.Array, container: Container) -> jax.Array:
    """``a · b`` of float32 integers up to ``2**15`` (in int8: up to 32639), as float64."""
    if container not in IN_LIMBS:
        return dot(a.astype(container), b.astype(container)).astype(jnp.float64)
    rows, columns = a.shape[-2], b.shape[-1]
    # All pairs in one product: a batch of small matrices costs more to start than to compute.
    pairs = dot(
        jnp.concatenate(arithmetic_jax.limbs(a), axis=-2).astype(container),
        jnp.concatenate(arithmetic_jax.limbs(b), axis=-1).astype(container),
    ).astype(jnp.float64)
    high, low = pairs[..., :rows, :], pairs[..., rows:, :]
    both = 256 * high + low
    return 256 * both[..., :columns] + both[..., columns:]
