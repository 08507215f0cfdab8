"""The ledger's state: ``L = <models, pool, table, nodes>`` (PoT table 1) and what binds it to the chain.

Everything is frozen; maps are persistent (`immutables.Map`), so that a refused transaction cannot leave
a trace and old states stay valid. Maps have no order of their own: whoever iterates sorts by key.

PoT's ``txPool`` is not here: what waits for the committee's order is the node's mempool, outside
consensus. ``models`` lives inside each order's task state, keyed by claimant, until settlement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from immutables import Map

from protocol.parameters import DEFAULTS, Parameters
from protocol.roles import Role
from protocol.transactions import Order
from protocol.typed_data import Domain
from protocol.version import FIRST_VERSION

HANDOVER_LEAD: Final = 256
"""Batches between the one that takes a committee change in and the hand-over.

At least the window of consensus: whoever may vote beyond the hand-over has then executed the change.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The chain block up to which contract events were taken in."""

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """One account's stake in one role, all in wei. ``bonded + unbonding >= locked + slashed`` always.

    ``bonded`` and ``unbonding`` are what ``NodeRegistry`` holds, less the releases of the pending report.
    """

    bonded: int = 0
    unbonding: int = 0
    """On its way out, still slashable until a settlement releases it."""
    locked: int = 0
    """What backs open claims, validations or challenges."""
    slashed: int = 0
    """Taken by sealed orders; the chain still holds it until their settlement."""

    @property
    def standing(self) -> int:
        """Bonded stake that no sealed order has taken: what a role's minimum and a jury count."""
        return max(0, self.bonded - self.slashed)

    @property
    def free(self) -> int:
        """What may still be locked: stake on its way out backs nothing new."""
        return max(0, self.bonded - self.slashed - self.locked)

    @property
    def spare(self) -> int:
        """What may leave: stake that neither a lock nor a slash needs."""
        return self.bonded + self.unbonding - self.locked - self.slashed


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbonding:
    """Stake on its way out; the ledger releases it once ``due_ms`` has passed."""

    account: bytes
    role: Role
    amount_wei: int
    due_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A registered participant (PoT ``nInfo``)."""

    stakes: tuple[tuple[Role, Stake], ...] = ()
    endpoint: str = ""
    link_key: bytes = bytes(32)

    def stake(self, role: Role) -> Stake:
        """The stake in ``role``; zero when there is none."""
        return next((stake for name, stake in self.stakes if name is role), Stake())

    def with_stake(self, role: Role, stake: Stake) -> Node:
        """A copy with the stake in one role replaced."""
        others = [(name, old) for name, old in self.stakes if name is not role]
        return Node(
            stakes=tuple(sorted([*others, (role, stake)], key=lambda item: item[0])),
            endpoint=self.endpoint,
            link_key=self.link_key,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Committee:
    """The aggregators, as ``Committee.sol`` names them."""

    epoch: int = 0
    members: tuple[bytes, ...] = ()
    threshold: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """Rules of a higher protocol version that the chain has named."""

    version: int
    first: int
    """The first batch that is executed by them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Why an account was credited (positive) or debited (negative): design section 4, "Receipts"."""

    account: bytes
    oid: bytes
    """The order, or the id of the evidence that a penalty follows from."""
    role: str
    reason: str
    amount_wei: int
    refs: tuple[bytes, ...] = ()
    """Ids this follows from: MIDs, VIDs, the id of the transaction that revealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slash:
    """Stake that an order's outcome takes from a node; it leaves with the order's settlement."""

    account: bytes
    role: Role
    amount_wei: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a sealed order pays: receipts sum to ``reward + deposit`` for every order, exactly."""

    winner: bytes | None
    mid: bytes | None
    score: int | None
    reason: str
    receipts: tuple[Receipt, ...]
    slashes: tuple[Slash, ...]

    @property
    def credits(self) -> tuple[Receipt, ...]:
        """The receipts that pay out."""
        return tuple(receipt for receipt in self.receipts if receipt.amount_wei > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """What one piece of evidence takes and gives: receipts sum to zero, the debit being the slash."""

    id: bytes
    """`protocol.evidence.evidence_id`."""
    receipts: tuple[Receipt, ...]
    slash: Slash

    @property
    def credits(self) -> tuple[Receipt, ...]:
        """The receipts that pay out."""
        return tuple(receipt for receipt in self.receipts if receipt.amount_wei > 0)


class TaskState(Protocol):
    """What the ledger needs to know of a task protocol's own state."""

    @property
    def phase(self) -> str:
        """Name of the phase the order is in."""
        ...


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One order's row in the network record table."""

    oid: bytes
    order: Order
    block_hash: bytes
    """Hash of the chain block that contains the order: seed of the data split."""
    taken_ms: int
    """t0: ledger time of the batch that took the order in."""
    parameters: Parameters
    """Values in force at t0; later votes do not touch this order."""
    task: Any
    """The task protocol's state (a `TaskState`); None of a kind that no task protocol knows."""
    outcome: Outcome | None = None
    """Set when the order is sealed; nothing changes it afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingReport:
    """The settlement of one update cycle, from its making until the chain confirms it."""

    epoch: int
    committee_epoch: int
    made_ms: int
    orders: tuple[bytes, ...]
    slashes: tuple[tuple[bytes, Role, int], ...]
    releases: tuple[tuple[bytes, Role, int], ...]
    credits: tuple[tuple[bytes, int], ...]
    penalties: tuple[Penalty, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A report that the chain applied."""

    report: PendingReport
    entries: tuple[tuple[bytes, bytes], ...]
    """OID and hash of every order that the ledger dropped with it."""
    transaction_hash: bytes
    gas_used: int
    at_ms: int


