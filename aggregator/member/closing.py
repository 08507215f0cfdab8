"""The last checkpoint of a committee, signed by those who leave, so that others can be sure of it.

A member hands over as soon as it has executed the last batch, without waiting for anybody; nobody else could
check a snapshot of that ledger by its word alone. So the members of the old committee sign the checkpoint
afterwards, and say so until a quorum has. With the proof the snapshot can be offered to whoever is behind.

Guarantee: what `proof` holds is a quorum of the committee that ordered up to the hand-over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aggregator.pbft.messages import StableCheckpoint, Vote, VoteKind, cast
from aggregator.pbft.quorum import Members
from protocol.crypto import Key

SAY_AGAIN_MS: Final = 1_000


@dataclass(slots=True)
class Closing:
    """Collects the signatures of ``members`` on their last checkpoint."""

    members: Members
    sequence: int
    root: bytes
    votes: dict[int, Vote] = field(default_factory=dict)
    said_ms: int = 0

    def sign(self, key: Key) -> None:
        """Add the own signature, if ``key`` was a member's."""
        if key.address in self.members.addresses:
            index = self.members.addresses.index(key.address)
            vote = cast(self.members.domain, key, index, VoteKind.CHECKPOINT, 0, self.sequence, self.root)
            self.votes[index] = vote

    def own(self, address: bytes) -> Vote | None:
        """The signature of the member with this address."""
        return next((v for i, v in self.votes.items() if self.members.addresses[i] == address), None)

    def about(self, vote: Vote) -> bool:
        """Whether a vote is about this checkpoint."""
        return vote.subject() == (VoteKind.CHECKPOINT, 0, self.sequence, self.root)

    def take(self, vote: Vote) -> None:
        """Add a member's signature; raises `InvalidSignature` if it is none."""
        if vote.signer not in self.votes:
            self.members.verify(vote)
            self.votes[vote.signer] = vote

    @property
    def proof(self) -> StableCheckpoint | None:
        """The checkpoint with its quorum, once there is one."""
        if len(self.votes) < self.members.quorum:
            return None
        return StableCheckpoint(self.sequence, self.root, tuple(v for _, v in sorted(self.votes.items())))
