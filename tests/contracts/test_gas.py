"""What a settlement costs with 30 of 30 signatures in steady state: per credited account, and at most.

The limits are the figures of the design. Gas is the receipt's, calldata and all. The first settlement of
a deployment is not counted, because it alone turns the number of the last report from zero to one.
"""

from __future__ import annotations

from typing import Any

import pytest
from ape import networks as ape_networks
from contract_network import (
    TOKEN,
    Network,
    committee_keys,
    deploy_network,
    make_order,
    make_report,
    pack_credits,
    pack_entry,
    sign,
)

from aggregator.ledger.settlement import (
    MAX_REPORT_CREDITS,
    MAX_REPORT_ORDERS,
    MAX_REPORT_RELEASES,
    MAX_REPORT_SLASHES,
)
from aggregator.ledger.tasks.disputes import MAX_JURORS
from aggregator.ledger.tasks.open_transactions import (
    MAX_APPEALS,
    MAX_CLAIMS,
    MAX_IRRETRIEVABLE_REPORTS,
    MAX_VALIDATIONS,
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


STAKES_SLOT = 1
"""Where ``NodeRegistry`` keeps its stakes; `stake_directly` checks that it is still so."""
STAKE_WEI = 2 * TOKEN + 12345
SLASH_WEI = STAKE_WEI + TOKEN + 2345
"""More than is bonded, so that the rest comes from what is unbonding."""
RELEASE_WEI = TOKEN + 345


def put_directly(network: Network, client: Any, nonces: range) -> list[bytes]:
    """Place many orders with bare transactions, in a fraction of the time that ape takes for its own."""
    oids = []
    for nonce in nonces:
        order = make_order(client, nonce=nonce)
        data = network.orders.put.encode_input(order)
        sent = {"from": client.address, "to": network.orders.address, "data": "0x" + bytes(data).hex()}
        ape_networks.provider.make_request("eth_sendTransaction", [sent])
        oids.append(bytes(network.orders.oidOf(order)))
    return oids


def stake_directly(network: Network, names: list[bytes], bonded: int, unbonding: int) -> list[bytes]:
    """Give many accounts a stake as provider by writing the registry's storage, a thousand times faster."""
    accounts = sorted(keccak256(name)[12:] for name in names)
    for account in accounts:
        inner = keccak256(account.rjust(32, b"\0") + STAKES_SLOT.to_bytes(32, "big"))
        slot = keccak256((1).to_bytes(32, "big") + inner)
        word = (unbonding << 96 | bonded).to_bytes(32, "big")
        ape_networks.provider.make_request(
            "anvil_setStorageAt", [network.registry.address, "0x" + slot.hex(), "0x" + word.hex()]
        )
    assert tuple(network.registry.stakeOf("0x" + accounts[-1].hex(), 1)) == (bonded, unbonding, 0)
    return accounts


ORDER_PARTIES = MAX_CLAIMS + 2 * MAX_VALIDATIONS + MAX_IRRETRIEVABLE_REPORTS + 1 + MAX_APPEALS + 1
"""Providers, validators, one challenger per validation, reporters (one of the test set), appellants, and the
client."""
ORDER_JURORS = sum(MAX_JURORS.values())
"""In each round the heaviest stakes. Parties to one model may sit in judgement on another, and then others
do on theirs; but whoever is a party to none and sits anywhere is among the heaviest of those."""
ORDER_SLASHES = ORDER_PARTIES - 1
ORDER_CREDITS = ORDER_PARTIES + ORDER_JURORS + COMMITTEE_SIZE + 1


@pytest.mark.parametrize(
    ("order_count", "credit_count", "slash_count"),
    [
        pytest.param(MAX_REPORT_ORDERS, MAX_REPORT_CREDITS, MAX_REPORT_SLASHES, id="many orders"),
        pytest.param(1, ORDER_CREDITS, ORDER_SLASHES, id="the one order with most to settle"),
    ],
)
def test_the_largest_report_that_the_ledger_makes_fits_one_transaction(
    large: Network, deployer: Any, client: Any, order_count: int, credit_count: int, slash_count: int
) -> None:
    """Every order, credit, slash and release that a report may have, each touching storage of its own."""
    oids = put_directly(large, client, range(10_000 * order_count, 10_001 * order_count))
    slashed, released = (
        stake_directly(
            large, [b"%b %d of %d" % (why, n, order_count) for n in range(count)], STAKE_WEI, STAKE_WEI
        )
        for why, count in ((b"slash", slash_count), (b"release", MAX_REPORT_RELEASES))
    )
    large.token.transfer(large.registry, 10**6 * TOKEN, sender=deployer)
    report = make_report(
        large,
        orders=b"".join(sorted(oids)),
        slashes=b"".join(pack_entry(account, 1, SLASH_WEI) for account in slashed),
        releases=b"".join(pack_entry(account, 1, RELEASE_WEI) for account in released),
        credits=pack_credits(earnings(credit_count, order_count * 105 * TOKEN + slash_count * SLASH_WEI)),
    )
    signatures = sign(large, report, committee_keys(COMMITTEE_SIZE))
    receipt = large.settlement.update(report, 2**COMMITTEE_SIZE - 1, signatures, sender=client)
    print(
        f"\n{order_count} orders, {credit_count} credits, {slash_count} slashes, {len(released)} releases: "
        f"{receipt.gas_used} gas, {receipt.gas_used * 100 // GAS_LIMIT} % of one transaction's"
    )
    assert receipt.gas_used <= GAS_LIMIT * 9 // 10, "a tenth is left for larger committees and amounts"
