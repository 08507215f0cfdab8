// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {ISettlement} from "contracts/interfaces/ISettlement.sol";
import {NetworkFixture} from "./NetworkFixture.sol";
import {Vm, vm} from "./Vm.sol";

/// @title Clients, providers and committees at work in any order, with the books a careful onlooker would keep.
contract Market is NetworkFixture {
    struct Placed {
        bytes32 oid;
        address client;
        uint256 amount;
    }

    struct Credit {
        address account;
        uint64 epoch;
        uint256 amount;
        bytes32 sibling;
    }

    uint256 private constant ACTORS = 5;

    Placed[] private _placed;
    Credit[] private _credits;
    uint64 private _nonce;
    uint256 private _now = 1;
    uint256 private _stopsUntil;

    uint256 public escrowed;
    uint256 public staked;
    uint256 public owed;
    uint256 public paid;
    mapping(uint64 epoch => bytes32 root) public rootSeen;

    constructor() {
        for (uint256 i = 0; i < ACTORS; ++i) {
            address actor = _actor(i);
            require(token.transfer(actor, 10 ** 26));
            vm.startPrank(actor);
            token.approve(address(orders), type(uint256).max);
            token.approve(address(registry), type(uint256).max);
            vm.stopPrank();
        }
    }

    function put(uint256 who, uint96 reward, uint96 deposit) external {
        address client = _actor(who);
        (reward, deposit) = (1 + reward % 10 ** 21, 1 + deposit % 10 ** 20);
        if (token.balanceOf(client) < uint256(reward) + deposit) return;
        vm.prank(client);
        bytes32 oid = orders.put(orderOf(client, ++_nonce, reward, deposit));
        _placed.push(Placed(oid, client, uint256(reward) + deposit));
        escrowed += uint256(reward) + deposit;
    }

    function reclaim(uint256 which) external {
        if (_placed.length == 0 || _stopped()) return;
        // More than all windows and reclaim_s, which are one second each.
        _now += 10;
        vm.warp(_now);
        Placed memory order = _dropOrder(which % _placed.length);
        vm.prank(order.client);
        orders.reclaim(order.oid);
    }

    function stake(uint256 who, uint96 amount) external {
        amount = 1 + amount % 10 ** 22;
        if (token.balanceOf(_actor(who)) < amount) return;
        vm.prank(_actor(who));
        registry.register(PROVIDER, amount, "", 0);
        staked += amount;
    }

    function requestUnstake(uint256 who, uint96 amount) external {
        (uint96 bonded,,) = registry.stakeOf(_actor(who), PROVIDER);
        if (bonded == 0) return;
        vm.prank(_actor(who));
        registry.requestUnstake(PROVIDER, 1 + amount % bonded);
    }

    function withdraw(uint256 who) external {
        (uint96 bonded, uint96 unbonding, uint96 amount) = registry.stakeOf(_actor(who), PROVIDER);
        if (settlement.abandoned()) amount += bonded + unbonding;
        if (amount == 0 || _stopped()) return;
        vm.prank(_actor(who));
        registry.withdraw(PROVIDER);
        staked -= amount;
    }

    /// @dev Consumes one order if there is one, slashes and releases some of one stake, credits two actors.
    function settle(uint256 which, uint256 who, uint96 slash, uint96 release, uint96 share) external {
        if (_stopped() || settlement.abandoned()) return;
        ISettlement.Report memory report;
        (report.epoch, report.committeeEpoch) = (settlement.lastEpoch() + 1, committee.epoch());
        uint256 total;
        if (_placed.length > 0) {
            Placed memory order = _dropOrder(which % _placed.length);
            report.orders = abi.encodePacked(order.oid);
            total = order.amount;
        }
        total += _touchStake(report, _actor(who), slash, release);
        if (total > 0) _credit(report, who, total, 1 + share % (total - 1));
        settlement.update(report, 7, signed(report));
        rootSeen[report.epoch] = settlement.roots(report.epoch);
    }

    function changeCommittee() external {
        committee.change(committee.members(), QUORUM);
    }

    function pause(bool guardian) external {
        // The guardian has to leave as much time between two pauses as one lasts.
        uint256 last = settlement.pausedUntil();
        if (guardian && last > 0 && _now < last + settlement.PAUSE_S()) return;
        vm.prank(guardian ? GUARDIAN : address(this));
        settlement.pause();
        _stopsUntil = _now + settlement.PAUSE_S();
    }

    function unpause() external {
        if (!_stopped()) return;
        settlement.unpause();
        _stopsUntil = _now;
    }

    function wait(uint24 time) external {
        _now += time % 8 days;
        vm.warp(_now);
    }

    /// @dev Now and then only: nothing is settled afterwards.
    function abandon(uint256 who, uint8 chance) external {
        (, uint96 unbonding,) = registry.stakeOf(_actor(who), PROVIDER);
        if (chance % 8 != 0 || unbonding == 0 || settlement.abandoned()) return;
        // Longer than unbonding_s and abandon_s, which are one second each, and than any pause.
        _now += settlement.PAUSE_S() + 3;
        vm.warp(_now);
        settlement.abandon(_actor(who), PROVIDER);
    }

    function claim(uint256 which) external {
        if (_credits.length == 0 || _stopped()) return;
        which %= _credits.length;
        Credit memory credit = _credits[which];
        _credits[which] = _credits[_credits.length - 1];
        _credits.pop();
        uint64[] memory epochs = new uint64[](1);
        uint256[] memory amounts = new uint256[](1);
        bytes32[][] memory proofs = new bytes32[][](1);
        proofs[0] = new bytes32[](1);
        (epochs[0], amounts[0], proofs[0][0]) = (credit.epoch, credit.amount, credit.sibling);
        settlement.claim(credit.account, epochs, amounts, proofs);
        owed -= credit.amount;
        paid += credit.amount;
    }

    function actorBalances() external view returns (uint256 total) {
        for (uint256 i = 0; i < ACTORS; ++i) {
            total += token.balanceOf(_actor(i));
        }
    }

    function escrowsOnTheBooks() external view returns (uint256 total) {
        for (uint256 i = 0; i < _placed.length; ++i) {
            (, uint96 amount,) = orders.escrowOf(_placed[i].oid);
            total += amount;
        }
    }

    function stakesOnTheBooks() external view returns (uint256 total) {
        for (uint256 i = 0; i < ACTORS; ++i) {
            (uint96 bonded, uint96 unbonding, uint96 withdrawable) = registry.stakeOf(_actor(i), PROVIDER);
            total += uint256(bonded) + unbonding + withdrawable;
        }
    }

    function _stopped() private view returns (bool) {
        return _now < _stopsUntil;
    }

    function _touchStake(ISettlement.Report memory report, address account, uint96 slash, uint96 release)
        private
        returns (uint256 slashed)
    {
        (uint96 bonded, uint96 unbonding,) = registry.stakeOf(account, PROVIDER);
        uint96 have = bonded + unbonding;
        // Two units at least, so that two actors can be credited.
        if (have < 2) return 0;
        slash = 2 + slash % (have - 1);
        report.slashes = abi.encodePacked(account, slash, uint256(PROVIDER));
        uint96 left = slash > bonded ? have - slash : unbonding;
        if (left > 0) {
            report.releases = abi.encodePacked(account, 1 + release % left, uint256(PROVIDER));
        }
        staked -= slash;
        return slash;
    }

    function _credit(ISettlement.Report memory report, uint256 who, uint256 total, uint256 first) private {
        (address a, address b) = (_actor(who), _actor(who % ACTORS + 1));
        if (a > b) (a, b) = (b, a);
        report.credits = abi.encodePacked(a, uint96(first), b, uint96(total - first));
        bytes32 leafA = keccak256(bytes.concat(keccak256(abi.encode(a, first))));
        bytes32 leafB = keccak256(bytes.concat(keccak256(abi.encode(b, total - first))));
        _credits.push(Credit(a, report.epoch, first, leafB));
        _credits.push(Credit(b, report.epoch, total - first, leafA));
        owed += total;
    }

    function _dropOrder(uint256 place) private returns (Placed memory order) {
        order = _placed[place];
        _placed[place] = _placed[_placed.length - 1];
        _placed.pop();
        escrowed -= order.amount;
    }

    function _actor(uint256 index) private pure returns (address) {
        return address(uint160(0xAC700000 + index % ACTORS));
    }
}

