"""Request for quote over an exchange in memory: makers with real keys, calls as the port takes them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from sequencer.api_rfq import RfqApi
from sequencer.api_typed_data import TypedDataApi
from sequencer.checking import decode_sent
from sequencer.errors import RpcError
from sequencer.feed import Feed
from sequencer.jsonrpc import Context
from sequencer.machine import ExecutedBlock
from sequencer.markets import Markets
from sequencer.rfq import RfqLimits, Rfqs
from state.actions import CancelQuote, Leg, Quote
from state.eip712 import Domain, quote_digest
from state.signatures import address_of, sign
from state.typed_data import message
from tests.depth import chain_exchange, execution, quote_of, straddle
from tests.unit.test_blocks import at_marks
from tests.unit.test_feed import Sink
from tools.exchange import USD, l1_origin

DOMAIN = Domain(7, b"\x0c" * 20)
SECRETS = (b"\x51" * 32, b"\x52" * 32, b"\x53" * 32)
"""Of makers, whose accounts are 3, 4 and 5; the taker's is 2."""
TAKER = 2
MAKERS = (3, 4, 5)
FAIR = 7 * USD
"""A net price that the marks allow."""


class Bench:
    """What a node has of it, with `feed` and `sink`, a subscriber."""

    def __init__(self, cash_uusd: int = 1_000_000 * USD, **limits: int) -> None:
        self.exchange, self.markets = chain_exchange(2)
        for secret in SECRETS:
            self.exchange.deposit(address_of(secret), cash_uusd)
        self._began_ms, self._began = self.exchange.now_ms, trio.current_time()
        view, names = self.exchange.view, Markets(self.exchange.view)
        self.names = names
        self.feed = Feed(lambda name: self.rfqs.open_channel(name), max_subscriptions=64)
        self.rfqs = Rfqs(view, self.feed.publish, self.now_ms, RfqLimits(**limits))
        self.sink = Sink()
        context: Any = SimpleNamespace(
            domain=DOMAIN,
            machine=SimpleNamespace(view=view, markets=names),
            now_ms=self.now_ms,
            ingress=SimpleNamespace(decode=lambda sent: decode_sent(sent, names.number_of)),
        )
        methods = [*RfqApi(context, self.rfqs).methods(), *TypedDataApi(context).methods()]
        self._methods = {method.name: method for method in methods}
        self.legs = straddle(self.markets)
        """What the maker does in a good quote."""

    def now_ms(self) -> int:
        return self._began_ms + round((trio.current_time() - self._began) * 1_000)

    def call(self, name: str, peer: str = "taker", **params: Any) -> Any:
        """The result as a client has it."""
        method = self._methods[f"straddle_{name}"]
        decoded = method.decoder.decode(json.dumps(params).encode())
        answer = method.handler(decoded, Context(peer, lambda _: None))
        return json.loads(msgspec.json.encode(answer))

    def refused(self, name: str, **params: Any) -> dict[str, Any]:
        """The data of the error; nothing has changed in the state."""
        before = self.exchange.leaves()
        with pytest.raises(RpcError) as error:
            self.call(name, **params)
        assert self.exchange.leaves() == before
        return {"number": error.value.code, **error.value.data}

    def shown(self, legs: tuple[Leg, ...], turned: bool = False) -> list[Any]:
        """Legs as JSON; `turned`, the other side of them."""
        found = [message(leg, self.names.name_of) for leg in legs]
        other = {"buy": "sell", "sell": "buy"}
        return [each | {"side": other[each["side"]]} for each in found] if turned else found

    def ask(self, **more: Any) -> Any:
        """A request that good quotes answer."""
        return self.call("requestQuote", **({"legs": self.shown(self.legs, True)} | more))

    def quote(self, maker: int = MAKERS[0], net_uusd: int | None = None, **more: Any) -> Quote:
        """A good quote of this account, but for what is given. At the marks plus FAIR unless `net_uusd`."""
        self.exchange.now_ms = self.now_ms()
        legs = more.pop("legs", self.legs)
        net = self.at_marks(legs) + FAIR if net_uusd is None else net_uusd
        return quote_of(self.exchange, legs, net, maker, **more)

    def at_marks(self, legs: tuple[Leg, ...]) -> int:
        return at_marks(self.exchange, legs)

    def signed(self, quote: Quote, secret: bytes | None = None) -> dict[str, Any]:
        """`quote` and `signature` as they are sent; by its account's key unless `secret`."""
        if secret is None:
            secret = SECRETS[MAKERS.index(quote.account)]
        signature = sign(quote_digest(DOMAIN, quote, self.names.name_hash_of), secret)
        return {"quote": message(quote, self.names.name_of), "signature": "0x" + signature.hex()}

    def send(self, quote: Quote, rfq: Any = None) -> Any:
        """Signs and sends it, to the request that `ask` answered."""
        more = {} if rfq is None else {"rfq": rfq["rfq"]}
        return self.call("sendQuote", **self.signed(quote), **more)

    def nets(self, rfq: Any, which: str = "quotes") -> list[int]:
        """Net prices of the quotes to a request, as they are listed."""
        found = self.call("getQuotes", rfq=rfq["rfq"], key=rfq["key"])
        return [each["quote"]["net_uusd"] for each in found[which]]

    def execute(self, quote: Quote, taker: int = TAKER) -> None:
        """In a block, which is told of."""
        self.exchange.now_ms = self.now_ms()
        self._sealed(execution(self.exchange, quote, taker))

    def cancel(self, quote: Quote) -> None:
        """By CancelQuote, in a block that is told of."""
        self.exchange.now_ms = self.now_ms()
        fields = {"quote_nonce": quote.nonce, "quote_expiry_s": quote.expiry_s}
        envelope = self.exchange.envelope(quote.account)
        self._sealed(self.exchange.sign(CancelQuote(**envelope, **fields)))

    def _sealed(self, transaction: Any) -> None:
        self.exchange.send(transaction)
        self.rfqs.sealed(ExecutedBlock(self.exchange.results[-1], 1, l1_origin(1), (), (), (transaction,)))

    def told(self, channel: str) -> list[Any]:
        """What was published there to the sink, in order, numbered without gaps."""
        mine = [each for each in self.sink.got if each["channel"] == channel]
        assert [each["seq"] for each in mine] == list(range(mine[0]["seq"], mine[0]["seq"] + len(mine)))
        return [each["data"] for each in mine]
