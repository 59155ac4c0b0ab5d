// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

/// @title What the vault and the inbox ask the rollup
interface IRollup {
    /// @notice Reverts with AccessControlUnauthorizedAccount unless `account` has the role.
    function checkRole(bytes32 role, address account) external view;
    /// @notice The root of a final batch; reverts with BatchNotFinal otherwise.
    function finalizedRoot(uint64 number) external view returns (bytes32);
    /// @notice The last root, once posting has stopped; reverts with NotEscaped before.
    function escapedRoot() external view returns (bytes32);
    /// @notice The first message that was never read, once posting has stopped; reverts with NotEscaped before.
    function escapedInboxNext() external view returns (uint64);
}
