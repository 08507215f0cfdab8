"""What attacks bring: the tables of docs/economics.md.

python -m tests.attacks [--seeds 5] [--orders 4] [--json]
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from protocol.parameters import TOKEN_WEI
from tests.attacks.collusion import league_profit, split_profit
from tests.attacks.strategies import STRATEGIES, Strategy, attempt

JURORS = range(7)
OPPONENTS = ((2, 0), (4, 0), (2, 3))
"""Verifiers, and idle providers that hear appeals."""
PARTS = (1, 2, 4)


def row(strategy: Strategy, seeds: int, orders: int) -> dict[str, Any]:
    """The worst and the best of the seeds, and the mean cost, in tokens per order."""
    tried = [attempt(strategy, seed, orders) for seed in range(seeds)]
    profits = sorted(each.profit_wei for each in tried)
    return {
        "strategy": strategy.name,
        "worst": profits[0] / TOKEN_WEI,
        "best": profits[-1] / TOKEN_WEI,
        "cost": sum(each.cost_wei for each in tried) / seeds / TOKEN_WEI,
        "honest_lost": sum(each.honest_debits_wei for each in tried) / TOKEN_WEI,
        "results": sorted({result for each in tried for result in each.results}),
        "bound": strategy.why or "a loss",
    }


def main() -> None:
    """Print the tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--orders", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [row(strategy, options.seeds, options.orders) for strategy in STRATEGIES]
    leagues = {
        f"against {verifiers} verifiers" + f", who appeal to {idle} idle providers" * bool(idle): [
            league_profit(jurors, verifiers, seed=0, orders=2, idle=idle)[0] / TOKEN_WEI for jurors in JURORS
        ]
        for verifiers, idle in OPPONENTS
    }
    split = {parts: split_profit(parts, seed=0, orders=4) / TOKEN_WEI for parts in PARTS}
    if options.json:
        print(json.dumps({"strategies": rows, "league": leagues, "split": split}))
        return
    print(
        "| strategy | profit per order (tokens), worst to best seed | of that, work and slashes "
        "| honest people lost | bound |"
    )
    print("|---|---|---|---|---|")
    for each in rows:
        profit = f"{each['worst']:.2f} to {each['best']:.2f}"
        lost, cost = f"{each['honest_lost']:.2f}", f"{-each['cost'] or 0:.2f}"
        print(f"| {each['strategy']} | {profit} | {cost} | {lost} | {each['bound']} |")
    print("\n| colluding jurors | " + " | ".join(str(jurors) for jurors in JURORS) + " |")
    print("|---" * (len(JURORS) + 1) + "|")
    for opponents, profits in leagues.items():
        print(f"| {opponents} | " + " | ".join(f"{each:.2f}" for each in profits) + " |")
    print("\n| one validator's stake in so many accounts | profit per order |\n|---|---|")
    for parts, profit in split.items():
        print(f"| {parts} | {profit:.4f} |")


if __name__ == "__main__":
    main()
