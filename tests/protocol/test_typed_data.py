"""EIP-712: what we hash and sign is what wallets and contracts hash and sign; nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.crypto import Key, keccak256, recover
from protocol.errors import InvalidEncoding, InvalidSignature, ProtocolError
from protocol.evidence import accused_in, vote_digests
from protocol.transactions import (
    TRANSACTION_TYPES,
    Evidence,
    Order,
    Report,
    SignedTransaction,
    Transaction,
    Validation,
    authenticate,
    decode_transaction,
    order_id,
    sign_transaction,
    transaction_from_json,
    transaction_to_json,
)
from protocol.typed_data import Domain, digest_of, fields_of, from_json, sign, to_json, verify, wallet_json

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "eip712.json").read_text(encoding="utf-8"))
DOMAIN = Domain(GOLDEN["domain"]["chainId"], bytes.fromhex(GOLDEN["domain"]["verifyingContract"][2:]))
KEY = Key(keccak256(b"a committee member of the golden vectors"))
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def golden(name: str, kind: type[Any]) -> Any:
    """The golden struct of that name."""
    named = {field.solidity_name for field in fields_of(kind)}
    return from_json(kind, {key: value for key, value in GOLDEN[name].items() if key in named})


def unhex(text: str) -> bytes:
    """Bytes of a golden hex string."""
    return bytes.fromhex(text[2:])


# Golden vectors ----------------------------------------------------------------------------------------


def test_the_domain_the_order_and_the_report_hash_as_an_independent_library_hashed_them() -> None:
    assert DOMAIN.separator == unhex(GOLDEN["domain"]["separator"])
    assert order_id(DOMAIN, golden("order", Order)) == unhex(GOLDEN["order"]["oid"])
    assert digest_of(DOMAIN, golden("report", Report)) == unhex(GOLDEN["report"]["digest"])


def test_evidence_and_its_votes_hash_as_an_independent_library_hashed_them() -> None:
    evidence = golden("evidence", Evidence)
    assert digest_of(DOMAIN, evidence) == unhex(GOLDEN["evidence"]["digest"])
    assert vote_digests(DOMAIN, evidence) == tuple(map(unhex, GOLDEN["evidence"]["voteDigests"]))
    assert accused_in(DOMAIN, evidence) == KEY.address


def test_a_signature_is_the_one_an_independent_library_made_and_recovers_its_signer() -> None:
    report = golden("report", Report)
    signature = sign(DOMAIN, report, KEY)
    assert signature == unhex(GOLDEN["signature"])
    assert KEY.address == unhex(GOLDEN["signer"])
    verify(DOMAIN, report, signature, KEY.address)


# Every transaction type --------------------------------------------------------------------------------

_uint64 = st.integers(0, 2**64 - 1)
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "bytes32": st.binary(min_size=32, max_size=32),
    "address": st.binary(min_size=20, max_size=20),
    "uint8": st.integers(0, 255),
    "uint64": _uint64,
    "bytes": st.binary(min_size=65, max_size=65),
    "uint96": st.integers(0, 2**96 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "string": _text,
    "string[]": st.lists(_text, max_size=16).map(tuple),
    "bytes32[]": st.lists(st.binary(min_size=32, max_size=32), max_size=20).map(tuple),
}


@st.composite
def bodies(draw: st.DrawFn, kind: type[Transaction]) -> Transaction:
    """Any transaction of one type that ``KEY`` may sign."""
    values = {field.name: draw(_BY_TYPE[field.solidity_type]) for field in fields_of(kind)}
    return kind(**values | {"sender": KEY.address})


TRANSACTIONS = st.one_of([bodies(kind) for kind in TRANSACTION_TYPES.values()])


@settings(max_examples=150)
@given(body=TRANSACTIONS)
def test_a_wallet_signs_every_transaction_as_we_do(body: Transaction) -> None:
    document = wallet_json(DOMAIN, body)
    signable = encode_typed_data(full_message=json.loads(json.dumps(document)))
    signed = Account.sign_message(signable, KEY.secret)
    assert bytes(signed.signature) == sign(DOMAIN, body, KEY)
    assert recover(digest_of(DOMAIN, body), bytes(signed.signature)) == KEY.address


@settings(max_examples=150)
@given(body=TRANSACTIONS)
def test_a_transaction_survives_its_wire_form_and_its_json_form(body: Transaction) -> None:
    signed = sign_transaction(DOMAIN, body, KEY)
    assert decode_transaction(signed.encode()) == signed
    document = json.loads(json.dumps(transaction_to_json(signed)))
    assert transaction_from_json(document) == signed
    assert authenticate(DOMAIN, signed) == digest_of(DOMAIN, body)


@pytest.mark.parametrize("kind", TRANSACTION_TYPES.values(), ids=TRANSACTION_TYPES)
def test_changing_any_field_changes_the_id(kind: type[Transaction]) -> None:
    blank: dict[str, Any] = {
        "bytes32": bytes(32), "address": bytes(20), "bytes": bytes(65), "uint8": 0, "uint64": 0,
        "uint96": 0, "int64": 0, "string": "", "string[]": (), "bytes32[]": (),
    }  # fmt: skip
    other: dict[str, Any] = {
        "bytes32": b"\1" * 32, "address": b"\1" * 20, "bytes": b"\1" * 65, "uint8": 1,
        "uint64": 1, "uint96": 1, "int64": -1, "string": "x", "string[]": ("",), "bytes32[]": (bytes(32),),
    }  # fmt: skip
    fields = fields_of(kind)
    values = {field.name: blank[field.solidity_type] for field in fields}
    ids = {digest_of(DOMAIN, kind(**values))}
    for field in fields:
        ids.add(digest_of(DOMAIN, kind(**values | {field.name: other[field.solidity_type]})))
    assert len(ids) == len(fields) + 1


def test_two_types_with_equal_fields_have_different_ids() -> None:
    fields = {"sender": KEY.address, "nonce": 1, "oid": bytes(32), "mid": bytes(32), "commitment": bytes(32)}
    digests = {
        digest_of(DOMAIN, TRANSACTION_TYPES["Verdict"](**fields)),
        digest_of(DOMAIN, TRANSACTION_TYPES["Validation"](**fields, v_stake=0)),
    }
    assert len(digests) == 2
    assert (
        digest_of(Domain(1, DOMAIN.verifying_contract), TRANSACTION_TYPES["Verdict"](**fields)) not in digests
    )


def test_an_order_may_use_every_nonce_that_the_contract_takes() -> None:
    order = golden("order", Order)
    message = to_json(order) | {"nonce": str(2**64 - 1)}
    assert from_json(Order, message).nonce == 2**64 - 1


# Hostile input -----------------------------------------------------------------------------------------


def validation(**changes: Any) -> Validation:
    """A validation that ``KEY`` sends."""
    fields = {"sender": KEY.address, "nonce": 7, "oid": bytes(32), "mid": bytes(32), "commitment": bytes(32)}
    return Validation(**fields | {"v_stake": 5} | changes)


def document(**changes: Any) -> dict[str, Any]:
    """The JSON form of a good validation, with changes to its message."""
    made = transaction_to_json(sign_transaction(DOMAIN, validation(), KEY))
    return made | {"message": made["message"] | changes}


HOSTILE_NUMBERS = [
    True, False, None, 1.0, 7.5, -1, 2**64, "-1", "0x7", "7.0", " 7", "7 ", "07", "+7", "1_0", "٧", "",
    "9" * 5000, 10**5000, [7], {}, "-0", "1e3", "nan",
]  # fmt: skip


@pytest.mark.parametrize(
    "nonce", HOSTILE_NUMBERS, ids=lambda value: repr(value)[:20] if value != 10**5000 else "big"
)
def test_a_number_has_one_spelling_and_its_bounds(nonce: object) -> None:
    with pytest.raises(InvalidEncoding, match="nonce"):
        transaction_from_json(document(nonce=nonce))


@pytest.mark.parametrize("v_stake", [2**96, str(2**96), "9" * 40, -1], ids=str)
def test_a_stake_fits_96_bits(v_stake: object) -> None:
    with pytest.raises(InvalidEncoding, match="vStake"):
        transaction_from_json(document(vStake=v_stake))


@pytest.mark.parametrize("score", [2**63, -(2**63) - 1, str(2**63)], ids=str)
def test_a_score_fits_64_bits(score: object) -> None:
    body = {"vid": "0x" + "00" * 32, "score": score, "digest": "0x" + "00" * 32, "salt": "0x" + "00" * 32}
    message = {"sender": "0x" + "00" * 20, "nonce": "1", "oid": "0x" + "00" * 32} | body
    with pytest.raises(InvalidEncoding, match="score"):
        transaction_from_json({"type": "ChallengeReveal", "message": message, "signature": "0x" + "00" * 65})


@pytest.mark.parametrize(
    "oid",
    ["", "0x", "00" * 32, "0x" + "00" * 31, "0x" + "00" * 33, "0x" + "0 " * 32, "0x" + "zz" * 32, 5,
     None, [], b"x",     "0x " + "00" * 32, "0X" + "00" * 32, "0x" + "00" * 200_000, "0x٠٠"],
    ids=lambda value: repr(value)[:24],
)  # fmt: skip
def test_bytes_are_hex_of_the_right_size(oid: object) -> None:
    with pytest.raises(InvalidEncoding):
        transaction_from_json(document(oid=oid))


@pytest.mark.parametrize(
    "hostile",
    [
        None, 5, "x", [], {}, {"type": "Validation"}, {"type": [], "message": {}, "signature": "0x"},
        {"type": "Order", "message": {}, "signature": "0x"}, {**document(), "extra": 1},
        {**document(), "signature": "0x00"}, {**document(), "signature": 5}, {**document(), "message": []},
        document(extra="1"), {**document(), "message": {}}, {**document(), "type": {"a": 1}},
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_what_is_no_transaction_is_refused_with_a_reason(hostile: object) -> None:
    with pytest.raises(InvalidEncoding) as refused:
        transaction_from_json(hostile)
    assert str(refused.value)


def test_text_that_is_not_unicode_is_refused() -> None:
    fields = {"mid": "0x" + "00" * 32, "sizeBytes": "1", "links": ["\ud800"], "salt": "0x" + "00" * 32}
    message = {"sender": "0x" + "00" * 20, "nonce": "1", "oid": "0x" + "00" * 32} | fields
    with pytest.raises(InvalidEncoding, match="links"):
        transaction_from_json({"type": "ClaimReveal", "message": message, "signature": "0x" + "00" * 65})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(field=st.sampled_from(sorted(document()["message"])), value=JSON)
def test_any_json_in_any_field_is_understood_or_refused(field: str, value: Any) -> None:
    try:
        signed = transaction_from_json(document(**{field: value}))
    except InvalidEncoding:
        return
    assert decode_transaction(signed.encode()) == signed


# Wire form ---------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(data=st.data())
def test_any_damage_to_the_wire_form_is_a_typed_error(data: st.DataObject) -> None:
    good = sign_transaction(DOMAIN, validation(), KEY).encode()
    place = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[place]))
    damaged = good[:place] + bytes([byte]) + good[place + 1 :]
    with pytest.raises(ProtocolError):
        authenticate(DOMAIN, decode_transaction(damaged))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b" " + data,
        lambda data: data + b"\n",
        lambda data: data.replace(b'"nonce":7', b'"nonce": 7'),
        lambda data: data.replace(b'"nonce":7', b'"nonce":7.0'),
        lambda data: data.replace(b'"nonce":7', b'"nonce":true'),
        lambda data: data.replace(b'"nonce":7', b'"nonce":"7"'),
        lambda data: data.replace(b'"nonce":7', b'"nonce":7,"nonce":7'),
        lambda data: data.replace(b'"nonce":7', b'"nonce":7,"more":1'),
        lambda data: data.replace(b'"nonce":7', b'"nonce":-7'),
        lambda data: data.replace(b'"type":"Validation",', b""),
        lambda data: data.replace(b"Validation", b"Order"),
        lambda data: data.replace(b"Validation", b"\xff\xfe"),
        lambda data: data.replace(b"AAAA", b"AA==", 1),
        lambda data: data[:-1],
        lambda data: b"[" * 60_000,
        lambda data: bytes(64 * 1024 + 1),
        lambda data: b"",
    ],
)
def test_only_the_canonical_encoding_is_a_transaction(change: Any) -> None:
    with pytest.raises(InvalidEncoding):
        decode_transaction(change(sign_transaction(DOMAIN, validation(), KEY).encode()))


# Signatures --------------------------------------------------------------------------------------------


def test_a_signature_by_somebody_else_is_refused() -> None:
    other = Key(keccak256(b"other"))
    forged = SignedTransaction(validation(), other.sign(digest_of(DOMAIN, validation())))
    with pytest.raises(InvalidSignature, match="not by its sender"):
        authenticate(DOMAIN, forged)
    with pytest.raises(InvalidSignature):
        sign_transaction(DOMAIN, validation(), other)


def test_a_signature_for_another_network_is_refused() -> None:
    signed = sign_transaction(Domain(97, DOMAIN.verifying_contract), validation(), KEY)
    with pytest.raises(InvalidSignature):
        authenticate(DOMAIN, signed)


def _malleated(signature: bytes) -> bytes:
    s = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


@pytest.mark.parametrize(
    "change",
    [
        _malleated,
        *(lambda signature, v=v: signature[:64] + bytes([v]) for v in (0, 1, 26, 29, 255)),
        lambda signature: bytes(32) + signature[32:],
        lambda signature: signature[:32] + bytes(32) + signature[64:],
        lambda signature: b"\xff" * 32 + signature[32:],
        lambda signature: bytes(65),
        lambda signature: signature[:64],
        lambda signature: signature + b"\0",
        lambda signature: b"",
    ],
)
def test_a_signature_that_is_not_canonical_is_refused(change: Any) -> None:
    digest = digest_of(DOMAIN, validation())
    with pytest.raises(InvalidSignature):
        recover(digest, change(KEY.sign(digest)))
