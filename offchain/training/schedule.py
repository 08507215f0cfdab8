"""How the time of an order is spent: learning rates over its window, and when to stop in order to be in time.

Guarantees: the rate follows from the share of the window that has passed and from nothing else, so a killed
run that resumes, and one on a faster machine, follow the same curve. A run ends early enough to score and
claim its last steps: it keeps twice the time that the longest scoring so far took.

The window holds three falls of the rate, each longer than the one before (warm restarts, Loshchilov and
Hutter 2017): the first gives a decent model early, should the machine die; the last, nearly two thirds of
the window, gives the best one. Each begins where the one before ended. If the second, two and a half times as
long as the first, brings nothing better, there is nothing left to learn, and the third need not be paid for.

Source: design section 8 ("improves until the deadline").
"""

from __future__ import annotations

import math
from typing import Final

BORDERS: Final = (0.0, 0.1, 0.35, 1.0)
"""Shares of the window at which the rate begins to fall anew."""
LEAST: Final = 0.02
"""What is left of the rate at the end of a fall."""
SCORING_RESERVE: Final = 2.0


def rate(passed: float) -> float:
    """The learning rate's factor in ``[LEAST, 1]`` once that share of the window has passed."""
    passed = min(max(passed, 0.0), 1.0)
    fall = fall_at(passed)
    begin, end = BORDERS[fall], BORDERS[fall + 1]
    return LEAST + (1 - LEAST) * 0.5 * (1 + math.cos(math.pi * (passed - begin) / (end - begin)))


def fall_at(passed: float) -> int:
    """Which fall of the rate, from 0, runs once that share of the window has passed."""
    return max(index for index, border in enumerate(BORDERS[:-1]) if border <= max(passed, 0.0))


def is_exhausted(passed: float, began: float, best_fall: int) -> bool:
    """Whether a whole fall, after another one, has just brought nothing better than was there before it.

    Args:
        passed: share of the window.
        began: the share at which this run began, or was resumed: it must have seen the fall from its start.
        best_fall: the fall in which the best model came.
    """
    before = fall_at(passed) - 1
    return before >= 1 and began <= BORDERS[before] and best_fall < before


def reserve_s(scoring_s: float, dispatch_s: float) -> float:
    """Seconds before the end at which to stop: one more dispatch, and a scoring with room for surprises."""
    return 2 * dispatch_s + SCORING_RESERVE * scoring_s
