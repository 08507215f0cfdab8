"""How much memory a score takes, from shapes alone, and how many samples at a time a budget allows.

What is counted is what scoring itself allocates: parameters as integers, and the batches that are at work,
two at least. The model file, the test set and about a hundred bytes per sample for the digest are there
besides. Guarantees: nothing is allocated before ``samples_within`` has answered; no number of samples makes
a pass take more; what it takes stays below the bound (a test compares it with what the compiled programs ask
for).

Source: design sections 7 and 11 ("out of memory: a clear error naming the limit, a clean stop").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from offchain.evaluation.bounds import FLOAT32_EXACT, LIMB_LIMIT, Way
from offchain.evaluation.place import on_cpu
from offchain.evaluation.quantise import WEIGHT_LIMIT
from protocol.architecture import Architecture, Layer, Shape, parameter_count, shapes
from protocol.errors import ProtocolError

DEFAULT_BYTES: Final = 8 * 2**30
"""Enough for any model that a document may name, unless most of a quarter of a billion parameters, or of
its largest values, are in one layer."""
LEAST_AT_WORK: Final = 2
"""Batches that exist at once, at least; see ``exact_jax.stream``."""
_WIDE_BYTES: Final = 8
_COPIES: Final = 3
"""Of input, output and scratch, at eight bytes a value: operands (limbs, or whole), sums, wide results.
Elementwise steps are fused, so that a layer never holds more of them."""
_KEPT_BYTES: Final = 16
"""Per parameter: float32, integers in host memory and on the device."""
_OPERAND_BYTES: Final = 16
"""Per parameter of the layer at work: its operands, and a transposed copy of them."""
_INPUT_BYTES: Final = 16
"""Per value of a sample while it is read."""


class OverBudget(ProtocolError):
    """A model of which not even one sample fits the memory budget; says how much it takes and has."""


def _copies(layer: Layer, ways: Sequence[Way]) -> int:
    if layer.kind != "conv":
        return _COPIES
    taps = math.prod(layer.kernel)
    direct = on_cpu() and taps * WEIGHT_LIMIT * LIMB_LIMIT <= FLOAT32_EXACT
    if direct and all(way.weights == "float32" for way in ways):
        return _COPIES
    # One product per kernel position, all of which may exist before they are added up.
    return _COPIES + taps


def sample_bytes(architecture: Architecture, ways: Sequence[Way]) -> int:
    """What one sample more in one batch takes at most, when sums are held in any of these ways."""
    shape: Shape = architecture.input_shape
    most = kept = 0
    for layer, output in zip(architecture.computed_layers, shapes(architecture), strict=False):
        values = math.prod(shape) + math.prod(output) + layer.scratch(shape)
        values += math.prod(shape) * len(layer.references())
        most = max(most, _WIDE_BYTES * _copies(layer, ways) * values)
        if layer.name is not None:
            kept += _WIDE_BYTES * math.prod(output)
        shape = output
    return most + kept + _INPUT_BYTES * math.prod(architecture.input_shape)


def model_bytes(architecture: Architecture) -> int:
    """What the parameters take at most, whatever the batch."""
    shape: Shape = architecture.input_shape
    largest = 0
    for layer, output in zip(architecture.computed_layers, shapes(architecture), strict=False):
        largest = max(largest, sum(map(math.prod, layer.parameter_shapes(shape).values())))
        shape = output
    return _KEPT_BYTES * parameter_count(architecture) + _OPERAND_BYTES * largest


def pass_bytes(architecture: Architecture, size: int, at_work: int, ways: Sequence[Way]) -> int:
    """What scoring takes at most, of however many samples: ``at_work`` batches of ``size`` at a time."""
    return model_bytes(architecture) + at_work * size * sample_bytes(architecture, ways)


def samples_within(architecture: Architecture, budget_bytes: int, ways: Sequence[Way]) -> int:
    """The largest batch of which ``LEAST_AT_WORK`` stay within the budget.

    Raises:
        OverBudget: not even one sample in each does.
    """
    fixed, each = model_bytes(architecture), LEAST_AT_WORK * sample_bytes(architecture, ways)
    if fixed + each > budget_bytes:
        raise OverBudget(
            f"the model takes {fixed} bytes and {each} per sample, the budget is {budget_bytes} bytes: "
            "give scoring more memory (memory_bytes) or leave this model to others"
        )
    return (budget_bytes - fixed) // each


def batches_within(architecture: Architecture, size: int, budget_bytes: int, ways: Sequence[Way]) -> int:
    """How many batches of ``size``, from ``samples_within``, the budget has room for at once."""
    return (budget_bytes - model_bytes(architecture)) // (size * sample_bytes(architecture, ways))
