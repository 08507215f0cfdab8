"""What one training run follows from: the task, how to train it, and how its samples are dealt out.

Guarantees: equal tasks and configurations give equal samples to train on, whoever deals them out: the members
of a pool each do it for themselves. `fingerprint` tells runs apart.

Source: design section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Final

import numpy as np

from offchain.data import Fragment, concatenate
from offchain.models.artifact import Tensors
from offchain.training import step
from protocol.architecture import Architecture, work
from protocol.crypto import sha256
from protocol.errors import InvalidArtifact

HOLDOUT_WORK: Final = 1 << 33
"""Multiply-adds that scoring the holdout may cost: some seconds, whatever the model and the data."""
LEAST_HOLDOUT: Final = 128
SHIFTED_FROM: Final = 16
"""Images at least so high and wide are moved about a little: what they show stays what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How to train; the defaults suit small models on small data."""

    seed: int = 0
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 100
    schedule_steps: int = 3_000
    """Without a budget of time: steps over which the learning rate falls to a twentieth, where it stays."""
    budget_s: float | None = None
    """The whole time that the order gives; the rate then follows it, see ``schedule``."""
    stop_early: bool = True
    """With a budget: end once a whole fall of the rate brings nothing better, see ``schedule``."""
    max_steps: int | None = None
    patience_steps: int | None = 4_000
    """End when that many steps brought no improvement; None trains until stopped."""
    holdout_share: float = 0.15
    steps_per_dispatch: int | None = None
    """None adapts to ``dispatch_s``; a number makes runs repeat exactly, scoring after every dispatch."""
    dispatch_s: float = 0.25
    evaluation_share: float = 0.25
    """Largest share of time that scoring the holdout may take."""
    checkpoint_every_s: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.holdout_share < 1 or not 0 < self.evaluation_share < 1:
            raise ValueError("holdout_share and evaluation_share lie strictly between 0 and 1")
        if min(self.batch_size, self.schedule_steps, self.steps_per_dispatch or 1) < 1:
            raise ValueError("batch_size, schedule_steps and steps_per_dispatch are at least 1")
        if self.budget_s is not None and self.budget_s <= 0:
            raise ValueError("budget_s is a time to train in: more than nothing")
        if not 0 < self.dispatch_s <= 0.5:
            raise ValueError("dispatch_s lies in (0, 0.5]: should_stop is asked no more often than that")

    def recipe(self, shift: int = 0) -> step.Recipe:
        """What the compiled program depends on."""
        return step.Recipe(
            self.batch_size,
            self.learning_rate,
            self.weight_decay,
            self.warmup_steps,
            self.schedule_steps if self.budget_s is None else None,
            shift,
        )


@dataclass(frozen=True, slots=True, eq=False)
class TrainingTask:
    """What to train."""

    architecture: Architecture
    fragments: Sequence[Fragment]
    """The order's training fragments."""
    metric: str
    """As in ``protocol.metric``."""
    initial: Tensors | None = None
    """Parameters to start from, by tensor name; None starts fresh."""


def shift_of(samples: Fragment) -> int:
    """By how many pixels images may be moved; 0 for what is no image or a small one."""
    if samples.x.dtype != np.uint8 or samples.x.ndim != 4 or min(samples.x.shape[1:3]) < SHIFTED_FROM:
        return 0
    return round(min(samples.x.shape[1:3]) / 14)


def fingerprint(task: TrainingTask, config: TrainingConfig) -> bytes:
    """SHA-256 of all that a training run follows from; its checkpoints fit no other."""
    parts = [
        b"dtn-training-2",
        task.architecture.model_dump_json().encode(),
        task.metric.encode(),
        repr(astuple(config)).encode(),
    ]
    for fragment in task.fragments:
        parts += [np.ascontiguousarray(fragment.x).tobytes(), np.ascontiguousarray(fragment.y).tobytes()]
    for name in sorted(task.initial or {}):
        parts += [name.encode(), np.ascontiguousarray((task.initial or {})[name]).tobytes()]
    return sha256(b"".join(sha256(part) for part in parts))


def deal(task: TrainingTask, config: TrainingConfig) -> tuple[Fragment, Fragment]:
    """``(training, holdout)`` samples of a run.

    Raises:
        InvalidArtifact: there is nothing to hold out.
    """
    samples = concatenate(task.fragments)
    if samples.count < 2:
        raise InvalidArtifact("training needs at least two samples, one of them to hold out")
    most = max(LEAST_HOLDOUT, HOLDOUT_WORK // work(task.architecture))
    return step.split(samples, config.holdout_share, config.seed, most)
