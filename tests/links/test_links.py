"""Links between members: who speaks is proved, what is no message is counted, what breaks comes back.

Real sockets on loopback.
"""

from __future__ import annotations

import asyncio
import logging

import pytest

from aggregator.links.errors import LinkBroken, LinkError
from aggregator.links.keys import LinkKey
from aggregator.links.links import Links, Peer
from aggregator.links.tls import Channel
from aggregator.pbft.messages import Fetch, Forward, Status, encode_message
from protocol.crypto import Key, keccak256
from protocol.version import Versions
from tests.links.peers import (
    KEYS,
    STRANGER,
    Ear,
    Stranger,
    closed,
    free_address,
    heard,
    opened,
    run,
    until,
    way_out,
)


def test_members_hear_each_other_in_order_and_know_who_speaks() -> None:
    async def scenario() -> None:
        (first, second, third), _ = opened(3)
        for number in range(1_000):
            first.send(1, Fetch(number))
        ear = Ear(second)
        assert [await ear.hear() for _ in range(1_000)] == [(0, Fetch(number)) for number in range(1_000)]
        second.send(0, Fetch(7))
        assert await heard(first) == (1, Fetch(7))
        third.broadcast(Forward((b"to all",)))
        assert await heard(first) == (2, Forward((b"to all",)))
        assert await ear.hear() == (2, Forward((b"to all",)))
        await closed(first, second, third)

    run(scenario)


def test_a_member_of_another_version_is_told_apart_from_one_that_is_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Members that know none of the other's versions exchange nothing, and the log says once what to do."""

    async def scenario() -> None:
        (first, second), _ = opened(2, versions=[Versions(1, 2), Versions(3, 4)])
        first.send(1, Fetch(1))
        await until(lambda: first.counters["dials_to_other_version"] >= 2)
        assert not second.counters["received"]
        await closed(first, second)

    with caplog.at_level("ERROR"):
        run(scenario)
    told = [record.getMessage() for record in caplog.records if "upgrade" in record.getMessage()]
    assert 1 <= len(told) <= 2 and all("version 3 to 4" in line or "version 1 to 2" in line for line in told)


def test_members_whose_versions_overlap_talk_while_one_is_upgraded_before_the_other() -> None:
    async def scenario() -> None:
        (first, second), _ = opened(2, versions=[Versions(1, 1), Versions(1, 2)])
        first.send(1, Fetch(1))
        assert await heard(second) == (0, Fetch(1))
        second.send(0, Fetch(2))
        assert await heard(first) == (1, Fetch(2))
        await closed(first, second)

    run(scenario)


def test_large_and_small_messages_arrive_whole_and_in_order() -> None:
    async def scenario() -> None:
        (first, second), _ = opened(2)
        said = [
            Forward((bytes([number]) * size,)) for number, size in enumerate([4_194_304, 3, 20_000, 0, 9])
        ]
        ear = Ear(second)
        for _ in range(2):  # before the link stands, and after
            for message in said:
                first.send(1, message)
            assert [await ear.hear() for _ in said] == [(0, message) for message in said]
        await closed(first, second)

    run(scenario)


def test_a_key_that_nobody_registered_is_not_heard() -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        with pytest.raises((LinkBroken, OSError)):
            await Stranger.knock(STRANGER, peers[0])
        assert first.counters["handshakes_refused"] == 1
        second.send(0, Fetch(1))
        assert await heard(first) == (1, Fetch(1)), "only the member was heard"
        await closed(first, second)

    run(scenario)


def test_a_member_is_known_by_the_key_it_proved_whatever_it_claims() -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        stranger = await Stranger.knock(KEYS[1], peers[0])
        await stranger.say(encode_message(Status(1, 0, True, 5, 0)))
        assert await heard(first) == (1, Status(1, 0, True, 5, 0))
        stranger.close()
        await closed(first, second)

    run(scenario)


def test_a_peer_under_another_key_than_its_registered_one_is_told_nothing() -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        impostor = Peer(index=1, address=peers[1].address, link_key=STRANGER.public)
        first.set_peers({0: peers[0], 1: impostor})
        first.send(1, Fetch(1))
        await until(lambda: first.counters["dials_failed"] >= 2)
        assert not way_out(first, 1).stands and not second.counters["received"]
        await closed(first, second)

    run(scenario)


