"""Links between members: who speaks is proved, what is no message is counted, what breaks comes back.

Real sockets on loopback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import zmq
import zmq.asyncio
from zmq.utils import z85

from aggregator.links.keys import LinkKey
from aggregator.links.links import LinkError, Links, Peer
from aggregator.pbft.messages import Fetch, Forward, Status, encode_message
from protocol.crypto import Key, keccak256

PATIENCE_S = 20.0
KEYS = [LinkKey.derive(Key(keccak256(b"member %d" % index))) for index in range(4)]


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous test; what hangs fails."""

    async def bounded() -> None:
        await asyncio.wait_for(test(), 3 * PATIENCE_S)

    asyncio.run(bounded())


def free_address() -> str:
    """A loopback address nobody listens on."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        return f"tcp://127.0.0.1:{port}"


def opened(count: int, addresses: list[str] | None = None) -> tuple[list[Links], dict[int, Peer]]:
    """``count`` members that all know each other."""
    addresses = addresses or [free_address() for _ in range(count)]
    peers = {n: Peer(index=n, address=addresses[n], link_key=KEYS[n].public) for n in range(count)}
    members = [Links(KEYS[n], addresses[n]) for n in range(count)]
    for member in members:
        member.start()
        member.set_peers(peers)
    return members, peers


async def closed(*members: Links) -> None:
    """Close all of them."""
    for member in members:
        await member.close()


async def heard(member: Links) -> tuple[int, Any]:
    """The next message."""
    return await asyncio.wait_for(member.receive(), PATIENCE_S)


def stranger(key: LinkKey, target: Peer) -> tuple[zmq.asyncio.Context, zmq.asyncio.Socket]:
    """A bare socket with a key of one's choice, connected to a member."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.curve_publickey, socket.curve_secretkey = z85.encode(key.public), z85.encode(key.secret)
    socket.curve_serverkey = z85.encode(target.link_key)
    socket.connect(target.address)
    return context, socket


def test_members_hear_each_other_in_order_and_know_who_speaks() -> None:
    async def scenario() -> None:
        (first, second, third), _ = opened(3)
        for number in range(100):
            first.send(1, Fetch(number))
        assert [await heard(second) for _ in range(100)] == [(0, Fetch(number)) for number in range(100)]
        second.send(0, Fetch(7))
        assert await heard(first) == (1, Fetch(7))
        third.broadcast(Forward((b"to all",)))
        assert await heard(first) == (2, Forward((b"to all",)))
        assert await heard(second) == (2, Forward((b"to all",)))
        await closed(first, second, third)

    run(scenario)


def test_a_large_message_arrives_whole() -> None:
    async def scenario() -> None:
        (first, second), _ = opened(2)
        first.send(1, Forward((bytes(4 * 1024 * 1024),)))
        assert await heard(second) == (0, Forward((bytes(4 * 1024 * 1024),)))
        await closed(first, second)

    run(scenario)


def test_a_key_that_nobody_registered_is_not_heard() -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        context, socket = stranger(LinkKey.derive(Key(keccak256(b"stranger"))), peers[0])
        await socket.send(encode_message(Fetch(666)))
        second.send(0, Fetch(1))
        assert await heard(first) == (1, Fetch(1)), "only the member was heard"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first.receive(), 0.5)
        socket.close()
        context.term()
        await closed(first, second)

    run(scenario)


