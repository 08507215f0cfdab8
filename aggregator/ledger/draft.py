"""One operation's working copy of the ledger: changed freely, then kept whole or dropped whole.

A `Draft` is made for every chain event, transaction and phase change. If the operation raises a
`Refused`, the draft is forgotten and the state it started from is still the state: that is how a refused
transaction leaves no trace.

Guarantees about stakes: ``bonded + unbonding >= locked + slashed`` for every account and role, so that the
chain finds every slash and every release that the ledger reports.
"""

from __future__ import annotations

import dataclasses

from aggregator.ledger.changed import changed
from aggregator.ledger.events import LedgerEvent
from aggregator.ledger.refusals import NotStaked
from aggregator.ledger.state import Entry, Node, Stake, State
from protocol.roles import Role


class Draft:
    """Mutable view of a `State` during one operation."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.events: list[LedgerEvent] = []

    @property
    def now_ms(self) -> int:
        """Ledger time of the batch being applied."""
        return self.state.now_ms

    def emit(self, event: LedgerEvent) -> None:
        """Record what happened, for read models."""
        self.events.append(event)

    def put_entry(self, entry: Entry) -> None:
        """Write one order's row."""
        self.state = changed(self.state, table=self.state.table.set(entry.oid, entry))  # type: ignore[attr-defined]

    def node(self, account: bytes) -> Node:
        """The registered node, or one without stakes."""
        return self.state.nodes.get(account, Node())

    def put_node(self, account: bytes, node: Node) -> None:
        """Write one node."""
        self.state = changed(self.state, nodes=self.state.nodes.set(account, node))  # type: ignore[attr-defined]

    def _put_stake(self, account: bytes, role: Role, stake: Stake) -> None:
        assert min(stake.bonded, stake.unbonding, stake.locked, stake.slashed, stake.spare) >= 0, (
            account.hex(),
            role,
            stake,
        )
        self.put_node(account, self.node(account).with_stake(role, stake))

    def require_stake(self, account: bytes, role: Role, minimum_wei: int) -> None:
        """Refuse unless ``account`` has at least ``minimum_wei`` bonded in ``role``."""
        standing = self.node(account).stake(role).standing
        if standing < max(1, minimum_wei):
            raise NotStaked(role.name.lower(), standing, max(1, minimum_wei))

    def lock(self, account: bytes, role: Role, amount_wei: int) -> None:
        """Lock free stake, or refuse."""
        stake = self.node(account).stake(role)
        if stake.free < amount_wei:
            raise NotStaked(role.name.lower(), stake.free, amount_wei)
        self._put_stake(account, role, dataclasses.replace(stake, locked=stake.locked + amount_wei))

    def unlock(self, account: bytes, role: Role, amount_wei: int) -> None:
        """Give locked stake back."""
        stake = self.node(account).stake(role)
        self._put_stake(account, role, dataclasses.replace(stake, locked=stake.locked - amount_wei))

    def slash(self, account: bytes, role: Role, amount_wei: int) -> None:
        """Mark stake as taken; it was locked and just unlocked, so it is there."""
        stake = self.node(account).stake(role)
        self._put_stake(account, role, dataclasses.replace(stake, slashed=stake.slashed + amount_wei))

    def spare_slash(self, account: bytes, role: Role, amount_wei: int) -> None:
        """Take a slash back: its order left the ledger without a settlement."""
        stake = self.node(account).stake(role)
        self._put_stake(account, role, dataclasses.replace(stake, slashed=stake.slashed - amount_wei))

    def settle_slash(self, account: bytes, role: Role, amount_wei: int) -> None:
        """The chain took slashed stake: bonded first, as ``NodeRegistry.slash`` does."""
        stake = self.node(account).stake(role)
        from_bonded = min(stake.bonded, amount_wei)
        self._put_stake(
            account,
            role,
            dataclasses.replace(
                stake,
                bonded=stake.bonded - from_bonded,
                unbonding=stake.unbonding - (amount_wei - from_bonded),
                slashed=stake.slashed - amount_wei,
            ),
        )

    def bond(self, account: bytes, role: Role, amount_wei: int) -> None:
        """Stake arrived."""
        stake = self.node(account).stake(role)
        self._put_stake(account, role, dataclasses.replace(stake, bonded=stake.bonded + amount_wei))

    def unbond(self, account: bytes, role: Role, amount_wei: int) -> None:
        """Stake starts to leave."""
        stake = self.node(account).stake(role)
        self._put_stake(
            account,
            role,
            dataclasses.replace(
                stake, bonded=stake.bonded - amount_wei, unbonding=stake.unbonding + amount_wei
            ),
        )

    def release(self, account: bytes, role: Role, amount_wei: int) -> int:
        """Stake leaves for good, as far as nothing holds it; returns how much left."""
        stake = self.node(account).stake(role)
        released = releasable(stake, amount_wei)
        self._put_stake(account, role, dataclasses.replace(stake, unbonding=stake.unbonding - released))
        return released


def releasable(stake: Stake, amount_wei: int) -> int:
    """How much of ``amount_wei`` on its way out may leave now."""
    return max(0, min(amount_wei, stake.unbonding, stake.spare))
