"""Softmax and cross-entropy for training: a row's largest value is found by its bit pattern.

A processor takes the maximum of floats one by one, since one might be NaN, and that of whole numbers several
at a time; and float32 values are ordered as their patterns are. Guarantees: values and gradients are those of
``jax.nn.softmax`` and of the usual cross-entropy, but for rounding; NaN comes out where NaN goes in.

Source: design section 8 ("as fast as the best hand-written loop"); `python -m benchmarks.training`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_ALL_BUT_SIGN = 0x7FFFFFFF


def largest(x: jax.Array) -> jax.Array:
    """The largest value over the last axis, which is kept; a constant to whoever differentiates."""
    x = jax.lax.stop_gradient(x)
    if x.dtype != jnp.float32:
        return x.max(axis=-1, keepdims=True)
    return _value(_order(jax.lax.bitcast_convert_type(x, jnp.int32)).max(axis=-1, keepdims=True))


def _order(pattern: jax.Array) -> jax.Array:
    """Whole numbers in the order of the floats; negative ones are stored by magnitude. Its own inverse."""
    return jnp.where(pattern < 0, pattern ^ _ALL_BUT_SIGN, pattern)


def _value(order: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(_order(order), jnp.float32)


def softmax(x: jax.Array) -> jax.Array:
    """``exp(x)`` over its sum, along the last axis."""
    powers = jnp.exp(x - largest(x))
    return powers / powers.sum(axis=-1, keepdims=True)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """``-log softmax(logits)[label]`` of each row, in nats.

    Args:
        logits: ``[..., classes]``. labels: ``[...]``, integers in ``[0, classes)``.
    """
    top = largest(logits)
    total = jnp.log(jnp.exp(logits - top).sum(axis=-1)) + top[..., 0]
    return total - jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
