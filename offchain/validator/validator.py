"""One validator's loop: commit to the score of every revealed model at t4, reveal it at t5.

Source: PoT 2.4 "Validating the Models", equation 2.
"""

from __future__ import annotations

import logging
from typing import Any

from offchain.config import ValidatorConfig
from offchain.contesting import Contester
from offchain.judging import Answer
from offchain.material import unhex
from protocol.crypto import commitment
from protocol.roles import Role
from protocol.transactions import Validation, ValidationReveal, score_body

log = logging.getLogger(__name__)

Json = dict[str, Any]


class Validator(Contester):
    """Validates every model of every order it can, as far as its free stake reaches."""

    config: ValidatorConfig
    role = Role.VALIDATOR

    def act(self) -> None:
        # Reveals first: scoring another order's models may take long, and a missed reveal costs stake.
        seen = []
        for detail in self.others_orders("validation_reveal", "validation"):
            seen.append(detail)
            step = self.commit if detail["phase"] == "validation" else self.reveal
            self.attempt(f"order {detail['oid']}", step, detail)
        self.serve_as_juror()
        # Last: a provider that lets its watchers wait must not make them miss a reveal.
        for detail in (*seen, *self.others_orders("challenge")):
            self.watch(detail)
        self.contest()

    def own_answers(self, detail: Json) -> dict[str, Answer]:
        return {
            item["mid"]: (int(item["score"]), unhex(item["digest"]))
            for item in detail["validations"]
            if item["validator"] == self.me and item["score"] is not None
        }

    def assess(self, detail: Json) -> dict[str, Answer]:
        """By MID, what this validator will say of each revealed model."""
        return self.judge.answers(detail)

    def commit(self, detail: Json) -> None:
        """Commit to a score for every revealed model not validated yet."""
        done = {item["mid"] for item in detail["validations"] if item["validator"] == self.me}
        v_stake = self.config.v_stake_wei or int(detail["parameters"]["min_validation_stake_wei"])
        for mid, (score, digest) in sorted(self.assess(detail).items()):
            if mid in done:
                continue
            oid, model = unhex(detail["oid"]), unhex(mid)
            body = score_body(model, score, digest)
            committed = commitment(oid, self.key.address, body, self.salt(oid, body))
            self.network.submit(
                Validation,
                oid=oid,
                mid=model,
                commitment=committed,
                v_stake=v_stake,
            )
            log.info("validated model %s of order %s", mid, detail["oid"])

    def reveal(self, detail: Json) -> None:
        """Open every own commitment."""
        answers = self.assess(detail)
        for item in detail["validations"]:
            if item["validator"] != self.me or item["score"] is not None or item["mid"] not in answers:
                continue
            score, digest = answers[item["mid"]]
            oid, model = unhex(detail["oid"]), unhex(item["mid"])
            salt = self.salt(oid, score_body(model, score, digest))
            self.network.submit(
                ValidationReveal,
                oid=oid,
                mid=model,
                score=score,
                digest=digest,
                salt=salt,
            )
            log.info("revealed score %d for model %s", score, item["mid"])
