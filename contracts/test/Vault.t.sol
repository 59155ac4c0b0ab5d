// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Inbox} from "../src/Inbox.sol";
import {Rollup} from "../src/Rollup.sol";
import {TestToken} from "../src/TestToken.sol";
import {Vault} from "../src/Vault.sol";
import {Leaves} from "../src/libraries/Leaves.sol";
import {Roles} from "../src/libraries/Roles.sol";
import {TreeProof} from "../src/libraries/TreeProof.sol";
import {Fixture, TreeModel, bound, vm} from "./Support.sol";

contract WrongDecimalsToken is ERC20 {
    constructor() ERC20("Wei Dollar", "wUSD") {}
}

/// @notice Charges a fee on transfers, or calls a deposit back in the middle of one.
contract BadToken is TestToken {
    uint256 public fee;
    Vault public reenter;

    function setFee(uint256 fee_) external {
        fee = fee_;
    }

    function setReenter(Vault vault) external {
        reenter = vault;
    }

    function _update(address from, address to, uint256 value) internal override {
        if (fee > 0 && from != address(0)) super._update(from, address(0xfee), fee);
        if (address(reenter) != address(0)) reenter.deposit(0, address(this), 1e6);
        super._update(from, to, from == address(0) ? value : value - fee);
    }
}

