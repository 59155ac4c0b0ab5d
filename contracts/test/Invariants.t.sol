// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {Inbox} from "../src/Inbox.sol";
import {Rollup} from "../src/Rollup.sol";
import {Vault} from "../src/Vault.sol";
import {Fixture, TreeModel, bound, vm} from "./Support.sol";

/// @notice Does what users, an honest poster and a guardian do, in any order, and keeps its own books.
contract Actor is Fixture {
    using TreeModel for TreeModel.Leaf[];

    uint64 private constant MOST_WITHDRAWALS = 8;

    uint256 public deposited;
    uint256 public claimed;
    uint256 public paidTwice;
    uint256 public gracelessUnread;
    bytes32 public queueHash;
    uint64 public queued;
    bytes32[] public roots;
    uint64[] public withdrawn;
    /// @dev How many withdrawals each batch's state holds; withdrawals that a revert undoes are begun again.
    uint64[] private withdrawalsAfter;
    uint64[] private postedAt;
    uint64[] private queuedAt;
    bytes32[] public finalRoots;

    function setUp() public override {
        super.setUp();
        roots.push(keccak256("genesis"));
        withdrawalsAfter.push(0);
        postedAt.push(START);
        finalRoots.push(keccak256("genesis"));
    }

    function contracts() external view returns (Rollup, Vault, Inbox) {
        return (rollup, vault, inbox);
    }

    function wait_(uint256 duration) external {
        vm.warp(block.timestamp + bound(duration, 1, WINDOW));
        vm.roll(block.number + bound(duration, 1, 7000));
        noteFinal();
    }

    function deposit_(uint256 amount) external {
        uint64 some = uint64(bound(amount, MINIMUM, 1e9));
        deposit(some);
        deposited += some;
        noteMessage(1, address(vault), bytes.concat(bytes20(user), bytes8(0), bytes8(some)));
    }

    function forced(uint64 account, uint64 amount) external {
        amount = amount | 1;
        vm.prank(stranger);
        inbox.forceWithdrawal(account, stranger, amount);
        noteMessage(2, stranger, bytes.concat(bytes8(account), bytes20(stranger), bytes8(amount)));
    }

    /// @dev Begins a withdrawal if there is money for it, and reads as few messages as the anchor allows.
    function post_(uint256 amount, uint256 anchor, bytes calldata data) external {
        uint64 count = withdrawalsAfter[rollup.lastBatch()];
        uint256 free = deposited;
        for (uint64 i = 0; i < count; i++) {
            free -= withdrawn[i];
        }
        if (count < MOST_WITHDRAWALS && free > 0) {
            uint64 some = uint64(bound(amount, 1, free));
            if (count < withdrawn.length) withdrawn[count] = some;
            else withdrawn.push(some);
            count++;
        }
        Made memory made = next(bytes.concat("head", data));
        made.leaves = withdrawals(count);
        made.anchor = uint64(bound(anchor, 0, made.number - 1));
        if (made.anchor + 1 < made.number && postedAt[made.anchor] + FORCED_DELAY <= block.timestamp) {
            made.anchor = made.number - 1;
        }
        uint64 least = rollup.batchAt(made.anchor).inboxCount;
        uint64 before = rollup.batchAt(made.number - 1).inboxNext;
        made.inboxNext = least > before ? least : before;
        made.inboxHash = inbox.hashAt(made.inboxNext);
        post(made);
        noteUnread(made);
        roots.push(stateOf(made).rootOf());
        withdrawalsAfter.push(count);
        postedAt.push(uint64(block.timestamp));
        queueHash = inbox.hashAt(queued + 1);
        queuedAt.push(uint64(block.timestamp));
        queued++;
    }

    function claim_(uint256 which, uint256 inBatch) external {
        uint64 batch = uint64(bound(inBatch, 0, rollup.lastBatch()));
        uint64 count = withdrawalsAfter[batch];
        if (count == 0) return;
        uint64 number = uint64(bound(which, 1, count));
        bool before = vault.isClaimed(number);
        TreeModel.Leaf[] memory state = withdrawals(count);
        (bytes32[] memory siblings, bytes memory bits, TreeModel.Leaf memory leaf) =
            pathUnder(batch, state, number);
        try vault.claim(batch, number, leaf.value, siblings, bits) {
            if (before) paidTwice++;
            claimed += uint64(bytes8(bytes28(bytes32(leaf.value)) << 160));
        } catch {}
    }

    function revert_(uint256 from) external {
        uint64 last = rollup.lastBatch();
        if (last == 0) return;
        uint64 first = uint64(bound(from, 1, last));
        vm.prank(guardian);
        try rollup.revertBatches(first) {
            while (roots.length > first) {
                roots.pop();
                withdrawalsAfter.pop();
                postedAt.pop();
            }
        } catch {}
    }

    function batches() external view returns (uint64) {
        return uint64(roots.length - 1);
    }

    function finals() external view returns (uint64) {
        return uint64(finalRoots.length - 1);
    }

    /// @dev States differ from batch to batch in their System leaves, which the claim's proof must carry.
    mapping(bytes32 root => bytes) private systemOf;

    function pathUnder(uint64 batch, TreeModel.Leaf[] memory state, uint64 number)
        private
        view
        returns (bytes32[] memory, bytes memory, TreeModel.Leaf memory)
    {
        TreeModel.Leaf[] memory all = new TreeModel.Leaf[](state.length + 1);
        all[0] = TreeModel.Leaf(0, systemOf[roots[batch]]);
        for (uint256 i = 0; i < state.length; i++) {
            all[i + 1] = state[i];
        }
        return all.lookup(state[number - 1].key);
    }

    function withdrawals(uint64 count) private view returns (TreeModel.Leaf[] memory leaves) {
        leaves = new TreeModel.Leaf[](count);
        for (uint64 i = 0; i < count; i++) {
            leaves[i] = withdrawalLeaf(i + 1, user, withdrawn[i]);
        }
    }

    function noteMessage(uint8 kind, address sender, bytes memory payload) private {
        bytes8 l1Block = bytes8(uint64(block.number));
        queueHash = keccak256(bytes.concat(queueHash, bytes1(kind), bytes20(sender), l1Block, payload));
        queued++;
        queuedAt.push(uint64(block.timestamp));
    }

    function noteUnread(Made memory made) private {
        systemOf[stateOf(made).rootOf()] = systemLeaf(made);
        if (made.inboxNext >= queued) return;
        uint64 since = queuedAt[made.inboxNext];
        bool first = postedAt[made.number - 1] <= since;
        if (since + FORCED_DELAY <= block.timestamp && !first) gracelessUnread++;
    }

    function noteFinal() private {
        uint64 last = rollup.finalizedBatch();
        while (finalRoots.length <= last) finalRoots.push(rollup.rootOf(uint64(finalRoots.length)));
    }
}

