"""The vocabulary: one table from a layer's ``kind`` to everything the system knows about it.

Guarantees: every kind that ``protocol.architecture`` admits has exactly one row (a test checks it).

Source: design section 7.
"""

from __future__ import annotations

from typing import Any, Final

from offchain.models.layers.kind import LayerKind
from offchain.models.layers.linear import ConvKind, DenseKind
from offchain.models.layers.pointwise import AddKind, FlattenKind, ReluKind, SoftmaxKind
from offchain.models.layers.pooling import AvgPoolKind, GlobalAvgPoolKind, MaxPoolKind

VOCABULARY: Final[dict[str, LayerKind[Any]]] = {
    row.schema.model_fields["kind"].default: row
    for row in (
        DenseKind(),
        ConvKind(),
        MaxPoolKind(),
        AvgPoolKind(),
        GlobalAvgPoolKind(),
        FlattenKind(),
        AddKind(),
        ReluKind(),
        SoftmaxKind(),
    )
}

__all__ = ["VOCABULARY", "LayerKind"]
