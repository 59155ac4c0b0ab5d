// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {ChunkCommitment} from "../src/libraries/ChunkCommitment.sol";
import {Leaves} from "../src/libraries/Leaves.sol";
import {TreeProof} from "../src/libraries/TreeProof.sol";
import {TreeModel, bound, vm} from "./Support.sol";

/// @notice The libraries, callable from outside.
contract Harness {
    function member(
        bytes32 root,
        bytes32 key,
        bytes memory value,
        bytes32[] calldata siblings,
        bytes calldata bits
    ) external pure {
        TreeProof.requireMember(root, key, value, siblings, bits);
    }

    function absent(
        bytes32 root,
        bytes32 key,
        bytes32 witnessKey,
        bytes memory witnessValue,
        bytes32[] calldata siblings,
        bytes calldata bits
    ) external pure {
        TreeProof.requireAbsent(root, key, witnessKey, witnessValue, siblings, bits);
    }

    function ofData(bytes calldata data) external pure returns (bytes32) {
        return ChunkCommitment.ofData(data);
    }

    function ofBlobs(bytes32[] memory hashes, uint64 length) external pure returns (bytes32) {
        return ChunkCommitment.ofBlobs(hashes, length);
    }

    function chunk(
        bytes32 commitment,
        uint256 length,
        uint256 index,
        bytes calldata data,
        bytes32[] calldata siblings
    ) external pure {
        ChunkCommitment.requireChunk(commitment, length, index, data, siblings);
    }

    function system(bytes calldata leaf) external pure returns (Leaves.System memory) {
        return Leaves.decodeSystem(leaf);
    }

    function withdrawal(bytes calldata leaf) external pure returns (Leaves.Withdrawal memory) {
        return Leaves.decodeWithdrawal(leaf);
    }

    function account(bytes calldata leaf) external pure returns (Leaves.Account memory) {
        return Leaves.decodeAccount(leaf);
    }
}

contract TreeProofTest {
    using TreeModel for TreeModel.Leaf[];

    Harness private harness = new Harness();

    /// @dev Keys that share prefixes: `spread` bits of randomness at two places.
    function leavesFrom(uint256 seed) private pure returns (TreeModel.Leaf[] memory leaves) {
        uint256 count = bound(seed, 1, 12);
        TreeModel.Leaf[] memory all = new TreeModel.Leaf[](count);
        uint256 used = 0;
        for (uint256 i = 0; i < count; i++) {
            uint256 random = uint256(keccak256(abi.encode(seed, i)));
            bytes32 key = bytes32((random & 0xf) << 248 | ((random >> 8) & 0x7) << (random >> 250));
            if (random % 5 == 0) key = bytes32(random);
            bool known = false;
            for (uint256 j = 0; j < used; j++) {
                if (all[j].key == key) known = true;
            }
            if (!known) all[used++] = TreeModel.Leaf(key, abi.encodePacked(random));
        }
        leaves = new TreeModel.Leaf[](used);
        for (uint256 i = 0; i < used; i++) {
            leaves[i] = all[i];
        }
    }

    function testFuzz_everyLeafIsProved(uint256 seed) public view {
        TreeModel.Leaf[] memory leaves = leavesFrom(seed);
        bytes32 root = leaves.rootOf();
        for (uint256 i = 0; i < leaves.length; i++) {
            (bytes32[] memory siblings, bytes memory bits,) = leaves.lookup(leaves[i].key);
            harness.member(root, leaves[i].key, leaves[i].value, siblings, bits);
        }
    }

    function testFuzz_everythingElseIsAbsent(uint256 seed, bytes32 key) public {
        TreeModel.Leaf[] memory leaves = leavesFrom(seed);
        if (seed % 3 == 0) key = leaves[0].key ^ bytes32(uint256(1) << (seed >> 248));
        bytes32 root = leaves.rootOf();
        (bytes32[] memory siblings, bytes memory bits, TreeModel.Leaf memory witness) = leaves.lookup(key);
        if (leaves.has(key)) vm.expectRevert(abi.encodeWithSelector(TreeProof.KeyPresent.selector, key));
        harness.absent(root, key, witness.key, witness.value, siblings, bits);
    }

    function testFuzz_aChangedProofFails(uint256 seed, uint256 place) public view {
        TreeModel.Leaf[] memory leaves = leavesFrom(seed);
        bytes32 root = leaves.rootOf();
        TreeModel.Leaf memory leaf = leaves[place % leaves.length];
        (bytes32[] memory siblings, bytes memory bits,) = leaves.lookup(leaf.key);
        uint256 what = (place >> 128) % 3;
        if (what == 0 && siblings.length > 0) {
            siblings[(place >> 64) % siblings.length] ^= bytes32(uint256(1) << (place & 0xff));
        } else if (what == 1) {
            leaf.key ^= bytes32(uint256(1) << (place & 0xff));
        } else {
            leaf.value[place % leaf.value.length] ^= 0x01;
        }
        bool accepted = true;
        try harness.member(root, leaf.key, leaf.value, siblings, bits) {}
        catch {
            accepted = false;
        }
        vm.assertFalse(accepted);
    }

    function test_anythingIsAbsentInTheEmptyTree() public view {
        harness.absent(0, "key", 0, "", new bytes32[](0), "");
    }

    function test_noMemberInTheEmptyTree() public {
        bytes32 computed = keccak256(abi.encodePacked(uint8(0), bytes32("key"), "value"));
        vm.expectRevert(abi.encodeWithSelector(TreeProof.RootMismatch.selector, 0, computed));
        harness.member(0, "key", "value", new bytes32[](0), "");
    }

    function test_pathLengths() public {
        vm.expectRevert(abi.encodeWithSelector(TreeProof.PathLengths.selector, 1, 2));
        harness.member("root", "key", "value", new bytes32[](1), hex"0201");
    }

    function test_bitsMustDecrease() public {
        vm.expectRevert(abi.encodeWithSelector(TreeProof.BitsNotDecreasing.selector, 1, 5));
        harness.member("root", "key", "value", new bytes32[](2), hex"0505");
        vm.expectRevert(abi.encodeWithSelector(TreeProof.BitsNotDecreasing.selector, 2, 9));
        harness.member("root", "key", "value", new bytes32[](3), hex"ff0809");
    }

    function test_absenceNeedsTheLookupsOwnPath() public {
        TreeModel.Leaf[] memory leaves = new TreeModel.Leaf[](2);
        leaves[0] = TreeModel.Leaf(bytes32(0), "zero");
        leaves[1] = TreeModel.Leaf(bytes32(uint256(1) << 255), "one");
        (bytes32[] memory siblings, bytes memory bits,) = leaves.lookup(leaves[1].key);
        bytes32 root = leaves.rootOf();
        vm.expectRevert(abi.encodeWithSelector(TreeProof.WitnessOffPath.selector, bytes32(0), 0));
        harness.absent(root, 0, leaves[1].key, "one", siblings, bits);
    }
}

