"""Channels: numbering, resuming, bounds, slow subscribers (iFEED_...)."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from sequencer.errors import ErrorCode, RpcError
from sequencer.feed import Feed, FeedLimits
from tests.unit.server_fixture import check_channel

SEED = 7_2024


class Sink:
    """A subscriber that keeps what it is sent, up to `size` messages."""

    def __init__(self, size: int = 1000) -> None:
        self.size = size
        self.got: list[dict[str, Any]] = []
        self.frames: list[bytes] = []

    def push(self, frame: bytes) -> bool:
        if self.room() <= 0:
            return False
        self.frames.append(frame)
        message = json.loads(payload(frame))
        assert (message["jsonrpc"], message["method"]) == ("2.0", "subscription")
        self.got.append(message["params"])
        return True

    def room(self) -> int:
        return self.size - len(self.got)

    def seqs(self) -> list[int]:
        return [params["seq"] for params in self.got]


def payload(frame: bytes) -> bytes:
    """The payload of an unmasked text frame."""
    assert frame[0] == 0x81
    return frame[2:] if frame[1] < 126 else frame[4:]


def new_feed(**limits: int) -> Feed:
    return Feed(check_channel, max_subscriptions=8, limits=FeedLimits(**limits))


def refused(
    code: ErrorCode, feed: Feed, sink: Sink, names: list[str], resume: dict[str, str]
) -> dict[str, object]:
    with pytest.raises(RpcError) as caught:
        feed.subscribe(sink, names, resume)
    assert caught.value.code == code
    return caught.value.data


def test_nobody_subscribed_nothing_kept() -> None:
    feed = new_feed()
    assert not feed.is_wanted("trades.X")
    assert feed.publish("trades.X", [1]) is None


def test_messages_are_numbered_without_gaps_and_shared() -> None:
    """iFEED_001; one encoding for all."""
    feed, one, two = new_feed(), Sink(), Sink()
    assert feed.subscribe(one, ["trades.X"], {}).keys() == {"trades.X"}
    assert feed.publish("trades.X", {"n": 1}) == 1
    feed.subscribe(two, ["trades.X"], {})
    assert feed.publish("trades.X", msgspec.Raw(b'{"n":2}')) == 2
    assert one.got == [
        {"channel": "trades.X", "seq": 1, "prev": 0, "data": {"n": 1}},
        {"channel": "trades.X", "seq": 2, "prev": 1, "data": {"n": 2}},
    ]
    assert two.got == one.got[1:]
    assert two.frames[0] is one.frames[1]


def test_snapshot_joins_the_numbering() -> None:
    feed, one, two = new_feed(), Sink(), Sink()
    feed.subscribe(one, ["book.X"], {})
    assert one.got == [{"channel": "book.X", "seq": 0, "prev": None, "data": {"snapshot_of": "book.X"}}]
    feed.publish("book.X", 1)
    feed.subscribe(two, ["book.X"], {})
    feed.publish("book.X", 2)
    assert [(params["seq"], params["prev"]) for params in two.got] == [(1, None), (2, 1)]
    feed.subscribe(two, ["book.X"], {})
    assert len(two.got) == 2


def test_resume_replays_exactly_what_was_missed() -> None:
    """iFEED_001 over random disconnections."""
    rng = random.Random(SEED)
    feed, token = new_feed(ring_messages=50), ""
    seen: list[int] = []
    for _ in range(200):
        sink = Sink()
        resume = {"trades.X": token} if token else {}
        tokens = feed.subscribe(sink, ["trades.X"], resume)
        token = token or tokens["trades.X"]
        for _ in range(rng.randint(0, 5)):
            feed.publish("trades.X", "live")
        seen += sink.seqs()
        name, epoch, _ = token.split(":")
        token = f"{name}:{epoch}:{len(seen)}"
        feed.forget(sink)
        for _ in range(rng.randint(0, 5)):
            feed.publish("trades.X", "missed")
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 500


@pytest.mark.parametrize(
    "token",
    [
        "trades.X:{epoch}:1",
        "trades.X:{epoch}:99",
        "trades.X:other:9",
        "trades.Y:{epoch}:9",
        "trades.X:{epoch}",
        "trades.X:{epoch}:-1",
        "trades.X:{epoch}:9x",
        "trades.X:{epoch}:" + "9" * 5000,
        "trades.X:{epoch}:²",
        "",
        ":::",
    ],
)
def test_bad_or_old_tokens_are_gone(token: str) -> None:
    feed, sink = new_feed(ring_messages=5), Sink()
    epoch = feed.subscribe(sink, ["trades.X"], {})["trades.X"].split(":")[1]
    for n in range(10):
        feed.publish("trades.X", n)
    again = Sink()
    data = refused(ErrorCode.RESUME_GONE, feed, again, ["trades.X"], {"trades.X": token.format(epoch=epoch)})
    assert data["channel"] == "trades.X"
    assert again.got == []
    feed.subscribe(again, ["trades.X"], {"trades.X": f"trades.X:{epoch}:5"})
    assert again.seqs() == [6, 7, 8, 9, 10]


def test_another_node_has_another_epoch() -> None:
    feeds = [new_feed(), new_feed()]
    tokens = [feed.subscribe(Sink(), ["trades.X"], {})["trades.X"] for feed in feeds]
    refused(ErrorCode.RESUME_GONE, feeds[0], Sink(), ["trades.X"], {"trades.X": tokens[1]})


def test_subscribing_is_all_or_nothing() -> None:
    """iFEED_002"""
    feed, sink = new_feed(), Sink()
    refused(ErrorCode.UNKNOWN_CHANNEL, feed, sink, ["trades.X", "nonsense"], {})
    refused(ErrorCode.UNKNOWN_CHANNEL, feed, sink, ["trades.X", "trades." + "y" * 200], {})
    refused(ErrorCode.RESUME_GONE, feed, sink, ["trades.X", "trades.Y"], {"trades.Y": "trades.Y:e:1"})
    refused(ErrorCode.INVALID_PARAMS, feed, sink, ["trades.X"], {"trades.Y": "trades.Y:e:1"})
    refused(ErrorCode.TOO_MANY_SUBSCRIPTIONS, feed, sink, [f"trades.{n}" for n in range(9)], {})
    assert feed.subscriber_count == 0
    assert not feed.is_wanted("trades.X")
    assert list(feed.subscribe(sink, ["trades.X", "trades.X"], {})) == ["trades.X"]


def test_replay_larger_than_the_queue_is_refused() -> None:
    feed = new_feed(ring_messages=100)
    token = feed.subscribe(Sink(), ["trades.X"], {})["trades.X"]
    for n in range(60):
        feed.publish("trades.X", n)
    refused(ErrorCode.RESUME_GONE, feed, Sink(size=50), ["trades.X"], {"trades.X": token})
    feed.subscribe(Sink(size=61), ["trades.X"], {"trades.X": token})


def test_rings_are_bounded_in_bytes() -> None:
    """iFEED_003"""
    feed = new_feed(ring_bytes=10_000)
    token = feed.subscribe(Sink(), ["trades.X"], {})["trades.X"]
    for _ in range(30):
        feed.publish("trades.X", "x" * 900)
    base = token.rpartition(":")[0]
    refused(ErrorCode.RESUME_GONE, feed, Sink(), ["trades.X"], {"trades.X": f"{base}:15"})
    sink = Sink()
    feed.subscribe(sink, ["trades.X"], {"trades.X": f"{base}:21"})
    assert sink.seqs() == list(range(22, 31))


def test_channels_are_bounded_and_the_longest_unused_goes() -> None:
    """iFEED_003"""
    feed, keeper, sink = new_feed(max_channels=3), Sink(), Sink()
    feed.subscribe(keeper, ["trades.kept"], {})
    token = feed.subscribe(sink, ["trades.a"], {})["trades.a"]
    feed.subscribe(sink, ["trades.b"], {})
    assert feed.unsubscribe(sink, ["trades.a", "trades.b", "trades.never"]) == ["trades.a", "trades.b"]
    feed.subscribe(sink, ["trades.c"], {})
    assert [feed.is_wanted(f"trades.{name}") for name in ("kept", "a", "b", "c")] == [True, False, True, True]
    refused(ErrorCode.RESUME_GONE, feed, sink, ["trades.a"], {"trades.a": token})
    feed.subscribe(sink, ["trades.a"], {})
    refused(ErrorCode.BUSY, feed, sink, ["trades.d"], {})
    assert feed.is_wanted("trades.kept")


def test_a_slow_subscriber_is_taken_off_everything() -> None:
    """iFEED_004"""
    feed, slow, quick = new_feed(), Sink(size=5), Sink()
    for sink in (slow, quick):
        feed.subscribe(sink, ["trades.X", "trades.Y"], {})
    for n in range(10):
        feed.publish("trades.X", n)
    assert slow.seqs() == [1, 2, 3, 4, 5]
    assert quick.seqs() == list(range(1, 11))
    assert (feed.subscriber_count, feed.dropped_slow) == (1, 1)
    feed.publish("trades.Y", 1)
    assert len(slow.got) == 5


@pytest.mark.parametrize("change", [{"max_channels": 0}, {"ring_messages": -1}, {"ring_bytes": True}])
def test_limits_are_validated(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        FeedLimits(**change)
