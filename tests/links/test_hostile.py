"""The link port in a hostile world: strangers, liars and the dead cost little and are counted.

Real sockets on loopback.
"""

from __future__ import annotations

import asyncio
import datetime
import socket
import tracemalloc

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL

from aggregator.links import listening, reading
from aggregator.links.errors import LinkBroken
from aggregator.links.frames import frame
from aggregator.links.handshake import Steps
from aggregator.links.links import Links, Peer
from aggregator.links.tls import MAX_HANDSHAKE_BYTES, Channel, context_for, welcome
from aggregator.pbft.messages import MAX_MESSAGE_BYTES, Fetch, Forward, encode_message
from protocol.version import SUPPORTED
from tests.links.peers import (
    KEYS,
    Ear,
    Stranger,
    closed,
    free_address,
    heard,
    host_of,
    opened,
    run,
    until,
    way_out,
)


async def connected(peer: Peer) -> socket.socket:
    """A connection on which nothing was said."""
    connection = socket.socket()
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, host_of(peer))
    return connection


async def is_cut(connection: socket.socket) -> bool:
    """Whether the other side ends a connection."""
    loop = asyncio.get_running_loop()
    try:
        while await asyncio.wait_for(loop.sock_recv(connection, 4096), 10):
            pass
    except ConnectionError:
        pass
    return True


async def members_still_talk(first: Links, second: Links) -> None:
    """Whatever else goes on."""
    second.send(0, Fetch(1))
    assert await heard(first) == (1, Fetch(1))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(100),
        b"\x16\x03\x01\xff\xff" + bytes(2 * MAX_HANDSHAKE_BYTES),
        b"\x17\x03\x03\x00\x10" + bytes(16),
    ],
    ids=["http", "zeros", "an endless hello", "data before the handshake"],
)
def test_garbage_on_the_port_is_cut_and_counted(data: bytes) -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        connection = await connected(peers[0])
        await asyncio.get_running_loop().sock_sendall(connection, data)
        assert await is_cut(connection)
        assert first.counters["handshakes_refused"] == 1
        connection.close()
        await members_still_talk(first, second)
        await closed(first, second)

    run(scenario)


def test_a_handshake_that_takes_too_long_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.links.listening.HANDSHAKE_S", 0.5)

    async def scenario() -> None:
        (first, second), peers = opened(2)
        silent, slow = await connected(peers[0]), await connected(peers[0])
        hello = Channel(context_for(KEYS[1]), dialled=True).advance(b"")

        async def drip() -> None:
            for byte in hello:
                await asyncio.get_running_loop().sock_sendall(slow, bytes([byte]))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert await is_cut(silent) and await is_cut(slow)
        assert first.counters["handshakes_late"] == 2
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        silent.close()
        slow.close()
        await members_still_talk(first, second)
        await closed(first, second)

    run(scenario)


def test_strangers_crowd_out_each_other_and_members_get_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.links.listening.MAX_UNPROVED", 4)

    async def scenario() -> None:
        (first,), peers = opened(1)
        second = Links(KEYS[1], free_address())
        peers[1] = Peer(index=1, address=second._listen, link_key=KEYS[1].public)
        first.set_peers(peers)
        crowd = [await connected(peers[0]) for _ in range(50)]
        await until(lambda: first.counters["handshakes_crowded_out"] == 46)
        assert first._door is not None and len(first._door._unproved) == 4
        second.start()
        second.set_peers(peers)
        await members_still_talk(first, second)
        for connection in crowd:
            connection.close()
        await closed(first, second)

    run(scenario)


