// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @title Manage.Update: what the ledger decided, applied and paid.
interface ISettlement {
    /// @notice One update cycle of the global ledger, the EIP-712 message that the committee signs.
    /// @param epoch number of the report, from 1 without gaps
    /// @param committeeEpoch the committee that signs
    /// @param orders packed 32-byte OIDs, strictly ascending; each is consumed whole
    /// @param slashes packed 64-byte entries: `account << 96 | amount`, then the role
    /// @param releases packed like the slashes
    /// @param credits packed words `account << 96 | amount`, strictly ascending by account
    struct Report {
        uint64 epoch;
        uint64 committeeEpoch;
        bytes orders;
        bytes slashes;
        bytes releases;
        bytes credits;
    }

    /// @notice Report `epoch` is applied; `root` commits to its credits, and is zero if there are none.
    event Settled(uint64 indexed epoch, bytes32 root, uint256 credited, uint256 consumed, uint256 slashed);
    /// @notice `account` was paid its credit of `epoch`.
    event Claimed(address indexed account, uint64 indexed epoch, uint256 amount);

    /// @notice Reports are applied in order; an equal or lower number means another member was faster.
    error Settlement__EpochMismatch(uint256 have, uint256 need);
    /// @notice The committee changed: sign the report again with its new epoch.
    error Settlement__CommitteeMismatch(uint256 have, uint256 need);
    /// @notice The bitmap names a place that no member has.
    error Settlement__SignerUnknown(uint256 have, uint256 need);
    /// @notice Fewer members signed than the threshold asks.
    error Settlement__TooFewSigners(uint256 have, uint256 need);
    /// @notice Signatures take 65 bytes per signer.
    error Settlement__SignaturesLength(uint256 have, uint256 need);
    /// @notice A signature is not canonical (high s), or not by the member at its place.
    error Settlement__SignatureInvalid(address have, address need);
    /// @notice Credits do not fill whole 32-byte words.
    error Settlement__CreditsUnpacked(uint256 have);
    /// @notice The credit at `index` is zero, or its account does not follow the one before it.
    error Settlement__CreditInvalid(uint256 index);
    /// @notice Credits must equal the escrow consumed plus the stake slashed, exactly.
    error Settlement__NotConserved(uint256 have, uint256 need);
    /// @notice Only the OrderBook asks for refunds.
    error Settlement__NotOrderBook(address have, address need);
    /// @notice Epochs, amounts and proofs differ in length.
    error Settlement__ClaimLengths(uint256 have, uint256 need);
    /// @notice The credit of this epoch was paid before.
    error Settlement__AlreadyClaimed(address account, uint256 epoch);
    /// @notice The proof does not lead from this account and amount to the root of the epoch.
    error Settlement__ProofInvalid(address account, uint256 epoch);

    /// @notice Apply the next report, signed by at least the threshold of the committee. Anyone may send it.
    /// @param signers bitmap over the places of the committee's members
    /// @param signatures 65 bytes `r || s || v` for each set bit, lowest bit first
    function update(Report calldata report, uint256 signers, bytes calldata signatures) external;

    /// @notice Pay `account` its credits of several epochs, each with its Merkle proof. Anyone may send it.
    function claim(
        address account,
        uint64[] calldata epochs,
        uint256[] calldata amounts,
        bytes32[][] calldata proofs
    ) external;

    /// @notice Pay a lapsed order's escrow back to its client; OrderBook only.
    function refund(address client, uint256 amount) external;

    /// @notice The EIP-712 digest that the committee signs.
    function digestOf(Report calldata report) external view returns (bytes32);

    /// @notice Whether the credit of `account` in `epoch` has been paid.
    function claimed(address account, uint64 epoch) external view returns (bool);

    /// @notice Merkle root over the credits of an epoch; zero if it had none or is not settled.
    function roots(uint64 epoch) external view returns (bytes32);

    /// @notice Number of the last report applied; 0 before the first.
    function lastEpoch() external view returns (uint64);

    /// @notice The account that the ledger credits with fines.
    function treasury() external view returns (address);
}
