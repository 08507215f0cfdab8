"""What a checkpoint's state root costs in a large ledger: the definition against the tree that is kept.

    python -m benchmarks.state_root [--json] [--nodes 10000] [--changed 200]

A ledger of so many staked nodes with a nonce each. Between two checkpoints some of the nodes' rows and nonces
change; the last line is the cost of one proof out of the tree that is there. Medians of turns, one core, no
I/O.

Source: design section 6 ("State has a root hash; checkpoints sign it").
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from immutables import Map

from aggregator.ledger.root import state_root
from aggregator.ledger.row_tree import RowTrees
from aggregator.ledger.state import Node, Stake, State, genesis
from protocol.crypto import keccak256
from protocol.roles import Role
from protocol.typed_data import Domain

TURNS = 5


def ledger(nodes: int) -> State:
    """A ledger of ``nodes`` staked providers, each of which has sent something."""
    accounts = [keccak256(b"%d" % number)[:20] for number in range(nodes)]
    stakes = ((Role.PROVIDER, Stake(bonded=10**21)),)
    node = Node(stakes=stakes, endpoint="http://192.0.2.1:8000", link_key=bytes(32))
    state = genesis(Domain(31337, b"\x11" * 20), bytes(20))
    rows = {account: dataclasses.replace(node) for account in accounts}
    nonces = {account: 1_795_169_156_034 + place for place, account in enumerate(accounts)}
    return dataclasses.replace(state, nodes=Map(rows), nonces=Map(nonces))


def change(state: State, count: int) -> State:
    """``count`` nodes lock stake and use a nonce."""
    nodes, nonces = state.nodes, state.nonces
    for account in sorted(nodes)[:: max(1, len(nodes) // count)][:count]:
        stake = nodes[account].stake(Role.PROVIDER)
        locked = dataclasses.replace(stake, locked=stake.locked + 1)
        nodes = nodes.set(account, nodes[account].with_stake(Role.PROVIDER, locked))  # type: ignore[attr-defined]
        nonces = nonces.set(account, nonces[account] + 1)  # type: ignore[attr-defined]
    return dataclasses.replace(state, nodes=nodes, nonces=nonces, sequence=state.sequence + 1)


def milliseconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes once."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def measure(nodes: int, changed: int) -> dict[str, Any]:
    """All figures in milliseconds."""
    state, trees = ledger(nodes), RowTrees()
    pure, kept, proofs = [], [], []
    first = milliseconds(partial(trees.tree, state))
    for _ in range(TURNS):
        state = change(state, changed)
        pure.append(milliseconds(partial(state_root, state)))
        kept.append(milliseconds(partial(trees.tree, state)))
        tree = trees.tree(state)
        assert tree.root == state_root(state)
        account = sorted(state.nodes)[nodes // 2]
        proofs.append(milliseconds(partial(tree.prove, "nodes", account)))
    return {
        "nodes": nodes,
        "changed": changed,
        "definition_ms": round(statistics.median(pure), 2),
        "first_tree_ms": round(first, 2),
        "next_tree_ms": round(statistics.median(kept), 2),
        "proof_ms": round(statistics.median(proofs), 4),
    }


def main() -> int:
    """Measure once; print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--changed", type=int, default=200, help="nodes that change between checkpoints")
    arguments = parser.parse_args()
    figures = measure(arguments.nodes, arguments.changed)
    if arguments.json:
        print(json.dumps(figures))
        return 0
    print(f"{figures['nodes']} nodes with a nonce each, {figures['changed']} of them changed")
    for name in ("definition_ms", "first_tree_ms", "next_tree_ms", "proof_ms"):
        print(f"{name.removesuffix('_ms').replace('_', ' '):16}{figures[name]:>12} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
