// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {OrderBook} from "contracts/OrderBook.sol";
import {Parameters} from "contracts/Parameters.sol";
import {Settlement} from "contracts/Settlement.sol";
import {ICommittee} from "contracts/interfaces/ICommittee.sol";
import {INodeRegistry} from "contracts/interfaces/INodeRegistry.sol";
import {IOrderBook} from "contracts/interfaces/IOrderBook.sol";
import {IParameters} from "contracts/interfaces/IParameters.sol";
import {ISettlement} from "contracts/interfaces/ISettlement.sol";
import {CreditTree} from "contracts/lib/CreditTree.sol";
import {MemberCode} from "contracts/lib/MemberCode.sol";
import {vm} from "./Vm.sol";

/// @title Ids, digests, signatures and roots are the ones that tests/golden names.
/// @dev The Python tests read the same files, which independent libraries wrote: three implementations agree.
contract GoldenVectorsTest {
    string private typed;
    string private trees;
    OrderBook private book;
    Settlement private settlement;

    function setUp() public {
        typed = vm.readFile("tests/golden/eip712.json");
        trees = vm.readFile("tests/golden/merkle.json");
        vm.chainId(vm.parseJsonUint(typed, ".domain.chainId"));
        IParameters network = IParameters(vm.parseJsonAddress(typed, ".domain.verifyingContract"));
        book = new OrderBook(IERC20(address(0)), network);
        settlement = new Settlement(
            IERC20(address(0)),
            network,
            INodeRegistry(address(0)),
            IOrderBook(address(0)),
            ICommittee(address(0)),
            address(this),
            address(this),
            address(0)
        );
    }

    function test_domain_separator() public view {
        bytes32 need = vm.parseJsonBytes32(typed, ".domain.separator");
        assert(book.domainSeparator() == need);
        assert(settlement.domainSeparator() == need);
    }

    function test_domain_is_the_one_that_parameters_reports() public {
        Parameters parameters = new Parameters(
            address(this), new bytes32[](0), new uint256[](0), new uint256[](0), new uint256[](0)
        );
        (bytes1 fields, string memory name, string memory version, uint256 id, address at,,) =
            parameters.eip712Domain();
        assert(fields == hex"0f" && at == address(parameters));
        bytes32 kind =
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        bytes32 separator =
            keccak256(abi.encode(kind, keccak256(bytes(name)), keccak256(bytes(version)), id, at));
        assert(new OrderBook(IERC20(address(0)), parameters).domainSeparator() == separator);
    }

    function test_domain_follows_a_chain_that_splits() public {
        bytes32 before = book.domainSeparator();
        vm.chainId(97);
        assert(book.domainSeparator() != before);
        vm.chainId(vm.parseJsonUint(typed, ".domain.chainId"));
        assert(book.domainSeparator() == before);
    }

    function test_order_id() public view {
        IOrderBook.Order memory order = IOrderBook.Order({
            client: vm.parseJsonAddress(typed, ".order.client"),
            nonce: uint64(vm.parseJsonUint(typed, ".order.nonce")),
            kind: vm.parseJsonString(typed, ".order.kind"),
            reward: uint96(vm.parseJsonUint(typed, ".order.reward")),
            deposit: uint96(vm.parseJsonUint(typed, ".order.deposit")),
            trainWindow: uint32(vm.parseJsonUint(typed, ".order.trainWindow")),
            validateWindow: uint32(vm.parseJsonUint(typed, ".order.validateWindow")),
            challengeWindow: uint32(vm.parseJsonUint(typed, ".order.challengeWindow")),
            taskHash: vm.parseJsonBytes32(typed, ".order.taskHash"),
            taskLink: vm.parseJsonString(typed, ".order.taskLink"),
            dataRoot: vm.parseJsonBytes32(typed, ".order.dataRoot"),
            baseline: int64(vm.parseJsonInt(typed, ".order.baseline"))
        });
        assert(book.oidOf(order) == vm.parseJsonBytes32(typed, ".order.oid"));
    }

    function test_report_digest_and_its_signature() public view {
        ISettlement.Report memory report = ISettlement.Report({
            epoch: uint64(vm.parseJsonUint(typed, ".report.epoch")),
            committeeEpoch: uint64(vm.parseJsonUint(typed, ".report.committeeEpoch")),
            orders: vm.parseJsonBytes(typed, ".report.orders"),
            slashes: vm.parseJsonBytes(typed, ".report.slashes"),
            releases: vm.parseJsonBytes(typed, ".report.releases"),
            credits: vm.parseJsonBytes(typed, ".report.credits")
        });
        bytes32 digest = settlement.digestOf(report);
        assert(digest == vm.parseJsonBytes32(typed, ".report.digest"));
        bytes memory signature = vm.parseJsonBytes(typed, ".signature");
        bytes32 r;
        bytes32 s;
        assembly ("memory-safe") {
            r := mload(add(signature, 0x20))
            s := mload(add(signature, 0x40))
        }
        assert(ecrecover(digest, uint8(signature[64]), r, s) == vm.parseJsonAddress(typed, ".signer"));
    }

    function test_credit_roots() public view {
        uint256 seen;
        for (; vm.keyExistsJson(trees, _tree(seen, "")); ++seen) {
            bytes memory credits = vm.parseJsonBytes(trees, _tree(seen, ".credits"));
            (bytes32 root, uint256 total, uint256 misplaced) = this.build(credits);
            assert(root == vm.parseJsonBytes32(trees, _tree(seen, ".root")));
            assert(misplaced == 0);
            assert(total > 0 || credits.length == 0);
        }
        assert(seen >= 10);
    }

    function build(bytes calldata credits)
        external
        pure
        returns (bytes32 root, uint256 total, uint256 misplaced)
    {
        return CreditTree.build(credits);
    }

    function _tree(uint256 place, string memory field) private pure returns (string memory) {
        return string.concat(".trees[", vm.toString(place), "]", field);
    }
}

