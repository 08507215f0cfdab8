"""Members in virtual time: the same code, one machine per member, computing takes as long as measured.

A machine does one thing at a time. What it does is really done, by the code under measurement, and the CPU
time of this thread that it took is how long the machine was busy; then its messages leave. Carrying a message
costs the sender and the receiver what `_measured_link_costs` measured on real links of this machine before.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aggregator.links.keys import LinkKey
from aggregator.links.links import Links, Peer
from aggregator.node import TICK_S
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import (
    Fetch,
    Forward,
    LinkMessage,
    decode_message,
    encode_message,
)
from benchmarks._claims import ledger_with_order
from benchmarks._member import Member, MemberMessage, Reply, committee, open_reply
from benchmarks._wire import Conditions, Wire
from dtn.devnet.ports import Ports
from protocol.crypto import Key, keccak256

SMALL_GROUPS: Final = 500
LARGE_GROUPS: Final = 3
LARGE_BYTES: Final = 1_000_000
CLIENT: Final = 1_000
REPLY_TIMEOUT_S: Final = 600.0
GROUP: Final = 8
"""Messages that arrive together, in the measurement of link costs: as votes of one phase do."""


@dataclass(frozen=True, slots=True)
class LinkCosts:
    """CPU seconds that a message costs each of its two ends."""

    per_message_s: float
    per_byte_s: float

    def of(self, size_bytes: int) -> float:
        """One end's share for one message."""
        return self.per_message_s + size_bytes * self.per_byte_s


async def _measured_link_costs() -> LinkCosts:
    keys = [LinkKey.derive(Key(keccak256(b"link %d" % n))) for n in range(2)]
    with Ports() as drawn:
        ports = drawn.take(2)
    peers = {
        n: Peer(index=n, address=f"tcp://127.0.0.1:{ports[n]}", link_key=keys[n].public) for n in range(2)
    }
    ends = [Links(keys[n], peers[n].address) for n in range(2)]
    for end in ends:
        end.set_peers(peers)
        end.start()

    async def cost_s(message: LinkMessage, groups: int) -> float:
        start = time.process_time()
        for _ in range(groups):
            for _ in range(GROUP):
                ends[0].send(1, message)
            arrived = 0
            while arrived < GROUP:
                arrived += len(await ends[1].receive())
        return (time.process_time() - start) / (groups * GROUP)

    await cost_s(Fetch(0), 1)
    small_s = min([await cost_s(Fetch(1), SMALL_GROUPS) for _ in range(3)])
    large_s = min([await cost_s(Forward((bytes(LARGE_BYTES),)), LARGE_GROUPS) for _ in range(3)])
    for end in ends:
        await end.close()
    return LinkCosts(small_s / 2, (large_s - small_s) / LARGE_BYTES / 2)


Work = Callable[[], float]
"""Something a machine does; returns the seconds that carrying its message cost, on top of what it took."""


@dataclass(slots=True)
class Machine:
    """One member's computer."""

    wire: Wire
    busy_until_s: float = 0.0
    outbox: list[tuple[int | None, MemberMessage]] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)


