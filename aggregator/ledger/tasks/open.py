"""The ``open`` task protocol: Proof of Training (PoT sections 2.3, 2.4 and figure 2).

Anyone staked as provider may train; the best model by exact score wins. Phases, in order:

    training -> reveal -> validation -> validation_reveal -> challenge -> challenge_reveal
             -> [verdict -> verdict_reveal (once more, larger, if no quorum)]
             -> [appeal -> verdict -> verdict_reveal (larger still)] -> sealed

A verdict follows if scores are disputed or something was reported as irretrievable; the window for appeals
follows if a verdict stands, and another round only if somebody appeals. Nothing can be appealed twice.
A phase starts at the ledger time of the batch that ends the one before, so a committee that stalls never
eats a participant's window. Reveal phases end early once nothing more can be revealed. What each phase
accepts is the table `open_transactions.ACCEPTED`; when it ends is `deadline_ms`; what follows is
`_next_phase`.

Guarantees: a sealed order's receipts sum to ``reward + deposit``; every lock taken is given back or
slashed when the order is sealed; a slash follows only from a verdict by quorum or a missed reveal.
"""

from __future__ import annotations

import dataclasses

from immutables import Map

from aggregator.ledger.changed import changed
from aggregator.ledger.draft import Draft
from aggregator.ledger.events import OrderSealed, PhaseEntered
from aggregator.ledger.refusals import WrongPhase
from aggregator.ledger.state import Entry
from aggregator.ledger.tasks.disputes import Round, decide, open_dispute
from aggregator.ledger.tasks.open_outcome import outcome_of
from aggregator.ledger.tasks.open_records import OpenTask, Phase, parties_of, subjects_of
from aggregator.ledger.tasks.open_transactions import ACCEPTED, HANDLERS, MAX_APPEALS
from protocol.roles import Role
from protocol.transactions import OrderTransaction


class OpenProtocol:
    """`TaskProtocol` of kind ``open``."""

    kind = "open"
    transactions = frozenset(ACCEPTED)

    def open(self, entry: Entry) -> Entry:
        task = OpenTask(
            phase=Phase.TRAINING,
            phase_started_ms=entry.taken_ms,
            history=((Phase.TRAINING, entry.taken_ms),),
        )
        return dataclasses.replace(entry, task=task)

    def deadline_ms(self, entry: Entry) -> int | None:
        task: OpenTask = entry.task
        window_s = _window_s(entry, task.phase)
        return None if window_s is None else task.phase_started_ms + window_s * 1000

    def apply(self, draft: Draft, entry: Entry, transaction: OrderTransaction, tx_id: bytes) -> Entry:
        task: OpenTask = entry.task
        needed = ACCEPTED[type(transaction)]
        if task.phase not in needed:
            raise WrongPhase(task.phase, needed)
        handler = HANDLERS[type(transaction)]
        return changed(entry, task=handler(draft, entry, task, transaction))

    def advance(self, draft: Draft, entry: Entry) -> Entry:
        while (following := _next_phase(self, draft, entry)) is not None:
            entry = _enter(draft, entry, following)
        return entry

    def abandon(self, draft: Draft, entry: Entry) -> None:
        if entry.outcome is None:
            _release_locks(draft, entry)


OPEN = OpenProtocol()


# Phases ------------------------------------------------------------------------------------------------


def _window_s(entry: Entry, phase: Phase) -> int | None:
    order, parameters = entry.order, entry.parameters
    match phase:
        case Phase.TRAINING:
            return order.train_window
        case Phase.VALIDATION:
            return order.validate_window
        case Phase.CHALLENGE:
            return order.challenge_window
        case Phase.VERDICT:
            # A later round is larger in time as well as in people.
            return parameters["verdict_s"] * (1 + entry.task.verdict_round)
        case Phase.SEALED:
            return None
        case _:
            return parameters[f"{phase}_s"]


