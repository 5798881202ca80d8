"""Decodes event streams incrementally, by the rules of the HTML standard.

Law: bytes in, events out; no I/O and no clock. What comes out depends on the bytes
alone, never on how they were cut into chunks, and each event comes out with the chunk
that completes it. Nothing in a stream is an error but an event over the size limit.

Between two calls a decoder holds only bytes: the block that is not yet complete,
without the lines that mean nothing to it, and the line that is not yet complete.
"""

from __future__ import annotations

__all__ = ("MAX_RETRY", "DecodedEvent", "Decoder")

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from .errors import ConfigurationError, EventTooLarge

MAX_RETRY: Final = 2_147_483_647
"""The longest reconnection time, in ms (24.8 days): what the standard lets a server
send has no end, and browsers' timers overflow past this one and fire at once."""

_BOM: Final = b"\xef\xbb\xbf"
_PIECE: Final = 1 << 16
_KEPT: Final = (b"data", b"event", b"id", b"json")
_KEPT_WITH_VALUE: Final = tuple(name + b":" for name in _KEPT)


@dataclass(frozen=True, slots=True)
class DecodedEvent:
    """One event as a client sees it (HTML standard, 9.2.6).

    Attributes:
        type: The event's name; ``message`` where the stream gave none.
        data: Its ``data`` lines, joined by LF.
        id: The ``id`` that this block itself carried, or None. The empty string is an
            id too: it erases the last event ID.
        last_event_id: The last event ID string after this event: where a client that
            has handled it resumes.
        json: Whether the block had our mark, the field line ``json``: *data* was
            encoded as JSON by the server, so ``"123"`` is a string and ``123`` is not.
    """

    type: str
    data: str
    id: str | None
    last_event_id: str
    json: bool


class _Draft(DecodedEvent):
    """A `DecodedEvent` that is still being filled in.

    A frozen dataclass's own constructor takes more than three times as long as this,
    and would be most of the time that a short event costs.
    """

    __slots__ = ()
    # Both, or the interpreter leaves its fast path for setting an attribute.
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__


