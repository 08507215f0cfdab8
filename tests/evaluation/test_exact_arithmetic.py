"""The integers of exact-1 are what exact fractions say they are, at every rounding, for any float32."""

from __future__ import annotations

import ctypes
import math
import mmap
import platform
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction as Exact
from typing import get_args

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from offchain.evaluation import arithmetic, arithmetic_jax, bounds, quantise, tables
from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, FINEST, Activations
from offchain.evaluation.arithmetic_jax import x64
from offchain.evaluation.exact_jax import quantise_fast

ANY_FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)


def half_up(value: Exact) -> int:
    return math.floor(value + Exact(1, 2))


def power(exponent: int) -> Exact:
    return Exact(2) ** int(exponent)


def exact(value: float) -> Exact:
    return Exact(float(value))


@given(arrays(np.float32, 7, elements=ANY_FLOAT32))
def test_a_float32_is_read_without_loss(values: np.ndarray) -> None:
    mantissa, exponent = quantise.dyadic(values)
    for value, m, e in zip(values, mantissa, exponent, strict=True):
        assert exact(value) == int(m) * power(e)
        assert m == 0 or 2**23 <= abs(m) < 2**24


@given(arrays(np.float32, (5, 4), elements=ANY_FLOAT32), arrays(np.float32, 4, elements=ANY_FLOAT32))
def test_weights_multipliers_and_biases_round_the_exact_quotient_once(
    kernel: np.ndarray, bias: np.ndarray
) -> None:
    linear = quantise.quantise_linear(kernel, bias)
    assert linear.bias is not None
    for channel in range(4):
        largest = max(abs(exact(value)) for value in kernel[:, channel])
        expected = [half_up(127 * exact(value) / largest) if largest else 0 for value in kernel[:, channel]]
        assert linear.weight[:, channel].tolist() == expected
        assert linear.multiplier[channel] == half_up(largest / 127 * power(linear.multiplier_fraction))
        assert linear.bias[channel] == half_up(exact(bias[channel]) * power(linear.bias_fraction))
    assert (2**14 <= linear.multiplier.max() < 2**15) or not kernel.any()


