"""A process that trains, alone or as one of a team, and does as the process that started it says.

usage: python -m offchain.training.process SPECIFICATION.json

It says what happens in JSON lines on standard output (see `Event`) and reads words from standard input:
``heard`` answers ``improved``, ``stop`` ends the training with a checkpoint. When standard input closes,
whoever started it is gone, and so is it: a training process never outlives its provider.

Why a process: a member that vanishes leaves the others of ``jax.distributed`` in a collective that does not
return, and a process can join a team only once. Whoever watches it can end it and start it again.
"""

from __future__ import annotations

import json
import math
import os
import queue
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from protocol.errors import ProtocolError

HEARD_TIMEOUT_S: Final = 120.0
"""How long an improvement waits for whoever claims it; a claim takes seconds."""

Event = Literal["joined", "progress", "improved", "ended", "failed"]


class TeamSpecification(BaseModel):
    """Which process of which team this is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coordinator: str
    processes: int
    process: int


class Specification(BaseModel):
    """What a training process needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Path
    """Folder written by `offchain.training.task_files.write_task`."""
    training: dict[str, Any]
    """The fields of a ``TrainingConfig``."""
    checkpoints: Path | None
    """None in a follower: the leader keeps the state."""
    compiled: Path
    """Where JAX keeps compiled programs."""
    stop_at_s: float
    """Unix time at which an improvement is worth nothing any more."""
    team: TeamSpecification | None = None
    """None for a process that trains alone, on all its devices."""


class Unheard(ProtocolError):
    """Nobody answered an improvement."""


class _Conversation:
    """Standard input and output, spoken with whoever started this process."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        # Whatever libraries print belongs into the log.
        os.dup2(2, 1)
        self.stop = threading.Event()
        self._heard: queue.SimpleQueue[None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            if line.strip() == "stop":
                self.stop.set()
            elif line.strip() == "heard":
                self._heard.put(None)
        # No clean-up: a collective that waits for the dead would keep it from coming to an end.
        os._exit(3)

    def say(self, event: Event, **fields: Any) -> None:
        self._out.write(json.dumps({"event": event, **fields}) + "\n")

    def ask(self, event: Event, **fields: Any) -> None:
        """Say it and wait until it is heard."""
        self.say(event, **fields)
        try:
            self._heard.get(timeout=HEARD_TIMEOUT_S)
        except queue.Empty:
            raise Unheard(f"nobody heard of the model of step {fields.get('step')}") from None


def main(specification: Path) -> int:
    """Train as the file says; the exit status."""
    talk = _Conversation()
    try:
        _train(Specification.model_validate_json(specification.read_text(encoding="utf-8")), talk)
    except (ProtocolError, OSError) as reason:
        talk.say("failed", reason=f"{type(reason).__name__}: {reason}")
        return 1
    return 0


def _train(specification: Specification, talk: _Conversation) -> None:
    from offchain.compiled_programs import keep_compiled_programs
    from offchain.training.engine import Improvement, TrainingConfig, train
    from offchain.training.freed_memory import keep_freed_memory
    from offchain.training.parallel import Team, follow, join
    from offchain.training.task_files import read_task

    keep_freed_memory()
    given = specification.team
    team = Team() if given is None else join(given.coordinator, given.processes, given.process)
    keep_compiled_programs(specification.compiled)
    task, config = read_task(specification.task), TrainingConfig(**specification.training)
    batch_size = team.batch_size(config.batch_size)
    talk.say("joined", devices=team.devices_per_process(), batch_size=batch_size)
    if not team.leads:
        talk.say("ended", reason="told", step=follow(task, config, team))
        return

    def improved(improvement: Improvement) -> None:
        talk.ask("improved", score=improvement.score, step=improvement.step)

    result = train(
        task,
        config,
        checkpoint_dir=specification.checkpoints,
        should_stop=talk.stop.is_set,
        on_improved=improved,
        on_progress=lambda progress: talk.say("progress", **finite(asdict(progress))),
        time_left=lambda: specification.stop_at_s - time.time(),
        # One device needs no mesh.
        team=team if team.mesh.size > 1 else None,
    )
    talk.say("ended", reason=result.reason, step=result.step, score=result.score)


def finite(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields with None where JSON knows no number: NaN and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m offchain.training.process SPECIFICATION.json")
    sys.exit(main(Path(sys.argv[1])))
