"""The step that accelerators take, run on a CPU: bfloat16 products, float32 masters, no trick of CPUs.

What it takes in time and memory only an accelerator shows; what it computes shows here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from offchain.data import Fragment
from offchain.models.families import cnn, lstm, mlp, resnet, transformer
from offchain.models.layers.attend import attend
from offchain.models.layers.recurrent import GruModule, LstmModule
from offchain.models.layers.rows import times
from offchain.models.network import build, initialise, to_tensors
from offchain.training import step
from protocol.architecture import Architecture

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 10, 256).astype(np.int32)
IMAGES = Fragment(RNG.integers(0, 256, (256, 8, 8, 1), dtype=np.uint8), LABELS)
SERIES = Fragment(RNG.standard_normal((256, 8, 8)).astype(np.float32), LABELS)
TOKENS = RNG.integers(0, 30, (256, 17)).astype(np.int32)
TOKENS[RNG.random(TOKENS.shape) < 0.5] = 7
TEXT = Fragment(TOKENS[:, :-1], TOKENS[:, 1:])
CASES = {
    "mlp": (mlp((8, 8, 1), 10), IMAGES),
    "cnn": (cnn((8, 8, 1), 10, (8, 16), hidden=(16,)), IMAGES),
    "resnet": (resnet((8, 8, 1), 10, (8, 16)), IMAGES),
    "lstm": (lstm((8, 8), 10), SERIES),
    "gru": (lstm((8, 8), 10, cell="gru"), SERIES),
    "transformer": (transformer((16,), 30, 32, 2, 4, vocabulary=30), TEXT),
}
MOST_OFF = {"cnn": 0.15, "resnet": 0.25}
"""By how much bfloat16 may move a gradient; with labels that are drawn, most of it cancels."""
RECIPE = step.Recipe(64, 3e-3, 0.0, warmup_steps=1, schedule_steps=None, shift=0)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No program of one platform is taken for the other's."""
    step.compiled.cache_clear()
    yield
    step.compiled.cache_clear()


def trained(architecture: Architecture, data: Fragment) -> tuple[step.State, list[float]]:
    """State and mean losses after three dispatches of ten steps."""
    dispatch = step.compiled(architecture, RECIPE)
    state, losses = step.start(architecture, RECIPE, 1, None), []
    for _ in range(3):
        state, loss = dispatch(state, step.on_device(data), jax.random.key(3), np.int32(10), np.float32(1))
        losses.append(float(loss))
    return state, losses


@pytest.mark.parametrize("family", CASES)
def test_it_learns_as_in_float32_and_what_it_keeps_is_float32(family: str) -> None:
    architecture, data = CASES[family]
    _, expected = trained(architecture, data)
    step.compiled.cache_clear()
    with mock.patch.object(jax, "default_backend", lambda: "gpu"):
        state, losses = trained(architecture, data)
    assert losses[-1] < losses[0] and np.allclose(losses, expected, rtol=0.02)
    kept = jax.tree.leaves((state.parameters, state.optimiser))
    assert {value.dtype for value in kept if jnp.issubdtype(value.dtype, jnp.floating)} == {
        np.dtype(np.float32)
    }


@pytest.mark.parametrize("family", CASES)
def test_gradients_are_those_of_float32_but_for_rounding(family: str) -> None:
    """Also of tensors that many samples or positions add to, as a frequent token's row."""
    architecture, data = CASES[family]
    network, parameters = build(architecture, training=True), initialise(architecture, 0)

    def gradient(compute: Any) -> Any:
        def loss(parameters: Any) -> jax.Array:
            narrow = jax.tree.map(lambda value: value.astype(compute), parameters)
            outputs, _ = network.apply(
                {"params": narrow}, step._real(jnp.asarray(data.x), compute), mutable=["statistics"]
            )
            return step.mean_loss(architecture, outputs.astype(jnp.float32), jnp.asarray(data.y))

        return jax.jit(jax.grad(loss))(parameters)

    with mock.patch.object(jax, "default_backend", lambda: "gpu"):
        narrow, exact = gradient(jnp.bfloat16), gradient(jnp.float32)
    for name, ours in to_tensors(narrow).items():
        theirs = to_tensors(exact)[name]
        apart = np.linalg.norm(ours - theirs) / (np.linalg.norm(theirs) + 1e-6)
        assert apart <= MOST_OFF.get(family, 0.06), (name, apart)


