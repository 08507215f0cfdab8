"""Kernels of our own compute what XLA computes, whatever the sizes, the processor and the threads."""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh

from offchain.data import Fragment
from offchain.models.families import mlp, resnet
from offchain.models.layers import VOCABULARY
from offchain.models.layers.attend import attend
from offchain.models.native import convolution as convolution_module
from offchain.models.native import custom_call
from offchain.models.native import processor as processor_module
from offchain.models.native import product as product_module
from offchain.models.native.convolution import convolve
from offchain.models.native.loops import Loops
from offchain.models.native.processor import Processor, own_kernels, processor
from offchain.models.network import build, initialise
from offchain.training import step
from offchain.training.engine import TrainingConfig
from protocol.architecture import Conv, Padding
from tests.models.test_shortcuts import PADDINGS, STRIDES, array, same

needs_processor = pytest.mark.skipif(
    processor() is None, reason="kernels are for x86 processors with AVX2, and need llvmlite"
)
PROCESSORS = st.sampled_from([Processor(16, 16), Processor(8, 12), Processor(8, 5)])


def convolution(features: int, kernel: tuple[int, int], strides: tuple[int, int], padding: Padding) -> Any:
    layer = Conv(features=features, kernel=kernel, strides=strides, padding=padding, use_bias=False)
    return VOCABULARY["conv"].module(layer, "conv", True)


def called(function: Any, *given: Any) -> int:
    """How many kernels of ours a program calls."""
    return str(jax.make_jaxpr(function)(*given)).count("ffi_call[")


@needs_processor
@settings(max_examples=25)
@given(
    PROCESSORS,
    st.sampled_from([1, 3, 12, 16]),
    st.tuples(st.integers(3, 9), st.integers(3, 20)),
    st.sampled_from([1, 3, 4, 16]),
    st.sampled_from([4, 8, 24, 32]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    STRIDES,
    PADDINGS,
)
@example(Processor(16, 16), 2, (5, 19), 16, 32, (2, 2), (1, 1), "SAME")
def test_direct_convolutions_are_the_usual_ones(
    own: Processor,
    count: int,
    size: tuple[int, int],
    inputs: int,
    features: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding,
) -> None:
    module = convolution(features, kernel, strides, padding)
    plain = linen.Conv(features, kernel, strides, padding, use_bias=False)

    def ours(x: jax.Array, kernel: jax.Array) -> Any:
        with own_kernels(lambda: own):
            return module.apply({"params": {"kernel": kernel}}, x)

    x, weights = array(count, *size, inputs), array(*kernel, inputs, features, seed=2)
    assert called(ours, x, weights) == 1
    same(ours, lambda x, kernel: plain.apply({"params": {"kernel": kernel}}, x), x, weights)


CALLED_AS: Final = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * 3)
EXPORTED: Final = """
define void @one(i64 %chunk, ptr %a, ptr %b, ptr %result) {
  call void @body(i64 %chunk, ptr %a, ptr %b, ptr %result)
  ret void
}
"""


def run_alone(loops: Loops, operands: tuple[Any, Any], like: Any, chunks: Sequence[int]) -> Any:
    """A kernel's result, chunk by chunk, among numbers that must stay and would spoil what they get into."""
    text = f"@chunks = internal constant i64 1\n{loops.text(custom_call._BODY)}{EXPORTED}"
    engine = custom_call._compiled(text)
    run = CALLED_AS(engine.get_function_address("one"))
    among = [np.pad(np.ravel(operand), 512, constant_values=np.nan) for operand in operands]
    result = np.full(np.size(like) + 1024, np.nan, np.float32)
    for chunk in chunks:
        run(chunk, *(each.ctypes.data + 2048 for each in (*among, result)))
    assert np.isnan(result[:512]).all() and np.isnan(result[-512:]).all()
    return result[512:-512].reshape(np.shape(like))


