"""Members on real sockets: processes that each run some of them, and the client that asks them.

Every member has its own key, link key, `Links`, replica and, if asked for, journal; those that share a
process share its event loop. The client is reached like a member: every member has `Links` to it beside those
to the others, and requests and replies travel in `Forward`. An emulated network delays messages before they
reach a socket (`benchmarks._wire`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from aggregator.journal.journal import Journal
from aggregator.links.keys import LinkKey
from aggregator.links.links import Links, Peer
from aggregator.node import TICK_S, now_ms
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import (
    FetchSnapshot,
    Forward,
    ReportSignature,
    SnapshotPart,
    encode_message,
)
from benchmarks._claims import ledger_with_order
from benchmarks._member import Member, MemberMessage, Reply, committee, open_reply
from benchmarks._wire import Conditions, Wire
from dtn.devnet.ports import Ports
from protocol.crypto import Key, keccak256

CONNECT_TIMEOUT_S: Final = 60.0
REPLY_TIMEOUT_S: Final = 300.0
CLIENT: Final = 1_000
"""The client's index: no member's."""
CLIENT_KEY: Final = Key(keccak256(b"benchmark client"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every process must know."""

    nodes: int
    processes: int
    ledger: bool
    """Whether members execute ledger transactions; else payloads are opaque."""
    durable: bool
    conditions: Conditions
    link_ports: tuple[int, ...]
    request_ports: tuple[int, ...]
    reply_port: int
    started_ms: int
    limits: Limits
    folder: str

    def of(self, process: int) -> range:
        """The members that a process runs."""
        return range(process, self.nodes, self.processes)


class SocketMember:
    """A `Member` with its sockets, in an asyncio loop."""

    def __init__(self, plan: Plan, index: int) -> None:
        members, keys = committee(plan.nodes)
        self.key, self.index, self.count = keys[index], index, plan.nodes
        link_keys = [LinkKey.derive(key) for key in keys]
        self.links = Links(link_keys[index], _address(plan.link_ports[index]))
        self._peers = {n: _peer(n, plan.link_ports[n], link_keys[n]) for n in range(plan.nodes)}
        self.client_links = Links(link_keys[index], _address(plan.request_ports[index]))
        self._client = _peer(CLIENT, plan.reply_port, LinkKey.derive(CLIENT_KEY))
        self._wire = Wire(plan.conditions, seed=index + 1)
        self._heard: set[int] = set()
        self.everyone_heard = asyncio.Event()
        state = None
        if plan.ledger:
            state, _ = ledger_with_order(members.domain, members.addresses, plan.started_ms)
        self.journal = Journal.at(Path(plan.folder) / str(index) / "journal") if plan.durable else None
        self.member = Member(
            members,
            index,
            self.key,
            send=self._send if plan.conditions.emulated else self._send_at_once,
            reply=self._reply,
            clock_ms=now_ms,
            limits=plan.limits,
            state=state,
            journal=self.journal,
        )

    def connect(self) -> None:
        """Register and reach for the peers and the client."""
        self.links.set_peers(self._peers)
        self.links.start()
        self.client_links.set_peers({CLIENT: self._client})
        self.client_links.start()

    def _send_at_once(self, to: int | None, message: MemberMessage) -> None:
        if to is None:
            self.links.broadcast(message)
        else:
            self.links.send(to, message)

    def _send(self, to: int | None, message: MemberMessage) -> None:
        loop, data = asyncio.get_running_loop(), encode_message(message)
        for peer in (to,) if to is not None else range(self.count):
            if peer != self.index:
                arrival_s = self._wire.arrival_s(peer, len(data), loop.time())
                loop.call_at(arrival_s, self.links.send_encoded, peer, data)

    def _reply(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        arrival_s = self._wire.arrival_s(CLIENT, len(data), loop.time())
        loop.call_at(arrival_s, self.client_links.send, CLIENT, Forward((data,)))

    async def follow_members(self) -> None:
        """Take in what the other members say."""
        while True:
            for sender, message in await self.links.receive():
                if len(self._heard) < self.count - 1:
                    self._heard.add(sender)
                    if len(self._heard) == self.count - 1:
                        self.everyone_heard.set()
                assert not isinstance(message, Forward | ReportSignature | FetchSnapshot | SnapshotPart), (
                    "nobody here says that"
                )
                self.member.on_message(sender, message)

    async def follow_client(self) -> None:
        """Take in requests, and greetings, which are answered."""
        while True:
            for _, message in await self.client_links.receive():
                assert isinstance(message, Forward)
                for data in message.transactions:
                    self.member.on_request(data)
                if not message.transactions:
                    self.client_links.send(CLIENT, message)

    async def tick(self) -> None:
        """Let time pass for the replica as the product does."""
        while True:
            self.member.on_tick()
            await asyncio.sleep(TICK_S)


async def _serve(plan: Plan, process: int, control: Connection) -> None:
    members = [SocketMember(plan, index) for index in plan.of(process)]
    for member in members:
        member.connect()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(control.fileno(), stop.set)
    jobs = [(member.follow_members(), member.follow_client(), member.tick()) for member in members]
    tasks = [asyncio.create_task(job) for group in jobs for job in group]
    stopping = asyncio.create_task(stop.wait())
    try:
        if plan.nodes > 1:
            for member in members:
                await asyncio.wait_for(member.everyone_heard.wait(), CONNECT_TIMEOUT_S)
        gc.collect()
        gc.freeze()  # as the product does
        control.send("ready")
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()
        control.recv()
        control.send([fault for member in members for fault in member.member.misbehaved])
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)
        for member in members:
            await member.links.close()
            await member.client_links.close()
            if member.journal is not None:
                member.journal.close()