/// @title Whatever happens in whatever order, every purse holds exactly what the books say.
contract SolvencyTest {
    Market private market;
    uint256 private funds;

    function setUp() public {
        market = new Market();
        funds = market.actorBalances();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(market);
    }

    function targetSelectors() public view returns (Vm.FuzzSelector[] memory targets) {
        bytes4[] memory selectors = new bytes4[](12);
        selectors[0] = Market.put.selector;
        selectors[1] = Market.reclaim.selector;
        selectors[2] = Market.stake.selector;
        selectors[3] = Market.requestUnstake.selector;
        selectors[4] = Market.withdraw.selector;
        selectors[5] = Market.settle.selector;
        selectors[6] = Market.changeCommittee.selector;
        selectors[7] = Market.claim.selector;
        selectors[8] = Market.pause.selector;
        selectors[9] = Market.unpause.selector;
        selectors[10] = Market.wait.selector;
        selectors[11] = Market.abandon.selector;
        targets = new Vm.FuzzSelector[](1);
        targets[0] = Vm.FuzzSelector(address(market), selectors);
    }

    function invariant_settlement_holds_exactly_the_escrows_and_what_is_owed() public view {
        uint256 need = market.escrowed() + market.owed();
        assert(market.token().balanceOf(address(market.settlement())) == need);
        assert(market.escrowsOnTheBooks() == market.escrowed());
    }

    function invariant_the_registry_holds_exactly_the_stakes() public view {
        assert(market.token().balanceOf(address(market.registry())) == market.staked());
        assert(market.stakesOnTheBooks() == market.staked());
    }

    function invariant_tokens_only_change_hands() public view {
        uint256 purses = market.escrowed() + market.staked() + market.owed();
        assert(market.actorBalances() + purses == funds);
    }

    function invariant_what_was_earned_stays_earned() public view {
        for (uint64 epoch = 1; epoch <= market.settlement().lastEpoch(); ++epoch) {
            assert(market.settlement().roots(epoch) == market.rootSeen(epoch));
        }
    }
}
