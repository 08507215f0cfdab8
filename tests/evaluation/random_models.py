"""Random models over the whole vocabulary, with parameters and samples of any scale, for property tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from protocol.architecture import (
    Add,
    Architecture,
    AvgPool,
    BatchNorm,
    CausalAttention,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Embedding,
    Flatten,
    Gelu,
    GlobalAvgPool,
    Gru,
    Last,
    Layer,
    LayerNorm,
    LeakyRelu,
    Lstm,
    MaxPool,
    PositionalEmbedding,
    Relu,
    RmsNorm,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    parameter_shapes,
)

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3))
WIDTHS = st.integers(1, 9)
POINTWISE: list[Layer] = [
    Relu(),
    LeakyRelu(),
    LeakyRelu(slope_permille=300),
    Sigmoid(),
    Tanh(),
    Gelu(),
    Silu(),
    Softmax(),
    BatchNorm(),
    Dropout(),
]
NORMS: list[Layer] = [LayerNorm(), RmsNorm()]


def _image_layer(draw: st.DrawFn) -> Layer:
    window: dict[str, Any] = {"kernel": draw(SIZES), "strides": draw(SIZES), "use_bias": draw(st.booleans())}
    pool = draw(st.sampled_from([MaxPool, AvgPool]))
    return draw(
        st.sampled_from(
            [
                Conv(features=draw(WIDTHS), **window),
                DepthwiseConv(**window),
                pool(window=draw(SIZES), strides=(1, 1), padding="SAME"),
                Dense(features=draw(WIDTHS)),
                *POINTWISE,
            ]
        )
    )


def _sequence_layer(draw: st.DrawFn) -> Layer:
    heads = draw(st.integers(1, 3))
    return draw(
        st.sampled_from(
            [
                Dense(features=heads * draw(st.integers(1, 3)), use_bias=draw(st.booleans())),
                Lstm(features=draw(WIDTHS)),
                Gru(features=draw(WIDTHS)),
                CausalAttention(heads=1),
                PositionalEmbedding(),
                *NORMS,
                *POINTWISE,
            ]
        )
    )


def _stacked(draw: st.DrawFn, make: Any, count: int) -> list[Layer]:
    """Random layers, some of them followed by a sum with the layer before them."""
    layers: list[Layer] = []
    for index in range(count):
        name = f"n{len(layers)}_{index}"
        layers.append(make(draw).model_copy(update={"name": name}))
        if draw(st.booleans()):
            keeps = draw(st.sampled_from([*POINTWISE, *(NORMS if make is not _image_layer else [])]))
            layers += [keeps, Add(other=name)]
    return layers


def _attended(draw: st.DrawFn) -> list[Layer]:
    heads = draw(st.integers(2, 3))
    return [Dense(features=heads * draw(st.integers(1, 4))), CausalAttention(heads=heads)]


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Small architectures of every kind in every order that fits, for every kind of data and output."""
    kind = draw(st.sampled_from(["image", "vector", "series", "tokens"]))
    size = st.integers(4, 7)
    layers: list[Layer] = []
    shape: tuple[int, ...]
    if kind == "image":
        shape = (draw(size), draw(size), draw(st.integers(1, 3)))
        layers += _stacked(draw, _image_layer, draw(st.integers(0, 4)))
        layers.append(draw(st.sampled_from([Flatten(), GlobalAvgPool()])))
    elif kind == "vector":
        shape = (6,)
    else:
        shape = (draw(size), draw(st.integers(1, 4))) if kind == "series" else (draw(size),)
        if kind == "tokens":
            layers.append(Embedding(vocabulary=11, features=draw(WIDTHS)))
        layers += _stacked(draw, _sequence_layer, draw(st.integers(0, 3)))
        if draw(st.booleans()):
            layers += _attended(draw)
        if draw(st.booleans()):
            layers.append(Dense(features=draw(st.integers(2, 5))))
            return Architecture(input_shape=shape, output="next_token", layers=tuple(layers))
        layers.append(draw(st.sampled_from([Flatten(), GlobalAvgPool(), Last()])))
    for _ in range(draw(st.integers(0, 2))):
        layers.append(Dense(features=draw(WIDTHS), use_bias=draw(st.booleans())))
        layers.append(draw(st.sampled_from([*POINTWISE, *NORMS])))
    output = draw(st.sampled_from(["classification", "regression"]))
    layers.append(Dense(features=draw(st.integers(2, 5))))
    return Architecture(input_shape=shape, output=output, layers=tuple(layers))


def parameters(architecture: Architecture, rng: np.random.Generator, spread: int) -> dict[str, np.ndarray]:
    """Random tensors whose scales lie up to ``2**spread`` apart, some rows zero, some values denormal.

    Variances are positive, but for a spread so large that faithfulness is no question any more.
    """
    tensors = {}
    for name, shape in parameter_shapes(architecture).items():
        value = rng.standard_normal(shape) * np.exp2(rng.integers(-spread, spread + 1, shape[-1:]))
        value = value * np.exp2(rng.integers(-spread, spread + 1))
        value[..., rng.random(shape[-1]) < 0.1] = 0.0
        value = np.where(rng.random(shape) < 0.02, 1e-44, value)
        if name.endswith(".var") and spread < 40:
            value = np.abs(value) + 0.25
        tensors[name] = value.astype(np.float32)
    return tensors


def samples(architecture: Architecture, rng: np.random.Generator, count: int, images: bool) -> np.ndarray:
    """Tokens, or images, or numbers whose scales lie up to ``2**80`` apart; the first sample is zero."""
    shape = (count, *architecture.input_shape)
    if architecture.vocabulary is not None:
        x = rng.integers(0, architecture.vocabulary, shape, np.int32)
    elif images:
        x = rng.integers(0, 256, shape, np.uint8)
    else:
        scale = np.exp2(rng.integers(-40, 41, (count,) + (1,) * (len(shape) - 1)))
        x = (rng.standard_normal(shape) * scale).astype(np.float32)
    x[0] = 0
    return x
