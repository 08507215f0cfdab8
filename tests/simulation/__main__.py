"""``python -m tests.simulation --seeds N [--start S] [--seed ONE --story] [--json]``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time

from tests.simulation.checkers import Violation
from tests.simulation.world import World


def run_seed(seed: int, story: bool) -> str | None:
    """Run one seed; returns what was violated, if anything was."""
    world = World(seed)
    try:
        world.run()
    except Violation as reason:
        print(f"seed {seed}: {reason}\n  {world.faults.describe()}", file=sys.stderr)
        return str(reason)
    finally:
        if story:
            print("\n".join(world.story))
            counts = "".join(f", {number} {what}" for what, number in sorted(world.checkers.counts.items()))
            print(f"run {world.digest()}, {len(world.checkers.ordered)} batches{counts}")
    return None


def main() -> int:
    """Run many seeds, or replay one."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--story", action="store_true", help="print what happened")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # liars give members a lot to complain about
    single = arguments.seed is not None
    seeds = [arguments.seed] if single else list(range(arguments.start, arguments.start + arguments.seeds))
    started = time.monotonic()
    failures = {}
    for done, seed in enumerate(seeds, 1):
        violated = run_seed(seed, arguments.story)
        if violated is not None:
            failures[seed] = violated
        if not single and (done % 50 == 0 or done == len(seeds)):
            elapsed = time.monotonic() - started
            print(
                f"{done} of {len(seeds)} seeds, {len(failures)} violations, {elapsed:.0f} s", file=sys.stderr
            )
    if arguments.json:
        print(
            json.dumps(
                {"seeds": len(seeds), "violations": failures, "seconds": round(time.monotonic() - started)}
            )
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
