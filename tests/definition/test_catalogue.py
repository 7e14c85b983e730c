"""Files and children: where they are found, what is refused, and definitions that were stored."""

from __future__ import annotations

import pytest

from engine.core import bounds, canonical
from engine.definition import Catalogue, load_machine
from engine.errors import DefinitionError
from tests.definition.declared import ACTIONS, HERE

LEAF = "machine: {name}\ninitial: DONE\nstates: {{DONE: {{type: final}}}}\n"
PARENT = """\
machine: {name}
initial: MAPPING
states:
  MAPPING:
    map: {{machine: {child}, items: [1], key: "${{string(item)}}"}}
    on: {{done: AGAIN}}
  AGAIN:
    map: {{machine: {child}, items: [2], key: "${{string(item)}}"}}
    on: {{done: DONE}}
  DONE: {{type: final}}
"""


@pytest.fixture
def folder(tmp_path):
    """Writes definitions, each to the file of its name, and answers their folder."""

    def write(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def rules(path):
    return [found.rule for found in Catalogue(ACTIONS).check(path).diagnostics]


def test_a_child_is_the_file_of_its_name_beside_the_definition(folder):
    path = folder(top=PARENT.format(name="top", child="low"), low=LEAF.format(name="low")) / "top.yaml"
    catalogue = Catalogue(ACTIONS)

    machine = catalogue.load(path)

    assert machine.children["low"].name == "low"
    assert catalogue.get(machine.digest) is machine
    assert catalogue.get(machine.children["low"].digest) is machine.children["low"]


def test_a_missing_child_is_reported_at_each_map_that_names_it(folder):
    path = folder(top=PARENT.format(name="top", child="low")) / "top.yaml"

    assert [(found.rule, found.position) for found in Catalogue(ACTIONS).check(path).diagnostics] == [
        ("machine-unknown", (5, 20)), ("machine-unknown", (8, 20)),
    ]  # fmt: skip


def test_a_childs_own_diagnostics_come_once_with_its_file_and_nothing_else(folder):
    path = (
        folder(top=PARENT.format(name="top", child="low"), low=LEAF.format(name="low") + "colour: blue\n") / "top.yaml"
    )

    (found,) = Catalogue(ACTIONS).check(path).diagnostics

    assert (found.rule, found.file, found.position) == ("key-unknown", str(path.parent / "low.yaml"), (4, 1))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_of_maps_is_refused(folder, length):
    names = [f"m{number}" for number in range(length)]
    texts = {name: PARENT.format(name=name, child=names[(at + 1) % length]) for at, name in enumerate(names)}

    found = Catalogue(ACTIONS).check(folder(**texts) / "m0.yaml").diagnostics

    assert {one.rule for one in found} == {"machine-unknown"}
    assert all("a machine cannot map itself: m0 → " in one.message for one in found)


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_maps_are_nested_within_a_bound(folder, more):
    deepest = bounds.CHILD_DEPTH_MAX + more  # machines above the one that maps nothing
    texts = {f"m{at}": PARENT.format(name=f"m{at}", child=f"m{at + 1}") for at in range(deepest)}

    found = Catalogue(ACTIONS).check(folder(**texts, **{f"m{deepest}": LEAF.format(name=f"m{deepest}")}) / "m0.yaml")

    told = {f"maps are nested more than {bounds.CHILD_DEPTH_MAX} machines deep"} if more > 0 else set()
    assert {one.message for one in found.diagnostics} == told


def test_a_child_whose_file_has_another_name_is_refused(folder):
    path = folder(top=PARENT.format(name="top", child="low"), low=LEAF.format(name="high")) / "top.yaml"

    assert rules(path) == ["machine-unknown", "machine-unknown"]


@pytest.mark.parametrize("name", ["../low", "/low", "a/b", ".", "..", '"low\\0"', '""', "{a: b}"])
def test_a_map_reaches_no_file_but_those_beside_it(folder, name):
    path = folder(top=PARENT.format(name="top", child=name), low=LEAF.format(name="low")) / "top.yaml"

    assert set(rules(path)) <= {"name-invalid", "value-invalid"}
    assert len(rules(path)) >= 2


def test_load_raises_every_diagnostic():
    with pytest.raises(DefinitionError) as caught:
        load_machine(HERE / "invalid" / "target-unknown.yaml", ACTIONS)

    assert [found.rule for found in caught.value.diagnostics] == ["target-unknown"] * 4


def stored(machine):
    """A source as it comes back from a store: canonical JSON, whose keys are sorted."""
    return canonical.decode(canonical.encode(machine.source))


@pytest.mark.parametrize("path", sorted((HERE / "valid").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_stored_definition_is_rebuilt_to_the_same_machine(path):
    machine = load_machine(path, ACTIONS)
    catalogue = Catalogue(ACTIONS)

    children = {name: catalogue.rebuild(stored(child), {}, "stored") for name, child in machine.children.items()}
    rebuilt = catalogue.rebuild(stored(machine), children, "stored")

    assert (rebuilt.digest, rebuilt.initial) == (machine.digest, machine.initial)
    for name, state in machine.states.items():
        again = rebuilt.states[name]
        assert {event: [row.target for row in rows] for event, rows in again.branches.items()} == {
            event: [row.target for row in rows] for event, rows in state.branches.items()
        }
        assert [timer.event for timer in again.after] == [timer.event for timer in state.after]
    assert catalogue.get(machine.digest) is rebuilt


def test_a_stored_definition_is_not_judged_again_by_rules_that_came_later():
    source = {"machine": "m", "initial": "A", "states": {"A": {"invoke": {"action": "gone"}}}}

    assert Catalogue(ACTIONS).rebuild(source, {}, "m.yaml").initial == "A"


def test_a_stored_definition_that_this_release_cannot_read_says_why():
    with pytest.raises(DefinitionError) as caught:
        Catalogue(ACTIONS).rebuild({"machine": "m", "initial": "A", "states": {"A": {"later_key": 1}}}, {}, "m.yaml")

    assert "key-unknown" in [found.rule for found in caught.value.diagnostics]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\xef\xbb\xbf" + LEAF.format(name="m").encode(), []), (b"machine: \xff", ["file-unreadable"]),
     (LEAF.format(name="m").encode("utf-16"), ["file-unreadable"]), (b"", ["text-empty"]),
     (b"#" * (512 * 1024 + 1), ["text-too-large"]), (b"\xff" * (1024 * 1024), ["text-too-large"])],
    ids=["byte order mark", "not UTF-8", "UTF-16", "empty", "too large", "too large and not UTF-8"],
)  # fmt: skip
def test_a_file_is_read_as_utf_8_and_within_its_bound(tmp_path, content, expected):
    (tmp_path / "m.yaml").write_bytes(content)

    assert rules(tmp_path / "m.yaml") == expected
