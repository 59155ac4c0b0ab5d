"""The margin tool against the floating-point reference: shared vectors, random and hard cases; bad files."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.margin_cases import KINDS, random_case
from tools.margin_case import BadCase, load, margin_of, report

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
REFERENCE = SHARED / "reference" / "portfolio_margin.py"
VECTORS = SHARED / "vectors" / "portfolio_margin.json"
TOLERANCE = 1e-8
DOUBLE_NOISE = 4e-16
"""Of the largest product that the reference adds up in doubles: what its own figures may be off."""
CASES_OF_A_KIND = 40

needs_reference = pytest.mark.skipif(
    not REFERENCE.exists(), reason="shared/reference is not beside this checkout: nothing to compare with"
)


def reference() -> Any:
    spec = importlib.util.spec_from_file_location("portfolio_margin_reference", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ours(case: dict[str, Any]) -> dict[str, Any]:
    return report(margin_of(load(json.dumps({"case": case}))))


def assert_close(got: dict[str, Any], expected: dict[str, Any], slack: float = 0.0) -> None:
    for name, value in expected.items():
        values = value if isinstance(value, list) else [value]
        found = got[name] if isinstance(value, list) else [got[name]]
        assert len(found) == len(values)
        for a, b in zip(found, values, strict=True):
            assert abs(a - b) <= TOLERANCE * max(1, abs(b)) + slack, (name, a, b)


@pytest.mark.skipif(not VECTORS.exists(), reason="shared/vectors is not beside this checkout")
def test_shared_vectors() -> None:
    for each in json.loads(VECTORS.read_text())["cases"]:
        assert_close(ours(each["case"]), each["expected"])


@needs_reference
@pytest.mark.parametrize("kind", KINDS)
def test_random_cases(kind: str) -> None:
    module = reference()
    for seed in range(CASES_OF_A_KIND):
        case = random_case(random.Random(f"{kind} {seed}"), kind, module.DEFAULT_PARAMETERS)
        # Where a million coins, or strikes of a thousand forwards, cancel to cents, doubles are noise.
        products = [
            abs(option["amount"]) * max(option["strike"], expiry["forward"])
            for expiry in case["expiries"]
            for option in expiry["options"]
        ]
        slack = DOUBLE_NOISE * sum(products) if kind in ("large", "crash") else 0.0
        assert_close(ours(case), module.margin(case), slack)


def rounded(value: Any) -> Any:
    """A case in the exchange's units: prices, money and amounts to 10^-6, the rest as it is."""
    if isinstance(value, list):
        return [rounded(each) for each in value]
    if not isinstance(value, dict):
        return value
    whole = ("spot", "cash", "price", "amount", "unrealised_pnl", "unrealised_funding", "forward", "strike")
    return {
        name: round(each, 6) if name in whole else rounded(each) if name != "parameters" else each
        for name, each in value.items()
    }


