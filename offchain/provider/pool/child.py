"""A training process as its provider sees it: started with a specification, heard, ended by force.

See `offchain.training.process` for what the two say to each other.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from offchain.training.process import Specification
from protocol.keyfile import SECRETS

log = logging.getLogger(__name__)

Json = dict[str, Any]

EVENTS_KEPT: Final = 1024
"""Events not yet taken; then the process waits until they are."""
LOG_TAIL_BYTES: Final = 600


class Child:
    """One training process."""

    def __init__(self, specification: Specification, folder: Path) -> None:
        """Start it. Its specification and its log are written to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "process.json"
        path.write_text(specification.model_dump_json(), encoding="utf-8")
        self._log = folder / "process.log"
        self._events: queue.Queue[Json] = queue.Queue(EVENTS_KEPT)
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "offchain.training.process", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                # It signs nothing, so it need not be able to open the key.
                env={name: value for name, value in os.environ.items() if name not in SECRETS},
            )
        self._reader = threading.Thread(target=self._read, name=f"hearing {self.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def failed(self) -> bool:
        """Whether it ended, and not as it should."""
        return self._process.poll() not in (None, 0)

    def next_event(self, timeout_s: float) -> Json | None:
        """What it says next; None if it says nothing for so long, or ended and all was heard."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = deadline_s - time.monotonic()
            try:
                return self._events.get(timeout=max(0.0, min(left_s, 0.05)))
            except queue.Empty:
                # The reader ends after the last line was put.
                if left_s <= 0 or (not self._reader.is_alive() and self._events.empty()):
                    return None

    def tell(self, word: str) -> None:
        """Say ``heard`` or ``stop``; who has ended hears nothing."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(word.encode() + b"\n")
            self._process.stdin.flush()

    def end(self, patience_s: float = 0.0) -> None:
        """Wait so long for its end, then kill it; it is gone when this returns."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=patience_s)
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=5)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def last_words(self) -> str:
        """The end of its log, for whoever looks for a reason."""
        with contextlib.suppress(OSError):
            return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return ""

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stdout:
                try:
                    event = json.loads(line)
                    if not isinstance(event, dict):
                        raise ValueError("an event is an object")
                except ValueError:
                    log.debug("process %d says %.80r", self.pid, line)
                    continue
                while self._process.poll() is None:
                    with contextlib.suppress(queue.Full):
                        self._events.put(event, timeout=1.0)
                        break
                else:
                    with contextlib.suppress(queue.Full):
                        self._events.put_nowait(event)
