// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title The Merkle tree over the credits of a report, built on the chain from calldata.
/// @dev Invariant: equal to `protocol/merkle.py`. A leaf is `keccak256(keccak256(abi.encode(account, amount)))`,
/// hashed twice so that no inner node can pass for a leaf; an inner node is the hash of its two children in
/// ascending order, as OpenZeppelin's MerkleProof expects; the last node of an odd level moves up unchanged;
/// one leaf is its own root; no leaf gives zero. Assembly, because this is what each credited account costs.
library CreditTree {
    /// @notice Root and sum of the packed words `account << 96 | amount`.
    /// @return root the Merkle root
    /// @return total the sum of all amounts; cannot overflow, for a word holds at most 2^96
    /// @return misplaced 0, or the place, from 1, of a word whose amount is zero or whose account does not ascend
    function build(bytes calldata credits)
        internal
        pure
        returns (bytes32 root, uint256 total, uint256 misplaced)
    {
        uint256 count = credits.length / 32;
        if (count == 0) return (0, 0, 0);
        uint256 nodes;
        (nodes, total, misplaced) = _leaves(credits, count);
        if (misplaced == 0) root = _climb(nodes, count);
    }

    // Writes the leaves behind the free memory pointer and leaves the pointer alone: nothing is allocated
    // between here and `_climb`, and afterwards the space is free again.
    function _leaves(bytes calldata credits, uint256 count)
        private
        pure
        returns (uint256 nodes, uint256 total, uint256 misplaced)
    {
        assembly ("memory-safe") {
            nodes := mload(0x40)
            let amountMask := 0xffffffffffffffffffffffff
            // The largest word of the account before: a word above it belongs to a later account.
            let ceiling := amountMask
            let node := nodes
            let end := add(credits.offset, shl(5, count))
            // Bytes 0 to 11 stay zero below: together with a word written at 12 they make a padded account.
            mstore(0x00, 0)
            for { let at := credits.offset } lt(at, end) { at := add(at, 0x20) } {
                let word := calldataload(at)
                let amount := and(word, amountMask)
                // One jump for both tests: the product is zero if either fails.
                if iszero(mul(gt(word, ceiling), amount)) {
                    misplaced := add(shr(5, sub(at, credits.offset)), 1)
                    break
                }
                ceiling := or(word, amountMask)
                total := add(total, amount)
                mstore(0x0c, word)
                mstore(0x20, amount)
                mstore(node, keccak256(0x00, 0x40))
                mstore(node, keccak256(node, 0x20))
                node := add(node, 0x20)
            }
        }
    }

    // Each level overwrites the one below it: a parent's place never lies behind its first child's.
    function _climb(uint256 nodes, uint256 count) private pure returns (bytes32 root) {
        assembly ("memory-safe") {
            for {} gt(count, 1) {} {
                let odd := and(count, 1)
                let end := add(nodes, shl(5, sub(count, odd)))
                for { let child := nodes } lt(child, end) { child := add(child, 0x40) } {
                    let left := mload(child)
                    let right := mload(add(child, 0x20))
                    // The larger goes to 0x20: a place computed from the comparison spares a jump.
                    let larger := shl(5, gt(left, right))
                    mstore(larger, left)
                    mstore(xor(larger, 0x20), right)
                    // Half as far from the first node as its children.
                    mstore(shr(1, add(nodes, child)), keccak256(0x00, 0x40))
                }
                if odd { mstore(shr(1, add(nodes, end)), mload(end)) }
                count := add(shr(1, count), odd)
            }
            root := mload(nodes)
        }
    }
}
