"""The ``open`` task protocol: Proof of Training (PoT sections 2.3, 2.4 and figure 2).

Anyone staked as provider may train; the best model by exact score wins. Phases, in order:

    training -> reveal -> validation -> validation_reveal -> challenge -> challenge_reveal
             -> [verdict -> verdict_reveal (once more, larger, if no quorum)] -> sealed

A phase starts at the ledger time of the batch that ends the one before, so a committee that stalls never
eats a participant's window. Reveal phases end early once nothing more can be revealed. What each phase
accepts is the table `ACCEPTED`; when it ends is `deadline_ms`; what follows is `_next_phase`.

Guarantees: a sealed order's receipts sum to ``reward + deposit``; every lock taken is given back or
slashed when the order is sealed; a slash follows only from a verdict by quorum or a missed reveal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from immutables import Map

from aggregator.ledger.draft import Draft
from aggregator.ledger.events import OrderSealed, PhaseEntered
from aggregator.ledger.refusals import (
    AlreadyDone,
    Mismatch,
    NotAllowed,
    NotStaked,
    UnknownThing,
    WrongPhase,
)
from aggregator.ledger.state import Entry
from aggregator.ledger.tasks.disputes import Ballot, Dispute, decide, open_dispute
from aggregator.ledger.tasks.open_outcome import outcome_of
from aggregator.ledger.tasks.open_records import (
    ChallengeRecord,
    ClaimRecord,
    OpenTask,
    Phase,
    ValidationRecord,
    disputed_mids,
    mid_of,
    parties_of,
)
from protocol.crypto import commitment
from protocol.roles import Role
from protocol.transactions import (
    Cancel,
    Challenge,
    ChallengeReveal,
    Claim,
    ClaimReveal,
    TestRelease,
    Transaction,
    Validation,
    ValidationReveal,
    Verdict,
    VerdictReveal,
    claim_body,
    data_root,
    score_body,
    validation_id,
)
from protocol.typed_data import Domain

ACCEPTED: Mapping[type[Transaction], Phase] = {
    Cancel: Phase.TRAINING,
    Claim: Phase.TRAINING,
    ClaimReveal: Phase.REVEAL,
    TestRelease: Phase.REVEAL,
    Validation: Phase.VALIDATION,
    ValidationReveal: Phase.VALIDATION_REVEAL,
    Challenge: Phase.CHALLENGE,
    ChallengeReveal: Phase.CHALLENGE_REVEAL,
    Verdict: Phase.VERDICT,
    VerdictReveal: Phase.VERDICT_REVEAL,
}
"""The one phase in which each transaction is accepted."""


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

    def apply(self, draft: Draft, entry: Entry, transaction: Transaction, tx_id: bytes) -> Entry:
        task: OpenTask = entry.task
        needed = ACCEPTED[type(transaction)]
        if task.phase is not needed:
            raise WrongPhase(task.phase, needed)
        handler = _HANDLERS[type(transaction)]
        return dataclasses.replace(entry, task=handler(draft, entry, task, transaction))

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
            # The second round is larger in time as well as in people.
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
            return (Phase.VALIDATION_REVEAL if task.validations else Phase.SEALED) if over else None
        case Phase.VALIDATION_REVEAL:
            if not over and any(record.answer is None for record in task.validations.values()):
                return None
            revealed = any(record.answer is not None for record in task.validations.values())
            return Phase.CHALLENGE if revealed else Phase.SEALED
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
            undecided = [d for d in task.disputes.values() if decide(d, entry.parameters) is None]
            return Phase.VERDICT if undecided and task.verdict_round == 0 else Phase.SEALED
        case _:
            return None


def _judge_or_seal(task: OpenTask) -> Phase:
    return Phase.VERDICT if disputed_mids(task) else Phase.SEALED


def _enter(draft: Draft, entry: Entry, phase: Phase) -> Entry:
    task: OpenTask = entry.task
    now_ms = draft.now_ms
    if phase is Phase.VERDICT:
        task = _open_round(draft, entry)
    elif phase is Phase.SEALED:
        task = _keep_verdicts(entry)
    history = (*task.history, (str(phase), now_ms))
    task = dataclasses.replace(task, phase=phase, phase_started_ms=now_ms, history=history)
    entry = dataclasses.replace(entry, task=task)
    draft.emit(PhaseEntered(oid=entry.oid, phase=phase, at_ms=now_ms))
    return _seal(draft, entry) if phase is Phase.SEALED else entry


def _keep_verdicts(entry: Entry) -> OpenTask:
    task: OpenTask = entry.task
    stood = {mid: d for mid, d in task.disputes.items() if decide(d, entry.parameters) is not None}
    return dataclasses.replace(task, decided=task.decided.update(stood))  # type: ignore[attr-defined]


def _open_round(draft: Draft, entry: Entry) -> OpenTask:
    """Open the first verdict round for every dispute, or the second for those still undecided."""
    second = entry.task.phase is Phase.VERDICT_REVEAL
    task = _keep_verdicts(entry) if second else entry.task
    mids = [mid for mid in disputed_mids(task) if mid not in task.decided]
    claimants = set(task.claims) if second else set()
    disputes = {
        mid: open_dispute(
            mid, parties_of(task, mid) | claimants, draft.state.nodes, entry.parameters, int(second)
        )
        for mid in mids
    }
    return dataclasses.replace(task, disputes=Map(disputes), verdict_round=int(second))


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


# Transactions ------------------------------------------------------------------------------------------


def _cancel(draft: Draft, entry: Entry, task: OpenTask, tx: Cancel) -> OpenTask:
    if tx.sender != entry.order.client:
        raise NotAllowed("only the client who placed an order may cancel it")
    if task.claims:
        raise NotAllowed("an order cannot be cancelled once somebody has claimed it")
    return dataclasses.replace(task, cancelled=True)


def _claim(draft: Draft, entry: Entry, task: OpenTask, tx: Claim) -> OpenTask:
    draft.require_stake(tx.sender, Role.PROVIDER, entry.parameters[Role.PROVIDER.parameter])
    if tx.sender not in task.claims:
        draft.lock(tx.sender, Role.PROVIDER, entry.parameters["claim_stake_wei"])
    record = ClaimRecord(commitment=tx.commitment, claimed_ms=draft.now_ms)
    return dataclasses.replace(task, claims=task.claims.set(tx.sender, record))  # type: ignore[attr-defined]


def _claim_reveal(draft: Draft, entry: Entry, task: OpenTask, tx: ClaimReveal) -> OpenTask:
    claim = task.claims.get(tx.sender)
    if claim is None:
        raise UnknownThing("you have no claim on this order")
    if claim.mid is not None:
        raise AlreadyDone("your model is revealed already")
    _require_opening(claim.commitment, tx, claim_body(tx.mid, tx.size_bytes))
    record = dataclasses.replace(claim, mid=tx.mid, size_bytes=tx.size_bytes, links=tx.links)
    return dataclasses.replace(task, claims=task.claims.set(tx.sender, record))  # type: ignore[attr-defined]


def _test_release(draft: Draft, entry: Entry, task: OpenTask, tx: TestRelease) -> OpenTask:
    if tx.sender != entry.order.client:
        raise NotAllowed("only the client who placed an order releases its test set")
    if task.test_links is not None:
        raise AlreadyDone("the test set is released already")
    if data_root(tx.fragments) != entry.order.data_root:
        raise Mismatch("these fragments are not the ones the order committed to")
    return dataclasses.replace(task, test_links=tx.links)


def _validation(draft: Draft, entry: Entry, task: OpenTask, tx: Validation) -> OpenTask:
    draft.require_stake(tx.sender, Role.VALIDATOR, entry.parameters[Role.VALIDATOR.parameter])
    if tx.mid not in task.revealed_mids():
        raise UnknownThing(f"no revealed model 0x{tx.mid.hex()} in this order")
    if (tx.mid, tx.sender) in task.validations:
        raise AlreadyDone("you have validated this model already")
    if task.claims.get(tx.sender) is not None:
        raise NotAllowed("who claims on an order does not validate in it")
    _require_at_least("validator", tx.v_stake, entry.parameters["min_validation_stake_wei"])
    draft.lock(tx.sender, Role.VALIDATOR, tx.v_stake)
    record = ValidationRecord(
        vid=validation_id(_domain(draft), entry.oid, tx.mid, tx.sender),
        commitment=tx.commitment,
        v_stake_wei=tx.v_stake,
    )
    validations = task.validations.set((tx.mid, tx.sender), record)  # type: ignore[attr-defined]
    return dataclasses.replace(task, validations=validations)


def _validation_reveal(draft: Draft, entry: Entry, task: OpenTask, tx: ValidationReveal) -> OpenTask:
    record = task.validations.get((tx.mid, tx.sender))
    if record is None:
        raise UnknownThing(f"you have no validation of model 0x{tx.mid.hex()}")
    if record.answer is not None:
        raise AlreadyDone("this validation is revealed already")
    _require_opening(record.commitment, tx, score_body(tx.mid, tx.score, tx.digest))
    record = dataclasses.replace(record, answer=(tx.score, tx.digest))
    validations = task.validations.set((tx.mid, tx.sender), record)  # type: ignore[attr-defined]
    return dataclasses.replace(task, validations=validations)


def _challenge(draft: Draft, entry: Entry, task: OpenTask, tx: Challenge) -> OpenTask:
    draft.require_stake(tx.sender, Role.VERIFIER, entry.parameters[Role.VERIFIER.parameter])
    mid = mid_of(task, tx.vid)
    if mid is None or not any(r.vid == tx.vid and r.answer for r in task.validations.values()):
        raise UnknownThing(f"no revealed validation 0x{tx.vid.hex()} in this order")
    if tx.vid in task.challenges:
        # One accuser per validation leaves the other verifiers free to judge.
        raise AlreadyDone("this validation is challenged already; you may serve as a juror")
    if task.claims.get(tx.sender) is not None:
        raise NotAllowed("who claims on an order does not challenge in it")
    _require_at_least("verifier", tx.c_stake, entry.parameters["min_challenge_stake_wei"])
    draft.lock(tx.sender, Role.VERIFIER, tx.c_stake)
    record = ChallengeRecord(challenger=tx.sender, commitment=tx.commitment, c_stake_wei=tx.c_stake)
    return dataclasses.replace(task, challenges=task.challenges.set(tx.vid, record))  # type: ignore[attr-defined]


def _challenge_reveal(draft: Draft, entry: Entry, task: OpenTask, tx: ChallengeReveal) -> OpenTask:
    record = task.challenges.get(tx.vid)
    if record is None or record.challenger != tx.sender:
        raise UnknownThing(f"you have no challenge against validation 0x{tx.vid.hex()}")
    if record.answer is not None:
        raise AlreadyDone("this challenge is revealed already")
    mid = mid_of(task, tx.vid)
    assert mid is not None, "a challenge names an existing validation"
    _require_opening(record.commitment, tx, score_body(mid, tx.score, tx.digest))
    record = dataclasses.replace(record, answer=(tx.score, tx.digest))
    return dataclasses.replace(task, challenges=task.challenges.set(tx.vid, record))  # type: ignore[attr-defined]


def _verdict(draft: Draft, entry: Entry, task: OpenTask, tx: Verdict) -> OpenTask:
    dispute = _dispute_for(task, tx.mid, tx.sender)
    if dispute.ballot(tx.sender) is not None:
        raise AlreadyDone("you have given your verdict on this model already")
    dispute = dispute.with_ballot(tx.sender, Ballot(commitment=tx.commitment))
    return dataclasses.replace(task, disputes=task.disputes.set(tx.mid, dispute))  # type: ignore[attr-defined]


def _verdict_reveal(draft: Draft, entry: Entry, task: OpenTask, tx: VerdictReveal) -> OpenTask:
    dispute = _dispute_for(task, tx.mid, tx.sender)
    ballot = dispute.ballot(tx.sender)
    if ballot is None:
        raise UnknownThing("you have given no verdict on this model")
    if ballot.answer is not None:
        raise AlreadyDone("your verdict is revealed already")
    _require_opening(ballot.commitment, tx, score_body(tx.mid, tx.score, tx.digest))
    dispute = dispute.with_ballot(tx.sender, dataclasses.replace(ballot, answer=(tx.score, tx.digest)))
    return dataclasses.replace(task, disputes=task.disputes.set(tx.mid, dispute))  # type: ignore[attr-defined]


def _dispute_for(task: OpenTask, mid: bytes, juror: bytes) -> Dispute:
    dispute = task.disputes.get(mid)
    if dispute is None:
        raise UnknownThing(f"model 0x{mid.hex()} is not disputed")
    if not dispute.weight(juror):
        raise NotAllowed("jurors are staked and not party to the dispute; you were not when it opened")
    return dispute


Revealing = ClaimReveal | ValidationReveal | ChallengeReveal | VerdictReveal


def _require_opening(committed: bytes, tx: Revealing, body: bytes) -> None:
    if commitment(tx.oid, tx.sender, body, tx.salt) != committed:
        raise Mismatch("what is revealed does not open the commitment")


def _require_at_least(role: str, have: int, need: int) -> None:
    if have < need:
        raise NotStaked(role, have, need)


def _domain(draft: Draft) -> Domain:
    return draft.state.domain


_Handler = Callable[..., OpenTask]
_HANDLERS: Mapping[type[Transaction], _Handler] = {
    Cancel: _cancel,
    Claim: _claim,
    ClaimReveal: _claim_reveal,
    TestRelease: _test_release,
    Validation: _validation,
    ValidationReveal: _validation_reveal,
    Challenge: _challenge,
    ChallengeReveal: _challenge_reveal,
    Verdict: _verdict,
    VerdictReveal: _verdict_reveal,
}
