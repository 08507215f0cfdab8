"""Serving as a juror: committing and revealing verdicts in disputes this account is not party to.

Shared by validators and verifiers (PoT 2.5 "Concurrent Roles": any node can verify).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from offchain.actor import Actor
from offchain.config import JurorConfig
from offchain.evaluation.means import Means
from offchain.judging import Judge
from offchain.material import unhex
from protocol.crypto import commitment
from protocol.transactions import Verdict, VerdictReveal, score_body

log = logging.getLogger(__name__)

Json = dict[str, Any]


class Juror(Actor):
    """Base of the roles that score models: a judge with its memory, and the jury duty that comes with it."""

    config: JurorConfig

    def __init__(self, config: JurorConfig) -> None:
        super().__init__(config)
        self.keep_compiled_programs()
        self.judge = Judge(
            config.data_dir / "answers", Means(container=config.container, memory_bytes=config.memory_bytes)
        )

    def others_orders(self, *phases: str) -> Iterator[Json]:
        """Orders in these phases that this account claims nothing in; phase by phase, as they are named."""
        for phase in phases:
            for detail in self.orders_in(phase):
                if all(claim["provider"] != self.me for claim in detail["claims"]):
                    yield detail

    def serve_as_juror(self) -> None:
        """Commit to and reveal the verdicts that are this account's to give."""
        if not self.config.judge:
            return
        for detail in self.orders_in("verdict", "verdict_reveal"):
            for dispute in detail["disputes"]:
                seat = next((seat for seat in dispute["jurors"] if seat["juror"] == self.me), None)
                if seat is not None:
                    what = f"verdict on {dispute['mid']}"
                    self.attempt(what, self.give_verdict, detail, dispute["mid"], seat)

    def give_verdict(self, detail: Json, mid: str, seat: Json) -> None:
        """Commit to, or open, the verdict of one seat."""
        claim = next(claim for claim in detail["claims"] if claim["mid"] == mid)
        answer = self.judge.answer(detail, claim)
        if answer is None:
            return
        score, digest = answer
        oid, model = unhex(detail["oid"]), unhex(mid)
        body = score_body(model, score, digest)
        salt = self.salt(oid, body)
        if detail["phase"] == "verdict" and not seat["committed"]:
            committed = commitment(oid, self.key.address, body, salt)
            self.network.submit(Verdict, oid=oid, mid=model, commitment=committed)
            log.info("gave a verdict on model %s", mid)
        elif detail["phase"] == "verdict_reveal" and seat["committed"] and seat["score"] is None:
            self.network.submit(
                VerdictReveal,
                oid=oid,
                mid=model,
                score=score,
                digest=digest,
                salt=salt,
            )
            log.info("revealed the verdict on model %s: %d", mid, score)
