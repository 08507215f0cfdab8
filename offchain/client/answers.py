"""What `Client` answers with about orders and accounts: the API's answers, read into types or refused.

Guarantees: amounts and scores are integers (wei; millionths), times are Unix milliseconds; an answer that
lacks something or has it in another form is a `NetworkError`; fields that a newer API adds are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec

from offchain.network import NetworkError

MAX_DIGITS: Final = 80
T = TypeVar("T")

Digits = Annotated[str, msgspec.Meta(pattern=rf"^-?[0-9]{{1,{MAX_DIGITS}}}$")]
"""A whole number as the API writes it, which JSON's numbers are too small for."""


class _View(msgspec.Struct, frozen=True, rename="camel"):
    """Base: names as the API has them."""


class OrderRow(_View, frozen=True, kw_only=True):
    """One order in a list."""

    oid: str
    kind: str
    client: str
    phase: str
    deadline_ms: int | None
    """End of its phase in ledger time; none once it is sealed."""
    claim_count: int | None
    winner: str | None
    result: str | None
    """``won``, or why nobody did; none while it runs."""
    reward_text: Digits = msgspec.field(name="rewardWei")
    score_text: Digits | None = msgspec.field(name="score")

    @property
    def reward_wei(self) -> int:
        """What it pays in all."""
        return int(self.reward_text)

    @property
    def score(self) -> int | None:
        """The winner's, in millionths."""
        return None if self.score_text is None else int(self.score_text)


class ValidationRow(_View, frozen=True, kw_only=True):
    """A validator's stake on its score of one model."""

    vid: str
    mid: str
    validator: str
    stake_text: Digits = msgspec.field(name="vStakeWei")
    score_text: Digits | None = msgspec.field(name="score")

    @property
    def v_stake_wei(self) -> int:
        """What the validator staked on it."""
        return int(self.stake_text)

    @property
    def score(self) -> int | None:
        """In millionths; none before it is revealed."""
        return None if self.score_text is None else int(self.score_text)


class ClaimRow(_View, frozen=True, kw_only=True):
    """A provider's claim to have trained a model."""

    provider: str
    mid: str | None
    """None before it is revealed."""
    links: tuple[str, ...]
    score_text: Digits | None = msgspec.field(name="score")

    @property
    def score(self) -> int | None:
        """The accepted score in millionths, if there is one."""
        return None if self.score_text is None else int(self.score_text)


class ReceiptRow(_View, frozen=True, kw_only=True):
    """Why an account was paid, or lost, something."""

    account: str
    oid: str
    role: str
    reason: str
    amount_text: Digits = msgspec.field(name="amountWei")

    @property
    def amount_wei(self) -> int:
        """Negative for a slash."""
        return int(self.amount_text)


class OrderView(OrderRow, frozen=True, kw_only=True):
    """One order with what happened in it."""

    receipts: tuple[ReceiptRow, ...]
    claims: tuple[ClaimRow, ...] = ()
    validations: tuple[ValidationRow, ...] = ()


class StakeRow(_View, frozen=True, kw_only=True):
    """Stake in one role."""

    role: str
    bonded_text: Digits = msgspec.field(name="bondedWei")
    unbonding_text: Digits = msgspec.field(name="unbondingWei")
    locked_text: Digits = msgspec.field(name="lockedWei")

    @property
    def bonded_wei(self) -> int:
        """Staked and not asked back."""
        return int(self.bonded_text)

    @property
    def unbonding_wei(self) -> int:
        """Asked back and not released yet."""
        return int(self.unbonding_text)

    @property
    def locked_wei(self) -> int:
        """At stake in open orders."""
        return int(self.locked_text)


class CreditRow(_View, frozen=True, kw_only=True):
    """What one settlement brought."""

    epoch: int
    amount_text: Digits = msgspec.field(name="amountWei")

    @property
    def amount_wei(self) -> int:
        """To be claimed, or claimed already."""
        return int(self.amount_text)


class AccountView(_View, frozen=True, kw_only=True):
    """An account's stakes, what is coming to it, and the latest of what came."""

    account: str
    stakes: tuple[StakeRow, ...]
    pending: tuple[ReceiptRow, ...]
    """Of orders that are sealed and not settled."""
    receipts: tuple[ReceiptRow, ...]
    credits: tuple[CreditRow, ...]


class Validations(_View, frozen=True):
    """The answer of ``GET /v1/orders/OID/validations``."""

    validations: tuple[ValidationRow, ...]


def read(what: str, shape: type[T], answer: Any) -> T:
    """``answer`` as a ``shape``.

    Raises:
        NetworkError: it is not what the API promises about ``what``.
    """
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as reason:
        raise NetworkError(f"an aggregator's answer about {what} cannot be read: {reason}") from reason