def test_without_a_key_of_its_own_nobody_is_heard() -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(peers[0].address)
        await socket.send(encode_message(Fetch(666)))
        second.send(0, Fetch(1))
        assert await heard(first) == (1, Fetch(1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first.receive(), 0.5)
        socket.close()
        context.term()
        await closed(first, second)

    run(scenario)


def test_a_member_is_known_by_the_key_it_proved_whatever_it_claims() -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        context, socket = stranger(KEYS[1], peers[0])
        socket.setsockopt(zmq.IDENTITY, b"member 0")
        await socket.send(encode_message(Status(1, 0, True, 5, 0)))
        sender, message = await heard(first)
        assert (sender, message) == (1, Status(1, 0, True, 5, 0))
        socket.close()
        context.term()
        await closed(first, second)

    run(scenario)


def test_a_member_that_left_the_committee_is_not_heard_any_more() -> None:
    async def scenario() -> None:
        (first, second, third), peers = opened(3)
        third.send(0, Fetch(1))
        assert await heard(first) == (2, Fetch(1))
        first.set_peers({index: peers[index] for index in (0, 1)})
        third.send(0, Fetch(2))
        second.send(0, Fetch(3))
        assert await heard(first) == (1, Fetch(3))
        first.send(2, Fetch(4))  # to nobody
        assert 2 not in first._dealers
        await closed(first, second, third)

    run(scenario)


MALFORMED = {
    "text that is not UTF-8": [b"\x92\xa4\xff\xfe\xfd\xfc\x01"],
    "nothing": [b""],
    "garbage": [b"\xc1 garbage"],
    "deep": [b"\x91" * 100_000],
    "another type": [b"\x92\xa4noth\x01"],
    "too few fields": [encode_message(Fetch(1))[:-1]],
    "two frames": [b"one", b"two"],
}


@pytest.mark.parametrize("frames", [pytest.param(frames, id=name) for name, frames in MALFORMED.items()])
def test_what_is_no_message_is_counted_and_the_link_goes_on(
    frames: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        context, socket = stranger(KEYS[1], peers[0])
        try:
            await socket.send_multipart(frames)
            await socket.send(encode_message(Fetch(2)))
            assert await heard(first) == (1, Fetch(2))
            assert first.counters["malformed_from_1"] + first.counters["refused_unknown"] == 1
        finally:
            socket.close()
            context.term()
            await closed(first, second)

    with caplog.at_level(logging.CRITICAL, logger="aggregator.links.links"):
        run(scenario)


def test_a_link_comes_back_when_the_other_side_restarts() -> None:
    async def scenario() -> None:
        addresses = [free_address(), free_address()]
        (first, second), peers = opened(2, addresses)
        first.send(1, Fetch(1))
        assert await heard(second) == (0, Fetch(1))
        await second.close()
        again = Links(KEYS[1], addresses[1])
        again.start()
        again.set_peers(peers)
        hearing = asyncio.ensure_future(heard(again))
        while not hearing.done():
            first.send(1, Fetch(2))  # what was sent into the gap may be lost: consensus repeats itself
            await asyncio.sleep(0.05)
        assert hearing.result() == (0, Fetch(2))
        again.send(0, Fetch(3))
        assert await heard(first) == (1, Fetch(3))
        await closed(first, again)

    run(scenario)


def test_a_member_refused_at_first_is_heard_once_it_is_known_though_it_hears_the_other_all_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A newly appointed member connects before the others know it, and they connect to it."""
    monkeypatch.setattr("aggregator.links.links.REFUSED_S", 0.2)

    async def scenario() -> None:
        (first, second), peers = opened(2)
        second.set_peers({1: peers[1]})  # dismissed: refused from now on
        first.set_peers({0: peers[0]})
        first.set_peers(peers)
        while not first.counters["dropped_full_queue"]:
            first.send(1, Fetch(1))
            await asyncio.sleep(0.05)
        second.set_peers(peers)  # appointed again, and called
        hearing = asyncio.ensure_future(heard(second))
        while not hearing.done():
            second.send(0, Fetch(2))
            first.set_peers(peers)
            first.send(1, Fetch(3))
            await asyncio.sleep(0.05)
        assert hearing.result()[0] == 0
        await closed(first, second)

    run(scenario)


def test_messages_to_a_dead_member_are_dropped_at_a_bound_and_sending_never_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aggregator.links.links.MAX_QUEUED", 10)

    async def scenario() -> None:
        (first, second), _ = opened(2)
        await second.close()
        for number in range(200):
            first.send(1, Fetch(number))
        assert first.counters["dropped_full_queue"] > 0
        assert first.counters["sent"] + first.counters["dropped_full_queue"] == 200
        await first.close()

    run(scenario)


def test_an_address_in_use_is_a_typed_error() -> None:
    async def scenario() -> None:
        (first,), peers = opened(1)
        other = Links(KEYS[1], peers[0].address)
        with pytest.raises(LinkError, match="another address"):
            other.start()
        await closed(first, other)

    run(scenario)


def test_an_unusable_address_of_a_peer_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        bad = Peer(index=2, address="tcp://nonsense:port", link_key=KEYS[2].public)
        first.set_peers({**peers, 2: bad})
        first.send(2, Fetch(1))
        second.send(0, Fetch(1))
        assert await heard(first) == (1, Fetch(1))
        await closed(first, second)

    with caplog.at_level(logging.CRITICAL, logger="aggregator.links.links"):
        run(scenario)


def test_link_keys_follow_from_the_account_key_and_differ_from_it() -> None:
    key = Key(keccak256(b"member 0"))
    assert LinkKey.derive(key) == KEYS[0]
    assert len({each.public for each in KEYS}) == len(KEYS)
    assert KEYS[0].secret != key.secret
