"""The decoder: the standard's rules, any chunking, bounded memory."""

from __future__ import annotations

import codecs
import itertools
import json
import pickle
import re
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_sse_routes.decoder import MAX_RETRY, DecodedEvent, Decoder
from aiohttp_sse_routes.errors import ConfigurationError, EventTooLarge

from .strategies import chunked, cut_at, streams

VECTORS = Path(__file__).parent / "vectors" / "parsing.json"

Chunks = list[bytes]
Cut = Callable[[Chunks], Chunks]


class VectorEvent(TypedDict):
    """An event that a vector expects."""

    type: str
    data: str
    lastEventId: str


class Vector(TypedDict):
    """A case of ``parsing.json``; its text stands for bytes, U+00NN for byte NN."""

    name: str
    group: str
    chunks: list[str]
    events: list[VectorEvent]
    last_event_id: str
    retry_ms: int | None


CASES: list[Vector] = json.loads(VECTORS.read_text("utf-8"))


def as_given(chunks: Chunks) -> Chunks:
    """Cut nothing."""
    return chunks


def whole(chunks: Chunks) -> Chunks:
    """Make one chunk of all."""
    return [b"".join(chunks)]


def byte_by_byte(chunks: Chunks) -> Chunks:
    """Make a chunk of each byte."""
    return [bytes([byte]) for byte in b"".join(chunks)]


each_case = pytest.mark.parametrize(
    "case", CASES, ids=[f"{case['group']}/{case['name']}" for case in CASES]
)
CUTS: tuple[Cut, ...] = (as_given, whole, byte_by_byte)
each_cut = pytest.mark.parametrize("cut", CUTS)


def chunks_of(case: Vector) -> Chunks:
    """Return the bytes that a vector's chunks stand for."""
    return [chunk.encode("latin-1") for chunk in case["chunks"]]


def seen(events: Iterable[DecodedEvent]) -> list[VectorEvent]:
    """Return *events* as the vectors write them."""
    return [
        {"type": event.type, "data": event.data, "lastEventId": event.last_event_id}
        for event in events
    ]


def feed(decoder: Decoder, chunks: Iterable[bytes]) -> list[DecodedEvent]:
    """Feed all *chunks* and return all events."""
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def decode(*chunks: bytes, limit: int = 1 << 20) -> list[DecodedEvent]:
    """Decode a stream of its own."""
    return feed(Decoder(max_event_bytes=limit), chunks)


def feed_to_the_end(
    decoder: Decoder, chunks: Iterable[bytes]
) -> tuple[list[DecodedEvent], bool]:
    """Return all events, and whether an event that is too large followed them."""
    events: list[DecodedEvent] = []
    try:
        for chunk in [*chunks, b""]:
            events += decoder.feed(chunk)
    except EventTooLarge:
        return events, True
    return events, False


# The vectors


def test_all_cases_are_here() -> None:
    """The vectors are the 191 cases that the other clients were measured with."""
    assert len(CASES) == 191


@each_case
def test_vector(case: Vector) -> None:
    """A stream decodes as the standard says, however it is cut into chunks."""
    retry = case["retry_ms"]
    for cut in CUTS:
        decoder = Decoder()

        events = feed(decoder, cut(chunks_of(case)))
        decoder.close()

        assert seen(events) == case["events"], cut
        assert decoder.last_event_id == case["last_event_id"], cut
        assert decoder.retry == (None if retry is None else min(retry, MAX_RETRY)), cut


@each_case
def test_vector_with_a_tail(case: Vector) -> None:
    """What a stream leaves pending does no harm to a complete event behind it."""
    expected = case["events"]
    chunks = chunks_of(case)
    body = b"".join(chunks).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    complete = not body or body.endswith(b"\n\n")
    for cut in CUTS:
        # Three: one may belong to a CR, one ends the pending line, one its block.
        events = seen(decode(*cut([*chunks, b"\n\n\n", b"data: tail\n\n"])))

        *before, tail = events
        assert before[: len(expected)] == expected, cut
        assert (tail["type"], tail["data"]) == ("message", "tail"), cut
        if complete:
            assert before == expected, cut
            assert tail["lastEventId"] == case["last_event_id"], cut


