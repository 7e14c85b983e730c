"""`detent verify` as a person and a program see it, with a machine, actions and a world of a user's own."""

from __future__ import annotations

import json

import pytest

from engine.entry.cli import main
from engine.testing.verification import KINDS, RULES
from tests.verification.settings import INPUT, ROOT

SHOP = str(ROOT / "tests/verification/shop.yaml")
MINE = (
    "--actions",
    "tests.verification.shop",
    "--world",
    "tests.verification.shop:ShopWorld",
    "--input",
    '{"order": "o-1"}',
)
APPROVAL = (
    str(ROOT / "tests/verification/approval.yaml"),
    *MINE,
    "--signal",
    'approved={"by": "ann"}',
    "--signal",
    "approved",
)
CHARTS = (str(ROOT / "machines/chart_export.yaml"), "--input", json.dumps(INPUT))


def verify(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["verify", *arguments])
    told = capsys.readouterr()
    return end.value.code or 0, told.out, told.err


@pytest.fixture
def unguarded(tmp_path):
    """The shop without the state that takes the order: a start that comes again charges again."""
    text = (ROOT / "tests/verification/shop.yaml").read_text(encoding="utf-8")
    path = tmp_path / "shop.yaml"
    before, _, after = text.partition("  OPEN:\n")
    after = after[after.index("  RESERVING:") :].replace("  UNCHANGED: {type: final}\n", "")
    path.write_text(before.replace("initial: OPEN", "initial: RESERVING") + after, encoding="utf-8")
    return str(path)


def test_a_users_machine_is_verified_in_a_users_world(capsys):
    code, out, _ = verify(capsys, SHOP, *MINE, "--kind", "crash", "--kind", "stalled-owner", "--format", "json")
    found = json.loads(out)

    assert 0 == code
    assert [] == found["violations"]
    assert {"crash-free", "crash", "stalled-owner"} == set(found["schedules"])
    assert {"commit", "action", "call", "artifact"} == {effect["kind"] for effect in found["effects"]}
    assert "shop" == found["machine"]


def test_a_violation_is_shown_by_its_shortest_schedule_which_replays_it(capsys, unguarded):
    arguments = (unguarded, *MINE, "--kind", "delivered-again", "--kind", "mixed", "--samples", "10")
    code, out, _ = verify(capsys, *arguments, "--format", "json")
    (violation,) = (one for one in json.loads(out)["violations"] if one["rule"] == "runs-differ")

    assert 1 == code
    assert 1 == len(violation["schedule"])
    assert any("▲" in line for line in violation["trace"])

    code, out, _ = verify(capsys, unguarded, *MINE, "--replay", violation["replay"])

    assert 1 == code
    assert violation["message"] in out.replace("\n", " ")


def test_a_schedule_that_breaks_nothing_replays_with_every_effect(capsys):
    code, out, _ = verify(capsys, SHOP, *MINE, "--replay", "crash@5- by=resume")

    assert 0 == code
    assert "before effect 5: the process dies" in out
    assert "Every rule held." in out


def test_the_table_counts_what_was_played(capsys):
    code, out, _ = verify(capsys, SHOP, *MINE, "--kind", "clock-jump")

    assert 0 == code
    assert "a clock that jumps ahead and back at each effect" in out
    assert "Every rule held." in out


def test_a_machine_that_waits_is_given_its_signals(capsys):
    code, out, _ = verify(capsys, *APPROVAL, "--kind", "signal", "--format", "json")
    found = json.loads(out)

    assert (0, []) == (code, found["violations"])
    assert {"crash-free", "signal"} == set(found["schedules"])
    assert any("is sent a signal approved (signal-2)" in effect["name"] for effect in found["effects"])

    code, out, _ = verify(capsys, *APPROVAL, "--replay", "cancel@4+ by=resume")

    assert 0 == code
    assert "after effect 4: somebody cancels run number 1" in out


def test_the_page_names_every_kind_and_every_rule():
    page = (ROOT / "docs/verification.md").read_text(encoding="utf-8")

    assert [] == [name for name in (*KINDS, *RULES) if f"`{name}`" not in page]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (CHARTS, "there is no flow run"),
        ((SHOP, *MINE[:2], "--input", '{"order": "x"}', "--world", "tests.verification.shop:nobody"), "--world"),
        ((SHOP, *MINE, "--replay", "explode@3"), "is no part of a schedule"),
        ((SHOP, *MINE, "--replay", "crash@999-"), "never comes"),
        ((SHOP, *MINE, "--kind", "earthquake"), "there is no kind"),
        ((SHOP, *MINE, "--kind", "mixed", "--samples", "0"), "no schedule was played"),
        ((SHOP, *MINE, "--kind", "crash-pair", "--pairs", "0"), "no schedule of the kind 'crash-pair'"),
        ((SHOP, *MINE, "--kind", "signal"), "no schedule was played"),
        ((SHOP, *MINE, "--signal", "go"), "It waits for no signal at all"),
        (APPROVAL[:-2], "It waits for approved: --signal approved=JSON"),
        ((*APPROVAL[:-1], "approved={"), "--signal approved"),
        (CHARTS[:1], "it names no flow run"),
        ((SHOP, *MINE[:-1], '{"order": 1}'), "shop cannot take this input: input.order"),
        ((*CHARTS, "--load", str(ROOT / "fixtures/documents"), "--run-id", "r"), "Leave --run-id out"),
    ],
    ids=[
        "no documents",
        "no world",
        "no schedule",
        "beyond the end",
        "no kind",
        "none drawn",
        "no pair",
        "no signal",
        "nobody waits",
        "too few signals",
        "no JSON",
        "no input",
        "another input",
        "a key of its own",
    ],
)
def test_what_cannot_be_verified_is_refused(capsys, arguments, told):
    code, out, err = verify(capsys, *arguments)

    assert (2, "") == (code, out)
    assert told in err


def test_an_exploration_of_nothing_is_no_success(capsys, tmp_path):
    """The step has ended before: the start finds nothing to do, and no effect is there to crash at."""
    flow_runs = tmp_path / "flow_runs"
    flow_runs.mkdir()
    document = json.loads((ROOT / f"fixtures/documents/flow_runs/{INPUT['run_id']}.json").read_text(encoding="utf-8"))
    for step in document["steps"].values():
        step["status"] = "SUCCEEDED"
    (flow_runs / f"{INPUT['run_id']}.json").write_text(json.dumps(document), encoding="utf-8")
    code, _, err = verify(capsys, *CHARTS, "--load", str(tmp_path))

    assert 2 == code
    assert "nothing to verify" in err