class Decoder:
    """Decodes the body of one response.

    Args:
        last_event_id: The last event ID string so far. The standard's letter begins
            each stream with an empty one; but then the first event without an id
            after a reconnect would erase the place to resume at, so every browser
            keeps it.
        max_event_bytes: How many bytes one event may have in the stream: its lines
            ``data``, ``event``, ``id`` and ``json`` with the line ends between them,
            a line end counted as one byte; and how many a single line may have, of
            whatever kind. Comments and unknown fields between them do not count.
            Memory is bounded by this: as much between two calls, and at worst (an
            event of tiny lines) some fifteen times as much while one is decoded.
        on_comment: Called with the text of each comment line at once, before the
            events of the same chunk are returned. It must not raise.

    Raises:
        ConfigurationError: *max_event_bytes* is less than 1.

    Attributes:
        last_event_id: The last event ID string after all that was decoded. Blocks
            without data move it too.
        retry: The reconnection time that the stream asked for last, in milliseconds,
            at most `MAX_RETRY`; None as long as it has not. It may be 0.
        comments: How many comment lines there were.
        error: The error that ended decoding, or None.
    """

    def __init__(
        self,
        last_event_id: str = "",
        *,
        max_event_bytes: int = 8 << 20,
        on_comment: Callable[[str], object] | None = None,
    ) -> None:
        if max_event_bytes < 1:
            raise ConfigurationError(
                f"max_event_bytes={max_event_bytes!r} must be at least 1"
            )
        self.last_event_id = last_event_id
        self.retry: int | None = None
        self.comments = 0
        self.error: EventTooLarge | None = None
        self._limit = max_event_bytes
        self._on_comment = on_comment
        self._closed = False
        self._head: bytes | None = b""  # what may be a BOM; None behind it
        self._after_cr = False
        self._block = bytearray()  # the kept lines of this block, each with its LF
        self._line = bytearray()  # the line that has no end yet

    def feed(self, data: bytes) -> list[DecodedEvent]:
        """Decode the next chunk of the stream, and return the events it completes.

        An event that is too large ends decoding. No event before it is lost: if this
        chunk completed some, they are returned, `error` is set, and the next call
        raises it.

        Raises:
            EventTooLarge: An event is over *max_event_bytes*, in this chunk or in an
                earlier one. Resuming at `last_event_id` would only meet it again.
            RuntimeError: The decoder was closed.
        """
        if self._closed:
            raise RuntimeError(
                "this decoder was closed: each response body needs a Decoder of its "
                "own, made with the last_event_id of the one before"
            )
        events: list[DecodedEvent] = []
        if self.error is None:
            self._feed(self._normalised(data), events)
        if self.error is not None and not events:
            # A new one: the traceback would tie the kept one to this frame in a circle.
            raise EventTooLarge(self.error.size, self.error.limit)
        return events

    def close(self) -> None:
        """Note the end of the stream: what is pending is discarded (9.2.6).

        An event whose blank line has not come is none, and its id does not count.
        """
        self._closed = True
        self._discard()

    def _normalised(self, data: bytes) -> bytes:
        """Return *data* without a BOM, all its line ends LF."""
        if self._head is not None:
            data = self._without_bom(data)
        if not data:
            return data
        # 9.2.6: CRLF, LF and CR each end a line. A CR at the end of a chunk does so
        # now, not with the next byte, which may be minutes away; the LF that may
        # follow belongs to it.
        if self._after_cr:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _without_bom(self, data: bytes) -> bytes:
        # 9.2.6: the UTF-8 decode algorithm strips one leading byte order mark. A second
        # one, and any later, is content.
        head = (self._head or b"") + data
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _feed(self, data: bytes, events: list[DecodedEvent]) -> None:
        ended = data.rfind(b"\n") + 1
        if ended:
            lines = bytes(self._line) + data[:ended]
            self._line = bytearray(data[ended:])
            if len(self._block) + len(lines) <= self._limit:
                lines = self._take_blocks(lines, events)
            self._take_lines(lines, events)
        else:
            self._line += data
        size = len(self._block) + len(self._line)
        if self._line and size > self._limit:
            self._fail(size)

    def _take_blocks(self, lines: bytes, events: list[DecodedEvent]) -> bytes:
        """Interpret up to the last blank line in *lines*; return what is behind it."""
        end = lines.rfind(b"\n\n")
        if end < 0:
            return lines
        # Without its last LF: the end of the text stands for the blank line.
        self._interpret(bytes(self._block) + lines[: end + 1], events)
        self._block.clear()
        return lines[end + 2 :]

    def _take_lines(self, lines: bytes, events: list[DecodedEvent]) -> None:
        """Keep the lines of a block that is not complete; stop if it is too large."""
        block = self._block
        for line in lines.split(b"\n")[:-1]:
            if not line:
                self._interpret(bytes(block), events)
                block.clear()
            elif len(block) + len(line) > self._limit:
                self._fail(len(block) + len(line))
                return
            elif line.startswith(_KEPT_WITH_VALUE) or line in _KEPT:
                block += line
                block += b"\n"
            else:
                # It takes effect now (retry, comments), or never.
                self._interpret(line, events)

    def _fail(self, size: int) -> None:
        self.error = EventTooLarge(size, self._limit)
        self._discard()

    def _discard(self) -> None:
        self._block.clear()
        self._line.clear()

    # One long function: it is the inner loop, and a call a line costs a third more.
    def _interpret(self, lines: bytes, events: list[DecodedEvent]) -> None:
        """Interpret whole lines from the beginning of a block (9.2.6)."""
        values: list[str] = []
        type_ = ""
        id_: str | None = None
        json = False
        for line in _split(lines):
            if not line:
                if id_ is not None:
                    self.last_event_id = id_
                if values:
                    draft: Any = _new(_Draft)
                    draft.type = type_ or "message"
                    draft.data = "\n".join(values)
                    draft.id = id_
                    draft.last_event_id = self.last_event_id
                    draft.json = json
                    draft.__class__ = DecodedEvent
                    events.append(draft)
                    values = []
                type_, id_, json = "", None, False
                continue
            name, _, value = line.partition(":")
            if value[:1] == " ":
                value = value[1:]
            if name == "data":
                values.append(value)
            elif name == "id":
                if "\0" not in value:
                    id_ = value
            elif name == "event":
                type_ = value
            elif name == "json":
                json = json or not value
            elif name == "retry":
                self._take_retry(value)
            elif not name:
                self.comments += 1
                if self._on_comment is not None:
                    self._on_comment(value)

    def _take_retry(self, value: str) -> None:
        # 9.2.6: ASCII digits only; str.isdigit() knows others, int() signs, spaces
        # and underscores.
        if value.isascii() and value.isdigit():
            # int() refuses more than 4,300 digits, and takes long over fewer.
            digits = value.lstrip("0")[:11] or "0"
            self.retry = min(int(digits), MAX_RETRY)


def _split(lines: bytes) -> Iterable[str]:
    """Return *lines* as text, piece by piece where all at once would fill memory."""
    if len(lines) <= _PIECE:
        return _decoded(lines)
    return chain.from_iterable(map(_decoded, _pieces(lines)))


def _pieces(lines: bytes) -> Iterator[bytes]:
    start = 0
    while (end := lines.find(b"\n", start + _PIECE)) >= 0:
        yield lines[start:end]
        start = end + 1
    yield lines[start:]


def _decoded(lines: bytes) -> list[str]:
    # 9.2.6: streams are UTF-8 whatever they say, and malformed bytes become U+FFFD.
    # Whole lines decode as the stream would, since no LF is ever part of a sequence,
    # however malformed; and many together much faster than each alone.
    return lines.decode("utf-8", "replace").split("\n")


_new = object.__new__
