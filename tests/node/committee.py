"""Four aggregators in one process: real nodes, journals and ledgers, links and chain in memory.

Guarantees: whatever a member sends passes ``bend`` first, so that a test can make it lie; messages arrive in
the order in which they were sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aggregator.journal.journal import Journal
from aggregator.node import Aggregator
from aggregator.origin.origin import OriginSource
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import LinkMessage
from aggregator.pbft.quorum import Members
from protocol.chain_events import AnyChainEvent, CommitteeChanged, ParameterChanged, Staked
from protocol.roles import Role
from tests.api.network import MemoryChain
from tests.ledger.world import DOMAIN, STAKE, TREASURY, key, who

PATIENCE_S = 60.0
NAMES = tuple(sorted((f"aggregator{number}" for number in range(4)), key=who))
"""The members by index."""
LIMITS = Limits(view_timeout_ms=1_000, retransmit_ms=200, checkpoint_interval=4)

Bend = Callable[[int, int, LinkMessage], Iterable[LinkMessage]]


@dataclass(slots=True)
class Committee:
    """The members, what each has noticed, and the chain they follow."""

    chain: MemoryChain
    nodes: list[Aggregator] = field(default_factory=list)
    inboxes: list[asyncio.Queue[tuple[int, LinkMessage]]] = field(default_factory=list)
    bend: Bend = lambda sender, to, message: [message]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    folder: Path = Path()
    limits: Limits = LIMITS

    def make(self, index: int, **options: Any) -> Aggregator:
        """A member with the journal that is in its folder."""
        node = Aggregator(
            members=Members(domain=DOMAIN, addresses=tuple(map(who, NAMES))),
            key=key(NAMES[index]),
            treasury=TREASURY,
            journal=Journal.at(self.folder / NAMES[index]),
            origins=OriginSource(self.chain),  # type: ignore[arg-type]
            confirmations=0,
            send=lambda to, message: self.send(index, to, message),
            limits=self.limits,
            **options,
        )
        # What the service reads from the chain.
        changes = [event for block in self.chain.blocks for event in block]
        appointed = [event for event in changes if isinstance(event, CommitteeChanged)]
        node.committees.update({event.epoch: event.members for event in appointed})
        try:
            node.recover()
        except BaseException:
            node._journal.close()
            raise
        return node

    def begin(self, index: int) -> None:
        """Let a member live: two tasks, in its two places."""
        node = self.nodes[index]
        self.inboxes[index] = asyncio.Queue()
        self.tasks[2 * index : 2 * index + 2] = [
            asyncio.create_task(node.run()),
            asyncio.create_task(self.deliver(index)),
        ]

    async def stop(self, index: int) -> None:
        """A member's process ends; the others go on."""
        ended = self.tasks[2 * index : 2 * index + 2]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        self.nodes[index]._journal.close()
        self.tasks[2 * index : 2 * index + 2] = [asyncio.create_task(asyncio.sleep(3600)) for _ in ended]

    def restart(self, index: int, **options: Any) -> None:
        """A stopped member starts again, from the journal in its folder."""
        for task in self.tasks[2 * index : 2 * index + 2]:
            task.cancel()
        self.nodes[index] = self.make(index, **options)
        self.begin(index)

    def send(self, sender: int, to: int | None, message: LinkMessage) -> None:
        """What a member's links do."""
        for index in range(len(NAMES)):
            if index != sender and to in (None, index):
                for bent in self.bend(sender, index, message):
                    self.inboxes[index].put_nowait((sender, bent))

    async def deliver(self, index: int) -> None:
        """What a member's service does with what arrives."""
        while True:
            sender, message = await self.inboxes[index].get()
            await self.nodes[index].on_link_message(sender, message)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for the committee to get there."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                for task in self.tasks:
                    if task.done():
                        await task  # raises what ended it
                await asyncio.sleep(0.01)


def first_block() -> list[AnyChainEvent]:
    """The committee with its stakes, and a provider's."""
    staked = [(name, Role.AGGREGATOR) for name in NAMES] + [("provider0", Role.PROVIDER)]
    return [
        CommitteeChanged(epoch=1, members=tuple(map(who, NAMES)), threshold=3),
        ParameterChanged(key="confirmations", value=0),
        ParameterChanged(key="update_s", value=1),
        *(Staked(account=who(name), role=int(role), amount=STAKE, bonded=STAKE) for name, role in staked),
    ]


@contextlib.asynccontextmanager
async def running(folder: Path, limits: Limits = LIMITS, **options: Any) -> AsyncIterator[Committee]:
    """A committee for the length of a test; ``options`` are those of its members."""
    committee = Committee(MemoryChain(blocks=[first_block()]), folder=folder, limits=limits)
    for index in range(len(NAMES)):
        committee.nodes.append(committee.make(index, **options))
        committee.inboxes.append(asyncio.Queue())
    for index in range(len(NAMES)):
        committee.begin(index)
    try:
        await committee.until(lambda: all(node.state.nodes for node in committee.nodes))
        yield committee
    finally:
        for task in committee.tasks:
            task.cancel()
        await asyncio.gather(*committee.tasks, return_exceptions=True)
        for node in committee.nodes:
            with contextlib.suppress(OSError):  # that of a member that was stopped is closed
                node._journal.close()
