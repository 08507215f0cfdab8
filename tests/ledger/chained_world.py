"""A world whose chain answers: what tests make happen on it goes through a chain model, the real contracts
behind it if that is a `ContractsBeside`, and the ledger takes in what the chain says happened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from protocol.roles import Role
from protocol.transactions import order_id
from tests.ledger.chain_model import ChainModel
from tests.ledger.world import STAKE, World, who


@dataclass(slots=True)
class ChainedWorld(World):
    """A `World` beside `chain`; of what happens there, only what the methods here say."""

    chain: ChainModel = field(default_factory=ChainModel)

    def stake(self, name: str, role: Role, amount: int = STAKE) -> None:
        self.chain.stake(who(name), int(role), amount)
        self._take_in()

    def unstake(self, name: str, role: Role, amount: int) -> None:
        self.chain.unstake(who(name), int(role), amount)
        self._take_in()

    def place(self, *, client: str = "client", **changes: Any) -> bytes:
        order = self.order(client=client, **changes)
        oid = order_id(self.state.domain, order)
        self.chain.put(oid, order)
        self._take_in()
        return oid

    def settle(self) -> None:
        assert self.state.report is not None
        self.chain.apply(self.state.report)
        self._take_in()

    def _take_in(self) -> None:
        events = [self.chain.events.popleft() for _ in range(len(self.chain.events))]
        self.block(events=events)
        self.chain.assert_solvent()
