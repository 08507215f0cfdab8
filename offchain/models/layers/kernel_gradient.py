"""Convolutions by XLA, but their kernel's gradient in a way that suits CPUs: where ``native`` does not serve.

XLA computes that gradient as a convolution over transposed inputs, and fuses whatever made these (a batch
norm, a relu) into the transposition, which then reads memory out of order and computes everything anew: most
of a training step of a resnet. Here inputs are finished first, and the sum over samples is cut into parts
that fit a core's cache. Guarantees: the sums are those of the definition, in another order.

Source: design section 8 ("as fast as the best hand-written loop"); `python -m benchmarks.training`.
"""

from __future__ import annotations

import math
from typing import Any, Final

import jax
import jax.numpy as jnp

_PARTS: Final = 8
"""More parts cost more to start and to compile than they save."""
_LEAST_VALUES: Final = 1 << 18
"""Of a batch's inputs. With fewer the steps are short, and to compile the parts takes twice as long."""
_MOST_CHANNELS: Final = 64
"""Beyond that the product that finishes the inputs costs too much beside the convolution."""


def convolve(x: jax.Array, kernel: jax.Array, *arguments: Any, **options: Any) -> jax.Array:
    """``jax.lax.conv_general_dilated`` of ``[n, height, width, channels]``, with that gradient."""
    if x.shape[-1] > _MOST_CHANNELS or x.size < _LEAST_VALUES:
        return jax.lax.conv_general_dilated(x, kernel, *arguments, **options)

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, *arguments, **options)

    def forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
        return plain(x, kernel), (x, kernel)

    def backward(kept: Any, change: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = kept
        (along_x,) = jax.linear_transpose(lambda x: plain(x, kernel), x)(change)
        parts = math.gcd(len(x), _PARTS)
        along_kernel = jnp.zeros_like(kernel)
        for own, own_change in zip(_dealt(_finished(x), parts), _dealt(change, parts), strict=True):
            transposed = jax.linear_transpose(lambda kernel, own=own: plain(own, kernel), kernel)
            along_kernel += transposed(own_change)[0]
        return along_x, along_kernel

    differentiable = jax.custom_vjp(plain)
    differentiable.defvjp(forward, backward)
    return differentiable(x, kernel)


def _dealt(x: jax.Array, parts: int) -> list[jax.Array]:
    """Samples dealt out in turns, so that of a batch that is spread over devices each keeps its own."""
    rounds = x.reshape(-1, parts, *x.shape[1:])
    return [rounds[:, part] for part in range(parts)]


def _finished(x: jax.Array) -> jax.Array:
    """``x`` by way of a product with the unit matrix, which XLA fuses with nothing and computes at once.

    Its optimisation barriers are gone by the time that it fuses.
    """
    channels = x.shape[-1]
    unit = jnp.eye(channels, dtype=x.dtype)
    return jnp.matmul(x.reshape(-1, channels), unit, precision=jax.lax.Precision.HIGHEST).reshape(x.shape)
