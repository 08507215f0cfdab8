"""Model files and data fragments: what is written is read back, what is hostile is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from offchain.data import Form, Fragment, concatenate, decode_fragment, encode_fragment, form_of
from offchain.models.artifact import decode_model, encode_model
from offchain.models.families import cnn, lstm, mlp, transformer
from offchain.models.network import build, from_tensors, initialise, to_tensors
from offchain.tensors import MAX_HEADER_BYTES, write_tensors
from protocol.architecture import Architecture, parameter_shapes
from protocol.errors import InvalidArtifact

SMALL = mlp((3,), 2, (4,))
SALT = bytes(range(32))


def tensors_of(architecture: Architecture) -> dict[str, np.ndarray]:
    return to_tensors(initialise(architecture, 1))


@pytest.mark.parametrize("architecture", [SMALL, cnn((8, 8, 1), 10)])
def test_parameters_survive_their_file(architecture: Architecture) -> None:
    tensors = tensors_of(architecture)
    again = decode_model(encode_model(tensors, architecture), architecture)
    assert {name: value.shape for name, value in again.items()} == parameter_shapes(architecture)
    assert all((again[name] == tensors[name]).all() for name in tensors)
    x = np.ones((2, *architecture.input_shape), np.float32)
    assert build(architecture).apply({"params": from_tensors(again)}, x).shape[0] == 2


def test_equal_parameters_give_equal_bytes_whatever_their_order() -> None:
    tensors = tensors_of(SMALL)
    turned = {name: tensors[name] for name in reversed(tensors)}
    assert encode_model(tensors, SMALL) == encode_model(turned, SMALL)


def rewritten(model: bytes, change: Callable[[dict], None], data: bytes | None = None) -> bytes:
    """The file with its header changed."""
    size = int.from_bytes(model[:8], "little")
    header = json.loads(model[8 : 8 + size])
    change(header)
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + (model[8 + size :] if data is None else data)


def first(header: dict) -> dict:
    return header["0.dense.kernel"]


def with_value(value: float) -> bytes:
    tensors = {name: tensor.copy() for name, tensor in tensors_of(SMALL).items()}
    tensors["0.dense.bias"][0] = value
    return write_tensors(tensors)


def hostile_models() -> dict[str, bytes]:
    tensors = tensors_of(SMALL)
    good = encode_model(tensors, SMALL)
    fewer = {name: tensor for name, tensor in tensors.items() if name != "0.dense.bias"}
    integers = {**tensors, "0.dense.bias": np.zeros(4, np.int32)}
    overlap = [0, 16]
    return {
        "nothing": b"",
        "noise": b"\x93NUMPY" + bytes(100),
        "cut off": good[:-1],
        "one byte more": good + b"\0",
        "header past the end": (1 << 19).to_bytes(8, "little") + b"{}",
        "header too large": (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + bytes(MAX_HEADER_BYTES + 1),
        "header size of 2^63": (1 << 63).to_bytes(8, "little") + good[8:],
        "header not JSON": (4).to_bytes(8, "little") + b"nope",
        "header a list": (2).to_bytes(8, "little") + b"[]",
        "header too deep": (200_000).to_bytes(8, "little") + b"[" * 200_000,
        "header names a tensor twice": (lambda raw: len(raw).to_bytes(8, "little") + raw)(b'{"a":1,"a":2}'),
        "tensor missing": write_tensors(fewer),
        "tensor too many": write_tensors({**tensors, "x": np.zeros(1, np.float32)}),
        "tensor of integers": write_tensors(integers),
        "tensor of another shape": write_tensors({**tensors, "0.dense.kernel": np.zeros((4, 3), np.float32)}),
        "tensors of another architecture": encode_model(tensors_of(mlp((3,), 2, (5,))), mlp((3,), 2, (5,))),
        "overlap": rewritten(good, lambda h: h["2.dense.bias"].update(data_offsets=overlap, shape=[4])),
        "offset beyond the end": rewritten(good, lambda h: first(h).update(data_offsets=[0, 1 << 40])),
        "negative offset": rewritten(good, lambda h: first(h).update(data_offsets=[-48, 0])),
        "huge shape": rewritten(good, lambda h: first(h).update(shape=[1 << 40, 1 << 40])),
        "shape of fractions": rewritten(good, lambda h: first(h).update(shape=[3.0, 4])),
        "unknown type": rewritten(good, lambda h: first(h).update(dtype="F64")),
        "extra key": rewritten(good, lambda h: first(h).update(note="hello")),
        "metadata": write_tensors(tensors, {"author": "me"}),
        "NaN": with_value(float("nan")),
        "infinity": with_value(float("inf")),
        "minus infinity": with_value(float("-inf")),
    }


@pytest.mark.parametrize("case", hostile_models())
def test_a_hostile_model_file_is_refused_and_always_for_the_same_reason(case: str) -> None:
    data = hostile_models()[case]
    with pytest.raises(InvalidArtifact) as first_time:
        decode_model(data, SMALL)
    with pytest.raises(InvalidArtifact) as second_time:
        decode_model(bytes(data), SMALL)
    assert str(first_time.value) == str(second_time.value) != ""


def test_zero_and_denormal_parameters_are_fine() -> None:
    tensors = {name: np.full_like(value, 1e-45) for name, value in tensors_of(SMALL).items()}
    tensors["0.dense.bias"][:] = -0.0
    assert set(decode_model(encode_model(tensors, SMALL), SMALL)) == set(tensors)


def test_a_fragment_survives_its_file_and_its_hash_hides_it_behind_the_salt() -> None:
    x, y = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1), np.array([0, 1, 2], np.int32)
    data = encode_fragment(x, y, SALT)
    again = decode_fragment(data, Form((2, 2, 1), None, (), 3))
    assert (again.x == x).all() and (again.y == y).all() and again.count == 3
    assert data == encode_fragment(x, y, SALT) != encode_fragment(x, y, SALT[::-1])


def hostile_fragments() -> dict[str, bytes]:
    x, y, salt = np.zeros((3, 4), np.float32), np.array([0, 1, 1], np.int32), {"salt": SALT.hex()}
    nan = x.copy()
    nan[1, 1] = np.nan
    return {
        "no salt": write_tensors({"x": x, "y": y}),
        "salt too short": write_tensors({"x": x, "y": y}, {"salt": "00"}),
        "salt not hex": write_tensors({"x": x, "y": y}, {"salt": "g" * 64}),
        "extra metadata": write_tensors({"x": x, "y": y}, {**salt, "more": ""}),
        "extra tensor": write_tensors({"x": x, "y": y, "z": y}, salt),
        "no labels": write_tensors({"x": x}, salt),
        "labels of bytes": write_tensors({"x": x, "y": y.astype(np.uint8)}, salt),
        "samples of integers": write_tensors({"x": x.astype(np.int32), "y": y}, salt),
        "other sample shape": write_tensors({"x": x[:, :3], "y": y}, salt),
        "fewer labels than samples": write_tensors({"x": x, "y": y[:2]}, salt),
        "label beyond the classes": write_tensors({"x": x, "y": y + 1}, salt),
        "negative label": write_tensors({"x": x, "y": y - 1}, salt),
        "NaN": write_tensors({"x": nan, "y": y}, salt),
        "infinity": write_tensors({"x": np.full_like(x, np.inf), "y": y}, salt),
    }


@pytest.mark.parametrize("case", hostile_fragments())
def test_a_hostile_fragment_is_refused(case: str) -> None:
    with pytest.raises(InvalidArtifact):
        decode_fragment(hostile_fragments()[case], Form((4,), None, (), 2))


def test_tokens_series_and_real_targets_survive_their_files() -> None:
    tokens = np.array([[0, 5, 8], [1, 2, 3]], np.int32)
    numbers = np.array([[0.5, -1e-45], [3e38, 0]], np.float32)
    series = np.ones((2, 3, 2), np.float32)
    labels = np.array([0, 1], np.int32)
    writer = transformer((3,), 9, 4, 1, 2, vocabulary=9)
    cases = [
        (tokens, tokens, form_of(writer, 9)),
        (series, labels, form_of(lstm((3, 2), 2), 2)),
        (series, numbers, form_of(lstm((3, 2), 2, output="regression"), None)),
    ]
    for x, y, form in cases:
        again = decode_fragment(encode_fragment(x, y, SALT), form)
        assert (again.x == x).all() and (again.y == y).all() and again.y.dtype == y.dtype
        for other in (form._replace(classes=None if form.classes else 9), form._replace(target_shape=(7,))):
            with pytest.raises(InvalidArtifact):
                decode_fragment(encode_fragment(x, y, SALT), other)
    with pytest.raises(InvalidArtifact, match="tokens must lie"):
        decode_fragment(encode_fragment(tokens + 1, tokens, SALT), form_of(writer, 9))
    with pytest.raises(InvalidArtifact, match="tokens must lie"):
        encode_fragment(tokens - 1, tokens, SALT)


def test_a_client_learns_before_publishing_what_would_be_refused() -> None:
    x, y = np.full((2, 2), np.nan, np.float32), np.zeros(2, np.int32)
    for arguments in ((x, y, SALT), (np.zeros((2, 2)), y, SALT), (np.zeros_like(x), y, b"")):
        with pytest.raises(InvalidArtifact):
            encode_fragment(*arguments)


def test_fragments_join_in_their_order_and_never_mix_types() -> None:
    a = Fragment(np.zeros((2, 1), np.float32), np.array([0, 1], np.int32))
    b = Fragment(np.ones((1, 1), np.float32), np.array([2], np.int32))
    assert concatenate([b, a]).y.tolist() == [2, 0, 1]
    for wrong in ([], [a, Fragment(np.zeros((1, 1), np.uint8), b.y)]):
        with pytest.raises(InvalidArtifact):
            concatenate(wrong)
