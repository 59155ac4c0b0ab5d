// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {IRollup} from "./interfaces/IRollup.sol";
import {Roles} from "./libraries/Roles.sol";

/// @title Messages from L1 into the rollup
/// @notice A queue numbered from 0 with a rolling hash (PROTOCOL section 4). The rollup must read it in order and in
/// time: `Rollup.postBatch` compares what a batch claims to have read with `hashAt`, and says what "in time" means.
/// @dev One storage slot a message. The message itself lives in the event log alone.
contract Inbox {
    uint8 internal constant DEPOSIT = 1;
    uint8 internal constant FORCED_WITHDRAWAL = 2;
    uint8 internal constant FORCED_ORDER = 3;
    uint8 internal constant LIST_INSTRUMENT = 4;
    uint8 internal constant BATCH_COST = 8;
    /// @dev Kinds up to here are the governor's, but for those named above; the transition knows which exist.
    uint8 internal constant LAST_GOVERNANCE = 31;
    /// @notice Bound of a governor's payload; the transition knows the exact lengths.
    uint256 public constant MAX_GOVERNANCE_BYTES = 1024;

    /// @notice Only this contract may send this kind of message.
    error WrongSender(address expected, address got);
    /// @notice A governor may send kinds 4 to 7 and 9 to 31.
    error NotGovernanceKind(uint8 kind);
    /// @notice A governor's payload has 1 to `most` bytes.
    error PayloadLength(uint256 most, uint256 got);
    /// @notice The amount or size must not be zero.
    error ZeroAmount();
    /// @notice The recipient must not be the zero address.
    error ZeroRecipient();
    /// @notice 0 buys, 1 sells.
    error UnknownSide(uint8 side);
    /// @notice There are fewer messages than that.
    error BeyondQueue(uint64 count, uint64 got);

    /// @notice A message entered the queue.
    /// @param index Its number, from 0.
    /// @param rollingHash `hashAt(index + 1)`.
    /// @param deadline Unix time in seconds. A batch posted at or after it, other than the first one posted after the
    /// message was queued, is refused unless it has read the message.
    event MessageQueued(
        uint64 indexed index,
        uint8 indexed kind,
        address indexed sender,
        uint64 l1Block,
        bytes payload,
        bytes32 rollingHash,
        uint64 deadline
    );

    /// @notice Keeps the roles; reports what batches cost.
    IRollup public immutable rollup;
    /// @notice The only sender of deposits.
    address public immutable vault;
    /// @notice How long a message may stay unread, in seconds.
    uint64 public immutable forcedDelay;

    /// @notice How many messages were ever queued.
    uint64 public count;
    /// @dev Written once with `count`, so that even the first message writes no slot of `count` anew.
    // slither-disable-next-line immutable-states
    bool private _begun;
    /// @dev The rolling hash after so many messages.
    mapping(uint64 messages => bytes32) private _hashes;

    /// @dev Created by the vault, which is created by the rollup: the three addresses are fixed for good.
    constructor(IRollup rollup_, uint64 forcedDelay_) {
        rollup = rollup_;
        vault = msg.sender;
        forcedDelay = forcedDelay_;
        _begun = true;
    }

    /// @notice Queues a deposit that the vault has received.
    function queueDeposit(address owner, uint64 account, uint64 amount) external returns (uint64 index) {
        require(msg.sender == vault, WrongSender(vault, msg.sender));
        return _queue(DEPOSIT, abi.encodePacked(owner, account, amount));
    }

    /// @notice Withdraws from the sender's account without asking the sequencer: as much of `amount` as is free.
    /// @param account The sender must own it.
    /// @param recipient Who may claim on L1.
    /// @param amount In millionths of the collateral.
    function forceWithdrawal(uint64 account, address recipient, uint64 amount)
        external
        returns (uint64 index)
    {
        require(recipient != address(0), ZeroRecipient());
        require(amount > 0, ZeroAmount());
        return _queue(FORCED_WITHDRAWAL, abi.encodePacked(account, recipient, amount));
    }

    /// @notice Sends a reduce-only, immediate-or-cancel order without asking the sequencer.
    /// @param account The sender must own it.
    /// @param market The instrument's number.
    /// @param side 0 buys, 1 sells.
    /// @param price Worst price, in millionths of a dollar.
    /// @param size In millionths of a coin.
    function forceOrder(uint64 account, uint32 market, uint8 side, uint64 price, uint64 size)
        external
        returns (uint64 index)
    {
        require(side <= 1, UnknownSide(side));
        require(size > 0, ZeroAmount());
        return _queue(FORCED_ORDER, abi.encodePacked(account, market, side, price, size));
    }

    /// @notice Queues a governor's message: PROTOCOL section 4 says what each kind means.
    /// @param payload Exactly as PROTOCOL section 4 lays it out; what does not fit is a no-op in the rollup.
    function queueGovernance(uint8 kind, bytes calldata payload) external returns (uint64 index) {
        rollup.checkRole(Roles.GOVERNOR, msg.sender);
        require(
            kind >= LIST_INSTRUMENT && kind <= LAST_GOVERNANCE && kind != BATCH_COST, NotGovernanceKind(kind)
        );
        require(
            payload.length > 0 && payload.length <= MAX_GOVERNANCE_BYTES,
            PayloadLength(MAX_GOVERNANCE_BYTES, payload.length)
        );
        return _queue(kind, payload);
    }

    /// @notice Queues the report of what posting a batch cost on L1.
    function queueBatchCost(bytes calldata payload) external returns (uint64 index) {
        require(msg.sender == address(rollup), WrongSender(address(rollup), msg.sender));
        return _queue(BATCH_COST, payload);
    }

    /// @notice The rolling hash of the first `messages` messages; zero for none.
    function hashAt(uint64 messages) external view returns (bytes32) {
        uint64 queued = count;
        require(messages <= queued, BeyondQueue(queued, messages));
        return _hashes[messages];
    }

    function _queue(uint8 kind, bytes memory payload) private returns (uint64 index) {
        index = count;
        uint64 l1Block = uint64(block.number);
        bytes32 hash = keccak256(abi.encodePacked(_hashes[index], kind, msg.sender, l1Block, payload));
        count = index + 1;
        _hashes[index + 1] = hash;
        emit MessageQueued(
            index, kind, msg.sender, l1Block, payload, hash, uint64(block.timestamp) + forcedDelay
        );
    }
}
