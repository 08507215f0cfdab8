"""Votes through the primary: fewer messages, the same promises, and no more trust in the primary."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from aggregator.pbft.messages import LinkMessage, RelayedVotes, Vote, VoteKind
from tests.pbft.network import LIMITS, Committee

RELAY = replace(LIMITS, relay_votes=True)


def counted(network: Committee) -> Counter[str]:
    """Count what is sent from here on, by kind of message."""
    seen: Counter[str] = Counter()

    def note(sender: int, to: int, message: LinkMessage) -> LinkMessage:
        seen[type(message).__name__] += 1
        return message

    network.filter = note
    return seen


@pytest.mark.parametrize("count", [4, 7, 10])
def test_a_batch_takes_messages_in_proportion_to_the_members(count: int) -> None:
    network = Committee(count, limits=replace(RELAY, retransmit_ms=2_000))
    seen = counted(network)
    network.submit(b"transaction")
    network.run(400)
    assert network.executed() == [1] * count
    others = count - 1
    assert seen["Vote"] == others, "each backup votes once, to one"
    assert seen["RelayedVotes"] == others and seen["PrePrepare"] == others
    network.check()


@pytest.mark.parametrize("count", [4, 7, 10])
def test_a_batch_that_one_member_does_not_vote_for_takes_twice_as_many(count: int) -> None:
    network = Committee(count, limits=replace(RELAY, retransmit_ms=2_000))
    network.crash(count - 1)
    seen = counted(network)
    network.submit(b"transaction")
    network.run(400)
    assert network.executed() == [1] * (count - 1) + [0]
    others = count - 1
    assert seen["Vote"] <= 2 * others, "each backup votes twice, to one"
    assert seen["RelayedVotes"] == 2 * others and seen["PrePrepare"] == others
    network.check()


def test_some_may_relay_and_others_not() -> None:
    network = Committee(7, limits=RELAY)
    for index in (0, 3, 5):
        network.machines[index].replica.limits = LIMITS
    for number in range(10):
        network.submit(b"transaction %d" % number)
        network.run(300)
    network.run(2_000)
    network.check()
    assert network.executed() == [10] * 7


def test_a_primary_that_keeps_votes_to_itself_delays_and_no_more() -> None:
    network = Committee(limits=RELAY)

    def keep(sender: int, to: int, message: LinkMessage) -> LinkMessage | None:
        return None if isinstance(message, RelayedVotes) else message

    network.filter = keep
    for number in range(5):
        network.submit(b"transaction %d" % number)
        network.run(1_500)
    network.check()
    assert network.executed()[1:] == [5] * 3


def test_the_loss_of_a_relaying_primary_is_survived() -> None:
    network = Committee(7, limits=RELAY)
    network.submit(b"before")
    network.run(500)
    network.crash(0)
    network.submit(b"after")
    network.run(6_000)
    network.check()
    assert network.executed()[1:] == [2] * 6


def test_a_forged_vote_among_relayed_ones_is_noticed_and_counts_for_nothing() -> None:
    network = Committee(limits=RELAY)
    forged: list[Vote] = []

    def forge(sender: int, to: int, message: LinkMessage) -> LinkMessage:
        if isinstance(message, RelayedVotes) and to == 1:
            first, *rest = message.votes
            forged.append(
                Vote(first.kind, first.view, first.sequence, bytes(32), first.signer, first.signature)
            )
            return RelayedVotes((forged[-1], *rest))
        return message

    network.filter = forge
    network.submit(b"transaction")
    network.run(4_000)
    network.check()
    assert forged and network.machines[1].misbehaved
    assert {vote.kind for vote in forged} <= {VoteKind.PREPARE, VoteKind.COMMIT}
    assert network.executed()[0] == network.executed()[2] == 1
