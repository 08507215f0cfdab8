"""One aggregator's connections to all others, over ZeroMQ with CURVE.

Every member binds one ROUTER socket and connects one DEALER socket to each peer; messages leave on the
DEALER and arrive on the ROUTER. CURVE encrypts and proves both ends; ZAP refuses keys that no member
registered, and the key that was proved says which member a message is from, whatever it claims.

Bounds: `MAX_QUEUED` messages per peer and direction; when a peer's queue is full, new messages to it are
dropped and counted (consensus repeats what matters); frames above `MAX_MESSAGE_BYTES` end the connection.
Sockets are used without futures: a wakeup takes in all that has arrived, at most `MAX_DRAINED` messages.
Reconnection is ZeroMQ's, from 0.1 s up to 5 s; but ZeroMQ never tries again after a refused handshake, and
a peer refuses until it has read our registration, so connections to silent peers are made anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator
from zmq.utils import z85

from aggregator.links.keys import LinkKey
from aggregator.pbft.messages import MAX_MESSAGE_BYTES, LinkMessage, decode_message, encode_message
from protocol.errors import InvalidEncoding, ProtocolError

log = logging.getLogger(__name__)

MAX_QUEUED = 4096
MAX_DRAINED = 256
"""Messages taken in before everyone else in the loop gets a turn, or a flood would keep it to itself."""
MAX_SOCKETS = 16_384
SILENCE_S = 10.0
"""A peer not heard from for so long gets a new connection."""
REFUSED_S = 2.0
"""A connection this old that takes no message is made anew, whoever is heard over the other one."""


class LinkError(ProtocolError):
    """A link cannot be set up as configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another member as the chain describes it: where it listens and its public link key."""

    index: int
    address: str
    link_key: bytes


class _Registered:
    """ZAP credentials provider: lets in exactly the registered link keys."""

    def __init__(self) -> None:
        self.members: dict[bytes, int] = {}

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the z85-encoded ``key`` belongs to a member."""
        return key in self.members


class LinkHost:
    """What the links of one process share: ZeroMQ's input and output thread, and who answers ZAP.

    A process with several members (a benchmark) gives all of them one; else every `Links` has its own.
    """

    def __init__(self) -> None:
        self._context = zmq.asyncio.Context()
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        # The same context without futures: its sockets neither cost one per message nor wake the loop.
        self.plain: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(self._context.underlying)
        self._authenticator = AsyncioAuthenticator(self._context)
        self._started = False

    def admit(self, domain: str, registered: _Registered) -> None:
        """Let sockets of this ZAP domain be reached by whoever is registered, and by nobody else."""
        if not self._started:
            self._authenticator.start()
            self._started = True
        self._authenticator.configure_curve_callback(domain, credentials_provider=registered)

    async def close(self) -> None:
        """Close once all links have been closed."""
        if self._started:
            self._authenticator.stop()
        await asyncio.sleep(0)
        self._context.term()


