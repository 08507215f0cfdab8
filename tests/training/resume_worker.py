"""A training process for ``test_engine.py`` to kill: prints a JSON line per event until it ends.

usage: resume_worker.py DIRECTORY MAX_STEPS
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from offchain.data import Fragment
from offchain.models.families import mlp
from offchain.training.engine import TrainingConfig, TrainingTask, train


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def digits() -> Fragment:
    data = load_digits()
    return Fragment((data.data[:600] / 16).astype(np.float32), data.target[:600].astype(np.int32))


def main(directory: str, max_steps: int) -> None:
    config = TrainingConfig(
        max_steps=max_steps,
        steps_per_dispatch=25,
        checkpoint_every_s=1e-9,
        schedule_steps=1000,
        learning_rate=3e-4,
    )
    result = train(
        TrainingTask(mlp((64,), 10, (16,)), [digits()], "cross_entropy"),
        config,
        checkpoint_dir=Path(directory),
        should_stop=lambda: False,
        on_improved=lambda i: say(improved=i.score, step=i.step, mid=hashlib.sha256(i.model).hexdigest()),
        on_progress=lambda p: say(step=p.step),
    )
    say(ended=result.reason, score=result.score, step=result.step)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
