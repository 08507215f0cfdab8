"""A client that serves its test set to nobody: reported, judged, appealed against in vain, settled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtn.devnet import Devnet, Shape
from protocol.parameters import TOKEN_WEI
from protocol.transactions import IRRETRIEVABLE_SCORE
from tests.end_to_end.driving import Driver, amounts, conserved, dtn, dtn_json

pytestmark = pytest.mark.end_to_end

SHAPE = Shape(
    providers=1,
    validators=2,
    verifiers=2,
    parameters={"appeal_s": 120},
    commands={
        name: (sys.executable, "-m", "tests.end_to_end.misbehaving", kind)
        # The model is never looked at, so the provider need not train one.
        for name, kind in (("client", "hiding-client"), ("provider-1", "garbage"))
    },
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    home = tmp_path_factory.mktemp("home")
    with Devnet(home / "devnet").lifetime(SHAPE) as devnet:
        yield Driver(devnet, Path(home))


@pytest.fixture(scope="module")
def detail(driver: Driver) -> dict[str, Any]:
    oid = driver.put(validate_s=40)  # half of it is tried before anything is absent
    driver.in_phase(oid, "appeal")
    config = str(driver.devnet.config("provider-1"))
    dtn_json("provider", "appeal", oid, "test-set", "--config", config, home=driver.folder)
    return driver.settled(oid)


def test_the_order_ends_as_if_the_test_set_had_been_withheld(driver: Driver, detail: dict[str, Any]) -> None:
    assert detail["result"] == "the test set could not be fetched" and conserved(detail)
    (report,) = detail["reports"]
    assert (report["of"], report["subject"]) == ("test set", detail["order"]["dataRoot"])
    deposit = int(detail["order"]["deposit"])
    assert amounts(detail, "reporter") == {report["reporter"]: deposit * 4 // 10}
    provider = "0x" + driver.devnet.key("provider-1").address.hex()
    assert amounts(detail, "provider", "forfeited deposit") == {provider: deposit // 2}
    assert amounts(detail, "provider", "consolation") == {provider: 5 * TOKEN_WEI}


def test_the_appeal_was_heard_once_more_and_cost_its_bond(driver: Driver, detail: dict[str, Any]) -> None:
    phases = [entered["phase"] for entered in detail["phases"]]
    assert phases[-6:] == ["verdict", "verdict_reveal", "appeal", "verdict", "verdict_reveal", "sealed"]
    (dispute,) = detail["disputes"]
    assert dispute["verdict"]["score"] == str(IRRETRIEVABLE_SCORE)
    (appeal,) = detail["appeals"]
    lost = amounts(detail, "provider", "appeal without effect")
    assert lost == {appeal["appellant"]: -10 * TOKEN_WEI}
    assert dispute["round"] == 3 and sum(amounts(detail, "juror", "appeal").values()) == TOKEN_WEI


def test_people_are_shown_what_happened(driver: Driver, detail: dict[str, Any]) -> None:
    network = str(driver.devnet.folder / "network.json")
    shown = dtn("order", detail["oid"], "--network", network, home=driver.folder)
    assert shown.returncode == 0, shown.stderr
    for words in ("irretrievable reports", "disputes", "appeals", "test set", "appeal without effect"):
        assert words in shown.stdout