@needs_reference
@pytest.mark.parametrize("kind", ["plain", "last-minutes", "far-strikes", "hedged"])
def test_random_cases_in_the_exchange_s_units(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through packed rows: right to some uusd, one for each component that is rounded."""
    module = reference()
    monkeypatch.setattr("tools.margin_case.UNIT", 10**6)
    monkeypatch.setattr("tools.margin_case.LOT", 10**6)
    monkeypatch.setattr("state.expiry_sums.plain_sums", None)
    for seed in range(15):
        case = rounded(random_case(random.Random(f"units {kind} {seed}"), kind, module.DEFAULT_PARAMETERS))
        for expiry in case["expiries"]:
            expiry["svi"][5] = round(expiry["svi"][5], 6)
        assert_close(ours(case), module.margin(case), 15e-6)


@needs_reference
def test_default_parameters_are_the_reference_s() -> None:
    module = reference()
    case = random_case(random.Random(1), "plain", module.DEFAULT_PARAMETERS)
    assert ours(case) == ours(case | {"parameters": "default"})


def good_case() -> dict[str, Any]:
    """Small, with everything in it."""
    scenarios = [{"spot": 1.1, "vol": "up", "damp": 1.0}, {"spot": 1.0, "vol": "abs", "damp": 0.5}]
    zeros = {
        "vol_shock": "range_up range_down floor_up power_short power_long days_floor",
        "margin": "im_factor mm_factor static_long static_short long_rate_mult long_rate_add "
        "short_rate_mult short_rate_add",
        "contingency": "mm_perp im_perp mm_option im_option confidence_threshold confidence_margin "
        "peg_threshold peg_factor",
        "skew": "linear_cap linear_base abs_cap abs_base min_k_star width_scale vol_static vol_scale",
        "basis": "spot_up spot_down add mult",
    }
    groups = {group: dict.fromkeys(names.split(), 0.5) for group, names in zeros.items()}
    return {
        "spot": 100.0,
        "spot_confidence": 1,
        "stable_price": 1,
        "cash": 10,
        "perp": {"amount": 1, "price": 100, "confidence": 1, "unrealised_pnl": 0, "unrealised_funding": 0},
        "collaterals": [
            {
                "amount": 1,
                "price": 100,
                "confidence": 1,
                "im_haircut": 0.1,
                "mm_haircut": 0.1,
                "offsets_risk": True,
            }
        ],
        "expiries": [
            {
                "seconds": 86_400,
                "forward": 100,
                "forward_confidence": 1,
                "rate": 0.01,
                "rate_confidence": 1,
                "vol_confidence": 1,
                "svi": [0.001, 0.01, -0.1, 0, 0.1, 100, 0.003],
                "options": [{"strike": 100, "is_call": True, "amount": -1}],
            }
        ],
        "parameters": {"scenarios": scenarios, **groups},
    }


def replaced(path: str, value: Any) -> dict[str, Any]:
    """The good case with one place changed; a value of `...` deletes it."""
    case = good_case()
    *parts, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = case
    for part in parts:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return case


def test_the_good_case_is_good() -> None:
    assert set(ours(good_case())) >= {
        "initial_margin",
        "maintenance_margin",
        "mark_to_market",
        "scenario_pnl",
        "basis_contingency",
    }


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spot", ..., "spot is missing"),
        ("spot", "100", "a number is expected"),
        ("spot", 0, "out of bounds"),
        ("spot", 1e30, "out of bounds"),
        ("stable_price", 0, "out of bounds"),
        ("perp", [], "an object is expected"),
        ("expiries", {}, "an array is expected"),
        ("expiries.0.forward", -1, "out of bounds"),
        ("expiries.0.seconds", 1e10, "time to expiry"),
        ("expiries.0.svi", [1, 2], "seven numbers"),
        ("expiries.0.svi.6", 0, "out of bounds"),
        ("expiries.0.svi.2", 128, "out of bounds"),
        ("expiries.0.options.0.strike", 0, "out of bounds"),
        ("expiries.0.options.0.is_call", "yes", "true or false"),
        ("expiries.0.options.0.amount", None, "a number is expected"),
        ("collaterals.0.offsets_risk", 2, "true or false"),
        ("parameters", "standard", "an object is expected"),
        ("parameters.scenarios", [], "scenarios: 1 to 64"),
        ("parameters.scenarios.0.spot", 33, "number 0 is out of bounds"),
        ("parameters.scenarios.0.vol", "sideways", "one of none, up, down, linear, abs"),
        ("parameters.basis.spot_down", -0.1, "basis_down: out of bounds"),
        ("parameters.skew.min_k_star", 0, "min_k_star"),
        ("parameters.margin.im_factor", True, "a number is expected"),
    ],
)
def test_bad_cases(path: str, value: Any, message: str) -> None:
    with pytest.raises(BadCase, match=message):
        ours(replaced(path, value))


def test_too_many_options() -> None:
    option = good_case()["expiries"][0]["options"][0]
    assert ours(replaced("expiries.0.options", [option] * 127))
    with pytest.raises(BadCase, match="more than 128 instruments"):
        ours(replaced("expiries.0.options", [option] * 128))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        '{"cases": []}',
        '{"case": NaN}',
        '{"case": 1e999999999}',
        '{"case": ' + "9" * 5_000 + "}",
    ],
)
def test_what_is_no_case(text: str) -> None:
    with pytest.raises(BadCase):
        margin_of(load(text))


def run(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.margin_case", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    path.write_text(json.dumps({"case": good_case()}))
    done = run(path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ours(good_case())
    path.write_text(json.dumps({"case": replaced("spot", "x")}))
    bad, missing = run(path), run(tmp_path / "none.json")
    path.write_bytes(b"\xff\xfe")
    for done in (bad, missing, run(path)):
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("margin_case: ")
        assert "Traceback" not in done.stderr
    assert "$.case.spot: a number is expected" in bad.stderr
