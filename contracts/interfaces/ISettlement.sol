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

    /// @notice Nothing is settled and nothing paid before `until`, in seconds since 1970.
    event Paused(address indexed by, uint256 until);
    /// @notice The owner ended a pause early.
    event Unpaused();
    /// @notice `guardian` may pause from now on; zero for nobody.
    event GuardianChanged(address indexed guardian);
    /// @notice The committee has been silent for too long, as the overdue release of `account` in `role` shows.
    event Abandoned(address indexed account, uint8 indexed role);

    /// @notice Payouts are paused: try again at `need`.
    error Settlement__Paused(uint256 have, uint256 need);
    /// @notice Fines need an account to go to.
    error Settlement__TreasuryZero();
    /// @notice There is no pause to end.
    error Settlement__NotPaused(uint256 have, uint256 need);
    /// @notice Only the guardian and the owner may pause.
    error Settlement__NotGuardian(address have, address need);
    /// @notice The guardian may pause again at `need`.
    error Settlement__PauseTooSoon(uint256 have, uint256 need);
    /// @notice The network is abandoned: nothing is settled any more; withdraw stakes and reclaim orders.
    error Settlement__Abandoned();
    /// @notice No release is due to this account in this role: the committee owes it nothing.
    error Settlement__NothingOverdue(address account, uint8 role);
    /// @notice The committee may still settle until `need`.
    error Settlement__AbandonTooEarly(uint256 have, uint256 need);
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

    /// @notice Stop settlements and all payouts for `PAUSE_S`: claims, refunds, withdrawals of stake. By the guardian,
    /// and not again before they have flowed for as long; by the owner at any time. No token moves.
    function pause() external;

    /// @notice End a pause early; owner only.
    function unpause() external;

    /// @notice Name who may pause besides the owner; owner only.
    function setGuardian(address newGuardian) external;

    /// @notice Declare the committee gone for good: the release of this stake is overdue by `abandon_s`, and no report
    /// has been applied for as long. Anyone may. From then on no report is applied; stakes are withdrawn and orders
    /// reclaimed without a settlement, and what was earned before can still be claimed.
    function abandon(address account, uint8 role) external;

    /// @notice Reverts while payouts are paused.
    function requireNotPaused() external view;

    /// @notice The EIP-712 digest that the committee signs.
    function digestOf(Report calldata report) external view returns (bytes32);

    /// @notice Whether the credit of `account` in `epoch` has been paid.
    function claimed(address account, uint64 epoch) external view returns (bool);

    /// @notice Merkle root over the credits of an epoch; zero if it had none or is not settled.
    function roots(uint64 epoch) external view returns (bytes32);

    /// @notice Number of the last report applied; 0 before the first.
    function lastEpoch() external view returns (uint64);

    /// @notice When the last report was applied, or the contract deployed.
    function settledAt() external view returns (uint64);

    /// @notice When the last pause ends or ended; 0 before the first.
    function pausedUntil() external view returns (uint64);

    /// @notice Whether the committee was declared gone.
    function abandoned() external view returns (bool);

    /// @notice Who may pause besides the owner.
    function guardian() external view returns (address);

    /// @notice How long a pause lasts.
    // solhint-disable-next-line func-name-mixedcase
    function PAUSE_S() external view returns (uint256);

    /// @notice The account that the ledger credits with fines.
    function treasury() external view returns (address);
}
