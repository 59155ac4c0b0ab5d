// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

/// @title Proofs about the state tree
/// @notice The state is a binary Merkle radix tree over 32-byte keys (PROTOCOL section 1):
/// leaf hash `keccak(0x00 | key | value)`, branch hash `keccak(0x01 | bit | left | right)`, where `bit` is the
/// first bit at which the keys below differ and keys with 0 there are on the left. An empty tree has root 0.
/// @dev A path lists, from leaf to root, each branch's bit index and the hash of its other child. The side is the
/// key's own bit, so a proof cannot choose it. Bit indexes must strictly decrease on the way up: a proof then has
/// one form, and at most 256 steps. Soundness rests on roots being well formed, which the transition guarantees.
library TreeProof {
    /// @notice The path has as many siblings as bit indexes, or it is no path.
    error PathLengths(uint256 siblings, uint256 bits);
    /// @notice Bit indexes must strictly decrease from leaf to root; this one does not.
    error BitsNotDecreasing(uint256 step, uint8 bit);
    /// @notice The path does not end in the root.
    error RootMismatch(bytes32 expected, bytes32 computed);
    /// @notice The witness of absence holds the very key that should be absent.
    error KeyPresent(bytes32 key);
    /// @notice A lookup of the absent key would leave the witness's path at this branch.
    error WitnessOffPath(bytes32 key, uint8 bit);

    /// @notice Reverts unless `key` has `value` in the tree with this root.
    function requireMember(
        bytes32 root,
        bytes32 key,
        bytes memory value,
        bytes32[] calldata siblings,
        bytes calldata bits
    ) internal pure {
        bytes32 computed = climb(leafHash(key, value), key, siblings, bits);
        require(computed == root, RootMismatch(root, computed));
    }

    /// @notice Reverts unless `key` has no leaf in the tree with this root.
    /// @dev The witness is the leaf at which a lookup of `key` ends: `key` agrees with it at every branch of its
    /// path, so were `key` in the tree it would be that very leaf. In the empty tree every key is absent.
    function requireAbsent(
        bytes32 root,
        bytes32 key,
        bytes32 witnessKey,
        bytes memory witnessValue,
        bytes32[] calldata siblings,
        bytes calldata bits
    ) internal pure {
        if (root == 0) return;
        require(key != witnessKey, KeyPresent(key));
        for (uint256 i = 0; i < bits.length; i++) {
            uint8 bit = uint8(bits[i]);
            require(_bitOf(key, bit) == _bitOf(witnessKey, bit), WitnessOffPath(key, bit));
        }
        requireMember(root, witnessKey, witnessValue, siblings, bits);
    }

    /// @notice The hash of the leaf (key, value).
    function leafHash(bytes32 key, bytes memory value) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(0), key, value));
    }

    /// @notice The root at which the path from `node`, on the way of `key`, ends.
    function climb(bytes32 node, bytes32 key, bytes32[] calldata siblings, bytes calldata bits)
        internal
        pure
        returns (bytes32)
    {
        uint256 steps = siblings.length;
        require(steps == bits.length, PathLengths(steps, bits.length));
        uint256 step = 0;
        uint256 below = 256;
        // A branch is 66 bytes at address 0: 0x01, bit, left, right. They reach into the free memory pointer, which is
        // put back. In Solidity a step costs three times as much, and a withdrawal has some thirty.
        // slither-disable-next-line assembly
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore8(0x00, 0x01)
            for {} lt(step, steps) { step := add(step, 1) } {
                let bit := byte(0, calldataload(add(bits.offset, step)))
                if iszero(lt(bit, below)) { break }
                below := bit
                mstore8(0x01, bit)
                // The node's place, 0 for left and 32 for right, is the key's own bit; its sibling takes the other.
                let place := shl(5, and(shr(sub(255, bit), key), 1))
                mstore(add(0x02, place), node)
                mstore(add(0x02, xor(place, 0x20)), calldataload(add(siblings.offset, shl(5, step))))
                node := keccak256(0x00, 0x42)
            }
            mstore(0x40, free)
        }
        if (step < steps) revert BitsNotDecreasing(step, uint8(bits[step]));
        return node;
    }

    /// @dev Bit 0 is the most significant bit of byte 0.
    function _bitOf(bytes32 key, uint8 bit) private pure returns (uint256) {
        return (uint256(key) >> (255 - bit)) & 1;
    }
}
