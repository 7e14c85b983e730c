"""Options that several commands share. A flag sets the variable of the same meaning, and wins over it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from engine.entry.cli.reporting import FLAGS
from engine.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from engine.entry.configuration import Configuration

Command = TypeVar("Command", bound=Callable[..., Any])


def store_option(command: Command) -> Command:
    """--store URL."""
    where = "Where runs are kept: sqlite:///PATH, firestore://PROJECT/DATABASE or memory:."
    return click.option("--store", metavar="URL", help=where)(command)


def artifacts_options(command: Command) -> Command:
    """--artifacts URL and --bucket NAME."""
    command = click.option("--bucket", metavar="NAME", help="Bucket of the published objects.")(command)
    return click.option(
        "--artifacts", metavar="URL", help="Where objects are published: folder:PATH, or gs: for --bucket."
    )(command)


def chart_options(command: Command) -> Command:
    """--mode and --accounts FILE."""
    command = click.option("--accounts", metavar="FILE", help="JSON file with the accounts of the API.")(command)
    modes = click.Choice(["mock", "record", "real"])
    return click.option("--mode", type=modes, help="How chart_img.capture answers; mock calls nothing.")(command)


def actions_option(command: Command) -> Command:
    """--actions MODULE."""
    return click.option(
        "--actions", metavar="MODULE", multiple=True, help="Python module that registers actions; may be repeated."
    )(command)


def configuration(**flags: str | None) -> Configuration:
    """The process's configuration: the environment with the given flags over it."""
    from engine.entry.configuration import read_configuration  # here: it loads the engine, which not all commands need

    return read_configuration(environment(**flags), default_mode="mock")


def environment(**flags: str | None) -> dict[str, str]:
    """The environment with the given flags over it. Raises `ConfigurationError` for a file that cannot be read.

    An error of a variable that a flag has set is told as the flag's (`reporting.by_flag`).
    """
    environ = dict(os.environ)
    names = {
        "store": "DETENT_STORE",
        "artifacts": "DETENT_ARTIFACTS",
        "mode": "CHARTS_API_MODE",
        "grace": "DETENT_GRACE_S",
    }
    context = click.get_current_context(silent=True)
    if context is not None:
        every = names | {"bucket": "ARTIFACTS_BUCKET", "accounts": "CHART_IMG_ACCOUNTS_JSON"}
        context.meta[FLAGS] = {name: f"--{flag}" for flag, name in every.items() if flags.get(flag) is not None}
    for flag, name in names.items():
        if flags.get(flag) is not None:
            environ[name] = str(flags[flag])
    if flags.get("bucket") is not None:
        environ.pop("CHARTS_BUCKET", None)
        environ["ARTIFACTS_BUCKET"] = str(flags["bucket"])
    if flags.get("accounts") is not None:
        environ["CHART_IMG_ACCOUNTS_JSON"] = _accounts_file(Path(str(flags["accounts"])))
    return environ


def _accounts_file(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigurationError("--accounts", f"the file cannot be read: {problem}.") from None
    if not text.strip():
        raise ConfigurationError("--accounts", "the file is empty.")
    return text


def import_actions(modules: tuple[str, ...]) -> None:
    """Import the modules that register a user's actions. Raises `InvalidRequestError` naming the module."""
    if modules and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: the user's module lies where the command is given
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise InvalidRequestError(
                f"--actions {name}: the module cannot be imported: {type(error).__name__}: {error}.",
                remedy="Give its dotted name, as `import` takes it, from the folder in which it can be found.",
            ) from error
