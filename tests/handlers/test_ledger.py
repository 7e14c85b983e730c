"""The ledger: which account a call is reserved on, when it may be made, and what the documents say afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from engine.core.action import Decision
from engine.core.handler import ActionRequest
from engine.core.machine import Pool
from engine.core.secret import Secrets
from engine.core.write import apply
from engine.handlers.accounts import Account, AccountPools
from engine.handlers.ledger import Ledger, exhaust, rate_key, release, reserve, usage_key

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
TODAY, TOMORROW, YESTERDAY = "2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z", "2026-01-04T00:00:00Z"


class Books:
    """The ledger's documents, and the accounts of one pool."""

    def __init__(self, *accounts: Account, per_day: int = 44, per_second: float = 1, burst: int = 3, **usage) -> None:
        self.accounts = accounts
        self.pool = Pool("chart_img", "VARIABLE", per_day, per_second, burst)
        keys = [key("chart_img", one.id) for one in accounts for key in (usage_key, rate_key)]
        self.documents = dict.fromkeys(keys)
        for name, document in usage.items():
            self.documents[usage_key("chart_img", name)] = document

    def request(self, **params) -> ActionRequest:
        pools = AccountPools({"chart_img": self.accounts}, Secrets())
        return ActionRequest(
            {"pool": "chart_img", **params}, "run", "chart_request", "RESERVING", 1, "key", None,
            {"chart_img": self.pool}, {Ledger: Ledger(pools)}, lambda event, /, severity="INFO", **fields: None,
        )  # fmt: skip

    def apply(self, decision: Decision):
        for write in decision.writes:
            self.documents[write.key] = apply(write, self.documents[write.key])
        return decision.outcome

    def reserve(self, now: datetime = NOON):
        return self.apply(reserve(self.request(), self.documents, now))

    def exhaust(self, account: str, now: datetime = NOON):
        return self.apply(exhaust(self.request(account=account), self.documents, now))

    def usage(self, account: str):
        return self.documents[usage_key("chart_img", account)]


A, B = Account("a", "key-of-a"), Account("b", "key-of-b")


def test_a_missing_document_is_created_with_one_unit():
    books = Books(A)
    outcome = books.reserve()

    assert (outcome.name, outcome.value["account_id"], outcome.value["wait_s"]) == ("reserved", "a", 0.0)
    assert books.usage("a") == {"windowStart": TODAY, "usageToday": 1}


@pytest.mark.parametrize(
    ("window", "used"),
    [
        (TODAY, 8),
        (YESTERDAY, 1),
        (None, 1),
        ("nonsense", 1),
        (5, 1),
        ("2026-01-05T00:00:00+00:00", 8),
        ("2026-01-05T01:00:00+02:00", 1),  # still the 4th in UTC
        ("2026-01-04T23:00:00-05:00", 8),  # the 5th in UTC already
        (datetime(2026, 1, 5, tzinfo=UTC), 8),
        (TOMORROW, 8),  # a window that lies ahead is never reset
    ],
    ids=str,
)
def test_the_window_is_the_utc_day(window, used):
    books = Books(A, a={"windowStart": window, "usageToday": 7})
    books.reserve()

    assert books.usage("a")["usageToday"] == used


@pytest.mark.parametrize("used", [-3, "7", None, True, 1.5, [], {}], ids=repr)
def test_usage_that_is_no_count_is_zero(used):
    books = Books(A, a={"windowStart": TODAY, "usageToday": used})
    books.reserve()

    assert books.usage("a")["usageToday"] == 1


def test_other_fields_of_the_document_stay():
    books = Books(A, a={"windowStart": TODAY, "usageToday": 1, "priority": 3, "accountId": "a"})
    books.reserve()

    assert books.usage("a") == {"windowStart": TODAY, "usageToday": 2, "priority": 3, "accountId": "a"}


def test_accounts_are_used_in_the_order_of_their_list():
    assert Books(B, A).reserve().value["account_id"] == "b"


