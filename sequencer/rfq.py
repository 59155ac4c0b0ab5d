"""Requests for quotes, kept in memory beside the state: who asks for what, and what makers have answered.

A request (RFQ) names legs as the taker would trade them. Makers see it on the channel `rfqs`, without the
account unless it was disclosed, and answer with signed quotes; these go to whoever holds the request's key,
by a call or on the channel `quotes.{rfq}.{key}`: no maker sees another's price. A quote to no request goes
to a board that all can see, channel `quotes`. Taking a quote is the action ExecuteQuote, as ever: nothing
here binds anybody but the signatures, which stay good until they expire or are cancelled in the state.

A restart forgets everything here. Numbers begin at the time of the start, so an old one is not met again.

- iRFQ_001 There are at most `max_rfqs` requests, `max_quotes` quotes of a side to each, `max_board` on the
  board; and of one connection, one maker on a request, one maker on the board as many as RfqLimits says.
- iRFQ_002 What has expired, was executed or was cancelled is not shown, and is forgotten within SWEEP_S.
- iRFQ_003 Of a side that is full the worst price gives way to a better one: the best are always there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
import trio

from sequencer.errors import ErrorCode, RpcError
from sequencer.feed import Snapshot
from sequencer.machine import ExecutedBlock
from state.actions import CancelQuote, Leg, Quote, SignedAction
from state.keys import quote_used_key
from state.units import MS_PER_S
from state.view import StateView
from state.wire_types import LegJson, QuoteJson

SWEEP_S: Final = 0.25
MAX_TTL_S: Final = 600
KEY_BYTES: Final = 16
RFQS: Final = "rfqs"
BOARD: Final = "quotes"
CHANNELS: Final = (RFQS, BOARD)
"""What the names of the channels here begin with."""

Publish = Callable[[str, object], object]


@dataclass(frozen=True, slots=True)
class RfqLimits:
    """See iRFQ_001."""

    max_rfqs: int = 256
    max_rfqs_of_source: int = 16
    """Of one WebSocket, or by HTTP of one address."""
    max_quotes: int = 32
    max_quotes_of_maker: int = 8
    max_board: int = 512
    max_board_of_maker: int = 16


class RfqView(msgspec.Struct, frozen=True):
    """A request as makers see it. `legs` are what the taker would do."""

    rfq: int
    legs: list[LegJson]
    account: int | None
    """The taker's, if he discloses it: a quote may then name it. Claimed, not proven."""
    created_ms: int
    expires_ms: int


class QuoteView(msgspec.Struct, frozen=True):
    """A quote with what ExecuteQuote needs of it: `quote`, and `signature` as `quote_signature`."""

    quote: QuoteJson
    signature: str
    received_ms: int


class QuotesView(msgspec.Struct, frozen=True):
    """What makers answered. Each list has the best net price for the taker first (the lowest `net_uusd`)."""

    rfq: int
    expires_ms: int
    quotes: list[QuoteView]
    """Of the other side of the request: taking one, the taker does what was asked for."""
    mirrored: list[QuoteView]
    """Of the same side: taking one, the taker does the reverse."""


class RfqEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """On `rfqs`: `opened` with the request, or `closed` with its number and why."""

    event: str
    rfq: int
    request: RfqView | None = None
    reason: str | None = None
    """expired, executed, cancelled."""


class QuoteEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """On `quotes...`: `quoted`, `withdrawn` with the reason, and of a request `closed` at last."""

    event: str
    quote: QuoteView | None = None
    mirrored: bool = False
    reason: str | None = None
    """expired, executed, cancelled; outbid, when a full side took a better one."""


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """A quote that is held. `place`: how many came before it."""

    digest: bytes
    quote: Quote
    view: QuoteView
    mirrored: bool
    place: int

    @property
    def rank(self) -> tuple[int, int]:
        """The smaller, the better for the taker."""
        return self.quote.net_uusd, self.place

    def is_open(self, now_ms: int) -> bool:
        return self.quote.expiry_s * MS_PER_S > now_ms


Offers = dict[bytes, Offer]
"""By digest."""


class Asked(NamedTuple):
    """What a taker asks for, once checked. `account` is 0, `owner` None, if he does not say who he is."""

    legs: tuple[Leg, ...]
    shown: list[LegJson]
    account: int = 0
    owner: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Rfq:
    """An open request. `source` is whose it is, as far as the node can tell."""

    view: RfqView
    key: str
    asked: Asked
    source: object
    offers: Offers = field(default_factory=dict)

    @property
    def channel(self) -> str:
        return f"{BOARD}.{self.view.rfq}.{self.key}"


