"""Who did which steps for which order: the leader's durable record, by which it pays its members.

JSON lines of integers and ids, flushed to the disk as they are written. Guarantee: a kill loses at most the
steps since the last line (`EVERY_S` of them), and damages no earlier line.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0
"""Steps are written down so often; a line has about 300 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """Steps that some members did together in one round."""

    oid: str
    round: int
    from_step: int
    """Steps done before."""
    to_step: int
    taken_ms: int
    """How long they took, scoring included."""
    batch_size: int
    """Samples of one step, over all devices; a multiple of their number."""
    accounts: tuple[str, ...]
    devices: tuple[int, ...]
    """How many devices each account brought."""

    def __post_init__(self) -> None:
        if len(self.accounts) != len(self.devices) or min(self.devices, default=0) < 1:
            raise ValueError("each account brings at least one device")
        if self.taken_ms < 0 or not 0 <= self.from_step < self.to_step or self.batch_size % sum(self.devices):
            raise ValueError("steps rise, and each device gets an equal share of a batch")


@dataclass(frozen=True, slots=True)
class Work:
    """What one account did for an order."""

    steps: int
    """Steps it took part in."""
    samples: int
    """Samples it computed in them."""
    device_ms: int
    """How long its devices were at work on them, added up over the devices."""

    def __add__(self, other: Work) -> Work:
        return Work(self.steps + other.steps, self.samples + other.samples, self.device_ms + other.device_ms)


NO_WORK: Final = Work(0, 0, 0)


def work_of(contributions: Iterable[Contribution], oid: str) -> dict[str, Work]:
    """The work behind an order, by account."""
    found: dict[str, Work] = {}
    for item in contributions:
        if item.oid != oid:
            continue
        steps = item.to_step - item.from_step
        for account, devices in zip(item.accounts, item.devices, strict=True):
            samples = steps * (item.batch_size // sum(item.devices)) * devices
            work = Work(steps, samples, item.taken_ms * devices)
            found[account] = found.get(account, NO_WORK) + work
    return found


def contributions_of(data_dir: Path) -> Path:
    """Where the record of a leader lies; all its orders are in it."""
    return data_dir / "pool" / "contributions.jsonl"


class ContributionRecord:
    """The file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, contribution: Contribution) -> None:
        """Write it down; it is durable when this returns. Raises `OSError` when the disk is full."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"time_ms": time.time_ns() // 1_000_000, **asdict(contribution)}).encode()
        with self._path.open("ab") as file:
            # The newline before it as well: a line torn by a kill must not swallow this one.
            file.write(b"\n" + line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def __iter__(self) -> Iterator[Contribution]:
        try:
            with self._path.open("rb") as file:
                for line in file:
                    if line.strip() and (item := self._read(line)) is not None:
                        yield item
        except FileNotFoundError:
            return

    def _read(self, line: bytes) -> Contribution | None:
        try:
            fields = json.loads(line)
            fields.pop("time_ms")
            return Contribution(**fields | {name: tuple(fields[name]) for name in ("accounts", "devices")})
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("%s: a line that a kill tore is left out: %.40r", self._path, line)
            return None


class StepCounter:
    """Turns the progress of one round into contributions: every few seconds, and the rest at its end."""

    def __init__(
        self,
        record: ContributionRecord,
        *,
        oid: str,
        number: int,
        batch_size: int,
        accounts: tuple[str, ...],
        devices: tuple[int, ...],
    ) -> None:
        self._record = record
        self._oid, self._round, self._batch_size = oid, number, batch_size
        self._accounts, self._devices = accounts, devices
        self._written_step: int | None = None
        self._step = 0
        self._written_s = self._counted_s = time.monotonic()

    def count(self, before: int, step: int) -> None:
        """Steps ``before`` to ``step`` were done."""
        if self._written_step is None:
            self._written_step = before
        self._step, self._counted_s = step, time.monotonic()
        if time.monotonic() - self._written_s >= EVERY_S:
            self.write()

    def write(self) -> None:
        """Write down what was counted since the last time."""
        if self._written_step is None or self._step <= self._written_step:
            return
        self._record.add(
            Contribution(
                oid=self._oid,
                round=self._round,
                from_step=self._written_step,
                to_step=self._step,
                taken_ms=int((self._counted_s - self._written_s) * 1000),
                batch_size=self._batch_size,
                accounts=self._accounts,
                devices=self._devices,
            )
        )
        self._written_step, self._written_s = self._step, self._counted_s
