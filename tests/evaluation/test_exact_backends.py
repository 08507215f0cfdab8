"""The fast backend is the specification, bit for bit: for any architecture, parameters, samples, batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offchain.evaluation import exact_jax, specification
from offchain.evaluation.bounds import plan_contraction
from offchain.models.network import build, from_tensors
from protocol.architecture import (
    Add,
    Architecture,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Relu,
    Softmax,
    parameter_shapes,
)

PADDINGS = st.sampled_from(["SAME", "VALID"])
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Small architectures of every kind in every order that fits."""
    layers: list[Layer] = []
    named: list[str] = []
    image = draw(st.booleans())
    shape = (draw(st.integers(4, 7)), draw(st.integers(4, 7)), draw(st.integers(1, 3))) if image else (6,)
    for index in range(draw(st.integers(0, 4)) if image else 0):
        conv = Conv(
            features=draw(st.integers(1, 5)),
            kernel=draw(SIZES),
            strides=draw(SIZES),
            padding="SAME",
            use_bias=draw(st.booleans()),
        )
        pool = draw(st.sampled_from([MaxPool, AvgPool]))(window=draw(SIZES), strides=(1, 1), padding="SAME")
        layer = draw(st.sampled_from([conv, pool, Relu(), Softmax()]))
        layers.append(layer.model_copy(update={"name": f"n{index}"}))
        named.append(f"n{index}")
        if draw(st.booleans()):
            layers += [layer.model_copy(update={"strides": (1, 1)}) if layer.kind == "conv" else Relu()]
            layers.append(Add(other=named[-1]))
    if image:
        layers.append(draw(st.sampled_from([Flatten(), GlobalAvgPool()])))
    for _ in range(draw(st.integers(0, 2))):
        layers += [Dense(features=draw(st.integers(1, 9)), use_bias=draw(st.booleans()))]
        layers.append(draw(st.sampled_from([Relu(), Softmax()])))
    return Architecture(input_shape=shape, layers=(*layers, Dense(features=draw(st.integers(2, 5)))))


def parameters(architecture: Architecture, rng: np.random.Generator, spread: int) -> dict[str, np.ndarray]:
    """Random tensors whose scales lie up to ``2**spread`` apart, some rows zero, some values denormal."""
    tensors = {}
    for name, shape in parameter_shapes(architecture).items():
        value = rng.standard_normal(shape) * np.exp2(rng.integers(-spread, spread + 1, shape[-1:]))
        value = value * np.exp2(rng.integers(-spread, spread + 1))
        value[..., rng.random(shape[-1]) < 0.1] = 0.0
        tensors[name] = np.where(rng.random(shape) < 0.02, 1e-44, value).astype(np.float32)
    return tensors


def samples(architecture: Architecture, rng: np.random.Generator, count: int, images: bool) -> np.ndarray:
    shape = (count, *architecture.input_shape)
    if images:
        x = rng.integers(0, 256, shape, np.uint8)
    else:
        scale = np.exp2(rng.integers(-40, 41, (count,) + (1,) * (len(shape) - 1)))
        x = (rng.standard_normal(shape) * scale).astype(np.float32)
    x[0] = 0
    return x


def assert_equal(
    architecture: Architecture, tensors: dict[str, np.ndarray], x: np.ndarray, *sizes: int
) -> None:
    prepared = specification.prepare(tensors, architecture)
    wanted = specification.run(prepared, architecture, x)
    for size in sizes:
        found = exact_jax.run(prepared, architecture, x, size)
        assert (found.q == wanted.q).all() and (found.fraction == wanted.fraction).all()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(architectures(), st.integers(0, 2**32), st.sampled_from([0, 2, 12, 45]), st.booleans())
