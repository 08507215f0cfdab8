"""Put and Get from a wallet: the scripts, web3 and the public API alone, over a whole local network.

The account is a stranger: not one the network made, but one with a key file, a configuration and some tokens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtn.devnet import Devnet, Shape
from dtn.devnet.ports import free_port
from protocol.crypto import Key, sha256
from protocol.keyfile import write_private
from protocol.parameters import TOKEN_WEI
from tests.end_to_end.driving import Driver, amounts, conserved, dtn_json, until

pytestmark = pytest.mark.end_to_end

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
WINDOWS = {"train": 240, "validate": 120, "challenge": 6}
FUNDS_WEI = 1000 * TOKEN_WEI


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def driver(home: Path) -> Iterator[Driver]:
    with Devnet(home / "devnet").lifetime(Shape(providers=1, validators=1, verifiers=0)) as devnet:
        yield Driver(devnet, home)


@pytest.fixture(scope="module")
def wallet(driver: Driver, home: Path) -> Key:
    """A new account with tokens and gas money, and a client configuration for the same key."""
    key = Key.generate()
    write_private(home / "wallet.key", key.secret.hex())
    (home / "client.toml").write_text(
        f'key_file = "wallet.key"\ndata_dir = "wallet"\nnetwork = "{driver.devnet.network_file}"\n'
        f"gateway_port = {free_port()}\npoll_s = 0.5\n"
    )
    dtn_json("devnet", "fund", "0x" + key.address.hex(), "--tokens", "1000", home=home)
    return key


@pytest.fixture(scope="module")
def task_link(driver: Driver, wallet: Key, home: Path) -> Iterator[str]:
    """A task that the stranger's own daemon hosts."""
    config = str(home / "client.toml")
    link = dtn_json("client", "prepare", str(driver.task()), "--config", config, home=home)["task_link"]
    with open(home / "client.log", "wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "dtn", "client", "run", "--config", config],
            env={**os.environ, "DTN_HOME": str(home)},
            stderr=log,
        )
    try:
        until("the client's gateway answers", lambda: b"serves files" in (home / "client.log").read_bytes())
        yield link
    finally:
        daemon.terminate()
        assert daemon.wait(timeout=30) == 0


def script(name: str, *arguments: str, driver: Driver) -> subprocess.CompletedProcess[str]:
    """Run a wallet script with nothing of the repository on its path."""
    file = driver.devnet.network()
    where = ("--rpc", file.rpc_url, "--orders", file.address_book.orders)
    return subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *arguments, *where],
        cwd=driver.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def put(driver: Driver, link: str, reward: int) -> subprocess.CompletedProcess[str]:
    windows = [part for name, value in WINDOWS.items() for part in (f"--{name}-s", str(value))]
    order = ("--key", "wallet.key", "--task-link", link, "--reward", str(reward), "--baseline", "0.5")
    return script("put", *order, *windows, driver=driver)


@pytest.fixture(scope="module")
def placed(driver: Driver, wallet: Key, task_link: str) -> Any:
    """What ``put.py`` says of the order that the chain took."""
    done = put(driver, task_link, 100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_order_the_contract_would_refuse_costs_the_wallet_nothing(
    driver: Driver, wallet: Key, task_link: str
) -> None:
    before = driver.devnet.chain("client").balance_of(wallet.address)
    refused = put(driver, task_link, 1)
    assert refused.returncode == 1 and "OrderBook__RewardTooSmall" in refused.stderr
    assert len(refused.stderr.splitlines()) <= 2, "the OID, and one line that says why"
    assert driver.devnet.chain("client").balance_of(wallet.address) == before


def test_there_is_no_model_before_the_order_is_over(driver: Driver, placed: Any, home: Path) -> None:
    early = script("get", placed["oid"], "-o", "early.safetensors", driver=driver)
    assert early.returncode == 1 and len(early.stderr.splitlines()) == 1
    assert not (home / "early.safetensors").exists()


def test_a_wallets_order_is_trained_settled_and_fetched(
    driver: Driver, wallet: Key, placed: Any, home: Path
) -> None:
    detail = driver.settled(placed["oid"])
    client = "0x" + wallet.address.hex()
    assert detail["result"] == "won" and conserved(detail)
    assert amounts(detail, "client") == {client: 5 * TOKEN_WEI}, "the deposit comes back"
    fetched = script("get", placed["oid"], "-o", "out/model.safetensors", driver=driver)
    assert fetched.returncode == 0, fetched.stderr
    answer = json.loads(fetched.stdout)
    model = (home / "out" / "model.safetensors").read_bytes()
    assert "0x" + sha256(model).hex() == detail["mid"] == answer["mid"]
    dtn_json("claim", client, "--config", str(home / "client.toml"), home=home)
    assert driver.devnet.chain("client").balance_of(wallet.address) == FUNDS_WEI - 100 * TOKEN_WEI
