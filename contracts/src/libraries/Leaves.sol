// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

/// @title Keys and leaves of the state that L1 reads
/// @notice Offsets and lengths are those of PROTOCOL section 3. New fields of the System leaf go at its end, so a
/// longer one is read too; the others have exactly one length.
library Leaves {
    /// @notice The key of the System leaf: kind 0x00, nothing else.
    bytes32 internal constant SYSTEM_KEY = 0;
    uint256 internal constant SYSTEM_BYTES = 189;
    uint256 internal constant WITHDRAWAL_BYTES = 44;
    uint256 internal constant ACCOUNT_BYTES = 88;

    /// @notice The leaf does not have the bytes that its kind has.
    error LeafLength(uint256 expected, uint256 got);

    /// @notice The registers of the machine that a posted batch is checked by.
    struct System {
        uint64 timestampMs;
        uint64 batchNumber;
        uint64 batchCursor;
        uint64 inboxNext;
        bytes32 inboxHash;
        uint64 l1Block;
    }

    /// @notice Collateral owed on L1.
    struct Withdrawal {
        address recipient;
        uint64 amount;
        uint64 account;
        uint64 blockNumber;
    }

    /// @notice What matters of an account once the operator is gone.
    struct Account {
        address owner;
        int64 cash;
        uint32 positions;
    }

    /// @notice The key of withdrawal `number`: kind 0x0f, number u64.
    function withdrawalKey(uint64 number) internal pure returns (bytes32) {
        return bytes32(abi.encodePacked(uint8(0x0f), number));
    }

    /// @notice The key of account `number`: kind 0x08, number u64.
    function accountKey(uint64 number) internal pure returns (bytes32) {
        return bytes32(abi.encodePacked(uint8(0x08), number));
    }

    function decodeSystem(bytes calldata leaf) internal pure returns (System memory system) {
        require(leaf.length >= SYSTEM_BYTES, LeafLength(SYSTEM_BYTES, leaf.length));
        system.timestampMs = _u64(leaf, 8);
        system.batchNumber = _u64(leaf, 48);
        system.batchCursor = _u64(leaf, 56);
        system.inboxNext = _u64(leaf, 64);
        system.inboxHash = bytes32(leaf[72:104]);
        system.l1Block = _u64(leaf, 104);
    }

    function decodeWithdrawal(bytes calldata leaf) internal pure returns (Withdrawal memory withdrawal) {
        require(leaf.length == WITHDRAWAL_BYTES, LeafLength(WITHDRAWAL_BYTES, leaf.length));
        withdrawal.recipient = address(bytes20(leaf[0:20]));
        withdrawal.amount = _u64(leaf, 20);
        withdrawal.account = _u64(leaf, 28);
        withdrawal.blockNumber = _u64(leaf, 36);
    }

    function decodeAccount(bytes calldata leaf) internal pure returns (Account memory account) {
        require(leaf.length == ACCOUNT_BYTES, LeafLength(ACCOUNT_BYTES, leaf.length));
        account.owner = address(bytes20(leaf[0:20]));
        // forge-lint: disable-next-line(unsafe-typecast) the leaf's field is this two's complement
        account.cash = int64(_u64(leaf, 20));
        account.positions = uint32(bytes4(leaf[72:76]));
    }

    function _u64(bytes calldata leaf, uint256 offset) private pure returns (uint64) {
        return uint64(bytes8(leaf[offset:offset + 8]));
    }
}