@given(
    # Of multiples of 127 half a step is a float32 often enough.
    st.integers(2**23, 2**24 - 1) | st.integers(66053, 132103).map(lambda count: 127 * count),
    st.integers(-127, 127),
    st.integers(0, 18),
    st.integers(-1, 1),
    st.sampled_from([-149, -126, -100, 0, 90]),
)
def test_a_weight_beside_half_a_step_goes_to_the_side_on_which_it_lies(
    top: int, step: int, apart: int, beside: int, exponent: int
) -> None:
    weight = ((2 * step - 1) * top * 2**apart // 254 + beside) / 2**apart
    kernel = np.array([[top], [min(max(weight, -top), top)]], np.float64) * 2.0**exponent
    kernel = kernel.astype(np.float32)
    linear = quantise.quantise_linear(kernel, None)
    assert linear.weight[1, 0] == half_up(127 * exact(kernel[1, 0]) / exact(kernel[0, 0]))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sets a register of x86")
def test_values_are_read_alike_where_the_processor_flushes_denormals() -> None:
    rng = np.random.default_rng(0)
    normal, denormal = rng.standard_normal((2, 40, 6)).astype(np.float32)
    given = [normal, normal * np.float32(1e-40), normal * np.float32(1e-20), normal.copy(), normal.copy()]
    given[3][:, :2] = denormal[:, :2] * np.float32(1e-40)
    given[4][:, :2] = rng.integers(1, 9, (40, 2)).astype(np.uint32).view(np.float32)
    given += [values.T.copy() for values in given]

    def read() -> list[list[int]]:
        return [
            np.asarray(part).tolist()
            for x in given
            for part in (
                *quantise.quantise_linear(x, x[0])[:5],
                *quantise.quantise_inputs(x),
                *quantise_fast(x),
            )
        ]

    def flushed() -> tuple[float, list[list[int]]]:
        flush_denormals()
        return float(np.float32(1e-40) * np.ones(16, np.float32)[0]), read()

    # The register is the thread's own, and goes with it.
    with ThreadPoolExecutor(1) as alone:
        product, found = alone.submit(flushed).result()
    assert product == 0 and found == read()


def flush_denormals() -> None:
    """This thread takes and makes no denormals, as libraries built with ``-ffast-math`` have it."""
    load = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    load.write(b"\x0f\xae\x17\xc3")  # ldmxcsr [rdi]; ret
    control = ctypes.c_uint32(0x1F80 | 0x8040)
    start = ctypes.addressof(ctypes.c_char.from_buffer(load))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(start)(ctypes.addressof(control))


@given(arrays(np.float32, (3, 5), elements=ANY_FLOAT32))
def test_a_sample_takes_the_finest_fraction_in_which_it_fits(x: np.ndarray) -> None:
    read = quantise.quantise_inputs(x)
    for row, q, fraction in zip(x, read.q, read.fraction, strict=True):
        largest = max(abs(exact(value)) for value in row)
        if largest == 0:
            assert fraction == FINEST and not q.any()
            continue
        assert q.tolist() == [half_up(exact(value) * power(fraction)) for value in row]
        assert abs(q).max() <= ACTIVATION_LIMIT < half_up(largest * power(int(fraction) + 1))
    q, fraction = quantise_fast(x)
    assert (q == read.q).all() and (fraction == read.fraction).all()


def test_an_image_is_read_in_4096ths() -> None:
    read = quantise.quantise_inputs(np.arange(256, dtype=np.uint8)[None])
    assert read.q[0].tolist() == [half_up(Exact(value * 4096, 255)) for value in range(256)]


@given(st.lists(st.integers(-(2**59), 2**59), min_size=1, max_size=5), st.integers(0, 80))
def test_shifts_round_half_up(values: list[int], shift: int) -> None:
    shifted = arithmetic.round_shift(np.array(values), np.int64(shift))
    assert shifted.tolist() == [half_up(Exact(value, 2**shift)) for value in values]


@given(st.lists(st.integers(-(2**59), 2**59), min_size=1, max_size=5))
def test_normalising_never_saturates_and_never_shifts_further_than_it_must(values: list[int]) -> None:
    read = arithmetic.normalise(np.array([values]), np.array([7]))
    if not any(values):
        assert read.fraction[0] == FINEST
        return
    shift = 7 - int(read.fraction[0])
    assert shift >= 0 and abs(read.q).max() <= ACTIVATION_LIMIT
    assert read.q[0].tolist() == [half_up(Exact(value, 2**shift)) for value in values]
    if shift:
        assert half_up(Exact(max(map(abs, values)), 2 ** (shift - 1))) > ACTIVATION_LIMIT


def near(reach: int) -> st.SearchStrategy[int]:
    """Integers of up to ``reach`` bits, most of them where a shift begins to be one bit longer."""
    edges = st.tuples(
        st.sampled_from([2**15, 2 * ACTIVATION_LIMIT, 2 * ACTIVATION_LIMIT + 1, 2**16 - 1]),
        st.integers(0, reach - 16),
        st.integers(-2, 2),
    ).map(lambda edge: max(-(2**reach), min(2**reach, (edge[0] << edge[1]) // 2 + edge[2])))
    return st.one_of(edges, edges.map(int.__neg__), st.integers(-(2**reach), 2**reach), st.just(0))


@pytest.mark.parametrize(("container", "reach"), [("float32", 22), ("float64", 51), ("int64", 59)])
def test_both_backends_normalise_alike(container: str, reach: int) -> None:
    @settings(max_examples=100)
    @given(arrays(np.int64, (3, 5), elements=near(reach)))
    def check(values: np.ndarray) -> None:
        wanted = arithmetic.normalise(values, np.array([7, 0, -3]))
        with x64():
            found = arithmetic_jax.normalise(
                jnp.asarray(values.astype(container)), jnp.asarray([7, 0, -3], jnp.int32)
            )
        assert (np.asarray(found.q) == wanted.q).all()
        assert (np.asarray(found.fraction) == wanted.fraction).all()

    check()


@given(
    st.lists(st.integers(-ACTIVATION_LIMIT, ACTIVATION_LIMIT), min_size=2, max_size=2),
    st.lists(st.integers(-60, 60), min_size=2, max_size=2),
)
def test_a_sum_is_within_one_unit_of_the_exact_sum(q: list[int], fractions: list[int]) -> None:
    one, two = (
        Activations(np.array([[value]]), np.array([f])) for value, f in zip(q, fractions, strict=True)
    )
    total = arithmetic.add(one, two)
    wanted = sum((value * power(-f) for value, f in zip(q, fractions, strict=True)), Exact(0))
    unit = power(-total.fraction[0])
    coarse_unit = power(-min(fractions)) / 2**arithmetic.HEADROOM_BITS
    assert abs(int(total.q[0, 0]) * unit - wanted) <= unit / 2 + coarse_unit / 2


@given(
    arrays(np.int64, (2, 4), elements=st.integers(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)), st.integers(-20, 40)
)
def test_losses_are_those_of_real_logarithms_to_sixteen_bits(q: np.ndarray, fraction: int) -> None:
    distance = tables.distances(q, np.full(2, fraction), np)
    total = tables.power(distance, np).sum(axis=-1)
    for row, found in zip(distance, tables.logarithm(total), strict=True):
        real = math.log(sum(math.exp(-int(value) / 2**16) for value in row))
        assert abs(int(found) / 2**16 - real) < 1.0 / 2**16


@pytest.mark.parametrize("container", get_args(bounds.Container))
def test_the_worst_that_a_layer_can_hold_fits_the_container_its_plan_names(
    container: bounds.Container,
) -> None:
    reach = {"float32": 2**24, "int8": 2**31 - 1, "float64": 2**52, "int64": 2**60}
    for fan_in in (1, 4, 5, 16, 1032, 1033, 4096, 32768, 40000, 140_000, 2**20):
        worst = np.full((fan_in, 1), 127, np.int8)
        plan = bounds.plan_contraction(worst, ACTIVATION_LIMIT, container)
        limb = ACTIVATION_LIMIT if plan.limbs == 1 else bounds.LIMB_LIMIT
        assert plan.container == container
        assert -(-fan_in // plan.parts) * 127 * limb <= reach[container]
        assert fan_in * 127 * ACTIVATION_LIMIT * 2**15 + 2**48 < reach[plan.wide]
    with pytest.raises(bounds.UnprovenBound):
        bounds.plan_wide(2**46)


def test_int8_never_takes_what_does_not_fit_eight_bits() -> None:
    small = np.ones((4, 1), np.int8)
    assert bounds.plan_contraction(small, 127, "int8").limbs == 1
    assert bounds.plan_contraction(small, 128, "int8").limbs == 2
    assert bounds.plan_contraction(small, ACTIVATION_LIMIT, "int8").limbs == 2


def test_a_container_that_is_not_proved_gives_way_to_float64() -> None:
    huge = np.full((64, 64, 1, 1), 127, np.int8)
    assert bounds.plan_contraction(huge, ACTIVATION_LIMIT, "float32").container == "float64"
    assert bounds.plan_product(2**11, "float32") == "float64"
    assert bounds.plan_product(2**10, "float32") == "float32"
    assert bounds.plan_product(2**11, "int8") == "int8"
    with pytest.raises(bounds.UnprovenBound):
        bounds.plan_product(2**31, "int64")


@settings(max_examples=20)
@given(st.integers(1, 2**24))
def test_a_mean_divides_by_the_count(count: int) -> None:
    multiplier, fraction = quantise.quantise_mean(count)
    assert 2**14 <= multiplier <= 2**15 and multiplier == half_up(power(fraction) / count)
