// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {Inbox} from "../src/Inbox.sol";
import {Rollup} from "../src/Rollup.sol";
import {Fixture, Vm, vm} from "./Support.sol";

/// @notice What transactions cost, all in: each call is a transaction of its own, on cold storage. `npm run gas` prints
/// the figures of contracts/README.md. Proofs are as long as those of a state of 2^31 leaves.
contract GasTest is Fixture {
    // Printed by forge under -vv.
    // forge-lint: disable-next-line(pascal-case-struct)
    event log_named_uint(string key, uint256 value);

    bytes32[] private pathOfSystem;
    bytes32[] private pathOfWithdrawal;
    bytes private bitsOfWithdrawal;

    function report(string memory what, uint256 limit) private {
        uint256 used = vm.lastCallGas().gasTotalUsed;
        emit log_named_uint(what, used);
        vm.assertLe(used, limit, what);
    }

    /// @dev The gas that the last recorded BatchCost message states.
    function reportedGas() private returns (uint256) {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        uint256 i = logs.length - 1;
        while (logs[i].topics[0] != Inbox.MessageQueued.selector) i--;
        (, bytes memory payload,,) = abi.decode(logs[i].data, (uint64, bytes, bytes32, uint64));
        vm.assertEq(payload.length, 37);
        return uint64(bytes8(bytes32(payload) << 96));
    }

    /// @dev A root over the System leaf and one withdrawal, each at the end of a path of made-up siblings: they part
    /// at bit 4, since kind 0x0f begins with 00001111.
    function rootOver(bytes memory system, bytes32 key, bytes memory withdrawal) private returns (bytes32) {
        delete pathOfSystem;
        delete pathOfWithdrawal;
        bytes32 left = keccak256(bytes.concat(hex"00", bytes32(0), system));
        for (uint8 bit = 7; bit >= 5; bit--) {
            bytes32 sibling = keccak256(abi.encode("system", bit));
            pathOfSystem.push(sibling);
            left = keccak256(bytes.concat(hex"01", bytes1(bit), left, sibling));
        }
        bytes32 right = keccak256(bytes.concat(hex"00", key, withdrawal));
        bytes memory bits = new bytes(31);
        for (uint256 i = 0; i < 30; i++) {
            uint8 bit = uint8(i < 27 ? 71 - i : 34 - i);
            bits[i] = bytes1(bit);
            bytes32 sibling = keccak256(abi.encode("withdrawal", bit));
            pathOfWithdrawal.push(sibling);
            bool isRight = uint256(key) >> (255 - bit) & 1 == 1;
            right = isRight
                ? keccak256(bytes.concat(hex"01", bytes1(bit), sibling, right))
                : keccak256(bytes.concat(hex"01", bytes1(bit), right, sibling));
        }
        bits[30] = 0x04;
        pathOfSystem.push(right);
        pathOfWithdrawal.push(left);
        bitsOfWithdrawal = bits;
        return keccak256(bytes.concat(hex"0104", left, right));
    }

    function postOver(bytes memory data, uint64 number) private {
        Made memory made = next(data);
        bytes32 key = bytes32(bytes.concat(hex"0f", bytes8(number)));
        bytes memory withdrawal = withdrawalLeaf(number, stranger, 1e6).value;
        Rollup.SystemProof memory proof =
            Rollup.SystemProof(systemLeaf(made), new bytes32[](0), hex"07060504");
        bytes32 root = rootOver(proof.leaf, key, withdrawal);
        proof.siblings = pathOfSystem;
        vm.prank(poster, poster);
        rollup.postBatch(Rollup.BatchHeader(made.number, made.anchor, made.prevRoot, root), made.data, proof);
    }

    /// @dev Bytes that are not zero, as a batch's nearly all are.
    function denseData(uint256 length) private pure returns (bytes memory data) {
        data = new bytes(length);
        for (uint256 i = 0; i < length; i++) {
            data[i] = bytes1(uint8(i % 255 + 1));
        }
    }

    function test_deposit() public {
        vm.prank(user);
        token.approve(address(vault), 5_123_456);
        deposit(5_123_456);
        report("deposit, the vault's first, exact approval", 100_000);
        vm.prank(user);
        token.approve(address(vault), type(uint256).max);
        deposit(5_123_456);
        report("deposit, unlimited approval", 90_000);
        vm.prank(user);
        token.approve(address(vault), 5_123_456);
        deposit(5_123_456);
        report("deposit, exact approval", 90_000);
    }

    function test_forcedMessages() public {
        vm.prank(user);
        inbox.forceWithdrawal(1, user, 5_123_456);
        report("forced withdrawal", 70_000);
        vm.prank(user);
        inbox.forceOrder(1, 1, 0, 5_123_456, 5_123_456);
        report("forced order", 70_000);
    }

    function test_claim() public {
        deposit(50e6);
        uint64 number = 123_456;
        postOver("data", number);
        vm.warp(START + WINDOW);
        bytes memory leaf = withdrawalLeaf(number, stranger, 1e6).value;
        vault.claim(1, number, leaf, pathOfWithdrawal, bitsOfWithdrawal);
        report("claim, 31 siblings, new recipient, new bitmap word", 120_000);
        postOver("data", number + 1);
        vm.warp(START + 2 * WINDOW);
        leaf = withdrawalLeaf(number + 1, stranger, 1e6).value;
        vault.claim(2, number + 1, leaf, pathOfWithdrawal, bitsOfWithdrawal);
        report("claim, 31 siblings, known recipient, used bitmap word", 90_000);
    }

    function test_postCalldata() public {
        string[4] memory names = ["post 100", "post 1,000", "post 20,000", "post 100,000 bytes of calldata"];
        uint256[4] memory sizes = [uint256(100), 1000, 20_000, 100_000];
        for (uint256 i = 0; i < sizes.length; i++) {
            vm.recordLogs();
            postOver(denseData(sizes[i]), 1);
            uint256 used = vm.lastCallGas().gasTotalUsed;
            report(names[i], 200_000 + 41 * sizes[i]);
            uint256 reported = reportedGas();
            emit log_named_uint("  as reported in the BatchCost message", reported);
            vm.assertLe(used, reported + reported / 33, "the report is not 3 % too low");
            vm.assertLe(reported, used + used / 33, "the report is not 3 % too high");
        }
    }
}
