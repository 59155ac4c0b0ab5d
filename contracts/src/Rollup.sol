// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {Inbox} from "./Inbox.sol";
import {Vault} from "./Vault.sol";
import {IRollup} from "./interfaces/IRollup.sol";
import {ChunkCommitment} from "./libraries/ChunkCommitment.sol";
import {Leaves} from "./libraries/Leaves.sol";
import {Roles} from "./libraries/Roles.sol";
import {TreeProof} from "./libraries/TreeProof.sol";

/// @title Batches and the state roots they claim
/// @notice A batch continues the last root, has read exactly the posted bytes and the inbox in order and in time, as
/// far as its System leaf, proved under the claimed root, says so. Whether the root is right is not checked here:
/// verifiers re-execute the data, and until disputes exist a guardian reverts a wrong batch within the window.
/// @dev Deploying it creates the vault, which creates the inbox. Nothing is upgradeable.
contract Rollup is IRollup, AccessControl {
    /// @notice Most data of one batch (PROTOCOL section 6).
    uint64 public constant MAX_BATCH_BYTES = 1 << 20;
    /// @notice Data in one blob: 31 bytes in each of 4,096 field elements.
    uint64 public constant BLOB_BYTES = 31 * 4096;
    uint64 internal constant MS_PER_S = 1000;
    /// @dev What posting costs after the gas was read: queueing the report and returning. Measured by a test.
    uint64 internal constant COST_TAIL_GAS = 34_000;
    uint64 internal constant TX_GAS = 21_000;
    /// @dev Of one byte of batch data, taken as not zero: usual price, and floor price by EIP-7623.
    uint64 internal constant DATA_GAS = 16;
    uint64 internal constant DATA_FLOOR_GAS = 40;
    /// @dev Of one byte of the other arguments, of which half are zero: the same two.
    uint64 internal constant ARGUMENT_GAS = 10;
    uint64 internal constant ARGUMENT_FLOOR_GAS = 25;

    /// @notice What is fixed at deployment. Durations are in seconds, amounts in millionths of the collateral.
    struct Config {
        uint64 chainId;
        bytes32 genesisRoot;
        address token;
        address governor;
        address poster;
        address guardian;
        uint64 challengeWindow;
        uint64 forcedDelay;
        uint64 escapeDelay;
        uint64 clockDrift;
        uint64 minimumDeposit;
        uint64 depositCap;
    }

    /// @notice What a poster claims of a batch.
    /// @param number The last batch's + 1.
    /// @param anchor A batch all of whose then queued messages this one has read: the last batch, or one younger
    /// than `forcedDelay`.
    /// @param prevRoot The last batch's root.
    /// @param newRoot The state root after the batch.
    struct BatchHeader {
        uint64 number;
        uint64 anchor;
        bytes32 prevRoot;
        bytes32 newRoot;
    }

    /// @notice The System leaf after a batch, proved under its new root: sibling hashes and branch bit indexes from
    /// leaf to root.
    struct SystemProof {
        bytes leaf;
        bytes32[] siblings;
        bytes bits;
    }

    /// @notice What is kept of a batch.
    /// @param root The claimed state root after it.
    /// @param commitment To its data (`ChunkCommitment`).
    /// @param postedAt Unix time in seconds.
    /// @param timestampMs Of its last block.
    /// @param inboxNext How many messages were read after it.
    /// @param inboxCount How many messages were queued when it was posted.
    struct Batch {
        bytes32 root;
        bytes32 commitment;
        uint64 postedAt;
        uint64 timestampMs;
        uint64 inboxNext;
        uint64 inboxCount;
    }

    /// @notice An address or duration of the configuration makes no sense.
    error BadConfig(string what);
    /// @notice Posting has stopped for good.
    error Escaped();
    /// @notice Posting has not stopped.
    error NotEscaped();
    /// @notice The operator has not been silent for long enough.
    error EscapeNotDue(uint64 dueAt, uint64 nowAt);
    /// @notice Batches are posted by transactions straight to this contract, so that verifiers find the data.
    error NotDirectCall(address origin, address sender);
    /// @notice The batch does not follow the last one.
    error WrongBatchNumber(uint64 expected, uint64 got);
    /// @notice The batch does not continue the last root.
    error WrongPrevRoot(bytes32 expected, bytes32 got);
    /// @notice The System leaf belongs to another batch.
    error WrongLeafBatch(uint64 expected, uint64 got);
    /// @notice Calldata and blobs cannot both carry the batch.
    error TwoDataSources(uint256 dataBytes);
    /// @notice The System leaf has not read exactly the posted bytes.
    error DataLengthMismatch(uint64 read, uint256 posted);
    /// @notice The bytes read do not need exactly the posted blobs.
    error BlobCountMismatch(uint64 needed, uint256 posted);
    /// @notice A batch has 1 to MAX_BATCH_BYTES bytes.
    error BatchTooLong(uint64 most, uint64 got);
    /// @notice The batch unreads messages.
    error InboxBackwards(uint64 before, uint64 got);
    /// @notice The messages read are not those that were queued.
    error InboxHashMismatch(bytes32 expected, bytes32 got);
    /// @notice The anchor is neither the last batch nor younger than the forced delay.
    error AnchorTooOld(uint64 anchor, uint64 last);
    /// @notice Messages were left unread beyond their deadline: the anchor demands more to be read.
    error InboxOverdue(uint64 needed, uint64 got);
    /// @notice The batch's last block is from the future.
    error TimestampAhead(uint64 most, uint64 got);
    /// @notice The batch's last block is older than the last batch's.
    error TimestampBackwards(uint64 before, uint64 got);
    /// @notice The batch's L1 origin must be a past block.
    error OriginNotPast(uint256 current, uint64 got);
    /// @notice There is no such batch.
    error NoSuchBatch(uint64 last, uint64 got);
    /// @notice The batch is not final, or does not exist.
    error BatchNotFinal(uint64 number);
    /// @notice The batch is final.
    error BatchFinal(uint64 number);

    /// @notice A batch was posted. Its data is the `data` of the transaction that emitted this (the call is direct), or
    /// that transaction's blobs.
    /// @param blobs How many blobs carry the data; 0 for calldata.
    event BatchPosted(
        uint64 indexed number,
        bytes32 prevRoot,
        bytes32 newRoot,
        bytes32 commitment,
        uint64 dataLength,
        uint8 blobs,
        uint64 inboxNext,
        uint64 inboxCount,
        uint64 timestampMs,
        address indexed poster
    );
    /// @notice Batches `from` to `last` no longer exist.
    event BatchesReverted(uint64 indexed from, uint64 indexed last, address indexed by);
    /// @notice Posting has stopped for good; `root` of `batch` is the last state.
    event EscapeActivated(uint64 indexed batch, bytes32 root, address indexed by);

    /// @notice The rollup's chain id, in its EIP-712 domain.
    uint64 public immutable chainId;
    /// @notice Custody.
    Vault public immutable vault;
    /// @notice Messages into the rollup.
    Inbox public immutable inbox;
    /// @notice The block in which this was deployed: no event is older.
    uint64 public immutable deployBlock;
    /// @notice Seconds from posting until a batch is final.
    uint64 public immutable challengeWindow;
    /// @notice Seconds for which a message may stay unread.
    uint64 public immutable forcedDelay;
    /// @notice Seconds of silence after which anybody may declare the operator gone.
    uint64 public immutable escapeDelay;
    /// @notice Seconds by which the rollup's clock may be ahead of L1's.
    uint64 public immutable clockDrift;

    /// @notice The last batch's number; 0 is genesis.
    uint64 public lastBatch;
    /// @notice When a batch was last posted or reverted.
    uint64 public lastActivityAt;
    /// @notice Whether posting has stopped for good.
    bool public escaped;

    mapping(uint64 number => Batch) private _batches;

    constructor(Config memory config) {
        require(config.governor != address(0), BadConfig("governor"));
        require(config.token != address(0), BadConfig("token"));
        require(config.genesisRoot != 0, BadConfig("genesisRoot"));
        require(config.challengeWindow > 0, BadConfig("challengeWindow"));
        require(config.forcedDelay > 0, BadConfig("forcedDelay"));
        require(config.escapeDelay > config.forcedDelay, BadConfig("escapeDelay <= forcedDelay"));
        require(config.escapeDelay >= config.challengeWindow, BadConfig("escapeDelay < challengeWindow"));
        chainId = config.chainId;
        challengeWindow = config.challengeWindow;
        forcedDelay = config.forcedDelay;
        escapeDelay = config.escapeDelay;
        clockDrift = config.clockDrift;
        deployBlock = uint64(block.number);

        _setRoleAdmin(Roles.GOVERNOR, Roles.GOVERNOR);
        _setRoleAdmin(Roles.POSTER, Roles.GOVERNOR);
        _setRoleAdmin(Roles.GUARDIAN, Roles.GOVERNOR);
        _grantRole(Roles.GOVERNOR, config.governor);
        _grantRole(Roles.POSTER, config.poster);
        _grantRole(Roles.GUARDIAN, config.guardian);

        _batches[0].root = config.genesisRoot;
        _batches[0].postedAt = uint64(block.timestamp);
        lastActivityAt = uint64(block.timestamp);
        vault = new Vault(
            IERC20Metadata(config.token), config.forcedDelay, config.minimumDeposit, config.depositCap
        );
        inbox = vault.inbox();
    }

    /// @notice Posts the next batch.
    /// @param header What it claims.
    /// @param data Its bytes; empty if the transaction's blobs carry them.
    /// @param proof What it has read.
    function postBatch(BatchHeader calldata header, bytes calldata data, SystemProof calldata proof)
        external
        onlyRole(Roles.POSTER)
    {
        uint256 gasAtStart = gasleft();
        uint64 number = lastBatch + 1;
        _checkPosting(header, number);
        TreeProof.requireMember(header.newRoot, Leaves.SYSTEM_KEY, proof.leaf, proof.siblings, proof.bits);
        Leaves.System memory system = Leaves.decodeSystem(proof.leaf);
        _checkSystem(system, number);
        uint64 inboxCount = _checkInbox(system, _batches[number - 1].inboxNext, header.anchor);
        (bytes32 commitment, uint8 blobs) = _commit(data, system.batchCursor);

        lastBatch = number;
        lastActivityAt = uint64(block.timestamp);
        _batches[number] = Batch({
            root: header.newRoot,
            commitment: commitment,
            postedAt: uint64(block.timestamp),
            timestampMs: system.timestampMs,
            inboxNext: system.inboxNext,
            inboxCount: inboxCount
        });
        _emitPosted(header, commitment, system, blobs, inboxCount);
        _reportCost(gasAtStart, number, system.batchCursor, blobs);
    }

    /// @notice Reverts all batches from `from` on; none of them may be final. Posting continues from there.
    function revertBatches(uint64 from) external onlyRole(Roles.GUARDIAN) {
        uint64 last = lastBatch;
        require(from > 0 && from <= last, NoSuchBatch(last, from));
        require(!isFinal(from), BatchFinal(from));
        lastBatch = from - 1;
        lastActivityAt = uint64(block.timestamp);
        emit BatchesReverted(from, last, msg.sender);
    }

    /// @notice Stops posting for good after the operator was silent for `escapeDelay`: everybody may call this.
    /// @dev By then every batch is final, since escapeDelay >= challengeWindow.
    function activateEscape() external {
        require(!escaped, Escaped());
        uint64 dueAt = lastActivityAt + escapeDelay;
        // A validator can move the clock by seconds; these delays are hours and days.
        // slither-disable-next-line timestamp
        require(block.timestamp >= dueAt, EscapeNotDue(dueAt, uint64(block.timestamp)));
        escaped = true;
        emit EscapeActivated(lastBatch, _batches[lastBatch].root, msg.sender);
    }

    /// @inheritdoc IRollup
    function checkRole(bytes32 role, address account) external view {
        _checkRole(role, account);
    }

    /// @inheritdoc IRollup
    function finalizedRoot(uint64 number) external view returns (bytes32) {
        require(isFinal(number), BatchNotFinal(number));
        return _batches[number].root;
    }

    /// @inheritdoc IRollup
    function escapedRoot() external view returns (bytes32) {
        require(escaped, NotEscaped());
        return _batches[lastBatch].root;
    }

    /// @inheritdoc IRollup
    function escapedInboxNext() external view returns (uint64) {
        require(escaped, NotEscaped());
        return _batches[lastBatch].inboxNext;
    }

    /// @notice What is kept of a batch.
    function batchAt(uint64 number) external view returns (Batch memory) {
        require(number <= lastBatch, NoSuchBatch(lastBatch, number));
        return _batches[number];
    }

    /// @notice The state root after a batch, final or not.
    function rootOf(uint64 number) external view returns (bytes32) {
        require(number <= lastBatch, NoSuchBatch(lastBatch, number));
        return _batches[number].root;
    }

    /// @notice The last final batch; 0 is genesis.
    function finalizedBatch() external view returns (uint64) {
        uint64 low = 0;
        uint64 high = lastBatch;
        while (low < high) {
            uint64 middle = low + (high - low + 1) / 2;
            if (isFinal(middle)) low = middle;
            else high = middle - 1;
        }
        return low;
    }

    /// @notice Whether a batch exists and can no longer be reverted.
    function isFinal(uint64 number) public view returns (bool) {
        if (number == 0) return true;
        // A validator can move the clock by seconds; the window is hours or days.
        // slither-disable-next-line timestamp
        return number <= lastBatch && _batches[number].postedAt + challengeWindow <= block.timestamp;
    }

    function _checkPosting(BatchHeader calldata header, uint64 number) private view {
        require(!escaped, Escaped());
        // Not authorization: a call that is not the transaction itself would hide the data from verifiers.
        // slither-disable-next-line tx-origin
        require(msg.sender == tx.origin && msg.sender.code.length == 0, NotDirectCall(tx.origin, msg.sender));
        require(header.number == number, WrongBatchNumber(number, header.number));
        bytes32 lastRoot = _batches[number - 1].root;
        // Equality of hashes is what is asked, and the clock is not in them.
        // slither-disable-next-line incorrect-equality,timestamp
        require(header.prevRoot == lastRoot, WrongPrevRoot(lastRoot, header.prevRoot));
    }

    /// @dev Rules about clocks compare clocks; a validator's seconds are within what clockDrift allows.
    // slither-disable-start timestamp
    function _checkSystem(Leaves.System memory system, uint64 number) private view {
        require(system.batchNumber == number, WrongLeafBatch(number, system.batchNumber));
        uint64 lastTimestampMs = _batches[number - 1].timestampMs;
        uint64 most = (uint64(block.timestamp) + clockDrift) * MS_PER_S;
        require(system.timestampMs <= most, TimestampAhead(most, system.timestampMs));
        require(
            system.timestampMs >= lastTimestampMs, TimestampBackwards(lastTimestampMs, system.timestampMs)
        );
        require(system.l1Block < block.number, OriginNotPast(block.number, system.l1Block));
    }

    // slither-disable-end timestamp

    /// @dev Why the anchor keeps deadlines: let a message be queued at t, and a batch be posted at t + forcedDelay or
    /// later that is not the first one since t. If its anchor is the last batch, that one was posted after t; if it
    /// is one younger than forcedDelay, it was as well. So the message was counted when the anchor was posted, and
    /// the batch has read at least that many. A validator's seconds do not matter to a delay of hours.
    // slither-disable-start timestamp
    function _checkInbox(Leaves.System memory system, uint64 lastNext, uint64 anchor)
        private
        view
        returns (uint64 inboxCount)
    {
        require(system.inboxNext >= lastNext, InboxBackwards(lastNext, system.inboxNext));
        bytes32 expected = inbox.hashAt(system.inboxNext);
        require(system.inboxHash == expected, InboxHashMismatch(expected, system.inboxHash));
        uint64 last = lastBatch;
        require(anchor <= last, NoSuchBatch(last, anchor));
        Batch storage found = _batches[anchor];
        require(anchor == last || found.postedAt + forcedDelay > block.timestamp, AnchorTooOld(anchor, last));
        uint64 needed = found.inboxCount;
        require(system.inboxNext >= needed, InboxOverdue(needed, system.inboxNext));
        return inbox.count();
    }
    // slither-disable-end timestamp

    function _commit(bytes calldata data, uint64 length)
        private
        view
        returns (bytes32 commitment, uint8 blobs)
    {
        require(length > 0 && length <= MAX_BATCH_BYTES, BatchTooLong(MAX_BATCH_BYTES, length));
        while (blobhash(blobs) != 0) blobs++;
        if (blobs == 0) {
            require(data.length == length, DataLengthMismatch(length, data.length));
            return (ChunkCommitment.ofData(data), 0);
        }
        require(data.length == 0, TwoDataSources(data.length));
        uint64 needed = (length + BLOB_BYTES - 1) / BLOB_BYTES;
        require(needed == blobs, BlobCountMismatch(needed, blobs));
        bytes32[] memory hashes = new bytes32[](blobs);
        for (uint256 i = 0; i < blobs; i++) {
            hashes[i] = blobhash(i);
        }
        return (ChunkCommitment.ofBlobs(hashes, length), blobs);
    }

    function _emitPosted(
        BatchHeader calldata header,
        bytes32 commitment,
        Leaves.System memory system,
        uint8 blobs,
        uint64 inboxCount
    ) private {
        emit BatchPosted(
            header.number,
            header.prevRoot,
            header.newRoot,
            commitment,
            system.batchCursor,
            blobs,
            system.inboxNext,
            inboxCount,
            system.timestampMs,
            msg.sender
        );
    }

    /// @dev Queues what posting costs, for the fee formula of later batches: an estimate within a few percent, as a
    /// test measures. Priority fees are left out: a poster could inflate them.
    function _reportCost(uint256 gasAtStart, uint64 number, uint64 length, uint8 blobs) private {
        uint256 dataBytes = blobs == 0 ? length : 0;
        uint256 argumentBytes = msg.data.length - dataBytes;
        uint256 bytesGas = DATA_GAS * dataBytes + ARGUMENT_GAS * argumentBytes;
        uint256 floorGas = DATA_FLOOR_GAS * dataBytes + ARGUMENT_FLOOR_GAS * argumentBytes;
        uint256 execution = gasAtStart - gasleft() + COST_TAIL_GAS;
        uint256 total = TX_GAS + Math.max(bytesGas + execution, floorGas);
        // The message's index is of no use here.
        // slither-disable-next-line unused-return
        inbox.queueBatchCost(
            abi.encodePacked(
                number,
                SafeCast.toUint32(length),
                SafeCast.toUint64(total),
                SafeCast.toUint64(block.basefee),
                blobs,
                SafeCast.toUint64(block.blobbasefee)
            )
        );
    }
}
