// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {Entries} from "./lib/Entries.sol";
import {Wired} from "./lib/Wired.sol";

/// @title Stakes of providers, validators, verifiers and aggregators.
/// @dev Invariant: the tokens held equal the sum of all bonded, unbonding and withdrawable stake, and an account's
/// bonded plus unbonding stake falls only through Settlement, or
/// once that has been abandoned. The ledger, which follows the chain at a
/// distance, therefore never counts on stake that is gone: a slash or release it decides always finds the stake.
/// Source: PoT 2.5 (stakes), 3.3.2 (registration), 3.3.4 (punishment).
contract NodeRegistry is INodeRegistry, Wired {
    using SafeERC20 for IERC20;

    struct Stake {
        uint96 bonded;
        uint96 unbonding;
        uint96 withdrawable;
        uint64 releaseDueAt;
    }

    struct Endpoint {
        bytes32 linkKey;
        string endpoint;
    }

    uint256 private constant MAX_ENDPOINT_BYTES = 200;
    uint256 private constant ENTRY_BYTES = 64;

    IERC20 public immutable token;
    IParameters public immutable parameters;

    mapping(address account => mapping(uint8 role => Stake stake)) private _stakes;
    mapping(address account => Endpoint endpoint) private _endpoints;

    constructor(IERC20 token_, IParameters parameters_) {
        token = token_;
        parameters = parameters_;
    }

    /// @inheritdoc INodeRegistry
    function register(uint8 role, uint96 amount, string calldata endpoint, bytes32 linkKey) external {
        _register(role, amount, endpoint, linkKey);
    }

    /// @inheritdoc INodeRegistry
    function registerWithPermit(
        uint8 role,
        uint96 amount,
        string calldata endpoint,
        bytes32 linkKey,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        // Whoever sees the permit may spend it first; the allowance then stands all the same, so go on.
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {}
            catch {}
        _register(role, amount, endpoint, linkKey);
    }

    /// @inheritdoc INodeRegistry
    function setEndpoint(string calldata endpoint, bytes32 linkKey) external {
        _setEndpoint(endpoint, linkKey);
    }

    /// @inheritdoc INodeRegistry
    function requestUnstake(uint8 role, uint96 amount) external {
        require(amount > 0, NodeRegistry__AmountZero());
        Stake storage stake = _stakes[msg.sender][role];
        uint96 bonded = stake.bonded;
        require(amount <= bonded, NodeRegistry__StakeMissing(bonded, amount));
        uint96 rest = bonded - amount;
        if (rest > 0) _requireMinimum(role, rest);
        stake.bonded = rest;
        stake.unbonding += amount;
        // Bound to the parameter in force now: a later vote must not move the way out.
        stake.releaseDueAt = uint64(block.timestamp + parameters.get("unbonding_s"));
        emit UnstakeRequested(msg.sender, role, amount);
    }

    /// @inheritdoc INodeRegistry
    function withdraw(uint8 role) external {
        Stake storage stake = _stakes[msg.sender][role];
        ISettlement only = ISettlement(settlement);
        only.requireNotPaused();
        uint96 amount = stake.withdrawable;
        stake.withdrawable = 0;
        if (only.abandoned()) {
            amount += stake.bonded + stake.unbonding;
            (stake.bonded, stake.unbonding) = (0, 0);
        }
        require(amount > 0, NodeRegistry__AmountZero());
        emit Withdrawn(msg.sender, role, amount);
        token.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc INodeRegistry
    function slash(bytes calldata entries) external onlySettlement returns (uint256 total) {
        _requirePacked(entries);
        for (uint256 offset = 0; offset < entries.length; offset += ENTRY_BYTES) {
            (Stake storage stake, address account, uint8 role, uint96 amount) = _entry(entries, offset);
            uint96 bonded = stake.bonded;
            uint96 unbonding = stake.unbonding;
            uint256 have = uint256(bonded) + unbonding;
            require(amount <= have, NodeRegistry__StakeMissing(have, amount));
            uint96 fromBonded = amount < bonded ? amount : bonded;
            stake.bonded = bonded - fromBonded;
            stake.unbonding = unbonding - (amount - fromBonded);
            total += amount;
            emit Slashed(account, role, amount);
        }
        token.safeTransfer(msg.sender, total);
    }

    /// @inheritdoc INodeRegistry
    function release(bytes calldata entries) external onlySettlement {
        _requirePacked(entries);
        for (uint256 offset = 0; offset < entries.length; offset += ENTRY_BYTES) {
            (Stake storage stake, address account, uint8 role, uint96 amount) = _entry(entries, offset);
            uint96 unbonding = stake.unbonding;
            require(amount <= unbonding, NodeRegistry__StakeMissing(unbonding, amount));
            stake.unbonding = unbonding - amount;
            stake.withdrawable += amount;
            emit Released(account, role, amount);
        }
    }

    /// @inheritdoc INodeRegistry
    function stakeOf(address account, uint8 role)
        external
        view
        returns (uint96 bonded, uint96 unbonding, uint96 withdrawable)
    {
        Stake storage stake = _stakes[account][role];
        return (stake.bonded, stake.unbonding, stake.withdrawable);
    }

    /// @inheritdoc INodeRegistry
    function releaseDueAt(address account, uint8 role) external view returns (uint256) {
        Stake storage stake = _stakes[account][role];
        return stake.unbonding == 0 ? 0 : stake.releaseDueAt;
    }

    /// @inheritdoc INodeRegistry
    function endpointOf(address account) external view returns (string memory endpoint, bytes32 linkKey) {
        Endpoint storage known = _endpoints[account];
        return (known.endpoint, known.linkKey);
    }

    function _register(uint8 role, uint96 amount, string calldata endpoint, bytes32 linkKey) private {
        require(amount > 0, NodeRegistry__AmountZero());
        Stake storage stake = _stakes[msg.sender][role];
        uint96 bonded = stake.bonded + amount;
        _requireMinimum(role, bonded);
        stake.bonded = bonded;
        emit Staked(msg.sender, role, amount, bonded);
        _setEndpoint(endpoint, linkKey);
        token.safeTransferFrom(msg.sender, address(this), amount);
    }

    function _setEndpoint(string calldata endpoint, bytes32 linkKey) private {
        uint256 length = bytes(endpoint).length;
        require(length <= MAX_ENDPOINT_BYTES, NodeRegistry__EndpointTooLong(length, MAX_ENDPOINT_BYTES));
        _endpoints[msg.sender] = Endpoint(linkKey, endpoint);
        emit EndpointChanged(msg.sender, endpoint, linkKey);
    }

    function _requireMinimum(uint8 role, uint96 bonded) private view {
        uint256 minimum = parameters.get(_minimumKey(role));
        require(bonded >= minimum, NodeRegistry__StakeTooSmall(bonded, minimum));
    }

    function _minimumKey(uint8 role) private pure returns (bytes32) {
        if (role == 1) return "min_stake_provider_wei";
        if (role == 2) return "min_stake_validator_wei";
        if (role == 3) return "min_stake_verifier_wei";
        if (role == 4) return "min_stake_aggregator_wei";
        revert NodeRegistry__RoleUnknown(role);
    }

    function _requirePacked(bytes calldata entries) private pure {
        require(entries.length % ENTRY_BYTES == 0, NodeRegistry__EntriesUnpacked(entries.length));
    }

    function _entry(bytes calldata entries, uint256 offset)
        private
        view
        returns (Stake storage stake, address account, uint8 role, uint96 amount)
    {
        (account, amount) = Entries.unpack(Entries.wordAt(entries, offset));
        uint256 roleWord = Entries.wordAt(entries, offset + 32);
        require(roleWord >= 1 && roleWord <= 4, NodeRegistry__RoleUnknown(roleWord));
        // forge-lint: disable-next-line(unsafe-typecast)
        role = uint8(roleWord);
        require(amount > 0, NodeRegistry__AmountZero());
        stake = _stakes[account][role];
    }
}
