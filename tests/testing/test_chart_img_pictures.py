"""The pictures: what makes them differ, and that whatever is accepted can be drawn."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.testing.chart_img import (
    ENTERPRISE,
)
from engine.testing.chart_img.axes import time_labels
from engine.testing.chart_img.field_rules import SCALES, STYLES
from engine.testing.chart_img.market import INTERVALS, history, last_price
from engine.testing.chart_img.picture import draw_picture
from engine.testing.chart_img.request_rules import ChartRequest, is_symbol, read_request
from engine.testing.chart_img.studies import STUDIES
from tests.testing.conftest import PNG, Client


def test_the_same_request_gives_the_same_bytes_and_any_difference_shows(client: Client) -> None:
    base = {"symbol": "BINANCE:ETHUSDT", "interval": "4h"}
    changes: list[dict[str, Any]] = [
        {}, {"symbol": "BINANCE:BTCUSDT"}, {"interval": "1h"}, {"studies": [{"name": "MACD"}]}, {"theme": "dark"},
        {"style": "line"}, {"timezone": "Asia/Tokyo"}, {"range": "5D"}, {"override": {"showLegend": False}},
    ]  # fmt: skip
    differences = [{**base, **change} for change in changes]
    pictures = [client.chart(body).content for body in differences]

    assert len(set(pictures)) == len(differences)
    assert client.chart(base).content == pictures[0]
    assert Client().chart(base).content == pictures[0]


def test_all_intervals_of_a_symbol_end_at_one_plausible_price() -> None:
    assert {round(history("BINANCE:BTCUSDT", one).close[-1], 2) for one in INTERVALS} == {
        round(last_price("BINANCE:BTCUSDT"), 2)
    }
    assert 60_000 <= last_price("BINANCE:BTCUSDT") <= 100_000
    assert 2_600 <= last_price("BINANCE:ETHUSDT") <= 3_900


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_bar_is_a_possible_candle(interval: str) -> None:
    bars = history("KRAKEN:DOGEUSD", interval)

    assert list(bars.time) == sorted(set(bars.time))
    for o, h, low, c, volume in zip(bars.open, bars.high, bars.low, bars.close, bars.volume, strict=True):
        assert 0 < low <= min(o, c) <= max(o, c) <= h
        assert volume > 0


@pytest.mark.parametrize("interval", INTERVALS)
def test_labels_of_the_time_axis_never_touch(interval: str) -> None:
    times = list(history("BINANCE:BTCUSDT", interval).time[-100:])
    spacing = min(22.0, 730 / len(times))
    labels = time_labels(times, spacing, 66)

    assert len(labels) >= 2
    gaps = [(after.index - before.index) * spacing for before, after in itertools.pairwise(labels)]
    assert min(gaps) >= 45


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BINANCE:BTCUSDT", True),
        ("(A:B+C:D)/10", True),
        ("1/BINANCE:BTCUSDT", True),
        ("A:B-C:D*2^3", True),
        ("BTCUSDT", False),
        ("", False),
        ("10/2", False),
        ("A:B+", False),
        ("A:B C:D", False),
        ("()", False),
        ("A:B)(", False),
        ("A:B:C", False),
        (":B", False),
        ("A:", False),
        ("A:" + "B" * 300, False),
    ],
)
def test_a_symbol_is_an_exchange_and_a_ticker_or_a_formula_of_them(text: str, expected: bool) -> None:
    assert is_symbol(text) is expected


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    width=st.integers(400, 2048),
    height=st.integers(300, 1920),
    interval=st.sampled_from(INTERVALS),
    style=st.sampled_from(STYLES),
    scale=st.sampled_from(SCALES),
    studies=st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from([*STUDIES]), "forceOverlay": st.booleans()},
            optional={"input": st.dictionaries(st.sampled_from(["in_0", "length", "rows"]), st.integers(-5, 900))},
        ),
        max_size=12,
    ),
    shift=st.integers(1, 1000),
    theme=st.sampled_from(["light", "dark"]),
)  # fmt: skip
@example(  # a band below zero, on a scale that has no such place
    width=400, height=300, interval="3M", style="bar", scale="logarithmic",
    studies=[{"name": "Bollinger Bands", "forceOverlay": False}], shift=1, theme="light",
)  # fmt: skip
def test_whatever_is_accepted_can_be_drawn(shift: int, **body: Any) -> None:
    request = read_request({**body, "shiftLeft": shift, "symbol": "X:Y"}, ENTERPRISE)

    assert isinstance(request, ChartRequest)
    assert draw_picture(request).startswith(PNG)
