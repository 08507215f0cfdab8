"""What a settlement costs each credited account, with 30 of 30 signatures and in steady state.

The limits are the figures of the design. Gas is the receipt's, calldata and all. The first settlement of
a deployment is not counted, because it alone turns the number of the last report from zero to one.
"""

from __future__ import annotations

from typing import Any

import pytest
from contract_network import (
    TOKEN,
    Network,
    committee_keys,
    deploy_network,
    make_order,
    make_report,
    pack_credits,
    proof_of,
    sign,
)

from protocol.crypto import keccak256

COMMITTEE_SIZE = 30
GAS_LIMIT = 2**24
"""Cap of one transaction on chains of the Osaka hard fork (EIP-7825)."""


@pytest.fixture(scope="module")
def large(deployer: Any, client: Any, treasury: Any) -> Network:
    """A network of 30 aggregators that has settled once."""
    network = deploy_network(deployer, treasury, COMMITTEE_SIZE)
    network.token.transfer(client, 100_000 * TOKEN, sender=deployer)
    network.token.approve(network.orders, 2**256 - 1, sender=client)
    network.committee.change(network.committee.members(), COMMITTEE_SIZE, sender=deployer)
    settle_all(network, client, 1, nonce=0)
    return network


def earnings(count: int, total: int) -> list[tuple[bytes, int]]:
    """``total`` shared unevenly, to the base unit: about 10 tokens each at 100 accounts, 8 bytes of 12."""
    share = total // (2 * count)
    accounts = [keccak256(b"earner %d" % place)[12:] for place in range(count)]
    amounts = [share + int.from_bytes(keccak256(account)[:8], "big") % share for account in accounts[1:]]
    return list(zip(accounts, [total - sum(amounts), *amounts], strict=True))


def settle_all(network: Network, client: Any, count: int, nonce: int) -> tuple[Any, list[tuple[bytes, int]]]:
    """Put one order, credit all of it to ``count`` accounts with the signatures of the whole committee."""
    order = make_order(client, nonce=nonce, reward=1_000 * TOKEN, deposit=50 * TOKEN)
    network.orders.put(order, sender=client)
    oid = bytes(network.orders.oidOf(order))
    earned = earnings(count, 1_050 * TOKEN)
    report = make_report(network, orders=oid, credits=pack_credits(earned))
    signatures = sign(network, report, committee_keys(COMMITTEE_SIZE))
    receipt = network.settlement.update(report, 2**COMMITTEE_SIZE - 1, signatures, sender=client)
    return receipt, earned


@pytest.mark.parametrize(("count", "limit"), [(100, 3_000), (1_000, 1_400)])
def test_a_credit_costs_little(large: Network, client: Any, count: int, limit: int) -> None:
    receipt, earned = settle_all(large, client, count, nonce=count)
    assert receipt.gas_used < GAS_LIMIT
    print(f"\n{count} accounts: {receipt.gas_used} gas, {receipt.gas_used / count:.0f} per account")
    assert receipt.gas_used <= limit * count
    account, amount = earned[0]
    beneficiary = f"0x{account.hex()}"
    proof = proof_of(earned, account)
    claimed = large.settlement.claim(
        beneficiary, [large.settlement.lastEpoch()], [amount], [proof], sender=client
    )
    print(f"its claim: {claimed.gas_used} gas with a proof of {len(proof)} nodes")
    assert large.token.balanceOf(beneficiary) == amount
