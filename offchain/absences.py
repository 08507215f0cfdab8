"""What this machine has tried in vain to fetch, and when it may say that it cannot be had.

An honest node must neither report a link that hiccuped once nor wait until nobody can act on it. So something
counts as gone when it was asked for at least `LEAST_FAILURES` times in the current phase of its order, never
came, and has been failing for longer than the phase still lasts. Whatever comes once is not gone in that
phase, unless it lapses: a sample of it is asked for later (`offchain.sampling`) and does not come. Then it
counts as never seen until all of it has come again. Each phase is tried anew.

Pure but for its memory: the caller brings the time, in Unix milliseconds. A restart forgets, and then waits
longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_FAILURES: Final = 3
MOST_REMEMBERED: Final = 4096
"""Things remembered at most; the oldest is forgotten first."""

Thing = tuple[str, str, str]
"""OID, phase, and what it is: a MID or the order's data root."""


@dataclass(frozen=True, slots=True)
class Absence:
    """How often and since when something did not come; ``failures`` is zero for what has come."""

    failures: int
    since_ms: int


class Absences:
    """Attempts by order, phase and thing."""

    def __init__(self) -> None:
        self._known: dict[Thing, Absence] = {}

    def came(self, thing: Thing) -> None:
        """It was fetched: in this phase it is not gone."""
        self._remember(thing, Absence(0, 0))

    def missed(self, thing: Thing, now_ms: int) -> None:
        """It was asked for and did not come."""
        known = self._known.get(thing)
        if known is None:
            self._remember(thing, Absence(1, now_ms))
        elif known.failures:
            self._remember(thing, Absence(known.failures + 1, known.since_ms))

    def lapsed(self, thing: Thing, now_ms: int) -> None:
        """A part of it was asked for and did not come, whether or not it came before."""
        known = self._known.get(thing)
        if known is None or not known.failures:
            self._remember(thing, Absence(1, now_ms))
        else:
            self.missed(thing, now_ms)

    def is_failing(self, thing: Thing) -> bool:
        """Whether it was asked for in vain since it last came."""
        known = self._known.get(thing)
        return known is not None and known.failures > 0

    def has_come(self, thing: Thing) -> bool:
        """Whether it was fetched in this phase."""
        known = self._known.get(thing)
        return known is not None and not known.failures

    def is_gone(self, thing: Thing, now_ms: int, deadline_ms: int) -> bool:
        """Whether to say that it cannot be had, in a phase that ends at ``deadline_ms``."""
        known = self._known.get(thing)
        if known is None or known.failures < LEAST_FAILURES:
            return False
        return now_ms - known.since_ms >= deadline_ms - now_ms

    def _remember(self, thing: Thing, absence: Absence) -> None:
        self._known.pop(thing, None)
        self._known[thing] = absence
        while len(self._known) > MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
