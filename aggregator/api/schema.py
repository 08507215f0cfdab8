"""The shape of the API's answers, for OpenAPI and for tests that hold the answers against it.

Handlers do not build these: an answer leaves as it was encoded once, and `tests/api` checks that it fits. An
order of another kind than ``open`` has its task's own fields beside those of `OrderDetail`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Hex = Annotated[str, Field(pattern="^0x([0-9a-f]{2})*$")]
Wei = Annotated[str, Field(pattern="^-?[0-9]+$", description="decimal, in wei")]
Whole = Annotated[str, Field(pattern="^-?[0-9]+$", description="decimal")]
Ms = Annotated[int, Field(description="Unix milliseconds")]
Next = Annotated[str | None, Field(description="the cursor of the next page; null on the last one")]


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Reason(_Exact):
    code: str
    reason: str


class ErrorAnswer(_Exact):
    """Every error."""

    error: Reason


class NetworkOf(_Exact):
    chainId: int
    parameters: Hex
    treasury: Hex
    orders: Hex | None


class UpgradeOf(_Exact):
    """A protocol version that takes over with batch ``first``."""

    version: int
    first: int


class Status(_Exact):
    """Where one member stands."""

    network: NetworkOf
    version: str
    protocolVersion: int
    protocolUpgrade: UpgradeOf | None
    protocolSupported: tuple[int, int]
    member: int | None
    committeeEpoch: int
    handover: int | None
    members: list[Hex]
    view: int
    active: bool
    primary: int
    executed: int
    stable: int
    ledgerTimeMs: Ms
    clockMs: Ms
    origin: int | None
    waiting: int
    orders: int
    settledEpoch: int
    alarms: list[str]


class CommitteeMember(_Exact):
    index: int
    account: Hex
    api: str | None


class CommitteeAnswer(_Exact):
    """Who orders the ledger, and where each member's API is."""

    committeeEpoch: int
    member: int | None
    members: list[CommitteeMember]


class OrderSummary(_Exact):
    oid: Hex
    kind: str
    client: Hex
    phase: str
    deadlineMs: Ms | None
    takenMs: Ms
    rewardWei: Wei
    rewardRateWei: Wei
    claimCount: int | None
    winner: Hex | None
    score: Whole | None
    result: str | None


class Orders(_Exact):
    orders: list[OrderSummary]
    next: Next


class Receipt(_Exact):
    account: Hex
    oid: Hex
    role: str
    reason: str
    amountWei: Wei
    refs: list[Hex]


class PaidReceipt(Receipt):
    epoch: int
    tx: Hex
    atMs: Ms


class AccountAmount(_Exact):
    account: Hex
    amountWei: Wei


class SettlementAnswer(_Exact):
    epoch: int
    tx: Hex
    gasUsed: int
    atMs: Ms
    orders: list[Hex]
    credits: list[AccountAmount]


class Settlements(_Exact):
    settlements: list[SettlementAnswer]
    next: Next


class Phase(_Exact):
    phase: str
    atMs: Ms


class Claim(_Exact):
    provider: Hex
    claimedMs: Ms
    commitment: Hex
    mid: Hex | None
    sizeBytes: int | None
    links: list[str]
    score: Whole | None


class Validation(_Exact):
    vid: Hex
    mid: Hex
    validator: Hex
    vStakeWei: Wei
    score: Whole | None
    digest: Hex | None


class Validations(_Exact):
    validations: list[Validation]


class Challenge(_Exact):
    vid: Hex
    challenger: Hex
    cStakeWei: Wei
    score: Whole | None
    digest: Hex | None


class Juror(_Exact):
    juror: Hex
    stakeWei: Wei
    committed: bool
    score: Whole | None
    digest: Hex | None


class ScoreAnswer(_Exact):
    """What was said; null before anybody has."""

    score: Whole | None
    digest: Hex | None


Subject = Literal["model", "test set"]
JurorRole = Literal["provider", "validator", "verifier"]


class DisputeAnswer(_Exact):
    mid: Hex = Field(description="the model's, or the data root if it is about the test set")
    of: Subject
    round: int
    jurors: list[Juror]
    open: bool
    decided: bool
    verdict: ScoreAnswer


class ReportAnswer(_Exact):
    """Somebody says that something cannot be fetched."""

    subject: Hex
    of: Subject
    reporter: Hex
    role: JurorRole
    stakeWei: Wei
    id: Hex


class AppealAnswer(_Exact):
    """Somebody has a verdict judged again."""

    subject: Hex
    of: Subject
    appellant: Hex
    role: JurorRole
    bondWei: Wei
    against: ScoreAnswer
    id: Hex


class PutOrder(_Exact):
    """The order as the client signed it on the chain."""

    client: Hex
    nonce: Whole
    kind: str
    reward: Wei
    deposit: Wei
    trainWindow: Whole
    validateWindow: Whole
    challengeWindow: Whole
    taskHash: Hex
    taskLink: str
    dataRoot: Hex
    baseline: Whole


class OrderDetail(OrderSummary):
    model_config = ConfigDict(extra="allow")

    order: PutOrder
    blockHash: Hex
    parameters: dict[str, Whole]
    receipts: list[Receipt]
    mid: Hex | None
    settlement: SettlementAnswer | None
    phases: list[Phase] | None = None
    testLinks: list[str] | None = None
    claims: list[Claim] | None = None
    validations: list[Validation] | None = None
    challenges: list[Challenge] | None = None
    disputes: list[DisputeAnswer] | None = None
    reports: list[ReportAnswer] | None = None
    appeals: list[AppealAnswer] | None = None


class Model(_Exact):
    oid: Hex
    mid: Hex
    winner: Hex
    score: Whole
    sizeBytes: int
    links: list[str]
    settlement: SettlementAnswer | None


class Stake(_Exact):
    role: str
    bondedWei: Wei
    unbondingWei: Wei
    lockedWei: Wei


class NodeAnswer(_Exact):
    account: Hex
    endpoint: str
    stakes: list[Stake]


class Nodes(_Exact):
    nodes: list[NodeAnswer]
    next: Next


class Credit(_Exact):
    epoch: int
    amountWei: Wei
    proof: list[Hex]


class Credits(_Exact):
    credits: list[Credit]
    next: Next


class Receipts(_Exact):
    receipts: list[PaidReceipt]
    next: Next


class Account(_Exact):
    account: Hex
    nextNonce: Whole
    stakes: list[Stake]
    pending: list[Receipt]
    receipts: list[PaidReceipt]
    receiptsNext: Next
    credits: list[Credit]
    creditsNext: Next


class SignatureOf(_Exact):
    member: int
    signature: Hex


class StateProof(_Exact):
    sequence: int
    root: Hex
    signatures: list[SignatureOf]
    section: str
    key: Hex
    value: Hex
    path: list[Hex]


class ProvedReceipts(_Exact):
    receipts: list[Receipt]
    proof: StateProof


class TransactionAnswer(BaseModel):
    """What became of a transaction; all but id and status once it was ordered."""

    model_config = ConfigDict(extra="allow")

    id: Hex
    status: Literal["waiting", "accepted", "refused"]
    code: str | None = None
    reason: str | None = None
    sequence: int | None = None


class BatchItem(BaseModel):
    id: Hex | None
    status: Literal["waiting", "accepted", "refused"]
    code: str | None = None
    reason: str | None = None


class BatchAnswer(_Exact):
    transactions: list[BatchItem]
