"""What `.gcloudignore` lets into the functions' bundle: all that they import and read, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pathspec
import pytest

ROOT = Path(__file__).parent.parent.parent


def files() -> list[str]:
    """The project's files as git knows them, and those that are new."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        found = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return sorted(name for name in found if (ROOT / name).is_file())


def bundled() -> list[str]:
    ignored = pathspec.GitIgnoreSpec.from_lines((ROOT / ".gcloudignore").read_text().splitlines())
    return [name for name in files() if not ignored.match_file(name)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The bundle as it lies in an instance."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in bundled():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(bundle: Path, code: str) -> subprocess.CompletedProcess[str]:
    # The bundle comes first on the path, and is the only place in which `engine` is looked for.
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(bundle), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=bundle, env=environment)


def test_it_holds_the_engine_the_machines_and_their_door_alone():
    tops = {name.partition("/")[0] for name in bundled()}
    assert {"engine", "machines", "requirements.txt"} <= tops <= {"engine", "machines", "requirements.txt", "main.py"}
    assert [] == [
        name for name in bundled() if name.endswith((".md", ".pyc")) or "/testing/" in name or "/cli/" in name
    ]
    assert "engine/handlers/charts_outputs_manifest.schema.json" in bundled() or any(
        name.startswith("engine/handlers/") and name.endswith(".json") for name in bundled()
    )


def test_everything_in_it_can_be_imported_from_it(bundle):
    """No module that is in the bundle imports one that is not."""
    code = """
import importlib, pathlib, sys
root = pathlib.Path.cwd()
for path in sorted(root.rglob("*.py")):
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    found = importlib.import_module(module)
    assert pathlib.Path(found.__file__).is_relative_to(root), f"{module} came from {found.__file__}"
"""
    found = run(bundle, code)
    assert 0 == found.returncode, found.stderr


def test_its_machines_compile_and_its_schemas_are_there(bundle):
    code = """
import pathlib
from engine.definition import Catalogue
from engine.handlers.publish import _validator
from engine.handlers.registry import ACTIONS
for path in pathlib.Path("machines").glob("*.yaml"):
    print(Catalogue(ACTIONS.declarations()).load(path).name)
_validator()
"""
    found = run(bundle, code)
    assert 0 == found.returncode, found.stderr
    assert {"chart_export", "chart_request"} <= set(found.stdout.split())


def test_the_requirements_are_the_projects():
    """One source of truth: pyproject.toml. A cached layer of the buildpack follows this file, so it names them all."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = sorted([*project["dependencies"], *project["optional-dependencies"]["google"]], key=str.lower)
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert expected == [line for line in lines if not line.startswith("#")]


def test_nothing_is_pinned_to_one_version():
    """A pinned functions-framework broke the start on a newer Python; the image brings the one that fits."""
    assert [] == [line for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]


@pytest.mark.skipif(
    shutil.which("gcloud") is None, reason="gcloud is not installed: it cannot be asked what it uploads"
)
def test_gcloud_uploads_what_this_test_says(tmp_path):
    project = tmp_path / "project"
    for name in files():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    environment = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "config")}
    command = ["gcloud", "meta", "list-files-for-upload", str(project)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert bundled() == sorted(found.stdout.split())
