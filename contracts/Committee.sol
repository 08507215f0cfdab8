// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {ICommittee} from "./interfaces/ICommittee.sol";
import {MemberCode} from "./lib/MemberCode.sol";

/// @title The aggregators whose signatures settle, and how many of them it takes.
/// @dev Invariant: members are distinct and ascending, and the threshold is more than half of them. With n >= 3f + 1
/// at least one honest member, who signs only what the ledger says, has then signed whatever f others sign; with n - f
/// or fewer, f silent members stop no payment. Source: PoT 3.2.2 (PBFT), 3.3.4 (Update), 4.2 (30 members, k of them).
contract Committee is ICommittee, Ownable2Step {
    uint256 private constant MAX_MEMBERS = 256;

    // One storage slot, so that a settlement reads all of it at once.
    address private _pointer;
    uint64 private _epoch;
    uint16 private _threshold;

    /// @dev Every epoch's members stay readable as long as the chain does.
    mapping(uint64 epoch => address pointer) private _pointers;

    constructor(address owner_, address[] memory members_, uint256 threshold_) Ownable(owner_) {
        _change(members_, threshold_);
    }

    /// @inheritdoc ICommittee
    function change(address[] calldata newMembers, uint256 newThreshold) external onlyOwner {
        _change(newMembers, newThreshold);
    }

    /// @inheritdoc ICommittee
    function current() external view returns (address pointer_, uint64 epoch_, uint256 threshold_) {
        return (_pointer, _epoch, _threshold);
    }

    /// @inheritdoc ICommittee
    function epoch() external view returns (uint64) {
        return _epoch;
    }

    /// @inheritdoc ICommittee
    function threshold() external view returns (uint256) {
        return _threshold;
    }

    /// @inheritdoc ICommittee
    function members() external view returns (address[] memory) {
        return MemberCode.list(_pointer);
    }

    /// @inheritdoc ICommittee
    function membersOf(uint64 epoch_) external view returns (address[] memory) {
        address held = _pointers[epoch_];
        return held == address(0) ? new address[](0) : MemberCode.list(held);
    }

    /// @inheritdoc ICommittee
    function pointer() external view returns (address) {
        return _pointer;
    }

    function _change(address[] memory newMembers, uint256 newThreshold) private {
        uint256 n = newMembers.length;
        require(n >= 1 && n <= MAX_MEMBERS, Committee__SizeOutOfBounds(n, MAX_MEMBERS));
        uint256 least = n / 2 + 1;
        require(
            least <= newThreshold && newThreshold <= n,
            Committee__ThresholdOutOfBounds(newThreshold, least, n)
        );
        address previous;
        for (uint256 i = 0; i < n; ++i) {
            require(newMembers[i] > previous, Committee__NotAscending(newMembers[i], previous));
            previous = newMembers[i];
        }
        _pointer = MemberCode.write(newMembers);
        // forge-lint: disable-next-line(unsafe-typecast)
        _threshold = uint16(newThreshold);
        _epoch += 1;
        _pointers[_epoch] = _pointer;
        emit CommitteeChanged(_epoch, newMembers, newThreshold);
    }
}
