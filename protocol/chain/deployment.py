"""Deployment of the contracts: one plan as data, and the address book it ends in.

Guarantees: the plan is a pure function of its arguments; every executor (``deploy`` here over web3,
``scripts/deploy.py`` over ape) runs the same steps in the same order, so all deployments are alike.
The address of ``Parameters`` is the network's identity in every signed message. Governed, the timelock of
the DAO owns whatever may change; otherwise one account does.

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
from protocol.parameters import DAY_S, DEFAULTS, PARAMETERS, TOKEN_WEI

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount
    from web3 import Web3
    from web3.contract.contract import ContractConstructor, ContractFunction
    from web3.types import TxReceipt

NOBODY: Final = "0x" + "00" * 20

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
class Reading:
    """Enter as ``name`` the address that an earlier creation answers to ``method``."""

    name: str
    target: str
    method: str


Step = Creation | Call | Reading


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in their order; and the treasury, which is an account of its own."""

    steps: tuple[Step, ...]
    treasury: str

    @property
    def contracts(self) -> dict[str, str]:
        """The contract behind each name that is created."""
        return {step.name: step.contract for step in self.steps if isinstance(step, Creation)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Governance:
    """How the DAO decides: `contracts/TrainingGovernor.sol`."""

    voting_delay_s: int = DAY_S
    """From a proposal to the moment whose votes count; at least 1."""
    voting_period_s: int = 5 * DAY_S
    late_quorum_s: int = DAY_S
    """For how long votes are taken after the quorum was reached, at least."""
    timelock_s: int = 2 * DAY_S
    """From the end of a vote to the earliest moment at which it takes effect, about."""
    proposal_threshold_wei: int = 100_000 * TOKEN_WEI
    """Votes that a proposer needs: 0.01 % of the supply."""
    quorum_percent: int = 4
    """Of the supply; must vote for or abstain."""


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
    governor: str | None = None
    """The DAO; none where one account owns ``Parameters`` and ``Committee``."""
    timelock: str | None = None

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


def settlement_threshold(members: int, wanted: int | None = None) -> int:
    """How many of a committee must sign a settlement: ``wanted``, or n - f with f = (n - 1) // 3.

    Raises:
        ValueError: there are no members, or it is not more than half of them and at most all.
    """
    needed = members - (members - 1) // 3 if wanted is None else wanted
    least = members // 2 + 1
    if not members > 0 or not least <= needed <= members:
        raise ValueError(f"{members} members need a threshold in [{least}, {members}]")
    return needed


def make_plan(
    *,
    owner: str | bytes | None = None,
    governance: Governance | None = None,
    guardian: str | bytes | None = None,
    holder: str | bytes,
    treasury: str | bytes,
    members: Iterable[str | bytes],
    threshold: int | None = None,
    overrides: Mapping[str, int] | None = None,
) -> Plan:
    """The steps that deploy a network.

    Args:
        owner: who may change parameters, the committee and the guardian; or else
        governance: how the DAO decides about them.
        guardian: who may pause payouts besides; nobody by default.
        holder: who receives the whole supply of tokens.
        treasury: whom the ledger credits with fines.
        members: the aggregators' accounts, in any order.
        threshold: how many members must sign a settlement; see `settlement_threshold`.
        overrides: parameter values that differ from ``protocol.parameters.DEFAULTS``.

    Raises:
        ValueError: no member, a repeated member, a threshold or parameter out of bounds, a bad address, or
            not exactly one of ``owner`` and ``governance``.
    """
    committee = sorted({to_checksum_address(member) for member in members}, key=str.lower)
    needed = settlement_threshold(len(committee), threshold)
    if (owner is None) == (governance is None):
        raise ValueError("either one account owns the network or a DAO governs it: give owner or governance")
    holder, treasury = (to_checksum_address(account) for account in (holder, treasury))
    watchman = NOBODY if guardian is None else to_checksum_address(guardian)
    decides = Reference("timelock") if owner is None else to_checksum_address(owner)
    token, parameters, registry = Reference("token"), Reference("parameters"), Reference("registry")
    orders, settlement = Reference("orders"), Reference("settlement")
    contracts: tuple[Step, ...] = (
        Creation("parameters", "Parameters", (decides, *_parameter_lists(overrides or {}))),
        Creation("registry", "NodeRegistry", (token, parameters)),
        Creation("orders", "OrderBook", (token, parameters)),
        Creation("committee", "Committee", (decides, tuple(committee), needed)),
        Creation(
            "settlement",
            "Settlement",
            (token, parameters, registry, orders, Reference("committee"), treasury, decides, watchman),
        ),
        Call("registry", "wire", (settlement,)),
        Call("orders", "wire", (settlement,)),
    )
    steps = (Creation("token", "TrainingToken", (holder,)), *_dao(governance), *contracts)
    return Plan(steps=steps, treasury=treasury)


def _dao(governance: Governance | None) -> tuple[Step, ...]:
    """The governor, and the timelock that it creates and that nobody else commands."""
    if governance is None:
        return ()
    if governance.voting_delay_s < 1:
        raise ValueError("votes count as they stood after the proposal: voting_delay_s is at least 1")
    if not 0 < governance.quorum_percent <= 100 or governance.voting_period_s < 1:
        raise ValueError("quorum_percent lies in [1, 100], and voting_period_s is at least 1")
    periods = (
        governance.voting_delay_s,
        governance.voting_period_s,
        governance.late_quorum_s,
        governance.timelock_s,
    )
    arguments = (
        Reference("token"),
        periods,
        governance.proposal_threshold_wei,
        governance.quorum_percent,
    )
    return (
        Creation("governor", "TrainingGovernor", arguments),
        Reading("timelock", "governor", "timelock"),
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

    def function(target: str, method: str, arguments: tuple[Argument, ...] = ()) -> ContractFunction:
        abi = load(plan.contracts[target]).abi
        contract = web3.eth.contract(address=to_checksum_address(addresses[target]), abi=abi)
        return contract.functions[method](*resolve(arguments, addresses))

    for step in plan.steps:
        match step:
            case Creation():
                artifact = load(step.contract)
                factory = web3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
                constructor = factory.constructor(*resolve(step.arguments, addresses))
                receipt = _send(web3, account, constructor, step.name)
                addresses[step.name] = str(receipt["contractAddress"])
                blocks.append(receipt["blockNumber"])
            case Call():
                _send(web3, account, function(step.target, step.method, step.arguments), step.target)
            case Reading():
                addresses[step.name] = str(function(step.target, step.method).call())
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