@each_case
def test_vector_is_live(case: Vector) -> None:
    """An event comes out with the chunk that completes it, not with the one after."""
    decoder = Decoder()
    chunks = chunks_of(case)

    events: list[DecodedEvent] = []
    for count, chunk in enumerate(chunks, 1):
        events += decoder.feed(chunk)
        assert decode(b"".join(chunks[:count])) == events


# Line ends


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_last_byte_fires(end: bytes) -> None:
    """The first byte of the blank line's end fires the event, CR as well as LF."""
    decoder = Decoder()

    assert feed(decoder, byte_by_byte([b"data: x" + end])) == []
    assert len(decoder.feed(end[:1])) == 1
    assert decoder.feed(end[1:]) == []


def test_lf_after_an_empty_chunk_belongs_to_the_cr() -> None:
    """An empty chunk between CR and LF does not make two line ends of them."""
    assert decode(b"data: x\r", b"", b"\n") == []


def test_cr_is_followed_by_one_lf_at_most() -> None:
    """Only the first LF behind a CR belongs to it."""
    assert len(decode(b"data: x\r", b"\n", b"\n")) == 1


# Fields


def test_event_is_a_frozen_value() -> None:
    """An event is an ordinary instance: equal, hashable, picklable, immutable."""
    (event,) = decode(b"id: 7\nevent: price\ndata: x\njson\n\n")

    assert DecodedEvent("price", "x", "7", "7", True) == event
    assert DecodedEvent is type(event)
    assert len({event, pickle.loads(pickle.dumps(event))}) == 1
    with pytest.raises(AttributeError):
        event.data = "y"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del event.data


@pytest.mark.parametrize(
    ("block", "own", "last"),
    [
        (b"data: x\n\n", None, "before"),
        (b"id: 7\ndata: x\n\n", "7", "7"),
        (b"id\ndata: x\n\n", "", ""),
        (b"id: 7\nid: 8\ndata: x\n\n", "8", "8"),
        (b"id: a\0b\ndata: x\n\n", None, "before"),
        (b"id: 7\n\ndata: x\n\n", None, "7"),
    ],
)
@each_cut
def test_own_id_and_last_event_id(
    block: bytes, own: str | None, last: str, cut: Cut
) -> None:
    """An event tells the id it carried from the one that was in force anyway."""
    decoder = Decoder("before")

    (event,) = feed(decoder, cut([block]))

    assert (own, last) == (event.id, event.last_event_id)
    assert last == decoder.last_event_id


def test_pending_id_does_not_count() -> None:
    """An id moves the last event ID with its blank line, not before."""
    decoder = Decoder("before")

    decoder.feed(b"id: 7\ndata: x\n")
    decoder.close()

    assert decoder.last_event_id == "before"


@pytest.mark.parametrize(
    ("line", "marked"),
    [
        (b"json", True),
        (b"json:", True),
        (b"json: ", True),
        (b"json: 1", False),
        (b"JSON", False),
        (b" json", False),
        (b":json", False),
    ],
)
@each_cut
def test_json_mark(line: bytes, marked: bool, cut: Cut) -> None:
    """The mark is the field `json` with an empty value, anywhere in the block."""
    for block in (line + b"\ndata: 1\n\n", b"data: 1\n" + line + b"\n\n"):
        assert [marked] == [event.json for event in decode(*cut([block]))]


def test_json_mark_ends_with_its_block() -> None:
    """A mark says nothing about later blocks, even where its own had no data."""
    stream = b"json\n\ndata: 1\n\njson\ndata: 2\n\ndata: 3\n\n"

    assert [event.json for event in decode(stream)] == [False, True, False]


