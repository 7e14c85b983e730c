"""What is written down holds: pictures are those of the machines, paths exist, and the README's example runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.definition import load_machine
from engine.definition.diagram import draw
from engine.handlers.registry import ACTIONS

ROOT = Path(__file__).parent.parent
PROSE = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "engine/runner/LEASES.md",
    ROOT / "benchmarks/README.md",
]


@pytest.mark.parametrize("name", ["chart_export", "chart_request"])
def test_the_pictures_in_the_readme_are_those_of_the_machines(name):
    drawn = draw(load_machine(ROOT / f"machines/{name}.yaml", ACTIONS.declarations()), "svg")

    assert drawn == (ROOT / f"docs/images/{name}.svg").read_text(), "make diagrams"


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_every_path_that_prose_names_exists(path):
    text = path.read_text()
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    named = re.findall(r"`((?:engine|machines|tests|docs|fixtures|cassettes)/[\w./-]+)`", text)

    missing = [name for name in linked if not (path.parent / name).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readme_s_own_machine_runs_as_it_says(tmp_path):
    (tmp_path / "shop.py").write_text(fenced("python")[0])
    (tmp_path / "demo.yaml").write_text(next(text for text in fenced("yaml") if "machine: demo" in text))
    shown = next(text for text in fenced("console") if "--actions shop" in text)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LOG_LEVEL": "ERROR"}
    for command, expected in re.findall(r"\$ detent (.*)\n(.*)\n", shown):
        arguments = __import__("shlex").split(command)
        found = subprocess.run(
            [sys.executable, "-m", "engine.entry.cli", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

        assert found.stdout.strip() == expected, found.stderr


def test_nothing_names_the_workplace():
    words = re.compile("|".join(["/wo" + "rk/", "/ro" + "ot/", "far" + "m-", "pypi" + r"\.", "Co-Auth" + "ored"]))
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    wrong = []
    for name in found:
        path = ROOT / name
        if name and path.suffix in (".py", ".md", ".yaml", ".toml", ".json", "") and path.is_file():
            wrong += [f"{name}: {line}" for line in path.read_text(errors="replace").splitlines() if words.search(line)]

    assert wrong == []


def test_every_log_event_is_in_the_documents():
    """Dashboards are built on these names."""
    said = re.compile(
        r"(?:log|Remark|_say|_say_wrong|trouble|info|warning|error|exception)\(\s*\"([a-z]+(?:_[a-z]+)+)\""
    )
    sources = (path for path in (ROOT / "engine").rglob("*.py") if "testing" not in path.parts)
    events = {event for path in sources for event in said.findall(path.read_text(encoding="utf-8"))}
    documented = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs/configuration.md").read_text(encoding="utf-8")))

    assert len(events) > 30
    assert events - documented == set()
