"""What proves a lie, and what never does: no honest life, restarts included, contains contradicting votes."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.pbft.events import Misbehaved, Received, Send
from aggregator.pbft.evidence import Contradiction, contradict
from aggregator.pbft.messages import (
    Batch,
    LinkMessage,
    NewView,
    PrePrepare,
    ViewChange,
    Vote,
    VoteKind,
    cast,
    contents_digest,
)
from protocol.certificate import SignedVote
from protocol.evidence import PUNISHABLE, accused_in, evidence_fields
from protocol.transactions import Evidence
from tests.pbft.network import Committee


def votes_in(message: object) -> Iterator[Vote]:
    """Every vote in a message, however deep."""
    if isinstance(message, Vote):
        yield message
    elif isinstance(message, msgspec.Struct):
        for item in msgspec.structs.astuple(message):
            yield from votes_in(item)
    elif isinstance(message, tuple):
        for item in message:
            yield from votes_in(item)


def prove(network: Committee, votes: Contradiction) -> bytes:
    """Address of the liar that a stranger, who has nothing but the two votes, finds."""
    pair = [
        (SignedVote(kind=int(v.kind), view=v.view, sequence=v.sequence, digest=v.digest), v.signature)
        for v in votes
    ]
    evidence = Evidence(sender=bytes(20), nonce=0, **evidence_fields(pair[0], pair[1]))
    return accused_in(network.members.domain, evidence)


# Honest lives --------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.3]),
    days=st.lists(
        st.tuples(
            st.sampled_from(["crash", "isolate", "heal", "none"]), st.integers(0, 3), st.integers(1, 12)
        ),
        min_size=1,
        max_size=10,
    ),
)
def test_no_honest_life_contains_contradicting_votes(
    seed: int, loss: float, days: list[tuple[str, int, int]]
) -> None:
    network = Committee(seed=seed, loss=loss, duplication=0.1)
    said: dict[tuple[int, int, int, int], set[bytes]] = {}

    def listen(sender: int, to: int, message: LinkMessage) -> LinkMessage:
        for vote in votes_in(message):
            if vote.kind in PUNISHABLE:
                said.setdefault((vote.kind, vote.view, vote.sequence, vote.signer), set()).add(vote.digest)
        return message

    network.filter = listen
    for number, (day, who, hundreds) in enumerate(days):
        network.submit(b"transaction %d" % number)
        network.run(30 * hundreds)
        if day == "crash":
            network.crash(who)
        elif day == "isolate":
            network.isolate(who)
        elif day == "heal":
            network.partition = set()
        network.run(100 * hundreds)
        for index, machine in enumerate(network.machines):
            if not machine.up:
                network.restart(index)
    network.partition = set()
    network.run(3000)
    network.check()
    assert said and all(len(digests) == 1 for digests in said.values())
    assert not any(machine.evidence for machine in network.machines)


# Lies ----------------------------------------------------------------------------------------------------


def other_story(network: Committee, message: PrePrepare) -> PrePrepare:
    """What a lying primary shows its victim."""
    outline = msgspec.structs.replace(message.outline, timestamp_ms=message.outline.timestamp_ms + 1)
    vote = message.vote
    signer = vote.signer
    return PrePrepare(
        cast(
            network.members.domain,
            network.keys[signer],
            signer,
            VoteKind.PRE_PREPARE,
            vote.view,
            vote.sequence,
            outline.digest(),
        ),
        outline,
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_primary_that_tells_each_member_one_story_is_proven_a_liar(seed: int) -> None:
    """Nobody gets both proposals from it; those who see others prepare something else compare."""
    network = Committee(seed=seed)

    def equivocate(sender: int, to: int, message: LinkMessage) -> LinkMessage:
        lie = sender == 0 and to == 3 and isinstance(message, PrePrepare)
        return other_story(network, message) if lie and isinstance(message, PrePrepare) else message

    network.filter = equivocate
    network.submit(b"transaction")
    network.run(3000)
    network.check()
    proven = [votes for machine in network.machines[1:] for votes in machine.evidence]
    assert proven and {prove(network, votes) for votes in proven} == {network.members.addresses[0]}


@pytest.mark.parametrize("kind", [VoteKind.PREPARE, VoteKind.COMMIT])
def test_two_votes_of_a_member_prove_it_a_liar_whoever_brings_them(
    kind: VoteKind,
) -> None:
    network = Committee()
    replica = network.machines[1].replica
    one, other = (
        cast(network.members.domain, network.keys[3], 3, kind, 0, 1, bytes([n]) * 32) for n in (1, 2)
    )
    assert replica.step(Received(sender=3, message=one, now_ms=network.now_ms)) == []
    (effect,) = replica.step(Received(sender=2, message=other, now_ms=network.now_ms))
    assert isinstance(effect, Misbehaved) and effect.sender == 3 and effect.evidence == (one, other)
    assert prove(network, effect.evidence) == network.members.addresses[3]


def test_two_starts_of_one_view_prove_the_new_primary_a_liar() -> None:
    network = Committee()
    network.crash(0)
    network.submit(b"transaction")
    network.run(4000)
    replica = network.machines[2].replica
    assert replica.view == 1 and replica._new_view is not None
    contents = msgspec.structs.replace(replica._new_view.contents, view_changes=())
    vote = cast(
        network.members.domain, network.keys[1], 1, VoteKind.NEW_VIEW, 1, 1, contents_digest(contents)
    )
    effects = replica.step(Received(sender=1, message=NewView(contents, vote), now_ms=network.now_ms))
    (found,) = [effect for effect in effects if isinstance(effect, Misbehaved)]
    assert found.evidence is not None and found.sender == 1
    assert prove(network, found.evidence) == network.members.addresses[1]


def test_what_a_view_change_brings_to_light_is_evidence() -> None:
    """Member 3 got another proposal than the rest, and learns of theirs from the proofs of a view change."""
    network = Committee()
    shown: list[LinkMessage] = []

    def split(sender: int, to: int, message: LinkMessage) -> LinkMessage | None:
        if sender == 0 and to == 3 and isinstance(message, PrePrepare):
            return other_story(network, message)
        if isinstance(message, Vote) and message.kind in (
            VoteKind.PREPARE,
            VoteKind.COMMIT,
            VoteKind.PRE_PREPARE,
        ):
            # Prepares reach members 1 and 2 only, commits nobody.
            return message if message.kind is VoteKind.PREPARE and to in (1, 2) and sender != 3 else None
        if isinstance(message, ViewChange):
            shown.append(message)
        return message

    network.filter = split
    network.submit(b"transaction")
    network.run(2500)
    assert shown, "the view was changed"
    proven = network.machines[3].evidence
    assert proven and {prove(network, votes) for votes in proven} == {network.members.addresses[0]}


def test_a_shown_proposal_promises_nothing_and_must_be_signed() -> None:
    network = Committee()
    domain, keys = network.members.domain, network.keys
    replica = network.machines[1].replica
    batch = Batch(network.now_ms, None, (), (b"transaction",))
    vote = cast(domain, keys[0], 0, VoteKind.PRE_PREPARE, 0, 1, batch.digest())
    assert replica.step(Received(sender=2, message=vote, now_ms=network.now_ms)) == []
    assert not replica._slots, "nothing is kept of it"
    replica.step(Received(sender=0, message=PrePrepare(vote, batch.outline), now_ms=network.now_ms))
    assert replica.step(Received(sender=2, message=vote, now_ms=network.now_ms)) == []
    forged = cast(domain, keys[2], 0, VoteKind.PRE_PREPARE, 0, 1, bytes(32))
    (effect,) = replica.step(Received(sender=2, message=forged, now_ms=network.now_ms))
    assert isinstance(effect, Misbehaved) and effect.sender == 2 and effect.evidence is None
    lie = cast(domain, keys[0], 0, VoteKind.PRE_PREPARE, 0, 1, bytes(32))
    (effect,) = replica.step(Received(sender=2, message=lie, now_ms=network.now_ms))
    assert isinstance(effect, Misbehaved) and effect.sender == 0 and effect.evidence == (vote, lie)


def test_a_proposal_is_shown_once_for_each_prepare_that_is_kept() -> None:
    network = Committee()
    domain, keys = network.members.domain, network.keys
    replica = network.machines[1].replica
    batch = Batch(network.now_ms, None, (), (b"transaction",))
    vote = cast(domain, keys[0], 0, VoteKind.PRE_PREPARE, 0, 1, batch.digest())
    replica.step(Received(sender=0, message=PrePrepare(vote, batch.outline), now_ms=network.now_ms))
    lie = cast(domain, keys[3], 3, VoteKind.PREPARE, 0, 1, bytes(32))
    first = replica.step(Received(sender=3, message=lie, now_ms=network.now_ms))
    assert first == [Send(to=3, message=vote)]
    assert replica.step(Received(sender=3, message=lie, now_ms=network.now_ms)) == []


@pytest.mark.parametrize("kind", VoteKind)
def test_only_votes_that_honest_members_cast_once_contradict(kind: VoteKind) -> None:
    network = Committee()
    one, other = (
        cast(network.members.domain, network.keys[0], 0, kind, 0, 0, bytes([n]) * 32) for n in (1, 2)
    )
    assert contradict(one, other) == (kind in PUNISHABLE)
    assert not contradict(one, one)
    assert not contradict(one, msgspec.structs.replace(other, view=1))
    assert not contradict(one, msgspec.structs.replace(other, sequence=1))
    assert not contradict(one, msgspec.structs.replace(other, signer=1))
