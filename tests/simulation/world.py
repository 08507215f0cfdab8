"""One run: n members with real replicas and real ledgers, a bad network, failing machines, lying members.

Virtual time only; every choice comes from the seed. First everything goes wrong for `Faults.duration_ms`;
then the network heals, crashed members return, liars keep lying, and all honest members must reach the same
ledger with every accepted transaction in it within `HEAL_MS`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from aggregator.journal.journal import Journal
from aggregator.ledger.root import state_root
from aggregator.ledger.transition import next_deadline_ms
from aggregator.member.member import Member
from aggregator.member.mempool import PoolFull
from aggregator.origin.origin import OriginSource
from aggregator.pbft.agreement import StateDiverged
from aggregator.pbft.limits import Limits
from aggregator.pbft.messages import LinkMessage, decode_message, encode_message
from aggregator.pbft.quorum import Members
from aggregator.pbft.replica import Replica
from protocol.crypto import Key, keccak256
from protocol.errors import UnknownVersion
from protocol.typed_data import Domain
from tests.ledger.versions import NEWER, OLD, tally
from tests.simulation.byzantine import liar, starve
from tests.simulation.chain import BLOCK_MS, CONFIRMATIONS, Branch, Chain, ChainNode
from tests.simulation.checkers import Checkers, Violation
from tests.simulation.disk import PowerLoss
from tests.simulation.faults import Faults
from tests.simulation.machine import Machine, WatchedMember
from tests.simulation.workload import PROVIDERS, Workload

TICK_MS = 50
FAIR_MS = 60_000
"""A primary is replaced by whom it starves after 8 s; a few liars may follow each other."""
PLEDGE_STRIDE = 8
DEEP_MS = 9_000
"""On a branch for so long, a node confirms its blocks."""
HEAL_MS = 240_000
"""Bound on recovery: the longest timeouts that a bad seed builds up, twice over, and the work itself."""
LIMITS = Limits(
    checkpoint_interval=4,
    window=24,
    pipeline=4,
    view_timeout_ms=1_500,
    max_view_timeout_ms=24_000,
    starvation_timeout_ms=8_000,
    snapshot_interval=8,
    unanimity_ms=400,  # so that views change while some have all votes and others wait for them
)
START_MS = 1_700_000_000_000


class World:
    """One seed's run."""

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        replica: type[Replica] = Replica,
        journal: type[Journal] = Journal,
        origins: type[OriginSource] = OriginSource,
    ) -> None:
        self.faults = faults or Faults.draw(seed)
        self.choose = random.Random(f"world {seed}")
        self.story: list[str] = []
        self.now_ms = START_MS
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._cut: set[tuple[int, int]] = set()
        self._bad = True
        self._replica, self._journal, self._origins = replica, journal, origins
        count = self.faults.members
        keys = sorted((Key((i + 1).to_bytes(32, "big")) for i in range(count)), key=lambda key: key.address)
        newcomers = [Key((500 + i).to_bytes(32, "big")) for i in range(self.faults.newcomers)]
        self.members = Members(
            domain=Domain(31337, b"\x11" * 20), addresses=tuple(key.address for key in keys)
        )
        self.workload = Workload(self.members.domain, random.Random(f"work {seed}"))
        self.chain = Chain(
            self.members.domain,
            self.members.addresses,
            tuple(key.address for key in newcomers),
            tuple(provider.address for provider in PROVIDERS),
            self.workload.orders,
            random.Random(f"chain {seed}"),
            raise_at=self.faults.raise_at,
        )
        self._versions = random.Random(f"releases {seed}")
        keys += newcomers
        liars = frozenset(keys[index].address for index, _ in self.faults.liars)
        self.checkers = Checkers(self.chain.committees, LIMITS.window, liars)
        self.machines = [self._machine(index, key) for index, key in enumerate(keys)]
        for index, lie in self.faults.liars:
            bend = liar(lie, self.members, index, keys[index], random.Random(f"liar {seed} {index}"))
            self.machines[index].bend = bend
        for machine in self.machines:
            self._start(machine)

    def _machine(self, index: int, key: Key) -> Machine:
        skew_ms = self.choose.randint(-self.faults.skew_ms, self.faults.skew_ms)
        node = ChainNode(self.chain, self._origins, lag=self.choose.randint(0, self.faults.chain_lag))
        # Those who lie run anything, and no old release stays with them: they are not the ones that heal.
        newer = self._versions.random() < 0.5 or any(index == liar for liar, _ in self.faults.liars)
        return Machine(index, key, node, skew_ms=skew_ms, rules=NEWER if newer else OLD)

    def _start(self, machine: Machine) -> None:
        """Power on: whatever the member knows comes from its disk."""
        member = WatchedMember(
            machine.index,
            self.checkers if machine.bend is None else None,
            members=self.members,
            key=machine.key,
            treasury=bytes(20),
            journal=self._journal(machine.disk, stride=PLEDGE_STRIDE),
            send=lambda to, message: self._transmit(machine, to, message),
            limits=self._limits(machine.index),
            replica=self._replica,
            rules=machine.rules,
        )
        member.now_ms = self._clock_ms(machine)
        member.committees = self.chain.appointed(self.now_ms)
        member.recover()
        if (machine.index, "starving") in self.faults.liars:
            starve(member.mempool)
        machine.member = member

    def _limits(self, index: int) -> Limits:
        hopes = random.Random(f"hope {self.faults.seed} {index}").random() < self.faults.hopeful
        unanimity_ms = LIMITS.unanimity_ms if hopes else 0
        return replace(LIMITS, relay_votes=self.faults.relay, unanimity_ms=unanimity_ms)

    def _run(self, machine: Machine, action: Callable[[Member], None]) -> None:
        """Let a member do something; the power may fail in the middle of it."""
        if machine.member is None:
            return
        try:
            action(machine.member)
        except PowerLoss:
            self._crash(machine)
            return
        except (StateDiverged, UnknownVersion) as reason:
            raise Violation(f"member {machine.index}: {reason}") from reason
        if machine.bend is None:
            self.checkers.bounded(machine.member, machine.disk)

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
        self._repeat(faults.reorg_every_ms, self._reorganise, end_ms)
        if faults.deep_reorg_at_ms:
            self._after(faults.deep_reorg_at_ms, self._reorganise_deeply)
        self._advance(end_ms)
        self._heal()
        if any(lie == "starving" for _, lie in faults.liars):
            self._check_fairness()
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
        up = [machine for machine in self.honest if machine.member is not None]
        if not up:
            return
        machine = self.choose.choice(up)
        if self.choose.random() < self.faults.crash_at_persist:
            machine.disk.crash_after = self.choose.randint(0, 6)
        else:
            self._crash(machine)

    def _crash(self, machine: Machine) -> None:
        machine.member = None
        machine.disk.crash(self.choose, self.faults.lose_unsynced)
        self._note(f"member {machine.index} crashes with {machine.disk.size_bytes} bytes on disk")
        if self.faults.rot == machine.index:
            self._note(f"a byte of {machine.disk.rot(self.choose)} changes on member {machine.index}'s disk")
        if self._bad:
            self._after(self.faults.down_ms, lambda: self._restart(machine))

    def _restart(self, machine: Machine) -> None:
        if machine.member is not None:
            return
        machine.rules = NEWER
        self._start(machine)
        assert machine.member is not None
        for damage in machine.member._journal.damage:
            if self.faults.rot != machine.index:
                raise Violation(f"member {machine.index}: a crash alone damages: {damage}")
            self._note(f"member {machine.index} lost what was there: {damage}")
            self.checkers.count("damaged journals")
        at, view = machine.member.state.sequence, machine.member.replica.view
        self._note(f"member {machine.index} restarts at {at} in view {view}")

    def _pause(self) -> None:
        machine = self.choose.choice(self.machines)
        machine.paused_until_ms = self.now_ms + self.faults.pause_ms

    def _reorganise(self) -> None:
        """Some chain nodes follow a branch for less time than an origin is confirmed in; a few for longer."""
        nodes = [machine.chain for machine in self.machines if machine.chain.branch is None]
        if self.choose.random() < 0.5:
            stray_ms, most = DEEP_MS, self.faults.spare
        else:
            stray_ms, most = (CONFIRMATIONS - 1) * BLOCK_MS - 1, len(nodes)
        strayed = self.choose.sample(nodes, min(len(nodes), self.choose.randint(0, most)))
        self._stray(strayed, stray_ms)

    def _reorganise_deeply(self) -> None:
        """All chain nodes follow a branch until the ledger has taken in what does not stay."""
        self._stray([machine.chain for machine in self.machines], DEEP_MS)

    def _stray(self, nodes: list[ChainNode], stray_ms: int) -> None:
        branch = Branch(self.chain.head(self.now_ms), salt=self.now_ms)

        def back() -> None:
            for node in nodes:
                if node.branch == branch:
                    node.branch = None

        for node in nodes:
            node.branch = branch
        self._note(f"{len(nodes)} chain nodes follow another branch from block {branch.start} on")
        self._after(stray_ms, back)

    def _heal(self) -> None:
        self._note("everything heals; liars go on lying")
        self._bad = False
        self._cut.clear()
        for machine in self.machines:
            machine.chain.heal()
            machine.disk.crash_after = None
            if machine.member is not None and machine.rules is OLD:
                self._crash(machine)
            self._restart(machine)
        # A client whose transaction was not answered sends it again.
        for data in self.workload.sent:
            self._offer(data)

    # Members ---------------------------------------------------------------------------------------

    def _clock_ms(self, machine: Machine) -> int:
        return self.now_ms + (machine.skew_ms if self._bad else 0)

    def _tick(self, machine: Machine) -> None:
        self._after(TICK_MS, lambda: self._tick(machine))
        if self.now_ms >= machine.paused_until_ms:
            self._run(machine, lambda member: self._live(machine, member))

    def _live(self, machine: Machine, member: Member) -> None:
        """What a member's shell does all the time: look at the chain, watch the clock."""
        member.committees = self.chain.appointed(self.now_ms)
        found = machine.chain.propose(member.state, self.now_ms)
        if found is not None:
            member.chain_moved(found, self._clock_ms(machine))
        for item in member.take_held():
            answer = machine.chain.confirm(item.proposal, member.state, self.now_ms)
            if answer is None:
                member.hold(item)
            else:
                member.round(deque([member.confirm(item, answer)]))
        member.tick(self._clock_ms(machine))

    def _submit(self) -> None:
        self._offer(self.workload.next_transaction())

    def _offer(self, data: bytes) -> None:
        """A client sends to one member; that one tells the others, over the same bad network."""
        self.checkers.submitted.add(data)
        machine = self.choose.choice([m for m in self.honest if m.member is not None] or self.honest)

        def offer(member: Member) -> None:
            try:
                member.submit(data, self._clock_ms(machine), forward=True)
            except PoolFull:
                self.checkers.count("pool full")

        self._run(machine, offer)

    def _number(self, machine: Machine, place: int) -> int:
        """The machine that a member means by a place; outsiders come after the committee."""
        addresses = self._committee(machine)
        if place >= len(addresses):
            return place - len(addresses)
        return next(other.index for other in self.machines if other.key.address == addresses[place])

    def _place(self, machine: Machine, number: int) -> int:
        """The place that a member knows another machine by."""
        addresses, address = self._committee(machine), self.machines[number].key.address
        return addresses.index(address) if address in addresses else len(addresses) + number

    def _committee(self, machine: Machine) -> tuple[bytes, ...]:
        return (machine.member or self).members.addresses

    def _transmit(self, machine: Machine, to: int | None, message: LinkMessage) -> None:
        everyone = (index for index in range(len(self.machines)) if index != machine.index)
        for receiver in everyone if to is None else (self._number(machine, to),):
            leaving = [message] if machine.bend is None else machine.bend(message, receiver)
            for each in leaving:
                self._send(machine.index, receiver, encode_message(each))

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
        if self.now_ms < machine.paused_until_ms:
            self._at(machine.paused_until_ms, lambda: self._receive(sender, to, data))
            return
        message = decode_message(data)
        place = self._place(machine, sender)
        self._run(machine, lambda member: member.receive(place, message, self._clock_ms(machine)))

    def _check_fairness(self) -> None:
        """While others are served all the time, nobody who sends a transaction waits for ever."""
        for _ in range(FAIR_MS // 200):
            self._submit()
            self._advance(self.now_ms + 200)
            for member in self._standing:
                oldest_ms = member.mempool.oldest_ms
                if oldest_ms is not None and self.now_ms - oldest_ms > FAIR_MS * 3 // 4:
                    raise Violation(f"a transaction waits at a member since {FAIR_MS * 3 // 4} ms or more")

    # The end ---------------------------------------------------------------------------------------

    @property
    def _standing(self) -> list[Member]:
        return [machine.member for machine in self.honest if machine.member is not None]

    def _recovered(self) -> bool:
        """Equal ledgers with nothing left to do: chain events, transactions, and phases all worked off."""
        heights = {member.state.sequence for member in self._standing}
        up = len(self._standing) == len(self.honest)
        return up and len(heights) == 1 and all(self._idle(machine) for machine in self.honest)

    def _idle(self, machine: Machine) -> bool:
        member = machine.member
        assert member is not None
        deadline = next_deadline_ms(member.state)
        overdue = deadline is not None and deadline <= self.now_ms
        events = machine.chain.propose(member.state, self.now_ms)
        passing = member.state.upgrade is not None
        return not (len(member.mempool) or overdue or events or passing) and member.state.origin is not None

    def _positions(self) -> list[tuple[int, int, bool, int]]:
        return [
            (member.state.sequence, member.replica.view, member.replica.active, len(member.mempool))
            for member in self._standing
        ]

    def _final_checks(self) -> None:
        roots = set()
        for member in self._standing:
            self.checkers.durable(member)
            roots.add(state_root(member.state))
        if len(roots) != 1:
            raise Violation("healed members have different ledgers")
        self._check_versions()
        self.checkers.origins_stay(lambda number: self.chain.block_hash(number, None))
        alarms = {machine.chain.origins.alarm is not None for machine in self.honest}
        if len(alarms) != 1:
            raise Violation("some halt new origins and others do not")
        if alarms == {True}:
            self.checkers.count("halted by a deep reorganisation")
            if not self.faults.deep_reorg_at_ms:
                raise Violation("the ledger took in a block that was not confirmed")

    def _check_versions(self) -> None:
        """What the chain said is in force everywhere, and each batch from there on was counted once."""
        for member in self._standing:
            state = member.state
            if state.version == 2:
                self.checkers.count("members at version 2")
            raised = self.faults.raise_at and not self.faults.deep_reorg_at_ms
            if raised and state.version != 2:
                raise Violation(f"the chain raised the version, and a ledger is at {state.version}")
            if bool(tally(state)) != (state.version == 2):
                raise Violation("a version was entered that is not in force, or the other way round")

    def digest(self) -> str:
        """A fingerprint of the whole run: equal seeds give equal ones."""
        lines = "\n".join(self.story) + repr(sorted(self.checkers.ordered.items())) + str(self.now_ms)
        return keccak256(lines.encode()).hex()[:16]
