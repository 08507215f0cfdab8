"""Write the golden vectors: ``python tests/golden/generate.py``.

Guarantees: nothing of DTN's own code takes part. Typed data is hashed and signed by eth-account, trees are
built here from eth-abi and eth-utils alone; so when our Python, our Solidity and these files agree, three
implementations do. All numbers wider than 32 bits are decimal strings, bytes are 0x hex.

Source: EIP-712; PoT 3.4 "Achieving Integrity".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

HERE: Final = Path(__file__).resolve().parent
SECRET: Final = keccak(b"a committee member of the golden vectors")
DOMAIN: Final = {
    "name": "DTN",
    "version": "1",
    "chainId": 31337,
    "verifyingContract": to_checksum_address(keccak(b"parameters")[12:]),
}
ORDER_FIELDS: Final = (
    "address client,uint64 nonce,string kind,uint96 reward,uint96 deposit,uint32 trainWindow,"
    "uint32 validateWindow,uint32 challengeWindow,bytes32 taskHash,string taskLink,bytes32 dataRoot,"
    "int64 baseline"
)
REPORT_FIELDS: Final = (
    "uint64 epoch,uint64 committeeEpoch,bytes orders,bytes slashes,bytes releases,bytes credits"
)
VOTE_FIELDS: Final = "uint8 kind,uint64 view,uint64 sequence,bytes32 digest"
EVIDENCE_FIELDS: Final = (
    "address sender,uint64 nonce,uint8 voteKind,uint64 view,uint64 sequence,bytes32 firstDigest,"
    "bytes firstSignature,bytes32 secondDigest,bytes secondSignature"
)
ORDER: Final[dict[str, Any]] = {
    "client": to_checksum_address(keccak(b"client")[12:]),
    "nonce": 2**63 - 1,
    "kind": "open",
    "reward": 123_456_789 * 10**18 + 1,
    "deposit": 6_172_840 * 10**18,
    "trainWindow": 3_600,
    "validateWindow": 600,
    "challengeWindow": 2**32 - 1,
    "taskHash": keccak(b"task"),
    "taskLink": "ipfs://bafkreigh2akiscaildc/täsk.json",
    "dataRoot": keccak(b"data"),
    "baseline": -2_302_585,
}
TREE_SIZES: Final = (0, 1, 2, 3, 4, 5, 7, 8, 31, 100)


def credit_words(count: int) -> list[tuple[bytes, int]]:
    """``count`` credits, ascending by account, among them the smallest and the largest amount."""
    accounts = sorted(keccak(b"account %d" % place)[12:] for place in range(count))
    amounts = [1 if place == 0 else 10**18 + place for place in range(count)]
    return list(zip(accounts, [*amounts[:-1], 2**96 - 1], strict=True)) if count else []


def pack(entries: list[tuple[bytes, int]]) -> bytes:
    """Packed words ``account << 96 | amount``."""
    return b"".join(account + amount.to_bytes(12, "big") for account, amount in entries)


def tree_root(entries: list[tuple[bytes, int]]) -> bytes:
    """Merkle root over double-hashed leaves, pairs sorted, an odd last node moved up."""
    level = [keccak(keccak(encode(["address", "uint256"], [account, amount]))) for account, amount in entries]
    while len(level) > 1:
        pairs = [sorted(level[place : place + 2]) for place in range(0, len(level), 2)]
        level = [keccak(b"".join(pair)) if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0] if level else bytes(32)


def report() -> dict[str, Any]:
    """A report with something in each of its parts."""
    oids = b"".join(sorted(keccak(b"order %d" % place) for place in range(3)))
    entry = keccak(b"node")[12:] + (7 * 10**18).to_bytes(12, "big")
    return {
        "epoch": 42,
        "committeeEpoch": 7,
        "orders": oids,
        "slashes": entry + (2).to_bytes(32, "big"),
        "releases": b"",
        "credits": pack(credit_words(5)),
    }


def evidence() -> dict[str, Any]:
    """Two prepares of one member for different batches, and the digests that it signed."""
    place = {"view": 2**32 + 5, "sequence": 2**63 - 1}
    first, second = sorted((keccak(b"one batch"), keccak(b"another batch")))
    _, one, signature = typed_digest("SignedVote", VOTE_FIELDS, {"kind": 2, **place, "digest": first})
    _, other, again = typed_digest("SignedVote", VOTE_FIELDS, {"kind": 2, **place, "digest": second})
    message = {
        "sender": to_checksum_address(keccak(b"accuser")[12:]),
        "nonce": 1_795_169_156_034,
        "voteKind": 2,
        **place,
        "firstDigest": first,
        "firstSignature": signature,
        "secondDigest": second,
        "secondSignature": again,
    }
    _, digest, _ = typed_digest("Evidence", EVIDENCE_FIELDS, message)
    return {**message, "digest": digest, "voteDigests": [one, other]}


def typed_digest(name: str, fields: str, message: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    """Domain separator, EIP-712 digest and signature of ``message``, all by eth-account."""
    types = {name: [dict(zip(("type", "name"), field.split(), strict=True)) for field in fields.split(",")]}
    signable = encode_typed_data(dict(DOMAIN), types, message)
    signed = Account.sign_message(signable, SECRET)
    return signable.header, bytes(signed.message_hash), bytes(signed.signature)


def readable(value: Any) -> Any:
    """JSON form: bytes as 0x hex, wide numbers as decimal strings."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, int) and not -(2**31) <= value < 2**32:
        return str(value)
    if isinstance(value, list):
        return [readable(each) for each in value]
    if isinstance(value, dict):
        return {key: readable(each) for key, each in value.items()}
    return value


def vectors() -> dict[str, Any]:
    """Content of every golden file, by name."""
    separator, oid, _ = typed_digest("Order", ORDER_FIELDS, ORDER)
    _, digest, signature = typed_digest("Report", REPORT_FIELDS, report())
    typed = {
        "domain": {
            "chainId": DOMAIN["chainId"],
            "verifyingContract": DOMAIN["verifyingContract"],
            "separator": separator,
        },
        "order": {**ORDER, "oid": oid},
        "report": {**report(), "digest": digest},
        "evidence": evidence(),
        "signer": Account.from_key(SECRET).address,
        "signature": signature,
    }
    trees = [
        {"count": count, "credits": pack(credit_words(count)), "root": tree_root(credit_words(count))}
        for count in TREE_SIZES
    ]
    return {
        "eip712.json": readable(typed),
        "merkle.json": {"trees": [readable(tree) for tree in trees]},
    }


def main() -> None:
    """Write every golden file beside this one."""
    for name, content in vectors().items():
        (HERE / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
