"""Batches that all members voted for need no commits: when that holds, when not, and that it is safe."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.pbft.messages import (
    Batch,
    Committed,
    CommittedBatches,
    LinkMessage,
    Prepared,
    StableCheckpoint,
    ViewChange,
    ViewChangeContents,
    Vote,
    Voted,
    VoteKind,
    cast,
    contents_digest,
)
from aggregator.pbft.quorum import InvalidProof
from aggregator.pbft.records import BecameCommitted, decode_record
from aggregator.pbft.view_change import NULL_DIGEST, proposals, verify_view_change
from protocol.errors import InvalidSignature, ProtocolError
from tests.pbft.network import LIMITS, Committee, committee


def kinds(network: Committee) -> Counter[VoteKind]:
    """Count the votes that are sent from here on, by kind."""
    seen: Counter[VoteKind] = Counter()

    def note(sender: int, to: int, message: LinkMessage) -> LinkMessage:
        if isinstance(message, Vote):
            seen[message.kind] += 1
        return message

    network.filter = note
    return seen


def certificates(network: Committee, index: int) -> list[tuple[Vote, ...]]:
    """The certificates in a member's journal."""
    records = [decode_record(data) for data in network.machines[index].disk]
    return [record.committed.certificate for record in records if isinstance(record, BecameCommitted)]


# In good company -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_with_the_votes_of_all_nobody_commits(count: int) -> None:
    network = Committee(count)
    seen = kinds(network)
    for number in range(5):
        network.submit(b"transaction %d" % number)
        network.run(300)
    assert network.executed() == [5] * count
    assert not seen[VoteKind.COMMIT] and seen[VoteKind.PREPARE] == 5 * (count - 1) ** 2
    for first, *rest in certificates(network, 0):
        assert first.kind is VoteKind.PRE_PREPARE and first.signer == 0
        assert [(vote.kind, vote.signer) for vote in rest] == [
            (VoteKind.PREPARE, index) for index in range(1, count)
        ]


def test_without_the_vote_of_one_the_others_wait_once_and_commit() -> None:
    network = Committee()
    network.crash(3)
    seen = kinds(network)
    network.submit(b"first")
    network.run(80)
    assert network.executed() == [0] * 4 and not seen[VoteKind.COMMIT], "hoping for all"
    network.run(250)
    assert network.executed() == [1, 1, 1, 0] and seen[VoteKind.COMMIT] == 9
    doubting = [machine.replica._doubting_until_ms > network.now_ms for machine in network.machines[:3]]
    assert any(doubting), "who waited in vain goes on without waiting"
    assert all(vote.kind is VoteKind.COMMIT for vote in certificates(network, 0)[0])


def test_hope_comes_back_and_is_given_up_for_longer_every_time() -> None:
    network = Committee()
    network.crash(3)
    seen = kinds(network)
    for number in range(40):
        network.submit(b"transaction %d" % number)
        network.run(500)
    doubts = [machine.replica._doubts for machine in network.machines[:3]]
    assert max(doubts) >= 3 and all(doubt <= 6 for doubt in doubts)
    network.restart(3)
    network.run(70_000)
    network.submit(b"together")
    network.run(300)
    seen.clear()
    for number in range(5):
        network.submit(b"again %d" % number)
        network.run(300)
    network.check()
    assert len(set(network.executed())) == 1 and not seen[VoteKind.COMMIT]
    assert not any(machine.replica._doubts for machine in network.machines)


def test_whoever_lacks_one_vote_is_helped_by_those_that_have_all() -> None:
    network = Committee(limits=replace(LIMITS, retransmit_ms=5_000, view_timeout_ms=10_000))
    network.filter = lambda sender, to, message: (
        None
        if (sender, to) == (2, 3) and isinstance(message, Vote) and message.kind is VoteKind.PREPARE
        else message
    )
    network.submit(b"transaction")
    network.run(400)
    assert network.executed() == [1] * 4
    assert {certificates(network, index)[0][0].kind for index in range(3)} == {VoteKind.PRE_PREPARE}
    assert certificates(network, 3)[0][0].kind is VoteKind.COMMIT


def test_members_that_never_hope_agree_with_those_that_do() -> None:
    network = Committee(7)
    for index in (1, 4):
        network.machines[index].replica.limits = replace(LIMITS, unanimity_ms=0)
    for number in range(10):
        network.submit(b"transaction %d" % number)
        network.run(300)
    network.check()
    assert network.executed() == [10] * 7
    assert certificates(network, 1)[0][0].kind is VoteKind.COMMIT


