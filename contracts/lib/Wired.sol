// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IWired} from "../interfaces/IWired.sol";

/// @title Names the one contract that may draw from a store.
/// @dev Invariant: once `settlement` is set, nothing changes it. A constructor argument cannot do this, because
/// Settlement needs the stores' addresses first.
abstract contract Wired is IWired {
    address private immutable _deployer;

    /// @inheritdoc IWired
    address public settlement;

    modifier onlySettlement() {
        // One read: require would compute the error's arguments even when all is well.
        address only = settlement;
        require(msg.sender == only, Wired__NotSettlement(msg.sender, only));
        _;
    }

    constructor() {
        _deployer = msg.sender;
    }

    /// @inheritdoc IWired
    function wire(address settlement_) external {
        require(msg.sender == _deployer, Wired__NotDeployer(msg.sender, _deployer));
        require(settlement == address(0), Wired__AlreadyWired(settlement));
        require(settlement_ != address(0), Wired__SettlementZero());
        settlement = settlement_;
        emit SettlementWired(settlement_);
    }
}