class VirtualNetwork:
    """A committee in virtual time and its client; made by `running`."""

    def __init__(
        self,
        nodes: int,
        conditions: Conditions,
        costs: LinkCosts,
        *,
        ledger: bool,
        started_ms: int,
        limits: Limits,
    ) -> None:
        self.members, keys = committee(nodes)
        self.client_key = Key(keccak256(b"benchmark client"))
        self.costs = costs
        self._now_s = started_ms / 1e3
        self._events: list[tuple[float, int, int, Work]] = []
        self._order = itertools.count()
        self._wire = Wire(conditions, seed=0)
        self._arrived: list[tuple[float, bytes]] = []
        self._machines = [Machine(Wire(conditions, seed=index + 1)) for index in range(nodes)]
        seen = [committee(nodes)[0] for _ in range(nodes)]
        self._nodes = [
            Member(
                seen[index],
                index,
                keys[index],
                send=self._sender(index),
                reply=self._machines[index].replies.append,
                clock_ms=lambda: int(self._now_s * 1e3),
                limits=limits,
                state=ledger_with_order(seen[index].domain, seen[index].addresses, started_ms)[0]
                if ledger
                else None,
            )
            for index in range(nodes)
        ]
        for index in range(nodes):
            self._at(self._now_s, index, self._ticking(index))

    def _sender(self, index: int) -> Callable[[int | None, MemberMessage], None]:
        outbox = self._machines[index].outbox
        return lambda to, message: outbox.append((to, message))

    def _at(self, when_s: float, index: int, work: Work) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), index, work))

    def _ticking(self, index: int) -> Work:
        def tick() -> float:
            self._nodes[index].on_tick()
            self._at(self._now_s + TICK_S, index, tick)
            return 0.0

        return tick

    def _step(self) -> None:
        """Let the machine whose turn is next do what it has to, and be busy for as long as that took."""
        when_s, _, index, work = heapq.heappop(self._events)
        machine = self._machines[index]
        if machine.busy_until_s > when_s:
            self._at(machine.busy_until_s, index, work)
            return
        self._now_s = when_s
        start = time.thread_time()
        carrying_s = work()
        done_s = when_s + time.thread_time() - start + carrying_s
        for to, message in machine.outbox:
            data = encode_message(message)
            for peer in (to,) if to is not None else range(len(self._machines)):
                if peer != index:
                    done_s += self.costs.of(len(data))
                    arrival_s = machine.wire.arrival_s(peer, len(data), done_s)
                    self._at(arrival_s, peer, self._receiving(peer, index, data))
        for reply in machine.replies:
            done_s += self.costs.of(len(reply))
            self._arrived.append((machine.wire.arrival_s(CLIENT, len(reply), done_s), reply))
        machine.outbox.clear()
        machine.replies.clear()
        machine.busy_until_s = done_s

    def _receiving(self, index: int, sender: int, data: bytes) -> Work:
        def receive() -> float:
            message: Any = decode_message(data)
            self._nodes[index].on_message(sender, message)
            return self.costs.of(len(data))

        return receive

    def request(self, data: bytes, batches: Sequence[bytes], replies: int) -> tuple[float, bool]:
        """As `benchmarks._sockets.Network.request`, in virtual seconds."""
        started_s = self._now_s
        self._arrived.clear()
        arrival_s = self._wire.arrival_s(0, len(data), started_s)

        def ask() -> float:
            self._nodes[0].on_request(data)
            return self.costs.of(len(data))

        self._at(arrival_s, 0, ask)
        while len(self._arrived) < len(batches) * len(self._nodes):
            self._step()
            if self._now_s > started_s + REPLY_TIMEOUT_S:
                raise TimeoutError(f"{len(self._arrived)} replies only")
        faults = [fault for node in self._nodes for fault in node.misbehaved]
        if faults:
            raise RuntimeError(f"members complained: {faults[:3]}")
        said: dict[bytes, dict[int, Reply]] = {root: {} for root in batches}
        taken_s = 0.0
        checked_s = 0.0
        for at_s, encoded in sorted(self._arrived):
            start = time.thread_time()
            reply = open_reply(encoded, self.members)
            checked_s = max(checked_s, at_s) + time.thread_time() - start
            said[reply.transactions][reply.member] = reply
            if not taken_s and all(len(by) >= replies for by in said.values()):
                taken_s = checked_s - started_s
        agreed = all(len({(r.sequence, r.result) for r in by.values()}) == 1 for by in said.values())
        self._now_s = max(self._now_s, started_s + taken_s)
        return taken_s, agreed


@contextlib.contextmanager
def running(
    nodes: int,
    processes: int,
    *,
    ledger: bool,
    durable: bool,
    conditions: Conditions,
    started_ms: int,
    limits: Limits,
) -> Iterator[VirtualNetwork]:
    """A committee in virtual time, in this one process.

    Raises:
        ValueError: asked to be durable; a virtual machine has no disk.
    """
    if durable:
        raise ValueError("a run in virtual time has no disk: leave --durable away")
    assert processes == 1
    costs = asyncio.run(_measured_link_costs())
    yield VirtualNetwork(nodes, conditions, costs, ledger=ledger, started_ms=started_ms, limits=limits)
