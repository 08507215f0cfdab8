"""The tree behind a state root, kept so that the next one and any proof cost little.

Between checkpoints few rows change, and rows are immutable, so a row that is the same object has the same
leaf. `RowTrees.tree` reuses its last tree's leaves and inner nodes; what is kept is exactly one tree, bounded
by the rows that live.

Guarantee: the root equals `aggregator.ledger.root.state_root`, the definition, which tests compare it with.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aggregator.ledger.root import MAPS, head_of, row_value
from aggregator.ledger.state import State
from protocol.merkle import EMPTY_ROOT, parent
from protocol.state_proof import HEAD, row_leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTree:
    """All rows of one state as leaves, and the nodes above them, leaves first."""

    state: State
    keys: dict[str, list[bytes]]
    """Per section, the keys in ascending order."""
    levels: list[list[bytes]]

    @property
    def root(self) -> bytes:
        """The state root, 32 bytes."""
        return self.levels[-1][0] if self.levels[-1] else EMPTY_ROOT

    def prove(self, section: str, key: bytes) -> tuple[bytes, tuple[bytes, ...]] | None:
        """A row's canonical bytes and its Merkle path; none if there is no such row."""
        place = self._place(section, key)
        if place is None:
            return None
        row = head_of(self.state) if section == HEAD else getattr(self.state, section)[key]
        path = []
        for level in self.levels[:-1]:
            if (sibling := place ^ 1) < len(level):
                path.append(level[sibling])
            place //= 2
        return row_value(row), tuple(path)

    def _place(self, section: str, key: bytes) -> int | None:
        before = 0
        for name, keys in self.keys.items():
            if name == section:
                index = bisect_left(keys, key)
                return before + index if index < len(keys) and keys[index] == key else None
            before += len(keys)
        return None


class RowTrees:
    """Makes the trees of successive states."""

    def __init__(self) -> None:
        self._maps: dict[str, Mapping[bytes, Any]] = {}
        self._leaves: dict[str, dict[bytes, tuple[Any, bytes]]] = {name: {} for name in MAPS}
        self._parents: dict[bytes, bytes] = {}

    def tree(self, state: State) -> RowTree:
        """The tree of ``state``; only rows that are not in the last tree are hashed."""
        leaves = [row_leaf(HEAD, b"", row_value(head_of(state)))]
        keys = {HEAD: [b""]}
        for name in MAPS:
            rows: Mapping[bytes, Any] = getattr(state, name)
            if self._maps.get(name) is not rows:
                self._maps[name] = rows
                self._leaves[name] = _leaves_of(name, rows, self._leaves[name])
            known = self._leaves[name]
            keys[name] = list(known)
            leaves.extend(leaf for _, leaf in known.values())
        return RowTree(state=state, keys=keys, levels=self._levels(leaves))

    def _levels(self, leaves: list[bytes]) -> list[list[bytes]]:
        known, self._parents = self._parents, {}
        levels = [leaves]
        while len(levels[-1]) > 1:
            level = levels[-1]
            above = []
            for place in range(0, len(level) - 1, 2):
                pair = level[place] + level[place + 1]
                node = known.get(pair)
                if node is None:
                    node = parent(level[place], level[place + 1])
                self._parents[pair] = node
                above.append(node)
            levels.append(above + level[len(level) - len(level) % 2 :])
        return levels


def _leaves_of(
    section: str, rows: Mapping[bytes, Any], known: dict[bytes, tuple[Any, bytes]]
) -> dict[bytes, tuple[Any, bytes]]:
    """Per key, ascending, the row and its leaf."""
    leaves: dict[bytes, tuple[Any, bytes]] = {}
    for key in sorted(rows):
        row, before = rows[key], known.get(key)
        if before is None or before[0] is not row:
            before = (row, row_leaf(section, key, row_value(row)))
        leaves[key] = before
    return leaves
