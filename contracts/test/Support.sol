// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";

import {Inbox} from "../src/Inbox.sol";
import {Rollup} from "../src/Rollup.sol";
import {TestToken} from "../src/TestToken.sol";
import {Vault} from "../src/Vault.sol";
import {Roles} from "../src/libraries/Roles.sol";

/// @notice The few cheatcodes that these tests use.
interface Vm {
    function addr(uint256 key) external pure returns (address);
    function assertEq(uint256 left, uint256 right) external pure;
    function assertEq(uint256 left, uint256 right, string calldata what) external pure;
    function assertEq(bytes32 left, bytes32 right) external pure;
    function assertEq(address left, address right) external pure;
    function assertLe(uint256 left, uint256 right, string calldata what) external pure;
    function assertTrue(bool holds) external pure;
    function assertFalse(bool holds) external pure;
    function assume(bool holds) external pure;
    function blobhashes(bytes32[] calldata hashes) external;
    function blobBaseFee(uint256 fee) external;
    function etch(address target, bytes calldata code) external;
    function expectEmit() external;
    function expectRevert(bytes calldata data) external;
    function fee(uint256 baseFee) external;
    function getRecordedLogs() external returns (Log[] memory);
    function lastCallGas() external view returns (Gas memory);
    function prank(address sender) external;
    function prank(address sender, address origin) external;
    function recordLogs() external;
    function roll(uint256 number) external;
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function warp(uint256 timestamp) external;

    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    struct Gas {
        uint64 gasLimit;
        uint64 gasTotalUsed;
        uint64 gasMemoryUsed;
        int64 gasRefunded;
        uint64 gasRemaining;
    }
}

Vm constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

/// @notice A value between two bounds.
function bound(uint256 value, uint256 least, uint256 most) pure returns (uint256) {
    return least + value % (most - least + 1);
}

/// @notice The tree as PROTOCOL section 1 words it: split the keys at the first bit in which they differ.
library TreeModel {
    struct Leaf {
        bytes32 key;
        bytes value;
    }

    function rootOf(Leaf[] memory leaves) internal pure returns (bytes32) {
        if (leaves.length == 0) return 0;
        if (leaves.length == 1) return keccak256(bytes.concat(hex"00", leaves[0].key, leaves[0].value));
        uint256 bit = firstDifference(leaves);
        bytes32 left = rootOf(side(leaves, bit, 0));
        bytes32 right = rootOf(side(leaves, bit, 1));
        return keccak256(bytes.concat(hex"01", bytes1(uint8(bit)), left, right));
    }

    /// @notice The path of the leaf at which a lookup of `key` ends, from the leaf up, and that leaf.
    function lookup(Leaf[] memory leaves, bytes32 key)
        internal
        pure
        returns (bytes32[] memory siblings, bytes memory bits, Leaf memory found)
    {
        bytes32[] memory down = new bytes32[](256);
        bytes memory downBits = new bytes(256);
        uint256 depth = 0;
        while (leaves.length > 1) {
            uint256 bit = firstDifference(leaves);
            uint256 turn = bitOf(key, bit);
            downBits[depth] = bytes1(uint8(bit));
            down[depth] = rootOf(side(leaves, bit, 1 - turn));
            leaves = side(leaves, bit, turn);
            depth++;
        }
        siblings = new bytes32[](depth);
        bits = new bytes(depth);
        for (uint256 i = 0; i < depth; i++) {
            siblings[i] = down[depth - 1 - i];
            bits[i] = downBits[depth - 1 - i];
        }
        found = leaves[0];
    }

    function has(Leaf[] memory leaves, bytes32 key) internal pure returns (bool) {
        for (uint256 i = 0; i < leaves.length; i++) {
            if (leaves[i].key == key) return true;
        }
        return false;
    }

    function firstDifference(Leaf[] memory leaves) internal pure returns (uint256) {
        for (uint256 bit = 0; bit < 256; bit++) {
            for (uint256 i = 1; i < leaves.length; i++) {
                if (bitOf(leaves[i].key, bit) != bitOf(leaves[0].key, bit)) return bit;
            }
        }
        revert("keys are equal");
    }

    function side(Leaf[] memory leaves, uint256 bit, uint256 value)
        internal
        pure
        returns (Leaf[] memory some)
    {
        uint256 count = 0;
        for (uint256 i = 0; i < leaves.length; i++) {
            if (bitOf(leaves[i].key, bit) == value) count++;
        }
        some = new Leaf[](count);
        for (uint256 i = leaves.length; i > 0; i--) {
            if (bitOf(leaves[i - 1].key, bit) == value) some[--count] = leaves[i - 1];
        }
    }

    function bitOf(bytes32 key, uint256 bit) internal pure returns (uint256) {
        return uint8(key[bit / 8]) >> (7 - bit % 8) & 1;
    }
}

