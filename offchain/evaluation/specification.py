"""``exact-1``, the specification: a plain interpreter over NumPy int64, the judge of every other backend.

Guarantees: what it returns is *the* value of a model on a sample; it is slow and clear. One layer after
the other, all samples at once, every integer in an int64.

Source: PoT section 2.5 "Validation Definiteness" and footnote 3 (``VRF_Model``); docs/exact-1.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from offchain.evaluation.arithmetic import Activations
from offchain.evaluation.quantise import quantise_inputs
from offchain.models.layers import VOCABULARY
from protocol.architecture import Architecture


def prepare(tensors: Mapping[str, NDArray[Any]], architecture: Architecture) -> tuple[Any, ...]:
    """The parameters as integers, one entry per computed layer (None for a layer that has none).

    Args:
        tensors: float32 by name (``0.dense.kernel``), as ``artifact.check_tensors`` returns them.
    """
    prepared = []
    for index, layer in enumerate(architecture.computed_layers):
        prefix = f"{index}.{layer.kind}."
        own = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        prepared.append(VOCABULARY[layer.kind].prepare(layer, own))
    return tuple(prepared)


def run(prepared: tuple[Any, ...], architecture: Architecture, x: NDArray[Any]) -> Activations:
    """Outputs of the model: one row of integers and one fraction per sample.

    Args:
        prepared: from ``prepare``. x: ``[n, *input_shape]`` uint8 or finite float32.
    """
    value = quantise_inputs(x)
    named: dict[str, Activations] = {}
    for layer, integers in zip(architecture.computed_layers, prepared, strict=True):
        others = [named[name] for name in layer.references()]
        value = VOCABULARY[layer.kind].specification(layer, integers, value, *others)
        if layer.name is not None:
            named[layer.name] = value
    return value
