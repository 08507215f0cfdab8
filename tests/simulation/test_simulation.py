"""A slice of the soak: enough seeds to notice a broken rule at once; `make soak` runs a thousand."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aggregator.pbft.replica import Replica
from tests.simulation.faults import Faults
from tests.simulation.mutants import MUTANTS, catch
from tests.simulation.world import World

SLICE = 60
QUICK_SEEDS = 12
"""Within these the mutants below are caught; the whole table: `python -m tests.simulation.mutants`."""
QUICK = (
    "QuorumOffByOne",
    "SignaturesUnchecked",
    "LockNotCarried",
    "WatermarksIgnored",
    "PreparedTooEarly",
    "NeverCatchesUp",
    "ForgetsAboveCheckpoint",
    "NullsEverything",
    "DeliversTwice",
    "OutOfOrder",
)


@pytest.mark.parametrize("start", range(0, SLICE, 10))
def test_no_seed_breaks_a_promise(start: int) -> None:
    for seed in range(start, start + 10):
        World(seed).run()  # raises Violation, naming what broke


def test_a_seed_replays_exactly_even_in_another_process() -> None:
    world = World(3)
    world.run()
    program = "from tests.simulation.world import World; w = World(3); w.run(); print(w.digest())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "12345", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == world.digest()


def test_liars_never_outnumber_what_the_committee_can_bear() -> None:
    for seed in range(500):
        faults = Faults.draw(seed)
        assert len(faults.liars) <= (faults.members - 1) // 3
        assert len({index for index, _ in faults.liars}) == len(faults.liars)


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.__name__ in QUICK], ids=lambda m: m.__name__)
def test_the_checkers_see_planted_bugs(mutant: type[Replica]) -> None:
    assert catch(mutant, range(QUICK_SEEDS)) is not None


def test_every_quick_mutant_exists() -> None:
    assert {mutant.__name__ for mutant in MUTANTS} >= set(QUICK)
