"""A rolling upgrade of real processes under load, and a protocol version that the chain raises after it.

Three of four aggregators are replaced by the next release one after the other; the chain names version 2; the
one that was left halts before it and says why, everybody else is served all the time, and the newer release
in its place catches up.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dtn.devnet import Devnet, Shape
from offchain.network import Network, NetworkError
from protocol.chain.deployment import parameter_key
from protocol.transactions import Claim
from tests.end_to_end.driving import Driver, dtn, until
from tests.end_to_end.test_operations import AGGREGATORS, in_step

pytestmark = pytest.mark.end_to_end

SHAPE = Shape(providers=1, validators=0, verifiers=0)
NEXT = (sys.executable, "-m", "tests.end_to_end.newer_release")
NEXT_RELEASE = Shape(commands=dict.fromkeys(AGGREGATORS, NEXT))
LEFT = AGGREGATORS[-1]


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    with Devnet(tmp_path / "devnet").lifetime(SHAPE) as devnet:
        yield Driver(devnet, tmp_path)


class Load:
    """A provider that claims all the time, and how many claims were accepted."""

    def __init__(self, driver: Driver, oid: str) -> None:
        self._network = Network(driver.devnet.network(), driver.devnet.key("provider-1"))
        self._network.trust(driver.devnet.chain("provider-1").speaking_committees)
        self._oid = bytes.fromhex(oid[2:])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._claim)
        self.accepted = 0
        self.failure: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _claim(self) -> None:
        try:
            while not self._stopping.wait(0.1):
                try:
                    self._network.submit(Claim, oid=self._oid, commitment=bytes(31) + b"\x01")
                    self.accepted += 1
                except NetworkError:
                    continue  # nobody ordered it in time: `goes_on` tells
        except BaseException as reason:
            self.failure = reason

    def goes_on(self, driver: Driver, count: int = 5) -> None:
        """Wait until so many more claims were accepted."""
        enough = self.accepted + count
        until("claims are accepted", lambda: self.failure or self.accepted >= enough, driver.devnet)
        assert self.failure is None, self.failure


@contextmanager
def away(driver: Driver, name: str, shape: Shape = SHAPE) -> Iterator[None]:
    """Stop one aggregator; start it again afterwards, and wait until it is in step with the others."""
    driver.devnet.children.stop([name])
    yield
    driver.devnet.start(name, shape)
    until(f"{name} is back", lambda: in_step(driver, name), driver.devnet)


def test_a_rolling_upgrade_stops_nobody_and_a_raised_version_halts_only_who_does_not_know_it(
    driver: Driver,
) -> None:
    driver.devnet.children.stop(["provider-1"])
    oid = driver.put(train_s=600)
    until("the order is in training", lambda: driver.order(oid), driver.devnet)
    with Load(driver, oid) as load:
        load.goes_on(driver)
        for name in AGGREGATORS[:-1]:
            with away(driver, name, NEXT_RELEASE):
                load.goes_on(driver)
            load.goes_on(driver)
        said = [driver.status(name) for name in AGGREGATORS]
        assert [status and status["protocolSupported"] for status in said] == [[1, 2]] * 3 + [[1, 1]]
        assert {status and status["protocolVersion"] for status in said} == {1}

        chain = driver.devnet.chain("deployer")
        raised = chain.parameters.functions.set(parameter_key("protocol_version"), 2)
        chain.send(raised, "raise the protocol version")
        until(
            "version 2 is in force",
            lambda: all(
                (status := driver.status(n)) and status["protocolVersion"] == 2 for n in AGGREGATORS[:-1]
            ),
            driver.devnet,
        )
        load.goes_on(driver, 10)

        halted = driver.status(LEFT)
        assert halted is not None and halted["protocolVersion"] == 1
        first = halted["protocolUpgrade"]["first"]
        assert halted["executed"] == first - 1
        url = driver.devnet.network().aggregators[-1]
        reason = f"version 2 of the protocol from batch {first} on; this software knows 1: upgrade"
        for path in ("/healthz", "/readyz", "/v1/orders"):
            answer = httpx.get(url + path)
            assert answer.status_code == 503 and reason in answer.text, path
        assert reason in driver.devnet.children.tail(LEFT, 50)
        doctor = dtn("doctor", "--config", str(driver.devnet.config(LEFT)), home=driver.folder)
        assert doctor.returncode == 1 and "the network runs version 2 of the protocol" in doctor.stdout

        driver.devnet.children.stop([LEFT])
        driver.devnet.start(LEFT, NEXT_RELEASE)
        until(
            "they have checkpoints of version 2 in common",
            lambda: all((s := driver.status(n)) and s["stable"] >= first for n in AGGREGATORS),
            driver.devnet,
        )
        driver.devnet.children.stop([AGGREGATORS[0]])
        load.goes_on(driver)  # the one that was left is needed for every quorum now
