"""The chain appoints another committee while an order runs: the ledger passes from one to the next and back.

Five aggregators; one is dismissed in the middle of an order and appointed again after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_utils.address import to_checksum_address

from dtn.devnet import Devnet, Shape
from tests.end_to_end.driving import Driver, conserved, until

pytestmark = pytest.mark.end_to_end

SHAPE = Shape(aggregators=5, providers=1, validators=1, verifiers=0)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    home = tmp_path_factory.mktemp("home")
    with Devnet(home / "devnet").lifetime(SHAPE) as devnet:
        yield Driver(devnet, Path(home))


def appoint(driver: Driver, members: list[str]) -> None:
    """Let governance (the deployer, on a local network) name the committee."""
    chain = driver.devnet.chain("deployer")
    accounts = [to_checksum_address(member) for member in members]
    threshold = len(members) - (len(members) - 1) // 3
    chain.send(chain.committee.functions.change(accounts, threshold), "change the committee")


def ordered_by(driver: Driver, names: list[str], members: list[str]) -> None:
    """Wait until all these aggregators stand level under this committee."""

    def level() -> bool:
        found: list[dict[str, Any] | None] = [driver.status(name) for name in names]
        return all(status and status["members"] == members for status in found) and (
            len({status["executed"] for status in found if status}) == 1
        )

    until(f"{names} go on under a committee of {len(members)}", level, driver.devnet)


def test_a_dismissed_member_stands_aside_and_comes_back_and_the_order_is_paid(driver: Driver) -> None:
    names = sorted(n for n in driver.devnet.children.all() if n.startswith("aggregator"))
    status = driver.status(names[0])
    assert status is not None
    everyone: list[str] = status["members"]
    # The one that everybody asks first: from now on it must send them on to the others.
    dismissed, place = names[0], status["member"]
    others = [member for member in everyone if member != everyone[place]]
    oid = driver.put()
    driver.claimed(oid, 1)
    appoint(driver, others)
    ordered_by(driver, names, others)
    gone = driver.status(dismissed)
    assert gone is not None and gone["member"] is None and gone["committeeEpoch"] == 2
    detail = driver.settled(oid)
    assert detail["result"] == "won" and conserved(detail)

    driver.devnet.children.stop([dismissed], kill=True)
    appoint(driver, everyone)
    driver.devnet.start(dismissed, SHAPE)
    ordered_by(driver, names, everyone)
    back = driver.status(dismissed)
    assert back is not None and back["member"] == place and back["committeeEpoch"] == 3
    another = driver.put()
    detail = driver.settled(another)
    assert detail["result"] == "won" and conserved(detail)
