"""A certificate proves to a stranger where a transaction was ordered, and nothing else passes for one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.pbft.messages import Batch, VoteKind, cast
from protocol.certificate import (
    InvalidCertificate,
    MemberSignature,
    TransactionCertificate,
    certificate_from_json,
    certificate_to_json,
    place_leaf,
    quorum,
)
from protocol.crypto import keccak256
from protocol.merkle import proof
from tests.pbft.network import committee

MEMBERS, KEYS = committee(4)
TRANSACTIONS = tuple(b"transaction %d" % number for number in range(7))
BATCH = Batch(1_700_000_000_000, None, (b"event",), TRANSACTIONS)


def certificate(index: int = 3, signers: tuple[int, ...] = (0, 1, 3)) -> TransactionCertificate:
    votes = [
        cast(MEMBERS.domain, KEYS[signer], signer, VoteKind.COMMIT, 2, 9, BATCH.digest())
        for signer in signers
    ]
    leaves = [place_leaf(place, keccak256(data)) for place, data in enumerate(TRANSACTIONS)]
    return TransactionCertificate(
        view=2,
        sequence=9,
        unanimous=False,
        header=BATCH.outline.header,
        index=index,
        path=tuple(proof(leaves, index)),
        signatures=tuple(MemberSignature(member=v.signer, signature=v.signature) for v in votes),
    )


def by_all(
    view: int = 2, primary: int | None = None, signers: tuple[int, ...] = (0, 1, 2, 3)
) -> TransactionCertificate:
    """A certificate of the votes of all, with ``primary``'s over the proposal."""
    first = view % 4 if primary is None else primary
    votes = [
        cast(
            MEMBERS.domain,
            KEYS[signer],
            signer,
            VoteKind.PRE_PREPARE if signer == first else VoteKind.PREPARE,
            view,
            9,
            BATCH.digest(),
        )
        for signer in signers
    ]
    signatures = tuple(MemberSignature(member=v.signer, signature=v.signature) for v in votes)
    return msgspec.structs.replace(certificate(), view=view, unanimous=True, signatures=signatures)


@pytest.mark.parametrize("view", range(6))
def test_the_votes_of_all_prove_it_too(view: int) -> None:
    good = by_all(view)
    good.verify(MEMBERS.domain, MEMBERS.addresses, TRANSACTIONS[3])
    assert certificate_from_json(certificate_to_json(good)) == good


def test_the_votes_of_all_are_those_of_all_each_for_its_part() -> None:
    good, change = by_all(), msgspec.structs.replace
    bad = [
        by_all(signers=(0, 1, 2)),
        by_all(signers=(0, 1, 3)),
        by_all(signers=(0, 1, 2, 3, 3)),
        by_all(signers=(0, 1, 2, 2, 3)),
        by_all(primary=0),
        change(good, view=3),
        change(good, view=6),
        change(good, sequence=10),
        change(good, unanimous=False),
        change(certificate(signers=(0, 1, 2, 3)), unanimous=True),
    ]
    for bent in bad:
        with pytest.raises(InvalidCertificate):
            bent.verify(MEMBERS.domain, MEMBERS.addresses, TRANSACTIONS[3])
    for members in (MEMBERS.addresses[:3], (*MEMBERS.addresses, bytes(20)), ()):
        with pytest.raises(InvalidCertificate):
            good.verify(MEMBERS.domain, members, TRANSACTIONS[3])


@pytest.mark.parametrize("index", range(len(TRANSACTIONS)))
def test_every_transaction_of_a_batch_can_be_proved(index: int) -> None:
    certificate(index).verify(MEMBERS.domain, MEMBERS.addresses, TRANSACTIONS[index])


def test_it_survives_json() -> None:
    there = certificate_to_json(certificate())
    back = certificate_from_json(there)
    assert back == certificate() and certificate_to_json(back) == there


def test_another_transaction_place_batch_or_committee_is_refused() -> None:
    good = certificate()
    change = msgspec.structs.replace
    header = change(good.header, timestamp_ms=good.header.timestamp_ms + 1)
    cases = (
        (good, TRANSACTIONS[2], MEMBERS.addresses),
        (change(good, index=2), TRANSACTIONS[3], MEMBERS.addresses),
        (change(good, index=99), TRANSACTIONS[3], MEMBERS.addresses),
        (change(good, sequence=10), TRANSACTIONS[3], MEMBERS.addresses),
        (change(good, view=3), TRANSACTIONS[3], MEMBERS.addresses),
        (change(good, header=header), TRANSACTIONS[3], MEMBERS.addresses),
        (change(good, path=good.path[:-1]), TRANSACTIONS[3], MEMBERS.addresses),
        (good, TRANSACTIONS[3], MEMBERS.addresses[::-1]),
        (good, TRANSACTIONS[3], MEMBERS.addresses[:2]),
    )
    for bent, transaction, members in cases:
        with pytest.raises(InvalidCertificate):
            bent.verify(MEMBERS.domain, members, transaction)


@pytest.mark.parametrize("signers", [(), (0,), (0, 1), (1, 1, 1)])
def test_less_than_a_quorum_is_no_proof(signers: tuple[int, ...]) -> None:
    with pytest.raises(InvalidCertificate):
        certificate(signers=signers).verify(MEMBERS.domain, MEMBERS.addresses, TRANSACTIONS[3])


def test_one_member_cannot_sign_for_the_others() -> None:
    good = certificate()
    mine = good.signatures[0].signature
    forged = tuple(MemberSignature(member=member, signature=mine) for member in range(4))
    with pytest.raises(InvalidCertificate):
        msgspec.structs.replace(good, signatures=forged).verify(
            MEMBERS.domain, MEMBERS.addresses, TRANSACTIONS[3]
        )


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"header": {}}, {"header": None, "signatures": [], "path": []}, "x" * 1000],
)
def test_garbage_is_no_certificate(document: object) -> None:
    with pytest.raises(InvalidCertificate):
        certificate_from_json(document)


@pytest.mark.parametrize("field", ["view", "sequence", "unanimous", "index", "path", "signatures", "header"])
@pytest.mark.parametrize("value", [-1, 2**70, "0x", None, [["0x"]], {"member": "a"}])
def test_a_field_of_another_type_is_no_certificate(field: str, value: object) -> None:
    document = certificate_to_json(certificate()) | {field: value}
    with pytest.raises(InvalidCertificate):
        certificate_from_json(document).verify(MEMBERS.domain, MEMBERS.addresses, TRANSACTIONS[3])


@given(st.permutations(TRANSACTIONS))
def test_the_digest_binds_the_order_of_the_transactions(shuffled: list[bytes]) -> None:
    other = Batch(BATCH.timestamp_ms, None, BATCH.chain_events, tuple(shuffled))
    assert (other.digest() == BATCH.digest()) == (tuple(shuffled) == TRANSACTIONS)


@given(st.lists(st.binary(max_size=4), max_size=6), st.lists(st.binary(max_size=4), max_size=6))
def test_the_digest_binds_what_is_an_event_and_what_a_transaction(
    first: list[bytes], second: list[bytes]
) -> None:
    one = Batch(5, None, tuple(first), tuple(second))
    two = Batch(5, None, tuple(second), tuple(first))
    assert (one.digest() == two.digest()) == (first == second)


@pytest.mark.parametrize("count", range(1, 40))
def test_two_quorums_share_an_honest_member(count: int) -> None:
    faults = (count - 1) // 3
    assert 2 * quorum(count) - count > faults
    assert quorum(count) <= count - faults
