"""Attention's middle in training: what queries see of values, with its gradient in closed form.

Guarantees: values and gradients are those of a causal softmax between two products, but for rounding; where
operands are bfloat16, all that lies between two products is float32 nevertheless.

The gradient of a softmax subtracts from each change its mean by the weights. That mean is also the product
of what was mixed with its change, a sum over a head's width instead of over all keys (Dao et al.,
FlashAttention, appendix B.2), so that less passes over what is as large as queries times keys.

Source: design section 8 ("as fast as the best hand-written loop"); `python -m benchmarks.training`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp

from offchain.models.layers.softmax import softmax
from offchain.models.native.processor import Processor, wanted
from offchain.models.native.product import multiply

Multiply = Callable[[jax.Array, jax.Array], jax.Array]


class Products(NamedTuple):
    """The products of attention, for each sample and head."""

    meeting: Multiply
    """``[t, width]`` and ``[u, width]`` to float32 ``[t, u]``; anything finite for u after t."""
    mixing: Multiply
    """``[t, u]``, zero for u after t, and ``[u, width]`` to ``[t, width]``."""
    back: Multiply
    """``[t, u]``, zero for u after t, and ``[t, width]`` to ``[u, width]``."""


_OF_XLA: Final = Products(
    partial(jnp.einsum, "nhtd,nhud->nhtu", preferred_element_type=jnp.float32),
    partial(jnp.einsum, "nhtu,nhud->nhtd"),
    partial(jnp.einsum, "nhtu,nhtd->nhud"),
)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def apart(packed: jax.Array, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values ``[n, heads, length, width]`` of ``[n, length, 3 * heads * width]``.

    Its gradient is stacked: XLA would gather what this scatters number by number, five times as slow.
    """
    split = packed.reshape(*packed.shape[:2], 3, heads, -1)
    query, key, value = jnp.moveaxis(split, (2, 3), (0, 2))
    return query, key, value


def _apart(packed: jax.Array, heads: int) -> tuple[Any, None]:
    return apart(packed, heads), None


def _together(heads: int, kept: None, changes: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array]:
    packed = jnp.stack([change.swapaxes(1, 2) for change in changes], axis=2)
    return (packed.reshape(*packed.shape[:2], -1),)


apart.defvjp(_apart, _together)


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """For each query the mean of the values up to its own position, weighted by how well their keys match.

    Args:
        query, key, value: ``[n, heads, length, width]``.

    Returns: the same shape.
    """
    on, (length, width) = wanted(), query.shape[-2:]
    if on is not None and query.dtype == jnp.float32 and on.serves(length) and on.serves(width):
        return _attend_by(_products_on(on))(query, key, value)
    return _attend_by(_OF_XLA)(query, key, value)


@cache
def _products_on(on: Processor) -> Products:
    """Kernels of our own: what lies above a diagonal is neither computed nor multiplied."""
    return Products(
        lambda a, b: multiply(on, a, b.swapaxes(-1, -2), below=True),
        partial(multiply, on, causal=True),
        partial(multiply, on, causal=True, turned=True),
    )


@cache
def _attend_by(products: Products) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """That function, by such products."""

    def forward(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, Any]:
        length, width = query.shape[-2:]
        scores = products.meeting(query, key) / math.sqrt(width)
        seen = jnp.tril(jnp.ones((length, length), bool))
        weights = softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min)).astype(query.dtype)
        mixed = products.mixing(weights, value)
        return mixed, (query, key, value, weights, mixed)

    def backward(kept: Any, change: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        query, key, value, weights, mixed = kept
        mean = (change.astype(jnp.float32) * mixed).sum(axis=-1, keepdims=True)
        raised = weights * (products.meeting(change, value) - mean) / math.sqrt(query.shape[-1])
        raised = raised.astype(query.dtype)
        return (
            products.mixing(raised, key),
            products.back(raised, query),
            products.back(weights, change),
        )

    differentiable = jax.custom_vjp(lambda *given: forward(*given)[0])
    differentiable.defvjp(forward, backward)
    return differentiable
