"""A scripted chain, and each member's own node on it: behind the others, on another branch, or both.

The ledger's product code reads it through `aggregator.origin.origin.OriginSource`, as it reads a real one.
A branch has other blocks from some number on, and what happens in them happens a block later. Branches no
deeper than the confirmations must never be noticed by the ledger; a deeper one that all nodes follow for a
while must halt new origins everywhere and fork nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from aggregator.ledger.state import State
from aggregator.origin.origin import OriginSource, Proposal
from protocol.chain.client import ChainError
from protocol.chain_events import (
    AnyChainEvent,
    CommitteeChanged,
    OrderPlaced,
    ParameterChanged,
    Staked,
)
from protocol.crypto import keccak256
from protocol.roles import Role
from protocol.transactions import Order, order_id
from protocol.typed_data import Domain

BLOCK_MS: Final = 1_000
CONFIRMATIONS: Final = 4


def threshold(members: tuple[bytes, ...]) -> int:
    """Signatures that a settlement of this committee needs."""
    return len(members) - (len(members) - 1) // 3


@dataclass(frozen=True, slots=True)
class Branch:
    """Blocks from ``start`` on that the chain will not keep."""

    start: int
    salt: int


class Chain:
    """What the chain will have said in the end; time 0 is the first question, when block 1 is confirmed."""

    def __init__(
        self,
        domain: Domain,
        members: tuple[bytes, ...],
        newcomers: tuple[bytes, ...],
        providers: tuple[bytes, ...],
        orders: list[Order],
        choose: random.Random,
        raise_at: int = 0,
    ) -> None:
        self.committees = {1: members}
        """Members by epoch."""
        self._start_ms: int | None = None
        self._choose = choose
        self._blocks: dict[int, list[AnyChainEvent]] = {1: self._setup(members, providers)}
        for number, order in enumerate(orders):
            placed = OrderPlaced(oid=order_id(domain, order), order=order, block_hash=bytes(32))
            self._blocks[2 + 2 * number] = [placed]
        for number, provider in enumerate(providers):
            more = Staked(account=provider, role=int(Role.PROVIDER), amount=1, bonded=10**21 + 1)
            self._blocks[12 + 5 * number] = [more]
        for number, newcomer in enumerate(newcomers):
            self._blocks[3 + 4 * number] = [self._change(2 + number, newcomer)]

        if raise_at:
            # Not alone in its block, where orders or newcomers come in the same.
            raised = ParameterChanged(key="protocol_version", value=2)
            self._blocks.setdefault(raise_at, []).append(raised)

    def _change(self, epoch: int, newcomer: bytes) -> CommitteeChanged:
        stay = list(self.committees[epoch - 1])
        if epoch > 2:
            stay.remove(self._choose.choice(stay))
        members = tuple(sorted([*stay, newcomer]))
        self.committees[epoch] = members
        return CommitteeChanged(epoch=epoch, members=members, threshold=threshold(members))

    def appointed(self, now_ms: int) -> dict[int, tuple[bytes, ...]]:
        """The committees that the chain has named so far, by epoch."""
        head = self.head(now_ms) - CONFIRMATIONS
        return {epoch: who for epoch, who in self.committees.items() if epoch == 1 or 4 * epoch - 5 <= head}

    @staticmethod
    def _setup(members: tuple[bytes, ...], providers: tuple[bytes, ...]) -> list[AnyChainEvent]:
        stake = 10**21
        return [
            ParameterChanged(key="protocol_version", value=1),  # a deployment says all of them
            ParameterChanged(key="reveal_s", value=4),
            ParameterChanged(key="update_s", value=2),
            CommitteeChanged(epoch=1, members=members, threshold=threshold(members)),
            *(
                Staked(account=provider, role=int(Role.PROVIDER), amount=stake, bonded=stake)
                for provider in providers
            ),
        ]

    def head(self, now_ms: int) -> int:
        """Number of the latest block."""
        self._start_ms = self._start_ms or now_ms
        return 1 + CONFIRMATIONS + (now_ms - self._start_ms) // BLOCK_MS

    @staticmethod
    def block_hash(number: int, branch: Branch | None) -> bytes:
        """Hash of a block as a node on ``branch`` has it."""
        left = branch is not None and number >= branch.start
        return keccak256(b"block %d of %d" % (number, branch.salt if left and branch else 0))

    def events(self, after: int, number: int, branch: Branch | None) -> list[tuple[int, AnyChainEvent]]:
        """What happened in blocks ``after + 1`` to ``number`` as a node on ``branch`` has it."""
        found = []
        for block, events in sorted(self._blocks.items()):
            place = block + (branch is not None and block >= branch.start)
            if after < place <= number:
                found += [(place, self._placed(event, place, branch)) for event in events]
        return found

    def _placed(self, event: AnyChainEvent, block: int, branch: Branch | None) -> AnyChainEvent:
        if isinstance(event, OrderPlaced):
            return OrderPlaced(oid=event.oid, order=event.order, block_hash=self.block_hash(block, branch))
        return event


class ChainNode:
    """One member's chain node: a `ChainReader` for the product's `OriginSource`."""

    first_block = 0

    def __init__(self, chain: Chain, origins: type[OriginSource], lag: int) -> None:
        self._chain, self._lag = chain, lag
        self.branch: Branch | None = None
        self.now_ms = 0
        self.origins = origins(self)  # type: ignore[arg-type]

    def heal(self) -> None:
        """Follow the chain that stays, as it is."""
        self.branch, self._lag = None, 0

    def head(self) -> int:
        """See `ChainReader`."""
        return self._chain.head(self.now_ms) - self._lag

    def block_hash(self, number: int) -> bytes:
        """See `ChainReader`."""
        if number > self.head():
            raise ChainError(f"no block {number} yet")
        return self._chain.block_hash(number, self.branch)

    def read(self, after: int, number: int) -> list[tuple[int, AnyChainEvent]]:
        """See `ChainReader`."""
        return self._chain.events(after, number, self.branch)

    def propose(self, state: State, now_ms: int) -> Proposal | None:
        """What a primary at ``state`` would take in next; none if nothing happened."""
        self.now_ms = now_ms
        try:
            return self.origins.propose(state.origin, CONFIRMATIONS)
        except ChainError:
            return None

    def confirm(self, proposal: Proposal, state: State, now_ms: int) -> bool | None:
        """Whether this node says the same; none if it cannot tell yet."""
        self.now_ms = now_ms
        try:
            return self.origins.confirm(proposal, state.origin, CONFIRMATIONS)
        except ChainError:
            return None
