"""Attention's middle in training: what queries see of values, with its gradient in closed form.

Guarantees: values and gradients are those of a causal softmax between two products, but for rounding.

The gradient of a softmax subtracts from each change its mean by the weights. That mean is also the product
of what was mixed with its change, a sum over a head's width instead of over all keys (Dao et al.,
FlashAttention, appendix B.2), so that less passes over what is as large as queries times keys.

Source: design section 8 ("as fast as the best hand-written loop"); `python -m benchmarks.training`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

import jax
import jax.numpy as jnp

from offchain.models.layers.softmax import softmax
from offchain.models.native.custom_call import Processor, wanted
from offchain.models.native.product import multipliable, multiply

_MEETING: Final = "nhtd,nhud->nhtu"
_MIXING: Final = "nhtu,nhud->nhtd"
_BACK: Final = "nhtu,nhtd->nhud"

Products = Callable[[str, jax.Array, jax.Array], jax.Array]
"""One of these three, of which the last two have a first factor that is zero above its diagonal."""


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def apart(packed: jax.Array, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, keys and values ``[n, heads, length, width]`` of ``[n, length, 3 * heads * width]``.

    Its gradient is stacked: XLA would gather what this scatters number by number, four times as slow.
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
    if on is None or query.dtype != jnp.float32 or not (multipliable(length, on) and multipliable(width, on)):
        return _attend_by(jnp.einsum)(query, key, value)
    return _attend_by(_products_on(on))(query, key, value)


@cache
def _products_on(on: Processor) -> Products:
    """Kernels of our own; what lies above a diagonal is neither computed nor multiplied."""

    def products(which: str, a: jax.Array, b: jax.Array) -> jax.Array:
        if which == _MEETING:
            return multiply(on, a, b.swapaxes(-1, -2), below=True)
        return multiply(on, a, b, turned=which == _BACK, causal=True)

    return products


@cache
def _attend_by(products: Products) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """That function, by such products."""

    def forward(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[jax.Array, Any]:
        length, width = query.shape[-2:]
        scores = products(_MEETING, query, key) / math.sqrt(width)
        seen = jnp.tril(jnp.ones((length, length), bool))
        weights = softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min))
        mixed = products(_MIXING, weights, value)
        return mixed, (query, key, value, weights, mixed)

    def backward(kept: Any, change: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        query, key, value, weights, mixed = kept
        mean = (change * mixed).sum(axis=-1, keepdims=True)
        raised = weights * (products(_MEETING, change, value) - mean) / math.sqrt(query.shape[-1])
        return (
            products(_MIXING, raised, key),
            products(_BACK, raised, query),
            products(_BACK, weights, change),
        )

    differentiable = jax.custom_vjp(lambda *given: forward(*given)[0])
    differentiable.defvjp(forward, backward)
    return differentiable
