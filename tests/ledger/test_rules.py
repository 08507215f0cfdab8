"""Protocol versions in the ledger: who executes what by which rules, and who stops where."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable

import pytest

from aggregator.ledger import codec
from aggregator.ledger.root import state_root
from aggregator.ledger.rules import RULES, Rulebook
from aggregator.ledger.state import Origin, State, Upgrade, genesis
from aggregator.ledger.transition import Block
from protocol.chain_events import AnyChainEvent, ParameterChanged
from protocol.crypto import keccak256
from protocol.errors import UnknownVersion
from protocol.parameters import DEFAULTS
from protocol.transactions import Claim, sign_transaction
from protocol.version import SUPPORTED
from tests.ledger.versions import NEWER, NEWEST, OLD, TALLY, WITHOUT_OLD, tally
from tests.ledger.world import DOMAIN, START_MS, TREASURY, World, key, who

LEAD = 5
COMMITTEE = World.committee(1, 4)


def says(version: int) -> ParameterChanged:
    """The chain names a version."""
    return ParameterChanged(key="protocol_version", value=version)


def block(state: State, events: Iterable[AnyChainEvent] = (), transactions: tuple[bytes, ...] = ()) -> Block:
    """The next block of a ledger."""
    after = state.origin.number if state.origin is not None else -1
    events = tuple(events)
    return Block(
        sequence=state.sequence + 1,
        timestamp_ms=START_MS + state.sequence,
        origin=Origin(number=after + 1, hash=keccak256(b"%d" % (after + 1))) if events else None,
        origin_after=after,
        chain_events=events,
        transactions=transactions,
    )


def begun(rules: Rulebook, *events: AnyChainEvent) -> State:
    """A ledger after its first origin."""
    state = genesis(DOMAIN, TREASURY, lead=LEAD)
    return rules.apply(state, block(state, [*events, COMMITTEE])).state


def grown(rules: Rulebook, state: State, blocks: int) -> State:
    """A ledger some empty blocks later."""
    for _ in range(blocks):
        state = rules.apply(state, block(state)).state
    return state


def test_this_software_tells_exactly_the_versions_that_it_has_rules_for() -> None:
    assert RULES.versions == SUPPORTED
    assert DEFAULTS["protocol_version"] == SUPPORTED.high


def test_a_version_takes_over_for_everybody_at_one_batch_and_that_is_known_a_window_before() -> None:
    state = begun(NEWER)
    taken = NEWER.apply(state, block(state, [says(2)])).state
    assert taken.upgrade == Upgrade(version=2, first=taken.sequence + LEAD + 1)
    assert NEWER.last_known(taken) is None and OLD.last_known(taken) == taken.sequence + LEAD
    before = grown(NEWER, taken, LEAD)
    assert before == grown(OLD, taken, LEAD), "up to there, old software makes the same of it"
    assert before.version == 1 and TALLY not in before.nodes
    assert OLD.last_known(before) == before.sequence
    after = NEWER.apply(before, block(before)).state
    assert (after.version, after.upgrade, tally(after)) == (2, None, 1001)
    assert state_root(after) != state_root(dataclasses.replace(after, version=1))


def test_software_that_does_not_know_the_next_version_makes_nothing_of_it_and_says_what_to_do() -> None:
    state = begun(OLD)
    state = grown(OLD, OLD.apply(state, block(state, [says(2)])).state, LEAD)
    with pytest.raises(
        UnknownVersion, match=rf"version 2 .* from batch {state.sequence + 1} on.*knows 1: up"
    ):
        OLD.apply(state, block(state))
    assert OLD.unknown_after(state) == (
        f"the network runs version 2 of the protocol from batch {state.sequence + 1} on; "
        "this software knows 1: upgrade"
    )
    assert NEWER.unknown_after(state) is None


def test_a_network_begins_with_the_version_that_its_chain_says_first() -> None:
    assert begun(NEWER).version == begun(NEWER, says(1)).version == 1
    state = begun(WITHOUT_OLD, says(2))
    assert (state.version, state.upgrade, tally(state)) == (2, None, 1)
    assert state == begun(NEWER, says(2)), "whoever also knows older rules begins alike"
    both = begun(NEWEST, says(2), says(3))
    assert both.version == 2 and both.upgrade is not None and both.upgrade.version == 3
    with pytest.raises(UnknownVersion):
        begun(OLD, says(2))


def test_batches_before_anything_came_from_the_chain_are_alike_by_all_rules() -> None:
    claim = Claim(sender=who("provider0"), nonce=1, oid=bytes(32), commitment=bytes(32))
    data = sign_transaction(DOMAIN, claim, key("provider0")).encode()
    state = genesis(DOMAIN, TREASURY)
    assert OLD.apply(state, block(state, (), (data,))).state == NEWEST.apply(state, block(state)).state


def test_versions_that_were_passed_over_are_entered_one_after_the_other() -> None:
    state = begun(NEWEST)
    state = grown(NEWEST, NEWEST.apply(state, block(state, [says(3)])).state, LEAD + 1)
    assert (state.version, tally(state)) == (3, 10_001)


def test_there_is_no_way_back_and_what_has_not_begun_can_be_called_off() -> None:
    state = begun(NEWEST)
    taken = NEWEST.apply(state, block(state, [says(3)])).state
    off = NEWEST.apply(taken, block(taken, [says(1)])).state
    assert off.upgrade is None and grown(NEWEST, off, 2 * LEAD).version == 1
    again = NEWEST.apply(taken, block(taken, [says(3)])).state
    assert again.upgrade == taken.upgrade, "named again, it comes when it was to come"
    other = NEWEST.apply(taken, block(taken, [says(2)])).state
    assert other.upgrade == Upgrade(version=2, first=other.sequence + LEAD + 1)
    two = grown(NEWEST, other, LEAD + 1)
    lower = NEWEST.apply(two, block(two, [says(1)])).state
    assert (lower.version, lower.upgrade) == (2, None)
    assert lower.parameters["protocol_version"] == 1, "what the chain says is kept as it is"


def test_the_front_door_asks_by_the_rules_in_force() -> None:
    claim = Claim(sender=who("provider0"), nonce=1, oid=bytes(32), commitment=bytes(32))
    data = sign_transaction(DOMAIN, claim, key("provider0")).encode()
    assert NEWEST.check(begun(NEWEST, says(2)), data).code == "UnknownOrder"
    assert NEWEST.check(begun(NEWEST, says(3)), data).code == "NoMore"
    assert OLD.check(begun(NEWEST, says(3)), data).code == "UnknownOrder", "halted, it still answers"


@pytest.mark.parametrize("seed", range(30))
def test_whoever_knows_the_rules_gets_the_same_ledger_and_nobody_else_goes_on(seed: int) -> None:
    """Any chain of announcements, any software: equal roots, or a stop that was told a window ahead."""
    choose = random.Random(seed)
    first = choose.choice(([], [says(1)], [says(2)]))
    reference = begun(NEWEST, *first)
    books: dict[str, Rulebook] = {"old": OLD, "newer": NEWER, "without old": WITHOUT_OLD}
    ledgers = {name: reference for name, book in books.items() if reference.version in book.versions}
    reached = set()
    for _ in range(60):
        events = [says(choose.choice((1, 2, 2, 3)))] if choose.random() < 0.15 else []
        following = block(reference, events)
        done = NEWEST.apply(reference, following).state
        for name, before in list(ledgers.items()):
            last = books[name].last_known(before)
            assert last is None or last >= before.sequence
            if done.version in books[name].versions:
                assert last is None or last > before.sequence
                ledgers[name] = books[name].apply(before, following).state
                assert state_root(ledgers[name]) == state_root(done)
                told = books[name].last_known(ledgers[name])
                assert told is None or last is not None or told >= done.sequence + LEAD, "told too late"
            else:
                assert last == before.sequence
                with pytest.raises(UnknownVersion):
                    books[name].apply(before, following)
                del ledgers[name]
        reference = done
        reached.add(reference.version)
        assert codec.decode(State, codec.encode(reference)) == reference
    assert reached <= {1, 2, 3} and reference.version == max(reached)
