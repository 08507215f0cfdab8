"""VRF_Model: one score and one digest per model, close to float32, and a refusal for what is no model."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from offchain.data import Fragment
from offchain.evaluation import conformance
from offchain.evaluation.conformance import stream
from offchain.evaluation.score import EVALUATOR, Scorer, evaluate
from offchain.models.artifact import decode_model, encode_model
from offchain.models.families import cnn, mlp
from offchain.models.layers import VOCABULARY
from offchain.models.network import build, from_tensors
from offchain.training.engine import TrainingConfig, TrainingTask, train
from protocol.architecture import (
    Add,
    Architecture,
    AvgPool,
    Conv,
    Dense,
    GlobalAvgPool,
    Relu,
    Softmax,
    parameter_shapes,
    shapes,
)
from protocol.errors import InvalidArtifact
from protocol.metric import metrics_for

GOLDEN = Path(__file__).parents[1] / "golden" / "exact.json"
GOLDEN_SUITE = GOLDEN.with_name("exactness.json")
REWRITE = "DTN_REWRITE_GOLDEN"

RESIDUAL = Architecture(
    input_shape=(8, 8, 1),
    layers=(
        Conv(features=8),
        Relu(name="stem"),
        Conv(features=8),
        Add(other="stem"),
        AvgPool(),
        Softmax(),
        Conv(features=12, strides=(2, 2), padding="VALID", use_bias=False),
        GlobalAvgPool(),
        Dense(features=10),
        Softmax(),
    ),
)
SUITE = {"mlp": mlp((64,), 10), "cnn": cnn((8, 8, 1), 10), "residual": RESIDUAL}


def fixed_case(name: str) -> tuple[bytes, Architecture, Fragment]:
    """A model and samples made of dyadic rationals, the same everywhere."""
    architecture = SUITE[name]
    tensors = {
        tensor: (stream(f"{name} {tensor}", int(np.prod(shape))) / 2**17).astype(np.float32).reshape(shape)
        for tensor, shape in parameter_shapes(architecture).items()
    }
    size = 50 * int(np.prod(architecture.input_shape))
    raw = stream(f"{name} x", size).reshape(50, *architecture.input_shape)
    x = (raw / 2**13).astype(np.float32) if name == "mlp" else (raw & 255).astype(np.uint8)
    y = (stream(f"{name} y", 50) % shapes(architecture)[-1][0]).astype(np.int32)
    return encode_model(tensors, architecture), architecture, Fragment(x, y)


def test_scores_and_digests_are_the_ones_the_network_agreed_on() -> None:
    """Golden integers: a change here is another version of the evaluator, never a refactoring."""
    found = {"evaluator": EVALUATOR, "cases": {}}
    for name in SUITE:
        model, architecture, fragment = fixed_case(name)
        for metric in metrics_for("classification"):
            one, two = (
                evaluate(model, architecture, [fragment], metric, backend=backend)
                for backend in ("specification", "jax")
            )
            assert one == two
            found["cases"][f"{name} {metric}"] = {
                "score": one.score,
                "digest": one.digest.hex(),
                "mid": hashlib.sha256(model).hexdigest(),
            }
    if os.environ.get(REWRITE):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert json.loads(GOLDEN.read_text()) == found


def test_every_layer_kind_and_family_gives_the_digests_the_network_agreed_on() -> None:
    """The suite that machines compare (``python -m benchmarks.exactness``), by both backends."""
    one, two = conformance.run("specification"), conformance.run("jax")
    assert one == two
    found = {
        "suite": conformance.SUITE,
        "digest": one.digest.hex(),
        "per_model": [{"model": name, "digest": digest.hex()} for name, digest in one.per_model.items()],
    }
    if os.environ.get(REWRITE):
        GOLDEN_SUITE.write_text(json.dumps(found, indent=1) + "\n")
    assert json.loads(GOLDEN_SUITE.read_text()) == found
    kinds = {layer.kind for model in conformance.models().values() for layer in model.layers}
    assert kinds == set(VOCABULARY)


@pytest.fixture(scope="module")
def digits() -> tuple[Fragment, Fragment]:
    data = load_digits()
    images = (data.images * 255 / 16).astype(np.uint8)[..., None]
    labels = data.target.astype(np.int32)
    return Fragment(images[:900], labels[:900]), Fragment(images[900:], labels[900:])


@pytest.mark.parametrize("family", [mlp, cnn])
def test_the_exact_score_is_faithful_to_float32_on_real_data(
    family: object, digits: tuple[Fragment, Fragment]
) -> None:
    training, test = digits
    architecture = family((8, 8, 1), 10)  # type: ignore[operator]
    result = train(
        TrainingTask(architecture, [training], "accuracy"),
        TrainingConfig(max_steps=600, steps_per_dispatch=150),
        checkpoint_dir=None,
        should_stop=lambda: False,
        on_improved=lambda _: None,
        on_progress=lambda _: None,
    )
    assert result.model is not None
    tensors = decode_model(result.model, architecture)
    logits = np.asarray(build(architecture).apply({"params": from_tensors(tensors)}, test.real()), np.float64)
    share = (logits.argmax(axis=-1) == test.y).mean()
    accuracy = evaluate(result.model, architecture, [test], "accuracy")
    assert abs(accuracy.score / 1e6 - share) <= 0.002
    shifted = logits - logits.max(axis=-1, keepdims=True)
    own = np.take_along_axis(shifted, test.y[:, None].astype(int), axis=-1)[:, 0]
    loss = (np.log(np.exp(shifted).sum(axis=-1)) - own).mean()
    scored = Scorer(architecture, test, "cross_entropy").score(tensors)
    assert scored / -1e6 == pytest.approx(loss, rel=0.03)


def test_parameters_in_memory_score_as_their_file_does() -> None:
    for name in SUITE:
        model, architecture, fragment = fixed_case(name)
        for metric in metrics_for("classification"):
            in_memory = Scorer(architecture, fragment, metric).score(decode_model(model, architecture))
            assert in_memory == evaluate(model, architecture, [fragment], metric).score


def test_fragments_are_scored_in_their_order_and_their_cut_does_not_matter() -> None:
    model, architecture, whole = fixed_case("cnn")
    cut = [whole.select(np.arange(20)), whole.select(np.arange(20, 50))]
    assert evaluate(model, architecture, cut, "accuracy") == evaluate(
        model, architecture, [whole], "accuracy"
    )
    turned = evaluate(model, architecture, cut[::-1], "accuracy")
    assert turned.digest != evaluate(model, architecture, cut, "accuracy").digest


def test_what_is_no_model_is_refused_in_one_sentence() -> None:
    model, architecture, fragment = fixed_case("mlp")
    for bad in (b"", model[:-4], model + b"\0\0\0\0"):
        with pytest.raises(InvalidArtifact):
            evaluate(bad, architecture, [fragment], "accuracy")
    with pytest.raises(InvalidArtifact):
        evaluate(model, architecture, [], "accuracy")
    with pytest.raises(InvalidArtifact):
        evaluate(model, SUITE["cnn"], [fragment], "accuracy")
