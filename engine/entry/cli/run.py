"""`detent run MACHINE`: load documents, start or join a run, drive it to its end, and report."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import anyio
import click

from engine.core.machine import Machine
from engine.core.scope import MomentScope
from engine.core.snapshot import empty
from engine.entry.application import RunResult
from engine.entry.assembly import Assembly
from engine.entry.cli import EXIT_ELSEWHERE, EXIT_FAILED
from engine.entry.cli.options import (
    actions_option,
    artifacts_options,
    chart_options,
    configuration,
    import_actions,
    store_option,
)
from engine.entry.cli.progress import observer_for_terminal
from engine.entry.cli.wording import action_unknown
from engine.entry.loading import load_flow_run, load_folder, read_document, read_flag
from engine.errors import ExpressionError, InvalidRequestError


@click.command("run")
@click.argument("machine", metavar="MACHINE")
@click.option("--input", "input_", metavar="JSON|@FILE", help="The run's input, as JSON or from a file.")
@click.option("--flow-run", metavar="FILE", help="A flow-run document: it is loaded, and its runId is the input.")
@click.option("--load", metavar="DIR", help="Put DIR/<collection>/<id>.json into the store first.")
@click.option("--reload", is_flag=True, help="With --load or --flow-run: put documents over those that are there.")
@click.option("--run-id", metavar="ID", help="Id of the run, for a machine without a key; a second start joins it.")
@click.option("--detach", is_flag=True, help="Record the run and leave it to `detent worker`.")
@actions_option
@chart_options
@store_option
@artifacts_options
@click.option("--summary", type=click.Choice(["text", "json", "none"]), default="text", show_default=True)
def command(
    machine: str, input_: str | None, flow_run: str | None, load: str | None, reload: bool, run_id: str | None,
    detach: bool, actions: tuple[str, ...], mode: str | None, accounts: str | None, store: str | None,
    artifacts: str | None, bucket: str | None, summary: str,
) -> None:  # fmt: skip
    """Run MACHINE, a YAML definition, to its end; the same command again does nothing more."""
    config = configuration(store=store, artifacts=artifacts, mode=mode, accounts=accounts, bucket=bucket)
    import_actions(actions)
    value = _input(input_)
    with observer_for_terminal(config) as (observer, secrets):
        assembly = Assembly(config, secrets, observer)

        async def run() -> tuple[Machine, RunResult]:
            loaded = assembly.load(machine)
            async with assembly.engine() as app:
                if load is not None:
                    await load_folder(app.store, load, replace=reload)
                if flow_run is not None:
                    found = await load_flow_run(app.store, flow_run, replace=reload)
                    if value.setdefault("run_id", found) != found:
                        raise InvalidRequestError(
                            f"--flow-run {flow_run} holds the run {found!r}, and --input names another.",
                            remedy="Leave run_id out of --input.",
                        )
                    fields = {"mode": "local", "flowRunPath": flow_run, "stepId": value.get("step_id")}
                    logging.getLogger(config.service).info(
                        "local_run_started", extra={"fields": {**fields, "chartsApiMode": config.mode}}
                    )
                start = app.start if detach else app.run
                return loaded, await start(loaded, value, run_id=run_id)

        loaded, result = anyio.run(run)
    if detach and not result.is_final:
        if summary == "json":
            click.echo(json.dumps(result.to_json(), ensure_ascii=False))
        elif summary == "text":
            click.echo(f"Run {result.run_id} is recorded; a worker goes on with it.")
        sys.exit(0)
    sys.exit(report(loaded, result, summary))


def report(machine: Machine, result: RunResult, summary: str) -> int:
    """Print how a run stands, in the asked form; answers the exit status."""
    if summary == "json":
        click.echo(json.dumps(result.to_json(), ensure_ascii=False))
    elif summary == "text":
        click.echo(text_of(machine, result))
    if not result.is_final:
        click.echo(_why_not_final(machine, result), err=True)
        return EXIT_ELSEWHERE
    return 0 if result.status == "succeeded" or (result.is_unchanged and result.was_recorded) else EXIT_FAILED


def text_of(machine: Machine, result: RunResult) -> str:
    """One line as the machine's `summary` has it, then what went wrong or was left unchanged."""
    lines = [_first_line(machine, result)]
    if result.error is not None:
        lines.append(f"  {result.error.get('code')}: {result.error.get('message')}")
    if result.is_unchanged and (result.was_recorded or result.status == "succeeded"):
        lines.append("  unchanged: it had ended before, and nothing was done.")
    return "\n".join(lines)


def _first_line(machine: Machine, result: RunResult) -> str:
    if machine.summary is not None and isinstance(result.output, dict):
        snapshot = empty(result.run_id, machine.name, machine.version, machine.digest)
        try:
            return str(machine.summary.render(MomentScope(snapshot, {}, result=result.output)))
        except ExpressionError:
            pass  # an output of another shape: say it in the general form
    output = "" if result.output is None else f": {json.dumps(result.output, ensure_ascii=False)}"
    return f"{result.machine} {result.status.upper()} in {result.state or 'no state'} ({result.run_id}){output}"


def _why_not_final(machine: Machine, result: RunResult) -> str:
    if result.held_by is not None:
        return f"The run {result.run_id} is held by {result.held_by}, whose lease lives; it goes on there."
    if action := action_unknown(machine, result.state):
        waits = f"The run {result.run_id} waits in {result.state} for the action {action}"
        return f"{waits}, which is not known here; name its module with --actions."
    return f"The run {result.run_id} waits in {result.state}; `detent runs show {result.run_id}` says for what."


def _input(text: str | None) -> dict[str, Any]:
    return {} if text is None else read_document(*read_flag(text, "--input"))


__all__ = ["command", "report", "text_of"]
