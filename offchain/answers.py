"""What aggregators answer, as far as it is used on this side: read into types, or refused.

Guarantees: amounts and scores are integers (wei; millionths), times are Unix milliseconds, ids and addresses
are 0x-hex of their length and so are safe in paths; an answer that lacks something or has it in another form
is a `NetworkError`; fields that a newer API adds are ignored.

Actors work on orders' details as they were answered: `fetch_detail` and `fetch_open` give only those that
could be read.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec

from offchain.network import Answer, Network, NetworkError

MAX_DIGITS: Final = 80
STAKES_NAMED: Final = ("min_validation_stake_wei", "min_challenge_stake_wei")
"""Parameters of an order that those who work on it go by."""
NOTHING_YET: Final[dict[str, Any]] = {
    "phases": (),
    "testLinks": None,
    "claims": (),
    "validations": (),
    "challenges": (),
    "reports": (),
    "disputes": (),
    "appeals": (),
}
"""What an order of which nothing has been told says in its sections."""
Json = dict[str, Any]
T = TypeVar("T")

Digits = Annotated[str, msgspec.Meta(pattern=rf"\A-?[0-9]{{1,{MAX_DIGITS}}}\Z")]
"""A whole number as the API writes it, which JSON's numbers are too small for."""
Id = Annotated[str, msgspec.Meta(pattern=r"\A0x[0-9a-f]{64}\Z")]
"""An OID, a MID, a VID, a hash."""
Account = Annotated[str, msgspec.Meta(pattern=r"\A0x[0-9a-f]{40}\Z")]


class _View(msgspec.Struct, frozen=True, rename="camel"):
    """Base: names as the API has them."""


# Orders --------------------------------------------------------------------------------------------------


class OrderRow(_View, frozen=True, kw_only=True):
    """One order in a list."""

    oid: Id
    kind: str
    client: Account
    phase: str
    deadline_ms: int | None
    """End of its phase in ledger time; none once it is sealed."""
    claim_count: int | None
    winner: Account | None
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
        return _whole(self.score_text)


class Answered(_View, frozen=True, kw_only=True):
    """What somebody said a model is worth; nothing before it is revealed."""

    digest: Id | None
    score_text: Digits | None = msgspec.field(name="score")

    @property
    def score(self) -> int | None:
        """In millionths."""
        return _whole(self.score_text)


class ValidationRow(Answered, frozen=True, kw_only=True):
    """A validator's stake on its score of one model."""

    vid: Id
    mid: Id
    validator: Account
    stake_text: Digits = msgspec.field(name="vStakeWei")

    @property
    def v_stake_wei(self) -> int:
        """What the validator staked on it."""
        return int(self.stake_text)


class ClaimRow(_View, frozen=True, kw_only=True):
    """A provider's claim to have trained a model; without MID and size before it is revealed."""

    provider: Account
    commitment: Id
    mid: Id | None
    size_bytes: int | None
    links: tuple[str, ...]
    score_text: Digits | None = msgspec.field(name="score")

    @property
    def score(self) -> int | None:
        """The accepted score in millionths, if there is one."""
        return _whole(self.score_text)


class ChallengeRow(Answered, frozen=True, kw_only=True):
    """A verifier's stake on another score than a validation's."""

    vid: Id
    challenger: Account
    stake_text: Digits = msgspec.field(name="cStakeWei")

    @property
    def c_stake_wei(self) -> int:
        """What the challenger staked on it."""
        return int(self.stake_text)


class ReportRow(_View, frozen=True, kw_only=True):
    """Somebody says that a model, or the test set, cannot be fetched."""

    id: Id
    subject: Id
    of: str
    """``model`` or ``test set``."""
    reporter: Account
    stake_text: Digits = msgspec.field(name="stakeWei")

    @property
    def stake_wei(self) -> int:
        """What the reporter staked on it."""
        return int(self.stake_text)


class AppealRow(_View, frozen=True, kw_only=True):
    """Somebody has a verdict judged again."""

    subject: Id
    of: str
    """``model`` or ``test set``."""
    appellant: Account
    bond_text: Digits = msgspec.field(name="bondWei")

    @property
    def bond_wei(self) -> int:
        """What the appellant loses if the verdict stands."""
        return int(self.bond_text)


