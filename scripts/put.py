"""Put from a wallet: place a training order with nothing but web3 and a task that is already hosted.

    dtn client prepare examples/digits.yaml --config client.toml     # prints the task link
    python scripts/put.py --rpc URL --orders ADDRESS --key wallet.key \\
        --task-link URL --reward 100 --train-s 60 --validate-s 20 --challenge-s 20

It imports nothing of this repository, so it can be read as the definition of Put for any wallet or language:

1. fetch the task document from its link and check it against the CID in that link;
2. the task hash is the document's SHA-256; the data root is the Keccak-256 of the fragments' SHA-256
   hashes, one after the other;
3. the order is an EIP-712 struct under the network's domain (name ``DTN``, version ``1``, the chain's id, the
   ``Parameters`` contract); its digest is the OID;
4. ask the contract whether it would take the order, approve reward plus deposit, call ``OrderBook.put``;
5. compare the OID with the one in the event ``OrderPlaced``.

Whoever hosts the data must publish the training fragments once the order's block is confirmed and release the
test fragments when training closes, signed by the same key: ``dtn client run`` does both.

Guarantees: nothing is spent unless the link serves the very document that the order names and the contract
accepts the order. One JSON object on standard output; one line on standard error and status 1 on failure.

Source: PoT 3.3.1 (Put), table 1; contracts/interfaces/IOrderBook.sol.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import hashlib
import json
import os
import sys
import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import requests
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractCustomError, ContractLogicError, Web3Exception
from web3.logs import DISCARD

WEI: Final = 10**18
MILLION: Final = 10**6
BPS: Final = 10_000
MAX_DOCUMENT_BYTES: Final = 256 * 1024
"""One IPFS block: a larger document is a tree of blocks, which `dtn put` places."""
TIMEOUT_S: Final = 20
RECEIPT_TIMEOUT_S: Final = 180
NO_BASELINE: Final = -(2**63)

ORDER_FIELDS: Final = [
    {"name": "client", "type": "address"},
    {"name": "nonce", "type": "uint64"},
    {"name": "kind", "type": "string"},
    {"name": "reward", "type": "uint96"},
    {"name": "deposit", "type": "uint96"},
    {"name": "trainWindow", "type": "uint32"},
    {"name": "validateWindow", "type": "uint32"},
    {"name": "challengeWindow", "type": "uint32"},
    {"name": "taskHash", "type": "bytes32"},
    {"name": "taskLink", "type": "string"},
    {"name": "dataRoot", "type": "bytes32"},
    {"name": "baseline", "type": "int64"},
]
ERRORS: Final = (
    "OrderBook__NotClient(address,address)",
    "OrderBook__RewardTooSmall(uint256,uint256)",
    "OrderBook__DepositTooSmall(uint256,uint256)",
    "OrderBook__WindowOutOfBounds(bytes32,uint256,uint256,uint256)",
    "OrderBook__KindLength(uint256,uint256)",
    "OrderBook__TaskLinkTooLong(uint256,uint256)",
    "OrderBook__Repeated(bytes32)",
    "ERC20InsufficientBalance(address,uint256,uint256)",
    "ERC20InsufficientAllowance(address,uint256,uint256)",
)


class PutError(Exception):
    """An order that was not placed; one sentence that says why and what to do."""


def _function(name: str, inputs: list[dict[str, Any]], output: str = "", view: bool = True) -> dict[str, Any]:
    outputs = [{"name": "", "type": output}] if output else []
    mutability = "view" if view else "nonpayable"
    return {
        "type": "function",
        "name": name,
        "inputs": inputs,
        "outputs": outputs,
        "stateMutability": mutability,
    }


_ORDER: Final = {"name": "order", "type": "tuple", "components": ORDER_FIELDS}
ORDER_BOOK_ABI: Final = [
    _function("token", [], "address"),
    _function("parameters", [], "address"),
    _function("put", [_ORDER], "bytes32", view=False),
    {
        "type": "event",
        "name": "OrderPlaced",
        "anonymous": False,
        "inputs": [
            {"name": "oid", "type": "bytes32", "indexed": True},
            {"name": "client", "type": "address", "indexed": True},
            _ORDER | {"indexed": False},
        ],
    },
]
PARAMETERS_ABI: Final = [_function("get", [{"name": "key", "type": "bytes32"}], "uint256")]
TOKEN_ABI: Final = [
    _function("balanceOf", [{"name": "account", "type": "address"}], "uint256"),
    _function(
        "approve",
        [{"name": "spender", "type": "address"}, {"name": "value", "type": "uint256"}],
        "bool",
        view=False,
    ),
]

# What the order commits to --------------------------------------------------------------------------------


def cid_of(block: bytes) -> str:
    """The IPFS CID of a file of one block: version 1, raw, SHA-256, in base32."""
    return (
        "b"
        + base64.b32encode(b"\x01\x55\x12\x20" + hashlib.sha256(block).digest()).decode().rstrip("=").lower()
    )


def fetch_document(link: str) -> bytes:
    """The task document behind ``link``, checked against the CID that the link ends in.

    Raises:
        PutError: the link is not ``http(s)://…/ipfs/CID``, or does not serve that file.
    """
    _, separator, cid = link.rpartition("/ipfs/")
    if not separator or not link.startswith(("http://", "https://")):
        raise PutError(f"--task-link must look like http://HOST/ipfs/CID, not {link!r}")
    try:
        with requests.get(
            link,
            params={"format": "raw"},
            headers={"Accept": "application/vnd.ipld.raw", "Accept-Encoding": "identity"},
            timeout=TIMEOUT_S,
            allow_redirects=False,
            stream=True,
        ) as answer:
            data = answer.raw.read(MAX_DOCUMENT_BYTES + 1)
    except (requests.RequestException, OSError) as reason:
        raise PutError(f"{link} does not answer: {reason}; start whoever hosts the task first") from reason
    if answer.status_code != 200:
        raise PutError(f"{link} answers {answer.status_code}: host the task document there first")
    if len(data) > MAX_DOCUMENT_BYTES or cid_of(data) != cid:
        raise PutError(f"{link} does not serve the document of one block that its CID names")
    return bytes(data)


def canonical(document: Any) -> bytes:
    """The one form of a task document that may be hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def data_root(document: Any) -> bytes:
    """The commitment to all data fragments: Keccak-256 of their SHA-256 hashes in order.

    Raises:
        ValueError, KeyError, TypeError: the document does not list fragments.
    """
    hashes = [bytes.fromhex(fragment["sha256"][2:]) for fragment in document["data"]["fragments"]]
    if any(len(digest) != 32 for digest in hashes):
        raise ValueError("a fragment's sha256 is not 32 bytes")
    return bytes(Web3.keccak(b"".join(hashes)))


