"""A stream whose handler sends by itself, as its application knows of it.

Law: where there is the plugin such a stream is counted, looked after, logged at its
beginning and its end, and expelled at shutdown; it is not kept alive for that, for a
handler may fail without ending its stream.
"""

from __future__ import annotations

__all__ = ("Enrolled", "running_hub")

import asyncio
import functools
import logging
import weakref
from typing import Any

from aiohttp import web

from .handler import label_of
from .hub import HUB_KEY, Hub
from .sending import Sending

_logger = logging.getLogger("aiohttp_sse_routes")


class Enrolled:
    """One stream in the hub of its application.

    Args:
        hub: The application's.
        link: The stream's connection.
        request: What it answers.
    """

    def __init__(self, hub: Hub, link: Sending, request: web.BaseRequest) -> None:
        self._hub = hub
        self._link = link
        self._request: web.BaseRequest | None = request
        self._at_drain = weakref.WeakMethod(self._drained, hub.forget)

    def begin(self, interval: float, *, counted: bool) -> None:
        """Let the hub look after the stream.

        Args:
            interval: Seconds between two pings.
            counted: Whether it is counted by ``SSE.stats()``.
        """
        hub, link, request = self._hub, self._link, self._request
        assert request is not None
        if counted:
            link.tally = hub.tally(_route_of(request))
        hub.watch(link, interval)
        hub.at_drain(self._at_drain, functools.partial(_call_if_alive, self._at_drain))
        _log(request, "open", f"open {request.path}")

    def log_close(self) -> None:
        """Log why the stream was closed, and what it was."""
        link, request = self._link, self._request
        if request is not None:
            text = f"close {request.path}: {link.closed}"
            seconds = self._hub.clock.now() - link.opened
            more = {"seconds": seconds, "events": link.received, "bytes": link.total}
            _log(request, "close", text, reason=link.closed, **more)

    def unwatch(self) -> None:
        """Let the hub look after it no more."""
        self._hub.unwatch(self._link)

    def end(self, *, answered: bool) -> None:
        """Let shutdown not touch it any more.

        Args:
            answered: Whether its end is written, so that its handler has done all.
        """
        self._hub.forget(self._at_drain)
        if answered:
            self._request = None

    def _drained(self) -> None:
        """Learn that the application shuts down; the stream was ended before."""
        grace = self._hub.settings.shutdown_grace
        asyncio.get_running_loop().call_later(grace, self._expel)

    def _expel(self) -> None:
        """Cancel the handler, if it still runs: nobody gets what it does."""
        request = self._request
        # aiohttp takes the task away from a request that has ended.
        if request is not None and request.task is not None:
            path = request.path
            _log(request, "expel", f"cancelled at shutdown, after its grace: {path}")
            request.task.cancel()


def running_hub(request: web.BaseRequest) -> Hub | None:
    """Return the hub of the application that *request* came to, if it runs one."""
    hub = getattr(request, "config_dict", {}).get(HUB_KEY)
    return hub if isinstance(hub, Hub) and hub.running else None


def _log(request: web.BaseRequest, event: str, text: str, **more: Any) -> None:
    info = getattr(request, "match_info", None)
    extra = {
        "sse_event": event,
        "sse_route": label_of(info.handler) if info is not None else None,
        "sse_path": request.path,
        **{f"sse_{name}": value for name, value in more.items()},
    }
    _logger.info("%s", text, extra=extra)


def _route_of(request: web.BaseRequest) -> str:
    """Return what streams of the handler are counted as: one of a few names."""
    info = getattr(request, "match_info", None)
    if info is None:
        return ""
    handler = info.handler
    name = info.route.name or getattr(handler, "__name__", type(handler).__name__)
    return str(name)


def _call_if_alive(method: weakref.WeakMethod[Any]) -> None:
    alive = method()
    if alive is not None:
        alive()
