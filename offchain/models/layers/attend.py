"""Attention's middle in training: what queries see of values, with its gradient in closed form.

Guarantees: values and gradients are those of a causal softmax between two products, but for rounding.

The gradient of a softmax subtracts from each change its mean by the weights. That mean is also the product
of what was mixed with its change, a sum over a head's width instead of over all keys (Dao et al.,
FlashAttention, appendix B.2), so that less passes over what is as large as queries times keys.

Source: design section 8 ("as fast as the best hand-written loop"); `python -m benchmarks.training`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from offchain.models.layers.softmax import softmax


@jax.custom_vjp
def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """For each query the mean of the values up to its own position, weighted by how well their keys match.

    Args:
        query, key, value: ``[n, heads, length, width]``.

    Returns: the same shape.
    """
    return _attend(query, key, value)[0]


def _attend(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, Any]:
    length, width = query.shape[-2:]
    scores = jnp.einsum("nhtd,nhud->nhtu", query, key) / math.sqrt(width)
    seen = jnp.tril(jnp.ones((length, length), bool))
    weights = softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min))
    mixed = jnp.einsum("nhtu,nhud->nhtd", weights, value)
    return mixed, (query, key, value, weights, mixed)


def _gradient(kept: Any, change: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    query, key, value, weights, mixed = kept
    mean = (change * mixed).sum(axis=-1, keepdims=True)
    raised = weights * (jnp.einsum("nhtd,nhud->nhtu", change, value) - mean) / math.sqrt(query.shape[-1])
    return (
        jnp.einsum("nhtu,nhud->nhtd", raised, key),
        jnp.einsum("nhtu,nhtd->nhud", raised, query),
        jnp.einsum("nhtu,nhtd->nhud", weights, change),
    )


attend.defvjp(_attend, _gradient)
