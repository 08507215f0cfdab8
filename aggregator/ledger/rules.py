"""Which rules a block is executed by: protocol versions, and how one takes over from another.

The version in force is part of the state. A network begins with the version that its first origin names; the
chain names a higher one in ``protocol_version``, and `State.upgrade` then says from which batch on it holds:
``State.lead`` batches after the one that took the change in, as with committees, so that whoever may vote for
that batch knows of it (`aggregator.ledger.state.HANDOVER_LEAD`). Everybody who executes the batch first lets
the ledger enter the new version, then applies it by the new rules.

A `Rulebook` holds the versions that this software knows. Where the next batch needs another one, `last_known`
says so in time, and a member stops there (`aggregator.member`).

Guarantees: `Rulebook.apply` is a function of state and block; two rulebooks that both know the version of a
block make the same of it; one that does not raises `UnknownVersion` and makes nothing of it.

Source: design section 6; ethereum/execution-specs (one set of rules per fork, and what a fork does to the
state first); Cosmos SDK x/upgrade (a plan in the state names the height; older software stops before it).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aggregator.ledger.state import State
from aggregator.ledger.transition import Applied, Block, TransactionResult, apply_block, check
from protocol.chain_events import ParameterChanged
from protocol.errors import UnknownVersion
from protocol.version import FIRST_VERSION, Versions, beyond


def _as_it_is(state: State) -> State:
    return state


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of one protocol version."""

    version: int
    apply: Callable[[State, Block], Applied] = apply_block
    """What a block makes of the ledger."""
    check: Callable[[State, bytes], TransactionResult] = check
    """What would become of a transaction if it came next."""
    enter: Callable[[State], State] = _as_it_is
    """What becomes of the ledger that the version before has left."""


class Rulebook:
    """The rules of consecutive protocol versions."""

    def __init__(self, *rules: Rules) -> None:
        self._rules = {each.version: each for each in rules}
        self.versions = Versions(rules[0].version, rules[-1].version)
        known = list(range(self.versions.low, self.versions.high + 1))
        assert [each.version for each in rules] == known, "versions follow each other"

    def apply(self, state: State, block: Block) -> Applied:
        """The ledger after ``block``, by the rules of the version in force there.

        Raises:
            UnknownVersion: those are none of this rulebook's.
        """
        if state.origin is None:
            return self._apply_first(state, block)
        upgrade = state.upgrade
        if upgrade is not None and block.sequence >= upgrade.first:
            self._of(upgrade.version, upgrade.first)
            for version in range(state.version + 1, upgrade.version + 1):
                state = self._of(version, upgrade.first).enter(state)
            state = dataclasses.replace(state, version=upgrade.version, upgrade=None)
        return self._of(state.version, block.sequence).apply(state, block)

    def _apply_first(self, state: State, block: Block) -> Applied:
        """A block before anything came from the chain, or with what came first: nothing was executed yet."""
        version = self.versions.low  # without nodes and orders any rules refuse everything alike
        if block.origin is not None and block.origin_after == -1:
            named = (
                event.value
                for event in block.chain_events
                if isinstance(event, ParameterChanged) and event.key == "protocol_version"
            )
            version = next(named, FIRST_VERSION)
            state = dataclasses.replace(state, version=version)
        return self._of(version, block.sequence).apply(state, block)

    def check(self, state: State, data: bytes) -> TransactionResult:
        """What would become of a transaction if it came next: for a node's front door, not for consensus."""
        # Who stands before rules that it does not know serves nobody; what it was last tells as much.
        known = min(max(state.version, self.versions.low), self.versions.high)
        return self._rules[known].check(state, data)

    def last_known(self, state: State) -> int | None:
        """The last batch that this rulebook can execute; none while no end is known."""
        upgrade = state.upgrade
        upcoming = state.version
        if upgrade is not None and state.sequence + 1 >= upgrade.first:
            upcoming = upgrade.version
        if state.origin is not None and upcoming not in self.versions:
            return state.sequence
        if upgrade is not None and upgrade.version not in self.versions:
            return upgrade.first - 1
        return None

    def unknown_after(self, state: State) -> str | None:
        """Why there is a `last_known`, and what to do; none while there is no end."""
        last = self.last_known(state)
        if last is None:
            return None
        version = state.upgrade.version if state.upgrade is not None else state.version
        return beyond(version, last + 1, self.versions)

    def _of(self, version: int, first: int) -> Rules:
        rules = self._rules.get(version)
        if rules is None:
            raise UnknownVersion(beyond(version, first, self.versions))
        return rules


RULES: Final = Rulebook(Rules(version=1))
"""What this software can execute; `protocol.version.SUPPORTED` tells everybody."""
