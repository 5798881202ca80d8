"""How a program begins to follow a stream.

Law: every argument is looked at here, before anything is connected.
"""

from __future__ import annotations

__all__ = ("connect",)

from collections.abc import Callable, Mapping
from typing import Any, Literal

import aiohttp
from yarl import URL

from ..errors import ConfigurationError
from ..streams.clock import Clock, MonotonicClock
from .backoff import Reconnect
from .connection import Connection
from .event import Decode, Opener, StateInfo
from .stream import OnGap, Stream
from .target import Headers, Target, checked_id

_STRICT = Reconnect(initial=3.0)


def connect(
    url: str | URL,
    *,
    session: aiohttp.ClientSession | None = None,
    method: str = "GET",
    params: Any = None,
    headers: Headers | None = None,
    json: Any = None,
    data: Any = None,
    last_event_id: str = "",
    reconnect: Reconnect | None = None,
    connect_timeout: float | None = 10.0,
    stall_timeout: float | Literal["server"] | None = "server",
    max_event_bytes: int = 8 << 20,
    decode: Decode = "text",
    events: Mapping[str, Any] | None = None,
    ack: Literal["auto", "manual"] = "auto",
    strict: bool = False,
    on_state: Callable[[StateInfo], object] | None = None,
    on_gap: OnGap = "raise",
    clock: Clock | None = None,
    **options: Any,
) -> Stream:
    """Follow a stream: ``async with`` opens it, and ``async for`` gives its events.

    Entering makes the first connection, by the same rules as all later ones: what may
    pass is tried again, and what is final raises.

    Args:
        url: The stream's, absolute, without a user in it.
        session: By which it is requested, and which stays open. A stream takes one of
            its connector's places. None makes a session for this stream alone.
        method: The HTTP method. A request other than GET is made again only if there
            is an id to resume at, or if a status says that nothing was done.
        params: Added to the URL's query.
        headers: Sent with each attempt; or a function, also a coroutine function, that
            is asked for them before each attempt, and once more after status 401.
        json: The request's body, as JSON.
        data: The request's body; it has to be one that can be sent again.
        last_event_id: Where to begin.
        reconnect: When it is tried again; `Reconnect()` by default.
        connect_timeout: Seconds for one attempt, up to the answer's headers. None sets
            no limit.
        stall_timeout: Seconds without a single byte after which the connection is
            given up and made anew; ``"server"`` for twice the heartbeat and ten more,
            where the server says its heartbeat, as ours do; None for never.
        max_event_bytes: How large an event, and a line, may be.
        decode: What an event's ``data`` are: its ``"text"``; the value that it is as
            ``"json"``; ``"auto"``, JSON where a server of ours has sent such, else
            text; or what a function makes of the text.
        events: Types by the names of events, as in ``sse_route(events=...)``. Their
            data are JSON, and become of that type.
        ack: ``"manual"`` lets `Stream.last_event_id` move with `Stream.ack` alone.
        strict: Go by the letter of the standard: every status but 200 is final, also
            204; waits are as long as the stream says, not random and not growing, and
            three seconds at first; control events are events like others.
        on_state: Called with a `StateInfo` at each change. What it raises is logged.
        on_gap: What is done when the server says that events are lost: ``"raise"``
            raises `ReplayGap`, and iterating goes on behind the hole; ``"ignore"``; or
            a function, also a coroutine function, that is called with a `Gap`.
        clock: Measures waits and silence; `testing.SettableClock` is one to be moved.
        options: More arguments of `aiohttp.ClientSession.request`: ``ssl``, ``proxy``,
            ``cookies``, ``read_bufsize`` and others.

    Raises:
        ConfigurationError: an argument is wrong.
    """
    if ack not in ("auto", "manual"):
        raise ConfigurationError(f"ack={ack!r} has to be 'auto' or 'manual'")
    if not callable(on_gap) and on_gap not in ("raise", "ignore"):
        raise ConfigurationError(
            f"on_gap={on_gap!r} has to be 'raise', 'ignore' or a function"
        )
    if not callable(decode) and decode not in ("text", "json", "auto"):
        raise ConfigurationError(
            f"decode={decode!r} has to be 'text', 'json', 'auto' or a function"
        )
    if not isinstance(max_event_bytes, int) or max_event_bytes < 1:
        raise ConfigurationError(
            f"max_event_bytes={max_event_bytes!r} has to be bytes, at least 1"
        )
    if on_state is not None and not callable(on_state):
        raise ConfigurationError(f"on_state={on_state!r} has to be a function")
    if not (headers is None or callable(headers) or isinstance(headers, Mapping)):
        raise ConfigurationError(
            f"headers={headers!r} has to be a mapping, or a function that returns one"
        )
    _check_seconds("connect_timeout", connect_timeout)
    if stall_timeout != "server":
        _check_seconds("stall_timeout", stall_timeout)
    clock = clock or MonotonicClock()
    connection = Connection(
        Target(
            url,
            method=method,
            params=params,
            headers=headers if callable(headers) else dict(headers or {}),
            json=json,
            data=data,
            options=options,
            strict=strict,
        ),
        session,
        reconnect or (_STRICT if strict else Reconnect()),
        clock,
        place=checked_id(last_event_id),
        connect_timeout=connect_timeout,
        max_event_bytes=max_event_bytes,
        strict=strict,
        on_state=on_state,
    )
    return Stream(
        connection,
        Opener(decode, events or {}),
        clock,
        stall_timeout=stall_timeout,
        ack=ack,
        on_gap=on_gap,
        strict=strict,
    )


def _check_seconds(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or not value > 0:
        raise ConfigurationError(f"{name}={value!r} has to be seconds above 0, or None")
