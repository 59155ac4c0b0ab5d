// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

/// @title Commitments to batch data
/// @notice Calldata: the data is cut into chunks of 1,024 bytes (the last one may be shorter), chunk hash
/// `keccak(0x00 | chunk)`, branch hash `keccak(0x01 | left | right)`; nodes are paired from the left, level by level,
/// and an odd last node goes up unchanged; the commitment is `keccak(0x02 | length u64 | top)`.
/// Blobs: the commitment is `keccak(0x03 | length u64 | versioned hashes, concatenated)`.
/// @dev The length is inside, so the tree's shape is fixed and any byte range can be proved later.
library ChunkCommitment {
    uint256 internal constant CHUNK_BYTES = 1024;

    /// @notice There is nothing to commit to.
    error NoData();
    /// @notice The chunk's number is not below the number of chunks.
    error ChunkOutOfRange(uint256 index, uint256 chunks);
    /// @notice The chunk does not have the length that its number and the data's length demand.
    error ChunkLength(uint256 expected, uint256 got);
    /// @notice The proof has another number of siblings than the tree's shape demands.
    error ProofLength(uint256 expected, uint256 got);
    /// @notice The proof does not lead to the commitment.
    error CommitmentMismatch(bytes32 expected, bytes32 computed);

    /// @notice The commitment to calldata.
    function ofData(bytes calldata data) internal pure returns (bytes32) {
        require(data.length > 0, NoData());
        uint256 nodes = chunkCount(data.length);
        bytes32[] memory level = new bytes32[](nodes);
        for (uint256 i = 0; i < nodes; i++) {
            uint256 start = i * CHUNK_BYTES;
            uint256 end = start + CHUNK_BYTES < data.length ? start + CHUNK_BYTES : data.length;
            level[i] = chunkHash(data[start:end]);
        }
        while (nodes > 1) {
            uint256 half = nodes / 2;
            for (uint256 i = 0; i < half; i++) {
                level[i] = branchHash(level[2 * i], level[2 * i + 1]);
            }
            if (nodes % 2 == 1) level[half] = level[nodes - 1];
            nodes = nodes - half;
        }
        return _seal(level[0], data.length);
    }

    /// @notice The commitment to data in blobs of these versioned hashes.
    function ofBlobs(bytes32[] memory versionedHashes, uint64 length) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(3), length, versionedHashes));
    }

    /// @notice Reverts unless chunk `index` of the committed data of `length` bytes is `chunk`.
    /// @param siblings From the chunk upwards; a level at which the node goes up alone has none.
    function requireChunk(
        bytes32 commitment,
        uint256 length,
        uint256 index,
        bytes calldata chunk,
        bytes32[] calldata siblings
    ) internal pure {
        uint256 nodes = chunkCount(length);
        require(index < nodes, ChunkOutOfRange(index, nodes));
        uint256 expected = index == nodes - 1 ? length - index * CHUNK_BYTES : CHUNK_BYTES;
        require(chunk.length == expected, ChunkLength(expected, chunk.length));
        bytes32 node = chunkHash(chunk);
        uint256 used = 0;
        for (uint256 place = index; nodes > 1; place /= 2) {
            bool alone = place == nodes - 1 && nodes % 2 == 1;
            if (!alone) {
                require(used < siblings.length, ProofLength(used + 1, siblings.length));
                node = place % 2 == 0 ? branchHash(node, siblings[used]) : branchHash(siblings[used], node);
                used++;
            }
            nodes = (nodes + 1) / 2;
        }
        require(used == siblings.length, ProofLength(used, siblings.length));
        bytes32 computed = _seal(node, length);
        require(computed == commitment, CommitmentMismatch(commitment, computed));
    }

    /// @notice How many chunks data of this length has.
    function chunkCount(uint256 length) internal pure returns (uint256) {
        return (length + CHUNK_BYTES - 1) / CHUNK_BYTES;
    }

    /// @notice The hash of one chunk.
    function chunkHash(bytes calldata chunk) internal pure returns (bytes32 hash) {
        // Hashed beyond the free memory pointer without moving it, so that hashing many chunks reuses one place.
        // slither-disable-next-line assembly
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(free, 0)
            calldatacopy(add(free, 1), chunk.offset, chunk.length)
            hash := keccak256(free, add(chunk.length, 1))
        }
    }

    /// @notice The hash of two nodes.
    function branchHash(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(1), left, right));
    }

    function _seal(bytes32 top, uint256 length) private pure returns (bytes32) {
        // forge-lint: disable-next-line(unsafe-typecast) a length in memory or calldata is far below 2^64
        return keccak256(abi.encodePacked(uint8(2), uint64(length), top));
    }
}
