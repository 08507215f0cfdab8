"""Commitments bind to order, committer, body and salt, and to nothing less; keys say what is wrong."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.crypto import Key, commitment, keccak256
from protocol.errors import InvalidKey
from protocol.transactions import claim_body, data_root, score_body

PART = st.binary(min_size=32, max_size=32)


@given(oid=PART, body=PART, salt=PART, place=st.integers(0, 3))
def test_a_commitment_depends_on_each_of_its_parts(oid: bytes, body: bytes, salt: bytes, place: int) -> None:
    parts = [oid, b"\1" * 20, body, salt]
    changed = list(parts)
    changed[place] = bytes([changed[place][0] ^ 1]) + changed[place][1:]
    assert commitment(*parts) != commitment(*changed)
    assert commitment(*parts) == keccak256(b"".join(parts))


@pytest.mark.parametrize(
    "sizes", [(31, 20, 32, 33), (32, 32, 32, 20), (32, 20, 0, 64), (0, 0, 0, 0)], ids=str
)
def test_parts_cannot_be_shifted_into_each_other(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="32, 20, 32 and 32"):
        commitment(*(bytes(size) for size in sizes))


def test_bodies_of_different_answers_differ() -> None:
    mids, scores, digests = (bytes(32), b"\1" * 32), (0, -1, 1, -(2**63), 2**63 - 1), (bytes(32), b"\2" * 32)
    bodies = {score_body(*parts) for parts in itertools.product(mids, scores, digests)}
    bodies |= {claim_body(mid, size) for mid, size in itertools.product(mids, (0, 1, 2**64 - 1))}
    assert len(bodies) == 2 * 5 * 2 + 2 * 3


def test_the_data_root_depends_on_every_fragment_and_their_order() -> None:
    first, second = bytes(32), b"\1" * 32
    roots = {data_root(each) for each in ((), (first,), (second,), (first, second), (second, first))}
    assert len(roots) == 5


@pytest.mark.parametrize(
    "secret", [b"", bytes(32), b"\xff" * 32, b"\1" * 33], ids=lambda value: value.hex()[:8]
)
def test_what_is_no_private_key_is_refused(secret: bytes) -> None:
    with pytest.raises(InvalidKey):
        Key(secret)


def test_a_key_never_shows_its_secret() -> None:
    key = Key(keccak256(b"secret"))
    assert key.secret.hex() not in repr(key) + str(key)
