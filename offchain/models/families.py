"""Model families: architectures that people ask for by name, each from a few sizes.

Guarantees: a family is only a way to write an ``Architecture``; nothing downstream knows of families.
Sequence families take token ids where a ``vocabulary`` is named, else real numbers.

Source: PoT section 2.5 (mainstream models); design section 7 ("families on top").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any, Final, Literal

from pydantic import ValidationError

from protocol.architecture import (
    MAX_DIMENSION,
    MAX_LAYERS,
    Add,
    Architecture,
    BatchNorm,
    CausalAttention,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Gelu,
    GlobalAvgPool,
    Gru,
    Last,
    Layer,
    LayerNorm,
    Lstm,
    MaxPool,
    Output,
    PositionalEmbedding,
    Relu,
)
from protocol.errors import InvalidDocument


def mlp(
    input_shape: Sequence[int],
    outputs: int,
    hidden: Sequence[int] = (128, 64),
    *,
    output: Output = "classification",
) -> Architecture:
    """Dense layers with relu between them, on the flattened sample.

    Args:
        outputs: classes, or values of a regression.

    Raises:
        InvalidDocument: a size is out of bounds.
    """
    layers: list[Layer] = [Flatten()] if len(input_shape) > 1 else []
    layers += _dense_relu(hidden)
    return _architecture(input_shape, output, [*layers, Dense(features=outputs)])


def cnn(
    input_shape: Sequence[int],
    outputs: int,
    channels: Sequence[int] = (16, 32),
    hidden: Sequence[int] = (64,),
    *,
    dropout_permille: int = 0,
    output: Output = "classification",
) -> Architecture:
    """Blocks of a 3×3 convolution, relu and 2×2 max pooling, then dense layers with dropout before each.

    Raises:
        InvalidDocument: a size is out of bounds, or the image is too small for that many blocks.
    """
    layers: list[Layer] = []
    for features in channels:
        layers += [Conv(features=features), Relu(), MaxPool()]
    drop: list[Layer] = [Dropout(rate_permille=dropout_permille)] if dropout_permille else []
    layers += [Flatten(), *drop]
    for features in hidden:
        layers += [Dense(features=features), Relu(), *drop]
    return _architecture(input_shape, output, [*layers, Dense(features=outputs)])


def resnet(
    input_shape: Sequence[int],
    outputs: int,
    channels: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
    *,
    output: Output = "classification",
) -> Architecture:
    """A residual network with batch norm (He et al. 2015), for small images.

    A stem, then for each entry of ``channels`` that many ``blocks`` of two 3×3 convolutions around a
    shortcut; each stage but the first begins with a convolution that halves height and width.

    Raises:
        InvalidDocument: a size is out of bounds.
    """
    layers: list[Layer] = []
    for stage, features in enumerate(channels):
        halving = (2, 2) if stage else (1, 1)
        layers += [Conv(features=features, strides=halving, use_bias=False), BatchNorm()]
        layers.append(Relu(name=f"s{stage}b0"))
        for block in range(blocks):
            layers += [Conv(features=features, use_bias=False), BatchNorm(), Relu()]
            layers += [Conv(features=features, use_bias=False), BatchNorm()]
            layers += [Add(other=f"s{stage}b{block}"), Relu(name=f"s{stage}b{block + 1}")]
    return _architecture(input_shape, output, [*layers, GlobalAvgPool(), Dense(features=outputs)])


def lstm(
    input_shape: Sequence[int],
    outputs: int,
    features: int = 64,
    layers: int = 1,
    *,
    vocabulary: int | None = None,
    cell: Literal["lstm", "gru"] = "lstm",
    output: Output = "classification",
) -> Architecture:
    """Recurrent layers over a sequence, read at its last position, or at each for ``next_token``.

    Args:
        input_shape: ``(positions, features)``, or ``(positions,)`` of token ids.
        vocabulary: how many token ids there are.

    Raises:
        InvalidDocument: a size is out of bounds.
    """
    stack: list[Layer] = []
    if vocabulary is not None:
        stack.append(Embedding(vocabulary=vocabulary, features=features))
    for _ in range(layers):
        stack.append(Lstm(features=features) if cell == "lstm" else Gru(features=features))
    stack += [] if output == "next_token" else [Last()]
    return _architecture(input_shape, output, [*stack, Dense(features=outputs)])


def transformer(
    input_shape: Sequence[int],
    outputs: int,
    features: int = 64,
    layers: int = 2,
    heads: int = 4,
    *,
    vocabulary: int | None = None,
    dropout_permille: int = 0,
    output: Output = "next_token",
) -> Architecture:
    """A decoder with causal attention: pre-norm blocks as in GPT-2, gelu, learned positions.

    A classifier or regression takes the mean over positions at the end.

    Args:
        input_shape: ``(positions,)`` of token ids, or ``(positions, features)``.
        vocabulary: how many token ids there are.

    Raises:
        InvalidDocument: a size is out of bounds.
    """
    first = (
        Dense(features=features)
        if vocabulary is None
        else Embedding(vocabulary=vocabulary, features=features)
    )
    stack: list[Layer] = [first, PositionalEmbedding(name="x0")]
    drop: list[Layer] = [Dropout(rate_permille=dropout_permille)] if dropout_permille else []
    for block in range(layers):
        stack += [LayerNorm(), CausalAttention(heads=heads), *drop]
        stack += [Add(other=f"x{block}", name=f"y{block}")]
        stack += [LayerNorm(), Dense(features=4 * features), Gelu(), Dense(features=features), *drop]
        stack += [Add(other=f"y{block}", name=f"x{block + 1}")]
    stack += [LayerNorm(), *([] if output == "next_token" else [GlobalAvgPool()]), Dense(features=outputs)]
    return _architecture(input_shape, output, stack)


FAMILIES: Final[dict[str, Callable[..., Architecture]]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
    "lstm": lstm,
    "transformer": transformer,
}


def build_family(config: Mapping[str, Any]) -> Architecture:
    """The architecture that a small configuration describes.

    Args:
        config: ``family``, ``input_shape``, ``outputs``, and any other argument of that family by name.

    Raises:
        InvalidDocument: no such family, a name it does not know, one it needs, or a size out of bounds.
    """
    family = FAMILIES.get(str(config.get("family")))
    if family is None:
        raise InvalidDocument(f"model: family must be one of {', '.join(FAMILIES)}")
    arguments = {name: value for name, value in config.items() if name != "family"}
    known = signature(family).parameters
    for name in sorted(set(arguments) - set(known)):
        raise InvalidDocument(f"model: {config['family']} has no {name[:64]!r}, it has {', '.join(known)}")
    for name in ("input_shape", "outputs"):
        if name not in arguments:
            raise InvalidDocument(f"model: {config['family']} needs {name}")
    for name, value in arguments.items():
        deep = name in ("layers", "blocks") and type(value) is int and value > MAX_LAYERS
        if deep or not _fits(value, known[name].annotation):
            raise InvalidDocument(f"model: {name} cannot be {str(value)[:64]!r}")
    try:
        return family(**arguments)
    except ValidationError as reason:
        first = reason.errors()[0]
        raise InvalidDocument(f"model: a size of {first['input']!r} is refused: {first['msg']}") from reason


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value is of the kind that a family's argument takes; its bounds are the architecture's."""
    if annotation == "Sequence[int]":
        numbers = isinstance(value, list | tuple) and len(value) <= MAX_LAYERS
        return numbers and all(type(number) is int for number in value)
    if "int" in annotation:
        return (type(value) is int and 0 <= value <= MAX_DIMENSION) or (
            value is None and "None" in annotation
        )
    return isinstance(value, str)


def _dense_relu(hidden: Sequence[int]) -> list[Layer]:
    return [layer for features in hidden for layer in (Dense(features=features), Relu())]


def _architecture(input_shape: Sequence[int], output: Output, layers: list[Layer]) -> Architecture:
    return Architecture(input_shape=tuple(input_shape), output=output, layers=tuple(layers))
