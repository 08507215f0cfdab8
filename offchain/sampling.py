"""When to see whether what was revealed can still be had: at random blocks, a bounded number of times.

A provider that serves its model to the first who ask, and then no more, must be noticed by those who can
still report it. So validators and verifiers ask for single blocks all through the windows in which reports
are taken. What a sample finds missing is asked for as a whole from then on (`Judge.sample`), and only what
keeps failing becomes a report (`offchain.absences`).

Pure but for its memory: time and random numbers come in from the caller.

Source: PoT 3.4 "Achieving Retrievability".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from offchain.judging import Judge

Json = dict[str, Any]

LOOKS_LEFT: Final = 20
"""A look takes place when a twentieth of the time that was left at the one before is over."""
LEAST_INTERVAL_MS: Final = 2_000
MOST_INTERVAL_MS: Final = 60_000
MOST_REMEMBERED: Final = 1024
"""Orders remembered at most; the oldest is forgotten first."""


class Sampler:
    """Asks for random blocks of the orders it is shown."""

    def __init__(self, judge: Judge, choose: Callable[[int], int]) -> None:
        """``choose`` gives a number below the one it is given, each as likely."""
        self._judge = judge
        self._choose = choose
        self._next_ms: dict[tuple[str, str], int] = {}

    def look(self, detail: Json, now_ms: int) -> None:
        """Sample an order if it is time to."""
        key = detail["oid"], detail["phase"]
        if now_ms < self._next_ms.get(key, 0):
            return
        left_ms = max(0, int(detail["deadlineMs"]) - now_ms)
        self._next_ms.pop(key, None)
        self._next_ms[key] = now_ms + min(max(left_ms // LOOKS_LEFT, LEAST_INTERVAL_MS), MOST_INTERVAL_MS)
        while len(self._next_ms) > MOST_REMEMBERED:
            del self._next_ms[next(iter(self._next_ms))]
        self._judge.sample(detail, self._choose)
