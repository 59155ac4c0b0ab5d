// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {Inbox} from "../src/Inbox.sol";
import {Roles} from "../src/libraries/Roles.sol";
import {Fixture, bound, vm} from "./Support.sol";

contract InboxTest is Fixture {
    function expectMessage(uint64 index, uint8 kind, address sender, bytes memory payload)
        private
        returns (bytes32 hash)
    {
        uint64 l1Block = uint64(block.number);
        hash = keccak256(
            bytes.concat(inbox.hashAt(index), bytes1(kind), bytes20(sender), bytes8(l1Block), payload)
        );
        uint64 deadline = uint64(block.timestamp) + FORCED_DELAY;
        vm.expectEmit();
        emit Inbox.MessageQueued(index, kind, sender, l1Block, payload, hash, deadline);
    }

    function test_deposits() public {
        bytes memory payload = bytes.concat(bytes20(user), bytes8(uint64(9)), bytes8(uint64(5e6)));
        bytes32 hash = expectMessage(0, 1, address(vault), payload);
        vm.prank(user);
        vault.deposit(9, user, 5e6);
        vm.assertEq(inbox.hashAt(1), hash);
        vm.assertEq(inbox.count(), 1);
    }

    function test_forcedWithdrawals() public {
        bytes memory payload = bytes.concat(bytes8(uint64(3)), bytes20(stranger), bytes8(uint64(12)));
        expectMessage(0, 2, user, payload);
        vm.prank(user);
        inbox.forceWithdrawal(3, stranger, 12);
    }

    function test_forcedOrders() public {
        bytes memory payload = bytes.concat(
            bytes8(uint64(3)), bytes4(uint32(2)), bytes1(uint8(1)), bytes8(uint64(70e9)), bytes8(uint64(12))
        );
        expectMessage(0, 3, user, payload);
        vm.prank(user);
        inbox.forceOrder(3, 2, 1, 70e9, 12);
    }

    function test_governance() public {
        uint8[6] memory kinds = [4, 5, 7, 9, 10, 31];
        for (uint64 i = 0; i < kinds.length; i++) {
            expectMessage(i, kinds[i], governor, "payload");
            vm.prank(governor);
            inbox.queueGovernance(kinds[i], "payload");
        }
    }

    function testFuzz_rollingHash(uint64[5] memory amounts, uint32 market) public {
        bytes32 hash = 0;
        for (uint64 i = 0; i < 5; i++) {
            vm.roll(2000 + amounts[i] % 1000);
            uint64 amount = uint64(bound(amounts[i], 1, type(uint64).max));
            vm.prank(user);
            bytes memory payload;
            if (amount % 2 == 0) {
                inbox.forceWithdrawal(i, user, amount);
                payload = bytes.concat(bytes8(i), bytes20(user), bytes8(amount));
            } else {
                inbox.forceOrder(i, market, 0, amount, amount);
                payload = bytes.concat(bytes8(i), bytes4(market), bytes1(0), bytes8(amount), bytes8(amount));
            }
            bytes1 kind = amount % 2 == 0 ? bytes1(0x02) : bytes1(0x03);
            bytes8 l1Block = bytes8(uint64(block.number));
            hash = keccak256(bytes.concat(hash, kind, bytes20(user), l1Block, payload));
            vm.assertEq(inbox.hashAt(i + 1), hash);
        }
        vm.assertEq(inbox.hashAt(0), 0);
    }

    function test_onlyTheVaultQueuesDeposits() public {
        vm.expectRevert(abi.encodeWithSelector(Inbox.WrongSender.selector, address(vault), address(this)));
        inbox.queueDeposit(user, 0, 5);
    }

    function test_onlyTheRollupReportsCosts() public {
        vm.expectRevert(abi.encodeWithSelector(Inbox.WrongSender.selector, address(rollup), address(this)));
        inbox.queueBatchCost("");
    }

    function test_onlyGovernorsGovern() public {
        vm.prank(poster);
        vm.expectRevert(unauthorized(poster, Roles.GOVERNOR));
        inbox.queueGovernance(4, "payload");
    }

    function test_governanceKinds() public {
        uint8[4] memory wrong = [3, 8, 32, 255];
        for (uint256 i = 0; i < wrong.length; i++) {
            vm.prank(governor);
            vm.expectRevert(abi.encodeWithSelector(Inbox.NotGovernanceKind.selector, wrong[i]));
            inbox.queueGovernance(wrong[i], "payload");
        }
    }

    function test_governancePayloadIsBounded() public {
        vm.prank(governor);
        vm.expectRevert(abi.encodeWithSelector(Inbox.PayloadLength.selector, 1024, 0));
        inbox.queueGovernance(4, "");
        vm.prank(governor);
        vm.expectRevert(abi.encodeWithSelector(Inbox.PayloadLength.selector, 1024, 1025));
        inbox.queueGovernance(4, new bytes(1025));
    }

    function test_forcedMessagesMustMeanSomething() public {
        vm.expectRevert(abi.encodeWithSelector(Inbox.ZeroAmount.selector));
        inbox.forceWithdrawal(1, user, 0);
        vm.expectRevert(abi.encodeWithSelector(Inbox.ZeroRecipient.selector));
        inbox.forceWithdrawal(1, address(0), 1);
        vm.expectRevert(abi.encodeWithSelector(Inbox.ZeroAmount.selector));
        inbox.forceOrder(1, 1, 0, 1, 0);
        vm.expectRevert(abi.encodeWithSelector(Inbox.UnknownSide.selector, 2));
        inbox.forceOrder(1, 1, 2, 1, 1);
    }

    function test_hashBeyondTheQueue() public {
        vm.expectRevert(abi.encodeWithSelector(Inbox.BeyondQueue.selector, 0, 1));
        inbox.hashAt(1);
    }
}
