"""Scoring takes no more memory than its budget, whatever the model and the test set, and scores the same."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from offchain.config import ValidatorConfig
from offchain.data import Fragment
from offchain.evaluation import conformance, exact_jax, memory, specification
from offchain.evaluation.arithmetic import groups_of
from offchain.evaluation.arithmetic_jax import Traced, x64
from offchain.evaluation.bounds import Container, Way
from offchain.evaluation.means import Means
from offchain.evaluation.memory import (
    LEAST_AT_WORK,
    OverBudget,
    model_bytes,
    pass_bytes,
    sample_bytes,
    samples_within,
)
from offchain.evaluation.score import Scorer, evaluate
from offchain.models.artifact import encode_model
from offchain.models.families import mlp
from protocol.architecture import Architecture, CausalAttention, Conv, Dense, Flatten, Lstm, shapes

USUAL = [Way("float32", "float64")]


def arrays_of(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def largest_stage(architecture: Architecture, name: str, way: Way, count: int) -> int:
    """Bytes of the greediest stage of one batch, as its compiled program states them."""
    prepared = specification.prepare(conformance.parameters(name, architecture), architecture)
    plans = exact_jax.plan(prepared, architecture, len(architecture.input_shape) == 3, way)
    inputs = (architecture.input_shape, *shapes(architecture))
    most = 0
    with x64():
        for stage in exact_jax.stages_of(architecture):
            zeros = jnp.zeros((count, *inputs[stage.start]), jnp.float32)
            value = Traced(zeros, jnp.zeros(groups_of(zeros.shape), jnp.int32))
            own = exact_jax.narrowed(prepared)[stage.start : stage.stop]
            others = [value for _ in stage.references]
            # Attention too in one piece, which holds all that its pieces hold.
            run = jax.jit(exact_jax.compiled_stage(stage.layers, plans[stage.start : stage.stop]))
            stated = run.lower(own, value, *others).compile().memory_analysis()
            taken = stated.temp_size_in_bytes + stated.output_size_in_bytes + stated.argument_size_in_bytes
            most = max(most, taken)
    return most


CASES = {
    "conv": Architecture(
        input_shape=(12, 12, 3), layers=(Conv(features=8, kernel=(5, 5)), Flatten(), Dense(features=5))
    ),
    "lstm": Architecture(input_shape=(24, 6), output="next_token", layers=(Lstm(features=16),)),
    "causal_attention": Architecture(
        input_shape=(32, 12), output="next_token", layers=(CausalAttention(heads=3),)
    ),
    "dense": mlp((200,), 10, (400,)),
}


@pytest.mark.parametrize(
    ("name", "container"),
    [(name, container) for name in CASES for container in ("float64", "int8")] + [("conv", "float32")],
)
def test_the_estimate_bounds_what_the_compiled_programs_state(name: str, container: Container) -> None:
    architecture, way = CASES[name], Way(container, container)
    stated = largest_stage(architecture, name, way, 32)
    assert stated <= model_bytes(architecture) + 32 * sample_bytes(architecture, [way])


def test_layers_without_contractions_stay_below_their_estimate() -> None:
    for name in ("layer_norm", "softmax", "add"):
        architecture = conformance.models()[name]
        stated = largest_stage(architecture, name, USUAL[0], 32)
        assert stated <= model_bytes(architecture) + 32 * sample_bytes(architecture, USUAL)


@pytest.mark.parametrize("samples", [1, 7, 500, 10**7])
def test_a_batch_fits_the_budget_and_a_larger_one_would_not(samples: int) -> None:
    for name, architecture in CASES.items():
        for room in (1, 2, 37):
            budget = pass_bytes(architecture, room, LEAST_AT_WORK, USUAL)
            assert samples_within(architecture, budget, USUAL) == room, name
            means = Means(container="usual", memory_bytes=budget)
            size = exact_jax.batch_size_for(architecture, samples, means)
            assert size <= min(room, 2 * samples)
            at_once = exact_jax.batches_at_once(architecture, size, samples, means)
            assert at_once >= LEAST_AT_WORK
            assert pass_bytes(architecture, size, at_once, USUAL) <= budget


def test_a_model_whose_sample_does_not_fit_is_refused_before_anything_is_read() -> None:
    architecture = CASES["conv"]
    least = pass_bytes(architecture, 1, LEAST_AT_WORK, USUAL)
    means = Means(container="usual", memory_bytes=least - 1)
    fragment = Fragment(np.zeros((3, 12, 12, 3), np.uint8), np.zeros(3, np.int32))
    for refused in (
        # Not even whether these bytes are a model is looked at.
        lambda: evaluate(b"", architecture, [fragment], "accuracy", means=means),
        lambda: Scorer(architecture, fragment, "accuracy", means),
    ):
        with pytest.raises(OverBudget, match=f"the budget is {least - 1} bytes"):
            refused()


def test_neither_budget_nor_cut_of_the_test_set_changes_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    name, architecture = "family cnn", conformance.models()["family cnn"]
    tensors, x = conformance.parameters(name, architecture), conformance.inputs(name, architecture)
    y = np.arange(len(x), dtype=np.int32) % shapes(architecture)[-1][0]
    model = encode_model(tensors, architecture)
    found = set()
    for room, edges in ((10**4, [0, 24]), (1, [0, 5, 24]), (3, [0, 1, 2, 23, 24])):
        budget = pass_bytes(architecture, room, LEAST_AT_WORK, USUAL)
        means = Means(container="usual", memory_bytes=budget)
        cut = [Fragment(x[a:b], y[a:b]) for a, b in itertools.pairwise(edges)]
        found.add(evaluate(model, architecture, cut, "cross_entropy", means=means))
        score = Scorer(architecture, Fragment(x, y), "cross_entropy", means).score(tensors)
        assert {score} == {one.score for one in found}
    assert len(found) == 1


def test_every_model_that_documents_admit_but_the_very_largest_fits_the_default() -> None:
    wide = mlp((4096,), 10, (8192, 8192, 8192, 4096))
    assert math.log2(sum(math.prod(shape) for shape in [(4096, 8192), (8192, 8192)])) > 26
    assert samples_within(wide, memory.DEFAULT_BYTES, USUAL) > 1000


def test_a_validator_that_says_nothing_of_memory_has_the_evaluators_own_budget() -> None:
    """The configuration must not import the evaluator, so it repeats the number."""
    assert ValidatorConfig.model_fields["memory_bytes"].default == memory.DEFAULT_BYTES


BUDGET_BYTES = 64 * 2**20
COMPILER_BYTES = 128 * 2**20
"""What XLA takes to compile, and what the allocator keeps of memory that was given back."""
PER_SAMPLE_BYTES = 256
"""The digest's hundred bytes, in Python's containers."""


@pytest.mark.parametrize("family", ["cnn", "transformer"])
def test_a_process_grows_with_the_budget_and_not_with_the_test_set(family: str) -> None:
    script = Path(__file__).with_name("peak_memory.py")
    done = subprocess.run(
        [sys.executable, script, family, str(BUDGET_BYTES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (_, half, whole), (_, before, after) = told["sizes"], told["grown_bytes"]
    assert after <= BUDGET_BYTES + COMPILER_BYTES
    assert after - before <= 8 * 2**20 + PER_SAMPLE_BYTES * (whole - half), (
        "twice the samples, twice the memory"
    )
