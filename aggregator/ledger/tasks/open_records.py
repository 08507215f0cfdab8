"""What the ledger keeps of an ``open`` order while it runs: claims, validations, challenges, disputes.

Frozen records and the few questions that several files ask of them. Phases and transactions are in
`open`, rewards in `open_outcome`.

Source: PoT table 1, "order's cycle data".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from immutables import Map

from aggregator.ledger.tasks.disputes import Answer, Dispute, Round
from protocol.roles import Role


class Phase(StrEnum):
    """Phases of an ``open`` order."""

    TRAINING = "training"
    REVEAL = "reveal"
    VALIDATION = "validation"
    VALIDATION_REVEAL = "validation_reveal"
    CHALLENGE = "challenge"
    CHALLENGE_REVEAL = "challenge_reveal"
    VERDICT = "verdict"
    VERDICT_REVEAL = "verdict_reveal"
    APPEAL = "appeal"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRecord:
    """A provider's claim: the latest commitment, and the model once revealed."""

    commitment: bytes
    claimed_ms: int
    mid: bytes | None = None
    size_bytes: int = 0
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRecord:
    """A validator's commitment on one model, its stake, and the answer once revealed."""

    vid: bytes
    commitment: bytes
    v_stake_wei: int
    answer: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeRecord:
    """The one challenge against a validation, its stake, and the answer once revealed."""

    challenger: bytes
    commitment: bytes
    c_stake_wei: int
    answer: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRecord:
    """The one report that a model or the test set cannot be fetched, and the stake on it."""

    id: bytes
    """Id of the transaction that reported it."""
    reporter: bytes
    role: Role
    stake_wei: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealRecord:
    """The one appeal against a verdict, its bond, and the answer that it is against."""

    id: bytes
    """Id of the transaction that appealed."""
    appellant: bytes
    role: Role
    bond_wei: int
    against: Answer


@dataclass(frozen=True, kw_only=True)
class OpenTask:
    """State of an ``open`` order (PoT table 1, "order's cycle data")."""

    phase: Phase
    phase_started_ms: int
    history: tuple[tuple[str, int], ...]
    """Every phase entered so far with its ledger time, for people."""
    claims: Mapping[bytes, ClaimRecord] = field(default_factory=Map)
    test_links: tuple[str, ...] | None = None
    validations: Mapping[tuple[bytes, bytes], ValidationRecord] = field(default_factory=Map)
    """By (MID, validator)."""
    challenges: Mapping[bytes, ChallengeRecord] = field(default_factory=Map)
    """By VID."""
    reports: Mapping[bytes, ReportRecord] = field(default_factory=Map)
    """By subject: a MID, or the order's data root, which stands for its test set."""
    disputes: Mapping[bytes, Dispute] = field(default_factory=Map)
    """By subject: the disputes of the current verdict round."""
    decided: Mapping[bytes, Dispute] = field(default_factory=Map)
    """By subject: disputes in which a verdict stood; the latest, if there was an appeal."""
    appeals: Mapping[bytes, AppealRecord] = field(default_factory=Map)
    """By subject."""
    verdict_round: Round = Round.FIRST
    cancelled: bool = False

    def revealed_mids(self) -> tuple[bytes, ...]:
        """Distinct MIDs of revealed claims, sorted."""
        return tuple(sorted({claim.mid for claim in self.claims.values() if claim.mid is not None}))

    def answers(self, mid: bytes) -> dict[bytes, Answer]:
        """Revealed answers on one model by validator."""
        return {
            validator: record.answer
            for (of, validator), record in sorted(self.validations.items())
            if of == mid and record.answer is not None
        }


def disputed_mids(task: OpenTask) -> tuple[bytes, ...]:
    """Models whose score needs a verdict: their validations disagree, or one is challenged.

    A challenge counts even if it was never opened. There is one per validation, so the accomplice of a wrong
    validator could otherwise take that place, fall silent and keep every honest verifier out.
    """
    challenged = {mid_of(task, vid) for vid in task.challenges}
    return tuple(
        mid for mid in task.revealed_mids() if mid in challenged or len(set(task.answers(mid).values())) > 1
    )


def subjects_of(task: OpenTask) -> tuple[bytes, ...]:
    """What goes before a jury, sorted: disputed models, and whatever was reported as irretrievable."""
    return tuple(sorted({*disputed_mids(task), *task.reports}))


def parties_of(task: OpenTask, subject: bytes) -> set[bytes]:
    """Who has a part in a dispute: everyone who claims in the order, as rivals gain by a low score; the
    model's validators and their challengers; whoever reported it; and whoever appealed."""
    validators = {validator for (of, validator) in task.validations if of == subject}
    challengers = {c.challenger for vid, c in task.challenges.items() if mid_of(task, vid) == subject}
    reporters = {report.reporter for of, report in task.reports.items() if of == subject}
    appellants = {appeal.appellant for of, appeal in task.appeals.items() if of == subject}
    return set(task.claims) | validators | challengers | reporters | appellants


def mid_of(task: OpenTask, vid: bytes) -> bytes | None:
    """The model that validation ``vid`` is about."""
    return next((mid for (mid, _), record in task.validations.items() if record.vid == vid), None)
