"""One account's view of the contracts: what a participant reads and sends on the chain.

Used by clients (Put, claim), nodes (register, unregister) and aggregators (submit a settlement). Every
refusal of the chain becomes a `ChainError` with one sentence; custom contract errors are decoded into
``Component__Reason(have, need)`` so that the sentence names the numbers.

Source: design section 5; PoT 3.1.1 (Put, Get, Manage).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from eth_typing import ChecksumAddress
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractCustomError, ContractLogicError, Web3Exception

from protocol.chain.artifacts import CONTRACTS, load
from protocol.chain.deployment import AddressBook, parameter_key
from protocol.errors import ChainError
from protocol.parameters import PARAMETERS, Parameters
from protocol.roles import Role
from protocol.signer import Signer
from protocol.transactions import Order, Report
from protocol.typed_data import Domain

RPC_TIMEOUT_S: Final = 10
RECEIPT_TIMEOUT_S: Final = 120
LOG_BLOCKS: Final = 1_000
"""Blocks of one request for events: public nodes refuse larger ranges."""


def block_ranges(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The blocks ``first`` to ``last``, both included, in ranges that a node gives events of at once."""
    return ((start, min(last, start + LOG_BLOCKS - 1)) for start in range(first, last + 1, LOG_BLOCKS))


def connect(rpc_url: str, chain_id: int | None = None) -> Web3:
    """A web3 connection that answers.

    Raises:
        ChainError: no node answers at ``rpc_url``, or it serves another chain than ``chain_id``.
    """
    web3 = Web3(HTTPProvider(rpc_url, request_kwargs={"timeout": RPC_TIMEOUT_S}))
    hint = "start it (locally: `dtn devnet up`) or correct rpc_url"
    with chain_errors(f"no chain node answers at {rpc_url}; {hint}"):
        found = web3.eth.chain_id
    if chain_id is not None and found != chain_id:
        raise ChainError(f"{rpc_url} serves chain {found}, the address book is for chain {chain_id}")
    return web3


@contextmanager
def chain_errors(doing: str) -> Iterator[None]:
    """Turn whatever web3 and its transport raise into one `ChainError`."""
    try:
        yield
    except ContractCustomError as reason:
        raise ChainError(f"{doing}: {decode_custom_error(reason)}") from reason
    except ContractLogicError as reason:
        raise ChainError(f"{doing}: {reason.message or reason}") from reason
    except (Web3Exception, OSError, ValueError) as reason:
        raise ChainError(f"{doing}: {reason}") from reason


@cache
def _errors_by_selector() -> dict[str, tuple[str, tuple[str, ...]]]:
    errors = {}
    for name in CONTRACTS:
        for item in load(name).abi:
            if item["type"] == "error":
                types = tuple(field["type"] for field in item["inputs"])
                selector = keccak(text=f"{item['name']}({','.join(types)})")[:4].hex()
                errors[selector] = (item["name"], types)
    return errors


def decode_custom_error(reason: ContractCustomError) -> str:
    """``Component__Reason(have, need)`` of a custom error, or its raw data."""
    data = str(reason.data or reason.message or "")
    known = _errors_by_selector().get(data[2:10])
    if known is None:
        return f"the contract refused with {data[:74]}"
    name, types = known
    try:
        values = Web3().codec.decode(types, bytes.fromhex(data[10:]))
    except (ValueError, Web3Exception):
        values = ()
    return f"{name}({', '.join(_show(value) for value in values)})"


def _show(value: object) -> str:
    if isinstance(value, bytes):
        text = value.rstrip(b"\0")
        return text.decode() if text.isascii() and text else "0x" + value.hex()
    return str(value)