class Seat(Answered, frozen=True, kw_only=True):
    """A juror and its ballot."""

    juror: Account
    committed: bool


class DisputeRow(_View, frozen=True, kw_only=True):
    """A jury's work on one model, or under the data root on the test set."""

    mid: Id
    of: str
    round: int
    jurors: tuple[Seat, ...]
    open: bool
    verdict: Answered


class ReceiptRow(_View, frozen=True, kw_only=True):
    """Why an account was paid, or lost, something."""

    account: Account
    oid: Id
    role: str
    reason: str
    amount_text: Digits = msgspec.field(name="amountWei")

    @property
    def amount_wei(self) -> int:
        """Negative for a slash."""
        return int(self.amount_text)


class PaidRow(ReceiptRow, frozen=True, kw_only=True):
    """A receipt with the settlement that paid it."""

    epoch: int
    tx: Id
    at_ms: int


class PhaseRow(_View, frozen=True, kw_only=True):
    """When a phase began."""

    phase: str
    at_ms: int


class CreditedRow(_View, frozen=True, kw_only=True):
    """What a settlement brought one account."""

    amount_text: Digits = msgspec.field(name="amountWei")

    @property
    def amount_wei(self) -> int:
        """To be claimed, or claimed already."""
        return int(self.amount_text)


class SettlementRow(_View, frozen=True, kw_only=True):
    """One settlement as the chain applied it."""

    epoch: int
    tx: Id
    gas_used: int
    at_ms: int
    orders: tuple[Id, ...]
    credited: tuple[CreditedRow, ...] = msgspec.field(name="credits")


class PutFields(_View, frozen=True, kw_only=True):
    """What the client put on the chain."""

    task_hash: Id
    task_link: str
    data_root: Id
    baseline_text: Digits = msgspec.field(name="baseline")
    train_text: Digits = msgspec.field(name="trainWindow")

    @property
    def train_s(self) -> int:
        """Seconds of training."""
        return int(self.train_text)


class OrderView(OrderRow, frozen=True, kw_only=True):
    """One order with what happened in it."""

    order: PutFields
    block_hash: Id
    rate_text: Digits = msgspec.field(name="rewardRateWei")
    mid: Id | None
    parameters: dict[str, Digits]
    """The protocol's parameters that bind it."""
    receipts: tuple[ReceiptRow, ...]
    settlement: SettlementRow | None
    phases: tuple[PhaseRow, ...] = ()
    test_links: tuple[str, ...] | None = None
    claims: tuple[ClaimRow, ...] = ()
    validations: tuple[ValidationRow, ...] = ()
    challenges: tuple[ChallengeRow, ...] = ()
    reports: tuple[ReportRow, ...] = ()
    disputes: tuple[DisputeRow, ...] = ()
    appeals: tuple[AppealRow, ...] = ()


class OpenOrder(OrderView, frozen=True, kw_only=True):
    """A running ``open`` order: all that those who work on it go by."""

    deadline_ms: int
    phases: tuple[PhaseRow, ...]
    test_links: tuple[str, ...] | None
    claims: tuple[ClaimRow, ...]
    validations: tuple[ValidationRow, ...]
    challenges: tuple[ChallengeRow, ...]
    reports: tuple[ReportRow, ...]
    disputes: tuple[DisputeRow, ...]
    appeals: tuple[AppealRow, ...]


class Orders(_View, frozen=True):
    """The answer of ``GET /v1/orders``."""

    orders: tuple[OrderRow, ...]


class Validations(_View, frozen=True):
    """The answer of ``GET /v1/orders/OID/validations``."""

    validations: tuple[ValidationRow, ...]


class Settlements(_View, frozen=True):
    """The answer of ``GET /v1/settlements``."""

    settlements: tuple[SettlementRow, ...]


# Accounts ------------------------------------------------------------------------------------------------


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


class Stakes(_View, frozen=True):
    """Of the answer of ``GET /v1/accounts/ADDRESS``, the stakes."""

    stakes: tuple[StakeRow, ...]


