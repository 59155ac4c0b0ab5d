// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {Inbox} from "../src/Inbox.sol";
import {Rollup} from "../src/Rollup.sol";
import {ChunkCommitment} from "../src/libraries/ChunkCommitment.sol";
import {Leaves} from "../src/libraries/Leaves.sol";
import {Roles} from "../src/libraries/Roles.sol";
import {TreeProof} from "../src/libraries/TreeProof.sol";
import {Fixture, TreeModel, bound, vm} from "./Support.sol";

/// @notice Posts on behalf of the poster: verifiers would not find the data.
contract Relay {
    function relay(Rollup rollup, Rollup.BatchHeader memory header, Rollup.SystemProof memory proof)
        external
    {
        rollup.postBatch(header, "data", proof);
    }
}

contract ConfigTest is Fixture {
    function test_getters() public view {
        vm.assertEq(rollup.chainId(), 777);
        vm.assertEq(rollup.rootOf(0), keccak256("genesis"));
        vm.assertEq(address(vault.inbox()), address(inbox));
        vm.assertEq(address(vault.rollup()), address(rollup));
        vm.assertEq(inbox.vault(), address(vault));
        vm.assertEq(address(inbox.rollup()), address(rollup));
        vm.assertEq(rollup.deployBlock(), 1000);
        vm.assertEq(rollup.finalizedBatch(), 0);
        vm.assertTrue(rollup.isFinal(0));
        vm.assertFalse(rollup.isFinal(1));
    }

    function refuseConfig(Rollup.Config memory bad, string memory what) private {
        vm.expectRevert(abi.encodeWithSelector(Rollup.BadConfig.selector, what));
        new Rollup(bad);
    }

    function test_badConfig() public {
        Rollup.Config memory bad = config();
        bad.governor = address(0);
        refuseConfig(bad, "governor");
        bad = config();
        bad.token = address(0);
        refuseConfig(bad, "token");
        bad = config();
        bad.genesisRoot = 0;
        refuseConfig(bad, "genesisRoot");
        bad = config();
        bad.challengeWindow = 0;
        refuseConfig(bad, "challengeWindow");
        bad = config();
        bad.forcedDelay = 0;
        refuseConfig(bad, "forcedDelay");
        bad = config();
        bad.escapeDelay = bad.forcedDelay;
        refuseConfig(bad, "escapeDelay <= forcedDelay");
        bad = config();
        bad.challengeWindow = bad.escapeDelay + 1;
        refuseConfig(bad, "escapeDelay < challengeWindow");
    }

    function test_rolesAreTheGovernors() public {
        vm.prank(poster);
        vm.expectRevert(unauthorized(poster, Roles.GOVERNOR));
        rollup.grantRole(Roles.POSTER, stranger);
        vm.prank(governor);
        rollup.grantRole(Roles.POSTER, stranger);
        vm.assertTrue(rollup.hasRole(Roles.POSTER, stranger));
        vm.prank(governor);
        rollup.revokeRole(Roles.POSTER, poster);
        Rollup.BatchHeader memory header;
        Rollup.SystemProof memory proof;
        vm.prank(poster, poster);
        vm.expectRevert(unauthorized(poster, Roles.POSTER));
        rollup.postBatch(header, "", proof);
    }
}