def _run_process(plan: Plan, process: int, control: Connection) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[process % len(cores)]})
    asyncio.run(_serve(plan, process, control))


def _address(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


def _peer(index: int, port: int, key: LinkKey) -> Peer:
    return Peer(index=index, address=_address(port), link_key=key.public)


class Network:
    """A running committee on sockets and its one client; made by `running`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.members, keys = committee(plan.nodes)
        self.client_key = CLIENT_KEY
        self._runner = asyncio.Runner()
        self._links = Links(LinkKey.derive(CLIENT_KEY), _address(plan.reply_port))
        self._peers = {n: _peer(n, plan.request_ports[n], LinkKey.derive(key)) for n, key in enumerate(keys)}
        self._wire = Wire(plan.conditions, seed=0)

    def greet(self) -> None:
        """Connect to all members, and hear from each."""
        self._runner.run(asyncio.wait_for(self._greet(), CONNECT_TIMEOUT_S))

    async def _greet(self) -> None:
        self._links.set_peers(self._peers)
        self._links.start()
        self._links.broadcast(Forward(()))
        greeted: set[int] = set()
        while len(greeted) < self.plan.nodes:
            greeted.update(sender for sender, _ in await self._links.receive())

    def request(self, data: bytes, batches: Sequence[bytes], replies: int) -> tuple[float, bool]:
        """Seconds until ``replies`` members answered for each of ``batches``; whether all did in the end.

        Batches are named by the roots of their transactions. Every reply's signature is checked, and all
        must agree on place and result.

        Raises:
            RuntimeError: nobody answers any more.
        """
        try:
            return self._runner.run(asyncio.wait_for(self._request(data, batches, replies), REPLY_TIMEOUT_S))
        except TimeoutError:
            raise RuntimeError(
                f"no replies within {REPLY_TIMEOUT_S:.0f} s: only the first primary is asked, and a slow one"
                " is replaced; try --view-timeout-ms 20000"
            ) from None

    async def _request(self, data: bytes, batches: Sequence[bytes], replies: int) -> tuple[float, bool]:
        said: dict[bytes, dict[int, Reply]] = {root: {} for root in batches}
        started = time.perf_counter()
        arrival_s = self._wire.arrival_s(0, len(data), started)
        if arrival_s > started:
            await asyncio.sleep(arrival_s - started)
        self._links.send(0, Forward((data,)))
        taken: float | None = None
        while any(len(by) < self.plan.nodes for by in said.values()):
            for _, message in await self._links.receive():
                assert isinstance(message, Forward)
                reply = open_reply(message.transactions[0], self.members)
                said[reply.transactions][reply.member] = reply
            if taken is None and all(len(by) >= replies for by in said.values()):
                taken = time.perf_counter() - started
        agreed = all(len({(r.sequence, r.result) for r in by.values()}) == 1 for by in said.values())
        assert taken is not None
        return taken, agreed

    def close(self) -> None:
        """Close the client's links."""
        self._runner.run(self._links.close())
        self._runner.close()


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
) -> Iterator[Network]:
    """A committee whose links all stand, ended with its processes whatever happens.

    Raises:
        RuntimeError: a member noticed misbehaviour, or a process ended by itself.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dtn-consensus-", dir=os.getcwd()))
        ports = stack.enter_context(Ports()).take(2 * nodes + 1)
        plan = Plan(
            nodes=nodes,
            processes=processes,
            ledger=ledger,
            durable=durable,
            conditions=conditions,
            link_ports=tuple(ports[:nodes]),
            request_ports=tuple(ports[nodes:-1]),
            reply_port=ports[-1],
            started_ms=started_ms,
            limits=limits,
            folder=folder,
        )
        spawn = multiprocessing.get_context("spawn")
        controls = []
        for process in range(processes):
            near, far = spawn.Pipe()
            worker = spawn.Process(target=_run_process, args=(plan, process, far))
            worker.start()
            far.close()
            stack.callback(_end, worker)
            controls.append(near)
        network = Network(plan)
        stack.callback(network.close)
        for control in controls:
            _hear(control)
        network.greet()
        yield network
        for control in controls:
            control.send("stop")
        faults = [fault for control in controls for fault in _hear(control)]
        if faults:
            raise RuntimeError(f"members complained: {faults[:3]}")


def _hear(control: Connection) -> list[str]:
    if not control.poll(2 * CONNECT_TIMEOUT_S):
        raise RuntimeError("a process of members does not answer")
    try:
        said: list[str] = control.recv()
    except EOFError as reason:
        raise RuntimeError("a process of members ended by itself; see its error above") from reason
    return said


def _end(worker: multiprocessing.process.BaseProcess) -> None:
    worker.join(5)
    if worker.is_alive():
        worker.kill()
        worker.join()
