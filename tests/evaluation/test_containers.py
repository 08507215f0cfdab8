"""In whatever container sums are held, and whoever chose it, the integers are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offchain.evaluation import conformance, containers, exact_jax, specification
from offchain.evaluation.bounds import USUAL, Container, Way
from offchain.evaluation.containers import CANDIDATES, REPAYS_FROM, UnknownContainer, fastest, ways
from offchain.evaluation.means import Means
from protocol.architecture import Architecture, CausalAttention, Dense
from tests.evaluation.random_models import architectures, parameters, samples

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "exactness.json").read_text())
CONTAINERS = get_args(Container)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(containers, "_FASTEST", {})
    monkeypatch.delenv(containers.VARIABLE, raising=False)
    yield


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_forced_container_gives_the_agreed_digests(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every kind whose sums differ; ``python -m benchmarks.exactness --container`` runs them all."""
    chosen = ["causal_attention", "conv", *(["depthwise_conv", "lstm"] if container == "int8" else [])]
    kept = {name: conformance.models()[name] for name in chosen}
    monkeypatch.setattr(conformance, "models", lambda: kept)
    found = conformance.run(means=Means(container=container))
    agreed = {row["model"]: row["digest"] for row in GOLDEN["per_model"]}
    assert {name: digest.hex() for name, digest in found.per_model.items()} == {
        name: agreed[name] for name in kept
    }


@settings(max_examples=3, suppress_health_check=list(HealthCheck))
@given(architectures(), st.integers(0, 2**32), st.sampled_from(CONTAINERS), st.sampled_from([0, 12, 45]))
def test_random_models_are_the_specification_in_any_container(
    architecture: Architecture, seed: int, container: Container, spread: int
) -> None:
    rng = np.random.default_rng(seed)
    prepared = specification.prepare(parameters(architecture, rng, spread), architecture)
    x = samples(architecture, rng, 4, images=False)
    wanted = specification.run(prepared, architecture, x)
    found = exact_jax.run(prepared, architecture, x, 4, Means(container=container))
    assert (found.q == wanted.q).all() and (found.fraction == wanted.fraction).all()


@pytest.mark.parametrize("container", CONTAINERS)
def test_full_weights_on_full_values_of_attention_are_exact(container: Container) -> None:
    """A first position attends to itself alone: its weight is 2**15, which no int8 limb holds."""
    architecture = Architecture(
        input_shape=(3, 2), output="next_token", layers=(CausalAttention(heads=1), Dense(features=2))
    )
    rng = np.random.default_rng(0)
    tensors = parameters(architecture, rng, 0)
    x = np.full((2, 3, 2), 1e6, np.float32)
    prepared = specification.prepare(tensors, architecture)
    wanted = specification.run(prepared, architecture, x)
    found = exact_jax.run(prepared, architecture, x, 2, Means(container=container))
    assert (found.q == wanted.q).all() and (found.fraction == wanted.fraction).all()


def slow_but_for(winner: int, clock: list[float], runs: int) -> list[Callable[[], None]]:
    def run(place: int) -> Callable[[], None]:
        def spend() -> None:
            clock[0] += 1.0 if place == winner else 2.0

        return spend

    return [run(place) for place in range(runs)]


@pytest.mark.parametrize("winner", [0, 1, 2])
def test_the_fastest_is_measured_once(winner: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(containers.time, "perf_counter", lambda: clock[0])
    assert fastest("stage", slow_but_for(winner, clock, 3)) == winner
    spent = clock[0]
    assert fastest("stage", slow_but_for(0, clock, 3)) == winner and clock[0] == spent


def test_the_usual_one_wins_ties() -> None:
    assert fastest("tie", [lambda: None]) == 0


def test_what_is_chosen_follows_the_measurement_and_changes_no_integer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    architecture = conformance.models()["family mlp"]
    tensors = conformance.parameters("family mlp", architecture)
    prepared = specification.prepare(tensors, architecture)
    x = conformance.inputs("family mlp", architecture)
    wanted = specification.run(prepared, architecture, x)
    for place in (0, 1, 2):
        monkeypatch.setattr(exact_jax, "fastest", lambda key, runs, place=place: min(place, len(runs) - 1))
        plans = exact_jax.plans_for(prepared, architecture, True, 8, len(x), "measured")
        assert [plan.container for plan in plans if plan][-1] == CANDIDATES[place].weights
        batches = exact_jax.inputs_in_batches(exact_jax.cut(x, 8), 8)
        pieces = list(exact_jax.stream(prepared, architecture, batches, plans))
        assert (np.concatenate([piece.q for piece in pieces]) == wanted.q).all()


def test_only_long_passes_are_measured_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ways("auto", REPAYS_FROM - 1) == ways("auto", None) == ways("usual", 10**6) == (USUAL,)
    assert ways("auto", REPAYS_FROM) == ways("measured", 1) == CANDIDATES
    assert ways("int8", 10**6) == (Way("int8", "int8"),)
    monkeypatch.setenv(containers.VARIABLE, "int64")
    assert ways("auto", 10**6) == (Way("int64", "int64"),)
    assert ways("float32", 1) == (Way("float32", "float32"),)
    monkeypatch.setenv(containers.VARIABLE, "float16")
    with pytest.raises(UnknownContainer, match="no container 'float16': DTN_CONTAINER"):
        ways("auto", 1)
