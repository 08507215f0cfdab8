"""A training task in a folder: how a provider hands what it fetched and checked to a process that trains.

Guarantee: a folder that `read_task` reads was written to its end; nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

from offchain.data import Fragment
from offchain.models.artifact import decode_model, encode_model
from offchain.tensors import open_tensors, write_tensors
from offchain.training.task import TrainingTask
from protocol.architecture import Architecture
from protocol.errors import InvalidArtifact

NOTE: Final = "task.json"
INITIAL: Final = "initial.safetensors"


def write_task(folder: Path, task: TrainingTask) -> None:
    """Write the task, in place of whatever the folder held."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for index, fragment in enumerate(task.fragments):
        _fragment(folder, index).write_bytes(write_tensors({"x": fragment.x, "y": fragment.y}))
    if task.initial is not None:
        (folder / INITIAL).write_bytes(encode_model(task.initial, task.architecture))
    note = {
        "architecture": task.architecture.model_dump(mode="json"),
        "metric": task.metric,
        "fragments": len(task.fragments),
    }
    # Last: it says that the rest is there.
    (folder / NOTE).write_text(json.dumps(note), encoding="utf-8")


def read_task(folder: Path) -> TrainingTask:
    """The task in a folder; raises `InvalidArtifact` if there is none."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        architecture = Architecture.model_validate(note["architecture"])
        fragments = []
        for index in range(note["fragments"]):
            tensors, _ = open_tensors(_fragment(folder, index).read_bytes())
            fragments.append(Fragment(tensors["x"], tensors["y"]))
        initial = folder / INITIAL
        given = decode_model(initial.read_bytes(), architecture) if initial.exists() else None
        return TrainingTask(architecture, fragments, note["metric"], given)
    except (OSError, ValueError, KeyError) as reason:
        raise InvalidArtifact(f"{folder} holds no training task: {reason}") from reason


def _fragment(folder: Path, index: int) -> Path:
    return folder / f"fragment-{index}.safetensors"
