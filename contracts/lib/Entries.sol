// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title The packed word of a report: `account << 96 | amount`.
library Entries {
    /// @notice Split a word into its account and its amount.
    function unpack(uint256 word) internal pure returns (address account, uint96 amount) {
        // forge-lint: disable-next-line(unsafe-typecast)
        return (address(uint160(word >> 96)), uint96(word));
    }

    /// @notice The 32-byte word at byte `offset` of `data`; the caller checks the length.
    function wordAt(bytes calldata data, uint256 offset) internal pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := calldataload(add(data.offset, offset))
        }
    }
}
