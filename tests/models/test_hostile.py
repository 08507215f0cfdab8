"""Files and documents sent by an enemy: only typed refusals leave, in bounded time and memory."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offchain.data import Form, decode_fragment
from offchain.evaluation import conformance
from offchain.models.artifact import decode_model, encode_model
from offchain.models.estimate import estimate
from offchain.models.families import build_family, mlp
from offchain.models.layers import VOCABULARY
from offchain.tensors import MAX_HEADER_BYTES, open_tensors, write_tensors
from protocol.architecture import Architecture
from protocol.errors import InvalidArtifact, InvalidDocument

SMALL = mlp((3,), 2, (4,))
GOOD = encode_model(conformance.parameters("hostile", SMALL), SMALL)
FORM = Form((3,), None, (), 2)
QUICK = settings(max_examples=150, suppress_health_check=list(HealthCheck))

SECONDS, BYTES = 2.0, 32 << 20
"""What refusing a file of a megabyte, or any document, may cost; seconds of the processor."""


def bounded(call: Callable[[], Any]) -> Any:
    """What ``call`` returns or raises, in the time and memory stated.

    It is called twice, since it takes several times as long while every allocation is counted.
    """
    start = time.thread_time()
    with contextlib.suppress(InvalidArtifact, InvalidDocument):
        call()
    assert time.thread_time() - start < SECONDS
    tracemalloc.start()
    try:
        return call()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < BYTES


def refused_or_read(data: bytes) -> None:
    with contextlib.suppress(InvalidArtifact):
        bounded(lambda: open_tensors(data))
    with contextlib.suppress(InvalidArtifact):
        bounded(lambda: decode_model(data, SMALL))
    with contextlib.suppress(InvalidArtifact):
        bounded(lambda: decode_fragment(data, FORM))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 20),
    st.sampled_from([2**31, 2**48 - 1, 2**48, 2**63, 2**64, 10**40]),
    st.floats(),
    st.sampled_from(["F32", "F64", "I32", "U8", "BF16", "", "\ud800", "0.dense.kernel"]),
)


def _maps(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", "x", "y", "0.dense.kernel"])
    return st.dictionaries(keys, inner, max_size=4)


JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | _maps(inner), max_leaves=12)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "I32", "U8"]) | SCALARS,
        "shape": st.lists(st.integers(0, 5) | SCALARS, max_size=9) | JSON,
        "data_offsets": st.lists(st.integers(0, 64) | SCALARS, max_size=3) | JSON,
    }
)
NAMES = st.sampled_from(["x", "y", "0.dense.kernel", "0.dense.bias", "2.dense.kernel", "a" * 100_000])


@QUICK
@given(st.dictionaries(NAMES, ENTRIES | JSON, max_size=4), st.binary(max_size=64))
def test_any_header_over_any_bytes_is_read_or_refused(header: dict[str, Any], data: bytes) -> None:
    raw = json.dumps(header).encode()
    refused_or_read(len(raw).to_bytes(8, "little") + raw + data)


@QUICK
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6), st.integers(0, 9))
def test_a_damaged_model_is_read_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    refused_or_read(bytes(data[: len(data) - cut]))


def headers_of_a_megabyte() -> dict[str, bytes]:
    entry = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    many = json.dumps({f"t{i}": entry for i in range(14_000)})
    return {
        "one tensor over and over": many.encode(),
        "one long name": json.dumps({"n" * 1_000_000: {}}).encode(),
        "nested lists": b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        "a number of a million digits": b'{"a":{"dtype":"F32","shape":[' + b"9" * 1_000_000 + b"]}}",
        "spaces": b" " * MAX_HEADER_BYTES,
        "ten thousand dimensions": json.dumps({"a": {**entry, "shape": [2] * 10_000}}).encode(),
    }


@pytest.mark.parametrize("case", headers_of_a_megabyte())
def test_the_largest_header_costs_little_and_its_reason_is_short(case: str) -> None:
    raw = headers_of_a_megabyte()[case]
    data = len(raw).to_bytes(8, "little") + raw + b"\0"
    with pytest.raises(InvalidArtifact) as reason:
        bounded(lambda: decode_fragment(data, FORM))
    assert len(str(reason.value)) < 300


def test_a_file_that_claims_terabytes_allocates_none() -> None:
    header = {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    raw = json.dumps(header).encode()
    with pytest.raises(InvalidArtifact):
        bounded(lambda: open_tensors(len(raw).to_bytes(8, "little") + raw))


SIZES = st.sampled_from([0, 1, 2, 3, 7, 64, 4096, 65_536, 65_537, 2**31, -1]) | SCALARS
LAYERS = st.fixed_dictionaries(
    {"kind": st.sampled_from([*VOCABULARY, "magic"])},
    optional={
        "features": SIZES,
        "vocabulary": SIZES,
        "heads": SIZES,
        "kernel": st.lists(SIZES, max_size=3),
        "strides": st.lists(SIZES, max_size=3),
        "window": st.lists(SIZES, max_size=3),
        "name": st.sampled_from(["a", "b", "", "\ud800"]),
        "other": st.sampled_from(["a", "b"]),
        "slope_permille": SIZES,
    },
)


@QUICK
@given(
    st.lists(SIZES, max_size=5),
    st.lists(LAYERS, max_size=6),
    st.sampled_from(["classification", "regression", "next_token", "x"]),
)
def test_any_architecture_is_admitted_or_refused_before_anything_is_allocated(
    input_shape: list[Any], layers: list[Any], output: str
) -> None:
    document = {"input_shape": input_shape, "layers": layers, "output": output}
    with contextlib.suppress(InvalidDocument):
        bounded(lambda: estimate(Architecture.model_validate(document)))


def test_the_deepest_and_the_largest_are_refused_or_known_in_time() -> None:
    norm, dense = {"kind": "layer_norm"}, {"kind": "dense", "features": 65_536}
    deep = {"input_shape": [8], "layers": [norm] * 255 + [{"kind": "dense", "features": 2}]}
    found = bounded(lambda: estimate(Architecture.model_validate(deep)))
    assert found.parameters == 255 * 16 + 18
    for layers in ([norm] * 100_000, [dense, dense], [dense] * 256):
        document = {"input_shape": [65_536], "layers": layers}
        with pytest.raises(InvalidDocument):
            bounded(lambda given=document: Architecture.model_validate(given))


@QUICK
@given(
    st.dictionaries(
        st.sampled_from(
            ["family", "input_shape", "outputs", "hidden", "layers", "heads", "features", "channels", "what"]
        ),
        st.sampled_from(["mlp", "cnn", "resnet", "lstm", "transformer"])
        | st.lists(SIZES, max_size=4)
        | SIZES,
        max_size=6,
    )
)
def test_any_configuration_of_a_family_is_built_or_refused(config: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidDocument):
        bounded(lambda: build_family({"family": "mlp", "input_shape": [8], "outputs": 2, **config}))


def test_a_family_is_built_from_one_small_configuration() -> None:
    config = {"family": "transformer", "input_shape": [16], "outputs": 65, "vocabulary": 65, "features": 32}
    model = build_family(config)
    assert model.output == "next_token" and model.vocabulary == 65
    assert build_family({**config, "layers": 1, "output": "classification"}).layers[-1].kind == "dense"
    for wrong in (
        {"family": "gan"},
        {"depth": 3},
        {"heads": 5},
        {"layers": 65_536},
        {"features": "32"},
        {"vocabulary": 0},
    ):
        with pytest.raises(InvalidDocument):
            build_family({**config, **wrong})


def test_an_estimate_counts_what_the_model_has() -> None:
    found = estimate(mlp((10,), 3, (20,)), batch_size=2)
    assert found.parameters == 10 * 20 + 20 + 20 * 3 + 3 and found.model_bytes == 4 * found.parameters
    assert found.flops_per_sample == 2 * (200 + 20 + 60)
    assert found.training_bytes > 4 * found.model_bytes


def test_values_that_are_no_numbers_are_refused_wherever_they_stand() -> None:
    for value in (np.nan, np.inf, -np.inf):
        tensors = conformance.parameters("hostile", SMALL)
        tensors["2.dense.kernel"] = tensors["2.dense.kernel"].copy()
        tensors["2.dense.kernel"][-1, -1] = value
        with pytest.raises(InvalidArtifact, match="NaN or infinity"):
            decode_model(write_tensors(tensors), SMALL)
