"""The layer vocabulary: how a task document says which model is to be trained.

An architecture is a list of layers; each takes the output of the layer before it, and ``add`` takes in
also the output of an earlier, named layer. Guarantees: an ``Architecture`` that exists is well formed:
every shape fits, every size is within the bounds below, every reference points backwards; so that what
training, evaluation and artifact checks allocate is known before anything runs. Images are ``(height,
width, channels)``; the batch axis is never written.

This file knows nothing of how a layer computes: ``offchain/models/layers`` holds, for each kind here,
its Flax module and its exact integer definition. A new kind is one class here and one row there.

Source: PoT section 2.5 "Validation Definiteness" (the network supplies the validation function and the
mainstream layers it covers); design section 7 for the list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler

from protocol.errors import InvalidDocument

Shape = tuple[int, ...]

MAX_LAYERS: Final = 256
MAX_DIMENSION: Final = 2**16
MAX_RANK: Final = 4
MAX_PARAMETERS: Final = 2**28
"""Scalars in all tensors of a model together: a gibibyte of float32."""
MAX_ACTIVATIONS: Final = 2**24
"""Scalars in one layer's output for one sample: bounds the memory that one sample can ask for."""
MAX_FAN_IN: Final = 2**20
"""Terms in one sum: keeps every exact accumulator below 2**60 (proof in docs/exact-1.md)."""
MAX_WORK: Final = 2**36
"""Multiply-adds that one sample costs: bounds the time that one sample can ask for."""

Dimension = Annotated[StrictInt, Field(ge=1, le=MAX_DIMENSION)]
Small = Annotated[StrictInt, Field(ge=1, le=64)]
Pair = tuple[Small, Small]
Padding = Literal["SAME", "VALID"]
LayerName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class _Misfit(Exception):
    """A layer that does not fit where it stands; becomes ``InvalidDocument`` with the layer's index."""


class _Layer(BaseModel):
    """What all kinds share: an optional name, by which a later ``add`` refers to this layer's output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    name: LayerName | None = None

    def references(self) -> tuple[str, ...]:
        """Names of the earlier layers whose outputs this layer takes in besides the previous one."""
        return ()

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        """Shape of the output for one sample, given the input's and those of the named layers before."""
        return shape

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Shape of each float32 tensor of this layer, given the input's shape."""
        return {}

    def work(self, shape: Shape) -> int:
        """Multiply-adds for one sample, given the input's shape."""
        return math.prod(shape)


