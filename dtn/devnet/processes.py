"""Child processes of a local network: started in their own session, remembered on disk, ended by id.

A process is known by its id and its start time, so that a reused id is never mistaken for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

STOP_TIMEOUT_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class Child:
    """One started process."""

    name: str
    pid: int
    created: float
    command: tuple[str, ...]

    def find(self) -> psutil.Process | None:
        """The process, if it still runs."""
        try:
            process = psutil.Process(self.pid)
            alive = abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


class Children:
    """The processes of one local network; the list survives the process that started them."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "processes.json"
        self._logs = folder / "logs"
        self._handles: list[subprocess.Popen[bytes]] = []
        """Of those started here: their ends are collected in `stop`."""

    def all(self) -> dict[str, Child]:
        """Every process started and not ended by `stop`, by name."""
        try:
            items = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        return {item["name"]: Child(**{**item, "command": tuple(item["command"])}) for item in items}

    def _write(self, children: Mapping[str, Child]) -> None:
        partial = self._file.with_suffix(".new")
        partial.write_text(json.dumps([asdict(child) for child in children.values()], indent=2))
        os.replace(partial, self._file)

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self._logs / f"{name}.log"

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start a process; its output goes to its log."""
        with undisturbed():
            return self._start(name, command, environment)

    def _start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None) -> Child:
        self._logs.mkdir(parents=True, exist_ok=True)
        with open(self.log(name), "ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._handles.append(process)
        child = Child(name, process.pid, psutil.Process(process.pid).create_time(), tuple(command))
        self._write({**self.all(), name: child})
        return child

    def stop(self, names: Sequence[str] | None = None, *, kill: bool = False) -> None:
        """End processes (all of them if not named) by their ids: politely first, then for good."""
        with undisturbed():
            self._stop(names, kill)

    def _stop(self, names: Sequence[str] | None, kill: bool) -> None:
        children = self.all()
        if not children:
            return
        chosen = [child for name, child in children.items() if names is None or name in names]
        processes = [process for child in reversed(chosen) if (process := child.find()) is not None]
        for process in processes:
            _signal(process, kill)
        _, alive = psutil.wait_procs(processes, timeout=STOP_TIMEOUT_S)
        for process in alive:
            _signal(process, True)
        psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
        self._handles = [handle for handle in self._handles if handle.poll() is None]
        ended = {child.name for child in chosen}
        self._write({name: child for name, child in children.items() if name not in ended})

    def tail(self, name: str, lines: int = 20) -> str:
        """The last lines of a process's log."""
        try:
            return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""


def _signal(process: psutil.Process, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP (a closed terminal) end what runs inside as Ctrl-C does: cleaning up behind it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """What would end this process waits until the block is over, so that no child goes unrecorded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    caught = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in caught:
        signal.signal(number, lambda received, _: arrived.append(received))
    try:
        yield
    finally:
        for number, handler in caught.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])


def wait_until(condition: object, timeout_s: float, period_s: float = 0.1) -> bool:
    """Whether ``condition()`` became true in time."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(period_s)
    return bool(condition())