@each_cut
def test_replayed_are_as_many_blocks_as_were_counted(cut: Cut) -> None:
    """A block without an event counts, too; a comment's is one like any."""
    stream = (
        b"replay: 3\nid: 1\ndata: 1\n\nretry: 500\n\ndata: 2\n\ndata: 3\n\n"
        b":\n\nreplay: 1\ndata: 4\n\ndata: 5\n\n"
    )
    replayed = [event.data for event in decode(*cut([stream])) if event.replayed]

    assert ["1", "2", "4"] == replayed


@pytest.mark.parametrize(
    ("value", "count"),
    [(b" 1", 1), (b"2", 2), (b" 0", 0), (b" -1", 0), (b" x", 0), (b"", 0)],
)
def test_replayed_is_what_digits_say(value: bytes, count: int) -> None:
    """Anything but a number is none, and takes back what was said before."""
    events = decode(b"replay: 9\nreplay:" + value + b"\n" + b"data: x\n\n" * 3)

    assert [event.replayed for event in events] == [n < count for n in range(3)]


def test_replayed_has_no_bound() -> None:
    """A number of any length is one."""
    (event,) = decode(b"replay: " + b"9" * 5000 + b"\ndata: x\n\n")

    assert event.replayed


def test_type_ends_with_its_block() -> None:
    """A type says nothing about later blocks, even where its own had no data."""
    events = decode(b"event: a\n\ndata: 1\n\nevent: b\ndata: 2\n\ndata: 3\n\n")

    assert [event.type for event in events] == ["message", "b", "message"]


# Reconnection time


@each_cut
def test_retry_is_applied_at_once(cut: Cut) -> None:
    """A reconnection time counts from the end of its line, in a block or not."""
    decoder = Decoder()

    assert feed(decoder, cut([b"data: x\nretry: 700\n"])) == []
    assert decoder.retry == 700
    assert feed(decoder, cut([b"retry: 800"])) == []
    assert decoder.retry == 700


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("2147483647", 2147483647),
        ("2147483648", MAX_RETRY),
        ("9" * 11, MAX_RETRY),
        ("1" + "0" * 10_000, MAX_RETRY),
        ("0" * 10_000 + "250", 250),
        ("0" * 10_000, 0),
    ],
)
def test_retry_is_clamped(digits: str, expected: int) -> None:
    """A number of any length is taken, and held at what a timer can wait."""
    decoder = Decoder()

    decoder.feed(b"retry: " + digits.encode() + b"\n")

    assert expected == decoder.retry


def test_retry_of_this_stream_alone() -> None:
    """A decoder that was not told a reconnection time says so."""
    assert None is Decoder().retry


# Comments


@each_cut
def test_comments_are_told_and_counted(cut: Cut) -> None:
    """Each comment line is told with its end, without a blank line behind it."""
    told: list[str] = []
    decoder = Decoder(on_comment=told.append)

    feed(decoder, cut([b":\n: a\ndata: x\n:  b:c\xff\n\n:d"]))

    assert told == ["", "a", " b:c\ufffd"]
    assert decoder.comments == 3


def test_comments_are_counted_without_a_listener() -> None:
    """Nobody has to listen for comments."""
    decoder = Decoder()

    decoder.feed(b": a\n\n: b\n")

    assert decoder.comments == 2


# The end


def test_close_discards_what_is_pending() -> None:
    """The end of the stream completes nothing, and closing twice is no mistake."""
    decoder = Decoder()
    decoder.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\nda")

    decoder.close()
    decoder.close()

    assert decoder.last_event_id == "1"


def test_closed_decoder_takes_no_more() -> None:
    """A decoder is for one response: what is fed after the end is a mistake."""
    decoder = Decoder()
    decoder.close()

    with pytest.raises(RuntimeError, match="a Decoder of its own"):
        decoder.feed(b"data: x\n\n")


# Limits


def test_limit_of_nothing_is_a_mistake() -> None:
    """A limit that no event can keep is refused when it is given."""
    with pytest.raises(ConfigurationError, match="max_event_bytes=0"):
        Decoder(max_event_bytes=0)


