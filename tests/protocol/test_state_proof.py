"""A state proof convinces a stranger who knows the committee, and nothing that differs from it does."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.certificate import InvalidCertificate
from protocol.crypto import Key, keccak256
from protocol.errors import InvalidEncoding
from protocol.state_proof import HEAD, StateProof, state_proof_from_json, state_proof_to_json
from protocol.state_rows import decode_row
from protocol.typed_data import Domain
from tests.ledger.checkpointed import MEMBERS, checkpointed
from tests.ledger.world import who

MADE = checkpointed()
PROOF = MADE.prove("nodes", who("provider0"))
DOMAIN, ADDRESSES = MEMBERS.domain, MEMBERS.addresses


def changed(**fields: Any) -> StateProof:
    return msgspec.structs.replace(PROOF, **fields)


@pytest.mark.parametrize("signers", [(0, 1, 2), (1, 2, 3), (0, 1, 2, 3)])
def test_any_quorum_convinces(signers: tuple[int, ...]) -> None:
    made = checkpointed(signers)
    made.prove(HEAD, b"").verify(DOMAIN, ADDRESSES)
    made.prove("table", made.running).verify(DOMAIN, ADDRESSES)


def test_it_survives_json() -> None:
    document = json.loads(json.dumps(state_proof_to_json(PROOF)))
    assert state_proof_from_json(document) == PROOF


@pytest.mark.parametrize(
    ("reason", "proof"),
    [
        ("not in the proof's state", changed(value=PROOF.value + b"\x01")),
        ("not in the proof's state", changed(value=PROOF.value[:-1] + b"\x01")),
        ("not in the proof's state", changed(key=who("verifier0"))),
        ("not in the proof's state", changed(section="nonces")),
        ("not in the proof's state", changed(path=PROOF.path[:-1])),
        ("not in the proof's state", changed(path=(*PROOF.path, bytes(32)))),
        ("not in the proof's state", changed(path=PROOF.path[::-1])),
        ("not in the proof's state", changed(root=bytes(32))),
        ("signature is not member", changed(sequence=PROOF.sequence + 1)),
        ("2 members signed where 3", changed(signatures=PROOF.signatures[:2])),
        ("signs twice", changed(signatures=(*PROOF.signatures[:2], PROOF.signatures[0]))),
        ("unknown", changed(signatures=(msgspec.structs.replace(PROOF.signatures[0], member=9),))),
        ("0 members", changed(signatures=())),
    ],
)
def test_whatever_differs_convinces_nobody(reason: str, proof: StateProof) -> None:
    with pytest.raises(InvalidCertificate, match=reason):
        proof.verify(DOMAIN, ADDRESSES)


def test_another_committee_or_network_is_not_convinced() -> None:
    PROOF.verify(DOMAIN, ADDRESSES)
    others = tuple(Key(keccak256(bytes([n]))).address for n in range(4))
    for domain, members in (
        (DOMAIN, others),
        (DOMAIN, ADDRESSES[::-1]),
        (DOMAIN, (*ADDRESSES, *others)),
        (Domain(DOMAIN.chain_id + 1, DOMAIN.verifying_contract), ADDRESSES),
    ):
        with pytest.raises(InvalidCertificate):
            PROOF.verify(domain, members)


def test_an_inner_node_passes_for_no_row() -> None:
    """The two halves of the tree as a row's bytes: leaves are hashed twice, so they lead nowhere."""
    inner = changed(value=PROOF.path[-1] + PROOF.root, path=())
    with pytest.raises(InvalidCertificate):
        inner.verify(DOMAIN, ADDRESSES)


@given(where=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_flipped_bit_is_believed(where: int, bit: int) -> None:
    encoded = bytearray(msgspec.msgpack.encode(PROOF))
    encoded[where % len(encoded)] ^= 1 << bit
    try:
        proof = msgspec.msgpack.decode(bytes(encoded), type=StateProof)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    if proof != PROOF:
        with pytest.raises(InvalidCertificate):
            proof.verify(DOMAIN, ADDRESSES)


GOOD = state_proof_to_json(PROOF)


@pytest.mark.parametrize(
    "document",
    [
        None, [], "x", {}, GOOD | {"sequence": "1"}, GOOD | {"sequence": True}, GOOD | {"sequence": -1},
        GOOD | {"root": "0x00"}, GOOD | {"path": "0x"}, GOOD | {"path": ["0x00"]}, GOOD | {"path": [None]},
        GOOD | {"path": ["0x" + "00" * 32] * 65}, GOOD | {"signatures": GOOD["signatures"] * 100},
        GOOD | {"signatures": [None]}, GOOD | {"signatures": {"member": 0}}, GOOD | {"section": 5},
        GOOD | {"value": None}, GOOD | {"key": "nonsense"},
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_what_is_no_proof_is_refused_with_one_error(document: object) -> None:
    with pytest.raises(InvalidCertificate):
        state_proof_from_json(document)


@given(value=st.binary(max_size=40), section=st.sampled_from(["head", "nodes", "nonces", "table", "x"]))
def test_bytes_that_are_no_row_are_refused(value: bytes, section: str) -> None:
    try:
        decode_row(section, value)
    except InvalidEncoding:
        return
    assert section == "nonces", "few bytes make a number, and nothing else"
