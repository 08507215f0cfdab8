"""Fixtures of the contract tests: a deployed network and accounts named by role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ape import accounts as ape_accounts
from contract_network import PROVIDER, TOKEN, Network, committee_keys, deploy_network, make_order

from protocol.crypto import Key


@pytest.fixture(scope="session")
def deployer() -> Any:
    """Deploys, owns Parameters and Committee, holds the supply."""
    return ape_accounts.test_accounts[0]


@pytest.fixture(scope="session")
def client() -> Any:
    """Pays for training."""
    return ape_accounts.test_accounts[1]


@pytest.fixture(scope="session")
def provider() -> Any:
    """Trains."""
    return ape_accounts.test_accounts[2]


@pytest.fixture(scope="session")
def validator() -> Any:
    """Scores."""
    return ape_accounts.test_accounts[3]


@pytest.fixture(scope="session")
def treasury() -> Any:
    """Receives fines."""
    return ape_accounts.test_accounts[5]


@pytest.fixture(scope="session")
def stranger() -> Any:
    """Has no role."""
    return ape_accounts.test_accounts[7]


@pytest.fixture(scope="session")
def members() -> list[Key]:
    """The four aggregators' keys, in the committee's order; three must sign."""
    return committee_keys(4)


@pytest.fixture(scope="session")
def network(deployer: Any, client: Any, provider: Any, validator: Any, treasury: Any) -> Network:
    """Four aggregators; client, provider and validator own 10,000 tokens each and allow spending them."""
    network = deploy_network(deployer, treasury, 4)
    for account in (client, provider, validator):
        network.token.transfer(account, 10_000 * TOKEN, sender=deployer)
        for spender in (network.registry, network.orders):
            network.token.approve(spender, 2**256 - 1, sender=account)
    return network


@pytest.fixture
def placed(network: Network, client: Any) -> bytes:
    """The id of one order in the book, 105 tokens in escrow."""
    order = make_order(client)
    network.orders.put(order, sender=client)
    return bytes(network.orders.oidOf(order))


@pytest.fixture
def staked(network: Network, provider: Any) -> Callable[[int], None]:
    """Stakes the provider with some tokens."""

    def stake(amount: int) -> None:
        network.registry.register(PROVIDER, amount, "http://127.0.0.1:1", b"\x33" * 32, sender=provider)

    return stake
