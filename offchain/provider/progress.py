"""What a provider's trainings are doing, as events on disk: JSON lines that `dtn provider status` reads.

Each order's folder has a ``progress.jsonl``. A line holds ``time_ms``, ``event`` and what the event brings;
all are in `Event`. The file is bounded: when it is full it becomes ``progress.old.jsonl``.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from offchain.training.process import finite

log = logging.getLogger(__name__)

Json = dict[str, Any]

Event = Literal["started", "round", "progress", "below_baseline", "claimed", "ended", "given_up"]
"""A job began; a pool's round began; training goes on (step, loss, best_score, steps_per_s, time_left_s,
device_bytes); a model does not beat the order's baseline, so it is not claimed; a claim stands on the ledger;
the training ended; the order was given up. All bring
``claimed_score``, that of the last claim; a pool's also ``round`` and ``accounts``, who takes part in it."""

EVERY_S: Final = 1.0
"""Between two ``progress`` events; dispatches are shorter."""
MAX_BYTES: Final = 4 * 2**20
TAIL_BYTES: Final = 64 * 1024
NAME: Final = "progress.jsonl"


class ProgressLog:
    """Writes one order's events; thread-safe."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / NAME
        self._noted_s = 0.0
        self._lock = threading.Lock()
        self.on_event: Callable[[str], None] = lambda event: None
        """Told the name of every event but ``progress``."""
        before = standing(self._path) or {}
        # A claim outlives the process that made it.
        self._lasting: Json = {"claimed_score": before.get("claimed_score")}

    def keep(self, **fields: Any) -> None:
        """Have every later event bring these fields too."""
        with self._lock:
            self._lasting |= fields

    def note(self, event: Event, **fields: Any) -> None:
        """Write an event; of ``progress`` at most one a second. A full disk does not stop a training."""
        with self._lock:
            self._note(event, fields)

    def _note(self, event: Event, fields: Json) -> None:
        now_s = time.time()
        if event == "progress":
            if now_s - self._noted_s < EVERY_S:
                return
            self._noted_s = now_s
        else:
            self.on_event(event)
        told = {"time_ms": int(now_s * 1000), "event": event, **self._lasting, **finite(fields)}
        try:
            if self._path.exists() and self._path.stat().st_size > MAX_BYTES:
                os.replace(self._path, self._path.with_name("progress.old.jsonl"))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(told) + "\n")
        except OSError as reason:
            log.warning("%s is not written: %s", self._path, reason.strerror)


def standing(path: Path) -> Json | None:
    """Where an order stands by its progress file: the last value of each field; None without any event."""
    found: Json = {}
    for event in _last_events(path):
        found |= event
    return found or None


def _last_events(path: Path) -> Iterator[Json]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut off by the tail, or by a kill
        if isinstance(event, dict) and "event" in event and "time_ms" in event:
            yield event
