"""Every rule has a fixture with the golden text of what it says; sensible definitions have nothing to say."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import engine.definition
from engine.definition import Catalogue
from engine.entry.cli.validate import command
from engine.handlers.registry import ACTIONS as REGISTERED
from tests.definition.declared import ACTIONS, HERE, lines

INVALID = sorted((HERE / "invalid").glob("*.yaml"))
VALID = sorted((HERE / "valid").glob("*.yaml"))
MACHINES = sorted((HERE.parents[1] / "machines").glob("*.yaml"))
RULE = re.compile(r"[a-z]+(-[a-z]+)+")
LINE = re.compile(r"\S+\.yaml:\d+:\d+: .+ \[([a-z-]+)\] .+\S")


def rules_in_the_code() -> set[str]:
    """The names of rules that the package's source hands to a function that reports."""
    found = set()
    for file in Path(engine.definition.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
                "report", "_refuse", "Diagnostic",
            ):  # fmt: skip
                texts = [part.value for part in node.args if isinstance(part, ast.Constant)]
                found |= {text for text in texts if isinstance(text, str) and RULE.fullmatch(text)}
    return found


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_definition_says_exactly_this(path):
    expected = path.with_suffix(".out").read_text(encoding="utf-8").splitlines()

    assert expected == lines(path)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_every_diagnostic_has_a_place_a_rule_and_a_remedy(path):
    assert [line for line in lines(path) if not LINE.fullmatch(line)] == []


def test_every_rule_in_the_code_has_a_fixture():
    reported = {
        LINE.fullmatch(line)[1] for path in INVALID for line in path.with_suffix(".out").read_text().splitlines()
    }

    assert rules_in_the_code() == reported


def test_no_golden_text_is_left_without_its_definition():
    assert {path.stem for path in (HERE / "invalid").glob("*.out")} == {path.stem for path in INVALID}


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_definition_has_nothing_to_say(path):
    machine, diagnostics = Catalogue(ACTIONS).check(path)

    assert [str(found) for found in diagnostics] == []
    assert machine.name == path.stem


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_the_machines_of_the_project_are_valid(path):
    assert Catalogue(REGISTERED.declarations()).check(path).diagnostics == ()


def test_many_different_mistakes_are_reported_at_once():
    found = {LINE.fullmatch(line)[1] for line in lines(HERE / "invalid" / "ten-mistakes-at-once.yaml")}

    assert found == {
        "key-unknown", "key-duplicate", "target-unknown", "state-unreachable", "final-unreachable", "outcome-unhandled",
        "error-unhandled", "action-unknown", "parameter-unknown", "expression-invalid", "interrupted-unhandled",
        "cycle-unbounded",
    }  # fmt: skip


def test_a_missing_file_is_a_diagnostic(tmp_path):
    (found,) = Catalogue(ACTIONS).check(tmp_path / "nowhere.yaml").diagnostics

    assert (found.rule, found.position) == ("file-unreadable", (1, 1))
    assert "No such file" in found.message


def test_a_folder_and_an_impossible_name_are_diagnostics(tmp_path):
    assert [found.rule for found in Catalogue(ACTIONS).check(tmp_path).diagnostics] == ["file-unreadable"]
    assert [found.rule for found in Catalogue(ACTIONS).check("a\0b").diagnostics] == ["file-unreadable"]


# The command line


def test_validate_says_what_a_valid_machine_is():
    result = CliRunner().invoke(command, [str(path) for path in MACHINES])

    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split(": ")[1] for line in result.stdout.splitlines()] == ["valid", "valid"]


def test_validate_exits_with_3_and_prints_the_golden_lines():
    path = HERE / "invalid" / "target-unknown.yaml"

    result = CliRunner().invoke(command, [str(path)])

    assert result.exit_code == 3
    assert "4 problems" not in result.stdout
    printed = [line.replace(str(path), path.name) for line in result.stdout.splitlines()]
    assert [line for line in printed if "[target-unknown]" in line] == lines(path)


def test_validate_reports_every_file_once_and_as_json():
    path = str(HERE / "invalid" / "key-duplicate.yaml")

    result = CliRunner().invoke(command, [path, path, str(MACHINES[0]), "--format", "json"])

    rows = json.loads(result.stdout)
    assert result.exit_code == 3
    assert [row for row in rows if row["rule"] == "key-duplicate"] == [
        {
            "file": path, "line": 7, "column": 3, "rule": "key-duplicate", "remedy": "Remove one of the two.",
            "message": "the key 'PACKING' stands here a second time (first on line 4)",
        }
    ]  # fmt: skip
