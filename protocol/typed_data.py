"""EIP-712 for frozen structs: hashing, ids, signatures and the JSON a wallet shows.

A signed or hashed thing is a `Typed` struct whose annotations are the aliases below (``Bytes32``,
``Address``, ``Uint64``, …). From them follow its EIP-712 type string, its hash, its JSON form and its
wire form, so that a field is declared once. Golden vectors shared with Solidity and with an
independent implementation (eth-account) are in ``tests/golden/eip712.json``.

Guarantees: `struct_hash` is injective over values; `from_json` accepts exactly what `to_json` writes
(hex for bytes, decimal strings or integers for numbers) and refuses everything else with a reason.

Source: EIP-712; PoT 3.4 "Achieving Integrity" (identifiers are hashes).
"""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from protocol.crypto import keccak256, recover
from protocol.errors import InvalidEncoding, InvalidSignature
from protocol.signer import Signer

MAX_STRING_BYTES: Final = 512
MAX_LIST_ITEMS: Final = 1024
_DECIMAL: Final = re.compile(r"0|-?[1-9][0-9]{0,39}")
_HEX: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


def _solidity(name: str, **bounds: Any) -> Any:
    return Meta(extra={"solidity": name}, **bounds)


Bytes32 = Annotated[bytes, _solidity("bytes32", min_length=32, max_length=32)]
Address = Annotated[bytes, _solidity("address", min_length=20, max_length=20)]
Signature = Annotated[bytes, Meta(min_length=65, max_length=65)]
Blob = Annotated[bytes, _solidity("bytes")]
SignatureBlob = Annotated[bytes, _solidity("bytes", min_length=65, max_length=65)]
"""A signature that is itself part of what is signed."""
Uint8 = Annotated[int, _solidity("uint8", ge=0, le=2**8 - 1)]
Uint32 = Annotated[int, _solidity("uint32", ge=0, le=2**32 - 1)]
Uint64 = Annotated[int, _solidity("uint64", ge=0)]  # msgspec bounds end at 2^63: hashing checks the rest
Uint96 = Annotated[int, _solidity("uint96", ge=0)]
Int64 = Annotated[int, _solidity("int64", ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, _solidity("string", max_length=MAX_STRING_BYTES)]
Bytes32List = Annotated[tuple[Bytes32, ...], _solidity("bytes32[]", max_length=MAX_LIST_ITEMS)]
TextList = Annotated[tuple[Text, ...], _solidity("string[]", max_length=16)]


class Typed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything that is hashed under the network's EIP-712 domain."""


@dataclass(frozen=True, slots=True)
class Domain:
    """The network's EIP-712 domain; its verifying contract is the ``Parameters`` contract."""

    chain_id: int
    verifying_contract: bytes

    @property
    def separator(self) -> bytes:
        """The 32-byte domain separator."""
        return _separator(self.chain_id, self.verifying_contract)


@functools.lru_cache(maxsize=64)
def _separator(chain_id: int, verifying_contract: bytes) -> bytes:
    type_hash = keccak256(
        b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    )
    return keccak256(
        type_hash
        + keccak256(b"DTN")
        + keccak256(b"1")
        + chain_id.to_bytes(32, "big")
        + verifying_contract.rjust(32, b"\0")
    )


# Per field: attribute name, EIP-712 name (camel case, as in Solidity), Solidity type.
@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    solidity_name: str
    solidity_type: str


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


@functools.cache
def fields_of(cls: type[Typed]) -> tuple[_Field, ...]:
    """The fields of a struct in EIP-712 order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    result = []
    for name in cls.__struct_fields__:
        meta = next(item for item in hints[name].__metadata__ if isinstance(item, Meta) and item.extra)
        result.append(_Field(name, _camel(name), typing.cast(dict[str, str], meta.extra)["solidity"]))
    return tuple(result)


@functools.cache
def type_string(cls: type[Typed]) -> str:
    """EIP-712 ``encodeType`` of a struct."""
    inner = ",".join(f"{field.solidity_type} {field.solidity_name}" for field in fields_of(cls))
    return f"{cls.__name__}({inner})"


def _unsigned(bits: int) -> Callable[[int], bytes]:
    def encode(value: int) -> bytes:
        if not 0 <= value < 1 << bits:
            raise InvalidEncoding(f"{value} does not fit uint{bits}")
        return value.to_bytes(32, "big")

    return encode


_ENCODERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "bytes32": lambda value: value,
    "address": lambda value: b"\0" * 12 + value,
    "uint8": _unsigned(8),
    "uint32": _unsigned(32),
    "uint64": _unsigned(64),
    "uint96": _unsigned(96),
    "int64": lambda value: value.to_bytes(32, "big", signed=True),
    "string": lambda value: keccak256(value.encode()),
    "bytes": keccak256,
    "bytes32[]": lambda value: keccak256(b"".join(value)),
    "string[]": lambda value: keccak256(b"".join(keccak256(item.encode()) for item in value)),
}


@functools.cache
def _plan(cls: type[Typed]) -> tuple[bytes, tuple[tuple[str, Callable[[Any], bytes]], ...]]:
    encoders = tuple((field.name, _ENCODERS[field.solidity_type]) for field in fields_of(cls))
    return keccak256(type_string(cls).encode()), encoders


def struct_hash(value: Typed) -> bytes:
    """EIP-712 ``hashStruct``, 32 bytes."""
    type_hash, encoders = _plan(type(value))
    return keccak256(type_hash + b"".join([encode(getattr(value, name)) for name, encode in encoders]))


def digest_of(domain: Domain, value: Typed) -> bytes:
    """The 32 bytes that are signed, and the id of the thing: ``keccak256(0x1901 || domain || struct)``."""
    return keccak256(b"\x19\x01" + domain.separator + struct_hash(value))


def sign(domain: Domain, value: Typed, signer: Signer) -> bytes:
    """65-byte canonical signature of ``value``; raises `SignerError` if an external signer fails."""
    return signer.sign_typed(digest_of(domain, value), lambda: wallet_json(domain, value))


def verify(domain: Domain, value: Typed, signature: bytes, signer: bytes) -> None:
    """Raise `InvalidSignature` unless ``signer`` (20-byte address) signed ``value``."""
    found = recover(digest_of(domain, value), signature)
    if found != signer:
        raise InvalidSignature(f"signed by 0x{found.hex()}, not by 0x{signer.hex()}")


def wallet_json(domain: Domain, value: Typed) -> dict[str, Any]:
    """The ``eth_signTypedData_v4`` document that makes a wallet show and sign ``value``."""
    cls = type(value)
    return {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            cls.__name__: [{"name": f.solidity_name, "type": f.solidity_type} for f in fields_of(cls)],
        },
        "primaryType": cls.__name__,
        "domain": {
            "name": "DTN",
            "version": "1",
            "chainId": domain.chain_id,
            "verifyingContract": "0x" + domain.verifying_contract.hex(),
        },
        "message": to_json(value),
    }


def to_json(value: Typed) -> dict[str, Any]:
    """``value`` as JSON under its EIP-712 names: bytes as 0x-hex, integers as decimal strings."""
    return {field.solidity_name: _jsonable(getattr(value, field.name)) for field in fields_of(type(value))}


def _jsonable(value: Any) -> Any:
    match value:
        case bytes():
            return "0x" + value.hex()
        case int():
            return str(value)
        case tuple():
            return [_jsonable(item) for item in value]
        case _:
            return value


T = TypeVar("T", bound=Typed)


def from_json(cls: type[T], message: object) -> T:
    """The struct that ``message`` (as written by `to_json`) describes.

    Raises:
        InvalidEncoding: a field is missing, unknown, of another type or out of bounds.
    """
    if not isinstance(message, dict):
        raise InvalidEncoding(f"{cls.__name__} must be a JSON object")
    fields = fields_of(cls)
    unknown = sorted(set(map(str, message)) - {field.solidity_name for field in fields})
    if unknown:
        raise InvalidEncoding(f"{cls.__name__} has no field {unknown[0]!r}")
    values = {}
    for field in fields:
        if field.solidity_name not in message:
            raise InvalidEncoding(f"{cls.__name__} needs the field {field.solidity_name!r}")
        values[field.name] = _parse(field, field.solidity_type, message[field.solidity_name])
    try:
        return msgspec.convert(values, cls, builtin_types=(bytes,))
    except msgspec.ValidationError as reason:
        raise InvalidEncoding(f"{cls.__name__}: {reason}") from reason


def _parse(field: _Field, solidity_type: str, value: object) -> Any:
    try:
        if solidity_type.endswith("[]"):
            if not isinstance(value, list) or len(value) > MAX_LIST_ITEMS:
                raise ValueError(f"a list of at most {MAX_LIST_ITEMS} items")
            return tuple(_parse(field, solidity_type[:-2], item) for item in value)
        if solidity_type == "string":
            if not isinstance(value, str):
                raise ValueError("a string")
            value.encode()  # JSON can spell lone surrogates, which no encoding has
            return value
        if solidity_type.startswith(("bytes", "address")):
            return parse_hex(value)
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError("an integer or its decimal string")
        if isinstance(value, str) and not _DECIMAL.fullmatch(value):
            raise ValueError("a plain decimal integer of at most 40 digits")
        number = int(value)
        _ENCODERS[solidity_type](number)
    except (ValueError, OverflowError, InvalidEncoding) as reason:
        raise InvalidEncoding(f"field {field.solidity_name!r} must be {solidity_type}: {reason}") from reason
    return number


def parse_hex(value: object) -> bytes:
    """Bytes of a 0x-prefixed hex string; raises ``ValueError`` for anything else."""
    if not isinstance(value, str) or len(value) > 2 + 2 * 65_536 or not _HEX.fullmatch(value):
        raise ValueError("0x-prefixed hex is needed")
    return bytes.fromhex(value[2:])
