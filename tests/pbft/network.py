"""A committee of real replicas in virtual time over a network that loses, repeats, delays and partitions.

Every choice comes from one seed. Journals are lists of encoded records that survive `crash`; what a replica
had not persisted is gone. The checks live in `Committee.check`: agreement and exactly-once delivery.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from aggregator.pbft.events import (
    Broadcast,
    Deliver,
    Effect,
    Event,
    Executed,
    Misbehaved,
    Persist,
    Propose,
    Received,
    Send,
    Serve,
    Tick,
    Validate,
    Validated,
)
from aggregator.pbft.evidence import Contradiction
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import (
    Batch,
    Committed,
    CommittedBatches,
    LinkMessage,
    decode_message,
    encode_message,
)
from aggregator.pbft.quorum import Members
from aggregator.pbft.records import BecameCommitted, decode_record, encode_record
from aggregator.pbft.replica import Replica
from protocol.crypto import Key, keccak256
from protocol.typed_data import Domain

LIMITS = Limits(
    checkpoint_interval=8, window=64, pipeline=4, view_timeout_ms=1000, retransmit_ms=200, unanimity_ms=100
)


def committee(count: int) -> tuple[Members, list[Key]]:
    """Members with fixed keys, in ascending order of address."""
    keys = sorted(
        (Key((index + 1).to_bytes(32, "big")) for index in range(count)), key=lambda key: key.address
    )
    domain = Domain(31337, b"\x11" * 20)
    return Members(domain=domain, addresses=tuple(key.address for key in keys)), keys


@dataclass
class Machine:
    """One member: a replica, its disk, and what its ledger has executed."""

    replica: Replica
    disk: list[bytes] = field(default_factory=list)
    log: list[bytes] = field(default_factory=list)
    """Digests of executed batches in order: the whole state of this test's ledger."""
    pending: dict[bytes, int] = field(default_factory=dict)
    up: bool = True
    misbehaved: list[str] = field(default_factory=list)
    evidence: list[Contradiction] = field(default_factory=list)

    def root(self) -> bytes:
        return keccak256(b"".join(self.log))


Filter = Callable[[int, int, LinkMessage], LinkMessage | None]


