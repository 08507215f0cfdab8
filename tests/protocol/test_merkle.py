"""The credit tree: equal to the golden roots, and only what is in it can be proved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import merkle

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "merkle.json").read_text(encoding="utf-8"))[
    "trees"
]

accounts = st.lists(st.binary(min_size=20, max_size=20), min_size=1, max_size=40, unique=True)


def leaves_of(packed: bytes) -> list[bytes]:
    words = [packed[place : place + 32] for place in range(0, len(packed), 32)]
    return [merkle.credit_leaf(word[:20], int.from_bytes(word[20:], "big")) for word in words]


@pytest.mark.parametrize("tree", GOLDEN, ids=lambda tree: str(tree["count"]))
def test_roots_equal_those_of_an_independent_implementation(tree: dict[str, str]) -> None:
    assert merkle.root(leaves_of(bytes.fromhex(tree["credits"][2:]))).hex() == tree["root"][2:]


@given(accounts, st.integers(min_value=1, max_value=2**96 - 1))
def test_every_credit_is_proved_and_no_other_amount(members: list[bytes], amount: int) -> None:
    leaves = [merkle.credit_leaf(account, amount) for account in members]
    root = merkle.root(leaves)
    for index, account in enumerate(members):
        proof = merkle.proof(leaves, index)
        assert merkle.verify(leaves[index], proof, root)
        other = amount - 1 if amount > 1 else 2
        assert not merkle.verify(merkle.credit_leaf(account, other), proof, root)


@given(accounts)
def test_an_inner_node_never_passes_for_a_leaf(members: list[bytes]) -> None:
    leaves = [merkle.credit_leaf(account, 1) for account in members]
    if len(leaves) < 2:
        return
    proof, root = merkle.proof(leaves, 0), merkle.root(leaves)
    inner = merkle.root(leaves[:2])
    assert merkle.verify(inner, proof[1:], root)
    assert inner not in leaves


def test_what_is_no_credit_has_no_leaf() -> None:
    for account, amount in ((b"\x01" * 19, 1), (b"\x01" * 20, 0), (b"\x01" * 20, 2**96), (b"\x01" * 20, -1)):
        with pytest.raises(ValueError):
            merkle.credit_leaf(account, amount)


def test_no_proof_without_a_leaf() -> None:
    for index in (-1, 1):
        with pytest.raises(ValueError):
            merkle.proof([bytes(32)], index)
