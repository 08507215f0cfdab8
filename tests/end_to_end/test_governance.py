"""A vote changes the rules: for orders that come, not for those that run. And the guardian's pause."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtn.devnet import Devnet, Shape
from dtn.devnet.network import GOVERNANCE
from tests.end_to_end.driving import Driver, conserved, dtn, dtn_json, until

pytestmark = pytest.mark.end_to_end

SHAPE = Shape(providers=1, validators=1, verifiers=0, governed=True)
TAX_BPS = 777


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def driver(home: Path) -> Iterator[Driver]:
    with Devnet(home / "devnet").lifetime(SHAPE) as devnet:
        yield Driver(devnet, home)


def state_of(home: Path, number: str) -> Any:
    found = dtn_json("dao", "list", home=home)["proposals"]
    return next(each["state"] for each in found if each["number"] == number)


def test_a_vote_changes_the_tax_of_later_orders_and_not_of_one_that_runs(driver: Driver, home: Path) -> None:
    before = driver.put()
    old = driver.in_phase(before, "training")["parameters"]["tax_bps"]
    assert old != str(TAX_BPS)
    made = dtn_json("dao", "propose", "--set", f"tax_bps={TAX_BPS}", "--description", "more", home=home)
    number = made["number"]
    assert made["says"] == [f"Parameters.set(tax_bps, {TAX_BPS})"]
    until("the vote begins", lambda: state_of(home, number) == "active", driver.devnet)
    early = dtn("dao", "execute", number, home=home)
    assert early.returncode != 0 and "only one that succeeded" in early.stderr
    dtn_json("dao", "vote", number, "for", home=home)
    driver.let_chain_time_pass(GOVERNANCE.voting_period_s)
    until("the vote is won", lambda: state_of(home, number) == "succeeded", driver.devnet)
    assert dtn_json("dao", "execute", number, home=home)["state"] == "queued"
    until(
        "the timelock opens", lambda: dtn("dao", "execute", number, home=home).returncode == 0, driver.devnet
    )
    assert dtn_json("dao", "parameters", home=home)["tax_bps"] == str(TAX_BPS)

    def known() -> bool:
        answer = driver.client.network.agreed("/v1/parameters", lambda found: found["tax_bps"])
        return bool(answer["tax_bps"] == str(TAX_BPS))

    until("the ledger has taken it in", known, driver.devnet)
    after = driver.put()
    assert driver.in_phase(after, "training")["parameters"]["tax_bps"] == str(TAX_BPS)
    settled = driver.settled(before)
    assert settled["parameters"]["tax_bps"] == old and conserved(settled)
    assert settled["result"] == "won"
    assert conserved(driver.settled(after))
    report = dtn_json("dao", "report", "--coin-price", "500", home=home)
    assert int(report["orders"]) == 2 and int(report["gas"]) > 0 and int(report["tax_wei"]) > 0
    assert 0 < int(report["committee"]["stake_wei"]) < int(report["committee"]["reach_wei"])


def test_the_guardian_stops_payouts_and_a_stranger_does_not(driver: Driver, home: Path) -> None:
    refused = dtn("dao", "pause", home=home)
    assert refused.returncode != 0 and "Settlement__NotGuardian" in refused.stderr
    # On a local network the treasury's key is the guardian's.
    driver.devnet.chain("treasury").pause()
    again = dtn("claim", home=home)
    assert again.returncode != 0 and "Settlement__Paused" in again.stderr
