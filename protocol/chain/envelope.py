"""What a signed chain transaction must be, byte for byte, for a transaction that was to be signed.

From the fields that web3 fills in follow the payload that is signed and its digest. A raw transaction from
outside must hold exactly that payload, item by item, and the account's canonical signature over that digest:
nothing that differs, in whatever field, passes.

Source: EIP-1559 (type 2), EIP-155 (without a type), EIP-2 (low s).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import rlp
from rlp.exceptions import RLPException

from protocol.crypto import keccak256, recover
from protocol.errors import InvalidEncoding, InvalidSignature

TYPE_2: Final = b"\x02"
MAX_RAW_BYTES: Final = 128 * 1024
"""No node takes a larger transaction from its users."""
SIGNATURE_ITEMS: Final = 3
"""The last items of a signed payload: v or the parity, r, s."""
FIELDS_2: Final = ("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value", "data")
FIELDS_LEGACY: Final = ("nonce", "gasPrice", "gas", "to", "value", "data")


def check_signed(raw: bytes, transaction: Mapping[str, Any], account: bytes) -> None:
    """Raise unless ``raw`` is ``transaction``, whole and unchanged, signed by ``account``.

    Raises:
        InvalidEncoding: no transaction, or another one; says which field differs.
        InvalidSignature: signed by another account, or not canonically.
    """
    if len(raw) > MAX_RAW_BYTES:
        raise InvalidEncoding(f"a signed transaction of {len(raw)} bytes, and none has over {MAX_RAW_BYTES}")
    payload, typed = _payload(transaction)
    if typed != raw.startswith(TYPE_2):
        raise InvalidEncoding("a transaction of another type than asked for")
    try:
        items = rlp.decode(raw[1:] if typed else raw)
    except (RLPException, RecursionError) as reason:
        raise InvalidEncoding("bytes that are no transaction") from reason
    names = (*FIELDS_2, "accessList") if typed else FIELDS_LEGACY
    if not isinstance(items, list) or len(items) != len(names) + SIGNATURE_ITEMS:
        raise InvalidEncoding("bytes that are no transaction of its type")
    for name, wanted, found in zip(names, payload, items, strict=False):
        if wanted != found:
            raise InvalidEncoding(f"a transaction whose {name} is another than asked for")
    _check_signature(items[-SIGNATURE_ITEMS:], payload, typed, int(transaction["chainId"]), account)


def _check_signature(
    items: list[Any], payload: list[Any], typed: bool, chain_id: int, account: bytes
) -> None:
    if not all(isinstance(item, bytes) and len(item) <= 32 for item in items):
        raise InvalidSignature("the signature is none")
    v = int.from_bytes(items[0], "big")
    if typed:
        digest, parity = keccak256(TYPE_2 + rlp.encode(payload)), v
    else:
        digest = keccak256(rlp.encode([*payload, _number(chain_id), b"", b""]))
        parity = v - 35 - 2 * chain_id
    if parity not in (0, 1):
        raise InvalidSignature("the signature is for another chain, or none")
    found = recover(digest, items[1].rjust(32, b"\0") + items[2].rjust(32, b"\0") + bytes([27 + parity]))
    if found != account:
        raise InvalidSignature(f"it is signed by 0x{found.hex()}, not by 0x{account.hex()}")


def _payload(transaction: Mapping[str, Any]) -> tuple[list[Any], bool]:
    """The items that are signed, and whether as type 2."""
    typed = "maxFeePerGas" in transaction
    names = FIELDS_2 if typed else FIELDS_LEGACY
    items: list[Any] = [_item(transaction[name]) for name in names]
    return ([*items, []] if typed else items), typed


def _item(value: Any) -> bytes:
    if isinstance(value, int):
        return _number(value)
    return bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else bytes(value)


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def call_fields(transaction: Mapping[str, Any]) -> dict[str, str]:
    """A transaction as JSON-RPC takes it: numbers and bytes in hex."""
    return {name: _hex(value) for name, value in transaction.items()}


def _hex(value: Any) -> str:
    if isinstance(value, int):
        return hex(value)
    return value if isinstance(value, str) else "0x" + bytes(value).hex()