def test_an_account_at_its_limit_is_skipped():
    books = Books(A, B, a={"windowStart": TODAY, "usageToday": 44})
    outcome = books.reserve()

    assert (outcome.value["account_id"], outcome.value["exhausted_accounts"]) == ("b", ["a"])
    assert books.usage("a") == {"windowStart": TODAY, "usageToday": 44}


@pytest.mark.parametrize("used", [43, 44, 45])
def test_the_limit_holds_at_its_edges(used):
    outcome = Books(A, a={"windowStart": TODAY, "usageToday": used}).reserve()

    assert outcome.name == ("reserved" if used < 44 else "exhausted")


def test_the_document_s_limit_wins_over_the_account_s_and_that_over_the_pool_s():
    mine = Account("a", "key-of-a", daily_limit=5)

    assert Books(mine, a={"windowStart": TODAY, "usageToday": 9, "dailyLimit": 10}).reserve().name == "reserved"
    assert Books(mine, a={"windowStart": TODAY, "usageToday": 5}).reserve().name == "exhausted"
    assert Books(mine, a={"windowStart": TODAY, "usageToday": 4, "dailyLimit": True}).reserve().name == "reserved"
    assert Books(A, per_day=2, a={"windowStart": TODAY, "usageToday": 2}).reserve().name == "exhausted"


def test_all_exhausted_changes_nothing_and_names_them():
    books = Books(A, B, a={"windowStart": TODAY, "usageToday": 44}, b={"windowStart": TODAY, "usageToday": 50})
    before = dict(books.documents)
    decision = reserve(books.request(), books.documents, NOON)
    books.apply(decision)

    assert (decision.outcome.name, decision.outcome.value["exhausted_accounts"]) == ("exhausted", ["a", "b"])
    assert {write.key.id for write in decision.writes} == {"a", "b"}  # checked: the answer rests on them
    assert books.documents == before
    assert [(one.event, one.severity) for one in decision.remarks] == [("chart_api_limit_exceeded", "ERROR")]


def test_exhausting_an_account_sets_its_usage_to_its_limit():
    books = Books(A, B, a={"windowStart": YESTERDAY, "usageToday": 3})
    books.exhaust("a")

    assert books.usage("a") == {"windowStart": TODAY, "usageToday": 44}
    assert books.reserve().value["account_id"] == "b"
    assert books.reserve(NOON + timedelta(days=1)).value["account_id"] == "a"


def test_exhausting_the_day_that_is_over_leaves_the_new_one_alone():
    books = Books(A)
    late = datetime(2026, 1, 5, 23, 59, 58, tzinfo=UTC)
    reserved = books.reserve(late).value
    books.apply(
        exhaust(
            books.request(account="a", window_start=reserved["window_start"]),
            books.documents,
            late + timedelta(seconds=4),
        )
    )

    assert books.usage("a") == {"windowStart": TODAY, "usageToday": 44}
    assert books.reserve(late + timedelta(seconds=5)).name == "reserved"
    before = books.usage("a")
    books.apply(
        exhaust(
            books.request(account="a", window_start=reserved["window_start"]),
            books.documents,
            late + timedelta(seconds=9),
        )
    )
    assert books.usage("a") == before == {"windowStart": TOMORROW, "usageToday": 1}


