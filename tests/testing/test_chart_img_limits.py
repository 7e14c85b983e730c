"""Plans: sizes, studies, rates and days."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.testing.chart_img import (
    BASIC,
    ENTERPRISE,
    MEGA,
    PLANS,
    PRO,
    ULTRA,
    Plan,
)
from engine.testing.chart_img.allowance import Allowance
from engine.testing.chart_img.request_rules import ChartRequest, read_request
from tests.testing.conftest import KEY, RICH, TEN_O_CLOCK, Client


@pytest.mark.parametrize(
    ("plan", "row"),
    [
        (BASIC, ("BASIC", 1, 3, 50, 800, 600, 3)),
        (PRO, ("PRO", 10, 15, 500, 1920, 1080, 5)),
        (MEGA, ("MEGA", 15, 25, 1000, 1920, 1600, 10)),
        (ULTRA, ("ULTRA", 35, 50, 3000, 2048, 1920, 25)),
        (ENTERPRISE, ("ENTERPRISE", 35, 50, 5000, 2048, 1920, 50)),
    ],
    ids=[*PLANS],
)
def test_a_plan_has_the_limits_of_its_row_and_holds_them(plan: Plan, row: tuple[Any, ...]) -> None:
    name, rate, burst, daily, width, height, parameters = row
    studies = [{"name": "Volume"}] * parameters

    assert plan == replace(PLANS[name], per_second=rate, burst=burst, daily=daily)
    assert isinstance(read_request({"width": width, "height": height, "studies": studies}, plan), ChartRequest)
    too_wide, too_high = read_request({"width": width + 1}, plan), read_request({"height": height + 1}, plan)
    too_full = read_request({"studies": studies, "drawings": [{"name": "Text", "input": {}}]}, plan)
    resolution = {"message": f"Exceed Max Usage Resolution Limit ({width}x{height})"}
    assert [(one.status, one.body) for one in (too_wide, too_high) if not isinstance(one, ChartRequest)] == [
        (403, resolution),
        (403, resolution),
    ]
    assert not isinstance(too_full, ChartRequest)
    assert (too_full.status, too_full.body) == (403, {"message": f"Exceed Max Usage Parameter Limit ({parameters})"})


def test_basic_plan_refuses_a_fourth_study(client: Client) -> None:
    response = client.chart({"studies": [{"name": "Volume"}] * 4}, key=KEY)

    assert (response.status_code, response.json()) == (403, {"message": "Exceed Max Usage Parameter Limit (3)"})


def test_basic_plan_refuses_a_watermark_of_its_own(client: Client) -> None:
    assert client.chart({"watermark": "mine"}, key=KEY).status_code == 403
    assert client.chart({"watermark": "mine"}, key=RICH).status_code == 200


def test_a_bad_field_is_told_before_a_plan_limit(client: Client) -> None:
    assert client.chart({"width": 5000, "theme": "pink"}, key=KEY).status_code == 422


def test_the_rate_allows_a_burst_then_one_call_a_second(client: Client) -> None:
    statuses = [client.chart(key=KEY).status_code for _ in range(4)]
    client.clock.now += 0.999
    early = client.chart(key=KEY)
    client.clock.now += 0.001
    on_time = client.chart(key=KEY)

    assert statuses == [200, 200, 200, 429]
    assert (early.status_code, early.json()) == (429, {"message": "Too Many Requests"})
    assert on_time.status_code == 200
    assert client.chart(key=KEY).status_code == 429


def test_a_refused_request_spends_rate_but_no_quota(client: Client) -> None:
    statuses = [client.chart({"width": 1}, key=KEY).status_code for _ in range(4)]

    assert statuses == [422, 422, 422, 429]
    assert client.simulator.used_today(KEY) == 0


def test_an_unknown_key_spends_nothing(client: Client) -> None:
    assert [client.chart(key="nobody").status_code for _ in range(5)] == [403] * 5


def test_the_daily_limit_ends_at_utc_midnight() -> None:
    client = Client({KEY: replace(BASIC, daily=2, burst=99)})
    statuses = [client.chart(key=KEY).status_code for _ in range(2)]
    spent = client.chart(key=KEY)
    client.clock.now = TEN_O_CLOCK + 14 * 3600 - 1
    last_second = client.chart(key=KEY)
    client.clock.now += 1

    assert statuses == [200, 200]
    assert (spent.status_code, spent.json()) == (429, {"message": "Limit Exceeded"})
    assert last_second.status_code == 429
    assert client.chart(key=KEY).status_code == 200
    assert client.simulator.used_today(KEY) == 1


def test_failures_spend_the_quota_when_asked_to() -> None:
    client = Client({KEY: replace(BASIC, daily=1, burst=99)}, count_failures=True)

    assert client.chart({"width": 1}, key=KEY).status_code == 422
    assert client.chart(key=KEY).json() == {"message": "Limit Exceeded"}


def test_a_unit_of_yesterday_is_not_given_back_today() -> None:
    allowance = Allowance(replace(BASIC, daily=1), TEN_O_CLOCK)
    assert allowance.reserve(TEN_O_CLOCK)
    assert allowance.reserve(TEN_O_CLOCK + 86_400)

    allowance.give_back(TEN_O_CLOCK)

    assert allowance.used_today == 1
    allowance.give_back(TEN_O_CLOCK + 86_400)
    assert allowance.used_today == 0


def test_accounts_do_not_share_rate_or_quota(client: Client) -> None:
    for _ in range(4):
        client.chart(key=KEY)

    assert client.chart(key=RICH).status_code == 200
    assert (client.simulator.used_today(KEY), client.simulator.used_today(RICH)) == (3, 1)


def test_any_key_lets_every_key_in_at_the_default_plan() -> None:
    client = Client({}, any_key=True, default_plan=PRO)

    assert client.chart({"width": 1920, "height": 1080}, key="anybody").status_code == 200
    assert client.chart({"width": 1921}, key="anybody").status_code == 403
    assert client.chart(key=None).status_code == 403
