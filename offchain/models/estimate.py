"""What a model costs, from its architecture alone: before anything is allocated, to decide what fits.

Guarantees: parameters and multiply-adds are exact. Memory counts the arrays that a backward pass needs; what
XLA states of the compiled step is between half and twice as much for each family on a CPU (a test) and on two
GPUs, and anything up to three times on a TPU (tables in docs/training.md).

Source: design section 8; PoT section 2.3 (a provider decides which orders it takes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from offchain.models.layers import VOCABULARY
from protocol.architecture import Architecture, parameter_count, scratch, shapes, work

_FLOAT_BYTES: Final = 4
_STATE_COPIES: Final = 4
"""Parameters, gradients and the optimiser's two moments."""
_TRAINING_WORK: Final = 3
"""A backward pass costs two forward passes."""
_AT_WORK: Final = 2
"""Copies of the largest layer's arrays that exist while it computes: values, and their gradients."""
_EXACT_BYTES: Final = 8
_EXACT_COPIES: Final = 4
"""Arrays of the largest size that exact scoring holds at once."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Costs of one model."""

    parameters: int
    model_bytes: int
    """Size of the model file, but for its header."""
    flops_per_sample: int
    """Of a forward pass: two per multiply-add."""
    training_flops_per_sample: int
    training_bytes: int
    """Parameters, gradients and optimiser in float32, and what one batch keeps for its gradients."""
    scoring_bytes: int
    """Of exact scoring, one sample at a time: the least it can do with."""


def estimate(architecture: Architecture, batch_size: int = 64, value_bytes: int = 4) -> Estimate:
    """What training in batches of ``batch_size`` and scoring cost.

    Args:
        value_bytes: of an activation while training: 4 on a CPU (float32), 2 on accelerators (bfloat16).
    """
    count, flops = parameter_count(architecture), 2 * work(architecture)
    batch_bytes = value_bytes * batch_size * _batch_values(architecture)
    return Estimate(
        parameters=count,
        model_bytes=_FLOAT_BYTES * count,
        flops_per_sample=flops,
        training_flops_per_sample=_TRAINING_WORK * flops,
        training_bytes=_FLOAT_BYTES * _STATE_COPIES * count + batch_bytes,
        scoring_bytes=_EXACT_BYTES * (_EXACT_COPIES * scratch(architecture) + count),
    )


def _batch_values(architecture: Architecture) -> int:
    """Values per sample that training holds: those kept for the gradients, and those at work."""
    inputs = (architecture.input_shape, *shapes(architecture))
    steps = list(zip(architecture.layers, inputs, inputs[1:], strict=False))
    kept = math.prod(architecture.input_shape) + sum(
        VOCABULARY[layer.kind].kept(layer, *of) for layer, *of in steps
    )
    largest = max(layer.scratch(shape) + math.prod(output) for layer, shape, output in steps)
    return kept + _AT_WORK * largest
