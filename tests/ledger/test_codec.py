"""Snapshots of random ledgers come back equal; anything else is refused with a typed error."""

from __future__ import annotations

import dataclasses
import random

import pytest

from aggregator.ledger import codec
from aggregator.ledger.root import state_root
from aggregator.ledger.state import State
from aggregator.ledger.transition import apply_block
from aggregator.member.archive import Archive
from aggregator.member.snapshot import Snapshot, decode_snapshot
from aggregator.pbft.messages import StableCheckpoint
from protocol.errors import InvalidEncoding, UnknownVersion
from tests.ledger.driver import Driver
from tests.ledger.world import DOMAIN, TREASURY, genesis


def lived(seed: int, blocks: int) -> tuple[State, Archive]:
    """A ledger and its archive after a random life."""
    driver = Driver(seed)
    for _ in range(blocks):
        driver.step()
    state, archive = genesis(DOMAIN, TREASURY), Archive()
    for block in driver.world.blocks:
        applied = apply_block(state, block)
        archive.listen(applied.events)
        state = applied.state
    assert state_root(state) == state_root(driver.world.state)
    return state, archive


@pytest.mark.parametrize("seed", range(4))
def test_a_snapshot_of_any_ledger_comes_back_equal_and_lives_on(seed: int) -> None:
    state, archive = lived(seed, 120)
    assert codec.decode(State, codec.encode(state)) == state
    checkpoint = StableCheckpoint(state.sequence, state_root(state), ())
    data = Snapshot(epoch=1, checkpoint=checkpoint, state=state, archive=archive).encode()
    back = decode_snapshot(data)
    assert back.state == state
    assert back.archive.settlements == archive.settlements
    assert back.archive.entries == archive.entries
    for account in state.nodes:
        assert list(back.archive.credits_of(account)) == list(archive.credits_of(account))


def test_a_snapshot_with_any_byte_changed_is_refused() -> None:
    state, archive = lived(1, 60)
    assert archive.settlements, "the life must have settled something"
    checkpoint = StableCheckpoint(state.sequence, state_root(state), ())
    data = Snapshot(epoch=1, checkpoint=checkpoint, state=state, archive=archive).encode()
    choose = random.Random(7)
    for _ in range(300):
        place = choose.randrange(len(data))
        bent = bytearray(data)
        bent[place] ^= 1 << choose.randrange(8)
        with pytest.raises((InvalidEncoding, UnknownVersion)):
            decode_snapshot(bytes(bent))
    for end in choose.sample(range(len(data)), 50):
        with pytest.raises(InvalidEncoding):
            decode_snapshot(data[:end])


def test_an_archive_with_a_settlement_changed_or_missing_is_refused() -> None:
    state, archive = lived(1, 60)
    (epoch, settlement), *_ = archive.settlements.items()
    changed = Archive()
    other = dataclasses.replace(settlement, gas_used=settlement.gas_used + 1)
    changed.settlements = archive.settlements | {epoch: other}
    changed.entries = archive.entries
    with pytest.raises(InvalidEncoding):
        Archive.decode(changed.encode(state.settled_epoch), state.history)
    with pytest.raises(InvalidEncoding):
        Archive.decode(archive.encode(state.settled_epoch - 1), state.history)
