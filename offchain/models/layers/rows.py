"""Layers over vectors, applied to one matrix of rows: faster on CPUs, and as usual elsewhere.

XLA's CPU backend computes gradients that sum over two axes more slowly than those over one: for kernels three
times, for biases ten times; and it sums columns slowly whatever their number, unless the sum is a product.
A product's transpose may take half as long as the product. Values differ by rounding alone. Elsewhere sums
stay sums, which XLA fuses with what made the rows, so that these need not be in memory.

Source: design section 8 ("as fast as the best hand-written loop"); `python -m benchmarks.training`.
"""

from __future__ import annotations

from typing import Final

import jax
import jax.numpy as jnp
from flax import linen

from offchain.models.layers.kind import Module

_FEW: Final = 8
"""Times as many rows as outputs make a product with the unit matrix cheap."""


def on_rows(module: Module) -> Module:
    """``module``, which takes ``[rows, a]`` to ``[rows, b]``, for ``[..., a]``."""

    def apply(x: jax.Array) -> jax.Array:
        y = module(x.reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:-1], y.shape[-1])

    return apply


def weighted_sum(rows: jax.Array, weight: float) -> jax.Array:
    """``weight`` times the sum over ``[rows, columns]``; on CPUs a product.

    By two vectors of half the weight: XLA fuses a product by one short vector with whatever made the
    rows, and computes these anew for each, column by column.
    """
    if jax.default_backend() != "cpu":
        # In float32 until it is summed, whatever the rows are.
        return (weight * rows.astype(jnp.float32).sum(axis=0)).astype(rows.dtype)
    weights = jnp.full((2, len(rows)), weight / 2, rows.dtype)
    return jnp.matmul(weights, rows, precision=jax.lax.Precision.HIGHEST).sum(axis=0)


@jax.custom_vjp
def plus(rows: jax.Array, bias: jax.Array) -> jax.Array:
    """``bias`` added to each row; its gradient is a sum of rows."""
    return rows + bias


def _plus(rows: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return rows + bias, None


def _plus_gradient(_: None, change: jax.Array) -> tuple[jax.Array, jax.Array]:
    return change, weighted_sum(change, 1.0)


plus.defvjp(_plus, _plus_gradient)


@jax.custom_vjp
def times(rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """``[rows, inputs]`` times ``[inputs, outputs]``."""
    return rows @ kernel


def _times(rows: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return rows @ kernel, (rows, kernel)


def _times_gradient(kept: tuple[jax.Array, jax.Array], change: jax.Array) -> tuple[jax.Array, jax.Array]:
    rows, kernel = kept
    inputs, outputs = kernel.shape
    if jax.default_backend() == "cpu" and outputs < inputs and _FEW * outputs <= len(rows):
        # XLA would turn a transpose back into the slower product, but not a product with the unit matrix.
        unit = jnp.eye(outputs, dtype=rows.dtype)
        along_kernel = jnp.einsum("oi,op->ip", change.T @ rows, unit, precision=jax.lax.Precision.HIGHEST)
    else:
        along_kernel = rows.T @ change
    return change @ kernel.T, along_kernel


times.defvjp(_times, _times_gradient)


class RowsDense(linen.Module):
    """``linen.Dense`` on ``[rows, inputs]``: the same parameters, the same values."""

    features: int
    use_bias: bool = True

    @linen.compact
    def __call__(self, rows: jax.Array) -> jax.Array:
        kernel = self.param("kernel", linen.initializers.lecun_normal(), (rows.shape[-1], self.features))
        y = times(rows, kernel)
        return plus(y, self.param("bias", linen.initializers.zeros, (self.features,))) if self.use_bias else y