# Over a change of view ------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_what_one_member_committed_with_the_votes_of_all_survives_it(seed: int, restarted: bool) -> None:
    """Only member 1 has all votes; it is cut off. The others prove nothing, but remember their votes."""
    network = Committee(seed=seed)

    def lost(message: LinkMessage, to: int) -> bool:
        return isinstance(message, Vote) and (message.kind, message.view) == (VoteKind.PREPARE, 0) and to != 1

    network.filter = lambda sender, to, message: None if lost(message, to) else message
    network.submit(b"transaction")
    network.run(300)
    assert network.executed() == [0, 1, 0, 0]
    assert not any(machine.replica._slots[1].prepared for machine in network.machines)
    network.isolate(1)
    for index in (0, 2, 3) if restarted else ():
        network.crash(index)
        network.restart(index)
        network.submit(b"transaction", to={index})
    network.run(6_000)
    assert network.machines[2].replica.view >= 2, "members left views 0 and 1"
    assert network.executed() == [1] * 4
    network.check()
    network.partition, network.filter = set(), lambda sender, to, message: message
    network.submit(b"later")
    network.run(6_000)
    network.check()
    assert network.executed() == [2] * 4


def test_a_new_primary_that_has_the_batch_leads_the_others_to_it() -> None:
    """Member 1 alone executed it in view 0 and is the primary of view 1: it must not rest on what it has."""
    network = Committee(limits=replace(LIMITS, retransmit_ms=900))  # nothing is said twice

    def lost(message: LinkMessage, to: int) -> bool:
        early = isinstance(message, Vote) and message.view == 0
        return isinstance(message, CommittedBatches) or (early and to != 1)

    network.filter = lambda sender, to, message: None if lost(message, to) else message
    network.submit(b"transaction")
    network.run(100)
    network.crash(0)
    assert network.executed()[1:] == [1, 0, 0]
    for _ in range(300):
        network.run(10)
        if all(machine.replica.view == 1 and machine.replica.active for machine in network.machines[1:]):
            break
    network.run(350)
    assert network.executed()[1:] == [1] * 3
    network.check()


def _vote(kind: VoteKind, view: int, signer: int, sequence: int, digest: bytes) -> Vote:
    members, keys = committee(4)
    return cast(members.domain, keys[signer], signer, kind, view, sequence, digest)


def _proof(view: int, digest: bytes, sequence: int = 1) -> Prepared:
    primary = view % 4
    others = [index for index in range(4) if index != primary][:2]
    return Prepared(
        _vote(VoteKind.PRE_PREPARE, view, primary, sequence, digest),
        tuple(_vote(VoteKind.PREPARE, view, index, sequence, digest) for index in others),
    )


def _change(
    signer: int,
    *voted: Voted,
    view: int = 9,
    prepared: tuple[Prepared, ...] = (),
    stable: StableCheckpoint | None = None,
) -> ViewChange:
    contents = ViewChangeContents(1, view, stable, prepared, voted)
    return ViewChange(contents, _vote(VoteKind.VIEW_CHANGE, view, signer, 1, contents_digest(contents)))


A, B = b"\xaa" * 32, b"\xbb" * 32


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param([(3, A), (3, A), None], A, id="all honest ones may have voted for it"),
        pytest.param([(3, A), None, None], None, id="one honest member at least did not"),
        pytest.param([(3, A), (3, A), (4, B)], A, id="what a single member says changes nothing"),
        pytest.param([(5, A), (2, A), (4, B)], A, id="votes in several views"),
    ],
)
def test_votes_count_when_only_liars_may_miss(
    changes: list[tuple[int, bytes] | None], expected: bytes | None
) -> None:
    messages = [
        _change(signer, *([Voted(1, *told)] if told is not None else ()))
        for signer, told in enumerate(changes)
    ]
    assert proposals(messages, 1) == (() if expected is None else ((1, expected),))