class NodeRow(_View, frozen=True, kw_only=True):
    """A registered node."""

    account: Account
    endpoint: str
    stakes: tuple[StakeRow, ...]


class CreditRow(CreditedRow, frozen=True, kw_only=True):
    """What one settlement brought an account, and the proof that ``Settlement.claim`` wants."""

    epoch: int
    proof_text: tuple[Id, ...] = msgspec.field(name="proof")

    @property
    def proof(self) -> tuple[bytes, ...]:
        """A Merkle path, each 32 bytes."""
        return tuple(bytes.fromhex(part[2:]) for part in self.proof_text)


class AccountView(_View, frozen=True, kw_only=True):
    """An account's stakes, what is coming to it, and the latest of what came."""

    account: Account
    stakes: tuple[StakeRow, ...]
    pending: tuple[ReceiptRow, ...]
    """Of orders that are sealed and not settled."""
    receipts: tuple[PaidRow, ...]
    credits: tuple[CreditRow, ...]


# Aggregators ---------------------------------------------------------------------------------------------


class Standing(_View, frozen=True, kw_only=True):
    """Where an aggregator stands, as it says itself."""

    member: int | None
    view: int
    active: bool
    primary: int
    executed: int
    stable: int
    origin: int | None
    waiting: int
    orders: int
    clock_ms: int
    alarms: tuple[str, ...]


# Reading -------------------------------------------------------------------------------------------------


def read(what: str, shape: type[T], answer: Any) -> T:
    """``answer`` as a ``shape``.

    Raises:
        NetworkError: it is not what the API promises about ``what``.
    """
    try:
        return msgspec.convert(answer, shape)
    except msgspec.ValidationError as reason:
        raise NetworkError(f"an aggregator's answer about {what} cannot be read: {reason}") from reason


def fetch_detail(network: Network, oid: str) -> Json:
    """``GET /v1/orders/OID`` as it was answered, if it can be read as an `OrderView`.

    Sections that it lacks, as orders of other kinds do, are there and empty.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
        NotFound: there is no such order.
    """
    return Answer({**NOTHING_YET, **_ask_about(network, oid)[0]})


def fetch_order(network: Network, oid: str) -> OrderView:
    """The same as a type."""
    return _ask_about(network, oid)[1]


def fetch_open(network: Network, oid: str) -> Json | None:
    """The same of an ``open`` order that is worked on, as an `OpenOrder`; none once it is sealed."""
    detail, view = _ask_about(network, oid)
    if view.phase in ("sealed", "settled"):
        return None
    parameters = read(f"order {oid}", OpenOrder, detail).parameters
    for name in STAKES_NAMED:
        if name not in parameters:
            raise NetworkError(f"an aggregator's answer about order {oid} cannot be read: it lacks {name}")
    return detail


def _ask_about(network: Network, oid: str) -> tuple[Answer, OrderView]:
    """What was answered about an order, and what it says."""
    answer = network.get(f"/v1/orders/{oid}")
    view = read(f"order {oid}", OrderView, answer)
    if view.oid != oid:
        raise NetworkError(f"an aggregator was asked about order {oid} and tells of another")
    return answer, view


def fetch_parameters(network: Network) -> dict[str, int]:
    """The protocol's parameters in force, by name.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
    """
    found = read("parameters", dict[str, Digits], network.get("/v1/parameters"))
    return Answer({name: int(value) for name, value in found.items()})


def fetch_stakes(network: Network, account: str) -> tuple[StakeRow, ...]:
    """Stakes of ``account`` (0x-hex, lower case), by role; none of who never registered.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
    """
    return read("stakes", Stakes, network.get(f"/v1/accounts/{account}")).stakes


def fetch_credits(network: Network, account: str) -> list[CreditRow]:
    """Settled credits of ``account`` (0x-hex), paid out or not, oldest first.

    Raises:
        NetworkError: no aggregator answers, or not as it should.
    """
    return read("credits", list[CreditRow], list(network.pages(f"/v1/accounts/{account}/credits", "credits")))


def _whole(text: str | None) -> int | None:
    return None if text is None else int(text)