def oid_of(order: dict[str, Any], chain_id: int, parameters: str) -> bytes:
    """The OID: the EIP-712 digest of the order under the network's domain."""
    signable = encode_typed_data(
        domain_data={"name": "DTN", "version": "1", "chainId": chain_id, "verifyingContract": parameters},
        message_types={"Order": ORDER_FIELDS},
        message_data=order,
    )
    return bytes(Web3.keccak(b"\x19" + signable.version + signable.header + signable.body))


def make_order(
    data: bytes, *, client: str, nonce: int, deposit: int, options: argparse.Namespace
) -> dict[str, Any]:
    """The order for the task document ``data``; raises `PutError` if it cannot be one."""
    try:
        document = json.loads(data)
        root = data_root(document)
    except (ValueError, KeyError, TypeError) as reason:
        raise PutError(f"the task document is not one: {reason!r}") from reason
    if canonical(document) != data:
        raise PutError("the task document is not in canonical form: sorted keys, no spaces, UTF-8")
    return {
        "client": client,
        "nonce": nonce,
        "kind": "open",
        "reward": options.reward,
        "deposit": deposit,
        "trainWindow": options.train_s,
        "validateWindow": options.validate_s,
        "challengeWindow": options.challenge_s,
        "taskHash": hashlib.sha256(data).digest(),
        "taskLink": options.task_link,
        "dataRoot": root,
        "baseline": options.baseline,
    }


# The chain ------------------------------------------------------------------------------------------------


def explain(reason: ContractCustomError) -> str:
    """A contract's custom error with its numbers, for people."""
    data = str(reason.data or "")
    for signature in ERRORS:
        name, _, types = signature.rstrip(")").partition("(")
        if data[2:10] == Web3.keccak(text=signature)[:4].hex():
            values = Web3().codec.decode(types.split(","), bytes.fromhex(data[10:]))
            shown = (
                v.rstrip(b"\0").decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values
            )
            return f"{name}({', '.join(shown)})"
    return f"the contract refused with {data[:74]}"


def send(web3: Web3, account: LocalAccount, call: Any) -> Any:
    """Sign and send one contract call and wait for its receipt."""
    nonce = web3.eth.get_transaction_count(account.address, "pending")
    transaction = call.build_transaction({"from": account.address, "nonce": nonce})
    sent = web3.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
    receipt = web3.eth.wait_for_transaction_receipt(sent, timeout=RECEIPT_TIMEOUT_S)
    if receipt["status"] != 1:
        raise PutError(f"the chain reverted transaction {sent.to_0x_hex()}")
    return receipt


def check(orders: Any, order: dict[str, Any]) -> None:
    """Ask the contract whether it would take ``order``: a refusal here has cost nothing."""
    try:
        orders.functions.put(order).call({"from": order["client"]})
    except ContractCustomError as reason:
        # The allowance comes only after this question, so its lack is no refusal.
        if not explain(reason).startswith("ERC20InsufficientAllowance"):
            raise


