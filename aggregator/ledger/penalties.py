"""What an aggregator loses for contradicting itself, and who gets it.

`punish` applies one `Evidence` transaction. The evidence stands alone: no vote, no order, no jury. A share of
the stake that the accused holds as aggregator now, bonded or on its way out, is slashed; the accuser gets at
most half of that and the treasury the rest. It leaves the ledger with the next settlement report, beside the
orders.

Guarantees: a penalty's receipts sum to zero; nobody is punished twice for one kind, view and sequence number;
what is punished is remembered for ever, and each row of that memory has cost at least a hundredth of a stake,
because the parameter has a lowest value.

Source: design section 4 ("Slashing follows due process").
"""

from __future__ import annotations

import dataclasses
import functools

from aggregator.ledger.draft import Draft
from aggregator.ledger.events import PenaltyImposed
from aggregator.ledger.refusals import (
    AlreadyDone,
    NoStanding,
    NotAllowed,
    NothingToSlash,
    NotProven,
    QueueFull,
)
from aggregator.ledger.state import Penalty, Receipt, Slash, State
from protocol.errors import ProtocolError
from protocol.evidence import accused_in, evidence_id, offence_id, vote_digests
from protocol.rewards import bps_of, slash_shares
from protocol.roles import Role
from protocol.transactions import Evidence
from protocol.typed_data import Domain

MAX_WAITING_PENALTIES = 1024
"""Penalties that wait for a report; beyond that evidence is refused and may be sent again later."""


def punish(draft: Draft, body: Evidence) -> None:
    """Slash whoever signed both votes; raises `Refused` to refuse the evidence."""
    state = draft.state
    if not is_staked(state, body.sender):
        raise NoStanding("evidence is taken from staked accounts only; run `dtn verifier register`")
    accused = _accused_in(state.domain, body)
    if accused == body.sender:
        raise NotAllowed("nobody is paid for evidence against itself")
    offence = offence_id(accused, body)
    if offence in state.punished:
        raise AlreadyDone(f"0x{accused.hex()} was punished for this vote before")
    if len(state.penalties) >= MAX_WAITING_PENALTIES:
        raise QueueFull("penalties", MAX_WAITING_PENALTIES)
    stake = draft.node(accused).stake(Role.AGGREGATOR)
    held = stake.bonded + stake.unbonding - stake.slashed
    amount = min(stake.spare, bps_of(held, state.parameters["equivocation_slash_bps"]))
    if amount <= 0:
        raise NothingToSlash(accused, held)
    draft.slash(accused, Role.AGGREGATOR, amount)
    penalty = _penalty(state, body, accused, amount)
    draft.state = dataclasses.replace(
        draft.state,
        penalties=(*draft.state.penalties, penalty),
        punished=draft.state.punished.set(offence, penalty.id),  # type: ignore[attr-defined]
    )
    draft.emit(PenaltyImposed(penalty=penalty, at_ms=draft.now_ms))


def is_staked(state: State, account: bytes) -> bool:
    """Whether an account has stake to lose in any role: bonded, or on its way out (it may owe a reveal)."""
    node = state.nodes.get(account)
    return node is not None and any(held.bonded + held.unbonding > held.slashed for _, held in node.stakes)


def _penalty(state: State, body: Evidence, accused: bytes, amount: int) -> Penalty:
    name = evidence_id(state.domain, accused, body)
    refs = (name, *vote_digests(state.domain, body))
    reason = f"contradicting votes of kind {body.vote_kind} in view {body.view} at sequence {body.sequence}"
    shares = slash_shares(amount, state.parameters, accuser=True, jurors=False)
    lines = (
        (accused, "aggregator", reason, -amount),
        (body.sender, "accuser", f"share of a slash: {reason}", shares.accuser),
        (state.treasury, "treasury", f"share of a slash: {reason}", shares.treasury),
    )
    receipts = tuple(
        Receipt(account=account, oid=name, role=role, reason=why, amount_wei=wei, refs=refs)
        for account, role, why, wei in lines
        if wei
    )
    assert sum(receipt.amount_wei for receipt in receipts) == 0, "a penalty moves stake and makes none"
    assert shares.accuser * 2 <= amount, "the accuser gets at most half"
    slash = Slash(account=accused, role=Role.AGGREGATOR, amount_wei=amount)
    return Penalty(id=name, receipts=receipts, slash=slash)


@functools.lru_cache(maxsize=1024)
def _proven(domain: Domain, body: Evidence) -> bytes | str:
    try:
        return accused_in(domain, body)
    except ProtocolError as reason:
        return str(reason)


def _accused_in(domain: Domain, body: Evidence) -> bytes:
    found = _proven(domain, body)
    if isinstance(found, str):
        raise NotProven(found)
    return found