contract PostTest is Fixture {
    using TreeModel for TreeModel.Leaf[];

    function test_posts() public {
        deposit(5e6);
        Made memory made = next("batch data");
        made.leaves = new TreeModel.Leaf[](1);
        made.leaves[0] = withdrawalLeaf(1, user, 1);
        bytes32 commitment = keccak256(
            bytes.concat(hex"02", bytes8(uint64(10)), keccak256(bytes.concat(hex"00", "batch data")))
        );
        bytes32 root = stateOf(made).rootOf();
        Rollup.SystemProof memory proof = proofOf(made);
        vm.prank(poster, poster);
        vm.expectEmit();
        emit Rollup.BatchPosted(1, keccak256("genesis"), root, commitment, 10, 0, 1, 1, START * 1000, poster);
        rollup.postBatch(Rollup.BatchHeader(1, 0, keccak256("genesis"), root), "batch data", proof);
        vm.assertEq(rollup.lastBatch(), 1);
        Rollup.Batch memory kept = rollup.batchAt(1);
        vm.assertEq(kept.root, root);
        vm.assertEq(kept.commitment, commitment);
        vm.assertEq(kept.postedAt, START);
        vm.assertEq(kept.timestampMs, START * 1000);
        vm.assertEq(kept.inboxNext, 1);
        vm.assertEq(kept.inboxCount, 1);
        vm.assertEq(inbox.count(), 2);
    }

    /// forge-config: default.isolate = false
    function test_blobs() public {
        bytes32[] memory hashes = new bytes32[](2);
        hashes[0] = bytes32(uint256(1 << 248 | 5));
        hashes[1] = bytes32(uint256(1 << 248 | 6));
        Made memory made = next("");
        made.cursor = 126_977;
        vm.blobhashes(hashes);
        post(made);
        bytes32 expected = keccak256(bytes.concat(hex"03", bytes8(uint64(126_977)), hashes[0], hashes[1]));
        vm.assertEq(rollup.batchAt(1).commitment, expected);

        made = next("");
        made.cursor = 126_976;
        refuse(made, abi.encodeWithSelector(Rollup.BlobCountMismatch.selector, 1, 2));
        made.cursor = 2 * 126_976 + 1;
        refuse(made, abi.encodeWithSelector(Rollup.BlobCountMismatch.selector, 3, 2));
        made = next("x");
        refuse(made, abi.encodeWithSelector(Rollup.TwoDataSources.selector, 1));
    }

    function test_continuesTheLastBatch() public {
        Made memory made = next("data");
        made.number = 2;
        refuse(made, abi.encodeWithSelector(Rollup.WrongBatchNumber.selector, 1, 2));
        made = next("data");
        made.prevRoot = "other";
        refuse(
            made,
            abi.encodeWithSelector(Rollup.WrongPrevRoot.selector, keccak256("genesis"), bytes32("other"))
        );
        made = next("data");
        made.batchNumber = 2;
        refuse(made, abi.encodeWithSelector(Rollup.WrongLeafBatch.selector, 1, 2));
        made = next("data");
        post(made);
        refuse(made, abi.encodeWithSelector(Rollup.WrongBatchNumber.selector, 2, 1));
    }

    function test_systemLeafMustBeProved() public {
        Made memory made = next("data");
        Rollup.BatchHeader memory header = headerOf(made);
        Rollup.SystemProof memory proof = proofOf(made);
        bytes32 root = header.newRoot;
        header.newRoot = "other";
        vm.prank(poster, poster);
        vm.expectRevert(abi.encodeWithSelector(TreeProof.RootMismatch.selector, bytes32("other"), root));
        rollup.postBatch(header, "data", proof);

        proof.leaf = new bytes(188);
        header.newRoot = keccak256(bytes.concat(hex"00", bytes32(0), proof.leaf));
        vm.prank(poster, poster);
        vm.expectRevert(abi.encodeWithSelector(Leaves.LeafLength.selector, 189, 188));
        rollup.postBatch(header, "data", proof);
    }

    function test_readsExactlyThePostedBytes() public {
        Made memory made = next("data");
        made.cursor = 3;
        refuse(made, abi.encodeWithSelector(Rollup.DataLengthMismatch.selector, 3, 4));
        made.cursor = 5;
        refuse(made, abi.encodeWithSelector(Rollup.DataLengthMismatch.selector, 5, 4));
        made.cursor = 0;
        refuse(made, abi.encodeWithSelector(Rollup.BatchTooLong.selector, 1 << 20, 0));
        made.cursor = (1 << 20) + 1;
        refuse(made, abi.encodeWithSelector(Rollup.BatchTooLong.selector, 1 << 20, (1 << 20) + 1));
    }

    function test_readsTheInboxAsItIs() public {
        deposit(5e6);
        Made memory made = next("data");
        made.inboxHash = "other";
        bytes32 expected = inbox.hashAt(1);
        refuse(made, abi.encodeWithSelector(Rollup.InboxHashMismatch.selector, expected, bytes32("other")));
        made = next("data");
        made.inboxNext = 2;
        refuse(made, abi.encodeWithSelector(Inbox.BeyondQueue.selector, 1, 2));
        post(next("data"));
        made = next("data");
        made.inboxNext = 0;
        made.inboxHash = 0;
        refuse(made, abi.encodeWithSelector(Rollup.InboxBackwards.selector, 1, 0));
    }

    function readUpTo(Made memory made, uint64 messages) private view returns (Made memory) {
        made.inboxNext = messages;
        made.inboxHash = inbox.hashAt(messages);
        return made;
    }

    function test_messagesMayWaitForTheForcedDelay() public {
        post(next("one"));
        deposit(5e6);
        post(readUpTo(next("two"), 1));
        vm.warp(START + FORCED_DELAY - 1);
        Made memory made = readUpTo(next("three"), 1);
        refuse(made, abi.encodeWithSelector(Rollup.InboxOverdue.selector, 2, 1));
        made.anchor = 1;
        post(made);
        vm.warp(START + FORCED_DELAY);
        made = readUpTo(next("four"), 1);
        made.anchor = 1;
        refuse(made, abi.encodeWithSelector(Rollup.AnchorTooOld.selector, 1, 3));
        made.anchor = 4;
        refuse(made, abi.encodeWithSelector(Rollup.NoSuchBatch.selector, 3, 4));
        made.anchor = 3;
        refuse(made, abi.encodeWithSelector(Rollup.InboxOverdue.selector, 3, 1));
        post(readUpTo(next("four"), 3));
    }

    function test_afterSilenceOneBatchMayLeaveNewMessages() public {
        post(next("one"));
        vm.warp(START + 2 * FORCED_DELAY);
        deposit(5e6);
        vm.warp(START + 4 * FORCED_DELAY);
        post(readUpTo(next("two"), 0));
        Made memory made = readUpTo(next("three"), 0);
        made.anchor = 1;
        refuse(made, abi.encodeWithSelector(Rollup.AnchorTooOld.selector, 1, 2));
        made.anchor = 2;
        refuse(made, abi.encodeWithSelector(Rollup.InboxOverdue.selector, 2, 0));
    }

    function test_clocks() public {
        Made memory made = next("data");
        made.timestampMs = (START + DRIFT) * 1000 + 1;
        refuse(
            made,
            abi.encodeWithSelector(Rollup.TimestampAhead.selector, (START + DRIFT) * 1000, made.timestampMs)
        );
        made.timestampMs--;
        post(made);
        uint64 last = made.timestampMs;
        made = next("data");
        made.timestampMs = last - 1;
        refuse(made, abi.encodeWithSelector(Rollup.TimestampBackwards.selector, last, last - 1));
        made.timestampMs = last;
        made.l1Block = 1000;
        refuse(made, abi.encodeWithSelector(Rollup.OriginNotPast.selector, 1000, 1000));
    }

    function test_onlyDirectly() public {
        Made memory made = next("data");
        Relay relay = new Relay();
        vm.prank(governor);
        rollup.grantRole(Roles.POSTER, address(relay));
        Rollup.BatchHeader memory header = headerOf(made);
        Rollup.SystemProof memory proof = proofOf(made);
        vm.prank(poster, poster);
        vm.expectRevert(abi.encodeWithSelector(Rollup.NotDirectCall.selector, poster, address(relay)));
        relay.relay(rollup, header, proof);
        vm.etch(poster, hex"ef0100000000000000000000000000000000000000dead");
        refuse(made, abi.encodeWithSelector(Rollup.NotDirectCall.selector, poster, poster));
    }

    function test_emptyCalldataWithoutBlobs() public {
        Made memory made = next("");
        made.cursor = 1;
        refuse(made, abi.encodeWithSelector(Rollup.DataLengthMismatch.selector, 1, 0));
    }

    function testFuzz_dataCommitment(bytes memory data) public {
        vm.assume(data.length > 0);
        post(next(data));
        vm.assertTrue(rollup.batchAt(1).commitment == this.commitmentOf(data));
    }

    function commitmentOf(bytes calldata data) external pure returns (bytes32) {
        return ChunkCommitment.ofData(data);
    }
}

