"""What validators and verifiers do beside their own work: report what they cannot fetch, contest verdicts.

A report follows from this machine's own attempts (`offchain.absences`), an appeal from its own scores: both
cost money if they are wrong, so nothing is believed that others say.

Source: PoT 3.4 "Achieving Retrievability"; design section 4 ("Slashing follows due process").
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any

from offchain.config import ContesterConfig
from offchain.judging import IRRETRIEVABLE_ANSWER, Answer
from offchain.jury import Juror
from offchain.material import unhex
from offchain.sampling import Sampler
from protocol.transactions import Appeal, IrretrievableReport

log = logging.getLogger(__name__)

Json = dict[str, Any]


class Contester(Juror):
    """Base of validators and verifiers."""

    config: ContesterConfig

    def __init__(self, config: ContesterConfig) -> None:
        super().__init__(config)
        self.sampler = Sampler(self.judge, random.SystemRandom().randrange)
        self._reported: set[tuple[str, str]] = set()
        self._contested: set[tuple[str, str]] = set()

    def watch(self, detail: Json) -> None:
        """In the windows for reports: see whether what was revealed is there, and report what is not."""
        if detail["phase"] not in ("validation", "challenge"):
            return  # it has moved on since it was listed
        now_ms = time.time_ns() // 1_000_000
        self.attempt(f"sampling order {detail['oid']}", self.sampler.look, detail, now_ms)
        self.report_absent(detail)

    def report_absent(self, detail: Json) -> None:
        """Report what nobody has yet, and this machine has tried in vain to fetch for long enough."""
        if not self.config.report:
            return
        known = {report["subject"] for report in detail["reports"]}
        for subject in self.judge.gone(detail):
            if subject in known or (detail["oid"], subject) in self._reported:
                continue
            # Once, whatever comes of it: a refusal (no free stake, somebody was faster) is final.
            self._reported.add((detail["oid"], subject))
            log.warning("reporting %s of order %s as irretrievable", subject, detail["oid"])
            assert self.role is not None, "whoever judges has a role"
            fields = {"oid": unhex(detail["oid"]), "subject": unhex(subject), "role": int(self.role)}
            self.attempt(f"report on {subject}", self.network.submit, IrretrievableReport, **fields)

    def own_answers(self, detail: Json) -> dict[str, Answer]:
        """By MID, the scores that this account has staked on in an order."""
        raise AssertionError("a role says what it has staked on")

    def contest(self) -> None:
        """Appeal, or say how to, where a verdict finds work wrong that this machine finds right."""
        for detail in self.orders_in("appeal"):
            appealed = {appeal["subject"] for appeal in detail["appeals"]}
            mine = self.own_answers(detail)
            for dispute in detail["disputes"]:
                mid, verdict = dispute["mid"], dispute["verdict"]
                if mid not in mine or mid in appealed or (detail["oid"], mid) in self._contested:
                    continue
                if verdict["score"] is None or int(verdict["score"]) == IRRETRIEVABLE_ANSWER[0]:
                    continue
                if (int(verdict["score"]), unhex(verdict["digest"])) == mine[mid]:
                    continue
                if self.judge.recall(detail["oid"], mid) != mine[mid]:
                    continue
                self._contested.add((detail["oid"], mid))
                self._appeal(detail, mid)

    def _appeal(self, detail: Json, mid: str) -> None:
        assert self.role is not None, "whoever judges has a role"
        name = self.role.name.lower()
        if not self.config.appeal:
            log.warning(
                "a verdict finds your score of %s wrong; appeal with `dtn %s appeal %s %s --config FILE`",
                mid,
                name,
                detail["oid"],
                mid,
            )
            return
        log.warning("appealing against the verdict on model %s of order %s", mid, detail["oid"])
        fields = {"oid": unhex(detail["oid"]), "subject": unhex(mid), "role": int(self.role)}
        self.attempt(f"appeal about {mid}", self.network.submit, Appeal, **fields)