def place(options: argparse.Namespace) -> dict[str, Any]:
    """Place the order that ``options`` describe; what is printed in the end."""
    account = read_key(options.key)
    data = fetch_document(options.task_link)
    if options.task is not None and options.task.read_bytes() != data:
        raise PutError(f"{options.task} is not the document that the task link serves")
    web3 = Web3(HTTPProvider(options.rpc, request_kwargs={"timeout": TIMEOUT_S}))
    if not web3.is_connected():
        raise PutError(f"no chain node answers at {options.rpc}; nothing was spent")
    orders = web3.eth.contract(address=options.orders, abi=ORDER_BOOK_ABI)
    parameters = web3.eth.contract(address=orders.functions.parameters().call(), abi=PARAMETERS_ABI)
    token = web3.eth.contract(address=orders.functions.token().call(), abi=TOKEN_ABI)
    deposit = options.deposit
    if deposit is None:
        share = parameters.functions.get(b"min_deposit_bps".ljust(32, b"\0")).call()
        deposit = options.reward * share // BPS
    order = make_order(
        data, client=account.address, nonce=time.time_ns() // 10**6, deposit=deposit, options=options
    )
    oid = oid_of(order, web3.eth.chain_id, parameters.address)
    print(f"this order will be 0x{oid.hex()}", file=sys.stderr)
    amount = order["reward"] + order["deposit"]
    balance = token.functions.balanceOf(account.address).call()
    if balance < amount:
        raise PutError(
            f"{account.address} holds {balance} wei of tokens and needs {amount}; nothing was spent"
        )
    check(orders, order)
    send(web3, account, token.functions.approve(orders.address, amount))
    receipt = send(web3, account, orders.functions.put(order))
    placed = orders.events.OrderPlaced().process_receipt(receipt, errors=DISCARD)
    if [bytes(event["args"]["oid"]) for event in placed] != [oid]:
        raise PutError(
            f"the chain placed another order than 0x{oid.hex()}: is {orders.address} an OrderBook?"
        )
    return {
        "oid": "0x" + oid.hex(),
        "tx": receipt["transactionHash"].to_0x_hex(),
        "gas_used": receipt["gasUsed"],
        "reward_wei": str(order["reward"]),
        "deposit_wei": str(order["deposit"]),
        "task_hash": "0x" + order["taskHash"].hex(),
        "data_root": "0x" + order["dataRoot"].hex(),
    }


# The command line -----------------------------------------------------------------------------------------


def read_key(path: Path) -> LocalAccount:
    """The account whose private key stands at ``path``: in hex, or in a keystore that a password opens."""
    try:
        text = path.read_text(encoding="utf-8").strip()
        if text.startswith("{"):
            account: LocalAccount = Account.from_key(Account.decrypt(text, read_password()))
        else:
            account = Account.from_key(text)
    except (OSError, ValueError):
        # Not chained: what a library says of a key may quote it.
        raise PutError(f"{path} does not hold a private key that opens") from None
    return account


def read_password() -> str:
    """From the file that ``$DTN_PASSWORD_FILE`` names, ``$DTN_PASSWORD``, or a prompt."""
    named = os.environ.get("DTN_PASSWORD_FILE")
    if named:
        return Path(named).read_text(encoding="utf-8").partition("\n")[0]
    return os.environ.get("DTN_PASSWORD") or getpass.getpass("password of the keystore: ")


def amount_of(text: str) -> int:
    """Tokens as base units; 18 decimals at most."""
    try:
        value = Decimal(text) * WEI
    except InvalidOperation as reason:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of tokens") from reason
    if not value.is_finite() or value < 0 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text} is no amount of tokens with at most 18 decimals")
    return int(value)


def score_of(text: str) -> int:
    """A score such as 0.85 in millionths."""
    try:
        return int(Decimal(text) * MILLION)
    except (InvalidOperation, ValueError, OverflowError) as reason:
        raise argparse.ArgumentTypeError(f"{text!r} is no score") from reason


def address_of(text: str) -> str:
    """A checksummed address."""
    if not Web3.is_address(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no address")
    return Web3.to_checksum_address(text)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python scripts/put.py", description=__doc__.splitlines()[0])
    parser.add_argument("--rpc", required=True, help="a node of the chain")
    parser.add_argument("--orders", required=True, type=address_of, help="the OrderBook contract")
    parser.add_argument("--key", required=True, type=Path, help="the wallet's key: a keystore, or hex")
    parser.add_argument("--task-link", required=True, help="http://HOST/ipfs/CID of the task document")
    parser.add_argument(
        "--task", type=Path, help="your own copy of the document, to be compared with the link's"
    )
    parser.add_argument("--reward", required=True, type=amount_of, help="tokens")
    parser.add_argument("--deposit", type=amount_of, help="tokens; the least allowed if not given")
    parser.add_argument("--train-s", required=True, type=int, help="training window in seconds")
    parser.add_argument("--validate-s", required=True, type=int, help="validation window in seconds")
    parser.add_argument("--challenge-s", required=True, type=int, help="challenge window in seconds")
    parser.add_argument(
        "--baseline",
        type=score_of,
        default=NO_BASELINE,
        help="score that a model must beat to be paid, as 0.85",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Place one order; 0 if it stands on the chain."""
    options = parse(arguments)
    try:
        print(json.dumps(place(options), indent=2))
    except ContractCustomError as reason:
        print(f"put: {explain(reason)}; the reward is untouched", file=sys.stderr)
    except (
        PutError,
        ContractLogicError,
        Web3Exception,
        requests.RequestException,
        OSError,
        ValueError,
    ) as reason:
        print(f"put: {' '.join(str(reason).split())}", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
