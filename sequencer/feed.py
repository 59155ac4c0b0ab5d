"""Subscription channels: numbered without gaps, encoded once, sent to many, resumable.

A channel lives from its first subscription. While it lives, each `publish` gets the next number and stays
in a ring for clients that lost their connection: a resume token `channel:epoch:seq` names the last message
a client has seen, and subscribing with it sends exactly what came after, or fails with RESUME_GONE. The
epoch is new whenever numbering starts anew (a restart, or a channel that was forgotten and came back).

A message is kept as a ready WebSocket text frame, the same bytes for every subscriber:

    {"jsonrpc":"2.0","method":"subscription",
     "params":{"channel":"trades.BTC-PERPETUAL","seq":8,"prev":7,"data":...}}

A snapshot, sent only to who subscribes without a token, has the number of the last message it contains and
`"prev":null`, so that the next message's `prev` equals it.

Invariants:
- iFEED_001 To one subscriber, `seq` of a channel rises by one from message to message.
- iFEED_002 A subscription either takes effect for all channels named or for none.
- iFEED_003 A ring holds at most `ring_messages` and `ring_bytes`; there are at most `max_channels` rings, and
  only one without subscribers is forgotten to make room, the one longest unused first.
- iFEED_004 A subscriber that cannot keep up is taken off all its channels; it never delays another.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

import msgspec
from websockets.frames import Frame, Opcode

from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Context, Method, Subscriber

CHANNEL_NAME_MAX_CHARS: Final = 128

Snapshot = Callable[[], object]
OpenChannel = Callable[[str], Snapshot | None]
"""Checks a channel's name: raises RpcError UNKNOWN_CHANNEL, or returns what gives the initial snapshot
(called at once, within the subscription) or None for channels that have none."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """Bounds of a feed. At worst `max_channels * ring_bytes` bytes are kept (64 MiB by default).

    Raises ValueError when a limit is not a positive integer.
    """

    max_channels: int = 1024
    ring_messages: int = 256
    ring_bytes: int = 64 << 10

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field.name}: must be a positive integer, got {value!r}")


class SubscribeParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`channels` to join; `resume` maps some of them to the token to continue from."""

    channels: list[str]
    resume: dict[str, str] = msgspec.field(default_factory=dict)


class SubscribeResult(msgspec.Struct, frozen=True):
    """`channels` now subscribed (all of those asked for); `tokens` names where each continues from."""

    channels: list[str]
    tokens: dict[str, str]


class UnsubscribeParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`channels` to leave; those not subscribed are passed over."""

    channels: list[str]


class _Channel:
    __slots__ = ("encoded_name", "epoch", "name", "ring", "ring_bytes", "seq", "subscribers")

    def __init__(self, name: str, epoch: str) -> None:
        self.name = name
        self.encoded_name = _encode(name)
        self.epoch = epoch
        self.seq = 0
        self.ring: deque[bytes] = deque()
        self.ring_bytes = 0
        self.subscribers: dict[Subscriber, None] = {}

    def frame(self, seq: int, prev: int | None, data: bytes) -> bytes:
        message = (
            b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":%b,"seq":%d,"prev":%b,"data":%b}}'
        ) % (self.encoded_name, seq, b"null" if prev is None else b"%d" % prev, data)
        return Frame(Opcode.TEXT, message).serialize(mask=False)

    def token(self) -> str:
        return f"{self.name}:{self.epoch}:{self.seq}"

    def missed(self, token: str) -> list[bytes]:
        """The frames after the token's. Raises RpcError RESUME_GONE."""
        epoch, _, seq_text = token.removeprefix(self.name + ":").partition(":")
        if not token.startswith(self.name + ":") or not (seq_text.isascii() and seq_text.isdigit()):
            raise _gone(self.name, token, "not a token of this channel")
        if epoch != self.epoch or len(seq_text) > 18:
            raise _gone(self.name, token, "numbering has started anew since")
        missing = self.seq - int(seq_text)
        if missing < 0:
            raise _gone(self.name, token, "the token is ahead of the channel")
        if missing > len(self.ring):
            raise _gone(self.name, token, "the messages after it are no longer kept")
        return list(self.ring)[len(self.ring) - missing :]


