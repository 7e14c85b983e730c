"""What is kept of Chart-IMG's answers, and what is answered from it.

In: a `Shot`, and an `Answer` with its meaning. Out: for a shot, the answer that was kept for it: the
fixture's picture, else the fixture's error twin, else the cassette's interaction. A fixture is for people
(one picture, one name); the cassette keeps whole interactions and alone suffices to repeat a run.
A transient error becomes no fixture, and never hides anything in the cassette. Blocking: called in a thread.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from engine.cassette.cassette import Cassette, Rank
from engine.cassette.fixture import ErrorTwin, Fixtures, Picture, Unreadable
from engine.cassette.interaction import Asked, Reply
from engine.cassette.scrub import kept_headers, scrubbed
from engine.core.action import Failure, Outcome
from engine.core.canonical import encode
from engine.errors import ConfigurationError
from engine.handlers.chart_img_answer import Answer, Lost, Subject, classify
from engine.handlers.chart_img_message import Redact, parsed
from engine.handlers.chart_img_png import flaw_of
from engine.handlers.chart_img_shot import Shot

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class Recording:
    """The fixtures and the cassette of one Chart-IMG service. Neither file need exist."""

    def __init__(self, fixtures_dir: Path, cassette: Path, url: str) -> None:
        self._fixtures_dir = fixtures_dir
        self._cassette_path = cassette
        self._fixtures = Fixtures(fixtures_dir)
        self._cassette = Cassette(cassette, _rank)
        self._url = url

    def check(self) -> None:
        """Raises `ConfigurationError` when a recording could not be written or merged."""
        self.check_places()
        self._cassette.check()

    def check_places(self) -> None:
        """Raises `ConfigurationError` when what lies at the places is something else."""
        if self._fixtures_dir.exists() and not self._fixtures_dir.is_dir():
            raise ConfigurationError("CHART_IMG_FIXTURES_DIR", "is no folder.")
        if self._cassette_path.exists() and not self._cassette_path.is_file():
            raise ConfigurationError("CHART_IMG_CASSETTE", "is no file.")

    def find(self, shot: Shot) -> Answer | Lost | str | None:
        """What was kept for `shot`; a string says what is wrong with it. Raises `ConfigurationError`."""
        match self._fixtures.find(shot.stem, shot.picture_bytes_max):
            case Picture(content):
                flaw = flaw_of(content)
                return Answer(200, {}, content) if flaw is None else f"Fixture PNG is invalid: it {flaw.problem}"
            case ErrorTwin(None, _):
                return Lost("network", "The connection to Chart-IMG failed (recorded)")
            case ErrorTwin(int() as status, body):
                text = body if isinstance(body, str) else "" if body is None else encode(body)
                return Answer(status, {}, text.encode("utf-8", "replace"))
            case Unreadable(problem):
                return problem
        reply = self._cassette.find(self._asked(shot))
        return None if reply is None else _answer(reply, shot.picture_bytes_max)

    def keep(self, shot: Shot, answer: Answer, result: Outcome | Failure, redact: Redact) -> None:
        """Keep an answer, free of secrets. Raises `OSError` and `ConfigurationError`."""
        if answer.cut:
            return
        content = answer.content if isinstance(result, Outcome) else scrubbed(answer.content, redact)
        reply = Reply(answer.status, kept_headers(answer.headers, redact), content)
        self._cassette.record(self._asked(shot), reply)
        if isinstance(result, Outcome):
            self._fixtures.save_picture(shot.stem, content)
        elif not result.retriable:
            self._fixtures.save_error(shot.stem, ErrorTwin(answer.status, parsed(content, redact)), result.message)

    def _asked(self, shot: Shot) -> Asked:
        return Asked("POST", self._url, shot.body)


def _answer(reply: Reply, picture_bytes_max: int) -> Answer:
    is_oversized = reply.status == 200 and len(reply.content) > picture_bytes_max
    return Answer(reply.status, reply.headers, b"", "oversized") if is_oversized else Answer(*reply)


def _rank(reply: Reply) -> Rank:
    result = classify(Answer(*reply), Subject("", ""), str, _EPOCH)
    if isinstance(result, Outcome):
        return Rank.SUCCESS
    return Rank.TRANSIENT if result.retriable else Rank.PERMANENT
