"""An expiry, seen in seconds: time travels to before its settlement window, through it in steps, and past it.

The settlement price is the average of the index over the half hour before 08:00 UTC, and a reported value
counts no longer than its heartbeat. So in the window no step is longer than that, and after each the
publishers report once more; nothing of the settlement is skipped, only the waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import trio

from l1_bridge.client import RpcClient
from sequencer.client import NodeClient
from state.units import SETTLEMENT_WINDOW_MS
from tools.devnet import INDEX_HEARTBEAT_MS
from tools.job_clock import JobClock
from tools.job_oracle import reported
from tools.option_market import all_of, dated
from tools.services import ServiceFailed

LATE_MS = 30_000
"""After the expiry, at the last stop."""
STEP_MS = INDEX_HEARTBEAT_MS * 5 // 6
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an expiry."""

    name: str
    price_usd: float
    options: int
    """Options of it, all settled."""
    positions: int
    """That accounts held in them and in the future, all turned into cash."""


def stops(now_ms: int, expiry_ms: int) -> Iterator[int]:
    """Times to travel to: the first before the settlement window, the last after the expiry."""
    last = expiry_ms + LATE_MS
    steps = -(-(SETTLEMENT_WINDOW_MS + LATE_MS) // STEP_MS)
    for left in range(steps, 0, -1):
        if last - left * STEP_MS > now_ms:
            yield last - left * STEP_MS
    yield last


async def see_expiry(
    clock: JobClock,
    l1: RpcClient,
    client: NodeClient,
    underlying: str,
    accounts: Sequence[int],
    tell: Callable[[str], None],
) -> Settled:
    """Sees the nearest expiry of the underlying through, until what is left can be traded again.

    `accounts` are all that may hold it; `tell` gets what is going on. Raises ServiceFailed if there is none.
    """
    listed = await dated(client, underlying)
    if not listed:
        raise ServiceFailed(f"no dated instrument on {underlying} is listed")
    expiry_ms = listed[0]["expiration_timestamp"]
    names = {each["instrument_name"] for each in listed if each["expiration_timestamp"] == expiry_ms}
    name = min(names, key=len)
    positions = await _held(client, accounts, names)
    stop = 0
    for stop in stops(clock(), expiry_ms):
        tell(f"{name}: L1's time travels to {_shown(stop)}")
        await clock.travel(l1, client, stop)
        await reported(client, [underlying], stop)
    tell(f"{name}: settling")
    while True:
        found = [each for each in await dated(client, underlying, True) if each["instrument_name"] in names]
        settled = [each for each in found if each["state"] == "settled"]
        if len(settled) == len(names) and not await _held(client, accounts, names):
            break
        await trio.sleep(LOOK_S)
    left = [each["instrument_name"] for each in await dated(client, underlying) if each["kind"] == "future"]
    await reported(client, left, stop)
    options = sum(each["kind"] == "option" for each in settled)
    return Settled(name, settled[0]["settlement_price"], options, positions)


async def _held(client: NodeClient, accounts: Sequence[int], names: set[str]) -> int:
    """How many positions these accounts have in these instruments."""
    found = await all_of(client, [("straddle_getAccount", {"account": number}) for number in accounts])
    held = [
        each["instrument_name"] for account in found for each in account["positions"] if each["size_ulots"]
    ]
    return sum(each in names for each in held)


def _shown(time_ms: int) -> str:
    """HH:MM:SS of UTC."""
    seconds = time_ms // 1_000 % 86_400
    return f"{seconds // 3_600:02}:{seconds // 60 % 60:02}:{seconds % 60:02} UTC"