class Feed:
    """All channels of a node. Used from the trio thread only; nothing here waits.

    `check_channel` is the injected check of names and source of snapshots (`OpenChannel`);
    `max_subscriptions` bounds the channels of one subscriber (`ServerLimits.max_ws_subscriptions`).
    """

    def __init__(
        self, check_channel: OpenChannel, *, max_subscriptions: int, limits: FeedLimits | None = None
    ) -> None:
        self._check_channel = check_channel
        self._max_subscriptions = max_subscriptions
        self._limits = limits or FeedLimits()
        self._channels: OrderedDict[str, _Channel] = OrderedDict()
        self._joined: dict[Subscriber, dict[str, None]] = {}
        self._epoch = secrets.token_hex(4)
        self._opened = 0
        self.dropped_slow = 0

    def is_wanted(self, channel: str) -> bool:
        """Whether `publish` on this channel does anything: ask before preparing costly data."""
        return channel in self._channels

    @property
    def subscriber_count(self) -> int:
        """Subscribers with at least one channel."""
        return len(self._joined)

    def publish(self, channel: str, data: object) -> int | None:
        """Number `data` (any msgspec type, or `msgspec.Raw`) and send it to all subscribers.

        Returns its number, or None when nobody has ever subscribed, in which case nothing is kept.
        """
        found = self._channels.get(channel)
        if found is None:
            return None
        frame = found.frame(found.seq + 1, found.seq, _encode(data))
        found.seq += 1
        found.ring.append(frame)
        found.ring_bytes += len(frame)
        while len(found.ring) > self._limits.ring_messages or found.ring_bytes > self._limits.ring_bytes:
            found.ring_bytes -= len(found.ring.popleft())
        slow = [subscriber for subscriber in found.subscribers if not subscriber.push(frame)]
        for subscriber in slow:
            self.dropped_slow += 1
            self.forget(subscriber)
        return found.seq

    def subscribe(self, subscriber: Subscriber, names: list[str], resume: dict[str, str]) -> dict[str, str]:
        """Join `names`; returns for each the token it continues from.

        Joining a channel twice changes nothing. Raises RpcError UNKNOWN_CHANNEL, RESUME_GONE,
        TOO_MANY_SUBSCRIPTIONS or BUSY (all `max_channels` are in use), and then nothing was joined.
        """
        names = list(dict.fromkeys(names))
        for name in resume:
            if name not in names:
                raise RpcError(ErrorCode.INVALID_PARAMS, "resume names a channel that is not in channels")
        joined = self._joined.get(subscriber, {})
        fresh = [name for name in names if name not in joined]
        if len(joined) + len(fresh) > self._max_subscriptions:
            raise RpcError(ErrorCode.TOO_MANY_SUBSCRIPTIONS, data={"limit": self._max_subscriptions})
        firsts: dict[str, list[bytes] | bytes | None] = {}
        for name in fresh:
            snapshot = self._checked(name)
            if name in resume:
                firsts[name] = self._missed(name, resume[name])
            else:
                firsts[name] = None if snapshot is None else _encode(snapshot())
        replayed = sum(len(first) for first in firsts.values() if isinstance(first, list))
        if replayed + len(fresh) > subscriber.room():
            raise RpcError(ErrorCode.RESUME_GONE, "more was missed than this connection's queue takes")
        self._make_room(fresh)
        return self._join(subscriber, names, firsts)

    def _join(
        self, subscriber: Subscriber, names: list[str], firsts: dict[str, list[bytes] | bytes | None]
    ) -> dict[str, str]:
        tokens = {}
        for name in names:
            channel = self._channels.get(name) or self._open(name)
            self._channels.move_to_end(name)
            tokens[name] = channel.token()
            if name not in firsts:
                continue
            first = firsts[name]
            if isinstance(first, bytes):
                first = [channel.frame(channel.seq, None, first)]
            for frame in first or ():
                subscriber.push(frame)
            channel.subscribers[subscriber] = None
            self._joined.setdefault(subscriber, {})[name] = None
        return tokens

    def unsubscribe(self, subscriber: Subscriber, names: list[str]) -> list[str]:
        """Leave `names`; returns those that were subscribed."""
        joined = self._joined.get(subscriber, {})
        left = [name for name in dict.fromkeys(names) if name in joined]
        for name in left:
            del joined[name]
            self._channels[name].subscribers.pop(subscriber, None)
        if not joined:
            self._joined.pop(subscriber, None)
        return left

    def forget(self, subscriber: Subscriber) -> None:
        """The subscriber has gone: take it off everything. May be called for one that never subscribed."""
        self.unsubscribe(subscriber, list(self._joined.get(subscriber, ())))

    def _checked(self, name: str) -> Snapshot | None:
        if len(name) > CHANNEL_NAME_MAX_CHARS:
            raise RpcError(ErrorCode.UNKNOWN_CHANNEL, data={"channel": name[:CHANNEL_NAME_MAX_CHARS]})
        return self._check_channel(name)

    def _missed(self, name: str, token: str) -> list[bytes]:
        channel = self._channels.get(name)
        if channel is None:
            raise _gone(name, token, "numbering has started anew since")
        return channel.missed(token)

    def _make_room(self, fresh: list[str]) -> None:
        """Forget unused channels until the new ones fit. Raises RpcError BUSY, then nothing is forgotten."""
        wanted = set(fresh)
        excess = len(self._channels.keys() | wanted) - self._limits.max_channels
        if excess <= 0:
            return
        unused = [name for name, ch in self._channels.items() if not ch.subscribers and name not in wanted]
        if len(unused) < excess:
            raise RpcError(ErrorCode.BUSY, "all channels are in use", {"limit": self._limits.max_channels})
        for name in unused[:excess]:
            del self._channels[name]

    def _open(self, name: str) -> _Channel:
        self._opened += 1
        channel = _Channel(name, f"{self._epoch}{self._opened:x}")
        self._channels[name] = channel
        return channel

    def methods(self) -> list[Method[Any]]:
        """`public/subscribe` and `public/unsubscribe`, for the registry of the public port."""
        return [
            Method(
                name="public/subscribe",
                params=SubscribeParams,
                result=SubscribeResult,
                handler=self._subscribe,
                summary="Join channels; messages come as notifications named subscription.",
                description=(
                    "WebSocket only. Each message has seq and prev of its channel. A token channel:epoch:seq "
                    "in resume continues after that message instead of beginning with a snapshot."
                ),
                errors=(
                    ErrorCode.NEED_WEBSOCKET,
                    ErrorCode.UNKNOWN_CHANNEL,
                    ErrorCode.RESUME_GONE,
                    ErrorCode.TOO_MANY_SUBSCRIPTIONS,
                    ErrorCode.BUSY,
                ),
            ),
            Method(
                name="public/unsubscribe",
                params=UnsubscribeParams,
                result=list[str],
                handler=self._unsubscribe,
                summary="Leave channels; answers with those that were subscribed.",
                errors=(ErrorCode.NEED_WEBSOCKET,),
            ),
        ]

    def _subscribe(self, params: SubscribeParams, context: Context) -> SubscribeResult:
        tokens = self.subscribe(_subscriber_of(context), params.channels, params.resume)
        return SubscribeResult(channels=list(tokens), tokens=tokens)

    def _unsubscribe(self, params: UnsubscribeParams, context: Context) -> list[str]:
        return self.unsubscribe(_subscriber_of(context), params.channels)


def _subscriber_of(context: Context) -> Subscriber:
    if context.subscriber is None:
        raise RpcError(ErrorCode.NEED_WEBSOCKET)
    return context.subscriber


def _gone(channel: str, token: str, reason: str) -> RpcError:
    data = {"channel": channel, "token": token[:256], "reason": reason}
    return RpcError(ErrorCode.RESUME_GONE, f"cannot resume {channel}: {reason}", data)
