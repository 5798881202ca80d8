"""The bytes of blocks and chunks, to the letter."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings

from aiohttp_sse_routes import EventError, EventTooLarge, ServerSentEvent
from aiohttp_sse_routes.wire import (
    COMMENT,
    LAST_CHUNK,
    control,
    encode,
    frame,
    join,
    retry_line,
    unframe,
)

from .strategies import events


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("text", b"data: text\n\n"),
        (b"bytes", b"data: bytes\n\n"),
        ("", b"data: \n\n"),
        (" x", b"data:  x\n\n"),
        ("123", b"data: 123\n\n"),
        (123, b"json\ndata: 123\n\n"),
        ({"a": None}, b'json\ndata: {"a":null}\n\n'),
        (False, b"json\ndata: false\n\n"),
        ("a\nb", b"data: a\ndata: b\n\n"),
        ("a\r\nb\rc", b"data: a\ndata: b\ndata: c\n\n"),
        ("a\n", b"data: a\ndata: \n\n"),
        ("\n\r", b"data: \ndata: \ndata: \n\n"),
        ("\r\n", b"data: \ndata: \n\n"),
        (
            "a\u2028b\u0085c\x0bd\x0ce\x1cf\x1ef",
            "data: a\u2028b\u0085c\x0bd\x0ce\x1cf\x1ef\n\n".encode(),
        ),
        ("\ufeffx", "data: \ufeffx\n\n".encode()),
        (ServerSentEvent("x", event="e"), b"event: e\ndata: x\n\n"),
        (ServerSentEvent([1], event="e"), b"event: e\njson\ndata: [1]\n\n"),
        (ServerSentEvent(event="e"), b"event: e\ndata: \n\n"),
        (ServerSentEvent(id="1"), b"data: \n\n"),
        (ServerSentEvent("x", retry=3000), b"retry: 3000\ndata: x\n\n"),
        (ServerSentEvent("x", retry=0), b"retry: 500\ndata: x\n\n"),
        (ServerSentEvent("x", comment="c\r\nd\re"), b": c\n: d\n: e\ndata: x\n\n"),
        (ServerSentEvent(comment=""), b": \n\n"),
        (ServerSentEvent(retry=700), b"retry: 700\n\n"),
        (ServerSentEvent(), b"\n"),
        (
            ServerSentEvent({"a": "\n"}, event="é", retry=501, comment="c"),
            ': c\nretry: 501\nevent: é\njson\ndata: {"a":"\\n"}\n\n'.encode(),
        ),
    ],
)
def test_encode(value: Any, lines: bytes) -> None:
    """Lines end in LF, data is split at CR, LF and CRLF only, JSON is marked."""
    assert lines == encode(value).lines


@pytest.mark.parametrize(
    ("value", "carries", "own"),
    [
        ("x", True, None),
        (0, True, None),
        (ServerSentEvent("x", id=" own "), True, " own "),
        (ServerSentEvent(event="e"), True, None),
        (ServerSentEvent(id="1"), True, "1"),
        (ServerSentEvent(comment="c"), False, None),
        (ServerSentEvent(retry=1), False, None),
        (ServerSentEvent(), False, None),
    ],
)
def test_only_what_has_data_carries_an_id(
    value: Any, carries: bool, own: str | None
) -> None:
    """Firefox ignores an id without a data line, so none is sent there."""
    body = encode(value)
    assert (carries, own) == (body.carries_id, body.id)
    assert carries == (b"data" in body.lines)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (1, b"event: named\n"),
        ("text", b"event: named\n"),
        (ServerSentEvent(1), b"event: named\n"),
        (ServerSentEvent(), b"event: named\n"),
        (ServerSentEvent(1, event="own"), b"event: own\n"),
    ],
)
def test_a_name_for_what_has_none(value: Any, line: bytes) -> None:
    """An event's own name goes before the one of its type."""
    lines = encode(value, name="named").lines
    assert lines.startswith(line)
    assert 1 == lines.count(b"event")


def test_limit() -> None:
    """A block of exactly so many bytes passes, one more does not."""
    size = len(encode("x" * 50).lines)
    assert encode("x" * 50, limit=size).lines
    with pytest.raises(EventTooLarge, match="max_event_bytes") as caught:
        encode("x" * 51, limit=size)
    assert (size + 1, size) == (caught.value.size, caught.value.limit)
    with pytest.raises(EventTooLarge):
        encode(ServerSentEvent("x" * 50, comment="c"), limit=size)


@pytest.mark.parametrize("value", ["\0", b"\xff", float("nan"), object(), "\ud800"])
def test_what_cannot_be_sent(value: Any) -> None:
    """It raises the one error, bare or in an event."""
    with pytest.raises(EventError):
        encode(value)
    with pytest.raises(EventError):
        encode(ServerSentEvent(value))


def test_dumps() -> None:
    """JSON of one's own may have lines; it is marked as JSON too."""
    body = encode({"a": 1}, dumps=lambda value: '{\n"a": 1\r\n}')
    assert b'json\ndata: {\ndata: "a": 1\ndata: }\n\n' == body.lines


_LINE = re.compile(
    rb"(: [^\r\n\0]*|:|data: [^\r\n\0]*|event: [^\r\n\0]*|retry: [0-9]+|json)"
)


@settings(deadline=None)
@given(event=events)
def test_nothing_that_engines_disagree_on(event: ServerSentEvent) -> None:
    """Every line is a known field or a comment: no NUL, no CR, no empty ``retry``."""
    block = encode(event).lines
    assert block.endswith(b"\n")
    lines = block.removesuffix(b"\n").split(b"\n")
    assert b"" == lines.pop()
    for line in lines:
        assert _LINE.fullmatch(line), line
        if line.startswith(b"retry"):
            assert int(line[7:]) >= 500
    assert not block.startswith(b"\xef\xbb\xbf")


def test_control() -> None:
    """A control event is named, and its data is JSON that is marked so."""
    assert (
        b'id: x\nevent: sse-gap\njson\ndata: {"reason":"slow","after":null}\n\n'
        == control("sse-gap", {"reason": "slow", "after": None}, id="x")
    )
    assert b"event: sse-busy\njson\ndata: {}\n\n" == control("sse-busy", {})


@pytest.mark.parametrize(
    ("milliseconds", "line"),
    [
        (3000, b"retry: 3000\n"),
        (2999.6, b"retry: 3000\n"),
        (500, b"retry: 500\n"),
        (499.9, b"retry: 500\n"),
        (0, b"retry: 500\n"),
        (-5, b"retry: 500\n"),
    ],
)
def test_retry_line(milliseconds: float, line: bytes) -> None:
    """It is a whole number of at least 500."""
    assert line == retry_line(milliseconds)


@pytest.mark.parametrize("size", [1, 9, 15, 16, 255, 256, 65536])
def test_chunks(size: int) -> None:
    """A chunk has its size in hexadecimal, its bytes, and CRLF behind each."""
    block = b"x" * size
    chunk = frame(block)
    assert b"%x\r\n%b\r\n" % (size, block) == chunk
    assert block == unframe(chunk)


def test_a_chunk_may_hold_any_lines() -> None:
    """What is in a block does not end its chunk."""
    block = b"data: \n\n: \r\n\n"
    assert block == unframe(frame(block))


def test_join() -> None:
    """Several blocks are one chunk."""
    assert frame(b"abc") == join([b"a", b"", b"bc"])
    assert frame(b"replay: 2\nabc") == join([b"a", b"b", b"c"], 2)
    assert (b":\n\n", b"0\r\n\r\n") == (COMMENT, LAST_CHUNK)
