"""What a replica remembers about each sequence number between the low and the high watermark."""

from __future__ import annotations

from dataclasses import dataclass, field

from aggregator.pbft.messages import Batch, Committed, Prepared, Vote, VoteKind


@dataclass(slots=True)
class Slot:
    """One sequence number. Votes are of the current view; proofs may be of earlier ones."""

    proposal: Vote | None = None
    """The primary's proposal in the current view."""
    batch: Batch | None = None
    """What it proposes; none until it is here and found valid."""
    carried: bool = False
    """Whether the view began with this proposal: a quorum found it valid before."""
    accepted_ms: int | None = None
    prepares: dict[int, Vote] = field(default_factory=dict)
    commits: dict[int, Vote] = field(default_factory=dict)
    prepared: Prepared | None = None
    """The proof from the highest view in which the batch was prepared here."""
    committed: Committed | None = None
    voted: Vote | None = None
    """The proposal that this member voted for, or made, in the highest view; a view change tells of it."""
    quorate_ms: int | None = None
    """Since when a quorum of prepares stands here, and those of all others are waited for."""
    own_prepare: Vote | None = None
    own_commit: Vote | None = None

    @property
    def accepted(self) -> bool:
        """Whether this replica voted for the proposal (or, as primary, made it)."""
        return self.batch is not None

    def votes(self, kind: VoteKind) -> dict[int, Vote]:
        """Received votes of one kind by signer."""
        return self.prepares if kind is VoteKind.PREPARE else self.commits

    def matching(self, kind: VoteKind, digest: bytes) -> tuple[Vote, ...]:
        """Votes of one kind for ``digest``, by ascending signer."""
        return tuple(vote for _, vote in sorted(self.votes(kind).items()) if vote.digest == digest)

    def leave_view(self) -> None:
        """Forget what counts only within a view; proofs, certificates and what was voted for stay."""
        self.proposal = None
        self.batch = None
        self.carried = False
        self.accepted_ms = None
        self.quorate_ms = None
        self.prepares.clear()
        self.commits.clear()
        self.own_prepare = None
        self.own_commit = None
