"""What each transaction does to an ``open`` order, and who may send it (PoT 2.4, equations 1 to 3).

One handler per transaction: it checks the sender, the commitment and the stake, and returns the order's new
state or raises a `Refused`. In which phase each is accepted is the table `ACCEPTED`.

Source: PoT 2.4, 2.5 "Commitment Scheme"; design section 4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from aggregator.ledger.changed import changed
from aggregator.ledger.draft import Draft
from aggregator.ledger.refusals import (
    AlreadyDone,
    Mismatch,
    NotAllowed,
    NotStaked,
    OrderFull,
    UnknownThing,
)
from aggregator.ledger.state import Entry
from aggregator.ledger.tasks.disputes import Answer, Ballot, Dispute, decide, is_irretrievable
from aggregator.ledger.tasks.open_records import (
    AppealRecord,
    ChallengeRecord,
    ClaimRecord,
    OpenTask,
    Phase,
    ReportRecord,
    ValidationRecord,
    mid_of,
)
from protocol.crypto import commitment
from protocol.roles import Role
from protocol.transactions import (
    Appeal,
    Cancel,
    Challenge,
    ChallengeReveal,
    Claim,
    ClaimReveal,
    IrretrievableReport,
    OrderTransaction,
    TestRelease,
    Validation,
    ValidationReveal,
    Verdict,
    VerdictReveal,
    claim_body,
    data_root,
    score_body,
    validation_id,
)
from protocol.typed_data import Domain, digest_of

ACCEPTED: Mapping[type[OrderTransaction], tuple[Phase, ...]] = {
    Cancel: (Phase.TRAINING,),
    Claim: (Phase.TRAINING,),
    ClaimReveal: (Phase.REVEAL,),
    TestRelease: (Phase.REVEAL,),
    Validation: (Phase.VALIDATION,),
    ValidationReveal: (Phase.VALIDATION_REVEAL,),
    Challenge: (Phase.CHALLENGE,),
    ChallengeReveal: (Phase.CHALLENGE_REVEAL,),
    Verdict: (Phase.VERDICT,),
    VerdictReveal: (Phase.VERDICT_REVEAL,),
    IrretrievableReport: (Phase.VALIDATION, Phase.CHALLENGE),
    Appeal: (Phase.APPEAL,),
}
"""The phases in which each transaction is accepted."""

ACTING_ROLES = (Role.PROVIDER, Role.VALIDATOR, Role.VERIFIER)
"""In which one may report and appeal."""

MAX_CLAIMS = 256
MAX_VALIDATIONS = 256
MAX_IRRETRIEVABLE_REPORTS = 64
MAX_APPEALS = 64
"""Bounds of one order: its slashes and credits must fit one settlement, because an order is paid whole."""


def _cancel(draft: Draft, entry: Entry, task: OpenTask, tx: Cancel) -> OpenTask:
    if tx.sender != entry.order.client:
        raise NotAllowed("only the client who placed an order may cancel it")
    if task.claims:
        raise NotAllowed("an order cannot be cancelled once somebody has claimed it")
    return dataclasses.replace(task, cancelled=True)


def _claim(draft: Draft, entry: Entry, task: OpenTask, tx: Claim) -> OpenTask:
    draft.require_stake(tx.sender, Role.PROVIDER, entry.parameters[Role.PROVIDER.parameter])
    if tx.sender not in task.claims:
        _require_room("claims", len(task.claims), MAX_CLAIMS)
        draft.lock(tx.sender, Role.PROVIDER, entry.parameters["claim_stake_wei"])
    record = ClaimRecord(commitment=tx.commitment, claimed_ms=draft.now_ms)
    return changed(task, claims=task.claims.set(tx.sender, record))  # type: ignore[attr-defined]


def _claim_reveal(draft: Draft, entry: Entry, task: OpenTask, tx: ClaimReveal) -> OpenTask:
    claim = task.claims.get(tx.sender)
    if claim is None:
        raise UnknownThing("you have no claim on this order")
    if claim.mid is not None:
        raise AlreadyDone("your model is revealed already")
    _require_opening(claim.commitment, tx, claim_body(tx.mid, tx.size_bytes))
    if tx.mid == entry.order.data_root:
        raise NotAllowed("this MID names the order's test set; a model has its file's SHA-256")
    record = dataclasses.replace(claim, mid=tx.mid, size_bytes=tx.size_bytes, links=tx.links)
    return changed(task, claims=task.claims.set(tx.sender, record))  # type: ignore[attr-defined]


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
    _require_room("validations", len(task.validations), MAX_VALIDATIONS)
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
    record = dataclasses.replace(record, answer=_score_of(tx))
    validations = task.validations.set((tx.mid, tx.sender), record)  # type: ignore[attr-defined]
    return dataclasses.replace(task, validations=validations)


def _challenge(draft: Draft, entry: Entry, task: OpenTask, tx: Challenge) -> OpenTask:
    draft.require_stake(tx.sender, Role.VERIFIER, entry.parameters[Role.VERIFIER.parameter])
    mid = mid_of(task, tx.vid)
    if mid is None or not any(r.vid == tx.vid and r.answer for r in task.validations.values()):
        raise UnknownThing(f"no revealed validation 0x{tx.vid.hex()} in this order")
    if tx.vid == validation_id(_domain(draft), entry.oid, mid, tx.sender):
        raise NotAllowed("a validator does not challenge its own validation")
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
    if any(r.vid == tx.vid and r.answer == (tx.score, tx.digest) for r in task.validations.values()):
        # Else calling the jury for nothing would be free; unopened, it costs what any missed reveal costs.
        raise Mismatch("a challenge contradicts the validation; this one says the same")
    record = dataclasses.replace(record, answer=_score_of(tx))
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


def _irretrievable_report(draft: Draft, entry: Entry, task: OpenTask, tx: IrretrievableReport) -> OpenTask:
    role = _require_role(draft, entry, tx)
    claim = task.claims.get(tx.sender)
    if tx.subject == entry.order.data_root:
        if tx.sender == entry.order.client:
            raise NotAllowed("who releases a test set does not report it")
        if any(record.answer is not None for record in task.validations.values()):
            # Else a client could let everybody score, look at the models, and then take its test set away.
            raise NotAllowed("a model was scored, so the test set could be fetched")
    elif tx.subject not in task.revealed_mids():
        raise UnknownThing(f"0x{tx.subject.hex()} is no revealed model of this order, nor its data root")
    elif claim is not None and claim.mid == tx.subject:
        raise NotAllowed("a provider does not report its own model")
    if tx.subject in task.reports:
        raise AlreadyDone("this was reported already; you may serve as a juror")
    if tx.subject != entry.order.data_root:
        # For the test set there is always room: nobody can keep its report out with reports of models.
        models = len(set(task.reports) - {entry.order.data_root})
        _require_room("irretrievable reports", models, MAX_IRRETRIEVABLE_REPORTS)
    stake_wei = entry.parameters["report_stake_wei"]
    draft.lock(tx.sender, role, stake_wei)
    record = ReportRecord(
        id=digest_of(_domain(draft), tx), reporter=tx.sender, role=role, stake_wei=stake_wei
    )
    return dataclasses.replace(task, reports=task.reports.set(tx.subject, record))  # type: ignore[attr-defined]


def _appeal(draft: Draft, entry: Entry, task: OpenTask, tx: Appeal) -> OpenTask:
    role = _require_role(draft, entry, tx)
    dispute = task.decided.get(tx.subject)
    verdict = decide(dispute, entry.parameters) if dispute is not None else None
    if verdict is None:
        raise UnknownThing(f"no verdict stands on 0x{tx.subject.hex()}")
    if tx.subject in task.appeals:
        raise AlreadyDone("an appeal against this verdict is filed already; there is only one")
    _require_room("appeals", len(task.appeals), MAX_APPEALS)
    bond_wei = entry.parameters["appeal_bond_wei"]
    draft.lock(tx.sender, role, bond_wei)
    record = AppealRecord(
        id=digest_of(_domain(draft), tx),
        appellant=tx.sender,
        role=role,
        bond_wei=bond_wei,
        against=verdict,
    )
    return dataclasses.replace(task, appeals=task.appeals.set(tx.subject, record))  # type: ignore[attr-defined]


def _require_role(draft: Draft, entry: Entry, tx: IrretrievableReport | Appeal) -> Role:
    """The role that the sender stands in, with enough stake; aggregators' stake answers for votes alone."""
    role = next((role for role in ACTING_ROLES if role == tx.role), None)
    if role is None:
        raise NotAllowed(
            f"role {tx.role} reports and appeals nothing; providers, validators and verifiers do"
        )
    draft.require_stake(tx.sender, role, entry.parameters[role.parameter])
    return role


def _score_of(tx: ValidationReveal | ChallengeReveal) -> Answer:
    answer = (tx.score, tx.digest)
    if is_irretrievable(answer):
        raise NotAllowed("who cannot fetch a model has no score for it; report it as irretrievable")
    return answer


def _dispute_for(task: OpenTask, mid: bytes, juror: bytes) -> Dispute:
    dispute = task.disputes.get(mid)
    if dispute is None:
        raise UnknownThing(f"0x{mid.hex()} is not disputed")
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


def _require_room(what: str, have: int, most: int) -> None:
    if have >= most:
        raise OrderFull(what, most)


def _domain(draft: Draft) -> Domain:
    return draft.state.domain


_Handler = Callable[..., OpenTask]
HANDLERS: Mapping[type[OrderTransaction], _Handler] = {
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
    IrretrievableReport: _irretrievable_report,
    Appeal: _appeal,
}
