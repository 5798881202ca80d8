"""The answers to requests, those that get no stream above all, and to what has failed.

Law: a client that is merely too many is answered so softly that a browser comes back;
what a handler has raised is raised to aiohttp as it is.
"""

from __future__ import annotations

__all__ = ("Step", "failed_unopened", "log_failure", "refusal", "status_of")

import asyncio
import logging
from collections.abc import Awaitable
from typing import Union

from aiohttp import web

from ..settings import RouteSettings
from ..streams.ending import Ending
from ..streams.producer import Producer
from .response import HEADERS
from .script import Refusal, busy

_logger = logging.getLogger("aiohttp_sse_routes")


Step = Union[web.StreamResponse, Awaitable["Step"]]  # noqa: UP007 -- it is recursive
"""The answer, or what is to be awaited for it next.

What has nothing more to do returns the next step in place of awaiting it: a coroutine
that waits for another takes a frame, for as long as a stream lasts.
"""


def refusal(reason: Refusal, settings: RouteSettings) -> web.Response:
    """Return the answer that a browser survives: come back later."""
    body = busy(reason, control_events=settings.control_events)
    return web.Response(body=body, headers=HEADERS)


def failed_unopened(producer: Producer) -> bool:
    """Return whether a run has failed before its first yield."""
    ending = producer.ending
    return ending is not None and ending.kind == "failed" and not producer.yielded


def status_of(ending: Ending | None) -> BaseException:
    """Return what a run has failed with, to be raised as the answer to a request."""
    assert ending is not None
    assert ending.error is not None
    if isinstance(ending.error, asyncio.CancelledError):
        # Raised as it is, aiohttp would take it for the end of the request.
        error = RuntimeError("the generator awaited something that was cancelled")
        error.__cause__ = ending.error
        return error
    return ending.error


def log_failure(name: str, ending: Ending, restart: float | None = None) -> None:
    """Write the one log record of a failure.

    Args:
        name: The handler's.
        ending: Its failure, with the ref that clients are told.
        restart: The seconds after which it begins again; None if it does not.
    """
    if restart is None:
        outcome = "its clients were told"
    else:
        outcome = f"it begins again in {restart:g} s,"
    _logger.error(
        "%s failed, %s ref %s",
        name,
        outcome,
        ending.ref,
        exc_info=ending.error,
        extra={"sse_event": "error", "sse_route": name, "sse_ref": ending.ref},
    )
