"""Disputed scores: who may judge, and what a quorum of stake decided. Shared by all task protocols.

A model is disputed when its revealed validations disagree or one of them is challenged. Jurors are staked
nodes that are not party to it; their stake is taken when the round opens, so that nobody can buy votes
during it. A verdict stands when jurors with at least the quorum of all eligible stake gave the same score
and digest. Otherwise one larger round follows, which also admits staked providers that claim nothing in
the order; if that fails too, the model stays unscored and stakes return.

Source: PoT 2.4 "Verifying the Validations", 2.5 "Concurrent Roles"; design section 4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aggregator.ledger.state import Node
from protocol.parameters import BPS, Parameters
from protocol.roles import Role

Answer = tuple[int, bytes]
"""A score in millionths and the digest of the per-sample outputs."""

JURY_ROLES: tuple[tuple[Role, ...], tuple[Role, ...]] = (
    (Role.VALIDATOR, Role.VERIFIER),
    (Role.VALIDATOR, Role.VERIFIER, Role.PROVIDER),
)
"""Roles that may judge in the first and in the second, larger round."""

MAX_JURORS = 512
"""The heaviest stakes judge: the jurors' credits must fit one settlement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """One juror's committed, later revealed, verdict on one model."""

    commitment: bytes
    answer: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """One model's dispute in the current round."""

    mid: bytes
    jurors: tuple[tuple[bytes, int], ...]
    """Eligible jurors with their stake in wei when the round opened, sorted by address."""
    ballots: tuple[tuple[bytes, Ballot], ...] = ()

    def weight(self, juror: bytes) -> int:
        """Stake of an eligible juror; zero for everybody else."""
        return dict(self.jurors).get(juror, 0)

    def ballot(self, juror: bytes) -> Ballot | None:
        """The juror's ballot, if it cast one."""
        return dict(self.ballots).get(juror)

    def with_ballot(self, juror: bytes, ballot: Ballot) -> Dispute:
        """A copy with one ballot set."""
        ballots = {**dict(self.ballots), juror: ballot}
        return Dispute(mid=self.mid, jurors=self.jurors, ballots=tuple(sorted(ballots.items())))


def open_dispute(
    mid: bytes,
    parties: Collection[bytes],
    nodes: Mapping[bytes, Node],
    parameters: Parameters,
    round_index: int,
) -> Dispute:
    """The dispute of one model with its jury: every staked node of the round's roles that is no party."""
    roles = JURY_ROLES[round_index]
    jurors = []
    for account in sorted(nodes):
        if account in parties:
            continue
        stakes = [(role, nodes[account].stake(role).standing) for role in roles]
        weight = sum(standing for role, standing in stakes if standing >= max(1, parameters[role.parameter]))
        if weight:
            jurors.append((account, weight))
    heaviest = sorted(jurors, key=lambda juror: (-juror[1], juror[0]))[:MAX_JURORS]
    return Dispute(mid=mid, jurors=tuple(sorted(heaviest)))


def decide(dispute: Dispute, parameters: Parameters) -> Answer | None:
    """The answer that a quorum of eligible stake revealed, if there is one."""
    eligible = sum(weight for _, weight in dispute.jurors)
    support: dict[Answer, int] = {}
    for juror, ballot in dispute.ballots:
        if ballot.answer is not None:
            support[ballot.answer] = support.get(ballot.answer, 0) + dispute.weight(juror)
    for answer in sorted(support):
        if support[answer] * BPS >= eligible * parameters["verdict_quorum_bps"]:
            return answer
    return None


def agreeing_jurors(dispute: Dispute, answer: Answer) -> tuple[tuple[bytes, int], ...]:
    """Jurors whose revealed ballot is ``answer``, with their stake."""
    return tuple(
        (juror, dispute.weight(juror)) for juror, ballot in dispute.ballots if ballot.answer == answer
    )
