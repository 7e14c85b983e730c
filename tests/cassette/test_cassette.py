"""A cassette is a genuine vcrpy file, has one entry for each request, and loses nothing."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import vcr
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.cassette.cassette import Cassette, Rank
from engine.cassette.interaction import Asked, Reply, interactions_in, key_of, recorded, text_of
from engine.cassette.scrub import kept_headers, scrubbed
from engine.core.secret import Secrets
from engine.errors import ConfigurationError

URL = "http://127.0.0.1:8099/v2/tradingview/advanced-chart"
OK = Reply(200, {"content-type": "image/png"}, b"\x89PNG\r\n\x1a\n\xff\x00 picture")
OTHER_OK = Reply(200, {}, b"\x89PNG other")
REFUSED = Reply(422, {}, b'{"message":"Invalid Symbol"}')
OTHER_REFUSED = Reply(400, {}, b'{"message":"Invalid Interval"}')
BUSY = Reply(503, {"retry-after": "3"}, b"")


def rank(reply: Reply) -> Rank:
    if reply.status == 200:
        return Rank.SUCCESS
    return Rank.TRANSIENT if reply.status >= 500 else Rank.PERMANENT


def asked(number: int = 0, url: str = URL) -> Asked:
    return Asked("POST", url, json.dumps({"number": number, "symbol": "A:B"}).encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassettes" / "chart_img.yaml"


@pytest.fixture
def cassette(path: Path) -> Cassette:
    return Cassette(path, rank)


def test_what_was_recorded_is_found_any_number_of_times(cassette: Cassette, path: Path):
    assert cassette.find(asked()) is None
    assert cassette.record(asked(), OK)

    assert [cassette.find(asked()) for _ in range(3)] == [OK] * 3
    assert Cassette(path, rank).find(asked()) == OK


def test_host_key_order_and_spacing_do_not_matter(cassette: Cassette):
    cassette.record(asked(), OK)
    same = Asked("post", "https://api.chart-img.com/v2/tradingview/advanced-chart", b'{"symbol":"A:B","number":0}')

    assert cassette.find(same) == OK
    assert cassette.find(asked(1)) is None
    assert cassette.find(same._replace(url=URL + "/storage")) is None
    assert cassette.find(same._replace(method="PUT")) is None
    assert cassette.find(same._replace(url=URL + "?a=1")) is None


def test_vcrpy_itself_replays_it_with_httpx(cassette: Cassette, path: Path):
    replies = {0: OK, 1: REFUSED, 2: BUSY}
    for number, reply in replies.items():
        cassette.record(asked(number), reply)

    player = vcr.VCR(match_on=("method", "scheme", "host", "port", "path", "query", "body"))
    with player.use_cassette(str(path), record_mode="none") as played, httpx.Client(trust_env=False) as client:
        for number, reply in replies.items():
            answer = client.post(URL, json=json.loads(asked(number).body), headers={"x-api-key": "another"})
            assert (answer.status_code, answer.content) == (reply.status, reply.content)
            assert {name: answer.headers[name] for name in reply.headers} == reply.headers
        assert played.all_played


@pytest.mark.anyio
async def test_vcrpy_itself_replays_it_with_httpx_asynchronously(cassette: Cassette, path: Path):
    cassette.record(asked(), OK)

    with vcr.VCR().use_cassette(str(path), record_mode="none"):
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(URL, content=asked().body)).content == OK.content


def test_what_vcrpy_recorded_is_found(path: Path):
    path.parent.mkdir()
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, content=gzip.compress(OK.content), headers={"Content-Encoding": "gzip"})
    )
    with vcr.VCR().use_cassette(str(path), record_mode="all"), httpx.Client(transport=transport) as client:
        client.post(URL, json=json.loads(asked().body))

    found = Cassette(path, rank).find(asked())

    assert found is not None
    assert (found.status, found.content) == (200, OK.content)


def test_entries_of_others_survive_a_recording(cassette: Cassette, path: Path):
    foreign = recorded(Asked("GET", "https://elsewhere.test/x?b=2&a=1", b""), Reply(404, {}, b"none"))
    path.parent.mkdir()
    path.write_text(text_of([foreign], {"made by": "hand"}))

    cassette.record(asked(), OK)

    again = Cassette(path, rank)
    assert again.find(Asked("GET", "https://elsewhere.test/x?a=1&b=2", b"")) == Reply(404, {}, b"none")
    assert again.find(asked()) == OK
    assert yaml.safe_load(path.read_text())["metadata"] == {"made by": "hand"}


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (OK, OTHER_OK, OTHER_OK),
        (OK, REFUSED, OK),
        (OK, BUSY, OK),
        (REFUSED, OK, OK),
        (REFUSED, OTHER_REFUSED, OTHER_REFUSED),
        (REFUSED, BUSY, REFUSED),
        (BUSY, OK, OK),
        (BUSY, REFUSED, REFUSED),
        (BUSY, Reply(500, {}, b"later"), BUSY),
    ],
    ids=lambda reply: str(reply.status),
)
def test_one_interaction_is_kept_for_each_request(
    cassette: Cassette, path: Path, first: Reply, second: Reply, kept: Reply
):
    assert cassette.record(asked(), first)
    before = path.read_bytes()

    assert cassette.record(asked(), second) is (kept is second)

    assert cassette.find(asked()) == kept
    assert len(yaml.safe_load(path.read_text())["interactions"]) == 1
    if kept is first:
        assert path.read_bytes() == before


def test_of_several_interactions_in_a_foreign_file_the_best_is_found(cassette: Cassette, path: Path):
    path.parent.mkdir()
    path.write_text(text_of([recorded(asked(), reply) for reply in (BUSY, REFUSED, OK, OTHER_OK)], None))

    assert cassette.find(asked()) == OK


def test_any_order_of_recording_gives_the_same_file(tmp_path: Path):
    texts = set()
    for seed in range(3):
        numbers = list(range(12))
        random.Random(seed).shuffle(numbers)
        cassette = Cassette(tmp_path / str(seed) / "c.yaml", rank)
        for number in numbers:
            cassette.record(asked(number), OK)
        texts.add((tmp_path / str(seed) / "c.yaml").read_text())

    assert len(texts) == 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"interactions:\n- request: {\n", "line 3, column 1"),
        (b"interactions:\n- request: !!python/object:os.system {}\n", "line 2, column 12"),
        (b"a: \x00b", "character 4"),
        (b"\xff\xfe", "byte 1 is not UTF-8"),
        (b"- a list", "no vcrpy cassette"),
        (b"version: 1", "no vcrpy cassette"),
        (b"just text", "no vcrpy cassette"),
        (b"interactions: 5", "no vcrpy cassette"),
        (b"interactions:\n- {request: {}, response: {}}", "no vcrpy cassette"),
        (
            b"interactions:\n- request: {method: GET, uri: 'http://a/', body: null, headers: {}}\n  response: {status: 200}",
            "interactions[0]",
        ),
    ],
    ids=lambda text: str(text)[:40],
)
def test_a_corrupt_file_is_a_clear_error_and_never_overwritten(cassette: Cassette, path: Path, text: bytes, place: str):
    path.parent.mkdir()
    path.write_bytes(text)

    for use in (cassette.check, lambda: cassette.find(asked()), lambda: cassette.record(asked(), OK)):
        with pytest.raises(ConfigurationError, match="CHART_IMG_CASSETTE: the file") as raised:
            use()
        assert place in str(raised.value)
        assert str(path) not in str(raised.value)
    assert path.read_bytes() == text


@pytest.mark.parametrize("text", ["", "  \n", "interactions: []\nversion: 1\n"])
def test_an_empty_file_is_an_empty_cassette(cassette: Cassette, path: Path, text: str):
    path.parent.mkdir()
    path.write_text(text)

    assert cassette.find(asked()) is None
    assert cassette.record(asked(), OK)


def test_a_folder_in_the_files_place_is_a_clear_error(cassette: Cassette, path: Path):
    path.mkdir(parents=True)

    with pytest.raises(ConfigurationError, match=r"cannot be read \(IsADirectoryError\)"):
        cassette.check()


def test_a_file_that_changed_is_read_again(cassette: Cassette, path: Path):
    cassette.record(asked(), OK)
    Cassette(path, rank).record(asked(), OTHER_OK)

    assert cassette.find(asked()) == OTHER_OK


def test_threads_that_record_together_lose_nothing(cassette: Cassette, path: Path):
    threads = [threading.Thread(target=cassette.record, args=(asked(number), OK)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(Cassette(path, rank).find(asked(number)) == OK for number in range(40))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_processes_that_record_together_lose_nothing(path: Path):
    program = (
        "import sys; from pathlib import Path\n"
        "from engine.cassette.cassette import Cassette, Rank\n"
        "from engine.cassette.interaction import Asked, Reply\n"
        "cassette = Cassette(Path(sys.argv[1]), lambda reply: Rank.SUCCESS)\n"
        "for n in range(10):\n"
        "    body = ('{\"n\": %s%d}' % (sys.argv[2], n)).encode()\n"
        "    cassette.record(Asked('POST', 'http://a/x', body), Reply(200, {}, body))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(path), str(number)]) for number in (1, 2, 3)]

    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(yaml.safe_load(path.read_text())["interactions"]) == 30


def test_a_write_that_fails_is_heard_and_leaves_the_file_as_it_was(
    cassette: Cassette, path: Path, monkeypatch: pytest.MonkeyPatch
):
    cassette.record(asked(), OK)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        cassette.record(asked(1), OK)

    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_thousand_entries_load_and_are_found_quickly(path: Path):
    path.parent.mkdir()
    path.write_text(text_of([recorded(asked(number), Reply(200, {}, bytes(500))) for number in range(1000)], None))
    cassette = Cassette(path, rank)

    began = time.process_time()
    for number in range(1000):
        assert cassette.find(asked(number)) is not None

    # About 0.4 s; a search through the list as vcrpy's takes 87 s.
    assert time.process_time() - began < 5


BYTES = st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))


@given(st.integers(100, 599), BYTES, BYTES)
def test_every_reply_survives_the_file(status: int, body: bytes, content: bytes):
    request, reply = Asked("POST", URL, body), Reply(status, {"content-type": "text/plain"}, content)

    (entry,), metadata = interactions_in(text_of([recorded(request, reply)], None))

    assert (entry.key, entry.reply(), metadata) == (key_of(*request), reply, None)


def test_a_user_in_the_url_is_not_recorded():
    text = text_of([recorded(Asked("POST", "http://user:word@host/x#f", b"{}"), OK)], None)

    assert "http://host/x\n" in text


SECRET = "sk-live-0123456789abcdef"


@pytest.mark.parametrize(
    "content",
    [
        f'{{"message": "{SECRET}"}}'.encode(),
        f'{{"message": "{SECRET}"}}'.replace("s", "\\u0073").encode(),
        f"<p>{SECRET}".encode(),
        b"\xff\xfe" + SECRET.encode(),
        b"\x89PNG" + SECRET.encode(),
    ],
)
def test_no_secret_stays_in_a_body(content: bytes):
    found = scrubbed(content, Secrets([SECRET]).redact)

    assert SECRET.encode() not in found
    assert b"\\u0073" not in found
    assert b"[redacted]" in found


def test_bodies_without_a_secret_and_pictures_stay_as_they_are():
    redact = Secrets([SECRET]).redact

    for content in (b'{"b": 1,\n "a": "\\u0073"}', OK.content, b"", b"text \xc3\xa9"):
        assert scrubbed(content, redact) == content


def test_only_headers_that_mean_something_are_kept():
    headers = {"content-type": "a/b", "retry-after": "3", "set-cookie": "a=b", "date": "today", "x-api-key": SECRET}

    assert kept_headers(headers, Secrets([SECRET]).redact) == {"content-type": "a/b", "retry-after": "3"}
