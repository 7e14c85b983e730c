"""Accounts are read strictly, every mistake has a place, and no key is ever shown."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.core.machine import Pool
from engine.core.secret import Secrets
from engine.errors import ConfigurationError
from engine.handlers.accounts import Account, AccountPools, parse_accounts

VARIABLE = "CHART_IMG_ACCOUNTS_JSON"
SECRET = "sk-very-secret-key"


def parse(*entries: Any) -> tuple[Account, ...]:
    return parse_accounts(json.dumps(list(entries)), VARIABLE)


def entry(**more: Any) -> dict[str, Any]:
    return {"id": "main", "apiKey": SECRET} | more


def test_accounts_keep_the_order_of_the_text():
    assert [account.id for account in parse(entry(id="b"), entry(id="a"))] == ["b", "a"]


def test_an_account_says_what_its_entry_says():
    assert parse(entry(dailyLimit=44, perSecond=0.5, burst=2, note="ignored")) == (
        Account("main", SECRET, daily_limit=44, per_second=0.5, burst=2),
    )


def test_what_an_entry_leaves_open_is_none():
    assert parse(entry()) == (Account("main", SECRET, None, None, None),)


@pytest.mark.parametrize(
    ("plan", "rate"),
    [("BASIC", (1, 3)), ("PRO", (10, 15)), ("MEGA", (15, 25)), ("ULTRA", (35, 50)), ("ENTERPRISE", (35, 50))],
)
def test_a_plan_gives_rates_and_never_a_daily_limit(plan: str, rate: tuple[float, int]):
    (account,) = parse(entry(plan=plan))

    assert (account.per_second, account.burst, account.daily_limit) == (*rate, None)


def test_an_entrys_own_numbers_win_over_its_plan():
    (account,) = parse(entry(plan="PRO", perSecond=2))

    assert (account.per_second, account.burst) == (2.0, 15)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (entry(id=""), "[0].id"),
        (entry(id="a/b"), "[0].id"),
        (entry(id="."), "[0].id"),
        (entry(id=" main"), "[0].id must not begin or end with blanks"),
        (entry(id="\ud800"), "[0].id"),
        (entry(id=7), "[0].id must be a string"),
        (entry(apiKey=""), "[0].apiKey must not be empty"),
        (entry(apiKey="   "), "[0].apiKey must not begin or end with blanks"),
        (entry(apiKey=SECRET + "\n"), "[0].apiKey must not begin or end with blanks"),
        (entry(apiKey=SECRET + "\r\nx: y"), "[0].apiKey must hold only printable ASCII"),
        (entry(apiKey=SECRET + "\u20ac"), "[0].apiKey must hold only printable ASCII"),
        (entry(apiKey=SECRET * 1000), "[0].apiKey must be at most"),
        (entry(apiKey=None), "[0].apiKey must be a string"),
        ({"id": "main"}, "[0].apiKey is missing"),
        ({"apiKey": SECRET}, "[0].id is missing"),
        *((entry(dailyLimit=value), "[0].dailyLimit") for value in (0, -1, True, None, 1.5, "44", 10**30, [])),
        *((entry(burst=value), "[0].burst") for value in (0, True, None, 2.0)),
        *((entry(perSecond=value), "[0].perSecond") for value in (0, -1, True, None, "1", 1e300, 1e-300, 10**400)),
        *((entry(plan=value), "[0].plan must be one of BASIC") for value in (SECRET, "basic", None, 3, [])),
        ("text", "[0] must be an object"),
        (None, "[0] must be an object"),
    ],
    ids=str,
)
def test_a_wrong_entry_is_named_by_index_and_field(wrong: Any, place: str):
    with pytest.raises(ConfigurationError) as raised:
        parse(wrong)

    assert raised.value.variable == VARIABLE
    assert place in str(raised.value)
    assert raised.value.remedy.startswith("Example: ")
    assert SECRET not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not set"),
        (" \n", "is not set"),
        ("[]", "at least one"),
        ("{}", "must be a JSON array"),
        ("null", "must be a JSON array"),
        ('[{"id": "a",\n "apiKey" "x"}]', "line 2, column 11"),
        ('[{"id": "a", "apiKey": "k", "perSecond": NaN}]', "NaN or Infinity"),
        ('[{"id": "a", "apiKey": "k", "perSecond": 1e999}]', "[0].perSecond"),
        ('[{"id": "a", "apiKey": "k", "dailyLimit": ' + "9" * 5000 + "}]", "too many digits"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('[{"id": "a", "apiKey": "k", "apiKey": "l"}]', "[0].apiKey is given twice"),
        ('[{"id": "a", "apiKey": "k"}, {"id": "a", "apiKey": "l"}]', "[1].id is the same as that of [0]"),
    ],
    ids=lambda text: text[:30],
)
def test_a_wrong_text_is_a_clear_error(text: str, problem: str):
    with pytest.raises(ConfigurationError, match=VARIABLE) as raised:
        parse_accounts(text, VARIABLE)

    assert problem in str(raised.value)


def test_a_parse_error_carries_no_part_of_the_text():
    with pytest.raises(ConfigurationError) as raised:
        parse_accounts(f'[{{"id": "a", "apiKey": "{SECRET}"', VARIABLE)

    assert (raised.value.__context__, raised.value.__cause__) == (None, None)
    assert SECRET not in str(raised.value)


def test_a_byte_order_mark_and_repeated_unknown_keys_do_no_harm():
    assert parse_accounts('\ufeff[{"id": "a", "apiKey": "k", "x": 1, "x": 2}]', VARIABLE)[0].id == "a"


def test_a_key_is_in_no_repr():
    (account,) = parse(entry())

    assert SECRET not in f"{account!r} {account}"


@given(st.text() | st.from_type(type(None)).flatmap(lambda _: _json_texts()))
@example('[{"id": "a", "apiKey": "k", "dailyLimit": -Infinity}]')
def test_parsing_raises_nothing_but_configuration_errors(text: str):
    try:
        accounts = parse_accounts(text, VARIABLE)
    except ConfigurationError as error:
        assert error.variable == VARIABLE
    else:
        assert accounts
        assert len({account.id for account in accounts}) == len(accounts)


def _json_texts() -> st.SearchStrategy[str]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("PRO")
    fields = st.sampled_from(["id", "apiKey", "dailyLimit", "perSecond", "burst", "plan", "x"])
    entries = st.dictionaries(fields, scalars) | scalars
    return st.lists(entries, max_size=3).map(json.dumps)


def test_pools_hand_out_accounts_by_pool_and_keys_by_account():
    secrets = Secrets()
    accounts = parse(entry(), entry(id="spare", apiKey="another-key"))
    pools = AccountPools({"chart_img": accounts}, secrets)

    assert pools.accounts("chart_img") == accounts
    assert pools.key_of("spare") == "another-key"
    assert secrets.found_in(f"…{SECRET}…")
    assert secrets.found_in("another-key")


def test_pools_know_no_other_pool_and_no_other_account():
    pools = AccountPools({"chart_img": ()}, Secrets())

    assert pools.accounts("chart_img") == ()
    with pytest.raises(LookupError, match="other"):
        pools.accounts("other")
    with pytest.raises(LookupError):
        pools.key_of("main")


def test_one_id_with_two_keys_is_refused():
    one, other = parse(entry()), parse(entry(apiKey="another-key"))

    assert AccountPools({"a": one, "b": one}, Secrets()).key_of("main") == SECRET
    with pytest.raises(ConfigurationError, match=r"pools\.b: \[0\]\.id"):
        AccountPools({"a": one, "b": other}, Secrets())


def test_pools_are_read_from_the_variables_that_they_name():
    pool = Pool("chart_img", VARIABLE, 44, 1.0, 3)

    found = AccountPools.from_environment([pool], {VARIABLE: json.dumps([entry()])}, Secrets())

    assert found.accounts("chart_img")[0].id == "main"
    with pytest.raises(ConfigurationError, match="is not set"):
        AccountPools.from_environment([pool], {}, Secrets())
