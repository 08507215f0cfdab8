"""The order everybody hopes for, driven through real processes and the command line."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtn.devnet import Devnet, Shape
from offchain.client.webhooks import make_secret, read_secret, sign
from protocol.crypto import sha256
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from tests.client.receiver import Receiver
from tests.end_to_end.driving import Driver, amounts, conserved, dtn, dtn_json, until

pytestmark = pytest.mark.end_to_end

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[2] / "examples"
SHAPE = Shape(
    providers=2,
    validators=2,
    verifiers=1,
    extra={f"provider-{index}": {"parallel_orders": 2} for index in (1, 2)},
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Where the client's webhooks go."""
    with Receiver().up() as up:
        up.statuses = [503]  # the first try of the first message fails
        yield up


@pytest.fixture(scope="module")
def driver(home: Path, receiver: Receiver) -> Iterator[Driver]:
    secret = home / "webhook.secret"
    make_secret(secret)
    client = {"webhook_url": receiver.url, "webhook_secret_file": str(secret)}
    shape = dataclasses.replace(SHAPE, extra=SHAPE.extra | {"client": client})
    with Devnet(home / "devnet").lifetime(shape) as devnet:
        yield Driver(devnet, home)


@pytest.fixture(scope="module")
def two_orders(driver: Driver) -> tuple[str, str]:
    """Two orders at once, one for each family."""
    return driver.put(), driver.put(family="cnn")