def test_both_backends_give_the_same_integers(
    architecture: Architecture, seed: int, spread: int, images: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = samples(architecture, rng, 5, images)
    assert_equal(architecture, parameters(architecture, rng, spread), x, 5)


CLASSIC = Architecture(
    input_shape=(9, 7, 2),
    layers=(
        Conv(features=6, kernel=(3, 2), strides=(2, 1), padding="VALID"),
        Relu(name="stem"),
        Conv(features=6),
        Add(other="stem"),
        AvgPool(window=(2, 3), strides=(2, 2), padding="SAME"),
        MaxPool(padding="SAME"),
        Flatten(),
        Dense(features=8),
        Relu(),
        Dense(features=4),
    ),
)


@pytest.mark.parametrize("images", [True, False])
def test_the_batch_size_changes_nothing(images: bool) -> None:
    rng = np.random.default_rng(3)
    tensors = parameters(CLASSIC, rng, 2)
    assert_equal(CLASSIC, tensors, samples(CLASSIC, rng, 23, images), 1, 2, 7, 23, 64)


def test_a_sample_scores_the_same_alone_and_in_company() -> None:
    rng = np.random.default_rng(4)
    prepared = specification.prepare(parameters(CLASSIC, rng, 2), CLASSIC)
    x = samples(CLASSIC, rng, 6, images=False)
    together = specification.run(prepared, CLASSIC, x)
    for index in range(len(x)):
        alone = specification.run(prepared, CLASSIC, x[index : index + 1])
        assert (alone.q[0] == together.q[index]).all() and alone.fraction[0] == together.fraction[index]


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-38, 1.0, -3.4e38, 3.4e38])
def test_extreme_parameters_and_samples_neither_overflow_nor_differ(value: float) -> None:
    tensors = {name: np.full(shape, value, np.float32) for name, shape in parameter_shapes(CLASSIC).items()}
    for extreme in (3.4e38, 1e-45, -3.4e38):
        x = np.full((2, *CLASSIC.input_shape), extreme, np.float32)
        x[1, 0] *= -1
        assert_equal(CLASSIC, tensors, x, 2)


@pytest.mark.parametrize("fan_in", [1000, 1100, 5000, 40000])
def test_wide_layers_are_exact_however_they_have_to_be_cut(fan_in: int) -> None:
    rng = np.random.default_rng(fan_in)
    wide = Architecture(input_shape=(fan_in,), layers=(Dense(features=3),))
    # Every weight at its limit and every sample near its own: the sums are as large as sums get.
    kernel = np.where(rng.random((fan_in, 3)) < 0.9, 1, -1).astype(np.float32)
    tensors = {"0.dense.kernel": kernel, "0.dense.bias": np.array([1e9, 0, -1], np.float32)}
    x = np.where(rng.random((3, fan_in)) < 0.9, 1, -0.999).astype(np.float32)
    if fan_in > 1032:
        assert plan_contraction(specification.prepare(tensors, wide)[0].weight, 32639).parts > 1
    assert_equal(wide, tensors, x, 3)


def test_convolutions_by_matrix_products_equal_direct_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that accelerators take, forced here."""
    rng = np.random.default_rng(5)
    tensors, x = parameters(CLASSIC, rng, 1), samples(CLASSIC, rng, 4, images=False)
    exact_jax.compiled.cache_clear()
    monkeypatch.setattr("offchain.models.layers.linear.jax.default_backend", lambda: "gpu")
    try:
        assert_equal(CLASSIC, tensors, x, 4)
    finally:
        exact_jax.compiled.cache_clear()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(architectures(), st.integers(0, 2**32))
def test_the_integers_stand_for_what_the_float_model_computes(architecture: Architecture, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tensors, x = parameters(architecture, rng, 0), samples(architecture, rng, 8, images=True)
    prepared = specification.prepare(tensors, architecture)
    found = specification.run(prepared, architecture, x)
    real = np.asarray(
        build(architecture).apply({"params": from_tensors(tensors)}, np.float32(x) / np.float32(255))
    )
    values = found.q * np.exp2(-found.fraction.astype(np.float64))[:, None]
    size = max(float(np.abs(real).max()), 1.0)
    for scale in (float(np.abs(tensors[name]).max()) for name in tensors if name.endswith("kernel")):
        size *= max(1.0, scale)
    assert np.abs(values - real).max() <= 0.1 * size * math.sqrt(len(architecture.layers))