contract VaultTest is Fixture {
    using TreeModel for TreeModel.Leaf[];

    function test_depositTakesTheMoney() public {
        uint64 index = deposit(5e6);
        vm.assertEq(index, 0);
        vm.assertEq(token.balanceOf(address(vault)), 5e6);
        vm.assertEq(token.balanceOf(user), 1e12 - 5e6);
    }

    function permitOf(uint256 amount, uint256 deadline) private view returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 permit =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 message =
            keccak256(abi.encode(permit, user, address(vault), amount, token.nonces(user), deadline));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), message));
        return vm.sign(USER_KEY, digest);
    }

    function test_depositWithPermit() public {
        vm.prank(user);
        token.approve(address(vault), 0);
        (uint8 v, bytes32 r, bytes32 s) = permitOf(5e6, START);
        vm.prank(user);
        vault.depositWithPermit(0, user, 5e6, START, v, r, s);
        vm.assertEq(token.balanceOf(address(vault)), 5e6);
    }

    function test_depositWithAPermitSomebodyElseSent() public {
        vm.prank(user);
        token.approve(address(vault), 0);
        (uint8 v, bytes32 r, bytes32 s) = permitOf(5e6, START);
        token.permit(user, address(vault), 5e6, START, v, r, s);
        vm.prank(user);
        vault.depositWithPermit(0, user, 5e6, START, v, r, s);
        vm.assertEq(token.balanceOf(address(vault)), 5e6);
    }

    function test_depositWithABadPermit() public {
        vm.prank(user);
        token.approve(address(vault), 0);
        (uint8 v, bytes32 r, bytes32 s) = permitOf(4e6, START);
        vm.prank(user);
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(vault), 0, 5e6)
        );
        vault.depositWithPermit(0, user, 5e6, START, v, r, s);
    }

    function test_depositBounds() public {
        vm.prank(user);
        vm.expectRevert(abi.encodeWithSelector(Vault.AmountOutOfBounds.selector, MINIMUM, 1e17, MINIMUM - 1));
        vault.deposit(0, user, MINIMUM - 1);
        vm.prank(user);
        vm.expectRevert(abi.encodeWithSelector(Vault.AmountOutOfBounds.selector, MINIMUM, 1e17, 1e17 + 1));
        vault.deposit(0, user, 1e17 + 1);
        vm.prank(user);
        vm.expectRevert(abi.encodeWithSelector(Vault.ZeroOwner.selector));
        vault.deposit(0, address(0), 5e6);
    }

    function test_depositCap() public {
        token.mint(user, CAP);
        deposit(uint64(CAP) - 1e6);
        vm.prank(user);
        vm.expectRevert(abi.encodeWithSelector(Vault.CapExceeded.selector, CAP, CAP + 1));
        vault.deposit(0, user, 1e6 + 1);
        deposit(1e6);
    }

    function test_depositLimitsAreTheGovernors() public {
        vm.prank(guardian);
        vm.expectRevert(unauthorized(guardian, Roles.GOVERNOR));
        vault.setDepositLimits(1, 2);
        vm.prank(governor);
        vm.expectEmit();
        emit Vault.DepositLimitsSet(1, 2);
        vault.setDepositLimits(1, 2);
        vm.assertEq(vault.minimumDeposit(), 1);
        vm.assertEq(vault.depositCap(), 2);
    }

    function test_depositLimitsMakeSense() public {
        uint64[2][3] memory bad = [[uint64(0), 5], [uint64(1e17 + 1), 5], [uint64(1), 4e18 + 1]];
        for (uint256 i = 0; i < bad.length; i++) {
            vm.prank(governor);
            vm.expectRevert(abi.encodeWithSelector(Vault.BadLimits.selector, bad[i][0], bad[i][1]));
            vault.setDepositLimits(bad[i][0], bad[i][1]);
        }
    }

    function test_pausing() public {
        vm.prank(stranger);
        vm.expectRevert(unauthorized(stranger, Roles.GUARDIAN));
        vault.pauseDeposits();
        vm.prank(guardian);
        vm.expectEmit();
        emit Vault.DepositsPausedSet(true, guardian);
        vault.pauseDeposits();
        vm.prank(user);
        vm.expectRevert(abi.encodeWithSelector(Vault.DepositsPaused.selector));
        vault.deposit(0, user, 5e6);
        vm.prank(guardian);
        vm.expectRevert(unauthorized(guardian, Roles.GOVERNOR));
        vault.unpauseDeposits();
        vm.prank(governor);
        vault.unpauseDeposits();
        deposit(5e6);
    }

    function test_tokenMustHaveSixDecimals() public {
        Rollup.Config memory other = config();
        other.token = address(new WrongDecimalsToken());
        vm.expectRevert(abi.encodeWithSelector(Vault.WrongDecimals.selector, 6, 18));
        new Rollup(other);
    }

    function badToken() private returns (BadToken bad, Vault its) {
        bad = new BadToken();
        Rollup.Config memory other = config();
        other.token = address(bad);
        its = new Rollup(other).vault();
        bad.mint(user, 1e12);
        vm.prank(user);
        bad.approve(address(its), type(uint256).max);
    }

    function test_feeOnTransferIsRefused() public {
        (BadToken bad, Vault its) = badToken();
        bad.setFee(3);
        vm.prank(user);
        vm.expectRevert(abi.encodeWithSelector(Vault.TransferAmount.selector, 5e6, 5e6 - 3));
        its.deposit(0, user, 5e6);
    }

    function test_reentrancyIsRefused() public {
        (BadToken bad, Vault its) = badToken();
        bad.setReenter(its);
        vm.prank(user);
        vm.expectRevert(
            abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
        );
        its.deposit(0, user, 5e6);
    }
}

