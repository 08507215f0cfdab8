"""The Merkle tree over the credits of a settlement; receipts, batches and the ledger's rows use it as well.

Guarantees: equal to ``contracts/lib/CreditTree.sol`` and accepted by OpenZeppelin's ``MerkleProof``. A
leaf is hashed twice, so that no inner node can pass for a leaf; an inner node is the hash of its two
children in ascending order, so that a proof needs no directions; the last node of an odd level moves up
unchanged; one leaf is its own root; no leaf gives 32 zero bytes. Leaves keep the order they are given in.

Source: PoT 3.3.4 (Manage.Update); design section 5 (Settlement).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protocol.crypto import keccak256

EMPTY_ROOT: Final = bytes(32)
"""Root of a report without credits."""

_AMOUNT_LIMIT: Final = 1 << 96


def credit_leaf(account: bytes, amount_wei: int) -> bytes:
    """Leaf (32 bytes) of one credit: ``keccak256(keccak256(abi.encode(address, uint256)))``.

    Raises:
        ValueError: the account has not 20 bytes, or the amount is not in [1, 2^96).
    """
    if len(account) != 20:
        raise ValueError(f"an account has 20 bytes, this one has {len(account)}")
    if not 0 < amount_wei < _AMOUNT_LIMIT:
        raise ValueError(f"a credit lies in [1, 2^96), not {amount_wei}")
    return keccak256(keccak256(account.rjust(32, b"\0") + amount_wei.to_bytes(32, "big")))


def receipt_leaf(
    account: bytes, oid: bytes, amount_wei: int, role: str, reason: str, refs: Sequence[bytes]
) -> bytes:
    """Leaf (32 bytes) of one receipt; ``refs`` are ids of 32 bytes each."""
    parts = (
        account,
        oid,
        amount_wei.to_bytes(32, "big", signed=True),
        keccak256(role.encode()),
        keccak256(reason.encode()),
        keccak256(b"".join(refs)),
    )
    return keccak256(keccak256(b"".join(parts)))


def root(leaves: Sequence[bytes]) -> bytes:
    """Root (32 bytes) of the tree over ``leaves``; ``EMPTY_ROOT`` if there are none."""
    level = list(leaves)
    while len(level) > 1:
        level = _parents(level)
    return level[0] if level else EMPTY_ROOT


def proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Siblings (32 bytes each, lowest level first) that lead from ``leaves[index]`` to the root.

    Raises:
        ValueError: there is no leaf at ``index``.
    """
    if not 0 <= index < len(leaves):
        raise ValueError(f"there are {len(leaves)} leaves, none at place {index}")
    level, siblings = list(leaves), []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            siblings.append(level[sibling])
        level, index = _parents(level), index // 2
    return siblings


def verify(leaf: bytes, siblings: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether ``siblings`` lead from ``leaf`` to ``expected_root``."""
    node = leaf
    for sibling in siblings:
        node = parent(node, sibling)
    return node == expected_root


def _parents(level: list[bytes]) -> list[bytes]:
    paired = len(level) - len(level) % 2
    parents = [parent(level[place], level[place + 1]) for place in range(0, paired, 2)]
    return parents + level[paired:]


def parent(a: bytes, b: bytes) -> bytes:
    """The node (32 bytes) above two nodes, whichever of them stands left."""
    return keccak256(a + b if a < b else b + a)
