"""Float layers computed another way than Flax does, for speed, give what Flax gives: values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from hypothesis import given, settings
from hypothesis import strategies as st

from offchain.evaluation.quantise import EPSILON
from offchain.models.layers import VOCABULARY, kernel_gradient
from offchain.models.layers import softmax as softmax_module
from offchain.models.layers.attend import apart, attend
from offchain.models.layers.normalisation import batch_norm
from offchain.models.layers.rows import RowsDense, on_rows, weighted_sum
from offchain.models.layers.softmax import cross_entropy, softmax
from protocol.architecture import Conv, Gelu, MaxPool, Padding

PADDINGS = st.sampled_from(["SAME", "VALID"])
STRIDES = st.tuples(st.integers(1, 3), st.integers(1, 3))


def array(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@lru_cache(maxsize=4)
def values_and_gradients(*functions: Callable[..., jax.Array]) -> Callable[..., Any]:
    """All in one program for each shape of what is given: compiling is what takes the time."""

    def value_and_gradients(function: Callable[..., jax.Array], weights: jax.Array, *given: Any) -> Any:
        real = [place for place, array in enumerate(given) if jnp.issubdtype(array.dtype, jnp.floating)]
        loss = jax.grad(lambda *given: jnp.vdot(function(*given), weights), tuple(real))
        return function(*given), loss(*given)

    return jax.jit(lambda *given: [value_and_gradients(function, *given) for function in functions])


def same(ours: Callable[..., jax.Array], theirs: Callable[..., jax.Array], *given: Any) -> None:
    """Values and gradients agree but for rounding."""
    weights = array(*jax.eval_shape(theirs, *given).shape, seed=1)
    (mine, found), (other, expected) = values_and_gradients(ours, theirs)(weights, *given)
    assert np.allclose(mine, other, rtol=1e-4, atol=1e-4)
    for mine, other in zip(found, expected, strict=True):
        assert np.allclose(mine, other, rtol=1e-3, atol=1e-3)


@settings(max_examples=50)
@given(
    st.sampled_from([1, 2, 3, 8, 9, 31, 64, 70]),
    st.integers(0, 2**32),
    st.sampled_from([1e-3, 1.0, 80.0]),
    st.booleans(),
)
def test_softmax_and_cross_entropy_are_the_usual_ones(
    classes: int, seed: int, scale: float, masked: bool
) -> None:
    x = scale * array(2, 3, classes, seed=seed)
    if masked:
        x = jnp.where(jnp.arange(classes) % 3 == 0, x, jnp.finfo(jnp.float32).min)
    same(softmax, jax.nn.softmax, x)
    labels = jnp.asarray(np.random.default_rng(seed).integers(0, classes, (2, 3)) // 3 * 3)
    same(cross_entropy, optax.softmax_cross_entropy_with_integer_labels, x, labels)


def plain_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """By its definition."""
    length, width = query.shape[-2:]
    scores = query @ key.swapaxes(-1, -2) / math.sqrt(width)
    seen = jnp.arange(length)[:, None] >= jnp.arange(length)
    return jax.nn.softmax(jnp.where(seen, scores, -jnp.inf)) @ value


@settings(max_examples=50)
@given(
    st.sampled_from([(1, 1), (2, 9), (3, 2), (7, 8), (8, 1), (16, 5), (17, 4), (40, 8)]),
    st.integers(0, 2**32),
    st.sampled_from([1e-3, 1.0, 9.0]),
)
def test_attention_is_a_softmax_between_two_products(
    length_and_width: tuple[int, int], seed: int, scale: float
) -> None:
    query, key, value = (array(2, 3, *length_and_width, seed=seed + own) for own in range(3))
    same(attend, plain_attention, scale * query, key, value)


def test_heads_are_taken_apart_and_their_gradients_put_together() -> None:
    packed = array(2, 5, 3 * 4 * 6)

    def plain(packed: jax.Array) -> jax.Array:
        return jnp.moveaxis(packed.reshape(2, 5, 3, 4, 6), (2, 3), (0, 2))

    same(lambda packed: jnp.stack(apart(packed, 4)), plain, packed)


@pytest.mark.parametrize("rows", [64, 2048, 4096])
def test_a_sum_of_rows_does_not_compute_them_again_for_each_column(rows: int) -> None:
    """XLA's CPU backend fuses a product by one vector below 16 KiB with what made the rows."""
    program = jax.jit(lambda x: weighted_sum(jnp.tanh(x) * jnp.exp(x), 0.5)).lower(array(rows, 256)).compile()
    entry = program.as_text().split("ENTRY ")[1]
    assert " dot(" in entry or "ynn_fusion" in entry


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_largest_of_a_row_is_the_largest_whatever_the_signs(dtype: Any) -> None:
    top = np.finfo(np.float32).max
    rows = [
        [-3.0, -2.5, -7.0],
        [0.0, -0.0, -1.0],
        [-1e-40, -1e-38, -1.0],
        [-np.inf, -top, -top],
        [1.0, np.inf, 2.0],
    ]
    for row in rows:
        assert softmax_module.largest(jnp.asarray(row, dtype)) == jnp.asarray(max(row), dtype)
    for sign in (1.0, -1.0):
        broken = jnp.asarray([0.0, sign * np.nan, 1.0], dtype)
        assert jnp.isnan(softmax(broken)).all()
        assert jnp.isnan(cross_entropy(broken, jnp.int32(0)))