def test_a_certificate_of_another_kind_of_key_is_refused() -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        key, nobody = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
        now = datetime.datetime.now(datetime.UTC)
        certificate = x509.CertificateBuilder(nobody, nobody, key.public_key(), 1, now, now).sign(
            key, SHA256()
        )
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        assert await refused(peers[0], Channel(context, dialled=True))
        assert await refused(peers[0], Channel(SSL.Context(SSL.TLS_METHOD), dialled=True)), "no certificate"
        old = SSL.Context(SSL.TLS_METHOD)
        old.set_max_proto_version(SSL.TLS1_2_VERSION)
        assert await refused(peers[0], Channel(old, dialled=True)), "TLS 1.2"
        assert first.counters["handshakes_refused"] == 3
        await closed(first, second)

    async def refused(peer: Peer, channel: Channel) -> bool:
        loop, connection = asyncio.get_running_loop(), await connected(peer)
        with connection:
            try:
                await loop.sock_sendall(connection, channel.advance(b""))
                while channel.peer_key is None:
                    data = await loop.sock_recv(connection, 4096)
                    if not data:
                        return True
                    await loop.sock_sendall(connection, channel.advance(data))
                return await is_cut(connection)
            except (ConnectionError, LinkBroken):
                return True

    run(scenario)


@pytest.mark.parametrize(
    ("stream", "encrypted"),
    [
        ((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"), True),
        (b"\xff\xff\xff\xff" + bytes(100), True),
        (b"\x17\x03\x03\x00\x20" + bytes(32), False),
        (b"\x17\x03\x03\xff\xff" + bytes(32), False),
        (b"garbage, and not a record", False),
    ],
    ids=["a frame too long", "a frame far too long", "a forged record", "a long record", "garbage"],
)
def test_a_member_that_breaks_the_protocol_is_cut_and_may_come_again(stream: bytes, encrypted: bool) -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        liar = await Stranger.knock(KEYS[1], peers[0])
        await (liar.write(stream) if encrypted else liar.write_raw(stream))
        assert await liar.is_cut()
        assert first.counters["links_broken"] == 1
        liar.close()
        again = await Stranger.knock(KEYS[1], peers[0])
        await again.say(encode_message(Fetch(3)))
        assert await heard(first) == (1, Fetch(3))
        again.close()
        await closed(first, second)

    run(scenario)


def test_a_peer_that_talks_back_on_the_way_out_is_dialled_anew() -> None:
    async def scenario() -> None:
        first = Links(KEYS[0], free_address())
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        first.set_peers({1: Peer(index=1, address=address, link_key=KEYS[1].public)})
        for _ in range(2):
            connection, _ = await loop.sock_accept(listener)
            channel = Channel(context_for(KEYS[1]), dialled=False)
            while channel.peer_key is None:
                await loop.sock_sendall(connection, channel.advance(await loop.sock_recv(connection, 4096)))
            await loop.sock_sendall(connection, channel.encrypt(welcome(SUPPORTED)))
            await until(lambda: way_out(first, 1).stands)
            await loop.sock_sendall(connection, channel.encrypt(b"and now listen"))
            await until(lambda: not way_out(first, 1).stands)
            connection.close()
        listener.close()
        await first.close()

    run(scenario)


def test_one_key_has_few_connections_and_the_newest_count() -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        second.set_peers({1: peers[1]})
        await until(lambda: not first._ways_in._connections)
        many = [await Stranger.knock(KEYS[1], peers[0]) for _ in range(5)]
        await many[-1].say(encode_message(Fetch(4)))
        assert await heard(first) == (1, Fetch(4))
        assert len(first._ways_in._connections[KEYS[1].public]) == reading.MAX_CONNECTIONS
        assert [await each.is_cut() for each in many[: -reading.MAX_CONNECTIONS]] == [True] * 3
        for each in many:
            each.close()
        await closed(first, second)

    run(scenario)


def test_a_flood_fills_a_bounded_memory_and_the_others_are_heard() -> None:
    """Nobody takes messages while one member sends as fast as it can; then everybody is heard in turn."""

    async def scenario() -> None:
        (first, second, third), peers = opened(3)
        await until(lambda: way_out(third, 0).stands)
        flooder = await Stranger.knock(KEYS[1], peers[0])
        data = frame(encode_message(Forward((bytes(1_000),)))) * 15
        tracemalloc.start()

        async def flood() -> None:
            while True:
                await flooder.write(data)

        flooding = asyncio.create_task(flood())
        await asyncio.sleep(1.5)
        held_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held_bytes < 3_000_000, "what waits is bounded, and the flooder is not read any more"
        assert len(first._ways_in._arrived) < reading.MAX_ARRIVED + reading.MAX_FRAMES
        third.send(0, Fetch(9))
        seen = 0
        async with asyncio.timeout(10):
            while True:
                messages = await first.receive()
                seen += len(messages)
                if (2, Fetch(9)) in messages:
                    break
        assert seen < 10 * reading.MAX_ARRIVED, "it did not wait for the flood to end"
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        flooder.close()
        await closed(first, second, third)

    run(scenario)


def test_a_slow_consumer_slows_the_sender_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.links.reading.MAX_ARRIVED_BYTES", 100_000)
    monkeypatch.setattr("aggregator.links.waiting.MAX_QUEUED_BYTES", 100_000_000)

    async def scenario() -> None:
        (first, second), _ = opened(2)
        await until(lambda: way_out(first, 1).stands)
        count, size = 600, 50_000
        for number in range(count):
            first.send(1, Forward((number.to_bytes(4, "big") + bytes(size),)))
        await asyncio.sleep(0.5)
        assert second._ways_in._arrived_bytes < 100_000 + 2 * size
        assert way_out(first, 1)._waiting, "the sender keeps what the receiver does not take"
        ear = Ear(second)
        for number in range(count):
            sender, message = await ear.hear()
            assert isinstance(message, Forward)
            assert (sender, message.transactions[0][:4]) == (0, number.to_bytes(4, "big"))
        assert not first.counters["dropped_full_queue"]
        await closed(first, second)

    run(scenario)


def test_a_peer_that_reads_nothing_costs_a_bounded_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.links.waiting.MAX_QUEUED_BYTES", 1_000_000)

    async def scenario() -> None:
        (first, second), _ = opened(2)
        await until(lambda: way_out(first, 1).stands)
        for _ in range(2_000):  # `second` takes none of it
            first.send(1, Forward((bytes(50_000),)))
        await asyncio.sleep(0.2)
        assert first.counters["dropped_full_queue"] > 0
        assert sum(map(len, way_out(first, 1)._waiting._bulk.frames)) <= 1_000_000
        await closed(first, second)

    run(scenario)


def test_file_descriptors_that_run_out_stop_the_door_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aggregator.links.listening.BREATH_S", 0.1)

    class Exhausted:
        """A listener whose `accept` fails once."""

        def __init__(self, listener: socket.socket) -> None:
            self._listener, self._failed = listener, False

        def __getattr__(self, name: str) -> object:
            return getattr(self._listener, name)

        def accept(self) -> tuple[socket.socket, object]:
            if not self._failed:
                self._failed = True
                raise OSError(24, "Too many open files")
            return self._listener.accept()

    async def scenario() -> None:
        with monkeypatch.context() as patched:
            listen = listening._listen
            patched.setattr("aggregator.links.listening._listen", lambda address: Exhausted(listen(address)))
            (first, second), _ = opened(2)
        await members_still_talk(first, second)
        assert first.counters["accepts_failed"] == 1
        await closed(first, second)

    run(scenario)


def test_of_all_handshakes_those_that_have_begun_go_first() -> None:
    """So a committee that comes all at once is let in one by one; who has given up takes no turn."""

    async def scenario() -> None:
        steps, order = Steps(), []

        async def take(name: str, begun: bool) -> None:
            await steps.turn(begun=begun)
            order.append(name)

        waiting = [asyncio.create_task(take(f"new {number}", False)) for number in range(3)]
        waiting.append(asyncio.create_task(take("begun", True)))
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == ["begun", "new 0", "new 2"]

    run(scenario)
