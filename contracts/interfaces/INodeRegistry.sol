// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title Stakes, endpoints and link keys of the nodes.
/// @notice Amounts are token base units. Roles: 1 provider, 2 validator, 3 verifier, 4 aggregator.
/// Packed entries are 64 bytes: `account << 96 | amount`, then the role as a whole word.
interface INodeRegistry {
    /// @notice `account` added `amount` to its stake in `role`, of which `bonded` now counts.
    event Staked(address indexed account, uint8 indexed role, uint96 amount, uint96 bonded);
    /// @notice Where `account` can be reached, and the public key that its links must show.
    event EndpointChanged(address indexed account, string endpoint, bytes32 linkKey);
    /// @notice `account` asked for `amount` back; it counts no longer, and stays slashable until released.
    event UnstakeRequested(address indexed account, uint8 indexed role, uint96 amount);
    /// @notice A settlement took `amount`.
    event Slashed(address indexed account, uint8 indexed role, uint96 amount);
    /// @notice A settlement released `amount`: the account may withdraw it.
    event Released(address indexed account, uint8 indexed role, uint96 amount);
    /// @notice `account` took `amount` out.
    event Withdrawn(address indexed account, uint8 indexed role, uint96 amount);

    /// @notice Roles are 1 (provider) to 4 (aggregator).
    error NodeRegistry__RoleUnknown(uint256 have);
    /// @notice The amount is zero.
    error NodeRegistry__AmountZero();
    /// @notice What would be bonded lies under the role's minimum; stake more, or unstake everything.
    error NodeRegistry__StakeTooSmall(uint256 have, uint256 need);
    /// @notice The endpoint is longer than 200 bytes.
    error NodeRegistry__EndpointTooLong(uint256 have, uint256 need);
    /// @notice More was asked than is there.
    error NodeRegistry__StakeMissing(uint256 have, uint256 need);
    /// @notice Packed entries do not fill whole 64-byte records.
    error NodeRegistry__EntriesUnpacked(uint256 have);

    /// @notice Stake `amount` in `role`, so that at least the role's minimum is bonded afterwards, and say
    /// where the node is reached. Needs an allowance for `amount`.
    function register(uint8 role, uint96 amount, string calldata endpoint, bytes32 linkKey) external;

    /// @notice `register` with the allowance given by an ERC-2612 signature in the same transaction.
    function registerWithPermit(
        uint8 role,
        uint96 amount,
        string calldata endpoint,
        bytes32 linkKey,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;

    /// @notice Change where the caller is reached; its stakes are untouched.
    function setEndpoint(string calldata endpoint, bytes32 linkKey) external;

    /// @notice Begin to unbond `amount`; what stays bonded is nothing or at least the role's minimum. The
    /// ledger releases it by a settlement once the unbonding time has passed and no order holds it.
    function requestUnstake(uint8 role, uint96 amount) external;

    /// @notice Pay the caller everything that settlements released to it in `role`; of an abandoned network its whole
    /// stake.
    function withdraw(uint8 role) external;

    /// @notice Take stake, from bonded first and then from unbonding, and send it to Settlement, the only caller.
    /// @return total what was taken and transferred
    function slash(bytes calldata entries) external returns (uint256 total);

    /// @notice Make unbonding stake withdrawable; Settlement only.
    function release(bytes calldata entries) external;

    /// @notice What `account` has in `role`: counting, waiting for release, and ready to be withdrawn.
    function stakeOf(address account, uint8 role)
        external
        view
        returns (uint96 bonded, uint96 unbonding, uint96 withdrawable);

    /// @notice When the latest request to unstake is due for release; 0 if nothing is unbonding.
    function releaseDueAt(address account, uint8 role) external view returns (uint256);

    /// @notice Where `account` is reached and the key its links must show; empty if it never said.
    function endpointOf(address account) external view returns (string memory endpoint, bytes32 linkKey);
}
