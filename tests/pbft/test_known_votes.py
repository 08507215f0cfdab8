"""A vote's signature is looked at once, however often and by whomever the vote is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from aggregator.pbft import quorum
from aggregator.pbft.messages import Vote, VoteKind, cast
from protocol.errors import InvalidSignature
from tests.pbft.network import LIMITS, Committee, committee

COUNT = 7


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[Vote]:
    """How often the signature of each vote was checked, by all members together."""
    counted: Counter[Vote] = Counter()
    real = quorum.verify_vote

    def verify(domain: Any, members: Any, vote: Vote) -> None:
        counted[vote] += 1
        real(domain, members, vote)

    monkeypatch.setattr(quorum, "verify_vote", verify)
    return counted


def test_a_view_change_costs_each_member_one_look_at_each_vote(looks: Counter[Vote]) -> None:
    """Every view change shows the proofs of all prepared batches, and a new view shows every view change."""
    network = Committee(COUNT, limits=replace(LIMITS, unanimity_ms=0))
    network.filter = lambda sender, to, m: (
        None if isinstance(m, Vote) and m.kind is VoteKind.COMMIT and m.view == 0 else m
    )
    for number in range(4):
        network.submit(b"prepared in view 0: %d" % number)
        network.run(150)
    assert all(machine.replica._slots[1].prepared for machine in network.machines)
    assert network.executed() == [0] * COUNT
    network.crash(0)
    network.run(6_000)
    network.check()
    assert min(network.executed()[1:]) > 0
    assert any(vote.kind is VoteKind.NEW_VIEW for vote in looks)
    assert max(looks.values()) <= COUNT, "no member looks twice"


def test_what_was_not_signed_is_refused_again_and_again(looks: Counter[Vote]) -> None:
    members, keys = committee(4)
    vote = cast(members.domain, keys[0], 0, VoteKind.PREPARE, 0, 1, bytes(32))
    members.verify(vote)
    forged = [
        Vote(vote.kind, 0, 1, bytes(32), 1, vote.signature),
        Vote(vote.kind, 0, 2, bytes(32), 0, vote.signature),
    ]
    for other in [*forged, *forged]:
        with pytest.raises(InvalidSignature):
            members.verify(other)
    assert [looks[other] for other in forged] == [2, 2]


def test_another_committee_remembers_nothing_of_this_one() -> None:
    members, keys = committee(4)
    vote = cast(members.domain, keys[0], 0, VoteKind.PREPARE, 0, 1, bytes(32))
    members.verify(vote)
    others = replace(members, addresses=members.addresses[::-1])
    with pytest.raises(InvalidSignature):
        others.verify(vote)
    assert replace(members) == members, "what it has seen does not make a committee another"


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, looks: Counter[Vote]) -> None:
    monkeypatch.setattr(quorum, "MAX_KNOWN_VOTES", 3)
    members, keys = committee(4)
    votes = [cast(members.domain, keys[0], 0, VoteKind.PREPARE, 0, n, bytes(32)) for n in range(1, 6)]
    for vote in [*votes, votes[-1], votes[0]]:
        members.verify(vote)
    assert len(members._known) == 3
    assert (looks[votes[-1]], looks[votes[0]]) == (1, 2), "the earliest is forgotten first"