/// @notice All contracts deployed, and batches made by hand: a System leaf, Withdrawal leaves, and others as needed.
abstract contract Fixture {
    using TreeModel for TreeModel.Leaf[];

    uint64 internal constant WINDOW = 1 days;
    uint64 internal constant FORCED_DELAY = 6 hours;
    uint64 internal constant ESCAPE_DELAY = 7 days;
    uint64 internal constant DRIFT = 60;
    uint64 internal constant MINIMUM = 1e6;
    uint64 internal constant CAP = 1e15;
    uint64 internal constant START = 1_800_000_000;
    uint256 internal constant USER_KEY = 0xabc123;

    address internal immutable governor = address(0x901);
    address internal immutable poster = address(0x902);
    address internal immutable guardian = address(0x903);
    address internal immutable stranger = address(0x904);
    address internal immutable user = vm.addr(USER_KEY);

    TestToken internal token;
    Rollup internal rollup;
    Vault internal vault;
    Inbox internal inbox;

    /// @notice The registers of a batch that is being made; `next()` fills in what an honest sequencer would.
    struct Made {
        uint64 number;
        uint64 anchor;
        bytes32 prevRoot;
        uint64 timestampMs;
        uint64 batchNumber;
        uint64 cursor;
        uint64 inboxNext;
        bytes32 inboxHash;
        uint64 l1Block;
        TreeModel.Leaf[] leaves;
        bytes data;
    }

    function setUp() public virtual {
        vm.warp(START);
        vm.roll(1000);
        vm.fee(7 gwei);
        vm.blobBaseFee(3);
        token = new TestToken();
        rollup = new Rollup(config());
        vault = rollup.vault();
        inbox = rollup.inbox();
        token.mint(user, 1e12);
        vm.prank(user);
        token.approve(address(vault), type(uint256).max);
    }

    function config() internal view returns (Rollup.Config memory) {
        return Rollup.Config({
            chainId: 777,
            genesisRoot: keccak256("genesis"),
            token: address(token),
            governor: governor,
            poster: poster,
            guardian: guardian,
            challengeWindow: WINDOW,
            forcedDelay: FORCED_DELAY,
            escapeDelay: ESCAPE_DELAY,
            clockDrift: DRIFT,
            minimumDeposit: MINIMUM,
            depositCap: CAP
        });
    }

    function deposit(uint64 amount) internal returns (uint64) {
        vm.prank(user);
        return vault.deposit(0, user, amount);
    }

    /// @notice An honest batch of these bytes that reads the whole inbox.
    function next(bytes memory data) internal view returns (Made memory made) {
        made.number = rollup.lastBatch() + 1;
        made.anchor = made.number - 1;
        made.prevRoot = rollup.rootOf(made.number - 1);
        made.timestampMs = uint64(block.timestamp) * 1000;
        made.batchNumber = made.number;
        made.cursor = uint64(data.length);
        made.inboxNext = inbox.count();
        made.inboxHash = inbox.hashAt(made.inboxNext);
        made.l1Block = uint64(block.number) - 1;
        made.data = data;
        made.leaves = new TreeModel.Leaf[](0);
    }

    /// @notice All leaves of the state after the batch: its System leaf, and those it was made with.
    function stateOf(Made memory made) internal pure returns (TreeModel.Leaf[] memory all) {
        all = new TreeModel.Leaf[](made.leaves.length + 1);
        all[0] = TreeModel.Leaf(0, systemLeaf(made));
        for (uint256 i = 0; i < made.leaves.length; i++) {
            all[i + 1] = made.leaves[i];
        }
    }

    function systemLeaf(Made memory made) internal pure returns (bytes memory) {
        return bytes.concat(
            bytes8(uint64(1)),
            bytes8(made.timestampMs),
            bytes32("parent"),
            bytes8(made.batchNumber),
            bytes8(made.cursor),
            bytes8(made.inboxNext),
            made.inboxHash,
            bytes8(made.l1Block),
            new bytes(77)
        );
    }

    function headerOf(Made memory made) internal pure returns (Rollup.BatchHeader memory) {
        return Rollup.BatchHeader(made.number, made.anchor, made.prevRoot, stateOf(made).rootOf());
    }

    function proofOf(Made memory made) internal pure returns (Rollup.SystemProof memory proof) {
        TreeModel.Leaf memory found;
        (proof.siblings, proof.bits, found) = stateOf(made).lookup(0);
        proof.leaf = found.value;
    }

    function post(Made memory made) internal {
        Rollup.BatchHeader memory header = headerOf(made);
        Rollup.SystemProof memory proof = proofOf(made);
        vm.prank(poster, poster);
        rollup.postBatch(header, made.data, proof);
    }

    function refuse(Made memory made, bytes memory why) internal {
        Rollup.BatchHeader memory header = headerOf(made);
        Rollup.SystemProof memory proof = proofOf(made);
        vm.prank(poster, poster);
        vm.expectRevert(why);
        rollup.postBatch(header, made.data, proof);
    }

    function withdrawalLeaf(uint64 number, address recipient, uint64 amount)
        internal
        pure
        returns (TreeModel.Leaf memory)
    {
        return TreeModel.Leaf(
            bytes32(bytes.concat(hex"0f", bytes8(number))),
            bytes.concat(bytes20(recipient), bytes8(amount), bytes8(uint64(5)), bytes8(uint64(1)))
        );
    }

    function unauthorized(address account, bytes32 role) internal pure returns (bytes memory) {
        return abi.encodeWithSignature("AccessControlUnauthorizedAccount(address,bytes32)", account, role);
    }
}
