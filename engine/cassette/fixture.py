"""A folder of pictures and error twins, under names that are computed from what was asked.

In: symbol, timeframe and template. Out: `<SYMBOL>__<TIMEFRAME>__<TEMPLATE>.png`, else its error twin
`<stem>__<status>_<SLUG>.json`, which holds `{"status": int | "int" | null, "body": any}` or any JSON.
A name is never a pattern: what a user wrote is percent-encoded and compared, so no `*`, `[` or `/` in it
can reach another file.

On disks that do not tell `1M` from `1m`, a month would be served for a minute. So the minutes that have a
month beside them (`1m`, `3m`, `6m`) are written `1%6D`; every other name keeps its case, as the contract
has it. A stem of more than `STEM_BYTES_MAX` bytes is cut and ends in its own hash.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from engine.cassette.disk import locked, write_whole
from engine.core.canonical import decode

STEM_BYTES_MAX: Final = 180
"""A file name has at most 255 bytes; a twin adds `__429_`, a slug and `.json`."""

SLUG_CHARACTERS_MAX: Final = 60

TWIN_BYTES_MAX: Final = 1024 * 1024
"""An error body is a few hundred bytes; a larger file is no error twin."""

_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_MINUTES_WITH_A_MONTH: Final = frozenset({"1m", "3m", "6m"})
_HASH_CHARACTERS: Final = 32


class Picture(NamedTuple):
    """A fixture that holds a picture (or what should be one)."""

    content: bytes


class ErrorTwin(NamedTuple):
    """A fixture that holds an error answer; `status` None is a call that got no answer."""

    status: int | None
    body: Any


class Unreadable(NamedTuple):
    """A fixture that is there and cannot be used. `problem` is a sentence without paths."""

    problem: str


def stem_of(symbol: str, timeframe: str, template_id: str) -> str:
    """The name under which the answer for these three is kept, without its ending."""
    minutes = timeframe[:-1] + "%6D" if timeframe in _MINUTES_WITH_A_MONTH else _encoded(timeframe)
    stem = f"{_encoded(symbol)}__{minutes}__{_encoded(template_id)}"
    if stem.startswith("."):
        stem = "%2E" + stem[1:]
    if len(stem) <= STEM_BYTES_MAX:
        return stem
    # `~` occurs in no other stem, so a cut one can never be that of other parameters.
    digest = hashlib.sha256(stem.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{stem[: STEM_BYTES_MAX - _HASH_CHARACTERS - 1]}~{digest}"


class Fixtures:
    """The folder `folder`, which need not exist. Blocking; `save_*` are safe among processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, stem: str, picture_bytes_max: int) -> Picture | ErrorTwin | Unreadable | None:
        """The picture of `stem`, else its error twin, else None."""
        path = self._folder / f"{stem}.png"
        try:
            if path.stat().st_size > picture_bytes_max:
                return Unreadable("Fixture PNG is larger than the bound (picture_bytes_max)")
            return Picture(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            return Unreadable(f"Fixture PNG cannot be read ({type(error).__name__})")
        name = next(self._twins(stem), None)
        return None if name is None else self._twin(name, name[len(stem) + 2 : -len(".json")])

    def save_picture(self, stem: str, content: bytes) -> None:
        """Keep a picture, and drop the error twins that it makes untrue. Raises `OSError`."""
        with locked(self._folder):
            write_whole(self._folder / f"{stem}.png", content)
            self._drop_twins(stem, keep="")

    def save_error(self, stem: str, twin: ErrorTwin, message: str) -> bool:
        """Keep an error as the stem's only twin, unless there is a picture; whether it was kept. Raises `OSError`."""
        name = f"{stem}__{twin.status or 0}_{_slug(message)}.json"
        text = json.dumps({"status": twin.status, "body": twin.body}, ensure_ascii=False, indent=2, sort_keys=True)
        with locked(self._folder):
            if (self._folder / f"{stem}.png").exists():
                return False
            write_whole(self._folder / name, (text + "\n").encode("utf-8", "replace"))
            self._drop_twins(stem, keep=name)
        return True

    def _drop_twins(self, stem: str, *, keep: str) -> None:
        for name in tuple(self._twins(stem)):
            if name != keep:
                (self._folder / name).unlink(missing_ok=True)

    def _twins(self, stem: str) -> Iterator[str]:
        """The names of the stem's error twins, sorted. What follows the stem holds no `__`, or it is another's."""
        beginning = f"{stem}__"
        try:
            names = sorted(path.name for path in self._folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            if name.startswith(beginning) and name.endswith(".json") and "__" not in name[len(beginning) :]:
                yield name

    def _twin(self, name: str, suffix: str) -> ErrorTwin | Unreadable:
        try:
            with (self._folder / name).open("rb") as file:
                content = file.read(TWIN_BYTES_MAX + 1)
            value = decode(content)
        except OSError as error:
            return Unreadable(f"Error fixture cannot be read ({type(error).__name__})")
        except (ValueError, RecursionError):
            return Unreadable("Error fixture is not valid JSON")
        if isinstance(value, dict) and value.keys() <= {"status", "body"} and value:
            return _twin_of(value.get("status"), value.get("body"))
        digits = re.match(r"\d*", suffix)
        return _twin_of(digits.group() if digits and digits.group() else None, value)


def _twin_of(status: Any, body: Any) -> ErrorTwin | Unreadable:
    if isinstance(status, str) and re.fullmatch(r"\s*[0-9]{1,3}\s*", status):
        status = int(status)
    if status is None or (status == 0 and not isinstance(status, bool)):
        return ErrorTwin(None, body)
    if not isinstance(status, int) or isinstance(status, bool) or not 100 <= status <= 599:
        return Unreadable("Error fixture has a status that is no HTTP status")
    return ErrorTwin(status, body)


def _encoded(text: str) -> str:
    """`text` as a part of a file name on any disk."""
    characters = text.replace(":", "_").encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in characters)


def _slug(message: str) -> str:
    words = re.sub(r"[^A-Z0-9]+", "_", message.upper()[:1000]).strip("_")
    return words[:SLUG_CHARACTERS_MAX].rstrip("_") or "ERROR"