@pytest.fixture(scope="module")
def watcher(driver: Driver, two_orders: tuple[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program of somebody without a key, who watches both orders from their beginning."""
    for oid in two_orders:
        driver.in_phase(oid, "training")
    command = [sys.executable, str(EXAMPLES / "watch_orders.py"), "--network"]
    network = str(driver.devnet.folder / "network.json")
    with subprocess.Popen([*command, network], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.usefixtures("watcher")
def test_an_order_ends_with_a_paid_winner(driver: Driver, two_orders: tuple[str, str], which: int) -> None:
    detail = driver.settled(two_orders[which])
    assert detail["result"] == "won"
    assert len(detail["claims"]) == 2 and all(claim["score"] for claim in detail["claims"])
    best = max(detail["claims"], key=lambda claim: int(claim["score"]))
    assert int(detail["score"]) == int(best["score"]) > 850_000
    assert len({v["score"] for v in detail["validations"] if v["mid"] == detail["mid"]}) == 1
    assert conserved(detail)
    assert amounts(detail, "provider", "best model") == {detail["winner"]: 80 * TOKEN_WEI}
    assert sum(amounts(detail, "aggregator").values()) == 5 * TOKEN_WEI
    assert sum(amounts(detail, "validator").values()) == 10 * TOKEN_WEI
    assert sum(amounts(detail, "provider", "consolation").values()) == 5 * TOKEN_WEI
    assert sum(int(credit["amountWei"]) for credit in detail["settlement"]["credits"]) >= 105 * TOKEN_WEI
    assert 0 < detail["settlement"]["gasUsed"] < 2**24


def test_the_clients_program_is_told_of_every_phase_and_of_the_model(
    driver: Driver, receiver: Receiver, two_orders: tuple[str, str], home: Path
) -> None:
    driver.settled(two_orders[0])

    def told() -> dict[str, Json]:
        """The messages about the first order, by their ids."""
        messages = ((headers["webhook-id"], json.loads(body)) for headers, body in list(receiver.taken))
        return {name: message for name, message in messages if message["data"]["oid"] == two_orders[0]}

    def settled() -> bool:
        return any(message["data"].get("phase") == "settled" for message in told().values())

    until("the client's program hears of the settlement", settled, driver.devnet)
    detail = driver.settled(two_orders[0])
    phases = {message["data"]["phase"] for message in told().values() if message["type"] == "order.phase"}
    assert phases == {entered["phase"] for entered in detail["phases"]} | {"settled"}
    (ready,) = [message for message in told().values() if message["type"] == "order.model_ready"]
    assert ready["data"]["winner"] == detail["winner"]
    secret = read_secret(home / "webhook.secret")
    for headers, body in list(receiver.taken):
        stamp = int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == sign(secret, headers["webhook-id"], stamp, body)


def test_the_example_watches_both_orders_to_their_end(
    driver: Driver, watcher: subprocess.Popen[str], two_orders: tuple[str, str]
) -> None:
    told = watcher.communicate(timeout=300)[0].splitlines()
    assert watcher.returncode == 0
    for oid in two_orders:
        winner = driver.settled(oid)["winner"]
        lines = [line for line in told if line.startswith(oid[:10])]
        assert lines[0].endswith("is in training") and lines[-2].endswith("is in settled")
        assert f"won by {winner} with" in lines[-1]


def test_the_client_gets_the_model_whose_hash_the_ledger_names(
    driver: Driver, two_orders: tuple[str, str], home: Path
) -> None:
    detail = driver.settled(two_orders[0])
    path = home / "out" / "model.safetensors"
    answer = dtn_json("get", two_orders[0], "-o", str(path), home=home)
    assert "0x" + sha256(path.read_bytes()).hex() == detail["mid"] == answer["mid"] == answer["sha256"]


def test_a_winner_can_claim_what_the_receipts_say(
    driver: Driver, two_orders: tuple[str, str], home: Path
) -> None:
    details = [driver.settled(oid) for oid in two_orders]
    winner = details[0]["winner"]
    name = driver.name_of(winner)
    owed = sum(
        int(receipt["amountWei"])
        for d in details
        for receipt in d["receipts"]
        if receipt["account"] == winner
    )
    before = driver.balance(name)
    paid = dtn_json("claim", winner, home=home)
    assert int(paid["amount_wei"]) == owed == driver.balance(name) - before
    again = dtn_json("claim", winner, home=home)
    assert int(again["amount_wei"]) == 0 and driver.balance(name) - before == owed
    statement = dtn_json("account", winner, home=home)
    assert all(receipt["tx"] for receipt in statement["receipts"])
    assert sum(int(receipt["amountWei"]) for receipt in statement["receipts"]) == owed


def test_every_aggregator_tells_the_same_story(driver: Driver, two_orders: tuple[str, str]) -> None:
    for oid in two_orders:
        driver.settled(oid)
        told = driver.client.network.agreed(f"/v1/orders/{oid}", lambda d: (d["winner"], d["receipts"]))
        assert told["winner"]

    def one_story() -> bool:
        """Whichever view they are in: on a busy machine a primary may have been replaced, by all of them."""
        statuses = [driver.status(name) for name in _aggregators(driver)]
        told = {(s["settledEpoch"], s["view"], s["active"], *s["alarms"]) for s in statuses if s}
        return all(statuses) and len(told) == 1 and told.pop()[2:] == (True,)

    until("all stand at one settlement, active in one view, and raise no alarm", one_story, driver.devnet)


def _aggregators(driver: Driver) -> list[str]:
    return [name for name in driver.devnet.children.all() if name.startswith("aggregator")]


def test_people_can_read_everything(driver: Driver, two_orders: tuple[str, str], home: Path) -> None:
    driver.settled(two_orders[0])
    for command, expected in (
        (("orders",), two_orders[0]),
        (("order", two_orders[0]), "best model"),
        (("nodes",), "validator"),
        (("node", f"0x{driver.devnet.key('provider-1').address.hex()}"), "kept what it committed to"),
        (
            ("put", str(EXAMPLES / "digits.yaml"), "--estimate"),
            "won by somebody",
        ),
        (("status",), "primary"),
        (("devnet", "status"), "aggregator-1"),
        (("devnet", "logs", "validator-1"), "validated model"),
    ):
        done = dtn(*command, home=home)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_an_order_nobody_has_claimed_can_be_cancelled(driver: Driver, home: Path) -> None:
    for name in ("provider-1", "provider-2"):
        driver.devnet.children.stop([name])
    try:
        before = driver.balance("client")
        oid = driver.put()
        driver.in_phase(oid, "training")
        dtn_json("cancel", oid, home=home)
        detail = driver.settled(oid)
        assert detail["result"] == "cancelled by the client" and conserved(detail)
        dtn_json("claim", home=home)
        # The deposits of the earlier orders may come with it, never less than the refund.
        assert driver.balance("client") >= before
    finally:
        for name in ("provider-1", "provider-2"):
            driver.devnet.start(name, SHAPE)


def test_stake_comes_back_through_a_settlement(driver: Driver, home: Path) -> None:
    config = str(driver.devnet.config("verifier-1"))
    key = driver.devnet.key("verifier-1")
    chain = driver.devnet.chain("verifier-1")
    bonded, _, _ = chain.stake_of(key.address, Role.VERIFIER)
    dtn_json("verifier", "unregister", "--config", config, home=home)
    assert chain.stake_of(key.address, Role.VERIFIER)[:2] == (0, bonded)
    until("the stake is released", lambda: chain.stake_of(key.address, Role.VERIFIER)[2] == bonded)
    before = driver.balance("verifier-1")
    dtn_json("verifier", "withdraw", "--config", config, home=home)
    assert driver.balance("verifier-1") - before == bonded
    dtn_json("verifier", "register", "--config", config, "--stake", "100", home=home)
    assert chain.stake_of(key.address, Role.VERIFIER)[0] == 100 * TOKEN_WEI