contract ClaimTest is Fixture {
    using TreeModel for TreeModel.Leaf[];

    bytes private saved;

    function setUp() public override {
        super.setUp();
        deposit(100e6);
        Made memory batch = next("data");
        batch.leaves = new TreeModel.Leaf[](3);
        batch.leaves[0] = withdrawalLeaf(1, stranger, 30e6);
        batch.leaves[1] = withdrawalLeaf(2, user, 50e6);
        batch.leaves[2] = withdrawalLeaf(256, user, 1e6);
        post(batch);
        vm.warp(START + WINDOW);
        saved = abi.encode(batch);
    }

    function made() private view returns (Made memory) {
        return abi.decode(saved, (Made));
    }

    function claim(uint64 number) private {
        (bytes32[] memory siblings, bytes memory bits, TreeModel.Leaf memory found) =
            stateOf(made()).lookup(bytes32(bytes.concat(hex"0f", bytes8(number))));
        vault.claim(1, number, found.value, siblings, bits);
    }

    function test_paysTheRecipient() public {
        vm.prank(address(0xbeef));
        vm.expectEmit();
        emit Vault.WithdrawalClaimed(1, stranger, 30e6, 5, 1);
        claim(1);
        vm.assertEq(token.balanceOf(stranger), 30e6);
        vm.assertEq(token.balanceOf(address(vault)), 70e6);
        vm.assertTrue(vault.isClaimed(1));
        vm.assertFalse(vault.isClaimed(2));
    }

    function test_paysOnce() public {
        claim(2);
        vm.expectRevert(abi.encodeWithSelector(Vault.AlreadyClaimed.selector, 2));
        vault.claim(1, 2, "", new bytes32[](0), "");
        claim(256);
        claim(1);
    }

    function test_paysUnderALaterRootOnlyOnce() public {
        claim(1);
        Made memory later = next("data");
        later.leaves = made().leaves;
        post(later);
        vm.warp(block.timestamp + WINDOW);
        (bytes32[] memory siblings, bytes memory bits, TreeModel.Leaf memory found) =
            stateOf(later).lookup(made().leaves[0].key);
        vm.expectRevert(abi.encodeWithSelector(Vault.AlreadyClaimed.selector, 1));
        vault.claim(2, 1, found.value, siblings, bits);
    }

    function test_paysWhenDepositsArePaused() public {
        vm.prank(guardian);
        vault.pauseDeposits();
        claim(1);
        vm.assertEq(token.balanceOf(stranger), 30e6);
    }

    function test_paysAfterEscape() public {
        vm.warp(block.timestamp + ESCAPE_DELAY);
        rollup.activateEscape();
        claim(1);
        vm.assertEq(token.balanceOf(stranger), 30e6);
    }

    function test_notBeforeTheBatchIsFinal() public {
        (bytes32[] memory siblings, bytes memory bits, TreeModel.Leaf memory found) =
            stateOf(made()).lookup(made().leaves[0].key);
        vm.warp(START + WINDOW - 1);
        vm.expectRevert(abi.encodeWithSelector(Rollup.BatchNotFinal.selector, 1));
        vault.claim(1, 1, found.value, siblings, bits);
    }

    function test_notAnotherAmount() public {
        (bytes32[] memory siblings, bytes memory bits,) = stateOf(made()).lookup(made().leaves[0].key);
        TreeModel.Leaf memory more = withdrawalLeaf(1, stranger, 31e6);
        TreeModel.Leaf[] memory leaves = stateOf(made());
        leaves[1] = more;
        bytes32 root = rollup.rootOf(1);
        vm.expectRevert(abi.encodeWithSelector(TreeProof.RootMismatch.selector, root, leaves.rootOf()));
        vault.claim(1, 1, more.value, siblings, bits);
    }

    function test_notAnotherLeaf() public {
        vm.expectRevert(abi.encodeWithSelector(Leaves.LeafLength.selector, 44, 189));
        vault.claim(1, 1, new bytes(189), new bytes32[](0), "");
    }

    function testFuzz_neverUnderAnotherNumber(uint64 number) public {
        vm.assume(number != 1 && number != 2 && number != 256);
        (bytes32[] memory siblings, bytes memory bits, TreeModel.Leaf memory found) =
            stateOf(made()).lookup(bytes32(bytes.concat(hex"0f", bytes8(number))));
        if (found.value.length != 44) found.value = new bytes(44);
        bool paid = true;
        try vault.claim(1, number, found.value, siblings, bits) {}
        catch {
            paid = false;
        }
        vm.assertFalse(paid);
    }
}

