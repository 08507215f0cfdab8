// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Committee} from "contracts/Committee.sol";
import {NodeRegistry} from "contracts/NodeRegistry.sol";
import {OrderBook} from "contracts/OrderBook.sol";
import {Parameters} from "contracts/Parameters.sol";
import {Settlement} from "contracts/Settlement.sol";
import {TrainingToken} from "contracts/TrainingToken.sol";
import {IOrderBook} from "contracts/interfaces/IOrderBook.sol";
import {ISettlement} from "contracts/interfaces/ISettlement.sol";
import {vm} from "./Vm.sol";

/// @title A network of four aggregators for forge's tests, owned by the test itself.
contract NetworkFixture {
    uint256 internal constant MEMBERS = 4;
    uint256 internal constant QUORUM = 3;
    uint8 internal constant PROVIDER = 1;
    address internal constant GUARDIAN = address(0x6A4D);

    Parameters public parameters;
    TrainingToken public token;
    NodeRegistry public registry;
    OrderBook public orders;
    Committee public committee;
    Settlement public settlement;

    uint256[] private _keys;

    constructor() {
        parameters = _parameters();
        token = new TrainingToken(address(this));
        registry = new NodeRegistry(token, parameters);
        orders = new OrderBook(token, parameters);
        committee = new Committee(address(this), _members(), QUORUM);
        settlement = new Settlement(
            token, parameters, registry, orders, committee, address(this), address(this), GUARDIAN
        );
        registry.wire(address(settlement));
        orders.wire(address(settlement));
    }

    /// @dev An order with the least that the parameters ask, but for reward and deposit.
    function orderOf(address client, uint64 nonce, uint96 reward, uint96 deposit)
        internal
        pure
        returns (IOrderBook.Order memory)
    {
        return IOrderBook.Order(client, nonce, "open", reward, deposit, 1, 1, 1, 0, "", 0, 0);
    }

    /// @dev Signatures of the first three members over the report.
    function signed(ISettlement.Report memory report) internal view returns (bytes memory signatures) {
        bytes32 digest = settlement.digestOf(report);
        for (uint256 place = 0; place < QUORUM; ++place) {
            (uint8 v, bytes32 r, bytes32 s) = vm.sign(_keys[place], digest);
            signatures = abi.encodePacked(signatures, r, s, v);
        }
    }

    // As little as can be asked: any reward, any stake, windows of one second, and no deposit.
    function _parameters() private returns (Parameters) {
        bytes32[15] memory names = [
            bytes32("min_reward_wei"),
            "unbonding_s",
            "abandon_s",
            "min_deposit_bps",
            "min_train_s",
            "max_train_s",
            "min_validate_s",
            "max_validate_s",
            "min_challenge_s",
            "max_challenge_s",
            "reclaim_s",
            "min_stake_provider_wei",
            "min_stake_validator_wei",
            "min_stake_verifier_wei",
            "min_stake_aggregator_wei"
        ];
        bytes32[] memory keys = new bytes32[](names.length);
        uint256[] memory values = new uint256[](names.length);
        for (uint256 i = 0; i < names.length; ++i) {
            (keys[i], values[i]) = (names[i], names[i] == "min_deposit_bps" ? 0 : 1);
        }
        return new Parameters(address(this), keys, values, values, values);
    }

    // Members stand in the order of their addresses, and so must their keys.
    function _members() private returns (address[] memory members) {
        members = new address[](MEMBERS);
        _keys = new uint256[](MEMBERS);
        for (uint256 i = 0; i < MEMBERS; ++i) {
            uint256 key = uint256(keccak256(abi.encode("member", i)));
            uint256 place = i;
            for (; place > 0 && members[place - 1] > vm.addr(key); --place) {
                (members[place], _keys[place]) = (members[place - 1], _keys[place - 1]);
            }
            (members[place], _keys[place]) = (vm.addr(key), key);
        }
    }
}