contract ChunkCommitmentTest {
    Harness private harness = new Harness();

    function dataOf(uint256 length) private pure returns (bytes memory data) {
        data = new bytes(length);
        for (uint256 i = 0; i < length; i += 97) {
            data[i] = bytes1(uint8(i / 97 + 1));
        }
    }

    /// @dev The definition, from the top down: the left part is the largest power of two below the number of chunks.
    function modelTop(bytes memory data, uint256 from, uint256 chunks) private pure returns (bytes32) {
        if (chunks == 1) return keccak256(bytes.concat(hex"00", slice(data, from * 1024, 1024)));
        uint256 left = 1;
        while (left * 2 < chunks) left *= 2;
        bytes32 a = modelTop(data, from, left);
        return keccak256(bytes.concat(hex"01", a, modelTop(data, from + left, chunks - left)));
    }

    function modelSiblings(bytes memory data, uint256 from, uint256 chunks, uint256 index)
        private
        pure
        returns (bytes32[] memory)
    {
        if (chunks == 1) return new bytes32[](0);
        uint256 left = 1;
        while (left * 2 < chunks) left *= 2;
        return index < left
            ? append(modelSiblings(data, from, left, index), modelTop(data, from + left, chunks - left))
            : append(
                modelSiblings(data, from + left, chunks - left, index - left), modelTop(data, from, left)
            );
    }

    function append(bytes32[] memory list, bytes32 last) private pure returns (bytes32[] memory longer) {
        longer = new bytes32[](list.length + 1);
        for (uint256 i = 0; i < list.length; i++) {
            longer[i] = list[i];
        }
        longer[list.length] = last;
    }

    function slice(bytes memory data, uint256 start, uint256 most) private pure returns (bytes memory part) {
        part = new bytes(data.length - start < most ? data.length - start : most);
        for (uint256 i = 0; i < part.length; i++) {
            part[i] = data[start + i];
        }
    }

    function testFuzz_everyChunkIsProved(uint256 size, uint256 place) public view {
        bytes memory data = dataOf(bound(size, 1, 12_000));
        uint256 chunks = (data.length + 1023) / 1024;
        bytes32 top = modelTop(data, 0, chunks);
        bytes32 commitment = keccak256(bytes.concat(hex"02", bytes8(uint64(data.length)), top));
        vm.assertEq(harness.ofData(data), commitment);
        uint256 index = place % chunks;
        bytes memory chunk = slice(data, index * 1024, 1024);
        bytes32[] memory siblings = modelSiblings(data, 0, chunks, index);
        harness.chunk(commitment, data.length, index, chunk, siblings);

        chunk[place % chunk.length] ^= 0x01;
        bool accepted = true;
        try harness.chunk(commitment, data.length, index, chunk, siblings) {}
        catch {
            accepted = false;
        }
        vm.assertFalse(accepted);
    }

    function test_noData() public {
        vm.expectRevert(abi.encodeWithSelector(ChunkCommitment.NoData.selector));
        harness.ofData("");
    }

    function test_chunkMustFit() public {
        bytes32[] memory none = new bytes32[](0);
        vm.expectRevert(abi.encodeWithSelector(ChunkCommitment.ChunkOutOfRange.selector, 1, 1));
        harness.chunk("c", 1024, 1, "", none);
        vm.expectRevert(abi.encodeWithSelector(ChunkCommitment.ChunkOutOfRange.selector, 0, 0));
        harness.chunk("c", 0, 0, "", none);
        vm.expectRevert(abi.encodeWithSelector(ChunkCommitment.ChunkLength.selector, 1024, 3));
        harness.chunk("c", 1025, 0, "abc", none);
        vm.expectRevert(abi.encodeWithSelector(ChunkCommitment.ChunkLength.selector, 1, 3));
        harness.chunk("c", 1025, 1, "abc", none);
    }

    function test_proofMustHaveTheTreesShape() public {
        bytes memory data = dataOf(2049);
        bytes32 commitment = harness.ofData(data);
        bytes memory last = slice(data, 2048, 1024);
        vm.expectRevert(abi.encodeWithSelector(ChunkCommitment.ProofLength.selector, 1, 0));
        harness.chunk(commitment, 2049, 2, last, new bytes32[](0));
        vm.expectRevert(abi.encodeWithSelector(ChunkCommitment.ProofLength.selector, 1, 2));
        harness.chunk(commitment, 2049, 2, last, new bytes32[](2));
    }

    function test_commitmentMismatch() public {
        bytes memory data = dataOf(10);
        bytes32 commitment = harness.ofData(data);
        vm.expectRevert(
            abi.encodeWithSelector(ChunkCommitment.CommitmentMismatch.selector, bytes32("c"), commitment)
        );
        harness.chunk("c", 10, 0, data, new bytes32[](0));
    }

    function test_blobsBindLengthAndHashes() public view {
        bytes32[] memory hashes = new bytes32[](2);
        hashes[0] = "a";
        hashes[1] = "b";
        bytes32 expected =
            keccak256(bytes.concat(hex"03", bytes8(uint64(130_000)), bytes32("a"), bytes32("b")));
        vm.assertEq(harness.ofBlobs(hashes, 130_000), expected);
    }
}

