// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title The aggregators whose signatures settle.
interface ICommittee {
    /// @notice The committee of `epoch`; the first is epoch 1, emitted at deployment.
    event CommitteeChanged(uint64 indexed epoch, address[] members, uint256 threshold);

    /// @notice A committee has 1 to 256 members.
    error Committee__SizeOutOfBounds(uint256 have, uint256 need);
    /// @notice Members must be strictly ascending and not zero: sort them and drop repetitions.
    error Committee__NotAscending(address have, address need);
    /// @notice The threshold must be more than half of the n members, and at most n.
    error Committee__ThresholdOutOfBounds(uint256 have, uint256 low, uint256 high);

    /// @notice Replace the committee; the owner only. Reports of earlier epochs are refused from now on.
    function change(address[] calldata newMembers, uint256 newThreshold) external;

    /// @notice All that a settlement needs, in one read.
    /// @return pointer_ the contract whose code holds the members
    /// @return epoch_ number of this committee, from 1
    /// @return threshold_ how many distinct members must sign
    function current() external view returns (address pointer_, uint64 epoch_, uint256 threshold_);

    /// @notice Number of this committee, from 1.
    function epoch() external view returns (uint64);

    /// @notice How many distinct members must sign.
    function threshold() external view returns (uint256);

    /// @notice The members in ascending order; a member's place is its bit in the signers' bitmap.
    function members() external view returns (address[] memory);

    /// @notice The members of an earlier epoch: who signed what was agreed then. Empty for no epoch.
    function membersOf(uint64 epoch_) external view returns (address[] memory);

    /// @notice The contract whose code holds the members: a STOP byte, then 20 bytes each.
    function pointer() external view returns (address);
}