def test_a_member_that_left_the_committee_is_cut_off_at_once_and_not_heard_any_more() -> None:
    async def scenario() -> None:
        (first, second, third), peers = opened(3)
        third.send(0, Fetch(1))
        assert await heard(first) == (2, Fetch(1))
        await until(lambda: way_out(first, 2).stands)
        third.send(0, Fetch(2))
        await asyncio.sleep(0.1)  # it has arrived, but nobody has taken it
        first.set_peers({index: peers[index] for index in (0, 1)})
        first.send(2, Fetch(4))  # to nobody
        assert 2 not in first._ways_out
        await until(lambda: not way_out(third, 0).stands)
        third.send(0, Fetch(3))
        second.send(0, Fetch(5))
        assert await heard(first) == (1, Fetch(5))
        await closed(first, second, third)

    run(scenario)


def test_a_member_that_registers_another_key_is_heard_under_that_one_only() -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        old = await Stranger.knock(KEYS[1], peers[0])
        await second.close()
        renewed = {**peers, 1: Peer(index=1, address=peers[1].address, link_key=KEYS[3].public)}
        again = Links(KEYS[3], peers[1].address)
        again.start()
        again.set_peers(renewed)
        first.set_peers(renewed)
        assert await old.is_cut()
        again.send(0, Fetch(1))
        assert await heard(first) == (1, Fetch(1))
        first.send(1, Fetch(2))
        assert await heard(again) == (0, Fetch(2))
        old.close()
        await closed(first, again)

    run(scenario)


