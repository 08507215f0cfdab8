"""How a node has behaved, out of settled orders: for people to look at. It decides nothing, not even ties.

``reliability = kept / (kept + broken)``: kept are claims and validations that were revealed and stood; broken
are those never revealed and those that a verdict found wrong: scores, challenges, reports, and models that
could not be fetched. A node without either has none.

Source: issue 4, "Reputation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from offchain.economics.history import Past
from protocol.parameters import BPS

WRONG_SCORE: Final = "wrong score"
WRONG_CHALLENGE: Final = "wrong challenge"
WRONG_REPORT: Final = "wrong report"
IRRETRIEVABLE: Final = "model irretrievable"
"""Reasons of a slash after a verdict; see `aggregator/ledger/tasks/open_outcome.py`."""


TESTS_WITHHELD: Final = ("the client withheld the test set", "the test set could not be fetched")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One account in the settled orders looked at."""

    orders_seen: int
    claims: int = 0
    wins: int = 0
    claims_not_revealed: int = 0
    validations: int = 0
    validations_not_revealed: int = 0
    wrong_scores: int = 0
    """Validations that a verdict overturned."""
    wrong_challenges: int = 0
    wrong_reports: int = 0
    models_irretrievable: int = 0
    """Claims whose model a jury could not fetch."""
    orders_put: int = 0
    tests_withheld: int = 0
    slashed_wei: int = 0

    @property
    def kept(self) -> int:
        """Commitments that were opened and stood."""
        opened = self.claims - self.claims_not_revealed + self.validations - self.validations_not_revealed
        return max(0, opened - self.wrong_scores - self.models_irretrievable)

    @property
    def broken(self) -> int:
        """Commitments that were not opened, or found wrong."""
        wrong = self.wrong_scores + self.wrong_challenges + self.wrong_reports + self.models_irretrievable
        return self.claims_not_revealed + self.validations_not_revealed + wrong

    @property
    def reliability_bps(self) -> int | None:
        """Basis points of commitments that were kept; None without any."""
        whole = self.kept + self.broken
        return BPS * self.kept // whole if whole else None


def record_of(history: Sequence[Past], account: str) -> Record:
    """What ``account`` (0x-hex, lower case) did in these orders."""
    claims = [(past, each) for past in history for each in past.claims if each.provider == account]
    validations = [each for past in history for each in past.validations if each.validator == account]
    debits = [each for past in history for each in past.debits if each.account == account]
    put = [past for past in history if past.client == account]
    return Record(
        orders_seen=len(history),
        claims=len(claims),
        wins=sum(past.winner == account for past, _ in claims),
        claims_not_revealed=sum(not each.revealed for _, each in claims),
        validations=len(validations),
        validations_not_revealed=sum(not each.revealed for each in validations),
        wrong_scores=sum(each.reason == WRONG_SCORE for each in debits),
        wrong_challenges=sum(each.reason == WRONG_CHALLENGE for each in debits),
        wrong_reports=sum(each.reason == WRONG_REPORT for each in debits),
        models_irretrievable=sum(each.reason == IRRETRIEVABLE for each in debits),
        orders_put=len(put),
        tests_withheld=sum(past.result in TESTS_WITHHELD for past in put),
        slashed_wei=sum(each.amount_wei for each in debits),
    )
