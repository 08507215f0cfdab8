"""One process of a team for ``test_parallel.py``: trains digits for some steps and says how it went.

usage: two_processes.py PORT PROCESS
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from offchain.data import Fragment
from offchain.models.artifact import decode_model
from offchain.training.engine import train
from offchain.training.parallel import Team, follow, join
from offchain.training.task import TrainingConfig, TrainingTask
from protocol.architecture import Architecture, BatchNorm, Dense, Dropout, Flatten, Relu


def task() -> TrainingTask:
    """Digits for a model that sees the whole batch (batch norm) and draws random numbers (dropout).

    Without a bias before the batch norm: its gradient is zero but for rounding, of which Adam makes steps.
    """
    data = load_digits()
    digits = Fragment((data.images * 255 / 16).astype(np.uint8)[..., None], data.target.astype(np.int32))
    layers = (
        Flatten(),
        Dense(features=32, use_bias=False),
        BatchNorm(),
        Relu(),
        Dropout(rate_permille=200),
        Dense(features=10),
    )
    return TrainingTask(Architecture(input_shape=(8, 8, 1), layers=layers), [digits], "cross_entropy")


def config(seed: int) -> TrainingConfig:
    return TrainingConfig(max_steps=60, steps_per_dispatch=20, seed=seed)


def outcome(seed: int, team: Team | None) -> dict[str, Any]:
    """Losses, score and parameters of a training, with a team or without."""
    losses: list[float] = []
    result = train(
        task(),
        config(seed),
        checkpoint_dir=None,
        should_stop=lambda: False,
        on_improved=lambda _: None,
        on_progress=lambda progress: losses.append(progress.loss),
        team=team,
    )
    assert result.model is not None
    tensors = decode_model(result.model, task().architecture)
    return {
        "losses": losses,
        "score": result.score,
        "step": result.step,
        "tensors": {name: tensor.ravel().tolist() for name, tensor in tensors.items()},
    }


def main(port: str, process: int) -> None:
    team = join(f"127.0.0.1:{port}", 2, process)
    answer = outcome(0, team) if team.leads else {"followed_to": follow(task(), config(0), team)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