contract LeavesTest {
    Harness private harness = new Harness();

    function test_systemOffsets() public view {
        bytes memory leaf = new bytes(189);
        for (uint256 i = 0; i < 189; i++) {
            leaf[i] = bytes1(uint8(i));
        }
        Leaves.System memory system = harness.system(leaf);
        vm.assertEq(system.timestampMs, 0x08090a0b0c0d0e0f);
        vm.assertEq(system.batchNumber, 0x3031323334353637);
        vm.assertEq(system.batchCursor, 0x38393a3b3c3d3e3f);
        vm.assertEq(system.inboxNext, 0x4041424344454647);
        vm.assertEq(
            uint256(system.inboxHash), 0x48494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f6061626364656667
        );
        vm.assertEq(system.l1Block, 0x68696a6b6c6d6e6f);
        vm.assertEq(harness.system(bytes.concat(leaf, "later")).l1Block, 0x68696a6b6c6d6e6f);
    }

    function test_accountOffsets() public view {
        bytes memory leaf = bytes.concat(
            bytes20(address(0xabcd)),
            bytes8(uint64(type(uint64).max)),
            new bytes(44),
            bytes4(uint32(7)),
            new bytes(12)
        );
        Leaves.Account memory account = harness.account(leaf);
        vm.assertEq(account.owner, address(0xabcd));
        vm.assertTrue(account.cash == -1);
        vm.assertEq(account.positions, 7);
    }

    function test_lengths() public {
        vm.expectRevert(abi.encodeWithSelector(Leaves.LeafLength.selector, 189, 188));
        harness.system(new bytes(188));
        vm.expectRevert(abi.encodeWithSelector(Leaves.LeafLength.selector, 44, 45));
        harness.withdrawal(new bytes(45));
        vm.expectRevert(abi.encodeWithSelector(Leaves.LeafLength.selector, 88, 0));
        harness.account("");
    }
}
