"""The layer vocabulary: how a task document says which model is to be trained.

An architecture is a list of layers; each takes the output of the layer before it, and ``add`` takes in
also the output of an earlier, named layer. Guarantees: an ``Architecture`` that exists is well formed:
every shape fits, every size is within the bounds below, every reference points backwards; so that what
training, evaluation and artifact checks allocate is known before anything runs.

This file knows nothing of how a layer computes: ``offchain/models/layers`` holds, for each kind here,
its Flax module and its exact integer definition. A new kind is one class in ``layers.py`` or
``sequence_layers.py``, one name in ``Layer`` below and one row there.

Source: PoT section 2.5 "Validation Definiteness" (the network supplies the validation function and the
mainstream layers it covers); design section 7 for the list.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler

from protocol.errors import InvalidDocument
from protocol.layers import (
    MAX_DIMENSION,
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Dimension,
    Dropout,
    Flatten,
    Gelu,
    GlobalAvgPool,
    LayerNorm,
    LeakyRelu,
    MaxPool,
    Misfit,
    Padding,
    Relu,
    RmsNorm,
    Shape,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
)
from protocol.sequence_layers import (
    CausalAttention,
    Embedding,
    Gru,
    Last,
    Lstm,
    PositionalEmbedding,
)

__all__ = [
    "MAX_DIMENSION",
    "MAX_LAYERS",
    "MAX_POSITIONS",
    "Add",
    "Architecture",
    "AvgPool",
    "BatchNorm",
    "CausalAttention",
    "Conv",
    "Dense",
    "DepthwiseConv",
    "Dropout",
    "Embedding",
    "Flatten",
    "Gelu",
    "GlobalAvgPool",
    "Gru",
    "Last",
    "Layer",
    "LayerNorm",
    "LeakyRelu",
    "Lstm",
    "MaxPool",
    "Output",
    "Padding",
    "PositionalEmbedding",
    "Relu",
    "RmsNorm",
    "Shape",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Tanh",
    "parameter_count",
    "parameter_shapes",
    "recurrent_steps",
    "scratch",
    "shapes",
    "work",
]

MAX_LAYERS: Final = 256
MAX_RANK: Final = 4
MAX_PARAMETERS: Final = 2**28
"""Scalars in all tensors of a model together: a gibibyte of float32."""
MAX_ACTIVATIONS: Final = 2**24
"""Scalars in one layer's output, or in what it needs meanwhile (attention: heads times the square of the
length), for one sample: bounds the memory that one sample can ask for."""
MAX_FAN_IN: Final = 2**20
"""Terms in one sum: keeps every exact accumulator below 2**60 (proof in docs/exact-1.md)."""
MAX_WORK: Final = 2**36
"""Multiply-adds that one sample costs: bounds the time that one sample can ask for."""
MAX_STEPS: Final = 2**13
"""Steps of all recurrent layers together: they cannot be done in parallel, however small they are."""
MAX_POSITIONS: Final = 2**12
"""Length of a sequence: keeps the sums of attention and the states of recurrence within their proofs."""

Layer = Annotated[
    Dense
    | Conv
    | DepthwiseConv
    | MaxPool
    | AvgPool
    | GlobalAvgPool
    | Flatten
    | Add
    | Relu
    | LeakyRelu
    | Sigmoid
    | Tanh
    | Gelu
    | Silu
    | Softmax
    | BatchNorm
    | LayerNorm
    | RmsNorm
    | Dropout
    | Embedding
    | PositionalEmbedding
    | Lstm
    | Gru
    | CausalAttention
    | Last,
    Field(discriminator="kind"),
]

Output = Literal["classification", "regression", "next_token"]
"""How the last layer is read; see ``Architecture``."""


class Architecture(BaseModel):
    """A model's shape in the layer vocabulary.

    ``output`` says how the last layer is read:

    - ``classification``: ``(classes,)``, one score (logit) per class;
    - ``next_token``: ``(positions, classes)``, one score per class at each position, where the class is the
      token that comes next;
    - ``regression``: ``(values,)``, each the estimate of a real number.

    A softmax at the end is part of the first two readings, so that loss and metric work on its input. A
    model whose first layer is an embedding takes token ids, any other takes real numbers or images.

    Raises:
        InvalidDocument: on construction, with the index of the layer and what is wrong with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_shape: Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=MAX_RANK)]
    output: Output = "classification"
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=MAX_LAYERS)]

    @model_validator(mode="wrap")
    @classmethod
    def _typed(cls, value: Any, build: ModelWrapValidatorHandler[Architecture]) -> Architecture:
        try:
            architecture = build(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = [str(part) for part in first["loc"]]
            where = f"layer {place[1]}" if place[:1] == ["layers"] and len(place) > 1 else ".".join(place)
            raise InvalidDocument(f"architecture: {where}: {'.'.join(place)}: {first['msg']}") from error
        _check(architecture)
        return architecture

    @property
    def computed_layers(self) -> tuple[Layer, ...]:
        """The layers that are computed: all but a softmax at the end, which the metric takes in."""
        taken_in = self.layers[-1].kind == "softmax" and self.output != "regression"
        return self.layers[:-1] if taken_in else self.layers

    @property
    def vocabulary(self) -> int | None:
        """How many token ids there are for a model that takes tokens, else None."""
        first = self.layers[0]
        return first.vocabulary if first.kind == "embedding" else None


def _walk(architecture: Architecture) -> tuple[tuple[Shape, ...], dict[str, Shape], int, int]:
    """Output shapes per layer, tensor shapes by name, multiply-adds per sample, and its largest array."""
    shape: Shape = architecture.input_shape
    named: dict[str, Shape] = {}
    outputs: list[Shape] = []
    tensors: dict[str, Shape] = {}
    work, steps, largest = 0, 0, math.prod(shape)
    for index, layer in enumerate(architecture.layers):
        try:
            output = layer.output_shape(shape, named)
            for tensor, tensor_shape in layer.parameter_shapes(shape).items():
                if tensor != "embedding" and math.prod(tensor_shape[:-1]) > MAX_FAN_IN:
                    raise Misfit(f"sums over {math.prod(tensor_shape[:-1])} terms, the most is {MAX_FAN_IN}")
                tensors[f"{index}.{layer.kind}.{tensor}"] = tensor_shape
            needs = max(math.prod(output), layer.scratch(shape))
            if needs > MAX_ACTIVATIONS:
                raise Misfit(f"needs {needs} values per sample, the most is {MAX_ACTIVATIONS}")
            if len(output) == 2 and output[0] > MAX_POSITIONS:
                raise Misfit(f"has {output[0]} positions, the most is {MAX_POSITIONS}")
            if layer.kind == "embedding" and index:
                raise Misfit("takes token ids, so it can only come first")
            if layer.name in named:
                raise Misfit(f"is named {layer.name!r} like an earlier layer")
        except Misfit as misfit:
            raise InvalidDocument(f"architecture: layer {index}: {layer.kind}: {misfit}") from None
        work += layer.work(shape)
        steps += layer.steps(shape)
        largest = max(largest, needs)
        if layer.name is not None:
            named[layer.name] = output
        outputs.append(output)
        shape = output
    if steps > MAX_STEPS:
        raise InvalidDocument(f"architecture: {steps} recurrent steps, the most is {MAX_STEPS}")
    return tuple(outputs), tensors, work, largest


_ENDINGS: Final[dict[Output, tuple[int, int, str]]] = {
    "classification": (1, 2, "(classes,)"),
    "regression": (1, 1, "(values,)"),
    "next_token": (2, 2, "(positions, classes)"),
}
"""Per output: rank, fewest classes or values, and how it reads."""


def _check(architecture: Architecture) -> None:
    if math.prod(architecture.input_shape) > MAX_ACTIVATIONS:
        raise InvalidDocument(f"architecture: a sample has more than {MAX_ACTIVATIONS} values")
    outputs, tensors, work, _ = _walk(architecture)
    if not architecture.computed_layers:
        raise InvalidDocument("architecture: a softmax alone is no model")
    rank, fewest, ending = _ENDINGS[architecture.output]
    if len(outputs[-1]) != rank or outputs[-1][-1] < fewest:
        raise InvalidDocument(
            f"architecture: {architecture.output} ends in {ending}, this ends in {outputs[-1]}"
        )
    if architecture.output == "next_token" and outputs[-1][:1] != architecture.input_shape[:1]:
        raise InvalidDocument("architecture: next_token has an output for each position of the input")
    count = sum(math.prod(shape) for shape in tensors.values())
    if not 1 <= count <= MAX_PARAMETERS:
        raise InvalidDocument(f"architecture: {count} parameters, there must be 1 to {MAX_PARAMETERS}")
    if work > MAX_WORK:
        raise InvalidDocument(f"architecture: {work} multiply-adds per sample, the most is {MAX_WORK}")


@lru_cache(maxsize=256)
def shapes(architecture: Architecture) -> tuple[Shape, ...]:
    """Shape of each layer's output for one sample, in order."""
    return _walk(architecture)[0]


@lru_cache(maxsize=256)
def _parameter_shapes(architecture: Architecture) -> tuple[tuple[str, Shape], ...]:
    return tuple(_walk(architecture)[1].items())


def parameter_shapes(architecture: Architecture) -> dict[str, Shape]:
    """Shape of every float32 tensor by name, such as ``0.dense.kernel``, in the order of the layers."""
    return dict(_parameter_shapes(architecture))


def parameter_count(architecture: Architecture) -> int:
    """Scalars in all tensors together."""
    return sum(math.prod(shape) for shape in parameter_shapes(architecture).values())


def work(architecture: Architecture) -> int:
    """Multiply-adds that one sample costs."""
    return _walk(architecture)[2]


def scratch(architecture: Architecture) -> int:
    """Scalars of the largest array that computing one sample needs."""
    return _walk(architecture)[3]


def recurrent_steps(architecture: Architecture) -> int:
    """Steps that must follow one another, over all recurrent layers."""
    inputs = (architecture.input_shape, *shapes(architecture))
    return sum(layer.steps(shape) for layer, shape in zip(architecture.layers, inputs, strict=False))