contract FinalityTest is Fixture {
    function test_finalAfterTheWindow() public {
        post(next("one"));
        vm.warp(START + 100);
        post(next("two"));
        vm.warp(START + WINDOW - 1);
        vm.assertEq(rollup.finalizedBatch(), 0);
        vm.expectRevert(abi.encodeWithSelector(Rollup.BatchNotFinal.selector, 1));
        rollup.finalizedRoot(1);
        vm.warp(START + WINDOW);
        vm.assertEq(rollup.finalizedBatch(), 1);
        vm.assertEq(rollup.finalizedRoot(1), rollup.rootOf(1));
        vm.assertFalse(rollup.isFinal(2));
        vm.warp(START + WINDOW + 100);
        vm.assertEq(rollup.finalizedBatch(), 2);
        vm.expectRevert(abi.encodeWithSelector(Rollup.BatchNotFinal.selector, 3));
        rollup.finalizedRoot(3);
    }

    function testFuzz_finalizedBatch(uint256 seed) public {
        uint256 count = bound(seed, 0, 9);
        for (uint256 i = 0; i < count; i++) {
            vm.warp(block.timestamp + (uint256(keccak256(abi.encode(seed, i))) % (WINDOW / 3)));
            post(next("data"));
        }
        vm.warp(block.timestamp + (seed >> 128) % (2 * WINDOW));
        uint64 expected = 0;
        while (rollup.isFinal(expected + 1)) expected++;
        vm.assertEq(rollup.finalizedBatch(), expected);
    }

    function test_guardianReverts() public {
        post(next("one"));
        Made memory kept = next("two");
        post(kept);
        post(next("three"));
        vm.prank(poster);
        vm.expectRevert(unauthorized(poster, Roles.GUARDIAN));
        rollup.revertBatches(3);
        vm.prank(guardian);
        vm.expectRevert(abi.encodeWithSelector(Rollup.NoSuchBatch.selector, 3, 4));
        rollup.revertBatches(4);
        vm.prank(guardian);
        vm.expectRevert(abi.encodeWithSelector(Rollup.NoSuchBatch.selector, 3, 0));
        rollup.revertBatches(0);
        vm.prank(guardian);
        vm.expectEmit();
        emit Rollup.BatchesReverted(2, 3, guardian);
        rollup.revertBatches(2);
        vm.assertEq(rollup.lastBatch(), 1);
        vm.expectRevert(abi.encodeWithSelector(Rollup.NoSuchBatch.selector, 1, 2));
        rollup.rootOf(2);
        vm.expectRevert(abi.encodeWithSelector(Rollup.NoSuchBatch.selector, 1, 3));
        rollup.batchAt(3);
        vm.warp(START + WINDOW);
        vm.assertEq(rollup.finalizedBatch(), 1);
        vm.assertFalse(rollup.isFinal(2));
        post(next("two again"));
        vm.assertEq(rollup.batchAt(2).postedAt, START + WINDOW);
        vm.assertFalse(rollup.isFinal(2));
    }

    function test_finalBatchesStay() public {
        post(next("one"));
        vm.warp(START + WINDOW);
        vm.prank(guardian);
        vm.expectRevert(abi.encodeWithSelector(Rollup.BatchFinal.selector, 1));
        rollup.revertBatches(1);
    }

    function test_messagesAreReadAgainAfterARevert() public {
        post(next("one"));
        deposit(5e6);
        post(next("two"));
        vm.prank(guardian);
        rollup.revertBatches(2);
        Made memory made = next("two again");
        made.inboxNext = 0;
        made.inboxHash = 0;
        post(made);
    }

    function test_escape() public {
        post(next("one"));
        vm.warp(START + ESCAPE_DELAY - 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                Rollup.EscapeNotDue.selector, START + ESCAPE_DELAY, START + ESCAPE_DELAY - 1
            )
        );
        rollup.activateEscape();
        vm.expectRevert(abi.encodeWithSelector(Rollup.NotEscaped.selector));
        rollup.escapedRoot();
        vm.expectRevert(abi.encodeWithSelector(Rollup.NotEscaped.selector));
        rollup.escapedInboxNext();
        vm.warp(START + ESCAPE_DELAY);
        bytes32 root = rollup.rootOf(1);
        vm.prank(stranger);
        vm.expectEmit();
        emit Rollup.EscapeActivated(1, root, stranger);
        rollup.activateEscape();
        vm.expectRevert(abi.encodeWithSelector(Rollup.Escaped.selector));
        rollup.activateEscape();
        refuse(next("two"), abi.encodeWithSelector(Rollup.Escaped.selector));
        vm.prank(guardian);
        vm.expectRevert(abi.encodeWithSelector(Rollup.BatchFinal.selector, 1));
        rollup.revertBatches(1);
    }

    function test_aRevertIsActivity() public {
        post(next("one"));
        vm.warp(START + ESCAPE_DELAY - 1);
        post(next("two"));
        vm.warp(START + ESCAPE_DELAY);
        vm.prank(guardian);
        rollup.revertBatches(2);
        uint64 due = START + 2 * ESCAPE_DELAY;
        vm.expectRevert(abi.encodeWithSelector(Rollup.EscapeNotDue.selector, due, START + ESCAPE_DELAY));
        rollup.activateEscape();
    }
}
