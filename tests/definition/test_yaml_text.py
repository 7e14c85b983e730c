"""Text to data: the types of YAML 1.2's core schema, what is refused, and where everything stands."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core import bounds
from engine.core.bounds import DEFINITION_BYTES_MAX, DEFINITION_NODES_MAX
from engine.definition.place import Span, offset_of, position_of
from engine.definition.yaml_text import parse


def value(text):
    """The value of a scalar, which has nothing wrong in it."""
    parsed = parse(f"key: {text}\n", "f")
    assert parsed.diagnostics == []
    return parsed.data["key"]


def found(text):
    """The rules that a text breaks, each with its line and column."""
    return [(one.rule, *one.position) for one in parse(text, "f").diagnostics]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((word, word) for word in ("on", "off", "yes", "no", "y", "n", "On", "NO", "nUll", "tRue")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *((word, None) for word in ("~", "null", "Null", "NULL", "")),
        ("12:30", "12:30"), ("12:30:45", "12:30:45"), ("2026-01-05", "2026-01-05"), ("1_000", "1_000"), ("0b11", "0b11"),
        ("0", 0), ("-7", -7), ("+12", 12), ("017", 17), ("0o17", 15), ("0x1F", 31), ("0o8", "0o8"), ("-0x1", "-0x1"),
        ("9223372036854775807", 2**63 - 1), ("-9223372036854775808", -(2**63)),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-1.5E-3", -0.0015), ("1e", "1e"), (".", "."),
        ("'5'", "5"), ('"true"', "true"), ("'it''s'", "it's"), ('"\\u00e9\\n"', "é\n"), ("=", "="),
    ],
)  # fmt: skip
def test_a_scalar_has_its_type_of_the_core_schema(text, expected):
    result = value(text)

    assert (type(result), result) == (type(expected), expected)


@pytest.mark.parametrize(
    "text", [".inf", "-.Inf", "+.INF", ".nan", ".NaN", "1e999", "9223372036854775808", "9" * 5000, "0x" + "f" * 4500]
)
def test_a_number_that_no_64_bits_hold_is_refused_at_its_place(text):
    assert found(f"key: {text}\n") == [("number-invalid", 1, 6)]


def test_keys_are_strings_whatever_they_look_like():
    parsed = parse("{on: 1, no: 2, 5: 3, null: 4, 1.5: 5, true: 6, ~: 7}", "f")

    assert parsed.diagnostics == []
    assert list(parsed.data) == ["on", "no", "5", "null", "1.5", "true", "~"]


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "{a: 1, 'a': 2}", "5: 1\n'5': 2\n"])
def test_a_duplicate_key_is_refused_and_the_first_one_kept(text):
    parsed = parse(text, "f")

    assert [one.rule for one in parsed.diagnostics] == ["key-duplicate"]
    assert list(parsed.data.values()) == [1]


@pytest.mark.parametrize(
    "text", ["!!int abc", "!!float x", "!!bool x", "!!str 5", '!!int "5"', "!!binary aGk=", "!own x", "!!set {a}", "!!omap [a: 1]", "!!python/object:os.system {}"]
)  # fmt: skip
def test_a_tag_is_refused(text):
    assert ("yaml-tag", 1, 6) in found(f"key: {text}\n")


def test_a_tag_on_a_key_is_refused():
    assert found("!own key: 1\n") == [("yaml-tag", 1, 1)]


@pytest.mark.parametrize("text", ["a: {<<: {b: 1}}", "x: &x {b: 1}\na: {<<: *x, c: 2}"])
def test_a_merge_key_is_refused_and_merges_nothing(text):
    parsed = parse(text, "f")

    assert [one.rule for one in parsed.diagnostics] == ["yaml-merge"]
    assert "b" not in parsed.data["a"]


def test_a_quoted_merge_sign_is_a_key_like_any_other():
    assert parse("'<<': 1\n", "f").data == {"<<": 1}


def test_an_alias_stands_for_its_anchor_and_is_found_there():
    parsed = parse("a: &x {b: [1, 2]}\nc: *x\n", "f")

    assert parsed.data == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}}
    assert parsed.data["a"] is not parsed.data["c"]
    assert parsed.value_at(("c", "b", 1)) == (1, 15)


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: {c: *x}}"])
def test_an_anchor_that_holds_itself_is_refused(text):
    assert [rule for rule, _, _ in found(text)] == ["yaml-alias-recursive"]


def test_an_alias_bomb_is_refused_without_being_built():
    names = "abcdefghij"
    text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    text += "".join(
        f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(10))}]\n"
        for before, name in zip(names, names[1:], strict=False)
    )

    parsed = parse(text, "f")

    assert [one.rule for one in parsed.diagnostics] == ["text-too-large"]
    assert parsed.data is None


@pytest.mark.parametrize(("extra", "rules"), [(-1, []), (0, []), (1, ["text-too-large"])])
def test_the_bound_on_nodes_holds(extra, rules):
    text = "[" + ",".join("1" * (DEFINITION_NODES_MAX - 1 + extra)) + "]"

    assert [rule for rule, _, _ in found(text)] == rules


@pytest.mark.parametrize(("extra", "rules"), [(-1, []), (0, []), (1, ["text-too-large"])])
def test_the_bound_on_bytes_holds(extra, rules):
    text = "a: é\n#"
    text += "x" * (DEFINITION_BYTES_MAX - len(text.encode()) + extra)

    assert [rule for rule, _, _ in found(text)] == rules


@pytest.mark.parametrize("shape", ["[{}]", "{{a: {}}}"], ids=["flow list", "flow map"])
@pytest.mark.parametrize(("extra", "rules"), [(-1, []), (0, []), (1, ["text-too-deep"])])
def test_the_bound_on_depth_holds(shape, extra, rules):
    depth = bounds.DEFINITION_DEPTH_MAX + extra
    opening, closing = ("[", "]") if shape == "[{}]" else ("{a: ", "}")

    assert [rule for rule, _, _ in found(opening * depth + "1" + closing * depth)] == rules


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000, "? " * 1000, "{" * 50_000 + "}" * 50_000])
def test_depth_never_ends_the_process(text):
    assert [rule for rule, _, _ in found(text)][0] in ("text-too-deep", "yaml-syntax")


def test_depth_through_aliases_is_bounded_too():
    levels = "".join(f"a{i}: &a{i} {'[' * 90}{f'*a{i - 1}' if i else '1'}{']' * 90}\n" for i in range(40))

    assert [rule for rule, _, _ in found(levels)] == ["text-too-deep"]


def test_a_byte_order_mark_at_the_front_is_passed_over():
    parsed = parse("\ufeffa: x\n", "f")

    assert (parsed.data, parsed.value_at(("a",))) == ({"a": "x"}, (1, 4))


@pytest.mark.parametrize("character", ["\0", "\x07", "\x1b", "\x7f", "\ud800", "\ufeff", "\ufffe"])
def test_a_character_that_yaml_does_not_print_is_refused_at_its_place(character):
    assert found(f"é: 1\nkey: ü{character}x\n") == [("yaml-syntax", 2, 7)]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a remark\n", "---\n...\n"])
def test_an_empty_text_holds_nothing(text):
    parsed = parse(text, "f")

    assert parsed.data is None
    assert [one.rule for one in parsed.diagnostics] in (["text-empty"], [])


def test_several_documents_are_refused_where_the_second_begins():
    assert found("a: 1\n---\nb: 2\n") == [("yaml-syntax", 2, 1)]


@pytest.mark.parametrize("key", ["[a]", "{a: b}", "? {a: b}\n"])
def test_a_key_that_is_no_scalar_is_refused(key):
    assert [rule for rule, _, _ in found(f"? {key}\n: 1\n".replace("? ? ", "? "))] == ["key-not-string"]


TEXT = """\
machine: "é x"
list:
  - {a: 'b', "c d": [1, on]}
  -
    long: >-
      folded ${a}
