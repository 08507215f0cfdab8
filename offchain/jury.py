"""Serving as a juror: committing and revealing verdicts in disputes this account is not party to.

Shared by validators, verifiers and, where a larger jury is called, providers (PoT 2.5 "Concurrent Roles": any
node can verify). Nothing that a verdict needs is kept in memory: a restarted juror opens what it had
committed to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from offchain.actor import Actor
from offchain.config import JurorConfig
from offchain.evaluation.means import Means
from offchain.judging import IRRETRIEVABLE_ANSWER, Answer, Judge, claims_on
from offchain.material import unhex
from offchain.network import LedgerRefused
from offchain.uptime import UPTIME_FILE, Uptime
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
            config.data_dir / "answers",
            Means(container=config.container, memory_bytes=config.memory_bytes),
            self.meters.evaluated,
            Uptime(config.data_dir / UPTIME_FILE).note,
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
                if seat is None or not dispute["open"]:
                    continue
                step = self.commit_verdict if detail["phase"] == "verdict" else self.reveal_verdict
                self.attempt(f"verdict on {dispute['mid']}", step, detail, dispute, seat)

    def commit_verdict(self, detail: Json, dispute: Json, seat: Json) -> None:
        """Commit to what this machine finds, or to that it finds nothing."""
        if seat["committed"]:
            return
        answer = self.find(detail, dispute)
        if answer is None:
            return
        oid, subject = unhex(detail["oid"]), unhex(dispute["mid"])
        body = score_body(subject, *answer)
        committed = commitment(oid, self.key.address, body, self._salt_of(oid, body, dispute))
        self.network.submit(Verdict, oid=oid, mid=subject, commitment=committed)
        log.info("gave a verdict on %s", dispute["mid"])

    def find(self, detail: Json, dispute: Json) -> Answer | None:
        """The answer on a subject; none as long as there is none to give."""
        subject = dispute["mid"]
        if dispute["of"] == "test set":
            answer = self.judge.test_answer(detail)
        elif any(report["subject"] == subject for report in detail["reports"]):
            # What was there before says nothing of now: the client is to fetch it after this.
            answer = self._score(detail, subject) if self.judge.can_fetch(detail, subject) else None
        else:
            answer = self._score(detail, subject)
        if answer is None and self.judge.is_gone(detail, subject):
            return IRRETRIEVABLE_ANSWER
        return answer

    def _score(self, detail: Json, mid: str) -> Answer | None:
        answers = (self.judge.answer(detail, claim) for claim in claims_on(detail, mid))
        return next((answer for answer in answers if answer is not None), None)

    def reveal_verdict(self, detail: Json, dispute: Json, seat: Json) -> None:
        """Open the verdict: what is remembered of the subject, or that nothing was found."""
        if not seat["committed"] or seat["score"] is not None:
            return
        oid, subject = unhex(detail["oid"]), unhex(dispute["mid"])
        remembered = self.judge.recall(detail["oid"], dispute["mid"])
        for answer in (remembered, IRRETRIEVABLE_ANSWER):
            if answer is None:
                continue
            score, digest = answer
            salt = self._salt_of(oid, score_body(subject, score, digest), dispute)
            fields = {"oid": oid, "mid": subject, "score": score, "digest": digest, "salt": salt}
            try:
                self.network.submit(VerdictReveal, **fields)
            except LedgerRefused as reason:
                if reason.code != "Mismatch":
                    raise
                continue  # it was the other one
            log.info("revealed the verdict on %s: %d", dispute["mid"], score)
            return

    def _salt_of(self, oid: bytes, body: bytes, dispute: Json) -> bytes:
        # One for each round: else whoever saw the last one open knows what the next commitment says.
        return self.salt(oid, body + bytes([dispute["round"]]))