class Links:
    """All links of one aggregator; call `start`, then `send`, `broadcast` and `receive`."""

    def __init__(self, key: LinkKey, listen: str, host: LinkHost | None = None) -> None:
        self.counters: Counter[str] = Counter()
        self._key = key
        self._listen = listen
        self._host = host or LinkHost()
        self._owns_host = host is None
        self._registered = _Registered()
        self._router: zmq.Socket[bytes] | None = None
        self._dealers: dict[int, zmq.Socket[bytes]] = {}
        self._arrived: deque[tuple[int, LinkMessage]] = deque()
        self._taken = 0
        """Messages taken in since others had their turn."""
        self._signalled = asyncio.Event()
        self._watched = self._waited_for = False
        self._peers: dict[int, Peer] = {}
        self._fresh_s: dict[int, float] = {}
        """Per peer, when it was last heard from or connected to."""
        self._connected_s: dict[int, float] = {}
        self._refused: set[int] = set()
        """Peers whose connection takes no message: it is full, or was refused for good."""

    def start(self) -> None:
        """Listen for the other members.

        Raises:
            LinkError: the address is taken or malformed.
        """
        domain = f"member-{self._key.public.hex()}"
        self._host.admit(domain, self._registered)
        router = self._host.plain.socket(zmq.ROUTER)
        self._configure(router)
        router.setsockopt_string(zmq.ZAP_DOMAIN, domain)
        router.curve_server = True
        try:
            router.bind(self._listen)
        except zmq.ZMQError as reason:
            router.close()
            raise LinkError(f"cannot listen on {self._listen}: {reason}; choose another address") from reason
        self._router = router

    def _configure(self, socket: zmq.Socket[bytes]) -> None:
        socket.curve_publickey = z85.encode(self._key.public)
        socket.curve_secretkey = z85.encode(self._key.secret)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, MAX_QUEUED)
        socket.setsockopt(zmq.RCVHWM, MAX_QUEUED)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)

    def set_peers(self, peers: Mapping[int, Peer]) -> None:
        """Connect to exactly these members, and let exactly these in."""
        self._registered.members = {z85.encode(peer.link_key): peer.index for peer in peers.values()}
        now_s = time.monotonic()
        for index, known in list(self._peers.items()):
            silent = now_s - self._fresh_s[index] > SILENCE_S
            refused = index in self._refused and now_s - self._connected_s[index] > REFUSED_S
            if peers.get(index) != known or silent or refused:
                self._refused.discard(index)
                self._dealers.pop(index).close()
                del self._peers[index]
        for index, peer in peers.items():
            if index in self._peers or peer.link_key == self._key.public:
                continue
            dealer = self._host.plain.socket(zmq.DEALER)
            self._configure(dealer)
            dealer.curve_serverkey = z85.encode(peer.link_key)
            try:
                dealer.connect(peer.address)
            except zmq.ZMQError as reason:
                dealer.close()
                log.warning("member %d registered an unusable address %r: %s", index, peer.address, reason)
                continue
            self._dealers[index] = dealer
            self._peers[index] = peer
            self._fresh_s[index] = self._connected_s[index] = now_s

    def send(self, to: int, message: LinkMessage) -> None:
        """Queue a message for one member; never blocks."""
        self.send_encoded(to, encode_message(message))

    def broadcast(self, message: LinkMessage) -> None:
        """Queue a message for all other members; encoded once."""
        data = encode_message(message)
        for index in self._dealers:
            self.send_encoded(index, data)

    def send_encoded(self, to: int, data: bytes) -> None:
        """Queue a message's bytes for one member; never blocks."""
        dealer = self._dealers.get(to)
        if dealer is None:
            return
        try:
            dealer.send(data, zmq.DONTWAIT)
        except zmq.Again:
            self.counters["dropped_full_queue"] += 1
            self._refused.add(to)
        else:
            self.counters["sent"] += 1

    async def receive(self) -> tuple[int, LinkMessage]:
        """The next well-formed message and the member that its link proves it is from."""
        assert self._router is not None, "start() first"
        while not self._arrived:
            if self._taken >= MAX_DRAINED:
                self._taken = 0
                await asyncio.sleep(0)
            if not self._drain(self._router):
                self._taken = 0
                await self._readable(self._router)
        return self._arrived.popleft()

    async def _readable(self, router: zmq.Socket[bytes]) -> None:
        """Wait until something arrives; ZeroMQ signals only once what was there has been drained."""
        self._signalled.clear()
        if not self._watched:
            asyncio.get_running_loop().add_reader(router.fileno(), self._on_readable)
            self._watched = True
        self._waited_for = True
        try:
            await self._signalled.wait()
        finally:
            self._waited_for = False

    def _on_readable(self) -> None:
        self._signalled.set()
        if not self._waited_for:
            # The file stays readable until somebody drains it: do not be called for it meanwhile.
            self._unwatch()

    def _unwatch(self) -> None:
        if self._watched and self._router is not None:
            asyncio.get_running_loop().remove_reader(self._router.fileno())
            self._watched = False

    def _drain(self, router: zmq.Socket[bytes]) -> bool:
        """Take in what has arrived, up to the bound; whether there was anything."""
        before = self._taken
        while self._taken < MAX_DRAINED:
            try:
                frames = [router.recv(zmq.DONTWAIT, copy=False)]
                while frames[-1].more:
                    frames.append(router.recv(zmq.DONTWAIT, copy=False))
            except zmq.Again:
                break
            self._taken += 1
            self._take(frames)
        return self._taken > before

    def _take(self, frames: Sequence[zmq.Frame]) -> None:
        sender = self._sender(frames[-1])
        if sender is None or len(frames) != 2:
            self.counters["refused_unknown"] += 1
            return
        try:
            message = decode_message(frames[1].bytes)
        except InvalidEncoding as reason:
            self.counters[f"malformed_from_{sender}"] += 1
            log.warning("member %d sent bytes that are no message: %s", sender, reason)
            return
        self.counters["received"] += 1
        self._fresh_s[sender] = time.monotonic()
        self._arrived.append((sender, message))

    def _sender(self, frame: zmq.Frame) -> int | None:
        try:
            proved = frame.get("User-Id")
        except zmq.ZMQError:
            return None
        return self._registered.members.get(str(proved).encode())

    async def close(self) -> None:
        """Close all sockets at once; what is queued is lost, as in a crash."""
        self._unwatch()
        for dealer in self._dealers.values():
            dealer.close()
        self._dealers.clear()  # a late sender finds nobody
        if self._router is not None:
            self._router.close()
        if self._owns_host:
            await self._host.close()
