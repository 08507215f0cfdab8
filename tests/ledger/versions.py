"""Rule sets that are not this software's: what newer releases could bring, for tests of how one takes over.

Version 2 changes what every block does, version 3 refuses what 2 accepts, and each changes the ledger that it
finds; so a block that is executed by the wrong rules, or a version that is entered twice or not at all, shows
in the state root.
"""

from __future__ import annotations

import dataclasses

from aggregator.ledger.rules import Rulebook, Rules
from aggregator.ledger.state import Node, State
from aggregator.ledger.transition import Applied, Block, TransactionResult, apply_block, check

TALLY = bytes(19) + b"\x02"
"""The account whose endpoint tells how many blocks were executed by version 2 or later."""


def tally(state: State) -> int:
    """How many blocks were executed by version 2 or later."""
    return int(state.nodes.get(TALLY, Node()).endpoint or 0)


def _tallied(state: State, count: int) -> State:
    nodes = state.nodes.set(TALLY, Node(endpoint=str(count)))  # type: ignore[attr-defined]
    return dataclasses.replace(state, nodes=nodes)


def _apply_2(state: State, block: Block) -> Applied:
    applied = apply_block(state, block)
    return dataclasses.replace(applied, state=_tallied(applied.state, tally(state) + 1))


def _enter_2(state: State) -> State:
    return _tallied(state, 1000)


def _apply_3(state: State, block: Block) -> Applied:
    return _apply_2(state, dataclasses.replace(block, transactions=()))


def _check_3(state: State, data: bytes) -> TransactionResult:
    return dataclasses.replace(check(state, data), code="NoMore")


def _enter_3(state: State) -> State:
    return _tallied(state, 10 * tally(state))


ONE = Rules(version=1)
TWO = Rules(version=2, apply=_apply_2, enter=_enter_2)
THREE = Rules(version=3, apply=_apply_3, check=_check_3, enter=_enter_3)

OLD = Rulebook(ONE)
NEWER = Rulebook(ONE, TWO)
NEWEST = Rulebook(ONE, TWO, THREE)
WITHOUT_OLD = Rulebook(TWO, THREE)
"""A release that has dropped version 1."""
