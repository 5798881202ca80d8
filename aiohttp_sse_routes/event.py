"""The event as a value: what a handler yields and what goes on the wire.

Law: an invalid event cannot be constructed, so encoding one cannot fail for its
fields. Values are immutable and nothing here does I/O.
"""

from __future__ import annotations

__all__ = ("MIN_RETRY", "RESERVED_PREFIX", "ServerSentEvent")

from typing import Any, Final

from .cursor import has_our_format

RESERVED_PREFIX: Final = "sse-"
"""Event names that begin so are this package's control events."""

MIN_RETRY: Final = 500
"""The least ``retry`` that goes out, in ms: below it some browsers reconnect in a
tight loop, and one rounds up."""

_LINE_BREAKS: Final = ("\r", "\n", "\0")


class ServerSentEvent:
    """One event of a stream (HTML standard, 9.2.5).

    Args:
        data: What the page gets: ``str`` and UTF-8 ``bytes`` go out as they are,
            everything else as JSON. ``None`` sends no data, so that the browser
            dispatches no event.
        event: The event's type, the page's ``addEventListener`` name; ``message``
            where it is None.
        id: An id of your own (private runs only): the handler resumes by itself, from
            `last_event_id`. Leave it out and events get ids that replay by themselves.
            It comes back in an HTTP header: keep to printable characters and at most
            1,024 bytes, for aiohttp refuses a request with control characters there.
        retry: The client's reconnection time in milliseconds; sent as at least 500.
        comment: Text that parsers ignore, sent as comment lines before the fields.

    Raises:
        ValueError: CR, LF or NUL in *event* or *id*; an event name that begins with
            ``sse-``; an id of the format that this package makes; an empty id; a
            negative *retry*, or one that is not an int; a NUL in *comment*.
        TypeError: *event*, *id* or *comment* is not a ``str``.
    """

    __slots__ = ("comment", "data", "event", "id", "retry")

    data: Any
    event: str | None
    id: str | None
    retry: int | None
    comment: str | None

    def __init__(
        self,
        data: Any = None,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        if event is not None:
            _check_field("event", event)
            if event.startswith(RESERVED_PREFIX):
                raise ValueError(
                    f"event={event!r}: names that begin with {RESERVED_PREFIX!r} are "
                    "reserved for control events, choose another"
                )
        if id is not None:
            _check_field("id", id)
            if not id:
                raise ValueError(
                    "id='' would erase the client's last event ID: leave it out"
                )
            if has_our_format(id):
                raise ValueError(
                    f"id={id!r} has the format of the ids made here: leave id out and "
                    "events get one, or choose a format of your own"
                )
        if retry is not None:
            # bool is an int, and retry=True a mistake
            if not isinstance(retry, int) or isinstance(retry, bool):
                raise ValueError(f"retry={retry!r} must be an int, in milliseconds")
            if retry < 0:
                raise ValueError(f"retry={retry!r} must be at least 0 milliseconds")
        if comment is not None:
            if not isinstance(comment, str):
                raise TypeError(f"comment={comment!r} must be a str")
            if "\0" in comment:
                raise ValueError("comment must not contain NUL: engines disagree on it")
        _set(self, "data", data)
        _set(self, "event", event)
        _set(self, "id", id)
        _set(self, "retry", retry)
        _set(self, "comment", comment)

    @classmethod
    def at(cls, place: str, event: ServerSentEvent) -> ServerSentEvent:
        """Return *event* as a log gives it out: with the cursor *place* for its id."""
        placed = cls(
            event.data, event=event.event, retry=event.retry, comment=event.comment
        )
        _set(placed, "id", place)
        return placed

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a ServerSentEvent is immutable: make a new one ({name})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a ServerSentEvent is immutable: make a new one ({name})")

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: getattr(self, name) for name in self.__slots__}
        return _restore, (type(self), state)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServerSentEvent):
            return NotImplemented
        return all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash((self.event, self.id, self.retry, self.comment))

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name in ("event", "id", "retry", "comment")
            if getattr(self, name) is not None
        )
        return f"ServerSentEvent({self.data!r}{', ' + fields if fields else ''})"


_set = object.__setattr__


def _restore(cls: type[ServerSentEvent], state: dict[str, Any]) -> ServerSentEvent:
    event = cls.__new__(cls)
    for name, value in state.items():
        _set(event, name, value)
    return event


def _check_field(name: str, value: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r} must be a str")
    for char in _LINE_BREAKS:
        if char in value:
            raise ValueError(f"{name}={value!r} must not contain CR, LF or NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}={value!r} cannot be encoded as UTF-8") from None