@pytest.mark.parametrize(
    "stream",
    [
        b"data: 78901\n\n",
        b"data:8\n9012\n\n",
        b"id:4\njson\n1\n\n",
        b"event: 8901\n\n",
        b": 345678901\n\n",
        b"unknown8901\n\n",
        b"data: 78901",
    ],
)
@each_cut
def test_limit_to_the_byte(stream: bytes, cut: Cut) -> None:
    """An event or line of as many bytes as the limit is taken, one more is not."""
    size = len(stream.rstrip(b"\n"))

    feed(Decoder(max_event_bytes=size), cut([stream]))

    decoder = Decoder(max_event_bytes=size - 1)
    with pytest.raises(EventTooLarge) as caught:
        feed(decoder, cut([stream]))
    assert (size, size - 1) == (caught.value.size, caught.value.limit)
    assert decoder.error is not None
    assert decoder.error.args == caught.value.args


@each_cut
def test_events_before_a_large_one_are_not_lost(cut: Cut) -> None:
    """The events before it are returned first; then it is an error, again and again."""
    decoder = Decoder(max_event_bytes=100)
    chunks = cut([b"id: 1\ndata: a\n\nid: 2\ndata: " + b"b" * 200 + b"\n\ndata: c\n\n"])

    events, too_large = feed_to_the_end(decoder, chunks)

    assert too_large
    assert [event.data for event in events] == ["a"]
    assert decoder.last_event_id == "1"
    with pytest.raises(EventTooLarge, match="max_event_bytes"):
        decoder.feed(b"\n\ndata: d\n\n")


def test_the_error_is_known_with_its_chunk() -> None:
    """Where events hold the error back, `error` tells of it already."""
    decoder = Decoder(max_event_bytes=10)

    (event,) = decoder.feed(b"data: a\n\ndata: bbbbbbbbbbbbbbb")

    assert event.data == "a"
    assert isinstance(decoder.error, EventTooLarge)


@each_cut
def test_comments_between_do_not_count(cut: Cut) -> None:
    """A stream of nothing but short comments never ends in an error."""
    quiet = b"data: a\n" + b": still here\nstream: 7\nretry: 500\n" * 100

    assert [event.data for event in decode(*cut([quiet, b"\n"]), limit=20)] == ["a"]


@each_cut
def test_every_event_has_the_limit_to_itself(cut: Cut) -> None:
    """Any number of events may be in one chunk, whatever the limit."""
    stream = b"id: 1\ndata: a\n\n" * 50

    assert len(decode(*cut([stream]), limit=20)) == 50


LIMIT = 1 << 18


