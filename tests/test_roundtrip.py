"""Encoder and decoder together: what goes out is what comes in."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_sse_routes.decoder import MAX_RETRY, DecodedEvent, Decoder
from aiohttp_sse_routes.event import MIN_RETRY, ServerSentEvent
from aiohttp_sse_routes.wire import COMMENT, control, encode, join, retry_line, unframe

from .strategies import chunked, events, fields, json_values


def block_of(event: ServerSentEvent) -> bytes:
    """Return the block of an event, with its own id."""
    body = encode(event)
    own_id = b"" if body.id is None else b"id: %b\n" % body.id.encode()
    return own_id + body.lines


def decode(chunks: list[bytes], decoder: Decoder | None = None) -> list[DecodedEvent]:
    """Decode a stream of its own."""
    decoder = decoder or Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def lines(text: str) -> list[str]:
    """Return the lines of *text*: CR, LF and CRLF end one, and nothing else does."""
    return re.split("\r\n|\r|\n", text)


def fires(event: ServerSentEvent) -> bool:
    """Return whether a page sees *event*: it has data, or is named, or has an id."""
    return any(value is not None for value in (event.data, event.event, event.id))


def content(event: ServerSentEvent) -> tuple[str, Any, bool]:
    """Return the type and data that a client is to get, and whether they are JSON."""
    type_ = event.event or "message"
    data = "" if event.data is None else event.data
    if isinstance(data, bytes):
        data = data.decode()
    if isinstance(data, str):
        return type_, "\n".join(lines(data)), False
    return type_, data, True


def decoded_content(event: DecodedEvent) -> tuple[str, Any, bool]:
    """Return the same of an event that was decoded."""
    data = json.loads(event.data) if event.json else event.data
    return event.type, data, event.json


@settings(deadline=None)
@given(event=events, drawn=st.data())
def test_event(event: ServerSentEvent, drawn: st.DataObject) -> None:
    """Every event that can be made is decoded as it was, in any chunking."""
    told: list[str] = []
    decoder = Decoder("before", on_comment=told.append)

    decoded = decode(drawn.draw(chunked(block_of(event))), decoder)

    assert [content(event)] * fires(event) == list(map(decoded_content, decoded))
    last = "before" if event.id is None else event.id
    for one in decoded:
        assert (one.id, one.last_event_id) == (event.id, last)
    assert decoder.last_event_id == last
    assert told == ([] if event.comment is None else lines(event.comment))
    if event.retry is None:
        assert decoder.retry is None
    else:
        assert decoder.retry == min(max(event.retry, MIN_RETRY), MAX_RETRY)


@settings(deadline=None)
@given(sent=st.lists(events, max_size=5), drawn=st.data())
def test_stream(sent: list[ServerSentEvent], drawn: st.DataObject) -> None:
    """Events in one chunk, with heartbeats between, come out all and in order."""
    blocks = [block for event in sent for block in (block_of(event), COMMENT)]
    stream = unframe(join(blocks))

    decoded = decode(drawn.draw(chunked(stream)))

    expected = [event for event in sent if fires(event)]
    assert [content(event) for event in expected] == list(map(decoded_content, decoded))
    assert [event.id for event in decoded] == [event.id for event in expected]


@settings(deadline=None)
@given(name=fields, data=json_values, id=fields | st.none(), drawn=st.data())
def test_control_event(
    name: str, data: object, id: str | None, drawn: st.DataObject
) -> None:
    """A control event comes out as it was, marked as JSON."""
    stream = control(name, data, id=id)

    (event,) = decode(drawn.draw(chunked(stream)))

    assert (event.type, event.id, event.json) == (name, id, True)
    assert json.loads(event.data) == data


@given(milliseconds=st.floats(0, 10**12))
def test_retry_line(milliseconds: float) -> None:
    """A reconnection time comes out rounded, and within its bounds."""
    decoder = Decoder()

    decoder.feed(retry_line(milliseconds))

    assert decoder.retry == min(max(round(milliseconds), MIN_RETRY), MAX_RETRY)
