"""What an account and the instruments tell over a WebSocket: triggers, liquidations, an expiry settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sequencer.clock import wall_clock_ms
from state import wire
from state.actions import (
    Bid,
    Cancel,
    CancelTrigger,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    PlaceTrigger,
    Price,
    Side,
    SignedAction,
    StartAuction,
    TriggerCondition,
    TriggerSource,
)
from state.block import L1Message, MessageKind
from state.calendar import Rule, expiry_name, next_expiry_s
from state.eip712 import action_digest, report_digest
from state.hashing import keccak
from state.leaves import Terms
from state.oracle import FeedKind
from state.series import FUTURES
from state.signatures import sign
from tests.integration.node_fixture import (
    COIN,
    DOMAIN,
    INSTRUMENT,
    LOT,
    MARKET,
    PPM,
    PRICE,
    PUBLISHER_SECRETS,
    USD,
    Running,
    Trader,
    replace_signature,
    running_node,
)
from tests.integration.ws_fixture import Socket, open_socket
from tools.exchange import l1_origin
from tools.option_exchange import series_message

HEARTBEAT_MS = 15 * 60_000
BEAT_MS = 12 * 60_000
WINDOW_MS = 30 * 60_000
HOUR_MS = 3_600_000


def traders(count: int = 2) -> list[Trader]:
    return [Trader(bytes([0x71 + number]) * 32, 0) for number in range(count)]


async def watch(socket: Socket, trader: Trader) -> str:
    """The trader's channel, joined; its snapshot is the account's money."""
    channel = f"account.{trader.account}"
    await socket.subscribe(channel)
    snapshot = await socket.next(channel)
    assert snapshot["account"] == trader.account
    assert {"cash_uusd", "equity_uusd", "initial_margin_uusd", "maintenance_margin_uusd"} <= snapshot.keys()
    return channel


def stop(trader: Trader, trigger_uusd: int, protect_uusd: int, size: int = COIN) -> PlaceTrigger:
    """Sells at the market when the mark falls there."""
    return PlaceTrigger(
        **trader.envelope(),
        order=Order(MARKET, Side.SELL, OrderKind.MARKET, protect_uusd, size, True),
        source=TriggerSource.MARK,
        condition=TriggerCondition.AT_OR_BELOW,
        trigger_uusd=trigger_uusd,
    )


async def test_what_becomes_of_triggers(tmp_path: Path) -> None:
    """Cancelled, fired and filled, fired and refused, gone with the position."""
    alice, bob = both = traders()
    async with running_node(tmp_path) as node, open_socket(node) as socket:
        await node.open_market(both)
        await node.send(bob.order(Side.SELL, PRICE, 2 * COIN))
        await node.send(alice.order(Side.BUY, PRICE, 2 * COIN))
        channel = await watch(socket, alice)
        at = PRICE * 97 // 100
        ids = []
        for trigger, size in ((at, COIN), (at - USD, COIN), (PRICE // 2, COIN), (PRICE // 3, COIN)):
            receipt = await node.send(alice.signed(stop(alice, trigger, PRICE * 91 // 100, size)))
            ids.append(receipt["operations"][0]["order_id"])
        cancel = CancelTrigger(**alice.envelope(), cancel=Cancel(MARKET, ids[3]))
        await node.send(alice.signed(cancel))
        await node.send(bob.order(Side.BUY, PRICE * 96 // 100, 2 * COIN))
        await node.send_prices(PRICE * 96 // 100)
        told: list[Any] = []
        fills: list[Any] = []
        while len(told) < 8:
            data = await socket.next(channel)
            assert {each["instrument_name"] for each in data["triggers"]} <= {INSTRUMENT}
            told += [(each["order_id"], each["end"], each["code"]) for each in data["triggers"]]
            fills += [each["order_id"] for each in data["fills"]]
        assert told[:5] == [*((each, "open", None) for each in ids), (ids[3], "cancelled", None)]
        assert sorted(told[5:]) == sorted(
            [
                (ids[0], "triggered", None),
                (ids[1], "triggered", None),
                (ids[2], "position-closed", None),
            ]
        )
        assert sorted(fills) == sorted(ids[:2])
        assert await node.call("straddle_getTriggers", account=alice.account) == []


async def test_a_liquidation_is_told_to_both_sides(tmp_path: Path) -> None:
    poor, seller, bidder = all_of_them = traders(3)
    async with running_node(tmp_path) as node, open_socket(node) as socket:
        await node.open_market(all_of_them)
        await node.send(seller.order(Side.SELL, PRICE, 60 * COIN))
        await node.send(poor.order(Side.BUY, PRICE, 60 * COIN))
        of_poor, of_bidder = await watch(socket, poor), await watch(socket, bidder)
        await node.send_prices(50_000 * USD)
        await node.send(seller.signed(StartAuction(**seller.envelope(), liquidated=poor.account)))
        (started,) = (await socket.next(of_poor, lambda data: data["liquidations"]))["liquidations"]
        assert (started["step"], started["auction"], started["account"]) == ("started", 1, poor.account)
        bid = {"liquidated": poor.account, "share_ppm": 50_000, "min_reward_uusd": 1}
        await node.send(bidder.signed(Bid(**bidder.envelope(), **bid)))
        told = [await socket.next(name, lambda data: data["liquidations"]) for name in (of_poor, of_bidder)]
        steps = {each["step"]: each for each in told[0]["liquidations"]}
        assert list(steps) == ["bid", "fee", "seized"]
        assert (steps["bid"]["other_account"], steps["bid"]["share_ppm"]) == (bidder.account, 50_000)
        assert steps["bid"]["amount_uusd"] == -steps["bid"]["other_amount_uusd"] < 0
        seized = steps["seized"]
        assert (seized["instrument_name"], seized["size_ulots"]) == (INSTRUMENT, -3 * COIN)
        assert [each for each in told[0]["liquidations"] if each["other_account"] == bidder.account] == (
            told[1]["liquidations"]
        )
        await node.send_prices(59_000 * USD)
        shown = await node.call("straddle_getAccount", account=bidder.account)
        assert [each["size_ulots"] for each in shown["positions"]] == [3 * COIN]


class Clock:
    """Wall time that can be put ahead; it begins an hour after an expiry, whenever the test is run."""

    def __init__(self) -> None:
        self.ahead_ms = (-wall_clock_ms() + 9 * HOUR_MS) % (24 * HOUR_MS)

    def __call__(self) -> int:
        return wall_clock_ms() + self.ahead_ms


class Dated:
    """A node on which a future on BTC trades that expires at the next 08:00 UTC."""

    def __init__(self, node: Running, clock: Clock) -> None:
        self.node, self.clock = node, clock
        self.expiry_s = next_expiry_s(Rule.DAILY, clock() // 1_000)
        self.name = expiry_name("BTC", self.expiry_s)
        self.names = {MARKET: INSTRUMENT}

    async def list(self) -> None:
        """By L1 messages, as a governor's."""
        terms = Terms(100_000, LOT, LOT, 1_000 * COIN, 200_000, 0, 0, 10_000 * USD)
        feeds = [
            b"%c%b" % (FeedKind.PRICE, name.encode().ljust(31, b"\0"))
            + HEARTBEAT_MS.to_bytes(4, "big")
            + bytes(4)
            for name in ("BTC", INSTRUMENT)
        ]
        messages = [L1Message(MessageKind.SET_FEED, b"\x01" * 20, 1, payload) for payload in feeds]
        messages.append(
            series_message("BTC", kinds=FUTURES, step_uusd=0, strikes=0, future=terms, option=None)
        )
        machine = self.node.node.opened.machine
        before = machine.system.inbox_next
        await self.node.node.inbox.put(messages, l1_origin(1))
        await self.node.until(lambda: machine.system.inbox_next == before + len(messages))
        await self.node.until(lambda: self.name in machine.markets.by_name)
        self.names[machine.markets.number_of(self.name)] = self.name

    async def report(self, price_uusd: int) -> Any:
        """Index, the perpetual's mark and, once it is listed, the forward, at one price."""
        prices = tuple(Price(feed, price_uusd, PPM) for feed in ("BTC", *self.names.values()))
        unsigned = OracleReport(self.clock() - 5, prices, bytes(64))
        digest = report_digest(DOMAIN, unsigned)
        reports = [replace_signature(unsigned, sign(digest, secret)) for secret in PUBLISHER_SECRETS[:2]]
        json = wire.to_json(OracleUpdate(tuple(reports)), self.names.__getitem__)
        return await self.node.client.call("straddle_sendOracleUpdate", json)

    async def order(self, trader: Trader, side: Side, price_uusd: int, size: int) -> Any:
        """In the future."""
        market = max(self.names)
        placed = Order(market, side, OrderKind.LIMIT, price_uusd, size)
        action = PlaceOrder(**trader.envelope(self.clock.ahead_ms // 1_000 + 60), order=placed)
        digest = action_digest(DOMAIN, action, lambda number: keccak(self.names[number].encode()))
        signed = SignedAction(action, sign(digest, trader.secret))
        return await self.node.send(wire.to_json(signed, self.names.__getitem__))

    async def travel(self, until_ms: int, price_uusd: int) -> None:
        """Time goes on; nothing of the settlement's window passes without a report that is fresh."""
        while self.clock() < until_ms:
            self.clock.ahead_ms += min(BEAT_MS, until_ms - self.clock())
            await self.report(price_uusd)


async def test_an_expiry_is_told_to_its_holders_and_to_all(tmp_path: Path) -> None:
    alice, bob = both = traders()
    clock = Clock()
    async with running_node(tmp_path, now_ms=clock) as node, open_socket(node) as socket:
        await node.open_market(both)
        await socket.subscribe("instruments")
        dated = Dated(node, clock)
        await dated.report(PRICE)
        await dated.list()
        listed = await socket.next("instruments")
        (event,) = listed["events"]
        assert (event["change"], event["instrument_name"]) == ("listed", dated.name)
        await dated.report(PRICE)
        trading = await socket.next("instruments")
        assert trading["events"][0]["change"] == "trading"
        await dated.order(bob, Side.SELL, PRICE, 2 * COIN)
        await dated.order(alice, Side.BUY, PRICE, 2 * COIN)
        channels = [await watch(socket, trader) for trader in both]
        expiry_ms = dated.expiry_s * 1_000
        clock.ahead_ms += expiry_ms - WINDOW_MS - BEAT_MS - clock()
        await dated.travel(expiry_ms + 1_000, PRICE + 500 * USD)
        for channel, size, gain in ((channels[0], 2 * COIN, 1_000), (channels[1], -2 * COIN, -1_000)):
            told = await socket.next(channel, lambda data: data.get("settlements"))
            assert told["settlements"] == [
                {
                    "instrument_name": dated.name,
                    "size_ulots": size,
                    "price_uusd": PRICE + 500 * USD,
                    "cash_uusd": gain * USD,
                }
            ]
        changes: list[str] = []
        while "settled" not in changes:
            told = await socket.next("instruments")
            changes += [each["change"] for each in told["events"] if each["expiry"] == event["expiry"]]
        assert list(dict.fromkeys(changes)) == ["expired", "priced", "settled"], "the instrument, then all"
