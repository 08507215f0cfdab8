"""What survives a kill: the training state (orbax), and the best model with whether it was reported.

Guarantees: a directory belongs to one task and configuration (its fingerprint) and refuses another; a
kill at any instant leaves the previous checkpoint whole; the best model is on disk before anyone hears of
it, and is reported again after a kill only if the first report may not have been heard.

Source: design sections 8 (resumable) and 11 ("provider dies in training").
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jax
import numpy as np
import orbax.checkpoint as ocp

from offchain.files import write_whole
from offchain.training.step import State
from protocol.crypto import sha256
from protocol.errors import ProtocolError

KEPT: Final = 2
"""State checkpoints on disk: the newest and, should it be damaged, the one before."""


class CheckpointMismatch(ProtocolError):
    """A checkpoint directory that belongs to another task, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Best:
    """The best model so far."""

    model: bytes
    score: int
    step: int
    reported: bool


class Checkpoints:
    """One training run's directory.

    Raises:
        CheckpointMismatch: the directory belongs to another run.
    """

    def __init__(self, directory: Path, fingerprint: bytes) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory.absolute()
        owner = self._directory / "fingerprint"
        if not owner.exists():
            write_whole(owner, fingerprint.hex().encode())
        elif owner.read_text() != fingerprint.hex():
            raise CheckpointMismatch(
                f"{directory} holds the training of another task or configuration: name another directory"
            )
        # The provider decides when to save; a save that ran behind its back could outlive the process.
        # It saves alone, too: orbax would wait for the other processes of a team, which save nothing.
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix="checkpoints"
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT, enable_async_checkpointing=False, create=False, multiprocessing_options=alone
        )
        (self._directory / "state").mkdir(exist_ok=True)
        self._manager = ocp.CheckpointManager(self._directory / "state", options=options)

    def save(self, state: State) -> None:
        """Write the state; it is durable when this returns."""
        step = int(state.step)
        if self._manager.latest_step() != step:
            self._manager.save(step, args=ocp.args.StandardSave(jax.tree.map(np.asarray, state)))
            self._manager.wait_until_finished()

    def restore(self, like: State) -> State | None:
        """The newest state, in NumPy arrays shaped like ``like``; None before the first save."""
        step = self._manager.latest_step()
        if step is None:
            return None
        shaped = jax.tree.map(np.asarray, like)
        restored = self._manager.restore(step, args=ocp.args.StandardRestore(shaped))
        return State(*restored)

    def save_best(self, best: Best) -> None:
        """Write the best model, then the note that names it: the note is the commit."""
        path = self._directory / f"best-{best.step}.safetensors"
        if not path.exists() or path.read_bytes() != best.model:
            write_whole(path, best.model)
        note = {
            "mid": sha256(best.model).hex(),
            "score": best.score,
            "step": best.step,
            "reported": best.reported,
        }
        write_whole(self._directory / "best.json", json.dumps(note).encode())
        for old in self._directory.glob("best-*.safetensors"):
            if old != path:
                old.unlink()

    def load_best(self) -> Best | None:
        """The best model of earlier lives of this run, if any.

        Raises:
            CheckpointMismatch: the note and the model file disagree.
        """
        path = self._directory / "best.json"
        if not path.exists():
            return None
        note = json.loads(path.read_text())
        model = (self._directory / f"best-{note['step']}.safetensors").read_bytes()
        if sha256(model).hex() != note["mid"]:
            raise CheckpointMismatch(
                f"{path} does not fit its model file: remove the directory to start anew"
            )
        return Best(model, note["score"], note["step"], note["reported"])

    def close(self) -> None:
        """Release orbax's threads."""
        self._manager.close()