class ChainClient:
    """The contracts of one network as seen and used by one account."""

    def __init__(self, web3: Web3, book: AddressBook, signer: Signer | None = None) -> None:
        self.web3 = web3
        self.book = book
        self._signer = signer
        self._lock = threading.Lock()  # one account's transactions take their nonces one after another
        self.token = self._contract(book.token, "TrainingToken")
        self.parameters = self._contract(book.parameters, "Parameters")
        self.registry = self._contract(book.registry, "NodeRegistry")
        self.orders = self._contract(book.orders, "OrderBook")
        self.committee = self._contract(book.committee, "Committee")
        self.settlement = self._contract(book.settlement, "Settlement")

    def _contract(self, address: str, name: str) -> Any:
        return self.web3.eth.contract(address=to_checksum_address(address), abi=load(name).abi)

    @property
    def _account(self) -> ChecksumAddress:
        assert self._signer is not None, "only who can sign sends"
        return to_checksum_address(self._signer.address)

    @property
    def domain(self) -> Domain:
        """The network's EIP-712 domain."""
        return Domain(self.book.chain_id, bytes.fromhex(self.book.parameters[2:]))

    # Reading ---------------------------------------------------------------------------------------

    def read_parameters(self) -> Parameters:
        """All parameters as they stand on the chain now."""
        with chain_errors("cannot read the protocol parameters"):
            values = [(name, self.parameter(name)) for name in sorted(PARAMETERS)]
        return Parameters(tuple(values))

    def parameter(self, name: str) -> int:
        """One parameter as it stands on the chain now."""
        with chain_errors(f"cannot read the parameter {name}"):
            return int(self.parameters.functions.get(parameter_key(name)).call())

    def members(self) -> tuple[bytes, ...]:
        """The committee's members, ascending."""
        with chain_errors("cannot read the committee"):
            return tuple(bytes.fromhex(member[2:]) for member in self.committee.functions.members().call())

    def committee_epoch(self) -> int:
        """Number of the committee in force, from 1."""
        with chain_errors("cannot read the committee"):
            return int(self.committee.functions.epoch().call())

    def threshold(self) -> int:
        """How many members of the committee in force must sign a settlement."""
        with chain_errors("cannot read the committee"):
            return int(self.committee.functions.threshold().call())

    def members_of(self, epoch: int) -> tuple[bytes, ...]:
        """The members of the committee of ``epoch``, ascending; none for an epoch that has not begun."""
        with chain_errors("cannot read the committee"):
            members = self.committee.functions.membersOf(epoch).call()
        return tuple(bytes.fromhex(member[2:]) for member in members)

    def speaking_committees(self) -> tuple[tuple[bytes, ...], ...]:
        """Whoever may sign for the ledger now: the committee in force, and the one before it, which goes on
        ordering until the hand-over."""
        epoch = self.committee_epoch()
        return tuple(self.members_of(number) for number in (epoch, epoch - 1) if number > 0)

    def endpoint_of(self, account: bytes) -> tuple[str, bytes]:
        """A node's registered endpoint and link key; both empty if it has none, or one that is not UTF-8."""
        with chain_errors("cannot read the node registry"):
            try:
                endpoint, link_key = self.registry.functions.endpointOf(to_checksum_address(account)).call()
            except UnicodeDecodeError:
                # Its own doing, which must not keep anybody from reading the other nodes' endpoints.
                return "", bytes(32)
        return str(endpoint), bytes(link_key)

    def stake_of(self, account: bytes, role: Role) -> tuple[int, int, int]:
        """Bonded, unbonding and withdrawable stake in wei."""
        with chain_errors("cannot read the node registry"):
            stake = self.registry.functions.stakeOf(to_checksum_address(account), int(role)).call()
        return int(stake[0]), int(stake[1]), int(stake[2])

    def balance_of(self, account: bytes) -> int:
        """Token balance in wei."""
        with chain_errors("cannot read the token balance"):
            return int(self.token.functions.balanceOf(to_checksum_address(account)).call())

    def coins_of(self, account: bytes) -> int:
        """Balance of the chain's coin, which pays for gas, in wei."""
        with chain_errors("cannot read the account's balance"):
            return int(self.web3.eth.get_balance(to_checksum_address(account)))

    def last_epoch(self) -> int:
        """The epoch of the last settlement applied."""
        with chain_errors("cannot read the settlement contract"):
            return int(self.settlement.functions.lastEpoch().call())

    def claimed(self, account: bytes, epoch: int) -> bool:
        """Whether an account's credit of an epoch was paid out."""
        with chain_errors("cannot read the settlement contract"):
            return bool(self.settlement.functions.claimed(to_checksum_address(account), epoch).call())

    def block_number(self) -> int:
        """The chain's head."""
        with chain_errors("cannot read the chain's head"):
            return int(self.web3.eth.block_number)

    def has_pending(self) -> bool:
        """Whether a transaction of this account waits to be mined."""
        account = self._account
        with chain_errors("cannot read the account's transactions"):
            counts = [self.web3.eth.get_transaction_count(account, block) for block in ("latest", "pending")]
        return counts[0] != counts[1]

    def transfers_to(self, account: bytes, *, after_block: int) -> list[tuple[str, int]]:
        """This account's transfers of tokens to another, oldest first: transaction (0x-hex) and wei."""
        parties = {"from": self._account, "to": to_checksum_address(account)}
        ranges = block_ranges(after_block + 1, self.block_number())
        with chain_errors("cannot read the transfers of tokens"):
            logs = [
                log
                for first, last in ranges
                for log in self.token.events.Transfer().get_logs(
                    from_block=first, to_block=last, argument_filters=parties
                )
            ]
        return [("0x" + bytes(log["transactionHash"]).hex(), int(log["args"]["value"])) for log in logs]

    # Sending ---------------------------------------------------------------------------------------

    def transfer(self, account: bytes, amount_wei: int) -> Any:
        """Send tokens to another account; returns the receipt."""
        self._require_funds(amount_wei)
        doing = f"0x{account.hex()} was not sent its tokens"
        return self.send(self.token.functions.transfer(to_checksum_address(account), amount_wei), doing)

    def send(self, function: Any, doing: str) -> Any:
        """Sign and send one contract call and wait for its receipt.

        Raises:
            ChainError: refused, reverted, or not mined in time. SignerError: an external signer did not sign.
        """
        if self._signer is None:
            raise ChainError(
                f"{doing}: nobody signs; name key_file, or signer_url and account, in the configuration"
            )
        with self._lock, chain_errors(doing):
            sender = self._account
            nonce = self.web3.eth.get_transaction_count(sender, "pending")
            transaction = function.build_transaction({"from": sender, "nonce": nonce})
            sent = HexBytes(self._signer.send_transaction(self.web3, transaction))
            receipt = self.web3.eth.wait_for_transaction_receipt(
                sent, timeout=RECEIPT_TIMEOUT_S, poll_latency=0.1
            )
        if receipt["status"] != 1:
            raise ChainError(f"{doing}: the chain reverted transaction 0x{sent.hex()}")
        return receipt

    def approve(self, spender: str, amount_wei: int) -> None:
        """Let a contract take ``amount_wei`` of this account's tokens."""
        self._require_funds(amount_wei)
        self.send(self.token.functions.approve(to_checksum_address(spender), amount_wei), "approving tokens")

    def _require_funds(self, amount_wei: int) -> None:
        address = bytes.fromhex(self._account[2:])
        balance = self.balance_of(address)
        if balance < amount_wei:
            raise ChainError(
                f"{self._account} holds {balance} wei of tokens and needs {amount_wei}; "
                "send it some tokens first"
            )
        if not self.coins_of(address):
            raise ChainError(f"{self._account} has nothing to pay gas with; send it some of the chain's coin")

    def put(self, order: Order) -> Any:
        """Escrow an order's reward and deposit; returns the receipt of ``OrderBook.put``."""
        self.approve(self.book.orders, order.reward + order.deposit)
        return self.send(self.orders.functions.put(order_tuple(order)), "the order was not placed")

    def escrow_of(self, oid: bytes) -> tuple[bytes, int, int]:
        """Client of an order, escrow still held in wei, and from when it may be reclaimed (Unix seconds).

        All zero for an order that was never placed.
        """
        with chain_errors("cannot read the order book"):
            client, amount, due = self.orders.functions.escrowOf(oid).call()
        return bytes.fromhex(client[2:]), int(amount), int(due)

    def gas_price_wei(self) -> int:
        """What the chain asks for a unit of gas now, in wei of its coin."""
        with chain_errors("cannot read the gas price"):
            return int(self.web3.eth.gas_price)

    def time_s(self) -> int:
        """The chain's time: the timestamp of its latest block, Unix seconds."""
        with chain_errors("cannot read the chain's head"):
            return int(self.web3.eth.get_block("latest")["timestamp"])

    def reclaim(self, oid: bytes) -> Any:
        """Take back the escrow of an order that nobody settled."""
        return self.send(self.orders.functions.reclaim(oid), "the escrow was not reclaimed")

    def register(self, role: Role, amount_wei: int, endpoint: str, link_key: bytes) -> Any:
        """Stake for a role and say where this node is reached."""
        self.approve(self.book.registry, amount_wei)
        call = self.registry.functions.register(int(role), amount_wei, endpoint, link_key)
        return self.send(call, f"not registered as {role.name.lower()}")

    def set_endpoint(self, endpoint: str, link_key: bytes) -> Any:
        """Change where this node is reached."""
        return self.send(
            self.registry.functions.setEndpoint(endpoint, link_key), "the endpoint was not changed"
        )

    def request_unstake(self, role: Role, amount_wei: int) -> Any:
        """Start to take stake out of a role."""
        call = self.registry.functions.requestUnstake(int(role), amount_wei)
        return self.send(call, f"the stake as {role.name.lower()} was not unbonded")

    def withdraw(self, role: Role) -> Any:
        """Take released stake home."""
        return self.send(self.registry.functions.withdraw(int(role)), "nothing was withdrawn")

    def abandoned(self) -> bool:
        """Whether the committee was declared gone: stakes and escrows then need no settlement."""
        with chain_errors("cannot read the settlement contract"):
            return bool(self.settlement.functions.abandoned().call())

    def abandon(self, account: bytes, role: Role) -> Any:
        """Declare the committee gone, by a release of stake that is long overdue."""
        call = self.settlement.functions.abandon(to_checksum_address(account), int(role))
        return self.send(call, "the network was not declared abandoned")

    def pause(self) -> Any:
        """Stop all payouts for a week; the guardian's and the owner's right."""
        return self.send(self.settlement.functions.pause(), "payouts were not paused")

    def claim(
        self, account: bytes, epochs: Sequence[int], amounts: Sequence[int], proofs: Sequence[Sequence[bytes]]
    ) -> Any:
        """Pay out an account's credits of some epochs."""
        call = self.settlement.functions.claim(to_checksum_address(account), epochs, amounts, proofs)
        return self.send(call, "the credits were not paid out")

    def settle(self, report: Report, signers: int, signatures: bytes) -> Any:
        """Submit a settlement signed by the committee."""
        call = self.settlement.functions.update(report_tuple(report), signers, signatures)
        return self.send(call, f"the settlement of epoch {report.epoch} was not applied")


def order_tuple(order: Order) -> tuple[Any, ...]:
    """An order as the contract's ABI takes it."""
    return (
        to_checksum_address(order.client),
        order.nonce,
        order.kind,
        order.reward,
        order.deposit,
        order.train_window,
        order.validate_window,
        order.challenge_window,
        order.task_hash,
        order.task_link,
        order.data_root,
        order.baseline,
    )


def report_tuple(report: Report) -> tuple[Any, ...]:
    """A report as the contract's ABI takes it."""
    return (
        report.epoch,
        report.committee_epoch,
        report.orders,
        report.slashes,
        report.releases,
        report.credits,
    )
