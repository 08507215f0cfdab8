"""The fast state root is the defined one, every row can be proved, and what is kept is bounded."""

from __future__ import annotations

import pytest

from aggregator.ledger.root import MAPS, state_root
from aggregator.ledger.row_tree import RowTrees
from aggregator.member.checkpoints import Checkpoints
from protocol.merkle import verify
from protocol.roles import Role
from protocol.state_proof import HEAD, SECTIONS, row_leaf
from protocol.state_rows import EntryRow, HeadRow, NodeRow, decode_row
from tests.ledger.checkpointed import checkpointed
from tests.ledger.driver import Driver
from tests.ledger.world import STAKE, World, who


@pytest.mark.parametrize("seed", range(4))
def test_the_tree_that_is_kept_has_the_root_of_the_definition_through_a_random_life(seed: int) -> None:
    driver, trees = Driver(seed), RowTrees()
    for number in range(150):
        driver.step()
        if number % 7 == 0:
            tree = trees.tree(driver.world.state)
            assert tree.root == state_root(driver.world.state)
            live = 1 + sum(len(getattr(driver.world.state, name)) for name in MAPS)
            assert len(tree.levels[0]) == live
            assert sum(map(len, trees._leaves.values())) == live - 1, "exactly the live rows are kept"
            assert len(trees._parents) < live


def test_going_back_to_an_older_state_gives_its_root_again() -> None:
    world, trees = World.new(), RowTrees()
    older = world.state
    world.stake("provider0", Role.PROVIDER)
    for state in (older, world.state, older, world.state):
        assert trees.tree(state).root == state_root(state)


def test_every_row_of_every_section_is_proved_and_nothing_else_is() -> None:
    made = checkpointed()
    state, trees = made.world.state, RowTrees()
    tree = trees.tree(state)
    rows = [(HEAD, b"")] + [(name, key) for name in MAPS for key in getattr(state, name)]
    assert {section for section, _ in rows} == set(SECTIONS), "something in every section"
    for section, key in rows:
        found = tree.prove(section, key)
        assert found is not None
        value, path = found
        assert verify(row_leaf(section, key, value), path, state_root(state))
        decode_row(section, value)
    for section, key in (("nodes", b"\x01" * 20), ("table", bytes(32)), ("nowhere", b""), (HEAD, b"x")):
        assert tree.prove(section, key) is None


def test_rows_read_as_the_ledger_wrote_them() -> None:
    made = checkpointed()
    state = made.world.state
    head = decode_row(HEAD, made.prove(HEAD, b"").value)
    assert isinstance(head, HeadRow)
    assert (head.sequence, head.now_ms, head.settled_epoch) == (
        state.sequence,
        state.now_ms,
        state.settled_epoch,
    )
    assert head.committee.members == state.committee.members and head.treasury == state.treasury
    assert head.parameters == state.parameters.values and head.next_update_ms == state.next_update_ms
    node = decode_row("nodes", made.prove("nodes", who("provider0")).value)
    assert isinstance(node, NodeRow)
    kept = state.nodes[who("provider0")].stake(Role.PROVIDER)
    stake = node.stake(Role.PROVIDER)
    assert (stake.bonded, stake.locked) == (kept.bonded, kept.locked) and stake.bonded == STAKE
    assert node.stake(Role.VERIFIER).bonded == 0
    entry = decode_row("table", made.prove("table", made.running).value)
    assert isinstance(entry, EntryRow)
    assert entry.order == state.table[made.running].order and entry.outcome is None
    assert entry.taken_ms == state.table[made.running].taken_ms
    assert (
        decode_row("nonces", made.prove("nonces", who("provider0")).value) == state.nonces[who("provider0")]
    )
    root = state.receipt_roots[made.settled]
    assert decode_row("receipt_roots", made.prove("receipt_roots", made.settled).value) == root


def test_an_outcome_is_read_with_its_receipts() -> None:
    world = World.new()
    oid = world.place(kind="alchemy")
    tree = RowTrees().tree(world.state)
    found = tree.prove("table", oid)
    assert found is not None
    entry = decode_row("table", found[0])
    assert isinstance(entry, EntryRow) and entry.outcome is not None
    (row,), (receipt,) = entry.outcome.receipts, world.outcome(oid).receipts
    assert (row.account, row.oid, row.role, row.reason, row.amount_wei, row.refs) == (
        receipt.account, receipt.oid, receipt.role, receipt.reason, receipt.amount_wei, receipt.refs,
    )  # fmt: skip


def test_checkpoints_keep_a_bounded_number_of_states_and_drop_what_is_older_than_the_stable_one() -> None:
    world, checkpoints = World.new(), Checkpoints(3)
    for _ in range(10):
        world.wait(1)
        checkpoints.remember(world.state, 0)
        checkpoints.root(world.state.sequence)
        assert len(checkpoints) <= 3 and len(checkpoints._trees) <= 3
    checkpoints.remember(world.state, world.state.sequence)
    assert len(checkpoints) == len(checkpoints._trees) == 1
