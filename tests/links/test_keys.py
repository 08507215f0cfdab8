"""Link keys that follow each other, and a member that takes up another one while it runs."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from aggregator.links.errors import LinkBroken, LinkError
from aggregator.links.keys import MAX_KEYS, LinkKey
from aggregator.pbft.messages import Fetch
from protocol.crypto import Key, keccak256
from tests.links.peers import KEYS, Stranger, closed, heard, opened, run, until

ACCOUNT = Key(keccak256(b"member 1"))


def test_an_account_has_many_link_keys_and_knows_its_own_from_others() -> None:
    keys = [LinkKey.derive(ACCOUNT, number) for number in range(MAX_KEYS)]
    assert len({key.public for key in keys}) == MAX_KEYS
    assert keys[0] == LinkKey.derive(ACCOUNT) == KEYS[1]
    assert [LinkKey.number_of(ACCOUNT, key.public) for key in keys] == list(range(MAX_KEYS))
    assert LinkKey.number_of(ACCOUNT, KEYS[0].public) is None
    for number in range(MAX_KEYS - 1):
        assert LinkKey.after(ACCOUNT, keys[number].public) == keys[number + 1]
        assert LinkKey.registered(ACCOUNT, keys[number].public) == keys[number]
    assert LinkKey.after(ACCOUNT, bytes(32)) == LinkKey.registered(ACCOUNT, bytes(32)) == keys[0]
    with pytest.raises(LinkError, match="used up its 64 link keys"):
        LinkKey.after(ACCOUNT, keys[-1].public)


def test_a_member_changes_its_link_key_while_messages_flow_and_the_old_one_opens_no_door() -> None:
    """The others read the registry one after the other, before and after the member itself."""
    fresh = LinkKey.derive(ACCOUNT, 1)

    async def scenario() -> None:
        (first, second, third), peers = opened(3)
        second.send(0, Fetch(1))
        assert await heard(first) == (1, Fetch(1))
        second.send(2, Fetch(2))
        assert await heard(third) == (1, Fetch(2))
        after = {**peers, 1: dataclasses.replace(peers[1], link_key=fresh.public)}
        first.set_peers(after)  # who has read of it refuses the old key at once
        second.rekey(fresh)
        second.set_peers(after)
        second.send(2, Fetch(3))
        assert await heard(third) == (1, Fetch(3)), "who has not read of it yet still hears it"
        third.set_peers(after)
        for number, (member, to) in enumerate([(first, 0), (third, 2)], 10):
            await until(lambda to=to: second._ways_out[to].stands)
            second.send(to, Fetch(number))
            assert await heard(member) == (1, Fetch(number))
            member.send(1, Fetch(number))
            assert (await heard(second))[1] == Fetch(number)
        with pytest.raises((LinkBroken, OSError)):
            await Stranger.knock(KEYS[1], after[0])  # whoever has stolen the old key
        with pytest.raises(LinkBroken, match="not expected"):
            await Stranger.knock(KEYS[0], peers[1])  # the member proves the old key to nobody
        await closed(first, second, third)
        await asyncio.sleep(0)

    run(scenario)
