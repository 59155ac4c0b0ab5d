// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

/// @title What the vault and the inbox ask the rollup
interface IRollup {
    /// @notice Reverts with AccessControlUnauthorizedAccount unless `account` has the role.
    function checkRole(bytes32 role, address account) external view;
    /// @notice The root of a final batch; reverts with BatchNotFinal otherwise.
    function finalizedRoot(uint64 number) external view returns (bytes32);
    /// @notice The last root and the index of the first unread message; reverts with NotEscaped before escape.
    function escapeState() external view returns (bytes32 root, uint64 inboxNext);
}
