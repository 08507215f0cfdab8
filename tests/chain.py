"""A real chain for tests: Anvil on a free port with the contracts deployed; and a network without one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from eth_account import Account
from eth_utils.address import to_checksum_address
from web3 import Web3

from dtn.devnet.anvil import running_anvil
from offchain.network import NetworkFile
from protocol.chain.client import ChainClient
from protocol.chain.deployment import AddressBook, Governance, deploy, make_plan
from protocol.crypto import Key

COIN_WEI = 10**21


@dataclass
class Chain:
    """Anvil with the contracts; blocks are mined with transactions and by `mine`."""

    web3: Web3
    book: AddressBook
    owner: Key
    process: subprocess.Popen[bytes]

    def client(self, key: Key) -> ChainClient:
        """The contracts as ``key`` uses them, with coins for gas."""
        self.rpc("anvil_setBalance", [to_checksum_address(key.address), hex(COIN_WEI)])
        return ChainClient(self.web3, self.book, key)

    def fund(self, key: Key, amount_wei: int) -> ChainClient:
        """`client` with tokens."""
        bank = ChainClient(self.web3, self.book, self.owner)
        bank.send(bank.token.functions.transfer(to_checksum_address(key.address), amount_wei), "funding")
        return self.client(key)

    def network_file(self, *aggregators: str) -> NetworkFile:
        """What a user of this chain's contracts needs to know."""
        rpc_url = str(self.web3.provider.endpoint_uri)  # type: ignore[attr-defined]
        return NetworkFile(rpc_url=rpc_url, address_book=self.book, aggregators=aggregators)

    def mine(self, blocks: int = 1) -> None:
        """Mine empty blocks."""
        self.rpc("anvil_mine", [hex(blocks)])

    def rpc(self, method: str, params: list[object]) -> object:
        """One raw call to Anvil."""
        return self.web3.provider.make_request(method, params).get("result")  # type: ignore[arg-type]


def chainless_network(*aggregators: str) -> NetworkFile:
    """A network file whose chain does not answer."""
    contracts = ("parameters", "token", "registry", "orders", "committee", "settlement")
    book = AddressBook(chain_id=1, block=1, treasury="0x", **dict.fromkeys(contracts, "0x"))
    return NetworkFile(rpc_url="http://127.0.0.1:1", address_book=book, aggregators=aggregators)


@contextlib.contextmanager
def running_chain(
    members: list[bytes] | None = None, governance: Governance | None = None
) -> Iterator[Chain]:
    """Anvil with deployed contracts, owned by one account unless governed; ended by its process id."""
    with running_anvil() as (web3, process):
        owner = Key((77).to_bytes(32, "big"))
        web3.provider.make_request("anvil_setBalance", [to_checksum_address(owner.address), hex(COIN_WEI)])  # type: ignore[arg-type]
        plan = make_plan(
            owner=owner.address if governance is None else None,
            governance=governance,
            holder=owner.address,
            treasury=Key((78).to_bytes(32, "big")).address,
            members=members or [Key((index + 1).to_bytes(32, "big")).address for index in range(4)],
        )
        yield Chain(web3, deploy(web3, Account.from_key(owner.secret), plan), owner, process)
