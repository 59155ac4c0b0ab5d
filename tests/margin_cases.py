"""Random portfolios in the format of the floating-point reference, ordinary ones and hard ones."""

from __future__ import annotations

import random
from typing import Any

Case = dict[str, Any]
DAYS = (0.0, 1e-5, 0.0001, 0.005, 0.01, 0.02, 0.0208, 0.1, 0.4, 1, 3, 9, 29.99, 30, 30.01, 61, 120, 300, 900)
KINDS = (
    "plain",
    "last-minutes",
    "far-strikes",
    "no-vol",
    "huge-vol",
    "hedged",
    "large",
    "parameters",
    "crash",
)


def option(rng: random.Random, kind: str, forward: float) -> Case:
    """One option."""
    low, high = {"far-strikes": (0.01, 20), "crash": (1, 5_000)}.get(kind, (0.6, 1.6))
    size = 1e6 if kind == "large" else 20
    digits = 0 if forward > 100 else 4
    strike = round(forward * rng.uniform(low, high), digits)
    if kind == "hedged" and rng.random() < 0.3:
        strike = round(forward, digits)
    return {"strike": strike, "is_call": rng.random() < 0.5, "amount": round(rng.uniform(-size, size), 3)}


def expiry(rng: random.Random, kind: str, spot: float, count: int) -> Case:
    """An expiry with `count` options, sometimes several at one strike."""
    days = rng.choice(DAYS[:8] if kind == "last-minutes" else DAYS) * rng.uniform(0.9, 1.1)
    seconds: float = round(days * 86_400)
    if kind == "last-minutes":
        seconds = rng.choice([0, 1, 5, 59, 900, 1_799, 1_800, 1_801, -3, 0.25, seconds])
    tau = max(seconds, rng.choice([1, 60, 3_600])) / 31_536_000
    atm = {"no-vol": 1e-4, "huge-vol": rng.uniform(3, 40)}.get(kind, rng.uniform(0.35, 1.1))
    wing = rng.uniform(0.02, 0.12) * tau**0.5 * (1e-6 if kind == "no-vol" else 1)
    forward = spot * rng.uniform(0.99, 1.03)
    reference = forward * rng.choice([1, rng.uniform(0.8, 1.2)])
    svi = [
        atm * atm * tau * 0.7,
        wing,
        rng.uniform(-0.5, 0.2),
        rng.uniform(-0.05, 0.05),
        rng.uniform(0.05, 0.3),
    ]
    options = [option(rng, kind, forward) for _ in range(count)]
    if kind == "hedged":
        options += [each | {"amount": -each["amount"]} for each in options[::2]]
        options += [each | {"is_call": not each["is_call"]} for each in options[1::2]]
    return {
        "seconds": seconds,
        "forward": forward,
        "forward_confidence": rng.choice([1.0, 0.55, 0.3]),
        "rate": rng.choice([rng.uniform(0, 0.12), 0.0, -0.05]),
        "rate_confidence": rng.choice([1.0, 0.2]),
        "vol_confidence": rng.choice([1.0, 0.9, 0.4]),
        "svi": [*svi, reference, tau],
        "options": options,
    }


def weird_parameters(rng: random.Random, default: Case) -> Case:
    """Other scenarios, all other numbers moved."""
    found: Case = {
        group: {name: value * rng.uniform(0.3, 1.7) for name, value in default[group].items()}
        for group in ("vol_shock", "margin", "contingency", "skew")
    }
    found["basis"] = {"spot_up": rng.uniform(1, 2), "spot_down": rng.uniform(0, 1), "add": 0.3, "mult": 1.1}
    found["skew"]["vol_scale"] = rng.uniform(-0.1, 0.3)
    found["margin"]["long_rate_mult"] = rng.uniform(-1, 2)
    found["margin"]["short_rate_mult"] = rng.uniform(-1, 2)
    kinds = ("up", "none", "down", "linear", "abs")
    found["scenarios"] = [
        {
            "spot": rng.choice([0.0, 1.0, rng.uniform(0, 9)]),
            "vol": rng.choice(kinds),
            "damp": rng.uniform(0, 1.3),
        }
        for _ in range(rng.randint(1, 40))
    ]
    return found


def random_case(rng: random.Random, kind: str, default: Case, most_options: int = 80) -> Case:
    """A case with its parameters inline."""
    spot = rng.choice([0.03, 2_600.0, 96_000.0]) * rng.uniform(0.8, 1.2)
    expiries = []
    left = rng.randint(0, most_options // 2 if kind == "hedged" else most_options)
    while left > 0:
        count = min(left, rng.randint(1, 24))
        expiries.append(expiry(rng, kind, spot, count))
        left -= count
    collaterals = [
        {
            "amount": rng.uniform(0, 30),
            "price": rng.choice([spot, 1.0]) * rng.uniform(0.97, 1.01),
            "confidence": rng.choice([1.0, 0.4]),
            "im_haircut": rng.uniform(0, 0.2),
            "mm_haircut": rng.uniform(0, 0.1),
            "offsets_risk": rng.random() < 0.5,
        }
        for _ in range(rng.randint(0, 3))
    ]
    perp = {
        "amount": rng.choice([0.0, round(rng.uniform(-30, 30), 3)]),
        "price": spot * rng.uniform(0.998, 1.002),
        "confidence": rng.choice([1.0, 0.5]),
        "unrealised_pnl": rng.uniform(-1e4, 1e4),
        "unrealised_funding": rng.uniform(-50, 50),
    }
    return {
        "spot": spot,
        "spot_confidence": rng.choice([1.0, 0.5]),
        "stable_price": rng.choice([1.0, 0.97, 1.02]),
        "cash": rng.uniform(-1e5, 1e6),
        "perp": perp,
        "collaterals": collaterals,
        "expiries": expiries,
        "parameters": weird_parameters(rng, default) if kind == "parameters" else default,
    }
