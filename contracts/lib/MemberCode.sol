// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title A list of addresses kept as the code of a contract.
/// @dev Invariant: what `write` stored, `load` returns, for ever: code cannot change. A settlement needs all the
/// members; one EXTCODECOPY of 20 bytes each is far cheaper than one SLOAD each. The first byte is STOP, so
/// that nobody can run the list (the SSTORE2 pattern of 0xsequence and solady).
library MemberCode {
    uint256 private constant MEMBER_BYTES = 20;

    /// @notice The chain refused to create the contract.
    error MemberCode__NotWritten();

    /// @notice Deploy a contract whose code is STOP and then the packed members.
    function write(address[] memory members) internal returns (address pointer) {
        bytes memory packed = new bytes(MEMBER_BYTES * members.length);
        for (uint256 i = 0; i < members.length; ++i) {
            address member = members[i];
            assembly ("memory-safe") {
                // A store covers 32 bytes but a member has 20: keep the 12 behind it as they are, because
                // behind the last member they are not ours.
                let place := add(add(packed, 0x20), mul(i, 20))
                mstore(place, or(shl(96, member), shr(160, shl(160, mload(place)))))
            }
        }
        // Creation code of 10 bytes, which returns everything behind it: PUSH2 size, DUP1, PUSH1 10,
        // RETURNDATASIZE (a cheap zero), CODECOPY, RETURNDATASIZE, RETURN. Then the code itself: STOP, members.
        // forge-lint: disable-next-line(unsafe-typecast)
        bytes memory creation =
            abi.encodePacked(hex"61", uint16(packed.length + 1), hex"80600a3d393df3", hex"00", packed);
        assembly ("memory-safe") {
            pointer := create(0, add(creation, 0x20), mload(creation))
        }
        require(pointer != address(0), MemberCode__NotWritten());
    }

    /// @notice The packed members, 20 bytes each.
    function load(address pointer) internal view returns (bytes memory packed) {
        uint256 size = pointer.code.length - 1;
        packed = new bytes(size);
        assembly ("memory-safe") {
            extcodecopy(pointer, add(packed, 0x20), 1, size)
        }
    }

    /// @notice How many members `packed` holds.
    function count(bytes memory packed) internal pure returns (uint256) {
        return packed.length / MEMBER_BYTES;
    }

    /// @notice The member at place `index` of `packed`; the caller keeps `index` below the count.
    function memberAt(bytes memory packed, uint256 index) internal pure returns (address member) {
        assembly ("memory-safe") {
            member := shr(96, mload(add(add(packed, 0x20), mul(index, 20))))
        }
    }

    /// @notice The members as a list.
    function list(address pointer) internal view returns (address[] memory members) {
        bytes memory packed = load(pointer);
        members = new address[](count(packed));
        for (uint256 i = 0; i < members.length; ++i) {
            members[i] = memberAt(packed, i);
        }
    }
}
