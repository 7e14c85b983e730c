"""Pictures: what of a machine is in them, and that three formats say the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from engine.core.action import ActionDeclaration, ActionKind
from engine.core.machine import Machine
from engine.definition.catalogue import Catalogue
from engine.definition.diagram import FORMATS, compose, draw, palette
from engine.definition.diagram.picture import Edge, EdgeKind, Node, NodeKind, Picture

SVG = "{http://www.w3.org/2000/svg}"

ACTIONS = [
    ActionDeclaration("ledger.reserve", ActionKind.TRANSACTIONAL, ("reserved", "exhausted")),
    ActionDeclaration("ledger.exhaust", ActionKind.TRANSACTIONAL),
    ActionDeclaration("chart_img.capture", ActionKind.UNREPEATABLE, ("captured",), ("CHART_API_LIMIT_EXCEEDED",)),
    ActionDeclaration("flow_steps.claim", ActionKind.TRANSACTIONAL, ("claimed", "already_final", "not_ready")),
    ActionDeclaration("templates.build_requests", ActionKind.REPEATABLE, ("built",)),
    ActionDeclaration("publish.pictures", ActionKind.REPEATABLE, ("published",)),
    ActionDeclaration("publish.manifest", ActionKind.REPEATABLE, ("written",)),
    ActionDeclaration("flow_steps.succeed", ActionKind.TRANSACTIONAL, ("done", "already_final")),
    ActionDeclaration("flow_steps.fail", ActionKind.TRANSACTIONAL, ("done", "already_final")),
    ActionDeclaration("do.it", ActionKind.REPEATABLE, ("done",), ("A_B",)),
    ActionDeclaration("costs.money", ActionKind.UNREPEATABLE, ("done",), ("A_B",)),
]

CHART_REQUEST = """
machine: chart_request
version: 1
description: One chart; reserve a unit, call Chart-IMG, keep the picture.
initial: RESERVING
states:
  RESERVING:
    invoke: {action: ledger.reserve, assign: {account: "${result.account_id}"}}
    on:
      reserved: {target: CAPTURING, after: "${result.wait_s}"}
      exhausted: {target: FAILED, assign: {error: {code: CHART_API_LIMIT_EXCEEDED}}}
  CAPTURING:
    max_visits: 3
    invoke: {action: chart_img.capture, timeout: 30s, assign: {picture: "${result.picture}"}}
    on: {captured: SUCCEEDED, interrupted: AGAIN}
    catch:
      - {errors: [CHART_API_LIMIT_EXCEEDED], target: EXHAUSTING, assign: {error: "${error}"}}
      - {guard: error.retriable, target: AGAIN, assign: {error: "${error}"}}
      - {target: FAILED, assign: {error: "${error}"}}
  EXHAUSTING: {invoke: {action: ledger.exhaust}, on: {done: AGAIN}}
  AGAIN:
    always:
      - {guard: "visits.CAPTURING < 3", target: RESERVING, after: "${backoff(visits.CAPTURING, 0.5, 2.0, context.error)}"}
      - {target: FAILED}
  SUCCEEDED: {type: final, output: {picture: "${context.picture}"}}
  FAILED: {type: final, status: FAILED, output: {error: "${context.error}"}}
"""

CHART_EXPORT = """
machine: chart_export
version: 1
initial: READY
states:
  READY:
    invoke: {action: flow_steps.claim, assign: {step: "${result.step}"}}
    on: {claimed: RUNNING, already_final: UNCHANGED, not_ready: REFUSED}
  RUNNING:
    initial: PREPARING
    catch: [{target: RUNNING.FAILING, assign: {error: "${error}"}}]
    cancel: RUNNING.FAILING
    states:
      PREPARING: {invoke: {action: templates.build_requests, assign: {requests: "${result.requests}"}}, on: {built: CAPTURING}}
      CAPTURING:
        map: {machine: chart_request, items: "${context.requests}", key: "${item.id}", concurrency: 4, assign: {items: "${result.items}"}}
        on: {done: PUBLISHING}
      PUBLISHING: {invoke: {action: publish.pictures}, on: {published: MANIFESTING}}
      MANIFESTING:
        invoke: {action: publish.manifest}
        on: {written: [{guard: "size(context.items) >= context.step.min_images", target: SUCCEEDING}, {target: FAILING}]}
      SUCCEEDING: {invoke: {action: flow_steps.succeed}, on: {done: SUCCEEDED, already_final: UNCHANGED}}
      FAILING: {invoke: {action: flow_steps.fail}, on: {done: FAILED, already_final: UNCHANGED}}
  SUCCEEDED: {type: final}
  UNCHANGED: {type: final}
  FAILED: {type: final, status: FAILED}
  REFUSED: {type: final, status: FAILED}
