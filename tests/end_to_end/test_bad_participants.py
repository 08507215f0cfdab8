"""One order with every kind of cheat in it: each loses, nobody else does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtn.devnet import Devnet, Shape
from protocol.parameters import TOKEN_WEI
from protocol.rewards import bps_of
from protocol.transactions import IRRETRIEVABLE_SCORE
from tests.end_to_end.driving import Driver, amounts, conserved, until

pytestmark = pytest.mark.end_to_end

CHEATS = {
    "provider-2": "garbage",
    "provider-3": "other-architecture",
    "provider-4": "wrong-opening",
    "provider-5": "wrong-bytes",
    "validator-3": "lying-validator",
}
SHAPE = Shape(
    providers=5,
    validators=3,
    verifiers=3,
    commands={
        name: (sys.executable, "-m", "tests.end_to_end.misbehaving", kind) for name, kind in CHEATS.items()
    },
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    home = tmp_path_factory.mktemp("home")
    with Devnet(home / "devnet").lifetime(SHAPE) as devnet:
        yield Driver(devnet, Path(home))


@pytest.fixture(scope="module")
def detail(driver: Driver) -> dict[str, Any]:
    oid = driver.put(validate_s=40, challenge_s=20)  # half of it is tried before anything is absent
    driver.claimed(oid, 5)
    driver.in_phase(oid, "reveal")

    def revealed() -> bool:
        detail = driver.order(oid)
        return detail is not None and detail["testLinks"] and sum(map(bool, mids(detail))) == 4

    until("all but one have revealed their models", revealed, driver.devnet)
    refused = "does not open the commitment"
    log = driver.devnet.children.log("provider-4")
    until("that one has tried", lambda: refused in log.read_text(), driver.devnet)
    driver.leap_to_end(oid)
    return driver.settled(oid)


def mids(detail: dict[str, Any]) -> list[str | None]:
    return [claim["mid"] for claim in detail["claims"]]


def _claims(driver: Driver, detail: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {driver.name_of(claim["provider"]): claim for claim in detail["claims"]}


def test_the_honest_provider_wins_and_the_books_balance(driver: Driver, detail: dict[str, Any]) -> None:
    assert detail["result"] == "won"
    assert driver.name_of(detail["winner"]) == "provider-1"
    assert int(detail["score"]) > 850_000
    assert conserved(detail)


def test_a_reveal_that_does_not_open_its_commitment_is_refused(
    driver: Driver, detail: dict[str, Any]
) -> None:
    claim = _claims(driver, detail)["provider-4"]
    assert claim["mid"] is None and claim["score"] is None
    assert "does not open the commitment" in driver.devnet.children.log("provider-4").read_text()
    lost = amounts(detail, "provider", "claim never revealed")
    assert lost == {claim["provider"]: -bps_of(5 * TOKEN_WEI, 1000)}


@pytest.mark.parametrize("name", ["provider-2", "provider-3"])
def test_files_that_are_no_model_of_the_order_are_void(
    driver: Driver, detail: dict[str, Any], name: str
) -> None:
    claim = _claims(driver, detail)[name]
    honest = [
        v
        for v in detail["validations"]
        if v["mid"] == claim["mid"] and driver.name_of(v["validator"]) != "validator-3"
    ]
    assert len(honest) == 2 and {v["score"] for v in honest} == {str(-(2**63))}
    assert claim["score"] == str(-(2**63))
    assert not any(r["account"] == claim["provider"] and int(r["amountWei"]) > 0 for r in detail["receipts"])


def test_a_link_with_other_bytes_is_reported_judged_and_slashed(
    driver: Driver, detail: dict[str, Any]
) -> None:
    claim = _claims(driver, detail)["provider-5"]
    assert claim["mid"] is not None and claim["score"] == str(IRRETRIEVABLE_SCORE)
    assert not any(v["mid"] == claim["mid"] for v in detail["validations"])
    (report,) = detail["reports"]
    assert (report["subject"], report["of"]) == (claim["mid"], "model")
    lost = amounts(detail, "provider", "model irretrievable")
    assert lost == {claim["provider"]: -5 * TOKEN_WEI}
    assert amounts(detail, "reporter") == {report["reporter"]: 2 * TOKEN_WEI}
    phases = [entered["phase"] for entered in detail["phases"]]
    assert phases[-2:] == ["appeal", "sealed"], "anybody could have appealed, and nobody did"


def test_a_wrong_score_is_challenged_judged_and_slashed(driver: Driver, detail: dict[str, Any]) -> None:
    liar = "0x" + driver.devnet.key("validator-3").address.hex()
    phases = [entered["phase"] for entered in detail["phases"]]
    assert "verdict" in phases and "verdict_reveal" in phases
    wrong = [v for v in detail["validations"] if v["validator"] == liar]
    assert len(wrong) == 3
    slashed = amounts(detail, "validator", "wrong score")
    assert slashed == {liar: -len(wrong) * 5 * TOKEN_WEI}
    total = -slashed[liar]
    assert sum(amounts(detail, "challenger").values()) == bps_of(total, 4000)
    assert sum(amounts(detail, "juror", "wrong score").values()) == bps_of(total, 1000)
    fines = sum(amounts(detail, "treasury", "wrong score").values())
    assert fines == total - bps_of(total, 4000) - bps_of(total, 1000)
    # The score that counts is the honest one, and the liar has no share of the validators' reward.
    assert liar not in amounts(detail, "validator", "validated the best model")


def test_the_chain_took_the_slashed_stake(driver: Driver, detail: dict[str, Any]) -> None:
    from protocol.roles import Role

    chain = driver.devnet.chain("client")
    bonded, _, _ = chain.stake_of(driver.devnet.key("validator-3").address, Role.VALIDATOR)
    assert bonded == 1000 * TOKEN_WEI - 15 * TOKEN_WEI
