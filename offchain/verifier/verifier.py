"""One verifier's loop: repeat every revealed validation, challenge the wrong ones, serve as a juror.

Source: PoT 2.4 "Verifying the Validations", equation 3; 3.3.3 (FetchValidations, Challenge).
"""

from __future__ import annotations

import logging
from typing import Any

from offchain.config import VerifierConfig
from offchain.contesting import Contester
from offchain.judging import Answer
from offchain.material import unhex
from protocol.crypto import commitment
from protocol.roles import Role
from protocol.transactions import Challenge, ChallengeReveal, score_body

log = logging.getLogger(__name__)

Json = dict[str, Any]


class Verifier(Contester):
    """Challenges every wrong validation it finds, as far as its free stake reaches."""

    config: VerifierConfig
    role = Role.VERIFIER

    def act(self) -> None:
        # Reveals first, scoring ahead of time last: only what is late costs stake.
        for detail in self.others_orders("challenge_reveal", "challenge", "validation_reveal", "validation"):
            self.attempt(f"order {detail['oid']}", self.verify, detail)
            if detail["phase"] in ("validation", "challenge"):
                self.look_for_models(detail)
                self.watch(detail)
        self.serve_as_juror()
        self.contest()

    def look_for_models(self, detail: Json) -> None:
        """In the challenge phase see whether what was scored can still be fetched."""
        for mid in sorted({item["mid"] for item in detail["validations"] if item["score"] is not None}):
            self.judge.can_fetch(detail, mid)

    def own_answers(self, detail: Json) -> dict[str, Answer]:
        mids = {item["vid"]: item["mid"] for item in detail["validations"]}
        return {
            mids[item["vid"]]: (int(item["score"]), unhex(item["digest"]))
            for item in detail["challenges"]
            if item["challenger"] == self.me and item["score"] is not None
        }

    def verify(self, detail: Json) -> None:
        """Score early, challenge in the challenge phase, reveal in the one after it."""
        answers = self.judge.answers(detail)
        if detail["phase"] == "challenge":
            self.challenge(detail, answers)
        elif detail["phase"] == "challenge_reveal":
            self.reveal(detail, answers)

    def challenge(self, detail: Json, answers: dict[str, Answer]) -> None:
        """Commit to the right score for every wrong validation that nobody challenged yet."""
        challenged = {item["vid"] for item in detail["challenges"]}
        c_stake = self.config.c_stake_wei or int(detail["parameters"]["min_challenge_stake_wei"])
        for item in detail["validations"]:
            answer = answers.get(item["mid"])
            if item["score"] is None or answer is None or item["vid"] in challenged:
                continue
            if (int(item["score"]), unhex(item["digest"])) == answer:
                continue
            oid, vid = unhex(detail["oid"]), unhex(item["vid"])
            body = score_body(unhex(item["mid"]), *answer)
            committed = commitment(oid, self.key.address, body, self.salt(oid, body))
            self.network.submit(
                Challenge,
                oid=oid,
                vid=vid,
                commitment=committed,
                c_stake=c_stake,
            )
            log.info("challenged validation %s of %s", item["vid"], item["validator"])

    def reveal(self, detail: Json, answers: dict[str, Answer]) -> None:
        """Open every own challenge."""
        mids = {item["vid"]: item["mid"] for item in detail["validations"]}
        for item in detail["challenges"]:
            if item["challenger"] != self.me or item["score"] is not None:
                continue
            answer = answers.get(mids[item["vid"]])
            if answer is None:
                continue
            score, digest = answer
            oid, vid = unhex(detail["oid"]), unhex(item["vid"])
            salt = self.salt(oid, score_body(unhex(mids[item["vid"]]), score, digest))
            self.network.submit(
                ChallengeReveal,
                oid=oid,
                vid=vid,
                score=score,
                digest=digest,
                salt=salt,
            )
            log.info("revealed the challenge against %s", item["vid"])
