"""Settled orders and those on offer, as far as money goes: what estimates rest on.

Guarantees: at most `MOST` orders and `MOST_SETTLEMENTS` settlements are asked for, the latest first; an
answer that cannot be read is an error, never a silent gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from offchain.answers import (
    OpenOrder,
    Orders,
    OrderView,
    SettlementRow,
    Settlements,
    fetch_detail,
    read,
)
from offchain.network import Network, NetworkError
from protocol.parameters import Parameters

MOST: Final = 100
MOST_SETTLEMENTS: Final = 500


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An order that runs, as far as it concerns who may take part; amounts in wei."""

    oid: str
    kind: str
    phase: str
    reward_wei: int
    train_s: int
    deadline_ms: int
    """End of its phase, in ledger time."""
    claimants: tuple[str, ...]
    """Providers whose claims stand."""
    parameters: Parameters
    """The protocol's parameters that bind it."""


def offer_of(detail: Any) -> Offer:
    """A running order out of ``GET /v1/orders/OID``.

    Raises:
        NetworkError: the answer is not what the API promises.
    """
    order = read("an order", OpenOrder, detail)
    try:
        parameters = Parameters.of({name: int(value) for name, value in order.parameters.items()})
    except (KeyError, ValueError) as reason:
        raise NetworkError(f"an aggregator's answer about an order cannot be read: {reason!r}") from reason
    return Offer(
        oid=order.oid,
        kind=order.kind,
        phase=order.phase,
        reward_wei=order.reward_wei,
        train_s=order.order.train_s,
        deadline_ms=order.deadline_ms,
        claimants=tuple(claim.provider for claim in order.claims),
        parameters=parameters,
    )


def past_of(detail: Any) -> Past:
    """A settled order out of ``GET /v1/orders/OID``.

    Raises:
        NetworkError: the answer is not what the API promises.
    """
    order = read("a settled order", OrderView, detail)
    if order.result is None:
        raise NetworkError("an aggregator's answer about a settled order says nothing of how it ended")
    return Past(
        oid=order.oid,
        kind=order.kind,
        client=order.client,
        reward_wei=order.reward_wei,
        train_s=order.order.train_s,
        result=order.result,
        winner=order.winner,
        claims=tuple(PastClaim(each.provider, each.mid is not None) for each in order.claims),
        validations=tuple(
            PastValidation(each.validator, each.v_stake_wei, each.score is not None, each.mid == order.mid)
            for each in order.validations
        ),
        debits=tuple(
            Debit(each.account, each.reason, -each.amount_wei)
            for each in order.receipts
            if each.amount_wei < 0
        ),
        tax_wei=sum(each.amount_wei for each in order.receipts if each.role == "aggregator"),
    )


def fetch_history(network: Network, most: int = MOST) -> list[Past]:
    """The latest settled orders, the latest first; one request per order.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
    """
    listed = network.get("/v1/orders", phase="settled", limit=min(most, MOST))
    return [past_of(fetch_detail(network, row.oid)) for row in read("settled orders", Orders, listed).orders]


def fetch_settlements(network: Network, most: int = MOST_SETTLEMENTS) -> tuple[SettlementRow, ...]:
    """The latest settlements.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
    """
    listed = network.get("/v1/settlements", limit=min(most, MOST_SETTLEMENTS))
    return read("settlements", Settlements, listed).settlements
