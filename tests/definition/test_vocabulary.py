"""One vocabulary: the compiler's keys, the schema's properties and the documentation's tables are equal."""

from __future__ import annotations

import json
import re

import jsonschema_rs
import pytest

from engine.core import bounds
from engine.core.action import ENGINE_CODES
from engine.core.expression import VARIABLES
from engine.definition import vocabulary
from engine.definition.yaml_text import parse
from tests.definition.declared import HERE, compiled
from tests.definition.test_diagnostics import INVALID, MACHINES, VALID, rules_in_the_code

ROOT = HERE.parents[1]
SCHEMA = json.loads((ROOT / "engine/definition/machine.schema.json").read_text(encoding="utf-8"))
DOCUMENT = (ROOT / "docs/machine-format.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml( fragment)?\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
VALIDATOR = jsonschema_rs.Draft202012Validator(SCHEMA)


def schema_of(name):
    return SCHEMA if name == "machine" else SCHEMA["$defs"][name]


def section(title):
    """The text under a heading, up to the next heading."""
    return re.search(rf"^##+ {title}\n(.*?)(?=^##|\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)[1]


def first_column(text, header="Key"):
    """The names in back quotes of the first column of the table with a header."""
    table = re.search(rf"^\| {header} \|.*\n\|[-|]+\|\n((?:\|.*\n?)+)", text, re.MULTILINE)[1]
    return [re.match(r"\| `([^`]+)` \|", row)[1] for row in table.splitlines()]


@pytest.mark.parametrize("name", vocabulary.OBJECTS)
def test_the_schema_knows_exactly_the_keys_of_the_compiler(name):
    schema = schema_of(name)

    assert set(schema["properties"]) == set(vocabulary.OBJECTS[name])
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("name", vocabulary.OBJECTS)
def test_the_documentation_has_a_row_for_exactly_the_keys_of_the_compiler(name):
    assert first_column(section(name.capitalize())) == list(schema_of(name)["properties"])
    assert set(first_column(section(name.capitalize()))) == set(vocabulary.OBJECTS[name])


@pytest.mark.parametrize("name", vocabulary.OBJECTS)
def test_every_key_of_the_schema_has_help_for_an_editor(name):
    for key, schema in schema_of(name)["properties"].items():
        assert schema["title"], key
        assert schema["description"].endswith("."), key
        assert schema["examples"], key


@pytest.mark.parametrize("name", vocabulary.OBJECTS)
def test_the_examples_of_the_schema_are_valid_by_it(name):
    for key, schema in schema_of(name)["properties"].items():
        validator = jsonschema_rs.Draft202012Validator({**schema, "$defs": SCHEMA["$defs"]})
        assert [example for example in schema["examples"] if not validator.is_valid(example)] == [], key


def test_the_kinds_of_states_are_documented_with_their_keys():
    rows = re.findall(r"^\| \[\w+\]\(#[\w-]+\) \| `(\w+)` \| (.*) \|$", section("State"), re.MULTILINE)
    documented = {key: {key, "description", *re.findall(r"`(\w+)`", keys)} for key, keys in rows}

    assert documented == {kind: set(keys) for kind, keys in vocabulary.KINDS.items()}
    assert {key for keys in vocabulary.KINDS.values() for key in keys} == set(vocabulary.STATE)


def test_the_statuses_of_the_schema_are_those_of_the_compiler():
    assert tuple(SCHEMA["$defs"]["state"]["properties"]["status"]["enum"]) == vocabulary.STATUSES


def test_the_schema_is_draft_2020_12():
    jsonschema_rs.meta.validate(SCHEMA)

    assert (SCHEMA["$schema"], SCHEMA["$id"]) == ("https://json-schema.org/draft/2020-12/schema", "machine.schema.json")


@pytest.mark.parametrize("path", [*MACHINES, *VALID], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_the_compiler_accepts_the_schema_accepts(path):
    data = parse(path.read_text(encoding="utf-8"), path.name).data

    assert [error.message for error in VALIDATOR.iter_errors(data)] == []


@pytest.mark.parametrize(
    "name",
    ["key-unknown", "key-missing", "name-invalid", "duration-invalid", "value-invalid", "target-missing",
     "schema-invalid", "states-empty", "state-empty"],
)  # fmt: skip
def test_what_the_compiler_refuses_for_its_shape_the_schema_refuses(name):
    (path,) = (path for path in INVALID if path.stem == name)

    assert not VALIDATOR.is_valid(parse(path.read_text(encoding="utf-8"), path.name).data)


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if not kind], ids=lambda text: text.split("\n")[0])
def test_an_example_of_the_documentation_compiles(text):
    assert text.startswith("machine:"), "mark what is no whole machine: ```yaml fragment"
    assert compiled(text).name == text.split("\n")[0].removeprefix("machine: ")
    assert VALIDATOR.is_valid(parse(text, "m.yaml").data)


@pytest.mark.parametrize(
    "text", [text for kind, text in BLOCKS if kind], ids=range(sum(1 for kind, _ in BLOCKS if kind))
)
def test_a_fragment_of_the_documentation_is_yaml(text):
    assert [found for found in parse(text, "m.yaml").diagnostics if found.rule != "text-empty"] == []


def test_the_documentation_lists_every_rule_with_a_message_that_is_said():
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \| (.+) \|$", section_of_rules(), re.MULTILINE)
    said = "\n".join(path.with_suffix(".out").read_text(encoding="utf-8") for path in INVALID)

    assert {rule for rule, _, _ in rows} == rules_in_the_code()
    for rule, message, remedy in rows:
        assert f": {message} [{rule}] {remedy}\n".replace("\\|", "|") in said


def section_of_rules():
    return DOCUMENT.partition("\n## Rules\n")[2]


def test_the_documentation_lists_every_failure_code_of_the_engine():
    assert set(first_column(section("Failure codes of the engine"), "Code")) == ENGINE_CODES


def test_the_documentation_lists_every_variable_of_expressions():
    assert first_column(section("Expressions"), "Variable") == list(VARIABLES)


def test_the_bounds_of_the_documentation_are_those_of_the_code():
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) ", section("Bounds"), re.MULTILINE)

    assert len(rows) == len(first_column(section("Bounds"), "Bound"))
    for name, value in rows:
        assert int(value) == getattr(bounds, name), name


def test_every_link_inside_the_documentation_leads_to_a_heading():
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^##+ (.+)$", DOCUMENT, re.MULTILINE)}

    assert set(re.findall(r"\]\(#([\w-]+)\)", DOCUMENT)) <= headings
