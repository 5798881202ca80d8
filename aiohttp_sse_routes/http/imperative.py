"""The imperative form: aiohttp-sse's context manager, with our response.

Law: code moves from aiohttp-sse by changing an import.
"""

from __future__ import annotations

__all__ = ("sse_response",)

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, overload

import aiohttp_sse
from aiohttp import web

from .event_source import EventSourceResponse

_Response = TypeVar("_Response", bound=aiohttp_sse.EventSourceResponse)


@overload
def sse_response(
    request: web.Request,
    *,
    status: int = 200,
    reason: str | None = None,
    headers: Mapping[str, str] | None = None,
    sep: str | None = None,
    allow_all_methods: bool = False,
    send_timeout: float | None = EventSourceResponse.DEFAULT_SEND_TIMEOUT,
    ping_interval: float = EventSourceResponse.DEFAULT_PING_INTERVAL,
) -> AbstractAsyncContextManager[EventSourceResponse]: ...


@overload
def sse_response(
    request: web.Request,
    *,
    status: int = 200,
    reason: str | None = None,
    headers: Mapping[str, str] | None = None,
    sep: str | None = None,
    allow_all_methods: bool = False,
    send_timeout: float | None = EventSourceResponse.DEFAULT_SEND_TIMEOUT,
    ping_interval: float = EventSourceResponse.DEFAULT_PING_INTERVAL,
    response_cls: type[_Response],
) -> AbstractAsyncContextManager[_Response]: ...


def sse_response(
    request: web.Request,
    *,
    status: int = 200,
    reason: str | None = None,
    headers: Mapping[str, str] | None = None,
    sep: str | None = None,
    allow_all_methods: bool = False,
    send_timeout: float | None = EventSourceResponse.DEFAULT_SEND_TIMEOUT,
    ping_interval: float = EventSourceResponse.DEFAULT_PING_INTERVAL,
    response_cls: type[aiohttp_sse.EventSourceResponse] = EventSourceResponse,
) -> Any:
    """Return a context manager that prepares a response and stops it at its exit.

    ``async with sse_response(request) as resp:`` is the drop-in for aiohttp-sse's. The
    handler returns ``resp``. A client that leaves ends the block by the
    ``ConnectionResetError`` of the next ``send``; catch it where there is something to
    do, inside or outside, and else let it go: it leaves no traceback in the log.

    Args:
        request: The handler's.
        status: The status.
        reason: Its text.
        headers: Sent with the stream; the stream's own take precedence.
        sep: What lines end in: CRLF by default, CR or LF.
        allow_all_methods: Whether others than GET are answered; else with 405.
        send_timeout: Seconds that a client may take nothing before it is cut; None for
            any time.
        ping_interval: Seconds between two pings, also while there are events.
        response_cls: The response's class.

    Raises:
        TypeError: *response_cls* is not an ``EventSourceResponse``.
        ValueError: *ping_interval* is not above 0.
    """
    return aiohttp_sse.sse_response(
        request,
        status=status,
        reason=reason,
        headers=headers,
        sep=sep,
        allow_all_methods=allow_all_methods,
        send_timeout=send_timeout,
        ping_interval=ping_interval,
        response_cls=response_cls,
    )