def test_small_batches_are_not_cut_into_parts() -> None:
    """Their steps are short, and the compiler would take twice as long."""
    layer = Conv(features=4, kernel=(3, 3), strides=(1, 1), padding="SAME", use_bias=False)
    module: Any = VOCABULARY["conv"].module(layer, "conv", True)

    def convolutions(x: jax.Array) -> int:
        """In the program of the kernel's gradient."""
        kernel = jnp.zeros((3, 3, 16, 4))
        loss = jax.grad(lambda k: module.apply({"params": {"kernel": k}}, x).sum())
        return str(jax.make_jaxpr(loss)(kernel)).count("conv_general_dilated[")

    assert convolutions(jnp.zeros((64, 8, 8, 16))) <= 2 < convolutions(jnp.zeros((64, 28, 28, 16)))


@settings(max_examples=25)
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


@settings(max_examples=10)
@given(
    st.sampled_from([1, 3, 12, 16]),
    st.tuples(st.integers(3, 9), st.integers(3, 9)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    STRIDES,
    PADDINGS,
)
def test_convolutions_of_many_channels_have_their_gradients(
    count: int, size: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], padding: Padding
) -> None:
    layer = Conv(features=4, kernel=kernel, strides=strides, padding=padding, use_bias=False)
    plain: Any = linen.Conv(4, kernel, strides, padding, use_bias=False)
    module: Any = VOCABULARY["conv"].module(layer, "conv", True)
    with mock.patch.object(kernel_gradient, "_LEAST_VALUES", 0):
        same(
            lambda x, k: module.apply({"params": {"kernel": k}}, x),
            lambda x, k: plain.apply({"params": {"kernel": k}}, x),
            array(count, *size, 17),
            array(*kernel, 17, 4),
        )


@settings(max_examples=25)
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


@pytest.mark.parametrize("features", [2, 7])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (16, 5)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_layers(shape: tuple[int, ...], features: int, use_bias: bool) -> None:
    ours: Any = RowsDense(features, use_bias)
    theirs: Any = linen.Dense(features, use_bias=use_bias)
    first = jax.random.key(0)
    fresh = [module.init(first, jnp.zeros((1, 5))) for module in (ours, theirs)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *fresh))
    given = (array(*shape), array(5, features, seed=2), *([array(features, seed=3)] if use_bias else []))

    def parameters(kernel: jax.Array, *bias: jax.Array) -> dict[str, Any]:
        return {"params": dict(zip(("kernel", "bias"), (kernel, *bias), strict=False))}

    same(
        lambda x, *own: on_rows(lambda rows: ours.apply(parameters(*own), rows))(x),
        lambda x, *own: theirs.apply(parameters(*own), x),
        *given,
    )


def test_gelu_in_training_is_that_of_scoring() -> None:
    x = jnp.linspace(-12, 12, 4001)
    same(VOCABULARY["gelu"].module(Gelu(), "gelu", True), partial(linen.gelu, approximate=False), x)
    assert np.allclose(
        jax.grad(lambda x: VOCABULARY["gelu"].module(Gelu(), "gelu", True)(x).sum())(x),
        jax.grad(lambda x: linen.gelu(x, approximate=False).sum())(x),
        atol=1e-6,
    )
