"""What a model costs, from its architecture alone: before anything is allocated, to decide what fits.

Guarantees: parameters and multiply-adds are exact; memory is what the arrays that must exist take, so a
machine with less cannot do it, and one with a good deal more can.

Source: design section 8; PoT section 2.3 (a provider decides which orders it takes).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from protocol.architecture import Architecture, parameter_count, scratch, shapes, work

_FLOAT_BYTES: Final = 4
_STATE_COPIES: Final = 4
"""Parameters, gradients and the optimiser's two moments."""
_TRAINING_WORK: Final = 3
"""A backward pass costs two forward passes."""
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
    """Parameters, gradients, optimiser, and the activations of one batch, in float32."""
    scoring_bytes: int
    """Of exact scoring, one sample at a time: the least it can do with."""


def estimate(architecture: Architecture, batch_size: int = 64) -> Estimate:
    """What training in batches of ``batch_size`` and scoring cost."""
    count, flops = parameter_count(architecture), 2 * work(architecture)
    kept = math.prod(architecture.input_shape) + sum(math.prod(shape) for shape in shapes(architecture))
    kept += scratch(architecture)
    return Estimate(
        parameters=count,
        model_bytes=_FLOAT_BYTES * count,
        flops_per_sample=flops,
        training_flops_per_sample=_TRAINING_WORK * flops,
        training_bytes=_FLOAT_BYTES * (_STATE_COPIES * count + 2 * batch_size * kept),
        scoring_bytes=_EXACT_BYTES * (_EXACT_COPIES * scratch(architecture) + count),
    )