@dataclass(frozen=True, kw_only=True)
class State:
    """The whole ledger after some batch."""

    domain: Domain
    treasury: bytes
    sequence: int = 0
    now_ms: int = 0
    origin: Origin | None = None
    parameters: Parameters = DEFAULTS
    committee: Committee = Committee()
    """The committee in force on the chain: it signs settlements."""
    ordering: Committee = Committee()
    """The committee that orders the next batch; it follows ``committee`` at `handover`."""
    handover: int | None = None
    """The last sequence number that ``ordering`` orders, once the chain has named another committee."""
    lead: int = HANDOVER_LEAD
    """How many batches after the change was taken in the hand-over lies; see `HANDOVER_LEAD`."""
    version: int = FIRST_VERSION
    """The protocol version by whose rules the last batch was executed; see `aggregator.ledger.rules`."""
    upgrade: Upgrade | None = None
    """The version that takes over, once the chain has named one."""
    nodes: Mapping[bytes, Node] = field(default_factory=Map)
    nonces: Mapping[bytes, int] = field(default_factory=Map)
    table: Mapping[bytes, Entry] = field(default_factory=Map)
    sealed: tuple[bytes, ...] = ()
    """Orders waiting for a settlement, in the order they were sealed."""
    penalties: tuple[Penalty, ...] = ()
    """Penalties waiting for a settlement, oldest first."""
    unbonding: tuple[Unbonding, ...] = ()
    report: PendingReport | None = None
    settled_epoch: int = 0
    next_update_ms: int = 0
    receipt_roots: Mapping[bytes, bytes] = field(default_factory=Map)
    """Per settled order or penalty, the Merkle root of its receipts."""
    punished: Mapping[bytes, bytes] = field(default_factory=Map)
    """Per offence (`protocol.evidence.offence_id`), the evidence it was punished for."""
    history: bytes = bytes(32)
    """Hash chain over all settlements: what the ledger has dropped can still be checked against it."""


def genesis(domain: Domain, treasury: bytes, lead: int = HANDOVER_LEAD) -> State:
    """The ledger before its first batch: everything else arrives through chain events."""
    return State(domain=domain, treasury=treasury, lead=lead)
