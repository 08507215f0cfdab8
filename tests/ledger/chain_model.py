"""The contracts as far as the ledger depends on them, in a few lines of Python: a second opinion on reports.

Guarantees: `apply` refuses exactly what ``Settlement``, ``OrderBook`` and ``NodeRegistry`` refuse about
amounts, orders and epochs, so a report that passes here would not revert there. The chain runs ahead of the
ledger: what happens on it waits in `events` until the ledger takes it in.

Source: contracts/Settlement.sol, contracts/NodeRegistry.sol, contracts/OrderBook.sol.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from aggregator.ledger.state import PendingReport
from protocol.chain_events import (
    AnyChainEvent,
    CommitteeChanged,
    OrderPlaced,
    OrderReclaimed,
    ParameterChanged,
    Settled,
    Staked,
    UnstakeRequested,
)
from protocol.crypto import keccak256
from protocol.parameters import PARAMETERS
from protocol.transactions import Order

Position = tuple[bytes, int]
"""Account and role."""


class Reverted(Exception):
    """The chain refuses a report for a reason that time heals: an order reclaimed, another committee."""


@dataclass(slots=True)
class ChainModel:
    """Stakes, escrows and credits, all in wei."""

    bonded: Counter[Position] = field(default_factory=Counter)
    unbonding: Counter[Position] = field(default_factory=Counter)
    withdrawable: Counter[Position] = field(default_factory=Counter)
    escrows: dict[bytes, int] = field(default_factory=dict)
    credited: Counter[bytes] = field(default_factory=Counter)
    reclaimed_wei: int = 0
    deposited_wei: int = 0
    epoch: int = 0
    committee_epoch: int = 1
    events: deque[AnyChainEvent] = field(default_factory=deque)

    def stake(self, account: bytes, role: int, amount: int) -> None:
        """``NodeRegistry.register``."""
        self.bonded[account, role] += amount
        self.deposited_wei += amount
        bonded = self.bonded[account, role]
        self.events.append(Staked(account=account, role=role, amount=amount, bonded=bonded))

    def unstake(self, account: bytes, role: int, amount: int) -> None:
        """``NodeRegistry.requestUnstake``."""
        assert 0 < amount <= self.bonded[account, role]
        self.bonded[account, role] -= amount
        self.unbonding[account, role] += amount
        self.events.append(UnstakeRequested(account=account, role=role, amount=amount))

    def put(self, oid: bytes, order: Order) -> None:
        """``OrderBook.put``."""
        self.escrows[oid] = order.reward + order.deposit
        self.deposited_wei += order.reward + order.deposit
        self.events.append(OrderPlaced(oid=oid, order=order, block_hash=keccak256(oid)))

    def reclaim(self, oid: bytes) -> None:
        """``OrderBook.reclaim``, whose timeout the caller answers for."""
        self.reclaimed_wei += self.escrows.pop(oid)
        self.events.append(OrderReclaimed(oid=oid))

    def appoint(self, members: tuple[bytes, ...], threshold: int) -> None:
        """``Committee.change``."""
        self.committee_epoch += 1
        epoch = self.committee_epoch
        self.events.append(CommitteeChanged(epoch=epoch, members=members, threshold=threshold))

    def set_parameter(self, name: str, value: int) -> None:
        """``Parameters.set``, within its bounds."""
        rule = PARAMETERS[name]
        assert rule.low <= value <= rule.high
        self.events.append(ParameterChanged(key=name, value=value))

    def apply(self, report: PendingReport) -> None:
        """``Settlement.update``: all or nothing.

        Raises:
            Reverted: the report is about an order that is gone, or of another committee.
            AssertionError: the report is wrong in itself.
        """
        if report.committee_epoch != self.committee_epoch or any(
            o not in self.escrows for o in report.orders
        ):
            raise Reverted
        assert report.epoch == self.epoch + 1
        consumed = sum(self.escrows.pop(oid) for oid in report.orders)
        slashed = sum(amount for *_, amount in report.slashes)
        for account, role, amount in report.slashes:
            have = self.bonded[account, role] + self.unbonding[account, role]
            assert 0 < amount <= have, "NodeRegistry__StakeMissing on a slash"
            from_bonded = min(self.bonded[account, role], amount)
            self.bonded[account, role] -= from_bonded
            self.unbonding[account, role] -= amount - from_bonded
        for account, role, amount in report.releases:
            assert 0 < amount <= self.unbonding[account, role], "NodeRegistry__StakeMissing on a release"
            self.unbonding[account, role] -= amount
            self.withdrawable[account, role] += amount
        assert sum(amount for _, amount in report.credits) == consumed + slashed, "Settlement__NotConserved"
        for account, amount in report.credits:
            self.credited[account] += amount
        self.epoch = report.epoch
        self.events.append(
            Settled(epoch=report.epoch, root=bytes(32), transaction_hash=keccak256(b"tx"), gas_used=1)
        )

    def assert_solvent(self) -> None:
        """Raise ``AssertionError`` unless what came in is all still somewhere."""
        held = sum(map(Counter.total, (self.bonded, self.unbonding, self.withdrawable, self.credited)))
        assert held + sum(self.escrows.values()) + self.reclaimed_wei == self.deposited_wei
