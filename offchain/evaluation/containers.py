"""In which container to sum: forced by whoever scores, or usual, or the fastest by measurement.

Every container that ``bounds.py`` has proved gives the same integers, so a choice costs or saves time and
nothing else. Guarantees: a forced container is used wherever it is proved, and float64 where it is not; a
measurement is made once per process for one stage of a model, batch and device, and only where the pass is
long enough to repay it.

Source: design section 7 ("each backend may compute it its own way"); docs/validation.md, "Containers".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Literal, get_args

from offchain.evaluation.bounds import USUAL, Container, Way
from protocol.errors import ProtocolError

Choice = Literal["auto", "usual", "measured", "float32", "float64", "int8", "int64"]
"""``auto`` is what the environment says, else ``measured`` for long passes and ``usual`` for short ones."""

CHOICES: Final[tuple[Choice, ...]] = get_args(Choice)
VARIABLE: Final = "DTN_CONTAINER"
"""Environment variable that stands for ``auto``."""
REPAYS_FROM: Final = 64
"""Batches from which measuring is worth its time: it runs each stage a few times in each container."""
CANDIDATES: Final = (USUAL, Way("float64", "float64"), Way("int8", "int8"), Way("float32", "float32"))
"""What is measured; the first one wins ties. int64 is everywhere emulated or without vectors."""
_TURNS: Final = 3
_HOPELESS: Final = 3.0
"""A candidate whose first run takes that many times the best is not run again."""
_CLEARLY: Final = 0.95
"""Another than the first is chosen only if it takes less than this share of the first's time."""


class UnknownContainer(ProtocolError):
    """A container was asked for that there is none of; the message says which there are."""


def ways(choice: Choice, batches: int | None) -> tuple[Way, ...]:
    """The ways from which a pass over that many batches (None: not known) may choose.

    Raises:
        UnknownContainer: the choice, or what the environment says, is none of ``CHOICES``.
    """
    named = os.environ.get(VARIABLE, "auto") if choice == "auto" else choice
    if named not in CHOICES:
        raise UnknownContainer(f"no container {named!r}: {VARIABLE} is one of {', '.join(CHOICES)}")
    if named == "measured" or (named == "auto" and batches is not None and batches >= REPAYS_FROM):
        return CANDIDATES
    if named in ("auto", "usual"):
        return (USUAL,)
    container: Container = named  # type: ignore[assignment]
    return (Way(container, container),)


_FASTEST: dict[Hashable, int] = {}
_MOST_REMEMBERED: Final = 4096


def fastest(key: Hashable, runs: Sequence[Callable[[], object]]) -> int:
    """Which of the runs is the fastest; remembered under ``key`` for the process.

    Each returns when its work is done. The first run of each is not counted: it compiles.
    """
    if key not in _FASTEST:
        if len(_FASTEST) >= _MOST_REMEMBERED:
            _FASTEST.clear()
        _FASTEST[key] = _measure(runs)
    return _FASTEST[key]


def _measure(runs: Sequence[Callable[[], object]]) -> int:
    best = [float("inf")] * len(runs)
    for turn in range(_TURNS + 1):
        for place, run in enumerate(runs):
            if turn > 1 and best[place] > _HOPELESS * min(best):
                continue
            start = time.perf_counter()
            run()
            if turn:
                best[place] = min(best[place], time.perf_counter() - start)
    winner = min(range(len(runs)), key=best.__getitem__)
    return winner if best[winner] < _CLEARLY * best[0] else 0
