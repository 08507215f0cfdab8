// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {ICommittee} from "./interfaces/ICommittee.sol";
import {INodeRegistry} from "./interfaces/INodeRegistry.sol";
import {IOrderBook} from "./interfaces/IOrderBook.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {CreditTree} from "./lib/CreditTree.sol";
import {MemberCode} from "./lib/MemberCode.sol";
import {MemberSignatures} from "./lib/MemberSignatures.sol";
import {NetworkDomain} from "./lib/NetworkDomain.sol";

/// @title Manage.Update: one transaction per update cycle applies what the ledger decided.
/// @dev Invariant: the tokens held are the escrows of the OrderBook plus the credits not yet claimed. Each report
/// credits exactly the escrow it consumes plus the stake it slashes, so no report can pay out of an earlier one's
/// tokens; roots are never overwritten, so an account's earnings never fall, whatever a later committee signs.
/// Credits are increments per epoch. A pause ends by itself and moves no token; owner and guardian can do nothing
/// else. Once abandoned, nothing is settled ever again, and what is staked or escrowed goes home without anybody's
/// help. Source: PoT 3.3.4 (Manage.Update), algorithm 4.
contract Settlement is ISettlement, NetworkDomain, Ownable2Step {
    using SafeERC20 for IERC20;
    using BitMaps for BitMaps.BitMap;

    bytes32 private constant REPORT_TYPE = keccak256(
        "Report(uint64 epoch,uint64 committeeEpoch,bytes orders,bytes slashes,bytes releases,bytes credits)"
    );

    /// @inheritdoc ISettlement
    uint256 public constant PAUSE_S = 7 days;

    IERC20 public immutable token;
    IParameters public immutable parameters;
    INodeRegistry public immutable registry;
    IOrderBook public immutable orders;
    ICommittee public immutable committee;
    /// @inheritdoc ISettlement
    address public immutable treasury;

    // A struct begins a slot of its own: a settlement reads and writes exactly this one in any case.
    struct Clock {
        uint64 lastEpoch;
        uint64 settledAt;
        uint64 pausedUntil;
        bool abandoned;
    }

    Clock private _clock;

    /// @inheritdoc ISettlement
    address public guardian;
    /// @inheritdoc ISettlement
    mapping(uint64 epoch => bytes32 root) public roots;
    mapping(address account => BitMaps.BitMap epochs) private _claimed;

    constructor(
        IERC20 token_,
        IParameters parameters_,
        INodeRegistry registry_,
        IOrderBook orders_,
        ICommittee committee_,
        address treasury_,
        address owner_,
        address guardian_
    ) NetworkDomain(address(parameters_)) Ownable(owner_) {
        token = token_;
        parameters = parameters_;
        registry = registry_;
        orders = orders_;
        committee = committee_;
        // What is credited to nobody could be claimed by nobody.
        require(treasury_ != address(0), Settlement__TreasuryZero());
        treasury = treasury_;
        _clock.settledAt = uint64(block.timestamp);
        _setGuardian(guardian_);
    }

    /// @inheritdoc ISettlement
    function update(Report calldata report, uint256 signers, bytes calldata signatures) external {
        Clock memory clock = _clock;
        _requireNotPaused(clock.pausedUntil);
        require(!clock.abandoned, Settlement__Abandoned());
        uint64 epoch = clock.lastEpoch + 1;
        require(report.epoch == epoch, Settlement__EpochMismatch(report.epoch, epoch));
        _requireSigned(report, signers, signatures);
        (bytes32 root, uint256 credited) = _rootOf(report.credits);

        (clock.lastEpoch, clock.settledAt) = (epoch, uint64(block.timestamp));
        _clock = clock;
        roots[epoch] = root;

        uint256 consumed = _consume(report.orders);
        uint256 slashed = _slash(report.slashes);
        _release(report.releases);
        require(credited == consumed + slashed, Settlement__NotConserved(credited, consumed + slashed));
        emit Settled(epoch, root, credited, consumed, slashed);
    }

    /// @inheritdoc ISettlement
    function claim(
        address account,
        uint64[] calldata epochs,
        uint256[] calldata amounts,
        bytes32[][] calldata proofs
    ) external {
        requireNotPaused();
        require(amounts.length == epochs.length, Settlement__ClaimLengths(amounts.length, epochs.length));
        require(proofs.length == epochs.length, Settlement__ClaimLengths(proofs.length, epochs.length));
        uint256 total;
        for (uint256 i = 0; i < epochs.length; ++i) {
            uint64 epoch = epochs[i];
            require(!_claimed[account].get(epoch), Settlement__AlreadyClaimed(account, epoch));
            bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(account, amounts[i]))));
            require(
                MerkleProof.verifyCalldata(proofs[i], roots[epoch], leaf),
                Settlement__ProofInvalid(account, epoch)
            );
            _claimed[account].set(epoch);
            total += amounts[i];
            emit Claimed(account, epoch, amounts[i]);
        }
        token.safeTransfer(account, total);
    }

    /// @inheritdoc ISettlement
    function refund(address client, uint256 amount) external {
        require(msg.sender == address(orders), Settlement__NotOrderBook(msg.sender, address(orders)));
        requireNotPaused();
        token.safeTransfer(client, amount);
    }

    /// @inheritdoc ISettlement
    function pause() external {
        require(
            msg.sender == guardian || msg.sender == owner(), Settlement__NotGuardian(msg.sender, guardian)
        );
        // Between two pauses of the guardian payouts flow for as long as one lasts; the owner, who acts by vote and
        // in the open, may add to a pause.
        uint256 last = _clock.pausedUntil;
        uint256 pausableFrom = last == 0 ? 0 : last + PAUSE_S;
        require(
            msg.sender == owner() || block.timestamp >= pausableFrom,
            Settlement__PauseTooSoon(block.timestamp, pausableFrom)
        );
        uint256 until = block.timestamp + PAUSE_S;
        // forge-lint: disable-next-line(unsafe-typecast)
        _clock.pausedUntil = uint64(until);
        emit Paused(msg.sender, until);
    }

    /// @inheritdoc ISettlement
    function unpause() external onlyOwner {
        uint256 until = _clock.pausedUntil;
        require(block.timestamp < until, Settlement__NotPaused(block.timestamp, until));
        _clock.pausedUntil = uint64(block.timestamp);
        emit Unpaused();
    }

    /// @inheritdoc ISettlement
    function setGuardian(address newGuardian) external onlyOwner {
        _setGuardian(newGuardian);
    }

    /// @inheritdoc ISettlement
    function abandon(address account, uint8 role) external {
        Clock memory clock = _clock;
        require(!clock.abandoned, Settlement__Abandoned());
        uint256 dueAt = registry.releaseDueAt(account, role);
        require(dueAt != 0, Settlement__NothingOverdue(account, role));
        if (dueAt < clock.settledAt) dueAt = clock.settledAt;
        if (dueAt < clock.pausedUntil) dueAt = clock.pausedUntil;
        uint256 abandonableAt = dueAt + parameters.get("abandon_s");
        require(block.timestamp >= abandonableAt, Settlement__AbandonTooEarly(block.timestamp, abandonableAt));
        _clock.abandoned = true;
        emit Abandoned(account, role);
    }

    /// @inheritdoc ISettlement
    function requireNotPaused() public view {
        _requireNotPaused(_clock.pausedUntil);
    }

    /// @inheritdoc ISettlement
    function lastEpoch() external view returns (uint64) {
        return _clock.lastEpoch;
    }

    /// @inheritdoc ISettlement
    function settledAt() external view returns (uint64) {
        return _clock.settledAt;
    }

    /// @inheritdoc ISettlement
    function pausedUntil() external view returns (uint64) {
        return _clock.pausedUntil;
    }

    /// @inheritdoc ISettlement
    function abandoned() external view returns (bool) {
        return _clock.abandoned;
    }

    /// @inheritdoc ISettlement
    function claimed(address account, uint64 epoch) external view returns (bool) {
        return _claimed[account].get(epoch);
    }

    /// @inheritdoc ISettlement
    function digestOf(Report calldata report) public view returns (bytes32) {
        return _digest(
            keccak256(
                abi.encode(
                    REPORT_TYPE,
                    report.epoch,
                    report.committeeEpoch,
                    keccak256(report.orders),
                    keccak256(report.slashes),
                    keccak256(report.releases),
                    keccak256(report.credits)
                )
            )
        );
    }

    function _requireNotPaused(uint256 until) private view {
        require(block.timestamp >= until, Settlement__Paused(block.timestamp, until));
    }

    function _setGuardian(address newGuardian) private {
        guardian = newGuardian;
        emit GuardianChanged(newGuardian);
    }

    // Nothing to do is not worth a call: most reports slash and release nobody.
    function _consume(bytes calldata oids) private returns (uint256 total) {
        if (oids.length > 0) total = orders.consume(oids);
    }

    function _slash(bytes calldata entries) private returns (uint256 total) {
        if (entries.length > 0) total = registry.slash(entries);
    }

    function _release(bytes calldata entries) private {
        if (entries.length > 0) registry.release(entries);
    }

    function _requireSigned(Report calldata report, uint256 signers, bytes calldata signatures) private view {
        (address pointer, uint64 committeeEpoch, uint256 threshold) = committee.current();
        require(
            report.committeeEpoch == committeeEpoch,
            Settlement__CommitteeMismatch(report.committeeEpoch, committeeEpoch)
        );
        bytes memory members = MemberCode.load(pointer);
        uint256 memberCount = MemberCode.count(members);
        require(signers >> memberCount == 0, Settlement__SignerUnknown(signers, memberCount));
        uint256 signed = MemberSignatures.count(signers);
        require(signed >= threshold, Settlement__TooFewSigners(signed, threshold));
        uint256 need = signed * MemberSignatures.SIGNATURE_BYTES;
        require(signatures.length == need, Settlement__SignaturesLength(signatures.length, need));

        (address signer, address member) =
            MemberSignatures.firstInvalid(digestOf(report), members, signers, signatures);
        require(member == address(0), Settlement__SignatureInvalid(signer, member));
    }

    function _rootOf(bytes calldata credits) private pure returns (bytes32 root, uint256 total) {
        require(credits.length % 32 == 0, Settlement__CreditsUnpacked(credits.length));
        uint256 misplaced;
        (root, total, misplaced) = CreditTree.build(credits);
        // No require: it computes the error's arguments even when all is well, and this one would underflow.
        if (misplaced != 0) revert Settlement__CreditInvalid(misplaced - 1);
    }
}