@needs_processor
@settings(max_examples=25)
@given(
    PROCESSORS,
    st.integers(1, 20),
    st.sampled_from([1, 3, 16]),
    st.sampled_from([4, 24, 32]),
    STRIDES,
    st.data(),
)
def test_nothing_beside_its_own_is_read_or_written(
    own: Processor, width: int, inputs: int, outputs: int, strides: tuple[int, int], data: st.DataObject
) -> None:
    """Whatever the order of the chunks."""
    sizes = convolution_module.Convolution(own, 4, 2, width, inputs, outputs, 2, 3, strides)
    x, kernel, y = (np.asarray(array(*shape, seed=3)) for shape in (sizes.x, sizes.kernel, sizes.y))
    layout = ("NHWC", "HWIO", "NHWC")
    plain = partial(
        jax.lax.conv_general_dilated, window_strides=strides, padding="VALID", dimension_numbers=layout
    )
    along_kernel = [
        jax.vjp(lambda kernel, own=own: plain(own[None], kernel), kernel)[1](change[None])[0]
        for own, change in zip(x, y, strict=True)
    ]
    kinds = [
        (convolution_module._write_outputs, 4, (x, kernel), plain(x, kernel)),
        (convolution_module._write_kernel_gradient, sizes.parts, (x, y), along_kernel),
    ]
    for write, chunks, operands, expected in kinds:
        loops = Loops(sizes.lanes)
        write(loops, sizes)
        found = run_alone(loops, operands, expected, data.draw(st.permutations(range(chunks))))
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-3)


@needs_processor
@settings(max_examples=25)
@given(PROCESSORS, st.integers(1, 20), st.integers(1, 9), st.sampled_from([4, 16, 24, 64]), st.data())
def test_products_are_the_usual_ones(
    own: Processor, rows: int, inner: int, columns: int, data: st.DataObject
) -> None:
    """In memory among forbidden numbers, as above."""
    turned, causal, below = (data.draw(st.booleans()) for _ in range(3))
    inner = rows if causal else inner
    product = product_module.Product(own, 3, rows, inner, columns, turned, causal, below)
    a, b = np.array(array(3, rows, inner)), np.asarray(array(3, inner, columns, seed=1))
    if causal:
        a = np.triu(a) if turned else np.tril(a)
    loops = Loops(own.lanes_for(columns))
    product_module._write(loops, product)
    operands = (a.swapaxes(1, 2) if turned else a, b)
    found = run_alone(loops, operands, a @ b, data.draw(st.permutations(range(3))))
    wanted = np.tri(rows, columns, dtype=bool) if below else np.ones((rows, columns), bool)
    assert np.allclose(np.where(wanted, found, 0), np.where(wanted, a @ b, 0), rtol=1e-4, atol=1e-4)
    assert np.isfinite(found).all()


@needs_processor
@settings(max_examples=6)
@given(PROCESSORS, st.sampled_from([4, 12, 20, 64]), st.sampled_from([4, 12, 16]), st.booleans())
def test_attention_by_them_is_the_usual_one(own: Processor, length: int, width: int, large: bool) -> None:
    query, key, value = (array(2, 3, length, width, seed=seed) for seed in range(3))
    key *= 30.0 if large else 1.0

    def ours(*given: jax.Array) -> jax.Array:
        with own_kernels(lambda: own):
            return attend(*given)

    assert called(ours, query, key, value) == 2
    same(ours, attend, query, key, value)


@needs_processor
def test_a_result_does_not_depend_on_who_else_computes() -> None:
    """Operations that run at once share XLA's threads, and take chunks from nobody else's."""
    on = processor()
    assert on is not None

    @jax.jit
    def gradients(x: jax.Array, kernel: jax.Array) -> Any:
        def total(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.square(convolve(on, x, kernel, (1, 1), ((1, 1), (1, 1)))).sum()

        return jax.grad(total, (0, 1))(x, kernel)

    given = [(array(16, 9, 9, 16, seed=seed), array(3, 3, 16, 16, seed=seed)) for seed in range(8)]
    alone = [jax.tree.map(np.asarray, gradients(*each)) for each in given]

    def again(number: int) -> bool:
        found = gradients(*given[number % 8])
        return all(map(np.array_equal, found, alone[number % 8]))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(again, range(400)))


