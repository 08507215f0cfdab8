// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title A contract whose stores only Settlement may draw from, named once.
interface IWired {
    /// @notice The Settlement contract is named, for ever.
    event SettlementWired(address indexed settlement);

    /// @notice Only the deployer may wire.
    error Wired__NotDeployer(address have, address need);
    /// @notice Wiring happens once.
    error Wired__AlreadyWired(address have);
    /// @notice The zero address cannot settle.
    error Wired__SettlementZero();
    /// @notice Only Settlement may call this.
    error Wired__NotSettlement(address have, address need);

    /// @notice Name the Settlement contract; the deployer, once.
    function wire(address settlement_) external;

    /// @notice The Settlement contract; zero until wired.
    function settlement() external view returns (address);
}
