"""An expression that gives nulls takes no reference to None away; see docs/decisions, 9."""

from __future__ import annotations

import sys

import pytest

from engine.core.expression import Expression, Template

TEXTS = [
    "true ? context.a : null",
    "[context.a, null]",
    "{'x': context.a}",
    "context.list.map(x, x)",
    "context.deep['d']",
]


class Data:
    def variable(self, name):
        return {"a": None, "list": [None, {"b": None}], "deep": {"d": {"e": [None]}}}


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None is immortal: it has no references to lose")
@pytest.mark.parametrize("text", TEXTS)
def test_a_null_takes_no_reference_away(text):
    expression = Expression(text)
    expression.evaluate(Data())
    before = sys.getrefcount(None)
    for _ in range(500):
        expression.evaluate(Data())

    assert abs(sys.getrefcount(None) - before) < 100


def test_nulls_come_out_as_none():
    rendered = Template({"x": "${[context.a]}", "y": "${context.deep}"}).render(Data())

    assert rendered == {"x": [None], "y": {"d": {"e": [None]}}}
