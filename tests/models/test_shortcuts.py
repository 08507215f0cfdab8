"""Float layers computed another way than Flax does, for speed, give what Flax gives: values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from hypothesis import given, settings
from hypothesis import strategies as st

from offchain.evaluation.quantise import EPSILON
from offchain.models.layers import VOCABULARY
from offchain.models.layers.normalisation import batch_norm
from offchain.models.layers.rows import on_rows
from protocol.architecture import Conv, MaxPool, Padding

PADDINGS = st.sampled_from(["SAME", "VALID"])
STRIDES = st.tuples(st.integers(1, 3), st.integers(1, 3))


def array(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def same(ours: Callable[..., jax.Array], theirs: Callable[..., jax.Array], *given: Any) -> None:
    """Values and gradients agree but for rounding."""
    assert np.allclose(ours(*given), theirs(*given), rtol=1e-4, atol=1e-4)
    weights = array(*theirs(*given).shape, seed=1)
    everything = tuple(range(len(given)))
    found, expected = (
        jax.grad(lambda *given, f=f: jnp.vdot(f(*given), weights), everything)(*given) for f in (ours, theirs)
    )
    for mine, other in zip(found, expected, strict=True):
        assert np.allclose(mine, other, rtol=1e-3, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(3, 9), st.integers(3, 9), st.tuples(st.integers(1, 3), st.integers(1, 3)), STRIDES, PADDINGS
)
def test_convolutions_of_few_columns(
    height: int, width: int, kernel: tuple[int, int], strides: tuple[int, int], padding: Padding
) -> None:
    layer = Conv(features=4, kernel=kernel, strides=strides, padding=padding)
    x, weights = array(2, height, width, 1), array(*kernel, 1, 4)
    plain = linen.Conv(4, kernel, strides, padding, use_bias=False)
    module = VOCABULARY["conv"].module(layer, "conv", True)
    assert isinstance(module, linen.Module)
    bias = {"bias": jnp.zeros(4)}
    same(
        lambda x, k: module.apply({"params": {"kernel": k, **bias}}, x),
        lambda x, k: plain.apply({"params": {"kernel": k}}, x),
        x,
        weights,
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(3, 9), st.integers(3, 9), st.tuples(st.integers(1, 3), st.integers(1, 3)), STRIDES, PADDINGS
)
def test_largest_values_of_windows(
    height: int, width: int, window: tuple[int, int], strides: tuple[int, int], padding: Padding
) -> None:
    for step in (strides, window):
        layer = MaxPool(window=window, strides=step, padding=padding)
        ours = VOCABULARY["max_pool"].module(layer, "pool", True)
        same(ours, lambda x, step=step: linen.max_pool(x, window, step, padding), array(2, height, width, 3))


@pytest.mark.parametrize("rows", [2, 64, 1000])
def test_batch_norm_has_the_gradient_of_its_definition(rows: int) -> None:
    def plain(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        mean = x.mean(axis=0)
        var = jnp.square(x - mean).mean(axis=0)
        return (x - mean) / jnp.sqrt(var + EPSILON) * scale + bias

    x = 3 * array(rows, 5) + 2
    same(lambda *given: batch_norm(*given)[0], plain, x, array(5, seed=2), array(5, seed=3))
    _, (mean, var) = batch_norm(x, jnp.ones(5), jnp.zeros(5))
    assert np.allclose(mean, x.mean(axis=0), atol=1e-5) and np.allclose(var, x.var(axis=0), rtol=1e-4)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_rows_are_what_their_layer_makes_of_each(shape: tuple[int, ...]) -> None:
    kernel = array(4, 6)
    same(lambda x, k: on_rows(lambda rows: rows @ k)(x), lambda x, k: x @ k, array(*shape), kernel)