contract InvariantTest {
    Actor private actor;
    Rollup private rollup;
    Vault private vault;
    Inbox private inbox;

    function setUp() public {
        actor = new Actor();
        actor.setUp();
        (rollup, vault, inbox) = actor.contracts();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(actor);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory selectors = new bytes4[](6);
        selectors[0] = Actor.wait_.selector;
        selectors[1] = Actor.deposit_.selector;
        selectors[2] = Actor.forced.selector;
        selectors[3] = Actor.post_.selector;
        selectors[4] = Actor.claim_.selector;
        selectors[5] = Actor.revert_.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(actor), selectors);
    }

    /// @notice The vault holds what came in less what was claimed, and nothing was claimed twice.
    function invariant_money() public view {
        vm.assertEq(vault.token().balanceOf(address(vault)) + actor.claimed(), actor.deposited());
        vm.assertEq(actor.paidTwice(), 0);
    }

    /// @notice The queue's hash is that of the messages in order.
    function invariant_inbox() public view {
        vm.assertEq(inbox.count(), actor.queued());
        vm.assertEq(inbox.hashAt(inbox.count()), actor.queueHash());
    }

    /// @notice Batches are contiguous, and their roots are those that were posted and not reverted.
    function invariant_batches() public view {
        uint64 last = rollup.lastBatch();
        vm.assertEq(last, actor.batches());
        for (uint64 i = 0; i <= last; i++) {
            vm.assertEq(rollup.rootOf(i), actor.roots(i));
        }
    }

    /// @notice What was final once stays.
    function invariant_finality() public view {
        uint64 finals = actor.finals();
        vm.assertTrue(rollup.finalizedBatch() >= finals);
        for (uint64 i = 0; i <= finals; i++) {
            vm.assertEq(rollup.finalizedRoot(i), actor.finalRoots(i));
        }
    }

    /// @notice No batch but the first one after a message leaves it unread beyond its deadline.
    function invariant_deadlines() public view {
        vm.assertEq(actor.gracelessUnread(), 0);
    }
}
