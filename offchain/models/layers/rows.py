"""Layers over vectors, applied to one matrix of rows: faster on CPUs, and no different elsewhere.

XLA's CPU backend computes gradients that sum over two axes more slowly than those over one: for kernels three
times, for biases ten times. Values differ by rounding alone.

Source: design section 8 ("as fast as the best hand-written loop"); `python -m benchmarks.training`.
"""

from __future__ import annotations

import jax

from offchain.models.layers.kind import Module


def on_rows(module: Module) -> Module:
    """``module``, which takes ``[rows, a]`` to ``[rows, b]``, for ``[..., a]``."""

    def apply(x: jax.Array) -> jax.Array:
        y = module(x.reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:-1], y.shape[-1])

    return apply
