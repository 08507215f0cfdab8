"""An emulated network: bandwidth and latency per connection, and what they alone cost.

A message is released at ``max(link free, now) + size / bandwidth + latency``, latency uniform in
``[0.1 L, L]``, drawn anew for each message; every pair of parties has a connection in each direction.

Source: PoT 4.1 (emulated global network), table 5.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

import numpy as np

VOTE_BYTES: Final = 111
"""A prepare or commit vote as it travels."""
REPLY_BYTES: Final = 145
FLOOR_DRAWS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the network is like; all zero for none emulated."""

    latency_ms: float = 0.0
    bandwidth_mbps: float = 0.0

    @property
    def emulated(self) -> bool:
        """Whether anything is added to what the machine does by itself."""
        return bool(self.latency_ms or self.bandwidth_mbps)

    def seconds_on_link(self, size_bytes: int) -> float:
        """How long a message occupies its connection."""
        return size_bytes * 8 / (self.bandwidth_mbps * 1e6) if self.bandwidth_mbps else 0.0


@dataclass(slots=True)
class Wire:
    """The outgoing connections of one party."""

    conditions: Conditions
    seed: int
    _free_s: dict[int, float] = field(default_factory=dict)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def arrival_s(self, to: int, size_bytes: int, now_s: float) -> float:
        """When a message sent now to party ``to`` is there."""
        free_s = max(self._free_s.get(to, 0.0), now_s) + self.conditions.seconds_on_link(size_bytes)
        self._free_s[to] = free_s
        latency_s = self.conditions.latency_ms / 1e3
        return free_s + (self._random.uniform(0.1 * latency_s, latency_s) if latency_s else 0.0)


def floor_s(nodes: int, quorum: int, replies: int, payload_bytes: int, conditions: Conditions) -> float:
    """Median seconds of one request if computing took no time: the network's latency and bandwidth only."""
    rng = np.random.default_rng(1)
    latency_s = conditions.latency_ms / 1e3
    body_s, vote_s = conditions.seconds_on_link(payload_bytes), conditions.seconds_on_link(VOTE_BYTES)

    def latencies(*shape: int) -> np.ndarray:
        return rng.uniform(0.1 * latency_s, latency_s, shape)

    def broadcast(said_s: np.ndarray) -> np.ndarray:
        """When each member (row) has each other's (column) vote; its own at once."""
        heard = said_s[None, :] + vote_s + latencies(nodes, nodes)
        np.fill_diagonal(heard, said_s)
        return heard

    taken = []
    for _ in range(FLOOR_DRAWS):
        proposed = body_s + latencies(1)[0]
        has_body = proposed + body_s + latencies(nodes)
        has_body[0] = proposed
        prepares = broadcast(has_body)[:, 1:]  # the primary's proposal is its only vote
        prepared = np.maximum(has_body, np.sort(prepares, axis=1)[:, quorum - 2])
        committed = np.maximum(prepared, np.sort(broadcast(prepared), axis=1)[:, quorum - 1])
        replied = committed + conditions.seconds_on_link(REPLY_BYTES) + latencies(nodes)
        taken.append(float(np.sort(replied)[replies - 1]))
    return float(np.median(taken))
