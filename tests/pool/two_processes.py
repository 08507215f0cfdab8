"""One process of a team for ``test_parallel.py``: trains digits for some steps and says how it went.

usage: two_processes.py PORT PROCESS PROCESSES FAMILY SEED

PROCESSES 0 is no team at all: the engine as a single provider runs it. The last process may be given another
SEED than the first, to see it refused.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
from sklearn.datasets import load_digits

from offchain.data import Fragment
from offchain.models.artifact import decode_model
from offchain.models.families import mlp, resnet
from offchain.training.engine import train
from offchain.training.parallel import TeamMismatch, follow, join
from offchain.training.task import TrainingConfig, TrainingTask

STEPS = 60


def task(family: str) -> TrainingTask:
    data = load_digits()
    digits = Fragment((data.images * 255 / 16).astype(np.uint8)[..., None], data.target.astype(np.int32))
    # With batch norm: its statistics must be those of the whole batch.
    architecture = mlp((8, 8, 1), 10, (32,)) if family == "mlp" else resnet((8, 8, 1), 10, (8,), 1)
    return TrainingTask(architecture, [digits], "cross_entropy")


def main(port: str, process: int, processes: int, family: str, seed: int) -> None:
    team = join(f"127.0.0.1:{port}", processes, process) if processes else None
    config = TrainingConfig(max_steps=STEPS, steps_per_dispatch=20, seed=seed)
    try:
        if team is not None and not team.leads:
            print(json.dumps({"followed_to": follow(task(family), config, team)}))
            return
        heard: list[float] = []
        result = train(
            task(family),
            config,
            checkpoint_dir=None,
            should_stop=lambda: False,
            on_improved=lambda _: None,
            on_progress=lambda progress: heard.append(progress.loss),
            team=team,
        )
    except TeamMismatch as reason:
        print(json.dumps({"refused": str(reason)}))
        return
    assert result.model is not None
    tensors = decode_model(result.model, task(family).architecture)
    flat = {name: tensor.ravel().tolist() for name, tensor in tensors.items()}
    print(json.dumps({"losses": heard, "score": result.score, "step": result.step, "tensors": flat}))
    print(hashlib.sha256(result.model).hexdigest(), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
