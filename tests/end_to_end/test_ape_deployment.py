"""From `ape run deploy` to a paid order: the contracts that ape deployed carry a whole network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from web3 import HTTPProvider, Web3

from dtn.devnet import Shape
from tests.end_to_end.ape_network import ApeNetwork
from tests.end_to_end.driving import Driver, conserved, dtn_json

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    home = tmp_path_factory.mktemp("home")
    shape = Shape(providers=1, validators=1, verifiers=0, threshold=3)
    with ApeNetwork(home / "devnet").lifetime(shape) as network:
        yield Driver(network, home)


def test_an_order_is_paid_by_contracts_that_ape_deployed(driver: Driver, tmp_path: Path) -> None:
    file = driver.devnet.network()
    assert file.address_book.chain_id == 97
    written = dtn_json(
        "network",
        "create",
        *("--rpc", file.rpc_url, "--addresses", str(driver.devnet.folder / "addresses.json")),
        *("--output", str(tmp_path / "network.json")),
        home=tmp_path,
    )
    assert set(written["aggregators"]) == set(file.aggregators)
    detail = driver.settled(driver.put())
    assert detail["result"] == "won"
    assert conserved(detail)


def test_nothing_is_sent_before_one_question_about_the_whole_plan_is_answered(driver: Driver) -> None:
    network = driver.devnet
    assert isinstance(network, ApeNetwork)
    web3 = Web3(HTTPProvider(network.network().rpc_url))
    deployer = Web3.to_checksum_address(network.key("deployer").address)
    before = web3.eth.get_transaction_count(deployer)
    done = network.ape_run_deploy(web3, "--output", str(network.folder / "second.json"), answers="n\n")
    assert done.returncode != 0 and "Deploy? [y/N]" in done.stdout
    assert f"chain 97: {network.transactions} transactions from {deployer}" in done.stdout
    done = network.ape_run_deploy(web3, "--yes", passphrase="wrong")
    assert done.returncode != 0
    assert web3.eth.get_transaction_count(deployer) == before
    assert not (network.folder / "second.json").exists()