@needs_processor
@pytest.mark.parametrize(
    ("features", "channels", "why"),
    [(10, 16, "outputs fill no vector"), (512, 512, "the kernel does not fit a core's cache")],
)
def test_what_xla_does_better_is_left_to_it(features: int, channels: int, why: str) -> None:
    module = convolution(features, (3, 3), (1, 1), "SAME")

    def apply(x: jax.Array, kernel: jax.Array) -> Any:
        with own_kernels(processor):
            return module.apply({"params": {"kernel": kernel}}, x)

    assert called(apply, jnp.zeros((2, 4, 4, channels)), jnp.zeros((3, 3, channels, features))) == 0, why


def program(mesh: Mesh | None) -> int:
    """Kernels that a step of training calls."""
    architecture, recipe = resnet((8, 8, 1), 3, (16, 32)), TrainingConfig(batch_size=8).recipe()
    step.compiled.cache_clear()
    dispatch = step.compiled(architecture, recipe, mesh)
    data = step.on_device(Fragment(np.zeros((9, 8, 8, 1), np.float32), np.zeros(9, np.int32)))
    state = step.start(architecture, recipe, 0, None)
    found = called(
        lambda state, data, key: dispatch(state, data, key, 1, 1.0), state, data, jax.random.key(0)
    )
    step.compiled.cache_clear()
    return found


@needs_processor
def test_training_on_one_device_convolves_directly_and_a_team_does_not() -> None:
    """XLA would gather a batch that is spread over devices for each such operation."""
    # Outputs and kernels' gradients of six convolutions; gradients of inputs but of the first's, which has
    # one channel, and of the one with strides.
    assert program(None) == 6 + 6 + 4
    assert program(Mesh(np.array(jax.devices()[:1]), ("data",))) == 0


def test_a_network_without_use_for_kernels_does_not_ask_for_them() -> None:
    """To ask for the first time compiles and takes memory."""
    asked: list[None] = []
    architecture, x = mlp((3,), 2, (16,)), jnp.zeros((2, 3))
    with own_kernels(lambda: asked.append(None)):
        build(architecture, training=True).apply({"params": initialise(architecture, 0)}, x)
    assert not asked


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """What the processor is asked of anew, then and afterwards."""
    kept = dict(custom_call._kept)
    custom_call._kept.pop(f"dtn_trial_{getattr(processor(), 'lanes', 0)}", None)
    processor.cache_clear()
    yield
    custom_call._kept.update(kept)
    processor.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_without_a_compiler_xla_convolves() -> None:
    with mock.patch.object(processor_module, "find_spec", lambda name: None):
        assert processor() is None
        assert program(None) == 0


@needs_processor
@pytest.mark.usefixtures("asked_anew")
def test_an_xla_that_calls_operations_otherwise_is_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    refusal = RuntimeError("FFI API version 1.0 is wanted")
    with (
        mock.patch.object(jax.ffi, "register_ffi_target", side_effect=refusal),
        caplog.at_level(logging.WARNING),
    ):
        assert processor() is None
        assert program(None) == 0
    assert "FFI API version 1.0 is wanted" in caplog.text


CACHED = """
import sys
from pathlib import Path
import jax, numpy as np
from offchain.compiled_programs import keep_compiled_programs
from offchain.models.native.convolution import convolve
from offchain.models.native.processor import processor
keep_compiled_programs(Path(sys.argv[1]))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
jax.monitoring.register_event_listener(lambda event, **kwargs: events.append(event))
random = np.random.default_rng(0).standard_normal
x, kernel = random((4, 9, 9, 16)).astype(np.float32), random((3, 3, 16, 32)).astype(np.float32)

@jax.jit
def program(x, kernel):
    # asked for the first time while JAX traces
    return convolve(processor(), x, kernel, (1, 1), ((1, 1), (1, 1)))
y = program(x, kernel)
assert processor() is not None
print(sum("cache_hits" in event for event in events), np.asarray(y).tobytes().hex())
"""


@needs_processor
def test_a_program_kept_on_disk_finds_its_kernels_in_another_process(tmp_path: Path) -> None:
    def run() -> list[str]:
        command = [sys.executable, "-c", CACHED, str(tmp_path)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.split()

    (hits, first), (later_hits, again) = run(), run()
    assert int(hits) < int(later_hits), "the second one compiled anew"
    assert first == again
