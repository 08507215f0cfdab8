"""When a machine may say that something cannot be fetched: not for a hiccup, and not too late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from offchain.absences import LEAST_FAILURES, MOST_REMEMBERED, Absences, Thing

START_MS = 1_700_000_000_000
MODEL: Thing = ("0xoid", "validation", "0xmid")
ATTEMPTS = st.lists(st.tuples(st.integers(0, 60_000), st.booleans()), max_size=30).map(sorted)


def watched(attempts: list[tuple[int, bool]], thing: Thing = MODEL) -> Absences:
    """What is remembered of attempts ``(ms after the start, whether it came)``."""
    absences = Absences()
    for after_ms, came in attempts:
        if came:
            absences.came(thing)
        else:
            absences.missed(thing, START_MS + after_ms)
    return absences


@given(attempts=ATTEMPTS, now=st.integers(0, 60_000))
def test_what_came_once_is_not_gone_in_that_phase(attempts: list[tuple[int, bool]], now: int) -> None:
    absences = watched([*attempts, (0, True)])
    for after_ms, _ in attempts:
        absences.missed(MODEL, START_MS + after_ms)
    assert absences.has_come(MODEL)
    assert not absences.is_gone(MODEL, START_MS + now, START_MS + 60_000)


@given(attempts=ATTEMPTS, now=st.integers(0, 60_000))
def test_it_is_gone_only_after_several_attempts_over_half_of_the_time_that_was_left(
    attempts: list[tuple[int, bool]], now: int
) -> None:
    failures = [after_ms for after_ms, came in attempts if not came]
    absences = watched([(after_ms, False) for after_ms in failures])
    expected = len(failures) >= LEAST_FAILURES and now - failures[0] >= 60_000 - now
    assert absences.is_gone(MODEL, START_MS + now, START_MS + 60_000) == expected


def test_a_window_that_is_about_to_close_still_asks_for_several_attempts() -> None:
    assert not watched([(0, False)] * (LEAST_FAILURES - 1)).is_gone(MODEL, START_MS + 60_000, START_MS)
    assert watched([(0, False)] * LEAST_FAILURES).is_gone(MODEL, START_MS + 60_000, START_MS)


def test_every_phase_is_tried_anew_and_other_things_are_not_meant() -> None:
    absences = watched([(0, False)] * 9)
    for other in (("0xoid", "verdict", "0xmid"), ("0xoid", "validation", "0xother"), ("0x", *MODEL[1:])):
        assert not absences.is_gone(other, START_MS + 60_000, START_MS)


def test_a_bounded_number_of_things_is_remembered() -> None:
    absences = watched([(0, False)] * LEAST_FAILURES)
    for number in range(MOST_REMEMBERED):
        absences.missed(("0xoid", "validation", str(number)), START_MS)
    assert not absences.is_gone(MODEL, START_MS + 60_000, START_MS)
