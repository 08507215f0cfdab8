// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {IOrderBook} from "./interfaces/IOrderBook.sol";
import {IParameters} from "./interfaces/IParameters.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {Entries} from "./lib/Entries.sol";
import {NetworkDomain} from "./lib/NetworkDomain.sol";
import {Wired} from "./lib/Wired.sol";

/// @title Put: escrow of rewards and deposits.
/// @dev Invariant: an escrow ends once and whole, as credits of a settlement or, after the order lapsed, back
/// with its client; an OID is never placed twice. The book keeps the accounts and Settlement the tokens, from the
/// first moment, because one purse spares every settlement a token transfer. Source: PoT 3.3.1 (Put), table 1.
contract OrderBook is IOrderBook, NetworkDomain, Wired {
    using SafeERC20 for IERC20;

    struct Escrow {
        address client;
        uint96 amount;
        uint64 reclaimableAt;
    }

    bytes32 private constant ORDER_TYPE = keccak256(
        "Order(address client,uint64 nonce,string kind,uint96 reward,uint96 deposit,uint32 trainWindow,uint32 validateWindow,uint32 challengeWindow,bytes32 taskHash,string taskLink,bytes32 dataRoot,int64 baseline)"
    );
    uint256 private constant BPS = 10_000;
    uint256 private constant MAX_KIND_BYTES = 31;
    uint256 private constant MAX_TASK_LINK_BYTES = 512;

    IERC20 public immutable token;
    IParameters public immutable parameters;

    // The client stays after the escrow has left, so that an OID is known for ever.
    mapping(bytes32 oid => Escrow escrow) private _escrows;

    constructor(IERC20 token_, IParameters parameters_) NetworkDomain(address(parameters_)) {
        token = token_;
        parameters = parameters_;
    }

    /// @inheritdoc IOrderBook
    function put(Order calldata order) external returns (bytes32 oid) {
        return _put(order);
    }

    /// @inheritdoc IOrderBook
    function putWithPermit(Order calldata order, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
        returns (bytes32 oid)
    {
        uint256 amount = uint256(order.reward) + order.deposit;
        // Whoever sees the permit may spend it first; the allowance then stands all the same, so go on.
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {}
            catch {}
        return _put(order);
    }

    /// @inheritdoc IOrderBook
    function consume(bytes calldata oids) external onlySettlement returns (uint256 total) {
        require(oids.length % 32 == 0, OrderBook__OidsUnpacked(oids.length));
        bytes32 previous;
        for (uint256 offset = 0; offset < oids.length; offset += 32) {
            bytes32 oid = bytes32(Entries.wordAt(oids, offset));
            require(oid > previous, OrderBook__NotAscending(oid, previous));
            total += _take(oid);
            previous = oid;
        }
    }

    /// @inheritdoc IOrderBook
    function reclaim(bytes32 oid) external {
        Escrow storage escrow = _escrows[oid];
        require(escrow.amount > 0, OrderBook__NothingEscrowed(oid));
        require(msg.sender == escrow.client, OrderBook__NotClient(msg.sender, escrow.client));
        uint256 reclaimableAt = escrow.reclaimableAt;
        require(
            block.timestamp >= reclaimableAt || ISettlement(settlement).abandoned(),
            OrderBook__ReclaimTooEarly(block.timestamp, reclaimableAt)
        );
        uint96 amount = _take(oid);
        emit OrderReclaimed(oid, msg.sender, amount);
        ISettlement(settlement).refund(msg.sender, amount);
    }

    /// @inheritdoc IOrderBook
    function oidOf(Order calldata order) public view returns (bytes32 oid) {
        return _digest(
            keccak256(
                abi.encode(
                    ORDER_TYPE,
                    order.client,
                    order.nonce,
                    keccak256(bytes(order.kind)),
                    order.reward,
                    order.deposit,
                    order.trainWindow,
                    order.validateWindow,
                    order.challengeWindow,
                    order.taskHash,
                    keccak256(bytes(order.taskLink)),
                    order.dataRoot,
                    order.baseline
                )
            )
        );
    }

    /// @inheritdoc IOrderBook
    function escrowOf(bytes32 oid)
        external
        view
        returns (address client, uint96 amount, uint64 reclaimableAt)
    {
        Escrow storage escrow = _escrows[oid];
        return (escrow.client, escrow.amount, escrow.reclaimableAt);
    }

    function _put(Order calldata order) private returns (bytes32 oid) {
        require(msg.sender == order.client, OrderBook__NotClient(msg.sender, order.client));
        _requireFits(order);
        oid = oidOf(order);
        require(_escrows[oid].client == address(0), OrderBook__Repeated(oid));
        uint256 amount = uint256(order.reward) + order.deposit;
        _escrows[oid] = Escrow(order.client, SafeCast.toUint96(amount), _reclaimableAt(order));
        emit OrderPlaced(oid, order.client, order);
        token.safeTransferFrom(msg.sender, settlement, amount);
    }

    function _take(bytes32 oid) private returns (uint96 amount) {
        Escrow storage escrow = _escrows[oid];
        amount = escrow.amount;
        require(amount > 0, OrderBook__NothingEscrowed(oid));
        escrow.amount = 0;
    }

    function _requireFits(Order calldata order) private view {
        uint256 kindBytes = bytes(order.kind).length;
        require(
            kindBytes > 0 && kindBytes <= MAX_KIND_BYTES, OrderBook__KindLength(kindBytes, MAX_KIND_BYTES)
        );
        uint256 linkBytes = bytes(order.taskLink).length;
        require(linkBytes <= MAX_TASK_LINK_BYTES, OrderBook__TaskLinkTooLong(linkBytes, MAX_TASK_LINK_BYTES));
        uint256 minReward = parameters.get("min_reward_wei");
        require(order.reward >= minReward, OrderBook__RewardTooSmall(order.reward, minReward));
        uint256 minDeposit = order.reward * parameters.get("min_deposit_bps") / BPS;
        require(order.deposit >= minDeposit, OrderBook__DepositTooSmall(order.deposit, minDeposit));
        _requireWindow("train", order.trainWindow, "min_train_s", "max_train_s");
        _requireWindow("validate", order.validateWindow, "min_validate_s", "max_validate_s");
        _requireWindow("challenge", order.challengeWindow, "min_challenge_s", "max_challenge_s");
    }

    function _requireWindow(bytes32 window, uint256 have, bytes32 lowKey, bytes32 highKey) private view {
        uint256 low = parameters.get(lowKey);
        uint256 high = parameters.get(highKey);
        require(low <= have && have <= high, OrderBook__WindowOutOfBounds(window, have, low, high));
    }

    // Bound to the parameter in force now: a later vote must not move the client's way out.
    function _reclaimableAt(Order calldata order) private view returns (uint64) {
        uint256 windows = uint256(order.trainWindow) + order.validateWindow + order.challengeWindow;
        return SafeCast.toUint64(block.timestamp + windows + parameters.get("reclaim_s"));
    }
}