MALFORMED = {
    "text that is not UTF-8": b"\x92\xa4\xff\xfe\xfd\xfc\x01",
    "nothing": b"",
    "garbage": b"\xc1 garbage",
    "deep": b"\x91" * 100_000,
    "another type": b"\x92\xa4noth\x01",
    "too few fields": encode_message(Fetch(1))[:-1],
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in MALFORMED.items()])
def test_what_is_no_message_is_counted_and_the_link_goes_on(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        stranger = await Stranger.knock(KEYS[1], peers[0])
        hearing = asyncio.create_task(heard(first))
        for _ in range(300):
            await stranger.say(data)
        await stranger.say(encode_message(Fetch(2)))
        assert await hearing == (1, Fetch(2))
        assert first.counters["malformed_from_1"] == 300
        assert len(caplog.records) == 1, "one line, however many"
        stranger.close()
        await closed(first, second)

    with caplog.at_level(logging.WARNING, logger="aggregator.links.links"):
        run(scenario)


def test_a_link_comes_back_when_the_other_side_restarts() -> None:
    async def scenario() -> None:
        addresses = [free_address(), free_address()]
        (first, second), peers = opened(2, addresses)
        first.send(1, Fetch(1))
        assert await heard(second) == (0, Fetch(1))
        await second.close()
        await until(lambda: not way_out(first, 1).stands)
        again = Links(KEYS[1], addresses[1])
        again.start()
        again.set_peers(peers)
        first.send(1, Fetch(2))
        assert await heard(again) == (0, Fetch(2))
        again.send(0, Fetch(3))
        assert await heard(first) == (1, Fetch(3))
        await closed(first, again)

    run(scenario)


def test_a_member_refused_at_first_is_heard_once_it_is_known() -> None:
    """A newly appointed member connects before the others know it."""

    async def scenario() -> None:
        (first, second), peers = opened(2)
        second.set_peers({1: peers[1]})
        await until(lambda: first.counters["dials_failed"])
        second.set_peers(peers)
        first.send(1, Fetch(3))
        assert await heard(second) == (0, Fetch(3))
        await closed(first, second)

    run(scenario)


def test_a_dial_that_fails_in_a_way_nobody_thought_of_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A member that stopped dialling would be heard by nobody for ever, and hear all."""
    welcomed, failures = Channel.welcomed, [MemoryError("odd"), MemoryError("odd")]

    def stumbling(channel: Channel, data: bytes) -> bool:
        if failures:
            raise failures.pop()
        return welcomed(channel, data)

    async def scenario() -> None:
        monkeypatch.setattr(Channel, "welcomed", stumbling)
        (first, second), _ = opened(2)
        first.send(1, Fetch(3))
        assert await heard(second) == (0, Fetch(3))
        second.send(0, Fetch(4))
        assert await heard(first) == (1, Fetch(4))
        await closed(first, second)

    run(scenario)
    assert not failures and "no link to 127.0.0.1" in caplog.text and "MemoryError: odd" in caplog.text


def test_a_link_that_cannot_encrypt_is_dialled_anew_and_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encrypt = Channel.encrypt
    broken: list[Channel] = []

    def failing(channel: Channel, data: bytes | memoryview) -> bytes:
        if channel.dialled and not broken:
            broken.append(channel)
        if channel in broken:
            raise LinkBroken("odd")
        return encrypt(channel, data)

    async def scenario() -> None:
        (first, second, third), _ = opened(3)
        await until(lambda: way_out(first, 1).stands and way_out(first, 2).stands)
        monkeypatch.setattr(Channel, "encrypt", failing)
        first.broadcast(Fetch(1))
        assert await heard(third) == (0, Fetch(1))
        first.send(1, Fetch(2))
        assert await heard(second) == (0, Fetch(2)), "what a dead connection had taken is lost"
        await closed(first, second, third)

    run(scenario)
    assert broken


def test_a_silent_peer_gets_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.links.links.SILENCE_S", 0.1)

    async def scenario() -> None:
        (first, second), peers = opened(2)
        await until(lambda: way_out(first, 1).stands)
        await asyncio.sleep(0.2)
        first.set_peers(peers)
        assert not way_out(first, 1).stands
        first.send(1, Fetch(1))
        assert await heard(second) == (0, Fetch(1))
        await closed(first, second)

    run(scenario)


def test_messages_to_a_dead_member_are_dropped_at_a_bound_and_sending_never_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aggregator.links.waiting.MAX_QUEUED", 10)

    async def scenario() -> None:
        (first, second), _ = opened(2)
        await second.close()
        for number in range(200):
            first.send(1, Fetch(number))
        assert first.counters["dropped_full_queue"] == 190
        assert first.counters["sent"] == 10
        await first.close()

    run(scenario)


def test_bytes_that_wait_are_bounded_too_but_any_message_finds_room_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aggregator.links.waiting.MAX_QUEUED_BYTES", 1_000)

    async def scenario() -> None:
        (first, second), _ = opened(2)
        first.send(1, Forward((bytes(5_000),)))
        first.send(1, Forward((b"too much",)))
        assert first.counters["dropped_full_queue"] == 1
        assert await heard(second) == (0, Forward((bytes(5_000),)))
        await closed(first, second)

    run(scenario)


def test_an_address_in_use_is_a_typed_error() -> None:
    async def scenario() -> None:
        (first,), peers = opened(1)
        other = Links(KEYS[1], peers[0].address)
        with pytest.raises(LinkError, match="another address"):
            other.start()
        await closed(first, other)

    run(scenario)


@pytest.mark.parametrize(
    "address",
    ["nonsense", "http://127.0.0.1:1", "tcp://127.0.0.1", "tcp://h:port", "tcp://h:99999", "tcp://[:1"],
)
def test_what_is_no_address_is_a_typed_error(address: str) -> None:
    async def scenario() -> None:
        links = Links(KEYS[0], address)
        with pytest.raises(LinkError, match="no link address"):
            links.start()
        await links.close()

    run(scenario)


@pytest.mark.parametrize(
    "address", ["tcp://nonsense:port", "tcp://" + "a" * 70 + ".invalid:1", "tcp://[::1]:1"]
)
def test_an_unusable_address_of_a_peer_keeps_nobody_else_waiting(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        (first, second), peers = opened(2)
        bad = Peer(index=2, address=address, link_key=KEYS[2].public)
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
    assert KEYS[0].secret.hex() not in repr(KEYS[0])