def _image(kind: str, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise _Misfit(f"{kind} takes (height, width, channels), its input is {shape}")
    return shape[0], shape[1], shape[2]


def _window(size: int, window: int, stride: int, padding: Padding) -> int:
    """Output positions along one axis; the convention of TensorFlow, XLA and Flax."""
    if padding == "SAME":
        return -(-size // stride)
    if window > size:
        raise _Misfit(f"a window of {window} does not fit into {size} without padding")
    return (size - window) // stride + 1


class Dense(_Layer):
    """``y = x · kernel + bias`` on a vector."""

    kind: Literal["dense"] = "dense"
    features: Dimension
    use_bias: StrictBool = True

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        if len(shape) != 1:
            raise _Misfit(f"dense takes a vector, its input is {shape}: put a flatten before it")
        return (self.features,)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        kernel: dict[str, Shape] = {"kernel": (shape[0], self.features)}
        return kernel | ({"bias": (self.features,)} if self.use_bias else {})

    def work(self, shape: Shape) -> int:
        return shape[0] * self.features


class Conv(_Layer):
    """Two-dimensional convolution (cross-correlation) over ``(height, width, channels)``."""

    kind: Literal["conv"] = "conv"
    features: Dimension
    kernel: Pair = (3, 3)
    strides: Pair = (1, 1)
    padding: Padding = "SAME"
    use_bias: StrictBool = True

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        height, width, _ = _image(self.kind, shape)
        return (
            _window(height, self.kernel[0], self.strides[0], self.padding),
            _window(width, self.kernel[1], self.strides[1], self.padding),
            self.features,
        )

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        kernel: dict[str, Shape] = {"kernel": (*self.kernel, shape[2], self.features)}
        return kernel | ({"bias": (self.features,)} if self.use_bias else {})

    def work(self, shape: Shape) -> int:
        return math.prod(self.output_shape(shape, {})) * math.prod(self.kernel) * shape[2]


class _Pool(_Layer):
    window: Pair = (2, 2)
    strides: Pair = (2, 2)
    padding: Padding = "VALID"

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        height, width, channels = _image(self.kind, shape)
        return (
            _window(height, self.window[0], self.strides[0], self.padding),
            _window(width, self.window[1], self.strides[1], self.padding),
            channels,
        )

    def work(self, shape: Shape) -> int:
        return math.prod(self.output_shape(shape, {})) * math.prod(self.window)


class MaxPool(_Pool):
    """Largest value of each window; padding never wins."""

    kind: Literal["max_pool"] = "max_pool"


class AvgPool(_Pool):
    """Sum of each window over the window's area; padding counts as zeros (Flax's default)."""

    kind: Literal["avg_pool"] = "avg_pool"


class GlobalAvgPool(_Layer):
    """Mean over height and width: ``(height, width, channels)`` becomes ``(channels,)``."""

    kind: Literal["global_avg_pool"] = "global_avg_pool"

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        return (_image(self.kind, shape)[2],)


class Flatten(_Layer):
    """Any shape to a vector, last axis fastest."""

    kind: Literal["flatten"] = "flatten"

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        return (math.prod(shape),)


class Add(_Layer):
    """The residual sum of the previous output and the output of the earlier layer named ``other``."""

    kind: Literal["add"] = "add"
    other: LayerName

    def references(self) -> tuple[str, ...]:
        return (self.other,)

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        if self.other not in named:
            raise _Misfit(f"add refers to {self.other!r}, which names no earlier layer")
        if named[self.other] != shape:
            raise _Misfit(f"add cannot sum {shape} and {named[self.other]} of {self.other!r}")
        return shape


class Relu(_Layer):
    """``max(x, 0)``."""

    kind: Literal["relu"] = "relu"


class Softmax(_Layer):
    """``exp(x) / sum(exp(x))`` over the last axis."""

    kind: Literal["softmax"] = "softmax"


Layer = Annotated[
    Dense | Conv | MaxPool | AvgPool | GlobalAvgPool | Flatten | Add | Relu | Softmax,
    Field(discriminator="kind"),
]


class Architecture(BaseModel):
    """A model's shape in the layer vocabulary.

    ``output`` says how the last layer is read: ``classification`` takes one score (logit) per class. A
    softmax at the end is part of that reading, so that loss and metric work on its input.

    Raises:
        InvalidDocument: on construction, with the index of the layer and what is wrong with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_shape: Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=MAX_RANK)]
    output: Literal["classification"] = "classification"
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
        return self.layers[:-1] if self.layers[-1].kind == "softmax" else self.layers


def _walk(architecture: Architecture) -> tuple[tuple[Shape, ...], dict[str, Shape], int]:
    """Output shapes per layer, tensor shapes by name, and multiply-adds per sample."""
    shape: Shape = architecture.input_shape
    named: dict[str, Shape] = {}
    outputs: list[Shape] = []
    tensors: dict[str, Shape] = {}
    work = 0
    for index, layer in enumerate(architecture.layers):
        try:
            output = layer.output_shape(shape, named)
            for tensor, tensor_shape in layer.parameter_shapes(shape).items():
                if tensor == "kernel" and math.prod(tensor_shape[:-1]) > MAX_FAN_IN:
                    raise _Misfit(f"sums over {math.prod(tensor_shape[:-1])} terms, the most is {MAX_FAN_IN}")
                tensors[f"{index}.{layer.kind}.{tensor}"] = tensor_shape
            if math.prod(output) > MAX_ACTIVATIONS:
                raise _Misfit(f"has {math.prod(output)} outputs per sample, the most is {MAX_ACTIVATIONS}")
            if layer.name in named:
                raise _Misfit(f"is named {layer.name!r} like an earlier layer")
        except _Misfit as misfit:
            raise InvalidDocument(f"architecture: layer {index}: {layer.kind}: {misfit}") from None
        work += layer.work(shape)
        if layer.name is not None:
            named[layer.name] = output
        outputs.append(output)
        shape = output
    return tuple(outputs), tensors, work


def _check(architecture: Architecture) -> None:
    if math.prod(architecture.input_shape) > MAX_ACTIVATIONS:
        raise InvalidDocument(f"architecture: a sample has more than {MAX_ACTIVATIONS} values")
    outputs, tensors, work = _walk(architecture)
    if not architecture.computed_layers:
        raise InvalidDocument("architecture: a softmax alone is no model")
    if len(outputs[-1]) != 1 or outputs[-1][0] < 2:
        raise InvalidDocument(f"architecture: classification ends in (classes,), this ends in {outputs[-1]}")
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
