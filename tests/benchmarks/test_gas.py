"""What the chain's part costs stays what was last accepted: `REWRITE=1` accepts what it costs now."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gas

ACCEPTED = Path(__file__).parents[1] / "golden" / "gas.json"
MOST_PER_ACCOUNT = {100: 3_000, 1_000: 1_400}
"""Figures to reach, 30 of 30 signing, in steady state."""


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return gas.measure(30, 30, (1, 10, 100, 1_000))


def flat(figures: dict[str, Any]) -> dict[str, int]:
    """Every amount of gas by a name."""
    found = dict(figures["transactions"])
    for result in figures["results"]:
        for name in ("settlement_gas", "claim_gas_first", "claim_gas_repeat"):
            found[f"{name} of {result['accounts']}"] = result[name]
    return found


def test_nothing_costs_two_per_cent_more_or_less_than_accepted(figures: dict[str, Any]) -> None:
    found = flat(figures)
    if os.environ.get("REWRITE"):
        ACCEPTED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    accepted = json.loads(ACCEPTED.read_text(encoding="utf-8"))
    assert sorted(found) == sorted(accepted)
    changed = {
        name: (accepted[name], now) for name, now in found.items() if abs(now - accepted[name]) * 50 > now
    }
    assert not changed, "accepted and now: accept with REWRITE=1 if it is meant"


def test_a_credit_costs_what_the_design_allows(figures: dict[str, Any]) -> None:
    per_account = {each["accounts"]: each["gas_per_account"] for each in figures["results"]}
    assert all(per_account[count] <= most for count, most in MOST_PER_ACCOUNT.items())