@pytest.mark.parametrize("window", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_a_window_outside_of_the_calendar_is_none(window):
    books = Books(A, a={"windowStart": window, "usageToday": 7})
    books.reserve()

    assert books.usage("a") == {"windowStart": TODAY, "usageToday": 1}


@pytest.mark.parametrize("busy", [10**15, 2**62])
def test_a_rate_document_from_the_far_future_blocks_for_a_day_at_most(busy):
    books = Books(A)
    books.documents[rate_key("chart_img", "a")] = {"busyUntilMs": busy}

    assert books.reserve().value["wait_s"] <= 24 * 3600 + 1


def test_exhausting_an_account_that_is_gone_changes_nothing():
    books = Books(A)

    assert books.exhaust("gone").name == "done"
    assert set(books.documents.values()) == {None}


def test_a_burst_passes_at_once_and_then_one_a_second():
    books = Books(A)

    assert [books.reserve().value["wait_s"] for _ in range(5)] == [0.0, 0.0, 0.0, 1.25, 2.25]


def test_the_rate_recovers_with_time():
    books = Books(A)
    for _ in range(3):
        books.reserve()

    assert books.reserve(NOON + timedelta(seconds=0.4)).value["wait_s"] == pytest.approx(0.85)
    assert books.reserve(NOON + timedelta(seconds=9)).value["wait_s"] == 0.0


def test_a_busy_account_is_passed_over_for_one_that_is_free_sooner():
    books = Books(A, B)
    taken = [books.reserve().value for _ in range(8)]

    assert [one["account_id"] for one in taken] == ["a", "a", "a", "b", "b", "b", "a", "b"]
    assert [one["wait_s"] for one in taken[-2:]] == [1.25, 1.25]


def test_an_account_s_own_rate_wins_over_the_pool_s():
    fast = Account("a", "key-of-a", per_second=10, burst=1)
    books = Books(fast)

    assert [books.reserve().value["wait_s"] for _ in range(3)] == [0.0, 0.125, 0.225]


def test_a_unit_belongs_to_the_day_on_which_its_call_is_made():
    books = Books(Account("a", "key-of-a", per_second=0.1, burst=1))
    late = datetime(2026, 1, 5, 23, 59, 55, tzinfo=UTC)
    books.reserve(late)
    outcome = books.reserve(late)

    assert outcome.value["wait_s"] == 10.25
    assert books.usage("a") == {"windowStart": TOMORROW, "usageToday": 1}


def test_mock_mode_reads_and_writes_nothing():
    books = Books(A)
    request = books.request()
    mock = request._replace(services={Ledger: Ledger(AccountPools({"chart_img": (A,)}, Secrets()), is_live=False)})

    decision = reserve(mock, {}, NOON)

    assert (decision.outcome.name, decision.outcome.value["account_id"], decision.writes) == ("reserved", "a", ())


@pytest.mark.parametrize(
    ("stored", "used", "reserved_on", "left"),
    [
        (TODAY, 5, TODAY, 4),
        (TODAY, 1, TODAY, 0),
        (TODAY, 0, TODAY, 0),
        (TOMORROW, 5, TODAY, 5),
        (TODAY, 5, TOMORROW, 5),
        (TODAY, 5, None, 5),
    ],
)
def test_a_unit_is_given_back_in_its_own_day_and_never_below_none(stored, used, reserved_on, left):
    books = Books(A, B, a={"windowStart": stored, "usageToday": used, "dailyLimit": 9})
    request = books.request(account="a", window_start=reserved_on)
    assert books.apply(release(request, books.documents, NOON)).name == "done"

    assert books.usage("a") == {"windowStart": stored, "usageToday": left, "dailyLimit": 9}
    assert books.usage("b") is None


def test_a_unit_of_an_account_that_is_no_longer_listed_is_left_alone():
    books = Books(A)
    decision = release(books.request(account="gone", window_start=TODAY), books.documents, NOON)

    assert (decision.outcome.name, decision.writes) == ("done", ())


def test_a_unit_that_was_given_back_can_be_reserved_again():
    books = Books(A, per_day=1)
    window = books.reserve().value["window_start"]
    assert books.reserve().name == "exhausted"
    books.apply(release(books.request(account="a", window_start=window), books.documents, NOON))

    assert books.reserve(NOON + timedelta(seconds=9)).name == "reserved"


def test_a_unit_given_back_does_not_open_an_account_that_the_api_called_exhausted():
    books = Books(A, B)
    day = books.reserve().value["window_start"]
    books.reserve()
    books.exhaust("a")
    books.apply(release(books.request(account="a", window_start=day), books.documents, NOON))
    assert books.usage("a")["usageToday"] == 44
    assert books.reserve().value["account_id"] == "b"
