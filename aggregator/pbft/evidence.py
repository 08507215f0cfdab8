"""Votes that prove a lie: two of one member about the same thing with different digests.

Nothing is kept for it: a new vote is compared with what the slot of its sequence number holds anyway, so
evidence costs no memory. A lying primary tells each member one story; members that notice that others prepare
another batch show them the proposal that they have (a lone PRE_PREPARE vote), so that both stories meet.

Guarantee: both votes of a pair are signed by the member that they name, and so `protocol.evidence` takes it.

Source: design section 6 ("kept as evidence where they prove misbehaviour").
"""

from __future__ import annotations

from collections.abc import Iterable

from aggregator.pbft.messages import Vote, VoteKind
from aggregator.pbft.quorum import InvalidProof
from aggregator.pbft.slots import Slot
from protocol.evidence import PUNISHABLE

Contradiction = tuple[Vote, Vote]
"""Two votes of one member that no honest member casts both."""


class Equivocation(InvalidProof):
    """A member contradicted itself; ``votes`` prove it to anyone."""

    def __init__(self, known: Vote, other: Vote) -> None:
        assert contradict(known, other), "only what contradicts is evidence"
        super().__init__(
            f"member {known.signer} signed two {known.kind.name} votes for sequence {known.sequence} "
            f"in view {known.view}"
        )
        self.votes: Contradiction = (known, other)


def contradict(known: Vote, other: Vote) -> bool:
    """Whether an honest member cannot have cast both votes."""
    return (
        known.kind in PUNISHABLE
        and (known.kind, known.view, known.sequence, known.signer)
        == (other.kind, other.view, other.sequence, other.signer)
        and known.digest != other.digest
    )


def contradictions(slot: Slot | None, votes: Iterable[Vote]) -> list[Contradiction]:
    """What verified votes about one sequence number, out of a certificate, contradict in its slot."""
    if slot is None:
        return []
    found = []
    for vote in votes:
        if vote.kind is VoteKind.PRE_PREPARE:
            known = slot.proposal if slot.proposal is not None else None
        else:
            known = slot.votes(vote.kind).get(vote.signer)
        if known is not None and contradict(known, vote):
            found.append((known, vote))
    return found
