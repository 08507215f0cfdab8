"""Deployment of the contracts: one plan as data, and the address book it ends in.

Guarantees: the plan is a pure function of its arguments; every executor (``deploy`` here over web3,
``scripts/deploy.py`` over ape) runs the same steps in the same order, so all deployments are alike.
``Parameters`` comes first: its address is the network's identity in every signed message.

Source: design section 5; PoT 2.5 and 3.3 (what the chain must hold).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from eth_utils.address import to_checksum_address
from pydantic import BaseModel, ConfigDict, ValidationError

from protocol.chain.artifacts import load
from protocol.errors import ChainError
from protocol.parameters import DEFAULTS, PARAMETERS

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount
    from web3 import Web3
    from web3.contract.contract import ContractConstructor, ContractFunction
    from web3.types import TxReceipt

RECEIPT_TIMEOUT_S: Final = 180
"""How long ``deploy`` waits for one transaction to be mined."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Stands for the address of an earlier creation, by its name in the address book."""

    name: str


Argument = str | int | bytes | Reference | tuple[Any, ...]
"""A constructor or call argument: addresses are checksummed strings, lists are tuples."""


@dataclass(frozen=True, slots=True)
class Creation:
    """Deploy ``contract`` and enter its address as ``name``."""

    name: str
    contract: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """Send one transaction to an earlier creation."""

    target: str
    method: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Creations, then calls, in this order; and the treasury, which is an account of its own."""

    creations: tuple[Creation, ...]
    calls: tuple[Call, ...]
    treasury: str


class AddressBook(BaseModel):
    """Where the contracts of one network are. ``block`` is the first block with an event of theirs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chain_id: int
    block: int
    parameters: str
    token: str
    registry: str
    orders: str
    committee: str
    settlement: str
    treasury: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """The address book in the JSON file at ``path``.

        Raises:
            ChainError: there is no such file, or it is not an address book.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as reason:
            raise ChainError(f"no address book at {path}: deploy first, or name the right file") from reason
        except ValidationError as reason:
            raise ChainError(f"{path} is not an address book: deploy again to write one") from reason

    def write(self, path: Path) -> None:
        """Write the address book to ``path`` as JSON, creating its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def make_plan(
    *,
    owner: str | bytes,
    holder: str | bytes,
    treasury: str | bytes,
    members: Iterable[str | bytes],
    threshold: int | None = None,
    overrides: Mapping[str, int] | None = None,
) -> Plan:
    """The steps that deploy a network.

    Args:
        owner: who may change parameters and the committee.
        holder: who receives the whole supply of tokens.
        treasury: whom the ledger credits with fines.
        members: the aggregators' accounts, in any order.
        threshold: how many members must sign a settlement; by default n - f with f = (n - 1) // 3.
        overrides: parameter values that differ from ``protocol.parameters.DEFAULTS``.

    Raises:
        ValueError: no member, a repeated member, a threshold or parameter out of bounds, a bad address.
    """
    committee = sorted({to_checksum_address(member) for member in members}, key=str.lower)
    quorum = len(committee) - (len(committee) - 1) // 3
    needed = quorum if threshold is None else threshold
    if not committee or not quorum <= needed <= len(committee):
        raise ValueError(f"{len(committee)} members need a threshold in [{quorum}, {len(committee)}]")
    owner, holder, treasury = (to_checksum_address(account) for account in (owner, holder, treasury))
    token, parameters, registry = Reference("token"), Reference("parameters"), Reference("registry")
    orders, settlement = Reference("orders"), Reference("settlement")
    return Plan(
        creations=(
            Creation("parameters", "Parameters", (owner, *_parameter_lists(overrides or {}))),
            Creation("token", "TrainingToken", (holder,)),
            Creation("registry", "NodeRegistry", (token, parameters)),
            Creation("orders", "OrderBook", (token, parameters)),
            Creation("committee", "Committee", (owner, tuple(committee), needed)),
            Creation(
                "settlement",
                "Settlement",
                (token, parameters, registry, orders, Reference("committee"), treasury),
            ),
        ),
        calls=(Call("registry", "wire", (settlement,)), Call("orders", "wire", (settlement,))),
        treasury=treasury,
    )


def resolve(arguments: Iterable[Argument], addresses: Mapping[str, str]) -> list[Any]:
    """Arguments with every reference replaced by the address it stands for, and tuples by lists."""
    return [
        addresses[argument.name]
        if isinstance(argument, Reference)
        else list(argument)
        if isinstance(argument, tuple)
        else argument
        for argument in arguments
    ]


def deploy(web3: Web3, account: LocalAccount, plan: Plan) -> AddressBook:
    """Run ``plan`` with transactions signed by ``account``; returns the address book.

    Raises:
        ChainError: the chain refused a transaction, or did not mine it in time.
    """
    addresses: dict[str, str] = {}
    blocks: list[int] = []
    for creation in plan.creations:
        artifact = load(creation.contract)
        factory = web3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
        constructor = factory.constructor(*resolve(creation.arguments, addresses))
        receipt = _send(web3, account, constructor, creation.name)
        addresses[creation.name] = str(receipt["contractAddress"])
        blocks.append(receipt["blockNumber"])
    contracts = {creation.name: creation.contract for creation in plan.creations}
    for call in plan.calls:
        target = to_checksum_address(addresses[call.target])
        contract = web3.eth.contract(address=target, abi=load(contracts[call.target]).abi)
        function = contract.functions[call.method](*resolve(call.arguments, addresses))
        _send(web3, account, function, call.target)
    return AddressBook(chain_id=web3.eth.chain_id, block=min(blocks), treasury=plan.treasury, **addresses)


def _send(
    web3: Web3, account: LocalAccount, call: ContractConstructor | ContractFunction, name: str
) -> TxReceipt:
    from web3.exceptions import Web3Exception

    try:
        nonce = web3.eth.get_transaction_count(account.address, "pending")
        transaction: Any = call.build_transaction({"from": account.address, "nonce": nonce})
        sent = web3.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
        receipt = web3.eth.wait_for_transaction_receipt(sent, timeout=RECEIPT_TIMEOUT_S)
    except (Web3Exception, OSError, ValueError) as reason:
        raise ChainError(f"the deployment of {name} failed: {reason}") from reason
    if receipt["status"] != 1:
        raise ChainError(f"the chain reverted the deployment of {name} in transaction 0x{sent.hex()}")
    return receipt


def _parameter_lists(overrides: Mapping[str, int]) -> tuple[tuple[Argument, ...], ...]:
    """Keys, values, lows and highs as the constructor of ``Parameters`` takes them."""
    chosen = DEFAULTS
    for name, value in overrides.items():
        chosen = chosen.with_value(name, value)
    names = sorted(PARAMETERS)
    return (
        tuple(parameter_key(name) for name in names),
        tuple(chosen[name] for name in names),
        tuple(PARAMETERS[name].low for name in names),
        tuple(PARAMETERS[name].high for name in names),
    )


def parameter_key(name: str) -> bytes:
    """The contract's key of a parameter: its ASCII name padded with zero bytes to 32."""
    return name.encode("ascii").ljust(32, b"\0")
