"""The bytes of an event stream (HTML standard, 9.2.5; RFC 9112, 7.1).

Law: values in, bytes out; no I/O, no clock, no state. Lines end in LF, data is split
at CR, LF and CRLF only, and nothing goes out on which engines disagree: no NUL, no
byte order mark, no empty ``retry``, no ``id`` without ``data``.

A *block* is an event's lines with the empty line behind them. A *body* is a block that
lacks its ``id`` line, which depends on the log. A *frame* is one HTTP chunk.
"""

from __future__ import annotations

__all__ = (
    "COMMENT",
    "LAST_CHUNK",
    "Body",
    "Encoder",
    "control",
    "encode",
    "frame",
    "join",
    "json_chunk",
    "retry_line",
    "unframe",
)

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from .errors import EventTooLarge
from .event import MIN_RETRY, ServerSentEvent
from .serialize import PLAIN, Dumps, serialize, to_json

COMMENT: Final = b":\n\n"
"""The heartbeat: a comment line (9.2.5), which every parser ignores."""

LAST_CHUNK: Final = b"0\r\n\r\n"
"""What ends a chunked body (RFC 9112, 7.1)."""

_JSON_LINES: Final = b"json\ndata: %b\n\n"
_AROUND: Final = len(_JSON_LINES % b"")

_BREAK = re.compile(rb"\r\n|\r|\n")
_TEXT_BREAK = re.compile(r"\r\n|\r|\n")


class Body(NamedTuple):
    """An event, encoded but for its id.

    Attributes:
        lines: The block without its ``id`` line.
        carries_id: Whether it may carry an id: only a block with data does.
        id: The user's own id, or None.
    """

    lines: bytes
    carries_id: bool
    id: str | None


def encode(
    value: Any,
    name: str | None = None,
    dumps: Dumps | None = None,
    limit: int | None = None,
) -> Body:
    """Encode what a handler yielded.

    Args:
        value: A `ServerSentEvent`, or the data of one.
        name: The event's type where *value* does not say.
        dumps: Makes JSON in place of msgspec.
        limit: The most bytes a block may have.

    Raises:
        EventError: it cannot be sent.
        EventTooLarge: it is larger than *limit*.
    """
    head, own_id = b"", None
    if isinstance(value, ServerSentEvent):
        head, own_id = _head(value), value.id
        name = value.event or name
        value = value.data
        # The page listens for a named event: it fires without data too.
        if value is None and (name is not None or own_id is not None):
            value = ""
    if value is None:
        return Body(head + b"\n", False, None)
    data, is_json = serialize(value, dumps)
    if name is not None:
        head += b"event: %b\n" % name.encode()
    if is_json:
        head += b"json\n"
    if 10 in data or 13 in data:
        lines = b"%b%b\n" % (head, _data_lines(data))
    else:
        lines = b"%bdata: %b\n\n" % (head, data)
    if limit is not None and len(lines) > limit:
        raise EventTooLarge(len(lines), limit)
    return Body(lines, True, own_id)


class Encoder:
    """Encodes what the handlers of one route yield, as `encode` does.

    Args:
        dumps: Makes JSON in place of msgspec.
        limit: The most bytes a block may have.
        names: The event's type by the kind of its data.

    Attributes:
        plain: The kinds of value of which `serialize.json_into` makes what is called
            here, unless it has to be looked at.
        longest: The most bytes that such a text may have.
        text: Where to have it made: there for as long as nobody else has one made.
    """

    __slots__ = ("_dumps", "_limit", "_names", "longest", "plain", "text")

    def __init__(
        self,
        dumps: Dumps | None = None,
        limit: int | None = None,
        names: Mapping[type, str] | None = None,
    ) -> None:
        self._dumps = dumps
        self._limit = limit
        self._names = names
        self.plain = frozenset() if dumps or names else PLAIN
        self.longest = (1 << 62 if limit is None else limit) - _AROUND
        self.text = bytearray()

    def __call__(self, value: Any) -> Body:
        """Return the body of *value*; see `encode`."""
        name = None
        if self._names:
            data = value.data if isinstance(value, ServerSentEvent) else value
            kinds = type(data).__mro__
            name = next((self._names[k] for k in kinds if k in self._names), None)
        return encode(value, name, self._dumps, self._limit)


def control(name: str, data: Any, *, id: str | None = None) -> bytes:
    """Return the block of one of our own control events."""
    place = b"id: %b\n" % id.encode() if id is not None else b""
    return b"%bevent: %b\njson\n%b\n" % (
        place,
        name.encode(),
        _data_lines(to_json(data)),
    )


def retry_line(milliseconds: float) -> bytes:
    """Return the field that sets the client's reconnection time."""
    return b"retry: %d\n" % max(MIN_RETRY, round(milliseconds))


def frame(block: bytes) -> bytes:
    """Return *block* as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(block), block)


def unframe(chunk: bytes) -> bytes:
    """Return what `frame` was given: HTTP/1.0 has no chunks."""
    return chunk[chunk.index(b"\n") + 1 : -2]


def json_chunk(prefix: str) -> tuple[bytes, int]:
    """Return what `frame` makes of events of JSON, to be filled in with ``%``.

    Args:
        prefix: What an event's id is before its number.

    Returns:
        What is filled in with the block's size, the number, and the text, which has no
        line breaks; and the size of a block without its number and text.
    """
    place = b"id: %b" % prefix.encode()
    chunk = b"%%x\r\n%b%%d\n%b\r\n" % (place.replace(b"%", b"%%"), _JSON_LINES)
    return chunk, len(place) + len(b"\n") + _AROUND


def join(blocks: Iterable[bytes], past: int = 0) -> bytes:
    """Return several blocks as one HTTP chunk.

    Args:
        blocks: The blocks.
        past: How many of them, the first ones, are marked as replayed.
    """
    body = b"".join(blocks)
    if not past:
        return frame(body)
    mark = b"replay: %d\n" % past
    # Not put before the body, which may be large, but to be copied once.
    return b"%x\r\n%b%b\r\n" % (len(mark) + len(body), mark, body)


def _head(event: ServerSentEvent) -> bytes:
    head = b""
    if event.comment is not None:
        for line in _TEXT_BREAK.split(event.comment):
            head += b": %b\n" % line.encode(errors="replace")
    if event.retry is not None:
        head += retry_line(event.retry)
    return head


def _data_lines(data: bytes) -> bytes:
    return b"".join([b"data: %b\n" % line for line in _BREAK.split(data)])
