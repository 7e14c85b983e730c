"""CEL expressions and the templates around them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core import expression as module
from engine.core.expression import Expression, Template, parts, variables_named
from engine.errors import ExpressionError


class Data:
    """A scope of the given variables."""

    def __init__(self, **data: Any) -> None:
        self.data = data

    def variable(self, name: str) -> Any:
        return self.data[name]


def value_of(text: str, **data: Any) -> Any:
    return Expression(text).evaluate(Data(**data))


def answer(evaluate: Any, scope: Data) -> Any:
    try:
        return ("value", evaluate(scope))
    except module._Unanswerable:
        return ("no answer", None)


NAMES = st.sampled_from(["a", "b", "size", "x1", "_y", "map"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=12
)
CONTEXTS = st.dictionaries(NAMES, VALUES, max_size=4)


@given(context=CONTEXTS, segments=st.lists(NAMES, max_size=4))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_path_walked_in_python_means_what_it_means_in_cel(context: dict[str, Any], segments: list[str]) -> None:
    text = ".".join(["context", *segments])
    walked = answer(module._walker("context", segments), Data(context=context))
    assert walked == answer(module._cel(text, ("context",)), Data(context=context))
    kinds = [type(found[1]) for found in (walked, answer(Expression(text)._evaluate, Data(context=context)))]
    assert kinds[0] is kinds[1], "1 stays an integer, and 1.0 a float"


@pytest.mark.parametrize("word", sorted(module._RESERVED))
def test_a_path_through_a_word_of_cels_own_is_left_to_cel(word: str) -> None:
    try:
        expected = module._cel(f"context.{word}", ("context",))(Data(context={word: 1}))
    except ExpressionError:
        with pytest.raises(ExpressionError):
            Expression(f"context.{word}")
    else:
        assert value_of(f"context.{word}", context={word: 1}) == expected
    assert value_of(f'context["{word}"]', context={word: 1}) == 1


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("context.none", {"context": {}}), ("context.a.b", {"context": {"a": 1}}), ("item.x", {}), ("size(item)", {}),
        ("1.0 / 0.0", {}), ("-(1.0 / 0.0)", {}), ("0.0 / 0.0", {}), ("[1.0 / 0.0]", {}), ("1 / 0", {}),
        ('b"abc"', {}), ('duration("1s")', {}), ("{1: 2}", {}), ("type(1)", {}), ("optional.none()", {}),
        ("context.a + 1", {"context": {"a": 2**63 - 1}}), ("context.a == 1", {"context": {"a": 2**70}}),
        ('context["a"]', {"context": {"a": "\ud800"}}), ("size(context.a)", {"context": {"a": (1, 2)}}),
        ("backoff(1, 1, 2, context.e)", {"context": {"e": {"retry_after_s": "soon"}}}),
        ("backoff(2, 0.0 / 0.0, 2.0, null)", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_has_no_json_value_is_an_error_and_never_another_exception(text: str, data: dict[str, Any]) -> None:
    with pytest.raises(ExpressionError) as caught:
        value_of(text, **data)
    assert caught.value.expression == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input.big", 2**70), ("context.n + 1", 8), ("context.f", 7.0), ("5u", 5), ("has(context.x)", False),
        ("true || item.x", True), ("context.?x.orValue(3)", 3), ('timestamp("2020-01-01T01:00:00+01:00")', "2020-01-01T00:00:00Z"),
        ("backoff(3, 0.5, 2.0, null)", 2.0), ("backoff(1, 1, 2, {'retry_after_s': 9})", 9.0), ("null", None),
        ("[null, {'a': null}]", [None, {"a": None}]), ("context.list.map(x, x * 2)", [2, 4]),
    ],
)  # fmt: skip
def test_values_of_expressions(text: str, expected: Any) -> None:
    found = value_of(text, context={"n": 7, "f": 7.0, "list": [1, 2]}, input={"big": 2**70})
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("value", [1, None, "true", [], {}])
def test_a_guard_that_is_no_bool_is_an_error(value: Any) -> None:
    with pytest.raises(ExpressionError, match="not a bool"):
        Expression("context.v").holds(Data(context={"v": value}))


def test_variables_are_named_outside_of_strings_and_only_as_variables() -> None:
    assert variables_named("context.item + 'input' + result.run") == ("context", "result")
    assert variables_named('visits.A < 3 && "\\"error" == item') == ("item", "visits")


@pytest.mark.parametrize(
    ("text", "column"), [("1 +", 4), ("nobody.x", 7), ("1 + nobody", 5), ("context.a = 1", 11), ("\n  nobody", 4)]
)
def test_an_expression_that_does_not_compile_names_its_column(text: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression(text)
    assert caught.value.column == column


# Templates


def rendered(value: Any, **data: Any) -> Any:
    return Template(value).render(Data(**data))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("${context.n}", 7), (" ${context.n}", " 7"), ("${context.n}${context.n}", "77"), ("", ""), ("$", "$"), ("${'}'}", "}"),
        ("a$${context.n}", "a${context.n}"), ("$${", "${"), ("$${$${", "${${"), ("$$${", "$${"), ("${context.s}$${", "text${"),
        ("${{'a': {'b': 1}}}", {"a": {"b": 1}}), ("${{'a': '}'}}!", '{"a":"}"}!'), ("${'${'}", "${"), ('${"\\""}', '"'),
        ("x ${null} ${true} ${[1, 'ü']}", 'x null true [1,"ü"]'), ("${context.s}", "text"), ("{}", "{}"),
        ({"a": ["${context.n}", {"b": "-${context.s}-"}], "c": None, "d": 1.5}, {"a": [7, {"b": "-text-"}], "c": None, "d": 1.5}),
        ({"${context.n}": 1}, {"${context.n}": 1}),
    ],
)  # fmt: skip
def test_templates(template: Any, expected: Any) -> None:
    found = rendered(template, context={"n": 7, "s": "text"})
    assert (found, type(found)) == (expected, type(expected))


def test_a_template_that_renders_twice_gives_new_containers() -> None:
    template = Template({"a": ["${context.n}"]})
    first, second = (template.render(Data(context={"n": 1})) for _ in range(2))
    first["a"].append(2)
    assert second == {"a": [1]}


@pytest.mark.parametrize(("text", "column"), [("${1", 1), ("ab ${{}", 4), ("x${1}${2", 6)])
def test_an_expression_that_does_not_end_names_its_column(text: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        Template(text)
    assert caught.value.column == column


@pytest.mark.parametrize(("text", "column"), [("${nobody}", 3), ("ab ${1 + nobody}", 10), ("${1}${nobody}", 7)])
def test_an_expression_in_a_template_names_its_column_in_the_string(text: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        Template(text)
    assert caught.value.column == column


@given(st.text(st.sampled_from("${}'\"ab\\ "), max_size=12))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_text_breaks_the_splitter(text: str) -> None:
    """Whatever the text, it is split without loss of order or refused; never another exception, never no end."""
    try:
        found = list(parts(text))
    except ExpressionError:
        return
    for part in found:
        if part.is_expression:
            assert text[part.offset : part.offset + len(part.text)] == part.text
    if "${" not in text:
        assert "".join(part.text for part in found) == text


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_escaping_keeps_any_text(text: str) -> None:
    plain = text.replace("$", "")
    assert rendered(plain + "$${" + plain) == plain + "${" + plain