"""

# Every kind of state, three deep, and names and texts that each format has a meaning of its own for.
NASTY = r"""
machine: nasty
version: 7
description: 'Every kind of state; "quotes", <b>tags</b>, #35; %% and $$ in words.'
initial: end
states:
  end:
    on:
      "1. go: \"now\" [x]; #2 <i>&amp;</i> `md` %%{init} $$x$$": {target: class}
      "- ünï 日本語 çode": {target: state, after: 90s}
      again: end
    after:
      30s: {target: graph}
      "${context.?x.orValue(5)}": {target: style}
    timeout: 2h
    max_visits: 1
    cancel: subgraph
  class:
    initial: state
    timeout: 10m
    catch:
      - {errors: [A_B, TIMEOUT, VISITS_EXCEEDED], target: style}
      - guard: "error.code == 'x' && !(context.?x.orValue(0) > 3) || \"a\\\\b<c>\" == error.message"
        target: inner.deep.leaf
        after: 1.5s
      - {target: default}
    cancel: {target: subgraph, assign: {why: cancelled}}
    states:
      state:
        invoke: {action: do.it, retry: [{errors: [A_B], attempts: 5}, {attempts: 2}], assign: {x: 1}}
        on: {done: inner}
      inner:
        initial: deep
        catch: [{errors: [A_B], target: deep.leaf}]
        states:
          deep:
            initial: leaf
            states:
              leaf:
                map:
                  machine: chart_request
                  items: "${[1,2,3].map(i, {'id': string(i)})}"
                  key: "${item.id}"
                  concurrency: 9
                  min_success: "${1 + 1}"
                  assign: {items: "${result.items}"}
                on:
                  done:
                    - {guard: "size(context.items) == 2", target: linkStyle}
                    - {guard: "context.items[0].status == \"SUCCEEDED\"", target: linkStyle}
                    - {target: end}
              linkStyle:
                max_visits: 3
                always:
                  - {guard: "visits.class.inner.deep.leaf < 3", target: leaf, after: 250ms}
                  - {guard: "visits.class.inner.deep.leaf < 2", target: default}
                  - {target: default}
                catch: [{target: graph}]
          other: {invoke: {action: costs.money, timeout: 5s}, on: {done: default, interrupted: leaf2}, max_visits: 4, cancel: leaf2}
          leaf2: {always: [{guard: "run.id == '}'", target: other}, {target: style}]}
  state:
    invoke: {action: do.it}
    on: {done: class.inner.other}
    catch: [{errors: [A_B], target: state}, {guard: error.retriable, target: class}, {target: style}]
  graph: {type: final}
  default: {type: final, status: SUCCEEDED}
  style: {type: final, status: FAILED}
  subgraph: {type: final, status: CANCELLED}
"""
TEXTS = {"chart_request": CHART_REQUEST, "chart_export": CHART_EXPORT, "nasty": NASTY}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Machine]:
    folder: Path = tmp_path_factory.mktemp("machines")
    for name, text in TEXTS.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    found = Catalogue({action.name: action for action in ACTIONS})
    return lambda name: found.load(folder / f"{name}.yaml")


@pytest.fixture(params=TEXTS)
def machine(request: pytest.FixtureRequest, catalogue: Callable[[str], Machine]) -> Machine:
    return catalogue(request.param)


def node(picture: Picture, state: str) -> Node:
    return next(node for node in picture.nodes if node.state == state)


def edges(picture: Picture, source: str, target: str) -> list[Edge]:
    """The edges between two states, the source named by its state or by a handler's id."""
    ids = {found.state: found.id for found in picture.nodes}
    start = ids.get(source, source)
    return [edge for edge in picture.edges if (edge.source, edge.target) == (start, ids[target])]


def handler(picture: Picture, box: str, kind: NodeKind) -> Node:
    ids = {found.state: found.id for found in picture.boxes}
    [found] = [found for found in picture.nodes if found.kind is kind and found.box == ids[box]]
    return found


# What is in the picture


def test_each_state_of_the_machine_is_one_node(machine: Machine) -> None:
    picture = compose(machine)
    assert [found.state for found in picture.nodes if found.state] == list(machine.states)
    assert len({part.id for part in picture.parts()}) == len(picture.parts())