@pytest.mark.parametrize(
    "pattern",
    [b"data", b"data\n", b"event:a\n", b"id\n", b"data:\xff"],
)
@pytest.mark.parametrize("size", [1 << 16, 997])
def test_memory_is_bounded(pattern: bytes, size: int) -> None:
    """An event without an end costs its limit in memory, and then is an error."""
    chunk = (pattern * (size // len(pattern) + 1))[:size]
    decoder = Decoder(max_event_bytes=LIMIT)
    enough = 2 * LIMIT // size

    tracemalloc.start()
    try:
        with pytest.raises(EventTooLarge):
            feed(decoder, itertools.repeat(chunk, enough))
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # A chunk is split into lines as it comes: its lines cost more than its bytes.
    assert peak < 1.5 * LIMIT + 20 * size
    assert left < 100_000


@pytest.mark.parametrize("line", ["data\n", "data:ab\n", "data:\u0101\n"])
def test_memory_of_the_worst_event(line: str) -> None:
    """An event of tiny lines costs less than fifteen times its bytes to decode."""
    # Large against the piece that is split at a time.
    limit = 4 * LIMIT
    count = limit // len(line.encode())
    decoder = Decoder(max_event_bytes=limit)
    decoder.feed(line.encode() * count)

    tracemalloc.start()
    try:
        (event,) = decoder.feed(b"\n")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(event.data.split("\n")) == count
    assert peak < 15 * limit


@pytest.mark.parametrize("pattern", [b": ping\n", b"\n", b"x: y\n", b"retry: 9\n\r"])
def test_what_means_nothing_is_not_kept(pattern: bytes) -> None:
    """A stream without events leaves nothing behind, however long it is."""
    decoder = Decoder(max_event_bytes=100)
    chunk = pattern * 200

    decoder.feed(chunk)
    tracemalloc.start()
    try:
        for _ in range(50):
            decoder.feed(chunk)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert left < 1_000


# Properties


def by_the_letter(stream: bytes) -> tuple[list[VectorEvent], str, int | None]:
    """Decode as 9.2.6 says it, one character at a time: slow, and easily checked."""
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(stream, True)
    text = text.removeprefix("\ufeff")
    # What stands behind the last line end is no line.
    *lines, _ = re.split("\r\n|\n|\r", text)
    events: list[VectorEvent] = []
    data = type_ = id_buffer = last_event_id = ""
    retry: int | None = None
    for line in lines:
        if line == "":
            last_event_id = id_buffer
            if data != "":
                kind = type_ or "message"
                events.append(
                    {"type": kind, "data": data[:-1], "lastEventId": last_event_id}
                )
            data = type_ = ""
            continue
        field, colon, value = line.partition(":")
        if colon and value.startswith(" "):
            value = value[1:]
        match field:
            case "data":
                data += value + "\n"
            case "event":
                type_ = value
            case "id" if "\0" not in value:
                id_buffer = value
            case "retry" if re.fullmatch("[0-9]+", value):
                retry = min(int(value), MAX_RETRY)
    return events, last_event_id, retry


@settings(deadline=None, max_examples=500)
@given(stream=streams, drawn=st.data())
def test_any_bytes_in_any_chunking(stream: bytes, drawn: st.DataObject) -> None:
    """Any bytes, cut anywhere, decode as the standard's text says; none is an error."""
    decoder = Decoder()

    events = feed(decoder, drawn.draw(chunked(stream)))
    decoder.close()

    assert by_the_letter(stream) == (seen(events), decoder.last_event_id, decoder.retry)


@settings(deadline=None, max_examples=500)
@given(stream=streams, drawn=st.data(), limit=st.integers(1, 40))
def test_any_chunking_gives_the_same(
    stream: bytes, drawn: st.DataObject, limit: int
) -> None:
    """Events, comments and the point where a limit ends it are the bytes' alone."""
    told: tuple[list[str], list[str]] = [], []
    one = Decoder("seed", max_event_bytes=limit, on_comment=told[0].append)
    other = Decoder("seed", max_event_bytes=limit, on_comment=told[1].append)

    expected = feed_to_the_end(one, [stream])
    actual = feed_to_the_end(other, drawn.draw(chunked(stream)))

    assert expected == actual
    assert told[0] == told[1]
    assert one.last_event_id == other.last_event_id
    assert one.retry == other.retry
    assert one.comments == other.comments


@settings(deadline=None)
@given(stream=streams, drawn=st.data())
def test_every_prefix_is_live(stream: bytes, drawn: st.DataObject) -> None:
    """After any chunk, all events that the bytes so far complete have come out."""
    decoder = Decoder()
    so_far = b""
    events: list[DecodedEvent] = []

    for chunk in drawn.draw(chunked(stream)):
        so_far += chunk
        events += decoder.feed(chunk)
        assert by_the_letter(so_far)[0] == seen(events)


@settings(deadline=None, max_examples=50)
@given(stream=streams, drawn=st.data())
def test_large_blocks_decode_the_same(stream: bytes, drawn: st.DataObject) -> None:
    """A block so large that it is split piece by piece loses no line and gains none."""
    filler = b"".join(b"data: %d %b\n" % (n, b"x" * 300) for n in range(500))
    stream = filler + stream + b"\n" + filler + b"\n"

    assert len(filler) > 2 << 16
    assert seen(decode(stream)) == by_the_letter(stream)[0]
    events = decode(*cut_at(stream, drawn.draw(st.lists(st.integers(0, len(stream))))))
    assert seen(events) == by_the_letter(stream)[0]
