"""Settled orders as far as money goes, read from the public API.

Guarantees: at most `MOST` orders are asked for, the latest first; an answer that cannot be read is an error,
never a silent gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from offchain.network import Network, NetworkError

MOST: Final = 100
LIKE: Final = 4
"""Orders whose training window is up to so many times as long or as short are comparable."""
ENOUGH: Final = 3
"""With fewer comparable orders than this, all of the kind count."""


class PastClaim(NamedTuple):
    """A claim, and whether it was revealed."""

    provider: str
    revealed: bool


class PastValidation(NamedTuple):
    """A validation, whether it was revealed, and whether its model won."""

    validator: str
    v_stake_wei: int
    revealed: bool
    of_winner: bool


class Debit(NamedTuple):
    """A slash: whose, why, and how much (positive)."""

    account: str
    reason: str
    amount_wei: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One settled order; amounts in wei."""

    oid: str
    kind: str
    client: str
    reward_wei: int
    train_s: int
    result: str
    """``won``, or why nobody did."""
    winner: str | None
    claims: tuple[PastClaim, ...]
    validations: tuple[PastValidation, ...]
    debits: tuple[Debit, ...]
    tax_wei: int
    """What the aggregators got of it together."""

    @property
    def rate_wei(self) -> int:
        """Reward per second of training."""
        return self.reward_wei // max(1, self.train_s)


def past_of(detail: Any) -> Past:
    """A settled order out of ``GET /v1/orders/OID``.

    Raises:
        NetworkError: the answer is not what the API promises.
    """
    try:
        order = detail["order"]
        return Past(
            oid=str(detail["oid"]),
            kind=str(detail["kind"]),
            client=str(detail["client"]),
            reward_wei=int(detail["rewardWei"]),
            train_s=int(order["trainWindow"]),
            result=str(detail["result"]),
            winner=detail["winner"],
            claims=tuple(
                PastClaim(str(each["provider"]), each["mid"] is not None) for each in detail.get("claims", ())
            ),
            validations=tuple(
                PastValidation(
                    str(each["validator"]),
                    int(each["vStakeWei"]),
                    each["score"] is not None,
                    each["mid"] == detail["mid"],
                )
                for each in detail.get("validations", ())
            ),
            debits=tuple(
                Debit(str(each["account"]), str(each["reason"]), -int(each["amountWei"]))
                for each in detail["receipts"]
                if int(each["amountWei"]) < 0
            ),
            tax_wei=sum(
                int(each["amountWei"]) for each in detail["receipts"] if each["role"] == "aggregator"
            ),
        )
    except (KeyError, TypeError, ValueError) as reason:
        raise NetworkError(
            f"an aggregator's answer about a settled order cannot be read: {reason!r}"
        ) from reason


def fetch_history(network: Network, most: int = MOST) -> list[Past]:
    """The latest settled orders, the latest first; one request per order.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
    """
    listed = network.get("/v1/orders", phase="settled", limit=min(most, MOST))
    return [past_of(network.get(f"/v1/orders/{item['oid']}")) for item in listed["orders"]]


def comparable(history: Sequence[Past], kind: str, train_s: int) -> list[Past]:
    """Orders of the same kind whose window is alike; all of the kind where those are too few."""
    same = [past for past in history if past.kind == kind]
    alike = [past for past in same if train_s <= LIKE * past.train_s and past.train_s <= LIKE * train_s]
    return alike if len(alike) >= ENOUGH else same