def test_each_transition_of_the_machine_is_in_the_picture(machine: Machine) -> None:
    picture = compose(machine)
    around = {box.id: box.state for box in picture.boxes}
    kinds = {"catch": EdgeKind.ERROR, "cancel": EdgeKind.CANCEL}
    for branch in machine.branches():
        boxes = [name for name in around.values() if branch.source.startswith(f"{name}.")]
        sources = {node(picture, branch.source).id}
        sources |= {found.id for found in picture.nodes if found.kind.is_handler and around[found.box or ""] in boxes}
        said = [
            line
            for edge in picture.edges
            if edge.source in sources and edge.kind is kinds.get(branch.event, EdgeKind.FLOW)
            and edge.target == node(picture, branch.target).id
            for line in edge.tooltip.splitlines()
        ]  # fmt: skip
        whole = f"→ {branch.target} if {branch.guard.text}" if branch.guard else f"→ {branch.target}"
        assert any(whole in line for line in said), branch


def test_nothing_is_in_the_picture_that_the_machine_does_not_have(machine: Machine) -> None:
    """Each line of a tooltip is one transition as it is written, an inherited one counted once."""
    picture = compose(machine)
    own = [branch for branch in machine.branches() if branch.event not in ("catch", "cancel")]
    inheritable = {branch.position for branch in machine.branches() if branch.event in ("catch", "cancel")}
    said = [line for edge in picture.edges if edge.source != "start" for line in edge.tooltip.splitlines()]
    assert len(said) == len(own) + len(inheritable)


def test_a_run_begins_at_the_dot(machine: Machine) -> None:
    [start] = [edge for edge in compose(machine).edges if edge.source == "start"]
    assert start.target == node(compose(machine), machine.initial).id


def test_inherited_catch_is_drawn_once(catalogue: Callable[[str], Machine]) -> None:
    picture = compose(catalogue("chart_export"))
    errors = [edge for edge in picture.edges if edge.kind is EdgeKind.ERROR]
    assert errors == edges(picture, handler(picture, "RUNNING", NodeKind.CATCH).id, "RUNNING.FAILING")
    assert len(errors) == 1


def test_inherited_cancel_is_drawn_once(catalogue: Callable[[str], Machine]) -> None:
    picture = compose(catalogue("chart_export"))
    cancels = [edge for edge in picture.edges if edge.kind is EdgeKind.CANCEL]
    assert cancels == edges(picture, handler(picture, "RUNNING", NodeKind.CANCEL).id, "RUNNING.FAILING")
    assert len(cancels) == 1


def test_each_box_has_its_own_catch_and_a_state_its_own_cancel(catalogue: Callable[[str], Machine]) -> None:
    picture = compose(catalogue("nasty"))
    leaf = "class.inner.deep.leaf"
    outer, inner = (handler(picture, box, NodeKind.CATCH).id for box in ("class", "class.inner"))
    assert [edge.lines for edge in edges(picture, inner, leaf)] == [("A_B",)]
    assert edges(picture, outer, leaf)[0].lines[-1] == "after 1.5s"
    assert [edge.lines for edge in edges(picture, outer, "default")] == [("any other error",)]
    [own] = [edge for edge in edges(picture, "class.inner.other", "class.inner.leaf2") if edge.kind is EdgeKind.CANCEL]
    assert own.lines == ("cancel",)


def test_boxes_lie_in_each_other_as_the_states_do(catalogue: Callable[[str], Machine]) -> None:
    picture = compose(catalogue("nasty"))
    assert [(box.state, box.box, box.depth) for box in picture.boxes] == [
        ("class", None, 0), ("class.inner", "b1", 1), ("class.inner.deep", "b2", 2),
    ]  # fmt: skip
    assert node(picture, "class.inner.deep.leaf").box == "b3"


def test_a_rebuilt_machine_has_the_same_picture(catalogue: Callable[[str], Machine]) -> None:
    """A stored definition has no positions, and the catches are found all the same."""
    machine = catalogue("nasty")
    found = Catalogue({action.name: action for action in ACTIONS})
    assert compose(found.rebuild(machine.source, machine.children, machine.file)) == compose(machine)


# What is written in it


@pytest.mark.parametrize(
    ("machine", "state", "kind", "lines"),
    [
        ("chart_request", "CAPTURING", "action", ("chart_img.capture", "timeout 30s", "≤ 3 visits")),
        ("chart_request", "AGAIN", "choice", ()),
        ("chart_request", "FAILED", "failed", ()),
        ("chart_export", "UNCHANGED", "succeeded", ("succeeded",)),
        ("chart_export", "RUNNING.CAPTURING", "map", ("map chart_request ×4", "each of context.requests")),
        ("nasty", "end", "wait", ("waits", "timeout 2h", "≤ 1 visit")),
        ("nasty", "class.state", "action", ("do.it", "up to 5 attempts", "timeout 10m")),
        ("nasty", "class.inner.leaf2", "choice", ()),
        ("nasty", "subgraph", "cancelled", ("cancelled",)),
    ],
    indirect=["machine"],
)
def test_a_node_says_what_its_state_does(machine: Machine, state: str, kind: str, lines: tuple[str, ...]) -> None:
    found = node(compose(machine), state)
    assert (found.title, found.kind, found.lines) == (state.rpartition(".")[2], kind, lines)