class Committee:
    """``count`` machines and the network between them."""

    def __init__(
        self,
        count: int = 4,
        seed: int = 0,
        loss: float = 0.0,
        duplication: float = 0.0,
        limits: Limits = LIMITS,
    ) -> None:
        self.random = random.Random(seed)
        self.limits = limits
        self.members, self.keys = committee(count)
        self.machines = [Machine(Replica(self.members, i, key, limits)) for i, key in enumerate(self.keys)]
        self.loss, self.duplication = loss, duplication
        self.partition: set[frozenset[int]] = set()
        self.filter: Filter = lambda sender, to, message: message
        self.now_ms = 1_000_000
        self._wire: list[tuple[int, int, int, int, bytes]] = []
        self._order = itertools.count()
        self._bodies: dict[bytes, bytes] = {}
        """Every transaction by its hash: members of this test have them all."""

    # Driving ---------------------------------------------------------------------------------------

    def submit(self, transaction: bytes, to: set[int] | None = None) -> None:
        """A transaction reaches all members (or those in ``to``) that are up."""
        self._bodies[keccak256(transaction)] = transaction
        for index, machine in enumerate(self.machines):
            if machine.up and (to is None or index in to):
                machine.pending.setdefault(transaction, self.now_ms)

    def run(self, duration_ms: int, step_ms: int = 10) -> None:
        """Let virtual time pass."""
        for _ in range(duration_ms // step_ms):
            self.now_ms += step_ms
            while self._wire and self._wire[0][0] <= self.now_ms:
                _, _, sender, to, data = heapq.heappop(self._wire)
                if self.machines[to].up:
                    message = decode_message(data)
                    self._step(to, Received(sender=sender, message=message, now_ms=self.now_ms))  # type: ignore[arg-type]
            for index, machine in enumerate(self.machines):
                if machine.up:
                    self._tick(index, machine)

    def _tick(self, index: int, machine: Machine) -> None:
        self._step(
            index, Tick(now_ms=self.now_ms, waiting_since_ms=min(machine.pending.values(), default=None))
        )
        if machine.pending and machine.replica.can_propose and not machine.replica.in_flight:
            batch = Batch(self.now_ms, None, (), tuple(machine.pending))
            self._step(index, Propose(batch=batch, now_ms=self.now_ms))

    def crash(self, index: int) -> None:
        """Power off; only the disk stays."""
        self.machines[index].up = False

    def restart(self, index: int) -> None:
        """Power on: replay the disk."""
        machine = self.machines[index]
        records = [decode_record(data) for data in machine.disk]
        machine.log, machine.pending, machine.up = [], {}, True
        batches = {r.committed.sequence: r.committed for r in records if isinstance(r, BecameCommitted)}
        for sequence in itertools.count(1):
            if sequence not in batches:
                break
            machine.log.append(batches[sequence].batch.digest())
        machine.replica = Replica.restore(
            self.members, index, self.keys[index], records, executed=len(machine.log), limits=self.limits
        )

    # Effects ---------------------------------------------------------------------------------------

    def _step(self, index: int, event: Event) -> None:
        machine = self.machines[index]
        effects = machine.replica.step(event)
        for effect in effects:
            if isinstance(effect, Persist):
                machine.disk.append(encode_record(effect.record))
        for effect in effects:
            self._act(index, machine, effect)

    def _act(self, index: int, machine: Machine, effect: Effect) -> None:
        match effect:
            case Broadcast(message=message):
                for to in range(len(self.machines)):
                    if to != index:
                        self._transmit(index, to, message)
            case Send(to=to, message=message):
                self._transmit(index, to, message)
            case Validate(view=view, sequence=sequence, digest=digest, outline=outline):
                batch = outline.batch(self._bodies)
                answer = Validated(view=view, sequence=sequence, digest=digest, batch=batch)
                self._step(index, answer)
            case Deliver(committed=committed):
                self._deliver(index, machine, committed)
            case Serve(to=to, sequence=sequence):
                self._serve(index, machine, to, sequence)
            case Misbehaved(reason=reason, evidence=evidence):
                machine.misbehaved.append(reason)
                if evidence is not None:
                    machine.evidence.append(evidence)

    def _deliver(self, index: int, machine: Machine, committed: Committed) -> None:
        assert committed.sequence == len(machine.log) + 1, "delivered in order, each once"
        self.members.verify_committed(committed)
        machine.log.append(committed.batch.digest())
        for transaction in committed.batch.transactions:
            machine.pending.pop(transaction, None)
        due = committed.sequence % LIMITS.checkpoint_interval == 0
        self._step(index, Executed(sequence=committed.sequence, root=machine.root() if due else None))

    def _serve(self, index: int, machine: Machine, to: int, sequence: int) -> None:
        records = [decode_record(data) for data in machine.disk]
        batches = {r.committed.sequence: r.committed for r in records if isinstance(r, BecameCommitted)}
        found = [batches[s] for s in range(sequence, sequence + 16) if s in batches]
        if found and found[0].sequence == sequence:
            self._transmit(index, to, CommittedBatches(tuple(found)))

    def _transmit(self, sender: int, to: int, message: LinkMessage) -> None:
        changed = self.filter(sender, to, message)
        if changed is None or frozenset({sender, to}) in self.partition:
            return
        copies = 1 + (self.random.random() < self.duplication)
        for _ in range(copies):
            if self.random.random() >= self.loss:
                at_ms = self.now_ms + self.random.randint(1, 40)
                heapq.heappush(self._wire, (at_ms, next(self._order), sender, to, encode_message(changed)))

    # Checks ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Agreement: every log is a prefix of the longest. Validity: only submitted transactions."""
        longest = max((machine.log for machine in self.machines), key=len)
        for machine in self.machines:
            assert machine.log == longest[: len(machine.log)], "two members executed different batches"

    def executed(self) -> list[int]:
        """How far each member's ledger is."""
        return [len(machine.log) for machine in self.machines]

    def isolate(self, index: int) -> None:
        """Cut one member off."""
        self.partition = {frozenset({index, other}) for other in range(len(self.machines)) if other != index}
