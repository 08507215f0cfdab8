"""Everything a seed decides: who takes part, how bad the network is, which machines fail, who lies.

The atlas keeps liars within f: with ``n`` members at most ``(n - 1) // 3`` lie. Honest members crash, pause,
skew and partition on top of that, which costs progress but must never cost safety.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace

LIES = (
    "silent",
    "delaying",
    "equivocating",
    "forging",
    "replaying",
    "new_view",
    "timestamps",
    "withholding",
    "corrupting",
    "flooding",
    "snapshots",
    "bodiless",
    "starving",
    "misremembering",
)
"""The menu; see `tests.simulation.byzantine`."""


def _lie(choose: random.Random, index: int) -> str:
    # Member 0 is primary when the run begins; 1 and 2 start the views that others had to leave.
    worst = choose.choice(("equivocating", "corrupting") if index == 0 else ("new_view", "misremembering"))
    return worst if index < 3 and choose.random() < 0.4 else choose.choice(LIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """One seed's parameters; times in milliseconds, shares between 0 and 1."""

    seed: int
    members: int
    liars: tuple[tuple[int, str], ...]
    """Member index and lie; at most f."""
    loss: float
    duplication: float
    delay_ms: tuple[int, int]
    reordering: float
    """Share of messages that take up to ten times as long."""
    partition_every_ms: int
    """Mean time between partitions; 0 for none."""
    partition_ms: int
    one_way: bool
    crash_every_ms: int
    """Mean time between crashes of honest members; 0 for none."""
    down_ms: int
    crash_at_persist: float
    """Chance that a crash strikes between writing and sending, instead of between two steps."""
    lose_unsynced: float
    """Chance that a crash loses what was appended but not synced."""
    pause_every_ms: int
    pause_ms: int
    skew_ms: int
    """Largest difference of a member's clock from the true one."""
    rot: int | None
    """A member whose disk changes what was synced; with it, at most f lie or forget."""
    chain_lag: int
    """Blocks by which a member's chain node may be behind the others."""
    reorg_every_ms: int
    """How often some chain nodes follow another branch for a while."""
    deep_reorg_at_ms: int
    """When all of them do, for longer than an origin is confirmed in; 0 for never."""
    relay: bool
    """Whether members send votes through the primary."""
    hopeful: float
    """Share of the members that wait for the votes of all."""
    raise_at: int
    """The block in which the chain raises the protocol version; 0 for never. Members that restart come back
    with software that knows it, the others stay with the old until everything heals."""
    newcomers: int
    """Nodes that the chain appoints one by one; each but the first takes the place of a member."""
    transactions: int
    duration_ms: int

    @classmethod
    def draw(cls, seed: int) -> Faults:
        """All parameters of one seed."""
        choose = random.Random(f"faults {seed}")
        drawn = cls._anything(seed, choose)
        company = choose.random()
        if company < 0.2:
            return drawn._treason(choose)
        if company < 0.35:
            return drawn._decay(choose)
        if company < 0.4:
            return drawn._upheaval(choose)
        return drawn._famine() if company < 0.43 else drawn

    def _treason(self, choose: random.Random) -> Faults:
        """The worst company for a smallest committee: a two-faced primary while the others keep crashing."""
        return replace(
            self,
            members=4,
            liars=((0, "equivocating"),),
            rot=None,
            crash_every_ms=choose.choice((300, 700, 1_500)),
            down_ms=choose.choice((20, 100)),
            partition_every_ms=0,
            pause_every_ms=0,
            loss=min(self.loss, 0.02),
            delay_ms=choose.choice(((1, 5), (5, 60))),
        )

    def _decay(self, choose: random.Random) -> Faults:
        """A smallest committee of honest members that crash all the time, one of them on a failing disk."""
        return replace(
            self,
            members=4,
            liars=(),
            rot=choose.randrange(4),
            crash_every_ms=choose.choice((300, 700, 1_500)),
            down_ms=choose.choice((20, 100, 1_500)),
            newcomers=min(self.newcomers, 1),
            transactions=200,
            duration_ms=25_000,
        )

    def _upheaval(self, choose: random.Random) -> Faults:
        """The chain takes back what it had confirmed: nobody is appointed by what is taken back."""
        return replace(
            self,
            newcomers=0,
            reorg_every_ms=0,
            deep_reorg_at_ms=choose.choice((500, 1_500, 3_000)),
            duration_ms=25_000,
        )

    def _famine(self) -> Faults:
        """A first primary that passes over one sender, in a network where nothing else calls for another."""
        return replace(self.calm(), liars=((0, "starving"),), transactions=200, duration_ms=10_000)

    def calm(self) -> Faults:
        """Four honest members, one primary for as long as nothing happens, and a good network."""
        return replace(
            self,
            members=4,
            liars=(),
            rot=None,
            loss=0.0,
            partition_every_ms=0,
            crash_every_ms=0,
            pause_every_ms=0,
            skew_ms=0,
            raise_at=0,
            newcomers=0,
            chain_lag=0,
            delay_ms=(1, 5),
        )

    @property
    def spare(self) -> int:
        """Members that may fail besides those that lie or forget."""
        return (self.members - 1) // 3 - len(self.liars) - (self.rot is not None)

    @classmethod
    def _anything(cls, seed: int, choose: random.Random) -> Faults:
        members = choose.choice((4, 4, 4, 4, 5, 6, 7, 7, 10, 13))
        limit = (members - 1) // 3
        # Liars do most harm as primaries, and those with the lowest indices are primaries first.
        first = choose.randint(0, min(2, members - 1))
        others = choose.sample([index for index in range(members) if index != first], limit - 1)
        liars = [first, *others][: choose.randint(0, limit)]
        return cls(
            seed=seed,
            members=members,
            liars=tuple((index, _lie(choose, index)) for index in sorted(liars)),
            loss=choose.choice((0.0, 0.0, 0.02, 0.1, 0.3)),
            duplication=choose.choice((0.0, 0.02, 0.2)),
            delay_ms=choose.choice(((1, 5), (5, 60), (30, 300))),
            reordering=choose.choice((0.0, 0.05, 0.3)),
            partition_every_ms=choose.choice((0, 0, 4_000, 12_000)),
            partition_ms=choose.choice((500, 3_000, 9_000)),
            one_way=choose.random() < 0.4,
            crash_every_ms=choose.choice((0, 0, 700, 3_000, 8_000)),
            down_ms=choose.choice((100, 1_500, 6_000)),
            crash_at_persist=choose.choice((0.0, 0.5, 1.0)),
            lose_unsynced=choose.choice((0.0, 0.5, 1.0)),
            pause_every_ms=choose.choice((0, 0, 6_000)),
            pause_ms=choose.choice((200, 2_500)),
            skew_ms=choose.choice((0, 0, 200, 2_000)),
            rot=cls._rot(choose, members, set(liars)),
            chain_lag=choose.choice((0, 0, 3)),
            reorg_every_ms=choose.choice((0, 0, 2_500)),
            deep_reorg_at_ms=0,
            relay=random.Random(f"relay {seed}").random() < 0.4,
            hopeful=random.Random(f"hope {seed}").choice((1.0, 1.0, 0.5, 0.0)),
            raise_at=cls._raise_at(random.Random(f"versions {seed}")),
            newcomers=choose.choice((0, 0, 1, 2)),
            transactions=choose.choice((20, 80, 200)),
            duration_ms=choose.choice((10_000, 25_000)),
        )

    @staticmethod
    def _raise_at(choose: random.Random) -> int:
        return choose.choice((4, 6, 9)) if choose.random() < 0.3 else 0

    @staticmethod
    def _rot(choose: random.Random, members: int, lying: set[int]) -> int | None:
        if len(lying) >= (members - 1) // 3 or choose.random() < 0.6:
            return None
        return choose.choice([index for index in range(members) if index not in lying])

    def describe(self) -> str:
        """All parameters on one line."""
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))
