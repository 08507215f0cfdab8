"""One aggregator's connections to all others: TLS 1.3 over TCP, in the event loop of the process.

Every member dials every other one and is dialled by it; messages leave on the connection that a member
dialled and arrive on those that it accepted. Both ends prove their link keys, and the key that was proved
says which member a message is from, whatever it claims. Who is not registered any more is cut off at once,
both ways.

The parts: `keys` and `tls` say who somebody is, `waiting` and `dialling` send, `listening` lets in, `reading`
takes in; each names its bounds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aggregator.links.dialling import Dialler, WayOut
from aggregator.links.errors import LinkError
from aggregator.links.frames import frame
from aggregator.links.handshake import Steps
from aggregator.links.keys import LinkKey
from aggregator.links.listening import Door
from aggregator.links.reading import WaysIn
from aggregator.links.tls import context_for
from aggregator.pbft.messages import (
    CommittedBatches,
    Forward,
    LinkMessage,
    SnapshotPart,
    decode_message,
    encode_message,
)
from protocol.errors import InvalidEncoding
from protocol.version import SUPPORTED, Versions

log = logging.getLogger(__name__)

BULK: Final = (Forward, SnapshotPart, CommittedBatches)
"""What is much at times, and can wait for votes."""
SILENCE_S: Final = 10.0
"""A peer not heard from for so long gets a new connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another member as the chain describes it: where it listens and its public link key."""

    index: int
    address: str
    link_key: bytes


class Links:
    """All links of one aggregator: in a running event loop, `start`, `set_peers`, then send and receive."""

    def __init__(self, key: LinkKey, listen: str, versions: Versions = SUPPORTED) -> None:
        self.counters: Counter[str] = Counter()
        self._key = key
        self._listen = listen
        self._context = context_for(key)
        self._steps = Steps()
        self._versions = versions
        self._dialler = Dialler(self._context, self.counters, self._steps, versions)
        self._ways_in = WaysIn(self.counters)
        self._door: Door | None = None
        self._peers: dict[int, Peer] = {}
        self._ways_out: dict[int, WayOut] = {}
        self._senders: dict[bytes, int] = {}
        """The members by their registered keys."""
        self._fresh_s: dict[int, float] = {}
        """Per peer, when it was last heard from or dialled anew."""
        self._heard_s: dict[int, float] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def silences_s(self) -> dict[int, float]:
        """Per peer, for how many seconds it has not been heard from; infinite if it never was."""
        now_s = time.monotonic()
        return {index: now_s - self._heard_s.get(index, -math.inf) for index in self._peers}

    def start(self) -> None:
        """Listen for the other members.

        Raises:
            LinkError: the address is taken or malformed.
        """
        self._door = Door(
            self._context,
            self._listen,
            counters=self.counters,
            steps=self._steps,
            registered=self._is_registered,
            admit=self._ways_in.admit,
            versions=self._versions,
        )

    def _is_registered(self, key: bytes) -> bool:
        return key in self._senders

    @property
    def key(self) -> bytes:
        """The public half of the link key that new connections prove."""
        return self._key.public

    def rekey(self, key: LinkKey) -> None:
        """Prove another key from now on.

        Connections that stand under the one before stay until the other side, which has read of the change as
        well, ends them: so none is missing longer than it takes to dial again.
        """
        self._key = key
        self._context = context_for(key)
        self._dialler.context = self._context
        if self._door is not None:
            self._door.context = self._context

    def set_peers(self, peers: Mapping[int, Peer]) -> None:
        """Connect to exactly these members, and let exactly these in."""
        self._senders = {peer.link_key: peer.index for peer in peers.values()}
        self._ways_in.keep_only(self._is_registered)
        for index, known in list(self._peers.items()):
            if peers.get(index) != known:
                del self._peers[index]
                self._heard_s.pop(index, None)
                self._close(self._ways_out.pop(index))
        now_s = time.monotonic()
        for index, peer in peers.items():
            if index in self._peers:
                if now_s - self._fresh_s[index] > SILENCE_S:
                    self._ways_out[index].redial()
                    self._fresh_s[index] = now_s
                continue
            if peer.link_key == self._key.public:
                continue
            try:
                self._ways_out[index] = WayOut(self._dialler, peer.address, peer.link_key)
            except LinkError as reason:
                log.warning("member %d registered an unusable address: %s", index, reason)
                continue
            self._peers[index] = peer
            self._fresh_s[index] = now_s

    def _close(self, way_out: WayOut) -> None:
        task = way_out.close()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def send(self, to: int, message: LinkMessage) -> None:
        """Send a message to one member, or queue it; never blocks."""
        self.send_encoded(to, encode_message(message), bulk=isinstance(message, BULK))

    def broadcast(self, message: LinkMessage) -> None:
        """Send a message to all other members; encoded once."""
        data, bulk = frame(encode_message(message)), isinstance(message, BULK)
        for way_out in self._ways_out.values():
            self._send(way_out, data, bulk)

    def send_encoded(self, to: int, data: bytes, *, bulk: bool = False) -> None:
        """Send a message's bytes to one member, or queue them; never blocks. ``bulk`` can wait for votes."""
        way_out = self._ways_out.get(to)
        if way_out is not None:
            self._send(way_out, frame(data), bulk)

    def _send(self, way_out: WayOut, data: bytes, bulk: bool) -> None:
        self.counters["sent" if way_out.send(data, bulk=bulk) else "dropped_full_queue"] += 1

    async def receive(self) -> list[tuple[int, LinkMessage]]:
        """The well-formed messages that have arrived, at least one, each with the member it is from."""
        while True:
            found = []
            for key, data in await self._ways_in.take():
                sender = self._senders.get(key)
                if sender is None:
                    continue  # dismissed since
                try:
                    found.append((sender, decode_message(data)))
                except InvalidEncoding as reason:
                    self._count_malformed(sender, reason)
                    continue
                self._fresh_s[sender] = self._heard_s[sender] = time.monotonic()
            if found:
                self.counters["received"] += len(found)
                return found

    def _count_malformed(self, sender: int, reason: InvalidEncoding) -> None:
        counter = f"malformed_from_{sender}"
        self.counters[counter] += 1
        if self.counters[counter] == 1:
            log.warning("member %d sent bytes that are no message: %s; more are only counted", sender, reason)

    async def close(self) -> None:
        """Close all connections at once; what is queued is lost, as in a crash."""
        for way_out in self._ways_out.values():
            self._close(way_out)
        self._ways_out.clear()  # a late sender finds nobody
        self._peers.clear()
        self._ways_in.close()
        if self._door is not None:
            await self._door.close()
        self._dialler.resolver.close()
        await asyncio.gather(*self._ending, return_exceptions=True)
