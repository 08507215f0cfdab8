"""The fast backend is the specification, bit for bit: for any architecture, parameters, samples, batch."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offchain.data import Fragment
from offchain.evaluation import conformance, exact_jax, specification
from offchain.evaluation.arithmetic import spread
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import plan_contraction
from offchain.evaluation.place import NowhereToScore, device
from offchain.evaluation.quantise import quantise_linear
from offchain.models.network import build, from_tensors
from protocol.architecture import (
    Add,
    Architecture,
    AvgPool,
    Conv,
    Dense,
    Flatten,
    MaxPool,
    Relu,
    parameter_shapes,
)
from protocol.errors import InvalidArtifact
from tests.evaluation.random_models import architectures, parameters, samples


def assert_equal(
    architecture: Architecture, tensors: dict[str, np.ndarray], x: np.ndarray, *sizes: int
) -> None:
    prepared = specification.prepare(tensors, architecture)
    wanted = specification.run(prepared, architecture, x)
    for size in sizes:
        found = exact_jax.run(prepared, architecture, x, size)
        assert (found.q == wanted.q).all() and (found.fraction == wanted.fraction).all()


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
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
    assert_equal(CLASSIC, tensors, samples(CLASSIC, rng, 23, images), 1, 7, 64)


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


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_batches_side_by_side_come_in_order_and_never_too_many_at_once(at_once: int) -> None:
    rng = np.random.default_rng(3)
    tensors, x = parameters(CLASSIC, rng, 1), samples(CLASSIC, rng, 23, images=True)
    prepared = specification.prepare(tensors, CLASSIC)
    plans = exact_jax.plans_for(prepared, CLASSIC, True, 2, len(x), "usual")
    wanted, read = specification.run(prepared, CLASSIC, x), 0

    def batches() -> Iterator[tuple[int, Traced]]:
        nonlocal read
        for batch in exact_jax.inputs_in_batches(exact_jax.cut(x, 2), 2):
            read += 1
            yield batch

    given = 0
    for outputs in exact_jax.stream(prepared, CLASSIC, batches(), plans, at_once):
        # One more than are at work, where two are looked at to see whether there is more than one.
        assert read - given // 2 <= max(2, at_once) + 1
        assert (outputs.q == wanted.q[given : given + 2]).all()
        given += len(outputs.q)
    assert given == len(x)


def test_who_stops_listening_or_fails_leaves_nothing_running() -> None:
    rng = np.random.default_rng(4)
    tensors, x = parameters(CLASSIC, rng, 1), samples(CLASSIC, rng, 40, images=True)
    prepared = specification.prepare(tensors, CLASSIC)
    plans = exact_jax.plans_for(prepared, CLASSIC, True, 2, len(x), "usual")

    def batches(sound: int) -> Iterator[tuple[int, Traced]]:
        yield from itertools.islice(exact_jax.inputs_in_batches(exact_jax.cut(x, 2), 2), sound)
        raise InvalidArtifact("the rest cannot be read")

    outputs = exact_jax.stream(prepared, CLASSIC, batches(20), plans, 3)
    next(outputs)
    outputs.close()  # type: ignore[attr-defined]
    with pytest.raises(InvalidArtifact, match="the rest"):
        list(exact_jax.stream(prepared, CLASSIC, batches(9), plans, 3))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("exact")]


def test_a_tpu_alone_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_but_tpus(platform: str) -> list[jax.Device]:
        raise RuntimeError(f"Unknown backend {platform}")

    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(jax, "devices", none_but_tpus)
    with pytest.raises(NowhereToScore, match="JAX_PLATFORMS=tpu,cpu"):
        device()


def forget_compiled() -> None:
    """Programs of before know nothing of another device."""
    exact_jax.compiled.cache_clear()
    exact_jax.compiled_stage.cache_clear()


def test_convolutions_by_matrix_products_equal_direct_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that accelerators take, forced here."""
    rng = np.random.default_rng(5)
    tensors, x = parameters(CLASSIC, rng, 1), samples(CLASSIC, rng, 4, images=False)
    forget_compiled()
    monkeypatch.setattr("offchain.models.layers.linear.jax.default_backend", lambda: "gpu")
    try:
        assert_equal(CLASSIC, tensors, x, 4)
    finally:
        forget_compiled()


def held_exactly(name: str, tensor: np.ndarray) -> np.ndarray:
    """Kernels as their 8 bits hold them, so that what differs from float is activations alone."""
    if not name.endswith(("kernel", "recurrent")):
        return tensor
    linear = quantise_linear(tensor, None)
    return np.float32(linear.weight * linear.multiplier * 2.0 ** -float(linear.multiplier_fraction))


@pytest.mark.parametrize("name", conformance.models())
def test_the_integers_stand_for_what_the_float_model_computes(name: str) -> None:
    architecture = conformance.models()[name]
    tensors = {
        tensor: held_exactly(tensor, value)
        for tensor, value in conformance.parameters(name, architecture).items()
    }
    x = conformance.inputs(name, architecture)
    found = specification.run(specification.prepare(tensors, architecture), architecture, x)
    values = found.q * np.exp2(-spread(found.fraction, found.q).astype(np.float64))
    real = build(architecture).apply({"params": from_tensors(tensors)}, Fragment(x, x).real())
    assert np.abs(values - np.asarray(real)).max() <= 1e-3 * np.abs(real).max()


def test_a_position_of_a_causal_model_depends_on_none_after_it() -> None:
    for name in ("family transformer", "lstm", "gru", "causal_attention"):
        architecture = conformance.models()[name]
        prepared = specification.prepare(conformance.parameters(name, architecture), architecture)
        x = conformance.inputs(name, architecture)
        changed = x.copy()
        changed[:, 4:] = 3 if architecture.vocabulary else 1e9
        one, two = (specification.run(prepared, architecture, values) for values in (x, changed))
        assert (one.q[:, :4] == two.q[:, :4]).all() and (one.fraction[:, :4] == two.fraction[:, :4]).all()
        assert (one.q[:, 4:] != two.q[:, 4:]).any()
