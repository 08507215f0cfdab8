// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {ISettlement} from "contracts/interfaces/ISettlement.sol";
import {NetworkFixture} from "./NetworkFixture.sol";
import {vm} from "./Vm.sol";

/// @title A settlement creates nothing and strands nothing, whatever the amounts.
contract ConservationTest is NetworkFixture {
    function testFuzz_a_report_that_balances_is_paid_to_the_last_unit(
        uint96 reward,
        uint96 deposit,
        uint96 stake,
        uint96 slash,
        uint256 share
    ) public {
        (ISettlement.Report memory report, uint256 total) = _report(reward, deposit, stake, slash);
        share = 1 + share % (total - 1);
        report.credits = abi.encodePacked(address(1), uint96(share), address(2), uint96(total - share));
        settlement.update(report, 7, signed(report));
        assert(token.balanceOf(address(settlement)) == total);

        uint64[] memory epochs = new uint64[](1);
        uint256[] memory amounts = new uint256[](1);
        bytes32[][] memory proofs = new bytes32[][](1);
        proofs[0] = new bytes32[](1);
        epochs[0] = 1;
        for (uint256 account = 1; account <= 2; ++account) {
            amounts[0] = account == 1 ? share : total - share;
            proofs[0][0] = _leaf(3 - account, total - amounts[0]);
            settlement.claim(address(uint160(account)), epochs, amounts, proofs);
            assert(token.balanceOf(address(uint160(account))) == amounts[0]);
        }
        assert(token.balanceOf(address(settlement)) == 0);
    }

    function testFuzz_a_report_that_does_not_balance_is_refused(
        uint96 reward,
        uint96 deposit,
        uint96 stake,
        uint96 slash,
        uint96 credited
    ) public {
        (ISettlement.Report memory report, uint256 total) = _report(reward, deposit, stake, slash);
        vm.assume(credited > 0 && credited != total);
        report.credits = abi.encodePacked(address(1), credited);
        bytes memory signatures = signed(report);
        vm.expectRevert(
            abi.encodeWithSelector(ISettlement.Settlement__NotConserved.selector, uint256(credited), total)
        );
        settlement.update(report, 7, signatures);
    }

    // Puts one order, stakes, and begins a report that consumes the order and slashes the stake.
    function _report(uint96 reward, uint96 deposit, uint96 stake, uint96 slash)
        private
        returns (ISettlement.Report memory report, uint256 total)
    {
        reward = 1 + reward % 10 ** 26;
        deposit = 1 + deposit % 10 ** 26;
        stake = 1 + stake % 10 ** 26;
        slash = 1 + slash % stake;
        token.approve(address(orders), type(uint256).max);
        token.approve(address(registry), type(uint256).max);
        bytes32 oid = orders.put(orderOf(address(this), 1, reward, deposit));
        registry.register(PROVIDER, stake, "", 0);
        bytes memory slashes = abi.encodePacked(address(this), slash, uint256(PROVIDER));
        report = ISettlement.Report(1, 1, abi.encodePacked(oid), slashes, "", "");
        total = uint256(reward) + deposit + slash;
    }

    function _leaf(uint256 account, uint256 amount) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(account, amount))));
    }
}
