"""Machines die, clients cheat or forget, orders are nonsense: money stays safe and the network goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dtn.commands.orders import gateway_of
from dtn.devnet import Devnet, Shape
from offchain.client import read_task_file
from protocol.chain.client import ChainClient
from protocol.errors import ChainError, InvalidDocument
from protocol.keyfile import write_private
from protocol.parameters import TOKEN_WEI
from protocol.rewards import bps_of
from protocol.transactions import Order
from tests.end_to_end.driving import REWARD_WEI, Driver, amounts, conserved, dtn, until

pytestmark = pytest.mark.end_to_end

SHAPE = Shape(providers=1, validators=2, verifiers=0)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    home = tmp_path_factory.mktemp("home")
    with Devnet(home / "devnet").lifetime(SHAPE) as devnet:
        yield Driver(devnet, Path(home))


def test_an_order_survives_its_primary_and_the_primary_comes_back(driver: Driver) -> None:
    oid = driver.put()
    driver.claimed(oid, 1)
    primary = driver.aggregator_of(0)
    driver.devnet.children.stop([primary], kill=True)
    detail = driver.settled(oid)
    assert detail["result"] == "won" and conserved(detail)
    driver.devnet.start(primary, SHAPE)
    others = [n for n in driver.devnet.children.all() if n.startswith("aggregator") and n != primary]

    def caught_up() -> bool:
        mine, theirs = driver.status(primary), driver.status(others[0])
        if mine is None or theirs is None or not mine["active"]:
            return False
        return all(mine[each] == theirs[each] for each in ("executed", "view", "settledEpoch"))

    until("the primary is where the others are, in their view", caught_up, driver.devnet)
    mine = driver.status(primary)
    assert mine is not None and mine["view"] >= 1 and mine["settledEpoch"] >= 1


def test_every_aggregator_can_be_killed_in_turn(driver: Driver) -> None:
    oid = driver.put()
    names = sorted(n for n in driver.devnet.children.all() if n.startswith("aggregator"))
    for name in names:
        driver.devnet.children.stop([name], kill=True)
        driver.devnet.start(name, SHAPE)

        def back(name: str = name) -> bool:
            found = [driver.status(other) for other in names]
            return all(found) and len({status["executed"] for status in found if status}) == 1

        until(f"{name} is back and level with the others", back, driver.devnet)
    detail = driver.settled(oid)
    assert conserved(detail) and detail["result"] == "won"


def test_a_killed_provider_resumes_and_a_killed_client_still_releases(driver: Driver) -> None:
    oid = driver.put()
    driver.claimed(oid, 1)
    driver.devnet.children.stop(["provider-1", "client"], kill=True)
    driver.devnet.start("provider-1", SHAPE)
    driver.devnet.start("client", SHAPE)
    log = driver.devnet.children.log("provider-1")
    until(
        "the second process takes the training up again",
        lambda: log.read_text().count("training order " + oid) == 2,
        driver.devnet,
    )
    detail = driver.settled(oid)
    assert detail["result"] == "won"
    assert detail["testLinks"], "the client released the test set after its restart"


def test_a_withheld_test_set_costs_the_client_its_deposit(driver: Driver) -> None:
    oid = driver.put()
    driver.claimed(oid, 1)
    driver.devnet.children.stop(["client"])
    driver.in_phase(oid, "reveal")
    until("the model is revealed", lambda: driver.claimed(oid, 1)["claims"][0]["mid"], driver.devnet)
    driver.leap_to_end(oid)
    detail = driver.settled(oid)
    driver.devnet.start("client", SHAPE)
    assert detail["result"] == "the client withheld the test set" and conserved(detail)
    deposit, reward = int(detail["order"]["deposit"]), int(detail["order"]["reward"])
    consolation = bps_of(reward, 500)
    provider = detail["claims"][0]["provider"]
    assert amounts(detail, "provider") == {provider: deposit + consolation}
    assert amounts(detail, "client") == {detail["client"]: reward - consolation}


def test_no_claims_means_a_full_refund(driver: Driver) -> None:
    driver.devnet.children.stop(["provider-1"])
    try:
        oid = driver.put()
        detail = driver.settled(oid)
        assert detail["result"] == "nobody claimed"
        came_in = int(detail["order"]["reward"]) + int(detail["order"]["deposit"])
        assert amounts(detail, "client", "refund") == {detail["client"]: came_in}
        before = driver.balance("client")
        paid = driver.client.claim(driver.devnet.key("client").address).amount_wei
        assert paid >= came_in and driver.balance("client") == before + paid
    finally:
        driver.devnet.start("provider-1", SHAPE)


@pytest.mark.parametrize(
    ("changes", "reward_wei", "reason"),
    [
        ({}, TOKEN_WEI, "reward is 1000000000000000000 wei and must be at least 10000000000000000000"),
        ({"train_s": 1}, REWARD_WEI, "windows.train_s is 1 and must lie in"),
        ({"validate_s": 10**8}, REWARD_WEI, "windows.validate_s"),
    ],
)
def test_orders_out_of_bounds_are_refused_before_money_moves(
    driver: Driver, changes: dict[str, int], reward_wei: int, reason: str
) -> None:
    before = driver.balance("client")
    with pytest.raises(InvalidDocument, match=reason):
        driver.client.put(
            read_task_file(driver.task(**changes)), reward_wei=reward_wei, gateway=gateway_of(driver.config)
        )
    assert driver.balance("client") == before


def test_the_contract_refuses_them_too(driver: Driver) -> None:
    chain: ChainClient = driver.devnet.chain("client")
    good = Order(
        client=driver.devnet.key("client").address,
        nonce=1,
        kind="open",
        reward=REWARD_WEI,
        deposit=5 * TOKEN_WEI,
        train_window=60,
        validate_window=60,
        challenge_window=60,
        task_hash=bytes(32),
        task_link="http://127.0.0.1:1/ipfs/none",
        data_root=bytes(32),
        baseline=0,
    )
    before = driver.balance("client")
    for changes, reason in (
        ({"reward": TOKEN_WEI}, "OrderBook__RewardTooSmall"),
        ({"deposit": 0}, "OrderBook__DepositTooSmall"),
        ({"train_window": 1}, "OrderBook__WindowOutOfBounds"),
    ):
        order = Order(**{**{f: getattr(good, f) for f in good.__struct_fields__}, **changes})  # type: ignore[arg-type]
        with pytest.raises(ChainError, match=reason):
            chain.put(order)
    assert driver.balance("client") == before


def test_an_order_with_an_unreadable_task_is_nobodys_work_and_refunded(driver: Driver) -> None:
    """Placed past the SDK: the link is dead, so no provider can train and the money comes back."""
    chain = driver.devnet.chain("client")
    order = Order(
        client=driver.devnet.key("client").address,
        nonce=2,
        kind="open",
        reward=REWARD_WEI,
        deposit=5 * TOKEN_WEI,
        train_window=10,
        validate_window=10,
        challenge_window=10,
        task_hash=bytes(32),
        task_link="http://127.0.0.1:1/ipfs/none",
        data_root=bytes(32),
        baseline=0,
    )
    chain.put(order)
    oid = "0x" + bytes(chain.orders.functions.oidOf(_tuple(order)).call()).hex()
    detail = driver.settled(oid)
    assert detail["result"] == "nobody claimed" and conserved(detail)


def _tuple(order: Order) -> object:
    from protocol.chain.client import order_tuple

    return order_tuple(order)


def test_garbage_sent_to_the_api_is_refused_with_a_reason(driver: Driver) -> None:
    url = driver.devnet.network().aggregators[0] + "/v1/transactions"
    for body, status in (
        (b"not json", 400),
        (b"{}", 400),
        (b'{"type":"Nonsense","message":{},"signature":"0x"}', 400),
        (b"[" * 100_000, 400),
        (b"x" * 3_000_000, 413),
    ):
        answer = httpx.post(url, content=body, timeout=10)
        assert answer.status_code == status and answer.json()["error"]["reason"]


def test_the_ledger_goes_on_while_the_chain_is_frozen(driver: Driver) -> None:
    oid = driver.put()
    driver.claimed(oid, 1)
    chain = driver.devnet.children.all()["chain"].find()
    assert chain is not None
    chain.suspend()
    try:
        sealed = driver.in_phase(oid, "sealed")
        assert sealed["result"] == "won"
    finally:
        chain.resume()
    assert conserved(driver.settled(oid))


def test_errors_are_one_line_that_says_what_to_do(driver: Driver, tmp_path: Path) -> None:
    task = str(driver.task())
    empty = tmp_path / "empty"
    nothing = dtn("put", task, "--reward", "100", home=empty)
    assert nothing.returncode == 1 and "dtn devnet up" in nothing.stderr
    poor = _other_client(driver, tmp_path, "11" * 32)
    broke = dtn("put", task, "--reward", "100", "--config", poor, home=driver.folder)
    assert broke.returncode == 1 and "send it some tokens first" in broke.stderr
    wrong = _other_client(driver, tmp_path, "not a key")
    keyless = dtn("put", task, "--reward", "100", "--config", wrong, home=driver.folder)
    assert keyless.returncode == 1 and "does not hold a private key" in keyless.stderr
    amount = dtn("put", task, "--reward", "lots", home=driver.folder)
    assert amount.returncode == 1 and "is no amount of tokens" in amount.stderr
    unknown = dtn("order", "0x" + "00" * 32, home=driver.folder)
    assert unknown.returncode == 1 and "no order" in unknown.stderr
    for done in (nothing, broke, keyless, amount, unknown):
        assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("dtn: ")


def _other_client(driver: Driver, folder: Path, secret: str) -> str:
    key = folder / f"{secret[:4]}.key"
    write_private(key, secret)
    config = folder / f"{secret[:4]}.toml"
    network = driver.devnet.network_file
    config.write_text(
        f'key_file = "{key}"\ndata_dir = "{folder}/data"\nnetwork = "{network}"\ngateway_port = 4321\n'
    )
    return str(config)
