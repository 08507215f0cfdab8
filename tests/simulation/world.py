"""One run: n members with real replicas and real ledgers, a bad network, failing machines, lying members.

Virtual time only; every choice comes from the seed. First everything goes wrong for `Faults.duration_ms`;
then the network heals, crashed members return, liars keep lying, and all honest members must reach the same
ledger with every accepted transaction in it within `HEAL_MS`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from aggregator.ledger.root import state_root
from aggregator.ledger.state import State, genesis
from aggregator.ledger.transition import ACCEPTED, apply_block, check, next_deadline_ms
from aggregator.pbft.agreement import Limits, StateDiverged
from aggregator.pbft.events import (
    Broadcast,
    Deliver,
    Effect,
    Event,
    Executed,
    Persist,
    Propose,
    Received,
    Send,
    Serve,
    Tick,
    Validate,
    Validated,
)
from aggregator.pbft.messages import (
    Batch,
    BatchOrigin,
    Committed,
    CommittedBatches,
    Forward,
    LinkMessage,
    decode_message,
    encode_message,
)
from aggregator.pbft.quorum import Members
from aggregator.pbft.records import BecameCommitted, decode_record, encode_record
from aggregator.pbft.replica import Replica
from aggregator.proposals import block_of, fault_in
from protocol.crypto import Key, keccak256
from protocol.typed_data import Domain
from tests.simulation.byzantine import Bend, liar
from tests.simulation.checkers import Checkers, Violation
from tests.simulation.faults import Faults
from tests.simulation.workload import Workload

TICK_MS = 50
FORWARD_AGAIN_MS = 1_000
HEAL_MS = 240_000
"""Bound on recovery: the longest timeouts that a bad seed builds up, twice over, and the work itself."""
LIMITS = Limits(
    checkpoint_interval=8, window=48, pipeline=4, view_timeout_ms=1_500, max_view_timeout_ms=24_000
)
START_MS = 1_700_000_000_000


class _Crash(Exception):
    """A machine loses power in the middle of a step."""


@dataclass
class Disk:
    """Encoded records; those after `synced` may be lost in a crash."""

    records: list[bytes] = field(default_factory=list)
    synced: int = 0

    def crash(self, choose: random.Random, lose_unsynced: float) -> None:
        """Power loss: the unsynced tail is lost from a random point on, or happens to survive."""
        if choose.random() < lose_unsynced:
            del self.records[choose.randint(self.synced, len(self.records)) :]
        self.synced = len(self.records)


@dataclass
class Machine:
    """One member's machine."""

    index: int
    key: Key
    replica: Replica
    state: State
    disk: Disk = field(default_factory=Disk)
    pool: dict[bytes, int] = field(default_factory=dict)
    up: bool = True
    paused_until_ms: int = 0
    skew_ms: int = 0
    bend: Bend | None = None
    crash_now: bool = False
    origin_in_flight: int = 0
    forwarded_ms: int = 0
    events_since_ms: int | None = None
    proposed: dict[int, tuple[bytes, ...]] = field(default_factory=dict)


