"""What a task document may ask for: every accepted architecture is well formed, every other is refused
with the layer that is at fault."""

from __future__ import annotations

import pytest

from offchain.evaluation import conformance
from offchain.models.families import cnn
from offchain.models.layers import VOCABULARY
from protocol import architecture as vocabulary
from protocol.architecture import (
    Add,
    Architecture,
    Conv,
    Dense,
    Flatten,
    MaxPool,
    Relu,
    Softmax,
    parameter_count,
    parameter_shapes,
    shapes,
)
from protocol.errors import InvalidDocument


def test_every_kind_of_the_document_has_a_row_in_the_vocabulary() -> None:
    union = vocabulary.Layer.__origin__  # type: ignore[attr-defined]
    assert {kind.model_fields["kind"].default for kind in union.__args__} == set(VOCABULARY)


def test_tensors_are_named_by_layer_and_shaped_by_what_comes_before() -> None:
    small = Architecture(
        input_shape=(9, 8, 3),
        layers=(Conv(features=4, strides=(2, 2)), Relu(), MaxPool(), Flatten(), Dense(features=5)),
    )
    assert shapes(small) == ((5, 4, 4), (5, 4, 4), (2, 2, 4), (16,), (5,))
    assert parameter_shapes(small) == {
        "0.conv.kernel": (3, 3, 3, 4),
        "0.conv.bias": (4,),
        "4.dense.kernel": (16, 5),
        "4.dense.bias": (5,),
    }
    assert parameter_count(small) == 108 + 4 + 80 + 5


@pytest.mark.parametrize("architecture", list(conformance.models().values()))
def test_an_architecture_survives_its_json(architecture: Architecture) -> None:
    again = Architecture.model_validate_json(architecture.model_dump_json())
    assert again == architecture and hash(again) == hash(architecture)


def dense(features: object = 2) -> dict[str, object]:
    return {"kind": "dense", "features": features}


REFUSED = {
    "no layer": ([8], [], "layers"),
    "unknown kind": ([8], [{"kind": "magic"}], "layer 0"),
    "unknown key": ([8], [{**dense(), "activation": "relu"}], "layer 0"),
    "zero features": ([8], [dense(0)], "layer 0"),
    "features as text": ([8], [dense("2")], "layer 0"),
    "features as a fraction": ([8], [dense(2.0)], "layer 0"),
    "features as a truth value": ([8], [dense(True)], "layer 0"),
    "a dimension too large": ([8], [dense(2**16 + 1)], "layer 0"),
    "dense on an image, and no flatten": ([8, 8, 1], [dense()], "classification"),
    "layer norm on an image": ([8, 8, 1], [{"kind": "layer_norm"}, dense()], "layer 0: layer_norm"),
    "embedding after another layer": (
        [8],
        [dense(), {"kind": "embedding", "vocabulary": 9, "features": 2}],
        "layer 1: embedding",
    ),
    "heads that do not divide": ([8, 6], [{"kind": "causal_attention", "heads": 4}], "layer 0: causal"),
    "attention on a vector": ([8], [{"kind": "causal_attention", "heads": 4}], "layer 0: causal"),
    "lstm on an image": ([8, 8, 1], [{"kind": "lstm", "features": 4}], "layer 0: lstm"),
    "attention over too long a sequence": (
        [4096, 8],
        [{"kind": "causal_attention", "heads": 8}, {"kind": "last"}],
        "layer 0: causal_attention: needs 134217728 values",
    ),
    "a sequence too long": (
        [4097],
        [{"kind": "embedding", "vocabulary": 9, "features": 2}, {"kind": "last"}],
        "4097 positions",
    ),
    "too many recurrent steps": (
        [4096, 1],
        [{"kind": "lstm", "features": 1}] * 3 + [{"kind": "last"}, dense()],
        "12288 recurrent steps",
    ),
    "a slope of one": ([8], [{"kind": "leaky_relu", "slope_permille": 1000}, dense()], "layer 0"),
    "a slope as a fraction": ([8], [{"kind": "leaky_relu", "slope_permille": 0.5}, dense()], "layer 0"),
    "conv on a vector": ([8], [{"kind": "conv", "features": 2}, dense()], "layer 0: conv"),
    "window larger than image": ([2, 2, 1], [{"kind": "max_pool", "window": [3, 3]}], "layer 0: max_pool"),
    "add without a partner": ([8], [dense(), {"kind": "add", "other": "later"}], "layer 1: add"),
    "add of other shapes": (
        [8],
        [{**dense(3), "name": "a"}, dense(), {"kind": "add", "other": "a"}],
        "layer 2",
    ),
    "one name twice": ([8], [{**dense(), "name": "a"}, {**dense(), "name": "a"}], "layer 1"),
    "too many layers": ([8], [dense()] * 257, "layers"),
    "too many parameters": ([2**16], [dense(2**14)], "parameters"),
    "sums too long": (
        [64, 64, 2**10],
        [{"kind": "conv", "features": 2, "kernel": [64, 64]}],
        "layer 0: conv",
    ),
    "outputs too many": ([2**12, 2**12, 1], [{"kind": "conv", "features": 2}], "layer 0: conv"),
    "too much work": (
        [512, 512, 16],
        [{"kind": "conv", "features": 64, "kernel": [64, 64]}, {"kind": "global_avg_pool"}],
        "multiply-adds",
    ),
    "no classes": ([8, 8, 1], [{"kind": "relu"}], "classification"),
    "one class": ([8], [dense(1)], "classification"),
    "no parameter": ([8], [{"kind": "relu"}], "parameters"),
    "softmax alone": ([8], [{"kind": "softmax"}], "softmax"),
    "empty input": ([], [dense()], "input_shape"),
    "input with a zero": ([0], [dense()], "input_shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_well_formed_is_refused_with_its_place(case: str) -> None:
    input_shape, layers, place = REFUSED[case]
    with pytest.raises(InvalidDocument, match=place):
        Architecture.model_validate({"input_shape": input_shape, "layers": layers})


def test_a_next_token_model_has_an_output_for_each_position() -> None:
    layers = ({"kind": "embedding", "vocabulary": 9, "features": 2}, dense(9))
    document = {"input_shape": [5], "output": "next_token", "layers": layers}
    model = Architecture.model_validate(document)
    assert shapes(model)[-1] == (5, 9) and model.vocabulary == 9
    for wrong in ({"output": "classification"}, {"layers": (*layers, {"kind": "last"})}):
        with pytest.raises(InvalidDocument, match="ends in"):
            Architecture.model_validate({**document, **wrong})


def test_a_softmax_at_the_end_belongs_to_the_metric() -> None:
    plain = Architecture(input_shape=(4,), layers=(Dense(features=3),))
    ended = Architecture(input_shape=(4,), layers=(Dense(features=3), Softmax()))
    assert ended.computed_layers == plain.computed_layers


def test_a_residual_sum_may_refer_to_any_earlier_layer() -> None:
    layers = (Dense(features=4, name="stem"), Relu(), Dense(features=4), Add(other="stem"))
    assert shapes(Architecture(input_shape=(7,), layers=layers))[-1] == (4,)


def test_dropout_is_in_training_alone() -> None:
    plain, dropped = cnn((8, 8, 1), 10), cnn((8, 8, 1), 10, dropout_permille=250)
    kinds = [layer.kind for layer in dropped.layers]
    assert kinds.count("dropout") == 2 and [kind for kind in kinds if kind != "dropout"] == [
        layer.kind for layer in plain.layers
    ]
    assert parameter_count(dropped) == parameter_count(plain)
