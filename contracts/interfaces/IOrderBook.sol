// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title Put: training orders with their escrow.
/// @notice Amounts are token base units, windows are seconds, scores (`baseline`) are millionths.
interface IOrderBook {
    /// @notice A training order, the EIP-712 message whose digest is its id (OID).
    /// @param client who pays, and who must send it
    /// @param nonce chosen by the client, so that equal orders get different ids
    /// @param kind the task protocol, 1 to 31 bytes, such as "open"
    /// @param reward what the network earns for a model
    /// @param deposit what the client loses if it withholds the test set
    /// @param trainWindow seconds of the training phase
    /// @param validateWindow seconds of the validation phase
    /// @param challengeWindow seconds of the challenge phase
    /// @param taskHash SHA-256 of the canonical task document
    /// @param taskLink where to fetch the task document, at most 512 bytes
    /// @param dataRoot commitment to all data fragments, for training and for testing
    /// @param baseline score that a model must beat to win or to be consoled
    struct Order {
        address client;
        uint64 nonce;
        string kind;
        uint96 reward;
        uint96 deposit;
        uint32 trainWindow;
        uint32 validateWindow;
        uint32 challengeWindow;
        bytes32 taskHash;
        string taskLink;
        bytes32 dataRoot;
        int64 baseline;
    }

    /// @notice `order` stands in the book with its reward and deposit escrowed.
    event OrderPlaced(bytes32 indexed oid, address indexed client, Order order);
    /// @notice The client took its escrow back after the network let the order lapse.
    event OrderReclaimed(bytes32 indexed oid, address indexed client, uint96 amount);

    /// @notice Only the order's client may do this.
    error OrderBook__NotClient(address have, address need);
    /// @notice The reward lies under `min_reward_wei`.
    error OrderBook__RewardTooSmall(uint256 have, uint256 need);
    /// @notice The deposit lies under `min_deposit_bps` of the reward.
    error OrderBook__DepositTooSmall(uint256 have, uint256 need);
    /// @notice A window lies outside its bounds; `window` is "train", "validate" or "challenge".
    error OrderBook__WindowOutOfBounds(bytes32 window, uint256 have, uint256 low, uint256 high);
    /// @notice The kind has no byte, or more than 31.
    error OrderBook__KindLength(uint256 have, uint256 need);
    /// @notice The task link is longer than 512 bytes.
    error OrderBook__TaskLinkTooLong(uint256 have, uint256 need);
    /// @notice This very order was placed before: choose another nonce.
    error OrderBook__Repeated(bytes32 oid);
    /// @notice No escrow stands under this id: never placed, consumed, or reclaimed.
    error OrderBook__NothingEscrowed(bytes32 oid);
    /// @notice The packed ids are not strictly ascending.
    error OrderBook__NotAscending(bytes32 have, bytes32 need);
    /// @notice The packed ids do not fill whole 32-byte words.
    error OrderBook__OidsUnpacked(uint256 have);
    /// @notice The network may still settle this order: wait until `need` (Unix seconds).
    error OrderBook__ReclaimTooEarly(uint256 have, uint256 need);

    /// @notice Place an order of one's own; needs an allowance for reward and deposit.
    function put(Order calldata order) external returns (bytes32 oid);

    /// @notice `put` with the allowance given by an ERC-2612 signature in the same transaction.
    function putWithPermit(Order calldata order, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
        returns (bytes32 oid);

    /// @notice Close the whole escrow of each packed, strictly ascending id; Settlement only.
    /// @return total what Settlement may credit for them
    function consume(bytes calldata oids) external returns (uint256 total);

    /// @notice Give the client its escrow back once the order has lapsed or the network is abandoned; needs no
    /// committee.
    function reclaim(bytes32 oid) external;

    /// @notice The id of an order: its full EIP-712 digest.
    function oidOf(Order calldata order) external view returns (bytes32 oid);

    /// @notice Client, escrow still held, and when it may be reclaimed (Unix seconds); zeros if never placed.
    function escrowOf(bytes32 oid) external view returns (address client, uint96 amount, uint64 reclaimableAt);
}
