"""Random lives of a ledger; a failing test's name holds its seed. ``DTN_SEEDS`` asks for more of them."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.ledger.root import state_root
from aggregator.ledger.state import genesis
from aggregator.ledger.transition import ACCEPTED, Block, apply_block, check
from tests.ledger.driver import Driver
from tests.ledger.replay import record
from tests.ledger.world import DOMAIN, TREASURY

SEEDS = range(int(os.environ.get("DTN_SEEDS", "8")))
BLOCKS = 300


@functools.cache
def life(seed: int) -> Driver:
    """A whole random life, lived once per test run."""
    driver = Driver(seed)
    for _ in range(BLOCKS):
        driver.step()
    return driver


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed{seed}")
def test_a_random_life_keeps_the_books(seed: int) -> None:
    driver = life(seed)
    assert driver.codes[ACCEPTED] > 50, driver.codes


def test_the_random_lives_reach_every_refusal_and_most_outcomes() -> None:
    codes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for seed in SEEDS:
        codes += life(seed).codes
        reasons += life(seed).reasons
    refusals = "StaleNonce WrongPhase NotAllowed NotStaked UnknownOrder UnknownThing AlreadyDone Mismatch"
    assert set(refusals.split()) <= set(codes), codes
    assert {"InvalidEncoding", "InvalidSignature"} <= set(codes), codes
    ends = {"won", "nobody claimed", "the client withheld the test set", "no model was scored"}
    assert ends | {"the test set could not be fetched"} <= set(reasons), reasons
    debits = Counter(
        receipt.reason
        for seed in SEEDS
        for outcome in life(seed).outcomes
        for receipt in outcome.receipts
        if receipt.amount_wei < 0
    )
    assert {"model irretrievable", "wrong report", "appeal without effect"} <= set(debits), debits


def test_the_same_blocks_give_the_same_root_in_processes_with_other_hash_seeds(tmp_path: Path) -> None:
    driver = life(0)
    path = tmp_path / "blocks"
    record(driver.world.blocks, path)
    root = state_root(driver.world.state).hex()
    for hash_seed in ("0", "4711"):
        told = subprocess.run(
            [sys.executable, "-m", "tests.ledger.replay", str(path)],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert told.stdout.strip() == root


@settings(max_examples=200)
@given(transactions=st.lists(st.binary(max_size=400), max_size=4))
def test_any_bytes_in_a_block_get_a_refusal_and_change_nothing(transactions: list[bytes]) -> None:
    state = genesis(DOMAIN, TREASURY)
    applied = apply_block(state, Block(sequence=1, timestamp_ms=5, transactions=tuple(transactions)))
    empty = apply_block(state, Block(sequence=1, timestamp_ms=5))
    assert state_root(applied.state) == state_root(empty.state)
    assert [result.code for result in applied.results] == ["InvalidEncoding"] * len(transactions)
    assert [check(state, data) for data in transactions] == list(applied.results)