class World:
    """One seed's run."""

    def __init__(self, seed: int, faults: Faults | None = None, replica: type[Replica] = Replica) -> None:
        self.faults = faults or Faults.draw(seed)
        self.choose = random.Random(f"world {seed}")
        self.story: list[str] = []
        self.now_ms = START_MS
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._cut: set[tuple[int, int]] = set()
        self._bad = True
        self._replica = replica
        count = self.faults.members
        keys = sorted((Key((i + 1).to_bytes(32, "big")) for i in range(count)), key=lambda key: key.address)
        self.members = Members(
            domain=Domain(31337, b"\x11" * 20), addresses=tuple(key.address for key in keys)
        )
        self.workload = Workload(self.members.domain, self.members.addresses, random.Random(f"work {seed}"))
        self.checkers = Checkers(self.members, LIMITS.window)
        self.machines = [self._machine(index, key) for index, key in enumerate(keys)]
        for index, lie in self.faults.liars:
            bend = liar(lie, self.members, index, keys[index], random.Random(f"liar {seed} {index}"))
            self.machines[index].bend = bend

    def _machine(self, index: int, key: Key) -> Machine:
        machine = Machine(
            index,
            key,
            self._replica(self.members, index, key, LIMITS),
            genesis(self.members.domain, bytes(20)),
        )
        machine.skew_ms = self.choose.randint(-self.faults.skew_ms, self.faults.skew_ms)
        return machine

    @property
    def honest(self) -> list[Machine]:
        """Members that do not lie."""
        return [machine for machine in self.machines if machine.bend is None]

    # Running ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """The whole run; raises `Violation`."""
        faults = self.faults
        end_ms = self.now_ms + faults.duration_ms
        for machine in self.machines:
            self._after(self.choose.randint(0, TICK_MS), lambda m=machine: self._tick(m))  # type: ignore[misc]
        for number in range(faults.transactions):
            self._at(self.now_ms + number * faults.duration_ms // faults.transactions, self._submit)
        self._repeat(faults.partition_every_ms, self._partition, end_ms)
        self._repeat(faults.crash_every_ms, self._fail, end_ms)
        self._repeat(faults.pause_every_ms, self._pause, end_ms)
        self._advance(end_ms)
        self._heal()
        deadline_ms = self.now_ms + HEAL_MS
        while not self._recovered():
            if self.now_ms >= deadline_ms:
                raise Violation(f"no recovery {HEAL_MS} ms after healing: {self._positions()}")
            self._advance(self.now_ms + 1_000)
        self._final_checks()

    def _at(self, at_ms: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (at_ms, next(self._order), action))

    def _after(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._at(self.now_ms + delay_ms, action)

    def _repeat(self, every_ms: int, action: Callable[[], None], end_ms: int) -> None:
        at_ms = self.now_ms
        while every_ms and (at_ms := at_ms + self.choose.randint(1, 2 * every_ms)) < end_ms:
            self._at(at_ms, action)

    def _advance(self, until_ms: int) -> None:
        while self._queue and self._queue[0][0] <= until_ms:
            self.now_ms, _, action = heapq.heappop(self._queue)
            action()
        self.now_ms = until_ms

    def _note(self, text: str) -> None:
        self.story.append(f"{self.now_ms - START_MS:7d} ms  {text}")

    # Faults ----------------------------------------------------------------------------------------

    def _partition(self) -> None:
        group = set(
            self.choose.sample(range(len(self.machines)), self.choose.randint(1, len(self.machines) // 2))
        )
        rest = set(range(len(self.machines))) - group
        cut = {(a, b) for a in group for b in rest}
        if not self.faults.one_way:
            cut |= {(b, a) for a, b in cut}
        self._cut |= cut
        self._note(f"partition: {sorted(group)} cannot reach {sorted(rest)}")
        self._after(self.faults.partition_ms, lambda: self._cut.difference_update(cut))

    def _fail(self) -> None:
        up = [machine for machine in self.honest if machine.up]
        if not up:
            return
        machine = self.choose.choice(up)
        if self.choose.random() < self.faults.crash_at_persist:
            machine.crash_now = True  # strikes between the next append and its sync or send
        else:
            self._crash(machine)

    def _crash(self, machine: Machine) -> None:
        machine.up = machine.crash_now = False
        machine.disk.crash(self.choose, self.faults.lose_unsynced)
        self._note(f"member {machine.index} crashes with {len(machine.disk.records)} records on disk")
        if self._bad:
            self._after(self.faults.down_ms, lambda: self._restart(machine))

    def _restart(self, machine: Machine) -> None:
        if machine.up:
            return
        records = [decode_record(data) for data in machine.disk.records]
        machine.state = genesis(self.members.domain, bytes(20))
        for record in records:
            if (
                isinstance(record, BecameCommitted)
                and record.committed.sequence == machine.state.sequence + 1
            ):
                self._apply(machine, record.committed)
        machine.replica = self._replica.restore(
            self.members, machine.index, machine.key, records, executed=machine.state.sequence, limits=LIMITS
        )
        machine.up, machine.pool, machine.proposed, machine.origin_in_flight = True, {}, {}, 0
        self._note(
            f"member {machine.index} restarts at {machine.state.sequence} in view {machine.replica.view}"
        )

    def _pause(self) -> None:
        machine = self.choose.choice(self.machines)
        machine.paused_until_ms = self.now_ms + self.faults.pause_ms

    def _heal(self) -> None:
        self._note("everything heals; liars go on lying")
        self._bad = False
        self._cut.clear()
        for machine in self.machines:
            machine.crash_now = False
            if not machine.up:
                self._restart(machine)
        # A client whose transaction was not answered sends it again.
        for data in self.workload.sent:
            self._offer(data)

    # Members ---------------------------------------------------------------------------------------

    def _clock_ms(self, machine: Machine) -> int:
        return self.now_ms + (machine.skew_ms if self._bad else 0)

    def _tick(self, machine: Machine) -> None:
        self._after(TICK_MS, lambda: self._tick(machine))
        if not machine.up or self.now_ms < machine.paused_until_ms:
            return
        self._step(
            machine, Tick(now_ms=self._clock_ms(machine), waiting_since_ms=self._waiting_since(machine))
        )
        self._propose(machine)
        self._forward_again(machine)

    def _waiting_since(self, machine: Machine) -> int | None:
        now_ms = self._clock_ms(machine)
        since = [min(machine.pool.values(), default=None)]
        deadline = next_deadline_ms(machine.state)
        if deadline is not None and deadline <= now_ms:
            since.append(deadline)
        if not self.workload.chain_events(machine.state, self.now_ms):
            machine.events_since_ms = None
        elif machine.events_since_ms is None:
            machine.events_since_ms = now_ms
        since.append(machine.events_since_ms)
        return min((at for at in since if at is not None), default=None)

    def _propose(self, machine: Machine) -> None:
        if not machine.up or not machine.replica.can_propose:
            return
        now_ms = self._clock_ms(machine)
        under_way = {data for batch in machine.proposed.values() for data in batch}
        chosen = tuple(data for data in machine.pool if data not in under_way)[:20]
        origin, events = None, ()
        found = self.workload.chain_events(machine.state, self.now_ms)
        if found and not machine.origin_in_flight:
            origin, events = found
        deadline = next_deadline_ms(machine.state)
        overdue = deadline is not None and deadline <= now_ms and not machine.replica.in_flight
        if not (chosen or origin or overdue):
            return
        sequence = machine.replica.executed + machine.replica.in_flight + 1
        machine.proposed[sequence] = chosen
        if origin:
            machine.origin_in_flight = sequence
        batch = Batch(max(now_ms, machine.state.now_ms), origin, events, chosen)
        self._step(machine, Propose(batch=batch, now_ms=now_ms))

    def _submit(self) -> None:
        self._offer(self.workload.next_transaction(self.now_ms))

    def _offer(self, data: bytes) -> None:
        """A client sends to one member; that one tells the others, over the same bad network."""
        self.checkers.submitted.add(data)
        machine = self.choose.choice([machine for machine in self.honest if machine.up] or self.honest)
        if machine.up and self._pool(machine, data):
            self._act(machine, Broadcast(message=Forward((data,))))  # type: ignore[arg-type]

    def _pool(self, machine: Machine, data: bytes) -> bool:
        """Take a transaction into a member's pool, as its node would; whether it was new."""
        if data in machine.pool or check(machine.state, data).code != ACCEPTED:
            return False
        machine.pool[data] = self._clock_ms(machine)
        return True

    def _forward_again(self, machine: Machine) -> None:
        now_ms = self._clock_ms(machine)
        if now_ms - machine.forwarded_ms < FORWARD_AGAIN_MS:
            return
        machine.forwarded_ms = now_ms
        for data in [data for data, at_ms in machine.pool.items() if now_ms - at_ms > FORWARD_AGAIN_MS][:64]:
            if check(machine.state, data).code == ACCEPTED:
                self._act(machine, Broadcast(message=Forward((data,))))  # type: ignore[arg-type]
            else:
                del machine.pool[data]

    def _step(self, machine: Machine, event: Event) -> None:
        """One step with the node's discipline: append, sync, then send; power may fail in between."""
        try:
            effects = machine.replica.step(event)
            for effect in effects:
                if isinstance(effect, Persist):
                    machine.disk.records.append(encode_record(effect.record))
                    if machine.crash_now:
                        raise _Crash
            machine.disk.synced = len(machine.disk.records)
            for effect in effects:
                self._act(machine, effect)
                if not machine.up:
                    return
        except _Crash:
            self._crash(machine)
            return
        except StateDiverged as reason:
            raise Violation(f"member {machine.index}: {reason}") from reason
        if machine.bend is None:
            self.checkers.bounded(machine.index, machine.replica)

    def _act(self, machine: Machine, effect: Effect) -> None:
        match effect:
            case Broadcast(message=message):
                for to in range(len(self.machines)):
                    if to != machine.index:
                        self._transmit(machine, to, message)
            case Send(to=to, message=message):
                self._transmit(machine, to, message)
            case Validate():
                self._validate(machine, effect)
            case Deliver(committed=committed):
                self._deliver(machine, committed)
            case Serve(to=to, sequence=sequence):
                self._serve(machine, to, sequence)

    def _validate(self, machine: Machine, request: Validate) -> None:
        fault = fault_in(request.batch, self.members.domain, self._clock_ms(machine))
        valid = fault is None and self._origin_fits(machine, request)
        answer = Validated(view=request.view, sequence=request.sequence, digest=request.digest, valid=valid)
        # The node checks outside the step; the answer comes as an event of its own.
        self._after(1, lambda: machine.up and self._step(machine, answer))  # type: ignore[func-returns-value]

    def _origin_fits(self, machine: Machine, request: Validate) -> bool:
        origin: BatchOrigin | None = request.batch.origin
        return origin is None or self.workload.confirms(origin, request.batch.chain_events, self.now_ms)

    def _deliver(self, machine: Machine, committed: Committed) -> None:
        if machine.bend is None:
            self.checkers.delivered(machine.index, committed)
        self._apply(machine, committed)
        for data in committed.batch.transactions:
            machine.pool.pop(data, None)
        for data in [data for data in machine.pool if check(machine.state, data).code == "StaleNonce"]:
            del machine.pool[data]
        machine.proposed.pop(committed.sequence, None)
        if committed.batch.origin is not None:
            machine.origin_in_flight = 0
        due = committed.sequence % LIMITS.checkpoint_interval == 0
        root = state_root(machine.state) if due else None
        if root is not None and machine.bend is None:
            self.checkers.root(machine.index, committed.sequence, root)
        self._step(machine, Executed(sequence=committed.sequence, root=root))

    def _apply(self, machine: Machine, committed: Committed) -> None:
        applied = apply_block(machine.state, block_of(committed.sequence, committed.batch))
        machine.state = applied.state
        if machine.bend is None:
            self.checkers.applied(
                machine.index, committed.sequence, committed.batch.transactions, applied.results
            )

    def _serve(self, machine: Machine, to: int, sequence: int) -> None:
        batches: dict[int, Committed] = {}
        for data in machine.disk.records:
            record = decode_record(data)
            if isinstance(record, BecameCommitted):
                batches[record.committed.sequence] = record.committed
        found = []
        while sequence + len(found) in batches and len(found) < 16:
            found.append(batches[sequence + len(found)])
        if found:
            self._transmit(machine, to, CommittedBatches(tuple(found)))

    def _transmit(self, machine: Machine, to: int, message: LinkMessage) -> None:
        leaving = [message] if machine.bend is None else machine.bend(message, to)
        for each in leaving:
            self._send(machine.index, to, encode_message(each))

    def _send(self, sender: int, to: int, data: bytes) -> None:
        faults = self.faults
        copies = 1
        low, high = (1, 20)
        if self._bad:
            if (sender, to) in self._cut or self.choose.random() < faults.loss:
                return
            copies += self.choose.random() < faults.duplication
            low, high = faults.delay_ms
        for _ in range(copies):
            delay_ms = self.choose.randint(low, high)
            if self._bad and self.choose.random() < faults.reordering:
                delay_ms *= self.choose.randint(2, 10)
            self._after(delay_ms, lambda: self._receive(sender, to, data))

    def _receive(self, sender: int, to: int, data: bytes) -> None:
        machine = self.machines[to]
        if not machine.up:
            return
        if self.now_ms < machine.paused_until_ms:
            self._at(machine.paused_until_ms, lambda: self._receive(sender, to, data))
            return
        message = decode_message(data)
        if isinstance(message, Forward):
            for data in message.transactions:
                self._pool(machine, data)
            return
        event = Received(sender=sender, message=message, now_ms=self._clock_ms(machine))  # type: ignore[arg-type]
        self._step(machine, event)

    # The end ---------------------------------------------------------------------------------------

    def _recovered(self) -> bool:
        """Equal ledgers with nothing left to do: chain events, transactions, and phases all worked off."""
        heights = {machine.state.sequence for machine in self.honest}
        return len(heights) == 1 and all(machine.up and self._idle(machine) for machine in self.honest)

    def _idle(self, machine: Machine) -> bool:
        deadline = next_deadline_ms(machine.state)
        overdue = deadline is not None and deadline <= self.now_ms
        events = self.workload.chain_events(machine.state, self.now_ms)
        return not (machine.pool or overdue or events) and machine.state.origin is not None

    def _positions(self) -> list[tuple[int, int, bool, int]]:
        return [
            (machine.state.sequence, machine.replica.view, machine.replica.active, len(machine.pool))
            for machine in self.machines
        ]

    def _final_checks(self) -> None:
        roots = set()
        for machine in self.honest:
            self.checkers.durable(machine.index, machine.state, machine.replica.executed)
            roots.add(state_root(machine.state))
        if len(roots) != 1:
            raise Violation("healed members have different ledgers")

    def digest(self) -> str:
        """A fingerprint of the whole run: equal seeds give equal ones."""
        lines = "\n".join(self.story) + repr(sorted(self.checkers.ordered.items())) + str(self.now_ms)
        return keccak256(lines.encode()).hex()[:16]
