"""The layers a model may be made of: what each asks for, its shapes, its tensors and its cost.

Guarantees: shapes, tensors and costs follow from the document alone, so that whatever does not fit or is
too large is refused before anything is allocated. Images are ``(height, width, channels)``, sequences
``(positions, features)``; the batch axis is never written. There are no floats: slopes and rates are
thousandths (``_permille``). Layers for sequences are in ``sequence_layers.py``.

Source: PoT section 2.5 "Validation Definiteness" (mainstream layers); design section 7 for the list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

Shape = tuple[int, ...]

MAX_DIMENSION: Final = 2**16

Dimension = Annotated[StrictInt, Field(ge=1, le=MAX_DIMENSION)]
Small = Annotated[StrictInt, Field(ge=1, le=64)]
Pair = tuple[Small, Small]
Permille = Annotated[StrictInt, Field(ge=0, le=999)]
Padding = Literal["SAME", "VALID"]
LayerName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class Misfit(Exception):
    """A layer that does not fit where it stands; becomes ``InvalidDocument`` with the layer's index."""


class LayerBase(BaseModel):
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

    def scratch(self, shape: Shape) -> int:
        """Scalars of the largest array that computing one sample needs besides input and output."""
        return 0

    def steps(self, shape: Shape) -> int:
        """Steps that must follow one another, given the input's shape."""
        return 0


def _image(kind: str, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise Misfit(f"{kind} takes (height, width, channels), its input is {shape}")
    return shape[0], shape[1], shape[2]


def _window(size: int, window: int, stride: int, padding: Padding) -> int:
    """Output positions along one axis; the convention of TensorFlow, XLA and Flax."""
    if padding == "SAME":
        return -(-size // stride)
    if window > size:
        raise Misfit(f"a window of {window} does not fit into {size} without padding")
    return (size - window) // stride + 1


class Dense(LayerBase):
    """``y = x · kernel + bias`` over the last axis: on a vector, at each position of a sequence or image."""

    kind: Literal["dense"] = "dense"
    features: Dimension
    use_bias: StrictBool = True

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        return (*shape[:-1], self.features)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        kernel: dict[str, Shape] = {"kernel": (shape[-1], self.features)}
        return kernel | ({"bias": (self.features,)} if self.use_bias else {})

    def work(self, shape: Shape) -> int:
        return math.prod(shape) * self.features


class Conv(LayerBase):
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


class DepthwiseConv(LayerBase):
    """A convolution of each channel with a window of its own."""

    kind: Literal["depthwise_conv"] = "depthwise_conv"
    kernel: Pair = (3, 3)
    strides: Pair = (1, 1)
    padding: Padding = "SAME"
    use_bias: StrictBool = True

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        height, width, channels = _image(self.kind, shape)
        return (
            _window(height, self.kernel[0], self.strides[0], self.padding),
            _window(width, self.kernel[1], self.strides[1], self.padding),
            channels,
        )

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        kernel: dict[str, Shape] = {"kernel": (*self.kernel, 1, shape[2])}
        return kernel | ({"bias": (shape[2],)} if self.use_bias else {})

    def work(self, shape: Shape) -> int:
        return math.prod(self.output_shape(shape, {})) * math.prod(self.kernel)


class _Pool(LayerBase):
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


class GlobalAvgPool(LayerBase):
    """Mean over height and width of an image, or over the positions of a sequence: ``(channels,)``."""

    kind: Literal["global_avg_pool"] = "global_avg_pool"

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        if len(shape) not in (2, 3):
            raise Misfit(f"global_avg_pool takes an image or a sequence, its input is {shape}")
        return (shape[-1],)


class Flatten(LayerBase):
    """Any shape to a vector, last axis fastest."""

    kind: Literal["flatten"] = "flatten"

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        return (math.prod(shape),)


class Add(LayerBase):
    """The residual sum of the previous output and the output of the earlier layer named ``other``."""

    kind: Literal["add"] = "add"
    other: LayerName

    def references(self) -> tuple[str, ...]:
        return (self.other,)

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        if self.other not in named:
            raise Misfit(f"add refers to {self.other!r}, which names no earlier layer")
        if named[self.other] != shape:
            raise Misfit(f"add cannot sum {shape} and {named[self.other]} of {self.other!r}")
        return shape


class Relu(LayerBase):
    """``max(x, 0)``."""

    kind: Literal["relu"] = "relu"


class Softmax(LayerBase):
    """``exp(x) / sum(exp(x))`` over the last axis."""

    kind: Literal["softmax"] = "softmax"


class LeakyRelu(LayerBase):
    """``x`` where it is positive, else ``x`` times the slope."""

    kind: Literal["leaky_relu"] = "leaky_relu"
    slope_permille: Permille = 10


class Sigmoid(LayerBase):
    """``1 / (1 + exp(-x))``."""

    kind: Literal["sigmoid"] = "sigmoid"


class Tanh(LayerBase):
    """``tanh(x)``."""

    kind: Literal["tanh"] = "tanh"


class Gelu(LayerBase):
    """``x`` times the normal distribution function of ``x``: the form with erf, not the one with tanh."""

    kind: Literal["gelu"] = "gelu"


class Silu(LayerBase):
    """``x * sigmoid(x)``, also called swish."""

    kind: Literal["silu"] = "silu"


class Dropout(LayerBase):
    """Zeros at random in training; nothing at all in scoring."""

    kind: Literal["dropout"] = "dropout"
    rate_permille: Permille = 100


class BatchNorm(LayerBase):
    """Each channel shifted and scaled by its statistics over the training data, then by what was learned.

    Scoring uses the running statistics, which are tensors of the model like any other.
    """

    kind: Literal["batch_norm"] = "batch_norm"

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return dict.fromkeys(("scale", "bias", "mean", "var"), (shape[-1],))


class LayerNorm(LayerBase):
    """A vector, or each position of a sequence, to mean 0 and variance 1, then scaled and shifted."""

    kind: Literal["layer_norm"] = "layer_norm"

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        return _vectors(self.kind, shape)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"scale": (shape[-1],), "bias": (shape[-1],)}


class RmsNorm(LayerBase):
    """A vector, or each position of a sequence, over the root of its mean square, then scaled."""

    kind: Literal["rms_norm"] = "rms_norm"

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        return _vectors(self.kind, shape)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"scale": (shape[-1],)}


def _vectors(kind: str, shape: Shape) -> Shape:
    if len(shape) > 2 or shape[-1] > MAX_DIMENSION:
        raise Misfit(f"{kind} takes a vector or a sequence of at most {MAX_DIMENSION} wide, not {shape}")
    return shape