def facing(asked: Iterable[Leg], quoted: Iterable[Leg]) -> bool | None:
    """Whether a quote's legs are a request's mirrored, that is the very same: its maker would do what the
    taker asked to do. False when they are the other side of it, None when neither. Order does not count."""
    wanted, offered = sorted(map(_terms, asked)), sorted(map(_terms, quoted))
    if wanted == offered:
        return True
    other = [(market, 1 - side, size) for market, side, size in wanted]
    return False if other == offered else None


def _terms(leg: Leg) -> tuple[int, int, int]:
    return leg.market, int(leg.side), leg.size_ulots


class Rfqs:
    """See the module's text. Used from the trio thread only; `run` forgets what has expired.

    `publish` is the feed's; what is given to `ask`, `answer` and `post` has been checked (`rfq_checks`).
    """

    def __init__(
        self, view: StateView, publish: Publish, now_ms: Callable[[], int], limits: RfqLimits | None = None
    ) -> None:
        self._view = view
        self._publish = publish
        self._now_ms = now_ms
        self._limits = limits or RfqLimits()
        self._open: dict[int, Rfq] = {}
        self._board: Offers = {}
        self._next_rfq = now_ms()
        self._arrivals = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(SWEEP_S)
            self.sweep()

    # Requests

    def ask(self, asked: Asked, disclosed: bool, ttl_s: int, source: object) -> Rfq:
        """Opens a request and tells makers, also whose it is if `disclosed`.

        Raises RpcError TOO_MANY_RFQS, BUSY.
        """
        limits = self._limits
        if sum(rfq.source == source for rfq in self._open.values()) >= limits.max_rfqs_of_source:
            raise RpcError(ErrorCode.TOO_MANY_RFQS, data={"limit": limits.max_rfqs_of_source})
        if len(self._open) >= limits.max_rfqs:
            raise RpcError(ErrorCode.BUSY, data={"queue": "rfqs", "limit": limits.max_rfqs})
        number, now_ms = self._next_rfq, self._now_ms()
        self._next_rfq += 1
        account = asked.account if disclosed else None
        view = RfqView(number, asked.shown, account, now_ms, now_ms + ttl_s * MS_PER_S)
        rfq = Rfq(view, secrets.token_hex(KEY_BYTES), asked, source)
        self._open[number] = rfq
        self._publish(RFQS, RfqEvent("opened", number, view))
        return rfq

    def find(self, number: int, key: str | None = None) -> Rfq:
        """The open request; for its taker, with the key. Raises RpcError NOT_FOUND."""
        rfq = self._open.get(number)
        known = rfq is not None and (key is None or secrets.compare_digest(key, rfq.key))
        if rfq is None or not known or rfq.view.expires_ms <= self._now_ms():
            raise RpcError(ErrorCode.NOT_FOUND, "there is no such open request", {"rfq": number})
        return rfq

    def cancel(self, number: int, key: str) -> None:
        """The taker wants no more quotes. Raises RpcError NOT_FOUND."""
        self._close(self.find(number, key), "cancelled")

    def open_rfqs(self) -> list[RfqView]:
        """All open requests, oldest first."""
        now_ms = self._now_ms()
        return [rfq.view for rfq in self._open.values() if rfq.view.expires_ms > now_ms]

    # Quotes

    def answer(self, rfq: Rfq, digest: bytes, quote: Quote, view: QuoteView) -> bool:
        """A quote to a request; whether it is mirrored. One that is held already changes nothing.

        Raises RpcError RFQ_LEGS_DIFFER, TOO_MANY_QUOTES, QUOTE_OUTBID.
        """
        mirrored = facing(rfq.asked.legs, quote.legs)
        if mirrored is None:
            raise RpcError(ErrorCode.RFQ_LEGS_DIFFER, data={"rfq": rfq.view.rfq})
        if digest in rfq.offers:
            return mirrored
        self._check_maker(rfq.offers, quote.account, self._limits.max_quotes_of_maker)
        offer = self._offer(digest, quote, view, mirrored)
        side = [each for each in rfq.offers.values() if each.mirrored == mirrored]
        if len(side) >= self._limits.max_quotes:
            worst = max(side, key=lambda each: each.rank)
            if offer.rank > worst.rank:
                raise RpcError(ErrorCode.QUOTE_OUTBID, data={"limit": self._limits.max_quotes})
            self._withdraw(rfq.offers, rfq.channel, worst, "outbid")
        rfq.offers[digest] = offer
        self._publish(rfq.channel, QuoteEvent("quoted", view, mirrored))
        return mirrored

    def post(self, digest: bytes, quote: Quote, view: QuoteView) -> None:
        """A quote to no request, for all to see. Raises RpcError TOO_MANY_QUOTES, BUSY."""
        if digest in self._board:
            return
        self._check_maker(self._board, quote.account, self._limits.max_board_of_maker)
        if len(self._board) >= self._limits.max_board:
            raise RpcError(ErrorCode.BUSY, data={"queue": "quotes", "limit": self._limits.max_board})
        self._board[digest] = self._offer(digest, quote, view, False)
        self._publish(BOARD, QuoteEvent("quoted", view))

    def quotes(self, rfq: Rfq) -> QuotesView:
        """What its taker can take now."""
        return QuotesView(
            rfq.view.rfq, rfq.view.expires_ms, self._best(rfq.offers, False), self._best(rfq.offers, True)
        )

    def board(self) -> list[QuoteView]:
        """Quotes to no request: those of the same legs together, best first."""
        now_ms = self._now_ms()
        offers = [each for each in self._board.values() if each.is_open(now_ms)]
        offers.sort(key=lambda each: (sorted(map(_terms, each.quote.legs)), each.rank))
        return [each.view for each in offers]

    def _best(self, offers: Offers, mirrored: bool) -> list[QuoteView]:
        now_ms = self._now_ms()
        found = [each for each in offers.values() if each.mirrored == mirrored and each.is_open(now_ms)]
        return [each.view for each in sorted(found, key=lambda each: each.rank)]

    def _offer(self, digest: bytes, quote: Quote, view: QuoteView, mirrored: bool) -> Offer:
        self._arrivals += 1
        return Offer(digest, quote, view, mirrored, self._arrivals)

    def _check_maker(self, offers: Offers, account: int, limit: int) -> None:
        if sum(each.quote.account == account for each in offers.values()) >= limit:
            raise RpcError(ErrorCode.TOO_MANY_QUOTES, data={"account": account, "limit": limit})

    # What ends them

    def sweep(self) -> None:
        """Forgets what has expired."""
        now_ms = self._now_ms()
        for rfq in list(self._open.values()):
            if rfq.view.expires_ms <= now_ms:
                self._close(rfq, "expired")
        for offers, channel, _ in self._places():
            for offer in list(offers.values()):
                if not offer.is_open(now_ms):
                    self._withdraw(offers, channel, offer, "expired")

    def sealed(self, block: ExecutedBlock) -> None:
        """A block is durable: forgets the quotes that it executed or cancelled, and the requests that got
        what they asked for."""
        if not (self._open or self._board):
            return
        takers = {
            (trade.maker_account, trade.maker_order_id): trade.taker_account
            for trade in block.result.trades
            if trade.block_trade
        }
        cancelled = set()
        for transaction in block.transactions:
            payload = transaction.payload
            if type(payload) is SignedAction and type(payload.action) is CancelQuote:
                cancelled.add((payload.action.account, payload.action.quote_nonce))
        if not (takers or cancelled):
            return
        for offers, channel, rfq in list(self._places()):
            for offer in list(offers.values()):
                quote = offer.quote
                place = quote.account, quote.nonce
                if (place not in takers and place not in cancelled) or not self._is_used(quote):
                    continue
                self._withdraw(offers, channel, offer, "executed" if place in takers else "cancelled")
                if rfq is not None and place in takers and rfq.asked.account in (0, takers[place]):
                    self._close(rfq, "executed")
                    break

    def _is_used(self, quote: Quote) -> bool:
        return self._view.get(quote_used_key(quote.expiry_s, quote.account, quote.nonce)) is not None

    def _places(self) -> Iterable[tuple[Offers, str, Rfq | None]]:
        """Wherever quotes are held: the quotes, their channel, the request."""
        yield self._board, BOARD, None
        for rfq in self._open.values():
            yield rfq.offers, rfq.channel, rfq

    def _withdraw(self, offers: Offers, channel: str, offer: Offer, reason: str) -> None:
        del offers[offer.digest]
        self._publish(channel, QuoteEvent("withdrawn", offer.view, offer.mirrored, reason))

    def _close(self, rfq: Rfq, reason: str) -> None:
        number = rfq.view.rfq
        del self._open[number]
        self._publish(rfq.channel, QuoteEvent("closed", reason=reason))
        self._publish(RFQS, RfqEvent("closed", number, reason=reason))

    # Channels

    def open_channel(self, name: str) -> Snapshot | None:
        """Checks a channel's name (feed.py's `OpenChannel`). Raises RpcError UNKNOWN_CHANNEL."""
        if name == RFQS:
            return self.open_rfqs
        if name == BOARD:
            return self.board
        kind, *rest = name.split(".")
        if kind == BOARD and len(rest) == 2 and rest[0].isascii() and rest[0].isdigit() and rest[1].isascii():
            try:
                return partial(self._snapshot, self.find(int(rest[0]), rest[1]))
            except RpcError:
                pass
        raise RpcError(ErrorCode.UNKNOWN_CHANNEL, data={"channel": name})

    def _snapshot(self, rfq: Rfq) -> Any:
        return self.quotes(rfq)
