"""What aggregators answer about money, in orders, nodes, credits and settlements: read and checked.

Guarantees: at most `MOST` orders and `MOST_SETTLEMENTS` settlements are asked for, the latest first; an
answer that cannot be read is an error, never a silent gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """What a node has staked in one role; amounts in wei."""

    role: str
    bonded_wei: int
    unbonding_wei: int
    locked_wei: int


class Settled(NamedTuple):
    """One settlement: what it cost, and what it settled."""

    gas: int
    oids: tuple[str, ...]


class Credit(NamedTuple):
    """What an account is paid for one epoch, and the proof that ``Settlement.claim`` wants."""

    epoch: int
    amount_wei: int
    proof: tuple[bytes, ...]


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Turns what is missing or of another type in an answer into an error that says so."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as reason:
        raise NetworkError(f"an aggregator's answer about {what} cannot be read: {reason!r}") from reason


def offer_of(detail: Any) -> Offer:
    """A running order out of ``GET /v1/orders/OID``.

    Raises:
        NetworkError: the answer is not what the API promises.
    """
    with _readable("an order"):
        return Offer(
            oid=str(detail["oid"]),
            kind=str(detail["kind"]),
            phase=str(detail["phase"]),
            reward_wei=int(detail["order"]["reward"]),
            train_s=int(detail["order"]["trainWindow"]),
            deadline_ms=int(detail["deadlineMs"]),
            claimants=tuple(str(each["provider"]) for each in detail["claims"]),
            parameters=Parameters.of({name: int(value) for name, value in detail["parameters"].items()}),
        )


def past_of(detail: Any) -> Past:
    """A settled order out of ``GET /v1/orders/OID``.

    Raises:
        NetworkError: the answer is not what the API promises.
    """
    with _readable("a settled order"):
        return Past(
            oid=str(detail["oid"]),
            kind=str(detail["kind"]),
            client=str(detail["client"]),
            reward_wei=int(detail["rewardWei"]),
            train_s=int(detail["order"]["trainWindow"]),
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


def fetch_history(network: Network, most: int = MOST) -> list[Past]:
    """The latest settled orders, the latest first; one request per order.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
    """
    listed = network.get("/v1/orders", phase="settled", limit=min(most, MOST))
    with _readable("settled orders"):
        oids = [str(item["oid"]) for item in listed["orders"]]
    return [past_of(network.get(f"/v1/orders/{oid}")) for oid in oids]


def fetch_settlements(network: Network, most: int = MOST_SETTLEMENTS) -> list[Settled]:
    """The latest settlements.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
    """
    listed = network.get("/v1/settlements", limit=min(most, MOST_SETTLEMENTS))
    with _readable("settlements"):
        return [
            Settled(int(each["gasUsed"]), tuple(str(oid) for oid in each["orders"]))
            for each in listed["settlements"]
        ]


def fetch_stakes(network: Network, account: str) -> list[Stake]:
    """Stakes of ``account`` (0x-hex, lower case), by role; none of who never registered.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
    """
    listed = network.get(f"/v1/accounts/{account}")
    with _readable("stakes"):
        return [
            Stake(
                role=str(each["role"]),
                bonded_wei=int(each["bondedWei"]),
                unbonding_wei=int(each["unbondingWei"]),
                locked_wei=int(each["lockedWei"]),
            )
            for each in listed["stakes"]
        ]


def fetch_credits(network: Network, account: str) -> list[Credit]:
    """Settled credits of ``account`` (0x-hex), paid out or not, oldest first.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
    """
    listed = list(network.pages(f"/v1/accounts/{account}/credits", "credits"))
    with _readable("credits"):
        return [
            Credit(
                int(each["epoch"]),
                int(each["amountWei"]),
                tuple(bytes.fromhex(str(part).removeprefix("0x")) for part in each["proof"]),
            )
            for each in listed
        ]
