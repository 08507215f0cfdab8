"""Embeddings: a learned vector per token, and one per position.

Guarantees: a row of a table is read like an input: 16 bits with a fraction of its own, so that looking it
up rounds nothing.

Source: docs/exact-1.md, "Embeddings"; design section 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from numpy.typing import NDArray

from offchain.evaluation import arithmetic, arithmetic_jax
from offchain.evaluation.arithmetic import ACTIVATION_LIMIT, Activations
from offchain.evaluation.arithmetic_jax import Traced
from offchain.evaluation.bounds import Way, plan_add
from offchain.evaluation.quantise import quantise_groups
from offchain.models.layers.kind import LayerKind, Module
from protocol.architecture import Embedding, PositionalEmbedding, Shape


def _rows(table: NDArray[Any]) -> Activations:
    rows = quantise_groups(table, table.shape[:1])
    return Activations(rows.q.astype(np.int16), rows.fraction)


class EmbeddingModule(linen.Module):
    """``linen.Embed``, with a gradient summed in float32: a frequent token's stands still in bfloat16."""

    vocabulary: int
    features: int

    @linen.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        shape = (self.vocabulary, self.features)
        table = self.param("embedding", linen.initializers.normal(0.02), shape)
        return jnp.take(table.astype(jnp.float32), ids, axis=0).astype(table.dtype)


class EmbeddingKind(LayerKind[Embedding]):
    """A vector per token id."""

    schema = Embedding

    def prepare(self, layer: Embedding, tensors: Mapping[str, NDArray[Any]]) -> Activations:
        return _rows(tensors["embedding"])

    def plan(
        self, layer: Embedding, shape: Shape, limit: int, prepared: Activations, way: Way
    ) -> tuple[None, int]:
        return None, ACTIVATION_LIMIT

    def module(self, layer: Embedding, name: str, training: bool) -> Module:
        return EmbeddingModule(layer.vocabulary, layer.features, name=name)

    def specification(self, layer: Embedding, prepared: Activations, *inputs: Activations) -> Activations:
        ids = inputs[0].q
        return Activations(prepared.q[ids].astype(np.int64), prepared.fraction[ids])

    def exact(self, layer: Embedding, prepared: Activations, plan: None, *inputs: Traced) -> Traced:
        ids = inputs[0].q.astype(jnp.int32)
        q, fraction = jnp.asarray(prepared.q), jnp.asarray(prepared.fraction)
        return Traced(q[ids].astype(jnp.float32), fraction[ids])


class PositionalEmbeddingModule(linen.Module):
    """Adds a learned vector to each position."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.param("embedding", linen.initializers.normal(0.02), x.shape[1:])


class PositionalEmbeddingKind(LayerKind[PositionalEmbedding]):
    """A learned vector added to each position."""

    schema = PositionalEmbedding

    def prepare(self, layer: PositionalEmbedding, tensors: Mapping[str, NDArray[Any]]) -> Activations:
        return _rows(tensors["embedding"])

    def plan(
        self, layer: PositionalEmbedding, shape: Shape, limit: int, prepared: Activations, way: Way
    ) -> tuple[str, int]:
        return plan_add(), ACTIVATION_LIMIT

    def module(self, layer: PositionalEmbedding, name: str, training: bool) -> Module:
        return PositionalEmbeddingModule(name=name)

    def specification(
        self, layer: PositionalEmbedding, prepared: Activations, *inputs: Activations
    ) -> Activations:
        return arithmetic.add(
            inputs[0], Activations(prepared.q[None].astype(np.int64), prepared.fraction[None])
        )

    def exact(self, layer: PositionalEmbedding, prepared: Activations, plan: str, *inputs: Traced) -> Traced:
        q, fraction = jnp.asarray(prepared.q), jnp.asarray(prepared.fraction)
        return arithmetic_jax.add(inputs[0], Traced(q[None], fraction[None]))
