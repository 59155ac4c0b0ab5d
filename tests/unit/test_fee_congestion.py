"""A flood of orders: what is scarce gets dearer and nothing else does; bids decide who waits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from state.leaves import FeeTerms
from state.units import MS_PER_S
from tools.fee_congestion import BLOCK_MS, Venue, bands, flood, main, plot, resources

AFTER_S = 32
"""Longer than anybody waits."""


@pytest.fixture(scope="module")
def venue() -> Venue:
    return flood(3, AFTER_S)


def test_the_flooded_resource_alone_gets_dearer(venue: Venue) -> None:
    """iFEE_003, iFEE_004"""
    execution, data, growth = resources(venue.blocks)
    assert execution.highest_pusd * 10 > execution.quiet_pusd * 13
    for other in (data, growth):
        assert other.quiet_pusd == other.highest_pusd == other.last_pusd > 0
    terms = FeeTerms()
    prices = [block.prices_pusd[0] for block in venue.blocks]
    step = 2.718281828459046 ** ((terms.burst - 1) * BLOCK_MS / MS_PER_S / terms.inertia_s)
    assert all(after <= before * step + 1 for before, after in pairwise(prices))


def test_who_bids_more_waits_less_and_pays_at_most_the_bid(venue: Venue) -> None:
    found = bands(venue)
    shares = [band.outcomes.get("included", 0) / band.sent for band in found]
    assert shares[-1] > 0.9
    assert max(shares[:-1]) < 0.5
    waits = [band.wait_s_median for band in found]
    assert waits[-1] is not None
    assert all(wait is not None and waits[-1] < wait for wait in waits[:-1])
    assert found[0].paid_uusd_mean == 0
    assert all(sent.paid_uusd <= sent.bid_uusd for sent in venue.sent)


def test_everybody_is_accounted_for(venue: Venue) -> None:
    outcomes = {sent.outcome for sent in venue.sent}
    assert {"included", "expired"} <= outcomes
    assert sum(sent.outcome == "waiting" for sent in venue.sent) == venue.blocks[-1].waiting
    included = sum(sent.outcome == "included" for sent in venue.sent)
    assert included == sum(block.included for block in venue.blocks)
    short = bands(flood(3, 0))
    assert short[0].outcomes["waiting"] > 0
    assert short == bands(flood(3, 0))


def test_the_plot_and_the_command(
    venue: Venue, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flood.png"
    plot(venue, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("tools.fee_congestion.flood", lambda seed: venue)
    main(3, True)
    assert '"name":"execution"' in capsys.readouterr().out
    main(3, False)
    assert "base price of" in capsys.readouterr().out