@pytest.mark.parametrize(
    ("proof_view", "votes", "expected"),
    [
        pytest.param(2, (3, 3), A, id="a proof from before the votes is older"),
        pytest.param(
            3, (3, 3), B, id="a proof from the same view: no honest member can have voted for the other"
        ),
        pytest.param(4, (3, 3), B, id="a proof from later"),
        pytest.param(4, (5, 3), B, id="the view counts in which enough had voted"),
        pytest.param(4, (5, 5), A, id="votes from after the proof"),
    ],
)
def test_between_votes_and_a_proof_the_later_view_decides(
    proof_view: int, votes: tuple[int, int], expected: bytes
) -> None:
    messages = [
        _change(0, Voted(1, votes[0], A)),
        _change(1, Voted(1, votes[1], A), prepared=(_proof(proof_view, B),)),
        _change(2),
    ]
    assert proposals(messages, 1) == ((1, expected),)


def test_numbers_without_anything_get_the_null_batch() -> None:
    messages = [_change(0, Voted(3, 0, A)), _change(1, Voted(2, 0, B), Voted(3, 0, A)), _change(2)]
    assert proposals(messages, 1) == ((1, NULL_DIGEST), (2, NULL_DIGEST), (3, A))


@given(
    faults=st.integers(0, 4),
    extra=st.integers(0, 3),
    liars_say=st.lists(st.tuples(st.integers(0, 8), st.sampled_from([A, B])), max_size=4),
    views=st.lists(st.integers(3, 8), min_size=1, max_size=14),
)
def test_no_liars_can_hide_what_all_had_voted_for(
    faults: int, extra: int, liars_say: list[tuple[int, bytes]], views: list[int]
) -> None:
    """All honest members voted for A in view 3, and so for nothing else later; f liars say what they like."""
    count = 2 * faults + 1 + extra  # view changes of a quorum at least
    lies = [_change(0, Voted(1, *told)) for told in liars_say[:faults]]
    lies += [_change(0)] * (min(faults, count) - len(lies))
    honest = [_change(0, Voted(1, views[number % len(views)], A)) for number in range(count - len(lies))]
    old = _change(0, prepared=(_proof(2, B),))
    assert proposals([*lies, *honest], faults) == ((1, A),)
    if lies:
        assert proposals([*lies[1:], old, *honest], faults) == ((1, A),)


@pytest.mark.parametrize(
    "voted",
    [
        (Voted(0, 0, A),),
        (Voted(65, 0, A),),
        (Voted(2, 0, A), Voted(1, 0, A)),
        (Voted(1, 0, A), Voted(1, 0, B)),
        (Voted(1, 9, A),),
    ],
)
def test_a_view_change_that_remembers_the_impossible_is_refused(voted: tuple[Voted, ...]) -> None:
    members, _ = committee(4)
    verify_view_change(members, _change(2, Voted(1, 0, A), Voted(64, 8, B)), window=64)
    with pytest.raises(InvalidProof):
        verify_view_change(members, _change(2, *voted), window=64)


# Certificates ---------------------------------------------------------------------------------------------


def test_the_votes_of_all_are_a_certificate_and_fewer_are_none() -> None:
    members, _ = committee(4)
    batch = Batch(1, None, (), (b"transaction",))
    digest = batch.digest()
    proposal = _vote(VoteKind.PRE_PREPARE, 2, 2, 7, digest)
    prepares = tuple(_vote(VoteKind.PREPARE, 2, index, 7, digest) for index in (0, 1, 3))
    good = Committed(7, batch, (proposal, *prepares))
    members.verify_committed(good)
    own = _vote(VoteKind.PREPARE, 2, 2, 7, digest)
    elsewhere = tuple(_vote(VoteKind.PREPARE, 6, index, 7, digest) for index in (0, 1, 3))
    forged = msgspec.structs.replace(prepares[0], signer=3)
    bad: tuple[tuple[Vote, ...], ...] = (
        (),
        (proposal,),
        (proposal, *prepares[:2]),
        (proposal, *prepares[:2], prepares[1]),
        (proposal, *prepares[:2], own),
        (proposal, *prepares[:2], forged),
        (proposal, *elsewhere),
        (*prepares, proposal),
        (_vote(VoteKind.PRE_PREPARE, 2, 1, 7, digest), *prepares),
        (_vote(VoteKind.PRE_PREPARE, 2, 2, 8, digest), *prepares),
    )
    for certificate in bad:
        with pytest.raises((InvalidProof, InvalidSignature)):
            members.verify_committed(Committed(7, batch, certificate))
    for other in (Committed(8, batch, good.certificate), Committed(7, Batch(2), good.certificate)):
        with pytest.raises(ProtocolError):
            members.verify_committed(other)
