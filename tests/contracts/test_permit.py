"""Register and Put in one transaction, by an ERC-2612 signature; a permit spent by another does no harm."""

from __future__ import annotations

from typing import Any

import ape
import pytest
from contract_network import PROVIDER, TOKEN, Network, make_order
from eth_account.messages import encode_typed_data

from protocol.crypto import Key, keccak256

DEADLINE = 2**255


@pytest.fixture
def newcomer(network: Network, deployer: Any) -> Any:
    """Owns 1,000 tokens and has allowed nothing."""
    account = ape.accounts.test_accounts[9]
    network.token.transfer(account, 1_000 * TOKEN, sender=deployer)
    return account


def permit(network: Network, owner: Any, spender: Any, amount: int) -> tuple[int, int, bytes, bytes]:
    """Deadline, v, r and s of a permit by ``owner`` for ``spender``."""
    _, name, version, chain_id, contract, *_ = network.token.eip712Domain()
    domain = {"name": name, "version": version, "chainId": chain_id, "verifyingContract": contract}
    message = {
        "owner": owner.address,
        "spender": spender.address,
        "value": amount,
        "nonce": network.token.nonces(owner),
        "deadline": DEADLINE,
    }
    accounts = ("owner", "spender")
    types = [{"name": field, "type": "address" if field in accounts else "uint256"} for field in message]
    signable = encode_typed_data(domain, {"Permit": types}, message)
    digest = keccak256(b"\x19" + signable.version + signable.header + signable.body)
    signature = Key(bytes.fromhex(owner.private_key.removeprefix("0x"))).sign(digest)
    return DEADLINE, signature[64], signature[:32], signature[32:64]


def test_a_newcomer_registers_in_one_transaction(network: Network, newcomer: Any) -> None:
    signed = permit(network, newcomer, network.registry, 100 * TOKEN)
    network.registry.registerWithPermit(
        PROVIDER, 100 * TOKEN, "http://127.0.0.1:1", b"\x01" * 32, *signed, sender=newcomer
    )
    assert tuple(network.registry.stakeOf(newcomer, PROVIDER)) == (100 * TOKEN, 0, 0)


def test_a_newcomer_puts_an_order_in_one_transaction(network: Network, newcomer: Any) -> None:
    order = make_order(newcomer)
    signed = permit(network, newcomer, network.orders, 105 * TOKEN)
    network.orders.putWithPermit(order, *signed, sender=newcomer)
    assert network.orders.escrowOf(network.orders.oidOf(order))[1] == 105 * TOKEN


def test_whoever_spends_the_permit_first_stops_nobody(network: Network, newcomer: Any, stranger: Any) -> None:
    order = make_order(newcomer)
    signed = permit(network, newcomer, network.orders, 105 * TOKEN)
    network.token.permit(newcomer, network.orders, 105 * TOKEN, *signed, sender=stranger)
    network.orders.putWithPermit(order, *signed, sender=newcomer)
    assert network.orders.escrowOf(network.orders.oidOf(order))[1] == 105 * TOKEN


def test_a_wrong_permit_leaves_no_allowance(network: Network, newcomer: Any) -> None:
    signed = permit(network, newcomer, network.orders, 1)
    with ape.reverts(network.token.ERC20InsufficientAllowance):
        network.orders.putWithPermit(make_order(newcomer), *signed, sender=newcomer)
    with ape.reverts(network.token.ERC20InsufficientAllowance):
        network.registry.registerWithPermit(PROVIDER, 100 * TOKEN, "", b"\x01" * 32, *signed, sender=newcomer)