contract EscapeTest is Fixture {
    using TreeModel for TreeModel.Leaf[];

    bytes private saved;

    function accountLeaf(uint64 number, int64 cash, uint32 positions)
        private
        view
        returns (TreeModel.Leaf memory)
    {
        return TreeModel.Leaf(
            bytes32(bytes.concat(hex"08", bytes8(number))),
            bytes.concat(bytes20(user), bytes8(uint64(cash)), new bytes(44), bytes4(positions), new bytes(12))
        );
    }

    function setUp() public override {
        super.setUp();
        deposit(100e6);
        Made memory batch = next("data");
        batch.leaves = new TreeModel.Leaf[](3);
        batch.leaves[0] = accountLeaf(1, 40e6, 0);
        batch.leaves[1] = accountLeaf(2, 60e6, 1);
        batch.leaves[2] = accountLeaf(3, -1, 0);
        post(batch);
        saved = abi.encode(batch);
        deposit(7e6);
    }

    function made() private view returns (Made memory) {
        return abi.decode(saved, (Made));
    }

    function escape() private {
        vm.warp(START + ESCAPE_DELAY);
        rollup.activateEscape();
    }

    function test_cashIsPaidOnce() public {
        escape();
        (bytes32[] memory siblings, bytes memory bits, TreeModel.Leaf memory found) =
            stateOf(made()).lookup(made().leaves[0].key);
        uint256 before = token.balanceOf(user);
        vm.expectEmit();
        emit Vault.AccountEscaped(1, user, 40e6);
        vault.escapeAccount(1, found.value, siblings, bits);
        vm.assertEq(token.balanceOf(user), before + 40e6);
        vm.assertTrue(vault.isEscaped(1));
        vm.expectRevert(abi.encodeWithSelector(Vault.AlreadyEscaped.selector, 1));
        vault.escapeAccount(1, found.value, siblings, bits);
    }

    function test_onlyAfterEscape() public {
        (bytes32[] memory siblings, bytes memory bits, TreeModel.Leaf memory found) =
            stateOf(made()).lookup(made().leaves[0].key);
        vm.expectRevert(abi.encodeWithSelector(Rollup.NotEscaped.selector));
        vault.escapeAccount(1, found.value, siblings, bits);
        vm.expectRevert(abi.encodeWithSelector(Rollup.NotEscaped.selector));
        vault.refundDeposit(2, 1000, user, 0, 7e6);
    }

    function test_onlyCashWithoutPositions() public {
        escape();
        bytes32[] memory none = new bytes32[](0);
        vm.expectRevert(abi.encodeWithSelector(Vault.NotEscapable.selector, int64(60e6), 1));
        vault.escapeAccount(2, made().leaves[1].value, none, "");
        vm.expectRevert(abi.encodeWithSelector(Vault.NotEscapable.selector, int64(-1), 0));
        vault.escapeAccount(3, made().leaves[2].value, none, "");
    }

    function test_onlyWhatTheStateHolds() public {
        escape();
        (bytes32[] memory siblings, bytes memory bits,) = stateOf(made()).lookup(made().leaves[0].key);
        TreeModel.Leaf[] memory leaves = stateOf(made());
        leaves[1] = accountLeaf(1, 41e6, 0);
        bytes32 root = rollup.rootOf(1);
        vm.expectRevert(abi.encodeWithSelector(TreeProof.RootMismatch.selector, root, leaves.rootOf()));
        vault.escapeAccount(1, leaves[1].value, siblings, bits);
    }

    function test_unreadDepositsAreRefundedOnce() public {
        escape();
        uint256 before = token.balanceOf(user);
        vm.expectEmit();
        emit Vault.DepositRefunded(2, user, 7e6);
        vault.refundDeposit(2, 1000, user, 0, 7e6);
        vm.assertEq(token.balanceOf(user), before + 7e6);
        vm.assertTrue(vault.isRefunded(2));
        vm.expectRevert(abi.encodeWithSelector(Vault.AlreadyRefunded.selector, 2));
        vault.refundDeposit(2, 1000, user, 0, 7e6);
    }

    function test_readDepositsAreNotRefunded() public {
        escape();
        vm.expectRevert(abi.encodeWithSelector(Vault.DepositWasRead.selector, 1, 0));
        vault.refundDeposit(0, 1000, user, 0, 100e6);
    }

    function test_onlyQueuedDepositsAreRefunded() public {
        escape();
        bytes32 expected = inbox.hashAt(3);
        bytes32 computed = keccak256(
            abi.encodePacked(
                inbox.hashAt(2), uint8(1), address(vault), uint64(1000), user, uint64(0), uint64(8e6)
            )
        );
        vm.expectRevert(abi.encodeWithSelector(Vault.MessageMismatch.selector, expected, computed));
        vault.refundDeposit(2, 1000, user, 0, 8e6);
        vm.expectRevert(abi.encodeWithSelector(Inbox.BeyondQueue.selector, 3, 4));
        vault.refundDeposit(3, 1000, user, 0, 8e6);
    }
}
