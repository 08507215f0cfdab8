"""When enough members have said the same: quorums, certificates, and the checks of both.

With ``n`` members, ``f = (n - 1) // 3`` may lie. A quorum is ``ceil((n + f + 1) / 2)`` members: any two
quorums share an honest one, and the honest members alone make one.

Source: Castro and Liskov 1999, sections 3 and 4.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from aggregator.pbft.messages import Committed, Prepared, StableCheckpoint, Vote, VoteKind, verify_vote
from protocol.certificate import quorum
from protocol.errors import ProtocolError
from protocol.typed_data import Domain

MAX_KNOWN_VOTES: Final = 16_384
"""About 8 MiB. A view change of 30 members over 32 open batches shows 30 times the same 640 votes."""


class InvalidProof(ProtocolError):
    """A certificate that does not prove what it claims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """The committee as consensus sees it: an ordered list of addresses under one domain.

    ``base`` is the state root it took over with, at the sequence number of the hand-over: the committee
    before signed that checkpoint, and every member of this one has executed it.
    """

    domain: Domain
    addresses: tuple[bytes, ...]
    epoch: int = 1
    base: tuple[int, bytes] | None = None
    _known: dict[Vote, None] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Votes whose signatures were right, the earliest first: they come again in proofs, from everybody."""

    @property
    def count(self) -> int:
        """n."""
        return len(self.addresses)

    @property
    def faults(self) -> int:
        """f: how many members may lie."""
        return (self.count - 1) // 3

    @property
    def quorum(self) -> int:
        """``ceil((n + f + 1) / 2)``."""
        return quorum(self.count)

    def primary(self, view: int) -> int:
        """Index of the member that orders batches in ``view``."""
        return view % self.count

    def verify(self, vote: Vote) -> None:
        """Raise `InvalidSignature` unless the named member signed the vote; looks at each vote once."""
        if vote in self._known:
            return
        verify_vote(self.domain, self.addresses, vote)
        if len(self._known) >= MAX_KNOWN_VOTES:
            del self._known[next(iter(self._known))]
        self._known[vote] = None

    def verify_certificate(
        self, votes: Iterable[Vote], kind: VoteKind, view: int | None, sequence: int, digest: bytes, need: int
    ) -> None:
        """Raise unless ``need`` distinct members cast exactly this vote, all in one view.

        Raises:
            InvalidProof: too few, repeated, or other votes.
            InvalidSignature: a vote not signed by its member.
        """
        signers = set()
        for vote in votes:
            view = vote.view if view is None else view
            if vote.subject() != (kind, view, sequence, digest):
                raise InvalidProof("a vote in the certificate is about something else")
            if vote.signer in signers:
                raise InvalidProof(f"member {vote.signer} votes twice in one certificate")
            self.verify(vote)
            signers.add(vote.signer)
        if len(signers) < need:
            raise InvalidProof(f"{len(signers)} votes where {need} are needed")

    def verify_committed(self, committed: Committed) -> None:
        """Raise unless a quorum committed, or all prepared, this batch at this sequence number."""
        votes, place = committed.certificate, (committed.sequence, committed.batch.digest())
        if committed.unanimous:
            if (votes[0].sequence, votes[0].digest) != place:
                raise InvalidProof("the proposal in the certificate is about something else")
            self._verify_accepted(votes[0], votes[1:], self.count - 1)
        else:
            self.verify_certificate(votes, VoteKind.COMMIT, None, *place, self.quorum)

    def verify_stable(self, checkpoint: StableCheckpoint) -> None:
        """Raise unless a quorum vouches for this state root, or the committee began with it."""
        if (checkpoint.sequence, checkpoint.root) == self.base:
            return
        self.verify_certificate(
            checkpoint.proof, VoteKind.CHECKPOINT, 0, checkpoint.sequence, checkpoint.root, self.quorum
        )

    def verify_prepared(self, prepared: Prepared) -> None:
        """Raise unless the primary of the view and a quorum with it prepared this."""
        self._verify_accepted(prepared.pre_prepare, prepared.prepares, self.quorum - 1)

    def _verify_accepted(self, proposal: Vote, prepares: Iterable[Vote], need: int) -> None:
        if proposal.kind is not VoteKind.PRE_PREPARE or proposal.signer != self.primary(proposal.view):
            raise InvalidProof("the proposal is not by the primary of its view")
        prepares = tuple(prepares)
        if any(vote.signer == proposal.signer for vote in prepares):
            raise InvalidProof("the primary's proposal is its only vote")
        self.verify(proposal)
        self.verify_certificate(
            prepares, VoteKind.PREPARE, proposal.view, proposal.sequence, proposal.digest, need
        )
