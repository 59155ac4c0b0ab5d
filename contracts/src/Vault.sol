// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";

import {Inbox} from "./Inbox.sol";
import {IRollup} from "./interfaces/IRollup.sol";
import {Leaves} from "./libraries/Leaves.sol";
import {Roles} from "./libraries/Roles.sol";
import {TreeProof} from "./libraries/TreeProof.sol";

/// @title Custody of the collateral
/// @notice Takes deposits of one ERC-20 with 6 decimals and pays withdrawals that a final state root owes. Paying
/// asks nobody's permission and cannot be paused; only deposits can.
contract Vault is ReentrancyGuardTransient {
    using BitMaps for BitMaps.BitMap;
    using SafeERC20 for IERC20;

    /// @notice Largest deposit that the rollup credits (MAX_AMOUNT_UUSD).
    uint64 public constant MAX_DEPOSIT = 1e17;
    /// @notice Most collateral that the rollup accounts for (MAX_TOTAL_COLLATERAL_UUSD).
    uint64 public constant MAX_CAP = 4e18;
    uint8 internal constant DECIMALS = 6;
    uint8 internal constant DEPOSIT = 1;

    /// @notice The collateral must have as many decimals as the rollup's units.
    error WrongDecimals(uint8 expected, uint8 got);
    /// @notice The owner must not be the zero address.
    error ZeroOwner();
    /// @notice The amount lies outside what one deposit may be.
    error AmountOutOfBounds(uint64 least, uint64 most, uint64 got);
    /// @notice The vault would hold more than its cap.
    error CapExceeded(uint64 cap, uint256 balance);
    /// @notice Limits must satisfy 0 < minimum <= MAX_DEPOSIT and cap <= MAX_CAP.
    error BadLimits(uint64 minimum, uint64 cap);
    /// @notice Deposits are paused.
    error DepositsPaused();
    /// @notice The token moved another amount than asked: it charges fees or rebases.
    error TransferAmount(uint256 expected, uint256 received);
    /// @notice The withdrawal was paid already.
    error AlreadyClaimed(uint64 number);
    /// @notice The account was paid out already.
    error AlreadyEscaped(uint64 account);
    /// @notice The account has positions or open orders, or no cash: there is nothing L1 can pay it.
    error NotEscapable(int64 cash, uint32 positions);
    /// @notice The deposit was read by the rollup: its money is in an account.
    error DepositWasRead(uint64 inboxNext, uint64 index);
    /// @notice The deposit was refunded already.
    error AlreadyRefunded(uint64 index);
    /// @notice The message is not what the queue holds at that index.
    error MessageMismatch(bytes32 expected, bytes32 computed);

    /// @notice A withdrawal was paid.
    event WithdrawalClaimed(
        uint64 indexed number, address indexed recipient, uint64 amount, uint64 account, uint64 batch
    );
    /// @notice Deposits are limited to these from now on, in millionths.
    event DepositLimitsSet(uint64 minimum, uint64 cap);
    /// @notice Deposits are paused, or no longer.
    event DepositsPausedSet(bool paused, address indexed by);
    /// @notice After the operator stopped: the cash of an account was paid.
    event AccountEscaped(uint64 indexed account, address indexed owner, uint64 amount);
    /// @notice After the operator stopped: a deposit that it never read was paid back.
    event DepositRefunded(uint64 indexed index, address indexed owner, uint64 amount);

    /// @notice Keeps roots and roles.
    IRollup public immutable rollup;
    /// @notice Where deposits are announced.
    Inbox public immutable inbox;
    /// @notice The collateral.
    IERC20 public immutable token;

    /// @notice Least amount of one deposit.
    uint64 public minimumDeposit;
    /// @notice Most the vault may hold after a deposit.
    uint64 public depositCap;
    /// @notice Whether deposits are paused.
    bool public depositsPaused;

    BitMaps.BitMap private _claimed;
    BitMaps.BitMap private _escaped;
    BitMaps.BitMap private _refunded;

    /// @dev Created by the rollup; creates the inbox.
    constructor(IERC20Metadata token_, uint64 forcedDelay, uint64 minimum, uint64 cap) {
        rollup = IRollup(msg.sender);
        token = token_;
        _setDepositLimits(minimum, cap);
        uint8 decimals = token_.decimals();
        require(decimals == DECIMALS, WrongDecimals(DECIMALS, decimals));
        inbox = new Inbox(IRollup(msg.sender), forcedDelay);
    }

    /// @notice Pays `amount` of the sender's collateral into an account.
    /// @param account An existing account of anybody; 0 (or one that does not exist) opens a new one of `owner`.
    /// @param owner Who owns the account if it is opened.
    /// @param amount In millionths.
    /// @return index The message that carries the deposit.
    function deposit(uint64 account, address owner, uint64 amount)
        external
        nonReentrant
        returns (uint64 index)
    {
        return _deposit(account, owner, amount);
    }

    /// @notice The same, with an ERC-2612 signature of the sender in place of an approval.
    /// @dev A permit that was already used by somebody who copied it does no harm: the allowance then exists.
    function depositWithPermit(
        uint64 account,
        address owner,
        uint64 amount,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant returns (uint64 index) {
        try IERC20Permit(address(token)).permit(msg.sender, address(this), amount, deadline, v, r, s) {}
            catch {}
        return _deposit(account, owner, amount);
    }

    /// @notice Pays a withdrawal that a final batch owes. Anybody may send it; the recipient is in the leaf.
    /// @param batch A final batch under whose root the leaf is proved.
    /// @param number The withdrawal's number.
    /// @param leaf The Withdrawal leaf, 44 bytes.
    /// @param siblings Sibling hashes, from leaf to root.
    /// @param bits Branch bit indexes, from leaf to root, one byte each.
    function claim(
        uint64 batch,
        uint64 number,
        bytes calldata leaf,
        bytes32[] calldata siblings,
        bytes calldata bits
    ) external {
        require(!_claimed.get(number), AlreadyClaimed(number));
        Leaves.Withdrawal memory withdrawal = Leaves.decodeWithdrawal(leaf);
        TreeProof.requireMember(
            rollup.finalizedRoot(batch), Leaves.withdrawalKey(number), leaf, siblings, bits
        );
        _claimed.set(number);
        emit WithdrawalClaimed(number, withdrawal.recipient, withdrawal.amount, withdrawal.account, batch);
        token.safeTransfer(withdrawal.recipient, withdrawal.amount);
    }

    /// @notice Once the rollup has escaped: pays the cash of an account without positions to its owner.
    /// @dev Such an account's equity is its cash, so nothing needs to be valued. `positions` counts the account's
    /// position leaves, which open orders have too.
    function escapeAccount(
        uint64 account,
        bytes calldata leaf,
        bytes32[] calldata siblings,
        bytes calldata bits
    ) external {
        require(!_escaped.get(account), AlreadyEscaped(account));
        Leaves.Account memory found = Leaves.decodeAccount(leaf);
        require(found.cash > 0 && found.positions == 0, NotEscapable(found.cash, found.positions));
        bytes32 root = rollup.escapedRoot();
        TreeProof.requireMember(root, Leaves.accountKey(account), leaf, siblings, bits);
        _escaped.set(account);
        // forge-lint: disable-next-line(unsafe-typecast) above zero, as checked
        uint64 amount = uint64(found.cash);
        emit AccountEscaped(account, found.owner, amount);
        token.safeTransfer(found.owner, amount);
    }

    /// @notice Once the rollup has escaped: pays back a deposit that no batch has read.
    /// @param index The deposit's message.
    /// @param l1Block The block in which it was queued, and below what it said.
    function refundDeposit(uint64 index, uint64 l1Block, address owner, uint64 account, uint64 amount)
        external
    {
        require(!_refunded.get(index), AlreadyRefunded(index));
        uint64 inboxNext = rollup.escapedInboxNext();
        require(index >= inboxNext, DepositWasRead(inboxNext, index));
        bytes32 computed = keccak256(
            abi.encodePacked(inbox.hashAt(index), DEPOSIT, address(this), l1Block, owner, account, amount)
        );
        bytes32 expected = inbox.hashAt(index + 1);
        require(computed == expected, MessageMismatch(expected, computed));
        _refunded.set(index);
        emit DepositRefunded(index, owner, amount);
        token.safeTransfer(owner, amount);
    }

    /// @notice Sets the least deposit and the most the vault may hold.
    function setDepositLimits(uint64 minimum, uint64 cap) external {
        rollup.checkRole(Roles.GOVERNOR, msg.sender);
        _setDepositLimits(minimum, cap);
    }

    /// @notice Stops deposits. A guardian may stop them, a governor may allow them again.
    function pauseDeposits() external {
        rollup.checkRole(Roles.GUARDIAN, msg.sender);
        depositsPaused = true;
        emit DepositsPausedSet(true, msg.sender);
    }

    /// @notice Allows deposits again.
    function unpauseDeposits() external {
        rollup.checkRole(Roles.GOVERNOR, msg.sender);
        depositsPaused = false;
        emit DepositsPausedSet(false, msg.sender);
    }

    /// @notice Whether this withdrawal was paid.
    function isClaimed(uint64 number) external view returns (bool) {
        return _claimed.get(number);
    }

    /// @notice Whether this account was paid out after escape.
    function isEscaped(uint64 account) external view returns (bool) {
        return _escaped.get(account);
    }

    /// @notice Whether this deposit was paid back after escape.
    function isRefunded(uint64 index) external view returns (bool) {
        return _refunded.get(index);
    }

    function _deposit(uint64 account, address owner, uint64 amount) private returns (uint64 index) {
        require(!depositsPaused, DepositsPaused());
        require(owner != address(0), ZeroOwner());
        uint64 minimum = minimumDeposit;
        uint64 cap = depositCap;
        require(amount >= minimum && amount <= MAX_DEPOSIT, AmountOutOfBounds(minimum, MAX_DEPOSIT, amount));
        uint256 before = token.balanceOf(address(this));
        require(before + amount <= cap, CapExceeded(cap, before + amount));
        // The balance must grow by exactly the amount, so the money comes first; the guard keeps others out meanwhile.
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = token.balanceOf(address(this)) - before;
        // Strict on purpose: money that comes or goes meanwhile means a token that the vault cannot account for. What
        // somebody sends before or after changes neither side.
        // slither-disable-next-line incorrect-equality
        require(received == amount, TransferAmount(amount, received));
        return inbox.queueDeposit(owner, account, amount);
    }

    function _setDepositLimits(uint64 minimum, uint64 cap) private {
        require(minimum > 0 && minimum <= MAX_DEPOSIT && cap <= MAX_CAP, BadLimits(minimum, cap));
        minimumDeposit = minimum;
        depositCap = cap;
        emit DepositLimitsSet(minimum, cap);
    }
}
