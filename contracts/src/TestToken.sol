// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title Worthless dollars for devnets and tests
/// @notice Anybody mints what they like.
contract TestToken is ERC20Permit {
    constructor() ERC20("Test Dollar", "tUSD") ERC20Permit("Test Dollar") {}

    /// @notice As the collateral that the vault expects.
    function decimals() public pure override returns (uint8) {
        return 6;
    }

    /// @notice Creates `amount` millionths for `account`.
    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }
}
