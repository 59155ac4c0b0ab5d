// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

/// @title The roles that `Rollup` keeps for all three contracts
library Roles {
    /// @notice Grants and revokes all roles; lists instruments and sets parameters, publishers and deposit limits.
    bytes32 internal constant GOVERNOR = keccak256("GOVERNOR");
    /// @notice The sequencer: posts batches.
    bytes32 internal constant POSTER = keccak256("POSTER");
    /// @notice Until disputes exist: reverts batches that are not final; pauses deposits.
    bytes32 internal constant GUARDIAN = keccak256("GUARDIAN");
}
