"""The actions that the definitions of these tests ask for, and short ways to compile a text."""

from __future__ import annotations

from pathlib import Path

from engine.core.action import ActionDeclaration, ActionKind
from engine.core.machine import Machine
from engine.definition import Catalogue
from engine.definition.compiler import Children, Compiled, compile_text

HERE = Path(__file__).parent

_DECLARED = (
    # A shop, for fixtures and the documentation.
    ActionDeclaration(
        "shop.reserve", ActionKind.TRANSACTIONAL, ("reserved", "sold_out"), parameters=("article",), optional=("count",)
    ),
    ActionDeclaration("shop.pack", ActionKind.REPEATABLE, ("packed",), ("STOCK_MISSING", "SCALE_BROKEN")),
    ActionDeclaration("shop.ship", ActionKind.REPEATABLE),
    ActionDeclaration("card.charge", ActionKind.UNREPEATABLE, ("charged",), ("CARD_DECLINED",)),
    ActionDeclaration("mail.send", ActionKind.REPEATABLE, ("sent",)),
    # What the sketches of the design name.
    ActionDeclaration("ledger.reserve", ActionKind.TRANSACTIONAL, ("reserved", "exhausted")),
    ActionDeclaration("ledger.exhaust", ActionKind.TRANSACTIONAL),
    ActionDeclaration(
        "chart_img.capture", ActionKind.UNREPEATABLE, ("captured",), ("CHART_API_FAILED", "CHART_API_LIMIT_EXCEEDED")
    ),
    ActionDeclaration("flow_steps.claim", ActionKind.TRANSACTIONAL, ("claimed", "already_final", "not_ready")),
    ActionDeclaration("templates.build_requests", ActionKind.REPEATABLE, ("built",), ("VALIDATION_FAILED",)),
    ActionDeclaration("publish.pictures", ActionKind.REPEATABLE, ("published",)),
    ActionDeclaration("publish.manifest", ActionKind.REPEATABLE, ("written",), ("MANIFEST_WRITE_FAILED",)),
    ActionDeclaration("flow_steps.succeed", ActionKind.TRANSACTIONAL, ("done", "already_final")),
    ActionDeclaration("flow_steps.fail", ActionKind.TRANSACTIONAL, ("done", "already_final")),
)
ACTIONS = {action.name: action for action in _DECLARED}


def check(text: str, children: Children = lambda name: None) -> Compiled:
    """Compile a text as the file `m.yaml`."""
    return compile_text(text, "m.yaml", ACTIONS, children)


def compiled(text: str, children: Children = lambda name: None) -> Machine:
    """The machine of a text that has nothing wrong in it."""
    machine, diagnostics = check(text, children)
    assert [str(found) for found in diagnostics] == []
    assert machine is not None
    return machine


def rules(text: str, children: Children = lambda name: None) -> list[str]:
    """The rules that a text breaks, in the order of the text."""
    return [found.rule for found in check(text, children).diagnostics]


def lines(path: Path) -> list[str]:
    """The diagnostics of a file and its children, with the names of the files alone."""
    _, diagnostics = Catalogue(ACTIONS).check(path)
    return [str(found._replace(file=Path(found.file).name)) for found in diagnostics]
