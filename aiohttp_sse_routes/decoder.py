"""Decodes event streams incrementally, by the rules of the HTML standard.

Law: bytes in, events out; no I/O and no clock. What comes out depends on the bytes
alone, never on how they were cut into chunks, and each event comes out with the chunk
that completes it. Nothing in a stream is an error but an event over the size limit.

Between two calls a decoder holds only bytes: the block that is not yet complete,
without the lines that mean nothing to it, and the line that is not yet complete.

Until its line is complete a byte is a character of the same number; see `lines`.
"""

from __future__ import annotations

__all__ = ("MAX_RETRY", "DecodedEvent", "Decoder")

from collections.abc import Callable
from typing import Final

from .decoded import DecodedEvent
from .errors import ConfigurationError, EventTooLarge
from .lines import BYTES, split, utf8

MAX_RETRY: Final = 2_147_483_647
"""The longest reconnection time, in ms (24.8 days): what the standard lets a server
send has no end, and browsers' timers overflow past this one and fire at once."""

_BOM: Final = b"\xef\xbb\xbf"
_FEW: Final = 1 << 12
_KEPT: Final = ("data", "event", "id", "json")
_KEPT_WITH_VALUE: Final = tuple(name + ":" for name in _KEPT)
_NAMES: Final = frozenset({*_KEPT, "replay", "retry", ""})


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
        on_comment: The attribute of this name, from the beginning.

    Raises:
        ConfigurationError: *max_event_bytes* is less than 1.

    Attributes:
        last_event_id: The last event ID string after all that was decoded. Blocks
            without data move it too.
        retry: The reconnection time that the stream asked for last, in milliseconds,
            at most `MAX_RETRY`; None as long as it has not. It may be 0.
        on_comment: Called with the text of each comment line at once, before the
            events of the same chunk are returned; it must not raise. None for nobody.
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
        self.on_comment = on_comment
        self._closed = False
        self._head: bytes | None = b""  # what may be a BOM; None behind it
        self._after_cr = False
        # What is pending is these three, in this order.
        self._block = bytearray()  # lines of this block, each kept, and with its LF
        self._line = bytearray()  # the beginning of a line
        self._rest = ""  # what is not looked at yet: lines, and one without an end
        self._room = min(_FEW, max_event_bytes)  # how long that may become
        self._past = 0  # how many of the next blocks are replayed

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
            if self._head is not None:
                data = self._without_bom(data)
            text = data.decode(BYTES)
            if self._after_cr or "\r" in text:
                text = self._with_lf(text)
            if "\n" in text:
                self._take(text, events)
            else:
                self._rest += text
                if len(self._rest) > self._room:
                    self._look(events)
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

    def _without_bom(self, data: bytes) -> bytes:
        # 9.2.6: the UTF-8 decode algorithm strips one leading byte order mark. A second
        # one, and any later, is content.
        head = (self._head or b"") + data
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _with_lf(self, text: str) -> str:
        """Return *text* with all its line ends LF."""
        # 9.2.6: CRLF, LF and CR each end a line. A CR at the end of a chunk does so
        # now, not with the next byte, which may be minutes away; the LF that may
        # follow belongs to it.
        if self._after_cr and text:
            self._after_cr = False
            text = text.removeprefix("\n")
        if "\r" in text:
            self._after_cr = text.endswith("\r")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return text

    def _take(self, text: str, events: list[DecodedEvent]) -> None:
        """Take *text*, in which lines end."""
        rest = self._rest
        held = len(self._block) + len(self._line)
        if held + len(rest) + len(text) > self._limit:
            self._rest = rest + text
            self._look(events)
            return
        if text[0] == "\n" and (rest.endswith("\n") or not (rest or self._line)):
            self._finish(rest, events)
            rest, text = "", text[1:]
        head, blank, tail = text.rpartition("\n\n")
        if blank:
            # Without its second LF: the end of the text stands for the blank line.
            self._finish(f"{rest}{head}\n", events)
            rest, text = "", tail
        self._rest = rest + text
        if "\n" in text and self._is_urgent(rest, text):
            self._look(events)

    def _is_urgent(self, rest: str, text: str) -> bool:
        """Whether the lines that end in *text*, behind *rest*, have to be looked at.

        Those of a block can lie until it is complete, as long as they are few. Those
        with an effect of their own, comments and ``retry``, cannot.
        """
        begun = rest[rest.rfind("\n") + 1 :] or text
        return (
            begun[0] in ":r"
            or "\n:" in text
            or "\nr" in text
            or len(self._rest) > self._room
            or bool(self._line)
        )

    def _finish(self, text: str, events: list[DecodedEvent]) -> None:
        """Interpret what is pending with *text* behind it, up to a blank line."""
        if self._block or self._line:
            text = (self._block + self._line).decode(BYTES) + text
            self._discard()
        self._rest = ""
        self._interpret(text, events)

    def _look(self, events: list[DecodedEvent]) -> None:
        """Look at each line by itself; stop if its block is too large."""
        rest, self._rest = self._rest, ""
        block = self._block
        if "\n" in rest:
            lines, _, rest = (self._line.decode(BYTES) + rest).rpartition("\n")
            self._line.clear()
            for line in split(lines, str):
                if not line:
                    self._interpret(block.decode(BYTES), events)
                    block.clear()
                elif len(block) + len(line) > self._limit:
                    self._fail(len(block) + len(line))
                    return
                elif line.startswith(_KEPT_WITH_VALUE) or line in _KEPT:
                    block += line.encode(BYTES)
                    block += b"\n"
                else:
                    # It takes effect now (retry, comments), or never.
                    self._interpret(line, events)
        self._line += rest.encode(BYTES)
        size = len(block) + len(self._line)
        self._room = min(_FEW, max(self._limit - size, 0))
        if self._line and size > self._limit:
            self._fail(size)

    def _fail(self, size: int) -> None:
        self.error = EventTooLarge(size, self._limit)
        self._discard()

    def _discard(self) -> None:
        self._block.clear()
        self._line.clear()
        self._rest = ""
        self._room = min(_FEW, self._limit)

    # One long function: it is the inner loop, and a call a line costs a third more.
    def _interpret(self, text: str, events: list[DecodedEvent]) -> None:
        """Interpret whole lines from the beginning of a block (9.2.6)."""
        values: list[str] = []
        type_ = ""
        id_: str | None = None
        json = False
        past = self._past
        for line in split(text, utf8):
            # The usual form first: a name, a colon and one space.
            name, _, value = line.partition(": ")
            if name not in _NAMES:
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
            if name == "data":
                values.append(value)
            elif not line:
                if id_ is not None:
                    self.last_event_id = id_
                if values:
                    data = "\n".join(values)
                    last = self.last_event_id
                    events.append(
                        DecodedEvent(
                            type_ or "message", data, id_, last, json, past > 0
                        )
                    )
                    values = []
                type_, id_, json = "", None, False
                past -= 1
            elif name == "id":
                if "\0" not in value:
                    id_ = value
            elif name == "event":
                type_ = value
            elif name == "json":
                json = json or not value
            elif name == "retry":
                self._take_retry(value)
            elif name == "replay":
                past = _number(value) or 0
            elif not name:
                self.comments += 1
                if self.on_comment is not None:
                    self.on_comment(value)
        self._past = max(0, past)

    def _take_retry(self, value: str) -> None:
        number = _number(value)
        if number is not None:
            self.retry = min(number, MAX_RETRY)


def _number(value: str) -> int | None:
    """Return the number that *value* is; None if it is none."""
    # 9.2.6: ASCII digits only; str.isdigit() knows others, int() signs, spaces and
    # underscores.
    if not (value.isascii() and value.isdigit()):
        return None
    # int() refuses more than 4,300 digits, and takes long over fewer.
    return int(value.lstrip("0")[:11] or "0")
