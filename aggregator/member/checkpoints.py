"""The ledger as it was at checkpoints, so that rows can be proved against what a quorum signed.

States are persistent maps that share what did not change, so remembering one costs little. A checkpoint's
tree stays from its making until a later checkpoint is stable.

Bounds: states and trees of at most ``limit`` checkpoints, those that the replica's window may still make
stable and the stable one.

Source: design section 6 ("checkpoints sign it").
"""

from __future__ import annotations

from aggregator.ledger.row_tree import RowTree, RowTrees
from aggregator.ledger.state import State
from aggregator.pbft.messages import StableCheckpoint
from protocol.certificate import MemberSignature
from protocol.state_proof import StateProof


class Checkpoints:
    """States at due checkpoints, latest last, and their trees as far as they were asked for."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._states: dict[int, State] = {}
        self._trees: dict[int, RowTree] = {}
        self._maker = RowTrees()

    def __len__(self) -> int:
        return len(self._states)

    def remember(self, state: State, stable: int) -> None:
        """Keep the state at a due checkpoint; what is older than the ``stable`` one is of no use any more."""
        self._states[state.sequence] = state
        kept = [sequence for sequence in self._states if sequence >= stable][-self._limit :]
        self._states = {sequence: self._states[sequence] for sequence in kept}
        self._trees = {sequence: tree for sequence, tree in self._trees.items() if sequence in self._states}

    def state(self, sequence: int) -> State | None:
        """The ledger at a checkpoint, if it is remembered."""
        return self._states.get(sequence)

    def root(self, sequence: int) -> bytes:
        """State root (32 bytes) at a remembered checkpoint."""
        return self._tree(sequence).root

    def prove(self, stable: StableCheckpoint | None, section: str, key: bytes) -> StateProof | None:
        """Proof of a row at the stable checkpoint; none if there is no such row, or nothing signed yet."""
        if stable is None or not stable.proof or stable.sequence not in self._states:
            return None
        found = self._tree(stable.sequence).prove(section, key)
        if found is None:
            return None
        value, path = found
        return StateProof(
            sequence=stable.sequence,
            root=stable.root,
            signatures=tuple(
                MemberSignature(member=vote.signer, signature=vote.signature) for vote in stable.proof
            ),
            section=section,
            key=key,
            value=value,
            path=path,
        )

    def _tree(self, sequence: int) -> RowTree:
        if sequence not in self._trees:
            self._trees[sequence] = self._maker.tree(self._states[sequence])
        return self._trees[sequence]
