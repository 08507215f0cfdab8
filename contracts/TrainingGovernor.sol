// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Governor} from "@openzeppelin/contracts/governance/Governor.sol";
import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";
import {
    GovernorCountingSimple
} from "@openzeppelin/contracts/governance/extensions/GovernorCountingSimple.sol";
import {
    GovernorPreventLateQuorum
} from "@openzeppelin/contracts/governance/extensions/GovernorPreventLateQuorum.sol";
import {GovernorSettings} from "@openzeppelin/contracts/governance/extensions/GovernorSettings.sol";
import {
    GovernorTimelockControl
} from "@openzeppelin/contracts/governance/extensions/GovernorTimelockControl.sol";
import {GovernorVotes} from "@openzeppelin/contracts/governance/extensions/GovernorVotes.sol";
import {
    GovernorVotesQuorumFraction
} from "@openzeppelin/contracts/governance/extensions/GovernorVotesQuorumFraction.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";

/// @title The DAO: holders of tokens decide parameters, the committee and the guardian.
/// @dev Invariant: the timelock that it creates, and that owns what is governed, has no administrator but itself and
/// no proposer but this contract, so nothing is changed except by a vote that everyone could watch for the timelock's
/// delay. Votes count as they stood when voting began, which is at least a second after the proposal: what is
/// borrowed for one transaction has none. Source: PoT 3.3.4 (decided by vote), 3.4 "Flexibility".
contract TrainingGovernor is
    Governor,
    GovernorSettings,
    GovernorCountingSimple,
    GovernorVotes,
    GovernorVotesQuorumFraction,
    GovernorPreventLateQuorum,
    GovernorTimelockControl
{
    /// @notice A vote that is counted the second it is proposed could be borrowed.
    error TrainingGovernor__DelayZero();

    struct Periods {
        uint48 votingDelay;
        uint32 votingPeriod;
        uint48 lateQuorumExtension;
        uint256 timelockDelay;
    }

    /// @dev Where a proposal's event stands: all about it is found in one block, not in a search of the chain.
    struct Made {
        uint256 proposalId;
        uint64 blockNumber;
    }

    Made[] private _made;

    /// @param periods in seconds
    /// @param proposalThreshold_ votes that a proposer needs, in base units
    /// @param quorumPercent of the supply that must vote for or abstain
    constructor(IVotes token_, Periods memory periods, uint256 proposalThreshold_, uint256 quorumPercent)
        Governor("DTN")
        GovernorSettings(periods.votingDelay, periods.votingPeriod, proposalThreshold_)
        GovernorVotes(token_)
        GovernorVotesQuorumFraction(quorumPercent)
        GovernorPreventLateQuorum(periods.lateQuorumExtension)
        GovernorTimelockControl(_newTimelock(periods.timelockDelay))
    {}

    /// @notice How many proposals were made.
    function proposalCount() external view returns (uint256) {
        return _made.length;
    }

    /// @notice The proposal `index`, from 0, and the block with its `ProposalCreated` event.
    function proposalAt(uint256 index) external view returns (uint256 proposalId, uint64 blockNumber) {
        Made storage made = _made[index];
        return (made.proposalId, made.blockNumber);
    }

    /// @notice Votes that a proposer needs.
    function proposalThreshold() public view override(Governor, GovernorSettings) returns (uint256) {
        return super.proposalThreshold();
    }

    /// @notice Where a proposal stands.
    function state(uint256 proposalId)
        public
        view
        override(Governor, GovernorTimelockControl)
        returns (ProposalState)
    {
        return super.state(proposalId);
    }

    /// @notice When voting ends, extended if the quorum was reached late.
    function proposalDeadline(uint256 proposalId)
        public
        view
        override(Governor, GovernorPreventLateQuorum)
        returns (uint256)
    {
        return super.proposalDeadline(proposalId);
    }

    /// @notice Always: what is decided waits in the timelock.
    function proposalNeedsQueuing(uint256 proposalId)
        public
        view
        override(Governor, GovernorTimelockControl)
        returns (bool)
    {
        return super.proposalNeedsQueuing(proposalId);
    }

    function _propose(
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        string memory description,
        address proposer
    ) internal override returns (uint256 proposalId) {
        proposalId = super._propose(targets, values, calldatas, description, proposer);
        // forge-lint: disable-next-line(unsafe-typecast)
        _made.push(Made(proposalId, uint64(block.number)));
    }

    function _setVotingDelay(uint48 newVotingDelay) internal override {
        require(newVotingDelay > 0, TrainingGovernor__DelayZero());
        super._setVotingDelay(newVotingDelay);
    }

    function _tallyUpdated(uint256 proposalId) internal override(Governor, GovernorPreventLateQuorum) {
        super._tallyUpdated(proposalId);
    }

    function _queueOperations(
        uint256 proposalId,
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) returns (uint48) {
        return super._queueOperations(proposalId, targets, values, calldatas, descriptionHash);
    }

    function _executeOperations(
        uint256 proposalId,
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) {
        super._executeOperations(proposalId, targets, values, calldatas, descriptionHash);
    }

    function _cancel(
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) returns (uint256) {
        return super._cancel(targets, values, calldatas, descriptionHash);
    }

    function _executor() internal view override(Governor, GovernorTimelockControl) returns (address) {
        return super._executor();
    }

    // Proposals come from here alone, anyone may execute what is due, and nobody administers it from outside.
    function _newTimelock(uint256 delay) private returns (TimelockController) {
        (address[] memory proposers, address[] memory anyone) = (new address[](1), new address[](1));
        proposers[0] = address(this);
        return new TimelockController(delay, proposers, anyone, address(0));
    }
}