"""


@pytest.mark.parametrize(
    ("path", "key", "inner"),
    [
        (("machine",), (1, 1), (1, 10)),
        (("list",), (2, 1), (3, 3)),
        (("list", 0), (3, 5), (3, 5)),
        (("list", 0, "a"), (3, 6), (3, 9)),
        (("list", 0, "c d"), (3, 14), (3, 21)),
        (("list", 0, "c d", 1), (3, 25), (3, 25)),
        (("list", 1, "long"), (5, 5), (5, 11)),
        (("list", 7, "nowhere"), (3, 3), (3, 3)),
    ],
)
def test_keys_and_values_are_found_where_they_stand(path, key, inner):
    parsed = parse(TEXT, "f")

    assert (parsed.key_at(path), parsed.value_at(path)) == (key, inner)


@pytest.mark.parametrize(
    "written",
    ["plain ${a} end", '"escaped \\u00e9\\t ${a} end"', "'it''s ${a} end'", ">-\n  folded\n  text ${a}\n  end",
     "|\n    literal\n\n      ${a}\n", '"joined \\\n   ${a} \\\n  end"', "plain\n  over lines ${a}\n  end"],
)  # fmt: skip
def test_a_character_inside_a_value_is_found_however_it_is_written(written):
    source = f"# é\nkey: {written}\n"
    parsed = parse(source, "f")
    text = parsed.data["key"]

    line, column = parsed.character_at(("key",), text, text.index("${a}") + 2)

    assert source.splitlines()[line - 1][column - 1 : column + 1] == "a}"


@settings(derandomize=True)
@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30))
def test_every_visible_character_of_a_quoted_value_is_found(text):
    for written in (json.dumps(text, ensure_ascii=False), "'" + text.replace("'", "''") + "'"):
        span = Span(0, len(written), written[0])
        for offset, character in enumerate(text):
            at = offset_of(written, span, text, offset)
            assert written[at] == character or written[at : at + 2] == f"\\{character}"


def test_lines_are_counted_by_every_break_that_yaml_knows():
    text = "a\nb\r\nc\rd\x85e"

    assert [position_of(text, text.index(letter)) for letter in "abcde"] == [(line, 1) for line in range(1, 6)]


def test_the_core_types_agree_with_json():
    """JSON is YAML: what `json` writes is read back the same."""
    data = {"a": [1, -2.5, 1e300, True, None, "on", "é\u2028\n"], "b": {"": {}}, "c": math.pi}

    assert parse(json.dumps(data), "f").data == data


def test_a_key_that_is_read_as_another_is_found_where_it_is_written():
    parsed = parse("a: {onn: {done: {targt: x}}}\n", "f")
    parsed.read_as(("a",), "on", "onn")
    parsed.read_as(("a", "on", "done"), "target", "targt")

    assert parsed.value_at(("a", "on", "done", "target")) == (1, 25)
    assert re.match("onn", "a: {onn: {done: {targt: x}}}"[parsed.key_at(("a", "on")).column - 1 :])
