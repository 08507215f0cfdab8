"""A local network for measuring: real aggregators on a real chain, many staked providers, one open order."""

from __future__ import annotations

import concurrent.futures
from typing import Final

import httpx

from benchmarks._claims import claim_order, provider_key
from dtn.devnet import Devnet, Shape
from dtn.devnet.processes import wait_until
from protocol.chain.client import ChainClient
from protocol.parameters import TOKEN_WEI
from protocol.roles import Role
from protocol.transactions import order_id

REGISTER_THREADS: Final = 8
ORDER_TIMEOUT_S: Final = 60.0
STAKE_WEI: Final = 200 * TOKEN_WEI


def committee_only(aggregators: int) -> Shape:
    """A network of aggregators and a client, nobody else."""
    return Shape(aggregators=aggregators, providers=0, validators=0, verifiers=0)


def stake_providers(devnet: Devnet, count: int) -> None:
    """Fund and register the benchmark's providers."""
    for number in range(count):
        devnet.fund(provider_key(number).address, STAKE_WEI)
    chain = devnet.chain("client")

    def register(number: int) -> None:
        provider = ChainClient(chain.web3, chain.book, provider_key(number))
        provider.register(Role.PROVIDER, STAKE_WEI, "", bytes(32))

    with concurrent.futures.ThreadPoolExecutor(REGISTER_THREADS) as pool:
        list(pool.map(register, range(count)))


def put_order(devnet: Devnet) -> bytes:
    """Put the order that claims are for; its OID."""
    chain = devnet.chain("client")
    order = claim_order(devnet.key("client").address)
    chain.put(order)
    return order_id(chain.domain, order)


def wait_for_order(devnet: Devnet, oid: bytes, last_provider: int) -> None:
    """Until every aggregator's ledger has the order and the last provider's stake.

    Raises:
        TimeoutError: it never came.
    """
    last = "0x" + provider_key(last_provider).address.hex()

    def known(url: str) -> bool:
        if httpx.get(f"{url}/v1/orders/0x{oid.hex()}").status_code != 200:
            return False
        return bool(httpx.get(f"{url}/v1/accounts/{last}").json()["stakes"])

    for url in devnet.network().aggregators:
        if not wait_until(lambda url=url: known(url), ORDER_TIMEOUT_S):
            raise TimeoutError("the order did not reach the ledger")
