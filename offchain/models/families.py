"""Model families: architectures that people ask for by name.

Guarantees: a family is only a way to write an ``Architecture``; nothing downstream knows of families.

Source: PoT section 2.5 (mainstream models); design section 7 ("families on top").
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.architecture import Architecture, Conv, Dense, Flatten, Layer, MaxPool, Relu


def mlp(input_shape: Sequence[int], classes: int, hidden: Sequence[int] = (128, 64)) -> Architecture:
    """Dense layers with relu between them, on the flattened sample.

    Raises:
        InvalidDocument: a size is out of bounds.
    """
    layers: list[Layer] = [Flatten()] if len(input_shape) > 1 else []
    for features in hidden:
        layers += [Dense(features=features), Relu()]
    return Architecture(input_shape=tuple(input_shape), layers=(*layers, Dense(features=classes)))


def cnn(
    input_shape: Sequence[int],
    classes: int,
    channels: Sequence[int] = (16, 32),
    hidden: Sequence[int] = (64,),
) -> Architecture:
    """Blocks of a 3×3 convolution, relu and 2×2 max pooling, then dense layers.

    Raises:
        InvalidDocument: a size is out of bounds, or the image is too small for that many blocks.
    """
    layers: list[Layer] = []
    for features in channels:
        layers += [Conv(features=features), Relu(), MaxPool()]
    layers.append(Flatten())
    for features in hidden:
        layers += [Dense(features=features), Relu()]
    return Architecture(input_shape=tuple(input_shape), layers=(*layers, Dense(features=classes)))
