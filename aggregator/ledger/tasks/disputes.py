"""Disputes: who may judge, and what a quorum of stake decided. Shared by all task protocols.

A dispute has a subject: a model, whose revealed validations disagree, or one of which is challenged, or which
was reported as irretrievable; or an order's test set, reported likewise. Jurors are staked nodes that are not
party to it; their stake is taken when the round opens, so that nobody can buy votes during it. A verdict
stands when jurors with at least the quorum of all eligible stake gave the same answer: a score and digest, or
`IRRETRIEVABLE`. So one verdict says whether a model could be fetched and what it is worth, and only who has
fetched it can say the latter.

There are at most three rounds (`Round`). If the first finds no quorum, a larger one follows, which also
admits staked providers that claim nothing in the order; if that fails too, nothing is decided and stakes
return. A verdict that stands may be appealed against once: the appeal round, larger and longer still, has
the final say.

Source: PoT 2.4 "Verifying the Validations", 2.5 "Concurrent Roles", 3.4 "Achieving Retrievability"; design
section 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from aggregator.ledger.state import Node
from protocol.parameters import BPS, Parameters
from protocol.roles import Role
from protocol.transactions import IRRETRIEVABLE_SCORE

Answer = tuple[int, bytes]
"""A score in millionths and the digest of the per-sample outputs."""


class Round(IntEnum):
    """Rounds of a dispute, each larger than the one before."""

    FIRST = 0
    SECOND = 1
    """Where the first found no quorum."""
    APPEAL = 2
    """Against a verdict, for a bond."""


JURY_ROLES: Final[Mapping[Round, tuple[Role, ...]]] = {
    Round.FIRST: (Role.VALIDATOR, Role.VERIFIER),
    Round.SECOND: (Role.VALIDATOR, Role.VERIFIER, Role.PROVIDER),
    Round.APPEAL: (Role.VALIDATOR, Role.VERIFIER, Role.PROVIDER),
}
"""Roles that may judge in each round."""

MAX_JURORS: Final = {Round.FIRST: 512, Round.SECOND: 512, Round.APPEAL: 1024}
"""The heaviest stakes judge: the jurors' credits must fit one settlement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """One juror's committed, later revealed, verdict on one subject."""

    commitment: bytes
    answer: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """One subject's dispute in one round."""

    mid: bytes
    """The subject: a model's MID, or the order's data root for its test set."""
    jurors: tuple[tuple[bytes, int], ...]
    """Eligible jurors with their stake in wei when the round opened, sorted by address."""
    ballots: tuple[tuple[bytes, Ballot], ...] = ()
    round: Round = Round.FIRST

    def weight(self, juror: bytes) -> int:
        """Stake of an eligible juror; zero for everybody else."""
        return dict(self.jurors).get(juror, 0)

    def ballot(self, juror: bytes) -> Ballot | None:
        """The juror's ballot, if it cast one."""
        return dict(self.ballots).get(juror)

    def with_ballot(self, juror: bytes, ballot: Ballot) -> Dispute:
        """A copy with one ballot set."""
        ballots = {**dict(self.ballots), juror: ballot}
        return dataclasses.replace(self, ballots=tuple(sorted(ballots.items())))


def open_dispute(
    mid: bytes,
    parties: Collection[bytes],
    nodes: Mapping[bytes, Node],
    parameters: Parameters,
    in_round: Round,
) -> Dispute:
    """The dispute of one subject with its jury: every staked node of the round's roles that is no party."""
    jurors = []
    for account in sorted(nodes):
        if account in parties:
            continue
        stakes = [(role, nodes[account].stake(role).standing) for role in JURY_ROLES[in_round]]
        weight = sum(standing for role, standing in stakes if standing >= max(1, parameters[role.parameter]))
        if weight:
            jurors.append((account, weight))
    heaviest = sorted(jurors, key=lambda juror: (-juror[1], juror[0]))[: MAX_JURORS[in_round]]
    return Dispute(mid=mid, jurors=tuple(sorted(heaviest)), round=in_round)


def decide(dispute: Dispute, parameters: Parameters) -> Answer | None:
    """The answer that a quorum of eligible stake revealed, if there is one."""
    weights = dict(dispute.jurors)
    eligible = sum(weights.values())
    support: dict[Answer, int] = {}
    for juror, ballot in dispute.ballots:
        if ballot.answer is not None:
            support[ballot.answer] = support.get(ballot.answer, 0) + weights[juror]
    for answer in sorted(support):
        if support[answer] * BPS >= eligible * parameters["verdict_quorum_bps"]:
            return answer
    return None


def is_irretrievable(answer: Answer | None) -> bool:
    """Whether a verdict says that its subject cannot be fetched."""
    return answer is not None and answer[0] == IRRETRIEVABLE_SCORE


def agreeing_jurors(dispute: Dispute, answer: Answer) -> tuple[tuple[bytes, int], ...]:
    """Jurors whose revealed ballot is ``answer``, with their stake."""
    weights = dict(dispute.jurors)
    return tuple((juror, weights[juror]) for juror, ballot in dispute.ballots if ballot.answer == answer)
