"""Only a whole PNG picture is one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.handlers.chart_img_png import CHUNKS_MAX, flaw_of


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_a_whole_picture_has_no_flaw(png: Callable[..., bytes]):
    assert flaw_of(png()) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_truncated_picture_is_never_whole(png: Callable[..., bytes], data: st.DataObject):
    whole = png(extra=b"some more")
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]

    flaw = flaw_of(cut)

    assert flaw is not None
    assert flaw.truncated is bool(cut)


@given(st.binary())
def test_no_bytes_make_the_check_raise(content: bytes):
    assert flaw_of(content) is None or flaw_of(content).problem
    assert flaw_of(b"\x89PNG\r\n\x1a\n" + content) is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_is_found(png: Callable[..., bytes], data: st.DataObject):
    whole = bytearray(png())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))

    assert flaw_of(bytes(whole)) is not None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture"),
        (b"GIF89a", "a GIF picture"),
        (b"\n <!doctype html>", "a web page"),
        (b' {"message": "x"}', "JSON"),
        (b"hello", "of an unknown kind"),
    ],
)
def test_other_contents_are_named(content: bytes, problem: str):
    flaw = flaw_of(content)

    assert flaw is not None
    assert problem in flaw.problem
    assert not flaw.truncated


def test_a_picture_needs_size_data_and_an_end(png: Callable[..., bytes]):
    signature, header = png()[:8], png()[8:33]
    data, end = chunk(b"IDAT", b"x"), chunk(b"IEND", b"")
    problems = {
        "without width or height": png(0, 1),
        "without image data": signature + header + end,
        "its header is missing": signature + data + end,
        "followed by other data": png() + b"\0",
        "too many parts": signature + header + chunk(b"tEXt", b"") * CHUNKS_MAX + data + end,
    }

    for problem, content in problems.items():
        assert problem in flaw_of(content).problem
