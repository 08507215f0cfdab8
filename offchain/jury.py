"""Serving as a juror: committing and revealing verdicts in disputes this account is not party to.

Shared by validators and verifiers (PoT 2.5 "Concurrent Roles": any node can verify).
"""

from __future__ import annotations

import logging
from typing import Any

from offchain.actor import Actor
from offchain.judging import Judge
from offchain.material import unhex
from protocol.crypto import commitment
from protocol.transactions import Verdict, VerdictReveal, score_body

log = logging.getLogger(__name__)

Json = dict[str, Any]


def serve(actor: Actor, judge: Judge) -> None:
    """Commit to and reveal the verdicts that are this actor's to give."""
    for detail in actor.orders_in("verdict", "verdict_reveal"):
        for dispute in detail["disputes"]:
            seat = next((seat for seat in dispute["jurors"] if seat["juror"] == actor.me), None)
            if seat is not None:
                actor.attempt(
                    f"verdict on {dispute['mid']}", _serve, actor, judge, detail, dispute["mid"], seat
                )


def _serve(actor: Actor, judge: Judge, detail: Json, mid: str, seat: Json) -> None:
    claim = next(claim for claim in detail["claims"] if claim["mid"] == mid)
    answer = judge.answer(detail, claim)
    if answer is None:
        return
    score, digest = answer
    oid, model = unhex(detail["oid"]), unhex(mid)
    body = score_body(model, score, digest)
    salt = actor.salt(oid, body)
    if detail["phase"] == "verdict" and not seat["committed"]:
        committed = commitment(oid, actor.key.address, body, salt)
        actor.network.submit(Verdict, oid=oid, mid=model, commitment=committed)
        log.info("gave a verdict on model %s", mid)
    elif detail["phase"] == "verdict_reveal" and seat["committed"] and seat["score"] is None:
        actor.network.submit(
            VerdictReveal,
            oid=oid,
            mid=model,
            score=score,
            digest=digest,
            salt=salt,
        )
        log.info("revealed the verdict on model %s: %d", mid, score)
