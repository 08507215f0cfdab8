"""A dispute names one sample: its proof shows what was claimed of it, and one computation who is right."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from offchain.data import Fragment
from offchain.evaluation import conformance
from offchain.evaluation.arithmetic import Activations
from offchain.evaluation.sample_proof import SampleChecker, committed, prove
from offchain.evaluation.score import evaluate, leaves, outputs_of
from offchain.models.artifact import encode_model
from protocol.crypto import keccak256
from protocol.errors import InvalidArtifact

MODELS = ["family cnn", "family transformer", "family mlp regression"]


@pytest.mark.parametrize("name", MODELS)
def test_one_sample_is_proved_and_checked_without_the_others(name: str) -> None:
    architecture = conformance.models()[name]
    tensors, x = conformance.parameters(name, architecture), conformance.inputs(name, architecture)
    outputs = outputs_of(tensors, architecture, x)
    shape = outputs.q.shape[1:] if architecture.output == "regression" else outputs.q.shape[1:-1]
    y = np.zeros((len(x), *shape), np.float32 if architecture.output == "regression" else np.int32)
    metric = "mse" if architecture.output == "regression" else "cross_entropy"
    digest = evaluate(encode_model(tensors, architecture), architecture, [Fragment(x, y)], metric).digest
    checker = SampleChecker(tensors, architecture)
    for index in (0, 17, len(x) - 1):
        claim = prove(outputs, index)
        assert committed(claim, digest) and checker.correct(claim, x[index])
        lie = dataclasses.replace(claim, outputs=(claim.outputs[0] ^ 1, *claim.outputs[1:]))
        assert not committed(lie, digest) and not checker.correct(lie, x[index])
        elsewhere = dataclasses.replace(claim, index=claim.index + 1)
        assert not committed(elsewhere, digest) and not checker.correct(claim, x[index - 1])


@pytest.mark.parametrize("fractions", [(-2,), (300, -1)])
def test_a_leaf_is_big_endian_on_every_machine(fractions: tuple[int, ...]) -> None:
    q = np.arange(-3, 3).reshape(1, len(fractions), -1) if len(fractions) > 1 else np.arange(-3, 3)[None]
    text = (7).to_bytes(8, "big")
    text += b"".join(fraction.to_bytes(4, "big", signed=True) for fraction in fractions)
    text += b"".join(value.to_bytes(2, "big", signed=True) for value in range(-3, 3))
    shape = (1, len(fractions)) if len(fractions) > 1 else (1,)
    found = leaves(Activations(q, np.array(fractions).reshape(shape)), 7)
    assert found == [keccak256(keccak256(text))]


def test_claims_that_fit_no_encoding_are_false_and_no_crash() -> None:
    outputs = outputs_of(*_mlp(), conformance.inputs("dense", conformance.models()["dense"]))
    claim = prove(outputs, 3)
    hostile = [{"index": -1}, {"index": 2**64}, {"outputs": (2**40,)}, {"fractions": (2**31,)}]
    for change in [*hostile, {"outputs": ()}, {"fractions": ()}, {"siblings": ()}]:
        assert not committed(dataclasses.replace(claim, **change), bytes(32))
    with pytest.raises(ValueError, match="none at place 99"):
        prove(outputs, 99)
    with pytest.raises(InvalidArtifact):
        SampleChecker(*_mlp()).correct(claim, np.zeros(3, np.float32))


def test_checking_one_sample_takes_milliseconds() -> None:
    name = "family transformer"
    architecture = conformance.models()[name]
    tensors, x = conformance.parameters(name, architecture), conformance.inputs(name, architecture)
    checker, claim = SampleChecker(tensors, architecture), prove(outputs_of(tensors, architecture, x), 5)
    times = []
    for _ in range(5):
        start = time.process_time()  # what other processes do does not count
        assert checker.correct(claim, x[5])
        times.append(time.process_time() - start)
    assert min(times) < 0.05


def _mlp() -> tuple[dict[str, np.ndarray], object]:
    architecture = conformance.models()["dense"]
    return conformance.parameters("dense", architecture), architecture
