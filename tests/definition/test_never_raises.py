"""Whatever the text, checking it answers a machine or diagnostics, and never raises."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.definition import Catalogue
from tests.definition.declared import ACTIONS, HERE, check

FILES = sorted([*(HERE / "valid").glob("*.yaml"), *(HERE / "invalid").glob("*.yaml")])
TEXTS = [path.read_text(encoding="utf-8", errors="replace") for path in FILES]
SIGNS = list("{}[]:,-#&*!|>'\"%@`?~ \n\t$0.") + [
    "${",
    "<<",
    "null",
    "\0",
    "é",
    "\u2028",
    "machine",
    "states",
    ": {}",
    "!!int ",
]


def expect_answer(compiled):
    """Exactly one of the two, and every diagnostic can be printed."""
    assert (compiled.machine is None) == bool(compiled.diagnostics)
    for found in compiled.diagnostics:
        assert f"{found.position.line}:{found.position.column}: {found.message} [{found.rule}]" in str(found)
        assert min(found.position) >= 1


@st.composite
def mutated(draw):
    """A definition with a few slips: a line gone, twice or elsewhere; a character gone, changed or doubled."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        lines = text.splitlines(keepends=True) or [""]
        at = draw(st.integers(0, len(lines) - 1))
        other = draw(st.integers(0, len(lines) - 1))
        place = draw(st.integers(0, len(text)))
        sign = draw(st.sampled_from(SIGNS))
        kind = draw(st.sampled_from(["delete", "double", "swap", "insert", "cut", "replace", "indent"]))
        if kind in ("delete", "double", "swap", "indent"):
            if kind == "swap":
                lines[at], lines[other] = lines[other], lines[at]
            else:
                lines[at] = {"delete": "", "double": lines[at] * 2, "indent": f"  {lines[at]}"}[kind]
            text = "".join(lines)
        else:
            text = text[:place] + ("" if kind == "cut" else sign) + text[place + (0 if kind == "insert" else 1) :]
    return text


@given(mutated())
@settings(max_examples=400, deadline=None, derandomize=True)
def test_a_mutated_definition_gets_an_answer(text):
    expect_answer(check(text))


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_text_gets_an_answer(text):
    expect_answer(check(text))


@given(st.lists(st.sampled_from([*SIGNS, "a", "b: ", "- ", "\n  ", "initial: a\n", "on", "*a", "&a "]), max_size=40))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_heap_of_signs_gets_an_answer(signs):
    expect_answer(check("".join(signs)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["machine", "states", "type", "on", "invoke", "map", "always", "after", "catch", "cancel", "action", "with", "items",
        "target", "guard", "assign", "retry", "errors", "initial", "input", "pools", "key", "timeout", "A", "B.A", "30s"]  # fmt: skip


@given(
    st.recursive(
        JSON | st.sampled_from(["A", "final", "shop.ship", "${input.a}", "${", "30s"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
        max_leaves=30,
    )
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_shape_of_the_known_keys_gets_an_answer(value):
    import json

    states = json.dumps(value)
    text = f'{{"machine": "m", "initial": "A", "states": {{"A": {states}, "B": {{"states": {states}}}}}, "pools": {states}, "input": {states}}}'
    expect_answer(check(text))


@given(st.binary(max_size=200) | mutated().map(str.encode))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_file_gets_an_answer(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        path.write_bytes(content)

        expect_answer(Catalogue(ACTIONS).check(path))
