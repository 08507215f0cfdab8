// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title Checks the signatures of several members over one digest.
/// @dev Invariant: `firstInvalid` names no member only if each signature is the canonical one (65 bytes
/// `r || s || v`, v 27 or 28, low s by EIP-2) of the member at its place. Assembly, because a committee of 30 pays
/// for each step thirty times: the checked slices of the language cost half as much as the precompile itself.
library MemberSignatures {
    uint256 internal constant SIGNATURE_BYTES = 65;
    // EIP-2: of the two signatures that one key and digest allow, only the one with the lower s is canonical.
    uint256 private constant HALF_ORDER_PLUS_1 =
        0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a1;

    /// @notice Number of bits set in `signers`.
    function count(uint256 signers) internal pure returns (uint256 signed) {
        // 256 bits would overflow the byte in which the sum below ends.
        if (signers == type(uint256).max) return 256;
        // Sums of neighbours, in fields of 2, 4 and 8 bits; the product then adds all bytes in its top one.
        unchecked {
            signers -= (signers >> 1) & (type(uint256).max / 3);
            signers = (signers & (type(uint256).max / 5)) + ((signers >> 2) & (type(uint256).max / 5));
            signers = (signers + (signers >> 4)) & (type(uint256).max / 17);
            return (signers * (type(uint256).max / 255)) >> 248;
        }
    }

    /// @notice The first signature that is not its member's.
    /// @param members packed, 20 bytes each, as MemberCode loads them
    /// @param signers bitmap over the places of the members, none set beyond the last
    /// @param signatures 65 bytes per set bit, lowest bit first; the caller checks the length
    /// @return signer who signed instead; zero for a signature that is not canonical
    /// @return member who should have signed; zero if all signatures are good
    function firstInvalid(bytes32 digest, bytes memory members, uint256 signers, bytes calldata signatures)
        internal
        view
        returns (address signer, address member)
    {
        assembly ("memory-safe") {
            // Input of the precompile at address 1, in free memory: digest, v, r, s.
            let input := mload(0x40)
            let inputV := add(input, 0x20)
            let inputR := add(input, 0x40)
            let inputS := add(input, 0x60)
            mstore(input, digest)
            let place := add(members, 0x20)
            let at := signatures.offset
            for {} signers {
                signers := shr(1, signers)
                place := add(place, 20)
            } {
                if and(signers, 1) {
                    mstore(inputV, byte(0, calldataload(add(at, 0x40))))
                    calldatacopy(inputR, at, 0x40)
                    at := add(at, 65)
                    // The precompile writes nothing when it refuses: without this the last signer would stay.
                    mstore(0x00, 0)
                    pop(staticcall(gas(), 1, input, 0x80, 0x00, 0x20))
                    let expected := shr(96, mload(place))
                    let low := lt(mload(inputS), HALF_ORDER_PLUS_1)
                    if iszero(and(low, eq(mload(0x00), expected))) {
                        signer := mul(low, mload(0x00))
                        member := expected
                        break
                    }
                }
            }
        }
    }
}
