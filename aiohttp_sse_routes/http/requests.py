"""What a request brings that concerns a stream.

Law: a client's words are never an error. An id that is too long or cannot be one is as
if it were not there; the token of a private run counts only in the header, since a
query ends up in logs.
"""

from __future__ import annotations

__all__ = ("QUERY_NAMES", "Brought", "brought_by", "consulted", "last_event_id")

from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from ..cursor import Cursor, is_end, parse

QUERY_NAMES: Final = ("last_event_id", "lastEventId")
"""Query parameters that carry an id, for a page that knows a place and for clients
that cannot set a header."""

_LONGEST: Final = 1024

_CONSULTED: Final = web.RequestKey("sse_last_event_id_consulted", bool)


@dataclass(frozen=True, slots=True)
class Brought:
    """The last event ID that a request came with.

    Attributes:
        present: Whether there was any, usable or not.
        id: It, if it can be an id.
        cursor: The place it names, if it has our format.
        by_header: Whether it came in the header.
    """

    present: bool = False
    id: str | None = None
    cursor: Cursor | None = None
    by_header: bool = False

    @property
    def ended(self) -> bool:
        """Whether it is the id of an end: the answer is 204."""
        return is_end(self.id)

    @property
    def run(self) -> Cursor | None:
        """The place in a private run that it names, where that may count."""
        cursor = self.cursor
        return cursor if cursor and cursor.kind == "r" and self.by_header else None

    @property
    def known(self) -> str | None:
        """The id, if it may be sent back: a run's token that was in a query may not."""
        return self.id if self.by_header else self.own

    @property
    def own(self) -> str | None:
        """The id, if a handler can have made it or may know what it means."""
        return None if self.cursor and self.cursor.kind == "r" else self.id


_NOTHING: Final = Brought()


def brought_by(request: web.BaseRequest) -> Brought:
    """Return the last event ID that *request* came with."""
    text = _decoded(request.headers.get(hdrs.LAST_EVENT_ID, ""))
    by_header = bool(text)
    if not text and not request.query_string:
        # Most bring none, and what is parsed stays as long as the request.
        return _NOTHING
    if not text:
        for name in QUERY_NAMES:
            text = request.query.get(name, "")
            if text:
                break
        else:
            return _NOTHING
    if len(text.encode(errors="surrogateescape")) > _LONGEST or any(
        char in text for char in "\r\n\0"
    ):
        return Brought(present=True, by_header=by_header)
    return Brought(True, text, parse(text), by_header)


def last_event_id(request: web.BaseRequest) -> str | None:
    """Return the last event ID that the client has, for a handler that resumes itself.

    It is the ``Last-Event-ID`` header, else the query's ``last_event_id`` or
    ``lastEventId``. Never the id of a private run: those resume by themselves. None
    too for what cannot be an id: over 1,024 bytes, or with CR, LF or NUL.
    """
    request[_CONSULTED] = True
    return brought_by(request).own


def consulted(request: web.BaseRequest) -> bool:
    """Return whether the handler has asked for `last_event_id`."""
    asked: bool = request.get(_CONSULTED, False)
    return asked


def _decoded(text: str) -> str:
    # Browsers send the id as UTF-8, which aiohttp decodes so; bytes that are not come
    # as surrogates, and cannot be sent back.
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape").decode(errors="replace")
    return text