/// @title The tree that the settlement builds is the plain one, whatever the credits.
contract CreditTreeTest {
    struct Credit {
        address account;
        uint96 amount;
    }

    function testFuzz_root_and_sum_equal_the_plain_definition(uint256 seed, uint256 count) public view {
        Credit[] memory credits = _credits(seed, count % 70);
        bytes memory packed;
        bytes32[] memory level = new bytes32[](credits.length);
        uint256 sum;
        for (uint256 i = 0; i < credits.length; ++i) {
            packed = bytes.concat(packed, abi.encodePacked(credits[i].account, credits[i].amount));
            level[i] = keccak256(
                bytes.concat(keccak256(abi.encode(credits[i].account, uint256(credits[i].amount))))
            );
            sum += credits[i].amount;
        }
        (bytes32 root, uint256 total, uint256 misplaced) = this.build(packed);
        assert(misplaced == 0 && total == sum);
        assert(root == _plainRoot(level));
    }

    function testFuzz_a_word_out_of_order_or_empty_is_named(uint256 seed, uint256 count, uint256 at)
        public
        view
    {
        Credit[] memory credits = _credits(seed, 2 + count % 30);
        at = 1 + at % (credits.length - 1);
        if (seed % 3 == 0) credits[at].amount = 0;
        else if (seed % 3 == 1) credits[at].account = credits[at - 1].account;
        else credits[at].account = address(uint160(credits[at - 1].account) - 1);
        bytes memory packed;
        for (uint256 i = 0; i < credits.length; ++i) {
            packed = bytes.concat(packed, abi.encodePacked(credits[i].account, credits[i].amount));
        }
        (bytes32 root,, uint256 misplaced) = this.build(packed);
        assert(misplaced == at + 1 && root == bytes32(0));
    }

    function test_the_zero_account_is_never_credited() public view {
        (,, uint256 misplaced) = this.build(abi.encodePacked(address(0), uint96(1)));
        assert(misplaced == 1);
    }

    function testFuzz_members_kept_as_code_come_back_unchanged(uint256 seed, uint256 count) public {
        address[] memory members = new address[](1 + count % 256);
        for (uint256 i = 0; i < members.length; ++i) {
            members[i] = address(uint160(uint256(keccak256(abi.encode(seed, i)))));
        }
        address[] memory read = MemberCode.list(MemberCode.write(members));
        assert(keccak256(abi.encode(read)) == keccak256(abi.encode(members)));
    }

    function build(bytes calldata credits)
        external
        pure
        returns (bytes32 root, uint256 total, uint256 misplaced)
    {
        return CreditTree.build(credits);
    }

    function _credits(uint256 seed, uint256 count) private pure returns (Credit[] memory credits) {
        credits = new Credit[](count);
        uint160 account;
        for (uint256 i = 0; i < count; ++i) {
            uint256 random = uint256(keccak256(abi.encode(seed, i)));
            account += 2 + uint160(random >> 112);
            uint96 amount = uint96(random);
            credits[i] = Credit(address(account), amount == 0 ? 1 : amount);
        }
    }

    function _plainRoot(bytes32[] memory level) private pure returns (bytes32) {
        if (level.length == 0) return bytes32(0);
        while (level.length > 1) {
            bytes32[] memory above = new bytes32[]((level.length + 1) / 2);
            for (uint256 i = 0; i < above.length; ++i) {
                if (2 * i + 1 == level.length) {
                    above[i] = level[2 * i];
                    continue;
                }
                (bytes32 a, bytes32 b) = (level[2 * i], level[2 * i + 1]);
                above[i] = a < b ? keccak256(abi.encode(a, b)) : keccak256(abi.encode(b, a));
            }
            level = above;
        }
        return level[0];
    }
}
