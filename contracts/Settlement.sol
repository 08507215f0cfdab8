// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

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
/// @dev Invariant: the tokens held are the escrows of the OrderBook plus the credits not yet claimed. Each report credits exactly the escrow
/// it consumes plus the stake it slashes, so no report can pay out of an earlier one's tokens; roots are never
/// overwritten, so an account's earnings never fall, whatever a later committee signs. Credits are increments per
/// epoch. Source: PoT 3.3.4 (Manage.Update), algorithm 4.
contract Settlement is ISettlement, NetworkDomain {
    using SafeERC20 for IERC20;
    using BitMaps for BitMaps.BitMap;

    bytes32 private constant REPORT_TYPE = keccak256(
        "Report(uint64 epoch,uint64 committeeEpoch,bytes orders,bytes slashes,bytes releases,bytes credits)"
    );

    IERC20 public immutable token;
    INodeRegistry public immutable registry;
    IOrderBook public immutable orders;
    ICommittee public immutable committee;
    /// @inheritdoc ISettlement
    address public immutable treasury;

    /// @inheritdoc ISettlement
    uint64 public lastEpoch;
    /// @inheritdoc ISettlement
    mapping(uint64 epoch => bytes32 root) public roots;
    mapping(address account => BitMaps.BitMap epochs) private _claimed;

    constructor(
        IERC20 token_,
        IParameters parameters_,
        INodeRegistry registry_,
        IOrderBook orders_,
        ICommittee committee_,
        address treasury_
    ) NetworkDomain(address(parameters_)) {
        token = token_;
        registry = registry_;
        orders = orders_;
        committee = committee_;
        treasury = treasury_;
    }

    /// @inheritdoc ISettlement
    function update(Report calldata report, uint256 signers, bytes calldata signatures) external {
        uint64 epoch = lastEpoch + 1;
        require(report.epoch == epoch, Settlement__EpochMismatch(report.epoch, epoch));
        _requireSigned(report, signers, signatures);
        (bytes32 root, uint256 credited) = _rootOf(report.credits);

        lastEpoch = epoch;
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
        token.safeTransfer(client, amount);
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