@pytest.mark.parametrize(
    ("machine", "source", "target", "labels"),
    [
        ("chart_request", "RESERVING", "CAPTURING", [("reserved", "after ${result.wait_s}")]),
        ("chart_request", "CAPTURING", "AGAIN", [("interrupted",), ("[error.retriable]",)]),
        ("chart_request", "CAPTURING", "FAILED", [("any other error",)]),
        ("chart_request", "AGAIN", "FAILED", [("[else]",)]),
        ("chart_export", "RUNNING.MANIFESTING", "RUNNING.FAILING", [("written [else]",)]),
        ("nasty", "end", "graph", [("after 30s",)]),
        ("nasty", "end", "end", [("again",)]),
        ("nasty", "end", "state", [("- ünï 日本語 çode", "after 90s")]),
        ("nasty", "class.inner.deep.linkStyle", "class.inner.deep.leaf", [("[visits.class.inner.deep.leaf < 3]", "after 250ms")]),
        (
            "nasty", "class.inner.deep.leaf", "class.inner.deep.linkStyle",
            [("done [size(context.items) == 2]", "or done", "[context.items[0].status ==", '"SUCCEEDED"]')],
        ),
    ],
    indirect=["machine"],
)  # fmt: skip
def test_an_edge_says_when_it_is_taken(machine: Machine, source: str, target: str, labels: object) -> None:
    assert [edge.lines for edge in edges(compose(machine), source, target)] == labels


def test_a_guard_that_makes_no_difference_is_left_to_the_tooltip(catalogue: Callable[[str], Machine]) -> None:
    [edge] = edges(compose(catalogue("nasty")), "class.inner.deep.linkStyle", "default")
    assert edge.lines == ("[else]",)
    assert "visits.class.inner.deep.leaf < 2" in edge.tooltip


def test_a_long_guard_is_shortened_and_whole_in_the_tooltip(catalogue: Callable[[str], Machine]) -> None:
    machine = catalogue("nasty")
    [guard] = {branch.guard.text for branch in machine.branches() if branch.guard and "||" in branch.guard.text}
    [edge] = [edge for edge in compose(machine).edges if guard in edge.tooltip]
    assert guard not in " ".join(edge.lines)
    assert any(line.endswith("…]") for line in edge.lines)


# The three formats


def test_the_formats_draw_the_same_nodes_and_edges(machine: Machine) -> None:
    picture = compose(machine)
    wanted = sorted((edge.source, edge.target) for edge in picture.edges)
    mermaid = re.findall(r"^  (\w+) -\.?->(?:\|\"[^\"]*\"\|)? (\w+)$", draw(machine, "mermaid"), re.MULTILINE)
    dot = re.findall(r"^ +(\w+) -> (\w+) \[", draw(machine, "dot"), re.MULTILINE)
    svg = fromstring(draw(machine, "svg"))
    tooltips = [group.findtext(f"{SVG}title") for group in svg.iter(f"{SVG}g") if "edge" in group.get("class", "")]
    states = [group.get("data-state") for group in svg.iter(f"{SVG}g") if "node" in group.get("class", "")]
    assert sorted(mermaid) == sorted(dot) == wanted
    assert sorted(tooltips) == sorted(edge.tooltip for edge in picture.edges)
    assert sorted(filter(None, states)) == sorted(machine.states)


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_ends_with_one_newline(machine: Machine, form: str) -> None:
    text = draw(machine, form)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def _contrast(one: str, other: str) -> float:
    """The contrast of two colours, WCAG 2.2 section 1.4.3."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("kind", [kind for kind in NodeKind if kind is not NodeKind.START])
def test_text_can_be_read_on_its_node(kind: NodeKind) -> None:
    assert _contrast(palette.NODES[kind].text, palette.NODES[kind].fill) >= 4.5


@pytest.mark.parametrize("kind", EdgeKind)
def test_edges_can_be_seen_on_their_page(kind: EdgeKind) -> None:
    assert all(_contrast(palette.EDGES[kind], fill) >= 4.5 for fill in (palette.PAPER, *palette.BOX_FILLS))
    if kind in palette.ON_ANY:
        assert all(_contrast(palette.ON_ANY[kind], page) >= 3 for page in ("#ffffff", "#0d1117"))
