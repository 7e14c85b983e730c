"""The small values of the core: canonical JSON, writes, secrets, backoff, events."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core import canonical, event
from engine.core.action import Failure
from engine.core.retry import RetryPolicy, backoff
from engine.core.secret import LENGTH_MIN, REDACTED, Secrets
from engine.core.write import DELETE, Check, Create, Delete, Key, Set, Update, apply
from engine.errors import InvalidKeyError, SecretLeakError, WriteRefusedError
from tests.core.building import AT, DONE, machine, started

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
KEPT = settings(max_examples=200, deadline=None, derandomize=True)


# Canonical JSON


@given(JSON)
@KEPT
def test_equal_values_have_one_text_and_a_text_gives_its_value_back(value: Any) -> None:
    text = canonical.encode(canonical.plain(value))
    assert canonical.decode(text) == value
    assert canonical.encode(canonical.decode(text)) == text
    assert json.loads(text) == value


def test_the_canonical_form() -> None:
    assert canonical.encode({"b": [1, 1.0, None, True], "a": "ü\n"}) == '{"a":"ü\\n","b":[1,1.0,null,true]}'
    assert canonical.digest({"b": 1, "a": 2}) == canonical.digest({"a": 2, "b": 1})
    for refused in ("NaN", "Infinity", "-Infinity", "[NaN]"):
        with pytest.raises(ValueError, match="not JSON"):
            canonical.decode(refused)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (float("nan"), r"\$ is nan"), ([0, {"a": float("inf")}], r"\$\[1\].a"), ({1: 2}, "the key 1"), ({"a": {3}}, r"\$.a is a set"),
        (b"", "bytes"), ({"a": ["\ud800"]}, r"\$.a\[0\] holds half"), ({"\udfff": 1}, "half"), ([object()], "object"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_named_by_its_place(value: Any, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        canonical.plain(value)


def test_plain_values_are_new_containers() -> None:
    inner: list[Any] = [1, (2, 3)]
    found: Any = canonical.plain({"a": inner})
    assert found == {"a": [1, [2, 3]]}
    inner.append(4)
    assert found == {"a": [1, [2, 3]]}


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="levels deep"):
        canonical.plain(loop)


# Writes

KEY = Key("c", "d")
OLD = {"a": {"b": 1, "c": [1]}, "n": 1}


@pytest.mark.parametrize(
    ("write", "before", "expected"),
    [
        (Create(KEY, {"x": 1}), None, {"x": 1}), (Set(KEY, {"x": 1}), OLD, {"x": 1}), (Set(KEY, {"x": 1}), None, {"x": 1}),
        (Delete(KEY), OLD, None), (Delete(KEY), None, None), (Check(KEY), OLD, OLD), (Check(KEY), None, None),
        (Update(KEY, {("a", "b"): 2}), OLD, {"a": {"b": 2, "c": [1]}, "n": 1}),
        (Update(KEY, {("a", "b"): DELETE, ("n",): DELETE}), OLD, {"a": {"c": [1]}}),
        (Update(KEY, {("n", "x"): 2}), OLD, {**OLD, "n": {"x": 2}}), (Update(KEY, {("new", "x.y"): 2}), OLD, {**OLD, "new": {"x.y": 2}}),
        (Update(KEY, {("a", "none", "x"): DELETE}), OLD, OLD), (Update(KEY, {("a", "b"): 2, ("a", "d"): 3}), OLD, {**OLD, "a": {"b": 2, "c": [1], "d": 3}}),
    ],
)  # fmt: skip
def test_writes_give_the_document_and_leave_the_old_one(write: Any, before: Any, expected: Any) -> None:
    text = canonical.encode(before)
    assert apply(write, before) == expected
    assert canonical.encode(before) == text


def test_writes_whose_condition_fails() -> None:
    with pytest.raises(WriteRefusedError, match="exists already"):
        apply(Create(KEY, {}), OLD)
    with pytest.raises(WriteRefusedError, match="does not exist"):
        apply(Update(KEY, {("a",): 1}), None)
    for fields in ({(): 1}, {("a",): 1, ("a", "b"): 2}):
        with pytest.raises(ValueError, match="field path"):
            apply(Update(KEY, fields), OLD)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "__x__", "\ud800", "x" * 1501, 7])
def test_names_that_no_store_may_hold(name: Any) -> None:
    with pytest.raises(InvalidKeyError):
        Key.of("c", name)
    with pytest.raises(InvalidKeyError):
        Key.of(name, "d")
    assert Key.of("c", "x" * 1500)


# Secrets

QUOTED = 'se"cret\\ü\nkey'


def test_a_secret_is_found_as_it_is_and_as_json_holds_it() -> None:
    secrets = Secrets([QUOTED])
    for text in (
        QUOTED,
        json.dumps({"a": QUOTED}),
        json.dumps({"a": QUOTED}, ensure_ascii=False),
        canonical.encode([QUOTED]),
    ):
        assert secrets.found_in(f"before {text} after")
        assert QUOTED not in secrets.redact(text)
        assert REDACTED in secrets.redact(text)
        with pytest.raises(SecretLeakError) as caught:
            secrets.refuse(text, sink="a log")
        assert "se" not in str(caught.value).replace("secret value", "")
    assert secrets.found_in_bytes(json.dumps(QUOTED).encode())
    secrets.refuse("nothing here", sink="a log")


def test_the_longest_secret_is_redacted_first() -> None:
    secrets = Secrets(["abcdefgh", "abcdefghij", ""])
    assert secrets.redact("abcdefghij abcdefgh") == f"{REDACTED} {REDACTED}"


def test_a_short_secret_is_redacted_as_a_word_and_never_searched_for() -> None:
    short = "k2"
    assert len(short) < LENGTH_MIN
    secrets = Secrets([short])
    assert (
        secrets.redact("k2 is a key, k22 and xk2 are not; (k2)")
        == f"{REDACTED} is a key, k22 and xk2 are not; ({REDACTED})"
    )
    assert not secrets.found_in("k2")
    assert Secrets(["x" * LENGTH_MIN]).found_in("x" * LENGTH_MIN)
    assert Secrets().redact("k2") == "k2"


# Backoff


@pytest.mark.parametrize(
    ("attempt", "first", "factor", "error", "expected"),
    [
        (1, 0.5, 2, None, 0.5), (4, 0.5, 2, None, 4.0), (0, 3, 2, None, 3.0), (-5, 3, 2, None, 3.0), (2, -1, 2, None, 0.0),
        (1, 1, 2, {"retry_after_s": 9}, 9.0), (9, 1, 2, {"retry_after_s": 9}, 256.0), (1, 1, 2, {}, 1.0), (5000, 2, 10, None, 31_622_400.0),
    ],
)  # fmt: skip
def test_backoff(attempt: int, first: float, factor: float, error: Any, expected: float) -> None:
    assert backoff(attempt, first, factor, error) == expected


@given(st.integers(1, 100), st.floats(0, 1), st.none() | st.floats(0, 1000), st.text(max_size=4))
@KEPT
def test_jitter_comes_from_the_seed_and_never_goes_below_retry_after(
    attempt: int, jitter: float, least: float | None, seed: str
) -> None:
    policy = RetryPolicy(100, None, 1.0, 2.0, 60.0, jitter)
    delay = policy.delay_s(attempt, least, seed)
    assert delay == policy.delay_s(attempt, least, seed)
    whole = min(2.0 ** (attempt - 1), 60.0)
    assert max(whole * (1 - jitter), least or 0) - 1e-9 <= delay <= max(whole, least or 0)


def test_what_a_retry_covers() -> None:
    assert [RetryPolicy(2).covers("X", retriable=flag) for flag in (True, False)] == [True, False]
    assert [RetryPolicy(2, frozenset("X")).covers(code, retriable=False) for code in ("X", "Y")] == [True, False]


# Events

FAILURE = Failure("X", "it broke", {"a": [1, None]}, retriable=True, retry_after_s=1.5)
EXAMPLES: dict[type[Any], list[Any]] = {
    event.RunStarted: [event.RunStarted(AT, {"a": 1})],
    event.ActionReturned: [event.ActionReturned(AT, "done", [1, None]), event.ActionReturned(AT, "interrupted", None)],
    event.ActionFailed: [event.ActionFailed(AT, FAILURE), event.ActionFailed(AT, Failure("X", "", {}))],
    event.TimerFired: [event.TimerFired(AT, "after:5s")],
    event.MapFinished: [event.MapFinished(AT, [{"key": "a"}])],
    event.SignalReceived: [event.SignalReceived(AT, "go", {"v": "ü"}, "id-1")],
    event.CancelRequested: [event.CancelRequested(AT, "")],
    event.RunRedriven: [event.RunRedriven(AT, "A", {"name": "claimed", "value": 1}), event.RunRedriven(AT, "A", None)],
    event.StepRefused: [event.StepRefused(AT, FAILURE), event.StepRefused(AT, Failure("X", "x"), is_last=True)],
}


def test_every_type_of_event_has_an_example_and_a_tag() -> None:
    assert set(EXAMPLES) == set(get_args(event.Event))
    assert len({event.tag(examples[0]) for examples in EXAMPLES.values()}) == len(EXAMPLES)


@pytest.mark.parametrize(
    "given_event", [entry for examples in EXAMPLES.values() for entry in examples], ids=lambda e: type(e).__name__
)
def test_an_event_comes_back_from_its_journal_form(given_event: Any) -> None:
    text = canonical.encode(event.to_json(given_event))
    back = event.from_json(canonical.decode(text))
    assert back == given_event
    assert type(back) is type(given_event)
    assert canonical.encode(event.to_json(back)) == text


def test_keys_without_a_value_are_left_out_of_a_failure() -> None:
    assert Failure("X", "x").to_json() == {"code": "X", "message": "x", "retriable": False}
    assert Failure.from_json(Failure("X", "x").to_json()) == Failure("X", "x")


def test_a_snapshot_comes_back_from_its_text() -> None:
    snapshot = started(
        machine({"W": {"on": {"go": "END"}, "after": {"1s": "END"}}, "END": DONE}), {"a": [1.0, 1, None]}
    ).snapshot
    back = type(snapshot).decode(snapshot.encode())
    assert back == snapshot
    assert back.encode() == snapshot.encode()
    assert back.status is snapshot.status
