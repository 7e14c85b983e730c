"""A fixture's name is computed, never matched; a folder holds one answer for each name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cassette.fixture import STEM_BYTES_MAX, ErrorTwin, Fixtures, Picture, Unreadable, stem_of

STEM = "BINANCE_BTCUSDT__1h__main_v1"
MAX = 1000


@pytest.fixture
def fixtures(tmp_path: Path) -> Fixtures:
    return Fixtures(tmp_path)


@pytest.mark.parametrize(
    ("asked", "stem"),
    [
        (("BINANCE:BTCUSDT", "1h", "main_v1"), STEM),
        (("BYBIT:BTCUSDT.P", "1M", "x"), "BYBIT_BTCUSDT.P__1M__x"),
        (("(A:B+C:D)/10", "1d", "x"), "%28A_B%2BC_D%29%2F10__1d__x"),
        (("A:*[b]?", "1w", "../../x"), "A_%2A%5Bb%5D%3F__1w__..%2F..%2Fx"),
        (("é\0%~", "1h", " "), "%C3%A9%00%25%7E__1h__%20"),
        ((".hidden", "1h", "x"), "%2Ehidden__1h__x"),
        (("A:B", "15m", "x"), "A_B__15m__x"),
        (("\ud800", "1h", "x"), "%ED%A0%80__1h__x"),
    ],
)
def test_a_stem_is_the_contracts_with_unsafe_characters_encoded(asked: tuple[str, str, str], stem: str):
    assert stem_of(*asked) == stem


def test_a_minute_and_a_month_have_names_that_every_disk_tells_apart():
    for minute, month in (("1m", "1M"), ("3m", "3M"), ("6m", "6M")):
        names = [stem_of("A:B", timeframe, "x").lower() for timeframe in (minute, month)]
        assert names[0] != names[1]


TEXT = st.text(st.characters(codec="utf-8"), max_size=200)


@given(TEXT, TEXT, TEXT)
def test_every_stem_is_a_safe_file_name(symbol: str, timeframe: str, template_id: str):
    stem = stem_of(symbol, timeframe, template_id)

    assert stem.isascii()
    assert not set(stem) & set('/\\:*?"<>|[]\0 ')
    assert len(stem) <= STEM_BYTES_MAX
    assert not stem.startswith(".")


def test_long_names_differ_where_their_beginnings_do_not():
    one, other = (stem_of("A:B", "1h", "x" * 300 + end) for end in "ab")

    assert one != other
    assert len(one) == len(other) == STEM_BYTES_MAX


def test_a_long_name_can_be_kept_on_disk(fixtures: Fixtures):
    stem = stem_of("A:" + "é" * 200, "1h", "x" * 300)

    fixtures.save_error(stem, ErrorTwin(422, {}), "message " * 100)

    assert fixtures.find(stem, MAX) == ErrorTwin(422, {})


def test_the_picture_wins_over_an_error_twin(fixtures: Fixtures, tmp_path: Path):
    (tmp_path / f"{STEM}__500_X.json").write_text("{}")
    (tmp_path / f"{STEM}.png").write_bytes(b"picture")

    assert fixtures.find(STEM, MAX) == Picture(b"picture")


def test_the_first_twin_in_order_is_taken(fixtures: Fixtures, tmp_path: Path):
    for name in ("500_B", "429_A"):
        (tmp_path / f"{STEM}__{name}.json").write_text("{}")

    assert fixtures.find(STEM, MAX) == ErrorTwin(429, {})


def test_nothing_is_found_without_a_folder(tmp_path: Path):
    assert Fixtures(tmp_path / "absent").find(STEM, MAX) is None


def test_the_twin_of_another_template_is_not_taken(fixtures: Fixtures, tmp_path: Path):
    (tmp_path / f"{STEM}__v2__500_X.json").write_text("{}")

    assert fixtures.find(STEM, MAX) is None
    assert isinstance(fixtures.find(f"{STEM}__v2", MAX), ErrorTwin)


@pytest.mark.parametrize("symbol", ["*", "?", "[A-Z]*", "../secret", "BINANCE*"])
def test_no_symbol_reaches_another_file(fixtures: Fixtures, tmp_path: Path, symbol: str):
    (tmp_path / f"{STEM}.png").write_bytes(b"picture")
    (tmp_path / f"{STEM}__500_X.json").write_text("{}")

    assert fixtures.find(stem_of(symbol, "1h", "main_v1"), MAX) is None


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("429_X", '{"status": 429, "body": [1]}', ErrorTwin(429, [1])),
        ("429_X", '{"status": " 500 ", "body": 1}', ErrorTwin(500, 1)),
        ("429_X", '{"status": null, "body": 1}', ErrorTwin(None, 1)),
        ("0_X", '{"body": 1}', ErrorTwin(None, 1)),
        ("422_X", '{"message": "m"}', ErrorTwin(422, {"message": "m"})),
        ("422_X", '{"status": 1, "body": 2, "more": 3}', ErrorTwin(422, {"status": 1, "body": 2, "more": 3})),
        ("error", '"text"', ErrorTwin(None, "text")),
        ("99_X", "[]", Unreadable("Error fixture has a status that is no HTTP status")),
        ("1_X", '{"status": true, "body": 1}', Unreadable("Error fixture has a status that is no HTTP status")),
        ("1_X", '{"status": 4.5, "body": 1}', Unreadable("Error fixture has a status that is no HTTP status")),
        ("400_X", "{", Unreadable("Error fixture is not valid JSON")),
        ("400_X", "[" * 100_000, Unreadable("Error fixture is not valid JSON")),
        ("400_X", "NaN", Unreadable("Error fixture is not valid JSON")),
    ],
)
def test_a_twin_is_read_in_each_of_its_forms(
    fixtures: Fixtures, tmp_path: Path, name: str, text: str, expected: ErrorTwin | Unreadable
):
    (tmp_path / f"{STEM}__{name}.json").write_text(text)

    assert fixtures.find(STEM, MAX) == expected


def test_a_fixture_that_cannot_be_used_is_said_to_be_so(fixtures: Fixtures, tmp_path: Path):
    (tmp_path / f"{STEM}.png").write_bytes(bytes(MAX + 1))
    assert fixtures.find(STEM, MAX) == Unreadable("Fixture PNG is larger than the bound (picture_bytes_max)")
    assert fixtures.find(STEM, MAX + 1) == Picture(bytes(MAX + 1))

    (tmp_path / f"{STEM}.png").unlink()
    (tmp_path / f"{STEM}.png").mkdir()
    found = fixtures.find(STEM, 10**9)
    assert found == Unreadable("Fixture PNG cannot be read (IsADirectoryError)")


def test_a_success_removes_its_own_error_twins_only(fixtures: Fixtures, tmp_path: Path):
    fixtures.save_error(STEM, ErrorTwin(422, {}), "Invalid")
    fixtures.save_error(f"{STEM}__v2", ErrorTwin(422, {}), "Invalid")

    fixtures.save_picture(STEM, b"picture")

    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{STEM}.png", f"{STEM}__v2__422_INVALID.json"]


def test_a_stem_has_one_twin_and_none_beside_a_picture(fixtures: Fixtures, tmp_path: Path):
    assert fixtures.save_error(STEM, ErrorTwin(422, {"b": 1, "a": "é"}), "Invalid: symbol!")
    assert fixtures.save_error(STEM, ErrorTwin(400, None), "…")
    assert [path.name for path in tmp_path.iterdir()] == [f"{STEM}__400_ERROR.json"]
    assert json.loads((tmp_path / f"{STEM}__400_ERROR.json").read_text()) == {"status": 400, "body": None}

    fixtures.save_picture(STEM, b"picture")
    assert not fixtures.save_error(STEM, ErrorTwin(400, None), "late")
    assert [path.name for path in tmp_path.iterdir()] == [f"{STEM}.png"]
