// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title Protocol parameters by name.
/// @notice A key is the ASCII name of `protocol/parameters.py`, padded with zero bytes to 32.
interface IParameters {
    /// @notice A parameter got a value; also emitted once per parameter at deployment.
    event ParameterChanged(bytes32 indexed key, uint256 value);

    /// @notice No parameter has this key: look the name up in `protocol/parameters.py`.
    error Parameters__Unknown(bytes32 key);
    /// @notice The value lies outside the inclusive bounds fixed at deployment.
    error Parameters__OutOfBounds(bytes32 key, uint256 have, uint256 low, uint256 high);
    /// @notice The deployment names a key twice, or the empty key.
    error Parameters__KeyInvalid(bytes32 key);
    /// @notice The four lists of the deployment differ in length.
    error Parameters__LengthMismatch(uint256 have, uint256 need);

    /// @notice The value in force; reverts with `Parameters__Unknown`, so that no caller ever reads a silent zero.
    function get(bytes32 key) external view returns (uint256 value);

    /// @notice The inclusive bounds of a parameter, fixed at deployment.
    function boundsOf(bytes32 key) external view returns (uint256 low, uint256 high);

    /// @notice Change one value within its bounds; the owner only.
    function set(bytes32 key, uint256 value) external;
}