def _next_phase(protocol: OpenProtocol, draft: Draft, entry: Entry) -> Phase | None:
    """The phase to enter now, or none while the current one goes on."""
    task: OpenTask = entry.task
    deadline_ms = protocol.deadline_ms(entry)
    if deadline_ms is None:
        return None
    if task.cancelled:
        return Phase.SEALED
    over = draft.now_ms >= deadline_ms
    match task.phase:
        case Phase.TRAINING:
            return (Phase.REVEAL if task.claims else Phase.SEALED) if over else None
        case Phase.REVEAL:
            complete = task.test_links is not None and all(c.mid is not None for c in task.claims.values())
            if not (over or complete):
                return None
            return Phase.VALIDATION if task.test_links is not None and task.revealed_mids() else Phase.SEALED
        case Phase.VALIDATION:
            return (Phase.VALIDATION_REVEAL if task.validations else _judge_or_seal(task)) if over else None
        case Phase.VALIDATION_REVEAL:
            if not over and any(record.answer is None for record in task.validations.values()):
                return None
            revealed = any(record.answer is not None for record in task.validations.values())
            return Phase.CHALLENGE if revealed else _judge_or_seal(task)
        case Phase.CHALLENGE:
            return (Phase.CHALLENGE_REVEAL if task.challenges else _judge_or_seal(task)) if over else None
        case Phase.CHALLENGE_REVEAL:
            if not over and any(record.answer is None for record in task.challenges.values()):
                return None
            return _judge_or_seal(task)
        case Phase.VERDICT:
            waiting = any(len(d.ballots) < len(d.jurors) for d in task.disputes.values())
            return Phase.VERDICT_REVEAL if over or not waiting else None
        case Phase.VERDICT_REVEAL:
            if not over and any(
                ballot.answer is None for d in task.disputes.values() for _, ballot in d.ballots
            ):
                return None
            return _after_verdict(entry)
        case Phase.APPEAL:
            complete = len(task.appeals) >= min(len(task.decided), MAX_APPEALS)
            if not (over or complete):
                return None
            return Phase.VERDICT if task.appeals else Phase.SEALED
        case _:
            return None


def _judge_or_seal(task: OpenTask) -> Phase:
    return Phase.VERDICT if subjects_of(task) else Phase.SEALED


def _after_verdict(entry: Entry) -> Phase:
    task: OpenTask = entry.task
    if task.verdict_round is Round.APPEAL:
        return Phase.SEALED
    stands = [decide(dispute, entry.parameters) is not None for dispute in task.disputes.values()]
    if task.verdict_round is Round.FIRST and not all(stands):
        return Phase.VERDICT
    return Phase.APPEAL if task.decided or any(stands) else Phase.SEALED


def _enter(draft: Draft, entry: Entry, phase: Phase) -> Entry:
    task: OpenTask = entry.task
    now_ms = draft.now_ms
    if phase is Phase.VERDICT:
        task = _open_round(draft, entry)
    elif phase in (Phase.APPEAL, Phase.SEALED):
        task = _keep_verdicts(entry)
    history = (*task.history, (str(phase), now_ms))
    task = dataclasses.replace(task, phase=phase, phase_started_ms=now_ms, history=history)
    entry = dataclasses.replace(entry, task=task)
    draft.emit(PhaseEntered(oid=entry.oid, phase=phase, at_ms=now_ms))
    return _seal(draft, entry) if phase is Phase.SEALED else entry


def _keep_verdicts(entry: Entry) -> OpenTask:
    """Keep what stands; an appeal without a quorum leaves the verdict that it is against."""
    task: OpenTask = entry.task
    stood = {mid: d for mid, d in task.disputes.items() if decide(d, entry.parameters) is not None}
    return dataclasses.replace(task, decided=task.decided.update(stood))  # type: ignore[attr-defined]


def _open_round(draft: Draft, entry: Entry) -> OpenTask:
    """Open the first round for every dispute, the second for those still undecided, or that of appeals."""
    task: OpenTask = entry.task
    if task.phase is Phase.APPEAL:
        opened, subjects = Round.APPEAL, tuple(sorted(task.appeals))
    elif task.phase is Phase.VERDICT_REVEAL:
        task = _keep_verdicts(entry)
        opened, subjects = Round.SECOND, tuple(s for s in subjects_of(task) if s not in task.decided)
    else:
        opened, subjects = Round.FIRST, subjects_of(task)
    client = {entry.order.client}  # gains by every model that fails, loses by a test set that does
    disputes = {
        subject: open_dispute(
            subject, parties_of(task, subject) | client, draft.state.nodes, entry.parameters, opened
        )
        for subject in subjects
    }
    return dataclasses.replace(task, disputes=Map(disputes), verdict_round=opened)


def _seal(draft: Draft, entry: Entry) -> Entry:
    outcome = outcome_of(entry, draft.state.committee.members, draft.state.treasury)
    _release_locks(draft, entry)
    for slash in outcome.slashes:
        draft.slash(slash.account, slash.role, slash.amount_wei)
    draft.emit(OrderSealed(oid=entry.oid, at_ms=draft.now_ms))
    return dataclasses.replace(entry, outcome=outcome)


def _release_locks(draft: Draft, entry: Entry) -> None:
    task: OpenTask = entry.task
    for provider in sorted(task.claims):
        draft.unlock(provider, Role.PROVIDER, entry.parameters["claim_stake_wei"])
    for (_, validator), record in sorted(task.validations.items()):
        draft.unlock(validator, Role.VALIDATOR, record.v_stake_wei)
    for _, challenge in sorted(task.challenges.items()):
        draft.unlock(challenge.challenger, Role.VERIFIER, challenge.c_stake_wei)
    for _, report in sorted(task.reports.items()):
        draft.unlock(report.reporter, report.role, report.stake_wei)
    for _, appeal in sorted(task.appeals.items()):
        draft.unlock(appeal.appellant, appeal.role, appeal.bond_wei)
