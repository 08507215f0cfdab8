"""A fixed suite of models by which two machines compare what they compute.

One model per layer kind and one per family, with weights and samples made of SHA-256 and integers alone:
no random generator and no float function of any library takes part. Guarantees: the suite is the same
everywhere, so any difference between two machines' digests is a difference in ``exact-1`` itself; the
agreed digests are in ``tests/golden/exactness.json``.

Source: PoT section 2.5 "Validation Definiteness"; docs/validation.md, "Comparing machines".
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from offchain.evaluation.means import USUAL_MEANS, Means
from offchain.evaluation.score import Backend, leaves, outputs_of
from offchain.models.artifact import Tensors
from offchain.models.families import cnn, lstm, mlp, resnet, transformer
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
from protocol.crypto import sha256
from protocol.merkle import root

SUITE: Final = "exact-1/1"
"""Name and edition of the suite: a model more is another edition."""
SAMPLES: Final = 24

_IMAGE: Final = (9, 8, 3)
_SEQUENCE: Final = (7, 6)


def _of_image(*layers: Layer) -> Architecture:
    return Architecture(input_shape=_IMAGE, layers=(*layers, Flatten(), Dense(features=5)))


def _of_sequence(*layers: Layer) -> Architecture:
    return Architecture(input_shape=_SEQUENCE, output="next_token", layers=(*layers, Dense(features=5)))


def models() -> dict[str, Architecture]:
    """The suite's architectures by name: a layer kind, or a family."""
    return {
        "dense": Architecture(input_shape=(40,), layers=(Dense(features=9), Dense(features=5))),
        "conv": _of_image(Conv(features=7, kernel=(3, 2), strides=(2, 1))),
        "depthwise_conv": _of_image(DepthwiseConv(kernel=(2, 3), padding="VALID")),
        "max_pool": _of_image(MaxPool(padding="SAME")),
        "avg_pool": _of_image(AvgPool(window=(3, 2))),
        "global_avg_pool": Architecture(
            input_shape=_IMAGE, layers=(Conv(features=6), GlobalAvgPool(), Dense(features=5))
        ),
        "flatten": Architecture(input_shape=_SEQUENCE, layers=(Flatten(), Dense(features=5))),
        "add": _of_sequence(Dense(features=6, name="a"), Tanh(), Dense(features=6), Add(other="a")),
        "relu": _of_sequence(Dense(features=9), Relu()),
        "leaky_relu": _of_sequence(Dense(features=9), LeakyRelu(slope_permille=37)),
        "sigmoid": _of_sequence(Dense(features=9), Sigmoid()),
        "tanh": _of_image(Conv(features=4), Tanh()),
        "gelu": _of_sequence(Dense(features=9), Gelu()),
        "silu": _of_image(Conv(features=4), Silu()),
        "softmax": _of_sequence(Dense(features=9), Softmax()),
        "batch_norm": _of_image(Conv(features=4), BatchNorm()),
        "layer_norm": _of_sequence(LayerNorm()),
        "rms_norm": _of_sequence(RmsNorm()),
        "dropout": _of_sequence(Dropout()),
        "embedding": Architecture(
            input_shape=(7,),
            output="next_token",
            layers=(Embedding(vocabulary=31, features=6), Dense(features=31)),
        ),
        "positional_embedding": _of_sequence(PositionalEmbedding()),
        "lstm": _of_sequence(Lstm(features=9)),
        "gru": _of_sequence(Gru(features=9)),
        "causal_attention": _of_sequence(Dense(features=12), CausalAttention(heads=3)),
        "last": Architecture(input_shape=_SEQUENCE, layers=(Last(), Dense(features=5))),
        "family mlp": mlp((8, 8, 1), 10, (24, 16)),
        "family cnn": cnn((8, 8, 1), 10, (6, 8), (16,)),
        "family resnet": resnet((8, 8, 1), 10, (6, 8)),
        "family lstm": lstm((12, 3), 4, 10),
        "family gru": lstm((12,), 3, 10, vocabulary=29, cell="gru"),
        "family transformer": transformer((16,), 29, 16, 2, 2, vocabulary=29),
        "family transformer classifier": transformer((12, 3), 4, 12, 1, 3, output="classification"),
        "family mlp regression": mlp((10,), 2, (16,), output="regression"),
    }


def stream(label: str, count: int) -> NDArray[Any]:
    """``count`` signed 16-bit integers (as int64) that depend on nothing but the label."""
    blocks = [hashlib.sha256(f"{label} {i}".encode()).digest() for i in range(-(-count // 16))]
    return np.frombuffer(b"".join(blocks), ">i2")[:count].astype(np.int64)


def parameters(name: str, architecture: Architecture) -> Tensors:
    """The suite's weights: dyadic rationals in [-1/4, 1/4); scales and variances in [3/4, 5/4)."""
    tensors = {}
    for tensor, shape in parameter_shapes(architecture).items():
        values = stream(f"{name} {tensor}", int(np.prod(shape))) / 2**17
        lifted = values + 1 if tensor.endswith((".scale", ".var")) else values
        tensors[tensor] = lifted.astype(np.float32).reshape(shape)
    return tensors


def inputs(name: str, architecture: Architecture, count: int = SAMPLES) -> NDArray[Any]:
    """The suite's samples: bytes for images, token ids, or numbers in [-4, 4)."""
    shape = (count, *architecture.input_shape)
    raw = stream(f"{name} x", int(np.prod(shape))).reshape(shape)
    if architecture.vocabulary is not None:
        return (raw % architecture.vocabulary).astype(np.int32)
    if len(architecture.input_shape) == 3:
        return (raw & 255).astype(np.uint8)
    return (raw / 2**13).astype(np.float32)


class Conformance(NamedTuple):
    """What one machine computed."""

    digest: bytes
    """SHA-256 over all models' digests, in their order."""
    per_model: dict[str, bytes]
    """Merkle root of each model's outputs."""


def run(backend: Backend = "auto", batch_size: int | None = None, means: Means = USUAL_MEANS) -> Conformance:
    """The whole suite; a minute on a slow machine, most of it compiling."""
    found = {}
    for name, architecture in models().items():
        outputs = outputs_of(
            parameters(name, architecture),
            architecture,
            inputs(name, architecture),
            backend=backend,
            batch_size=batch_size,
            means=means,
        )
        found[name] = root(leaves(outputs))
    return Conformance(sha256(b"".join(found.values())), found)