@pytest.mark.parametrize("family", CASES)
def test_every_product_takes_bfloat16(family: str) -> None:
    """So that it can run on tensor cores, and no sum was made a product, as it is for CPUs."""
    architecture, data = CASES[family]
    with mock.patch.object(jax, "default_backend", lambda: "gpu"):
        dispatch = step.compiled(architecture, RECIPE)
        state = step.start(architecture, RECIPE, 1, None)
        program = jax.make_jaxpr(dispatch)(state, step.on_device(data), jax.random.key(3), 10, 1.0)
    found = list(operations(program.jaxpr))
    products = [each for each in found if each.primitive.name in ("dot_general", "conv_general_dilated")]
    assert products
    assert all(operand.aval.dtype == jnp.bfloat16 for each in products for operand in each.invars)
    columns = [each.invars[0].aval.shape[0] for each in products if each.primitive.name == "dot_general"]
    assert 2 not in columns, "a sum of rows as a product by two rows"


def test_a_kernel_s_gradient_is_one_product_but_on_cpus() -> None:
    """There a product with the unit matrix turns it, which takes less than what XLA would do."""
    rows, kernel = jnp.ones((256, 32)), jnp.ones((32, 10))

    def count() -> int:
        # Not the same function twice: JAX would remember what it traced.
        program = jax.make_jaxpr(jax.grad(lambda kernel: times(rows, kernel).sum()))(kernel)
        return sum(each.primitive.name == "dot_general" for each in operations(program.jaxpr))

    assert count() == 4
    with mock.patch.object(jax, "default_backend", lambda: "gpu"):
        assert count() == 3


@pytest.mark.parametrize(
    ("module", "bias"), [(LstmModule(1), [-7.0, 10.0, 10.0, 10.0]), (GruModule(1), [0.0, 7.0, 10.0])]
)
def test_what_is_small_beside_a_cell_is_not_lost(module: linen.Module, bias: list[float]) -> None:
    """Next to nothing is forgotten and little let in: in bfloat16 a cell would stand still."""
    x = jnp.zeros((1, 400, 1))
    parameters = dict(jax.tree.map(jnp.zeros_like, module.init(jax.random.key(0), x)["params"]))
    parameters["bias"] = jnp.array(bias)

    def last(compute: Any) -> float:
        narrow = jax.tree.map(lambda value: value.astype(compute), parameters)
        return float(module.apply({"params": narrow}, x.astype(compute))[0, -1, 0])

    assert 0.2 < last(jnp.float32) < 0.5
    assert last(jnp.bfloat16) == pytest.approx(last(jnp.float32), rel=0.02)


def operations(program: Any) -> Iterator[Any]:
    """All of a program, with what it calls and loops over."""
    for each in program.eqns:
        yield each
        for value in each.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from operations(inner)


def test_between_attention_s_products_all_is_float32() -> None:
    """With scores and weights rounded to bfloat16 the gradients below would be off by 5 to 8 %."""
    width, length = 16, 64
    query, key, value = (
        jnp.asarray(RNG.standard_normal((2, 2, length, width)) * scale, jnp.bfloat16) for scale in (4, 4, 1)
    )

    def loss(given: tuple[jax.Array, ...]) -> jax.Array:
        mixed: jax.Array = jnp.square(attend(*given).astype(jnp.float32)).sum()
        return mixed

    narrow = jax.value_and_grad(loss)((query, key, value))
    exact = jax.value_and_grad(loss)(tuple(each.astype(jnp.float32) for each in (query, key, value)))
    assert abs(narrow[0] - exact[0]) < 0.005 * exact[0]
    for ours, theirs in zip(narrow[1], exact[1], strict=True):
        assert ours.dtype == jnp.bfloat16
        apart = jnp.linalg.norm(ours.astype(jnp.float32) - theirs) / jnp.linalg.norm(theirs)
        assert apart < 0.025
