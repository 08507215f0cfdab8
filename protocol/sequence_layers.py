"""The layers for sequences: tokens to vectors, recurrence, attention, and the way back to one vector.

A sequence is ``(positions, features)``. Guarantees: as in ``layers.py``; besides, what grows with the
square of the length (attention) or cannot be done in parallel (recurrence) is counted, so that a document
cannot ask for more memory or time than the limits in ``architecture.py`` allow.

Source: PoT section 2.5 "Validation Definiteness" (LSTM); design section 7 for the list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StrictInt

from protocol.layers import Dimension, LayerBase, Misfit, Shape


def _sequence(kind: str, shape: Shape) -> tuple[int, int]:
    if len(shape) != 2:
        raise Misfit(f"{kind} takes (positions, features), its input is {shape}")
    return shape[0], shape[1]


class Embedding(LayerBase):
    """A vector per token: the first layer of a model that takes token ids, ``(positions,)`` of int32."""

    kind: Literal["embedding"] = "embedding"
    vocabulary: Dimension
    features: Dimension

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        if len(shape) != 1:
            raise Misfit(f"embedding takes (positions,) of token ids, its input is {shape}")
        return (shape[0], self.features)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"embedding": (self.vocabulary, self.features)}


class PositionalEmbedding(LayerBase):
    """Adds a learned vector to each position."""

    kind: Literal["positional_embedding"] = "positional_embedding"

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        return _sequence(self.kind, shape)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        return {"embedding": shape}


class Lstm(LayerBase):
    """Long short-term memory over the positions, from zeros; gates: input, forget, cell, output."""

    kind: Literal["lstm"] = "lstm"
    features: Dimension

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        return (_sequence(self.kind, shape)[0], self.features)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        gates = 4 * self.features
        return {"kernel": (shape[1], gates), "recurrent": (self.features, gates), "bias": (gates,)}

    def work(self, shape: Shape) -> int:
        return shape[0] * (shape[1] + self.features) * 4 * self.features

    def scratch(self, shape: Shape) -> int:
        return shape[0] * 4 * self.features

    def steps(self, shape: Shape) -> int:
        return shape[0]


class Gru(LayerBase):
    """Gated recurrent units over the positions, from zeros; gates in the order reset, update, new.

    ``n = tanh(x W + b + r (h U + recurrent_bias))``: the reset gate acts after the product.
    """

    kind: Literal["gru"] = "gru"
    features: Dimension

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        return (_sequence(self.kind, shape)[0], self.features)

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        gates = 3 * self.features
        return {
            "kernel": (shape[1], gates),
            "recurrent": (self.features, gates),
            "bias": (gates,),
            "recurrent_bias": (self.features,),
        }

    def work(self, shape: Shape) -> int:
        return shape[0] * (shape[1] + self.features) * 3 * self.features

    def scratch(self, shape: Shape) -> int:
        return shape[0] * 3 * self.features

    def steps(self, shape: Shape) -> int:
        return shape[0]


class CausalAttention(LayerBase):
    """Multi-head self-attention in which a position sees itself and those before it.

    Queries, keys and values come from one kernel of ``3 * features`` columns, in that order; heads split
    the features evenly; ``out_kernel`` mixes the heads.
    """

    kind: Literal["causal_attention"] = "causal_attention"
    heads: Annotated[StrictInt, Field(ge=1, le=256)]

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        _, features = _sequence(self.kind, shape)
        if features % self.heads:
            raise Misfit(f"{self.heads} heads do not divide {features} features")
        return shape

    def parameter_shapes(self, shape: Shape) -> dict[str, Shape]:
        features = shape[1]
        return {
            "kernel": (features, 3 * features),
            "bias": (3 * features,),
            "out_kernel": (features, features),
            "out_bias": (features,),
        }

    def work(self, shape: Shape) -> int:
        length, features = shape
        return 4 * length * features * features + 2 * length * length * features

    def scratch(self, shape: Shape) -> int:
        return max(self.heads * shape[0] ** 2, 3 * math.prod(shape))


class Last(LayerBase):
    """The last position of a sequence: ``(positions, features)`` becomes ``(features,)``."""

    kind: Literal["last"] = "last"

    def output_shape(self, shape: Shape, named: Mapping[str, Shape]) -> Shape:
        return (_sequence(self.kind, shape)[1],)
