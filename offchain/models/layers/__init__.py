"""The vocabulary: one table from a layer's ``kind`` to everything the system knows about it.

Guarantees: every kind that ``protocol.architecture`` admits has exactly one row (a test checks it).

Source: design section 7.
"""

from __future__ import annotations

from typing import Any, Final

from offchain.models.layers.attention import CausalAttentionKind
from offchain.models.layers.curves import GeluKind, SigmoidKind, SiluKind, TanhKind
from offchain.models.layers.embedding import EmbeddingKind, PositionalEmbeddingKind
from offchain.models.layers.kind import LayerKind
from offchain.models.layers.linear import ConvKind, DenseKind, DepthwiseConvKind
from offchain.models.layers.normalisation import BatchNormKind, LayerNormKind, RmsNormKind
from offchain.models.layers.pointwise import (
    AddKind,
    DropoutKind,
    FlattenKind,
    LeakyReluKind,
    ReluKind,
    SoftmaxKind,
)
from offchain.models.layers.pooling import AvgPoolKind, GlobalAvgPoolKind, LastKind, MaxPoolKind
from offchain.models.layers.recurrent import GruKind, LstmKind

VOCABULARY: Final[dict[str, LayerKind[Any]]] = {
    row.schema.model_fields["kind"].default: row
    for row in (
        DenseKind(),
        ConvKind(),
        DepthwiseConvKind(),
        MaxPoolKind(),
        AvgPoolKind(),
        GlobalAvgPoolKind(),
        FlattenKind(),
        AddKind(),
        ReluKind(),
        LeakyReluKind(),
        SigmoidKind(),
        TanhKind(),
        GeluKind(),
        SiluKind(),
        SoftmaxKind(),
        BatchNormKind(),
        LayerNormKind(),
        RmsNormKind(),
        DropoutKind(),
        EmbeddingKind(),
        PositionalEmbeddingKind(),
        LstmKind(),
        GruKind(),
        CausalAttentionKind(),
        LastKind(),
    )
}

__all__ = ["VOCABULARY", "LayerKind"]
