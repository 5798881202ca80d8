"""One request's way through an endpoint: what all streams have in common.

Law: after the first byte nothing is raised to aiohttp but a cancellation that is not
ours. The request that began a private run returns when the run has ended, so that what
its middlewares hold open stays so as long as the generator may need it.
"""

from __future__ import annotations

__all__ = ("Visit",)

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from aiohttp import web

from ..settings import RouteSettings
from ..streams.producer import Producer
from ..streams.reader import GapReason, Source
from .connection import Connection
from .handler import Target, maybe_await
from .hub import Hub
from .limits import Slot
from .recheck import Verdict
from .requests import Brought
from .response import RouteResponse
from .script import Resumed, RouteScript, spread

_logger = logging.getLogger("aiohttp_sse_routes")

_LOOK: Final = 0.25
"""Seconds between looks at whether a client that is not yet streamed to is there: until
the headers are out nothing stands between its transport and aiohttp."""


class Visit:
    """One request's way to its stream and to the stream's end.

    Args:
        target: The handler.
        request: The request.
        hub: The application's.
        settings: The route's, in that application.
        brought: The last event ID that it came with.
        slot: What the limits count it as.
    """

    __slots__ = (
        "_cancelling",
        "_excused",
        "_response",
        "brought",
        "hub",
        "owner",
        "request",
        "script",
        "settings",
        "slot",
        "target",
    )

    def __init__(
        self,
        target: Target,
        request: web.Request,
        hub: Hub,
        settings: RouteSettings,
        brought: Brought,
        slot: Slot,
    ) -> None:
        self.target = target
        self.request = request
        self.hub = hub
        self.settings = settings
        self.brought = brought
        self.slot = slot
        self.script = hub.scripts.get(target) or _script(hub, target, settings)
        self.owner: str | None = None
        self._response: RouteResponse | None = None
        self._excused = False
        self._cancelling = _current_task().cancelling()

    @property
    def response(self) -> RouteResponse:
        """What is returned to aiohttp when the stream has ended."""
        if self._response is None:
            self._response = RouteResponse()
        return self._response

    def keep(self, producer: Producer) -> None:
        """Let the application's end know of *producer*."""
        self.hub.keep(producer)

    async def first(self, opened: asyncio.Future[None] | None) -> None:
        """Wait for the first yield, while the route allows and the client stays."""
        left = self.settings.open_timeout
        while left > 0 and opened is not None and self._client_is_there():
            if opened.done():
                break
            await asyncio.wait({opened}, timeout=min(left, _LOOK))
            left -= _LOOK

    def _client_is_there(self) -> bool:
        transport = self.request.transport
        return transport is not None and not transport.is_closing()

    async def open(self, resumed: Resumed) -> Connection | None:
        """Send the headers and take over the transport; None if the client has left."""
        response = self.response
        if not self.settings.control_events:
            response.headers["SSE-Resume"] = resumed
        try:
            await response.prepare(self.request)
            connection = response.begin(self.request, self.script, self.hub.clock.now())
        except ConnectionError:
            return None
        if self.settings.lifetime is not None:
            connection.due = connection.opened + spread(self.settings.lifetime, 0.1)
        if self.hub.draining:
            connection.end("shutdown", connection.farewell())
        if connection.closed is not None:
            connection.release()
            return None
        connection.route, connection.owner = self.target.name, self.owner
        connection.tally = self.script.tally
        hub, seconds = self.hub, self.settings.recheck
        hub.watch(connection, self.settings.heartbeat)
        if seconds is not None:
            hub.rechecks.add(connection, self.recheck, seconds, hub.clock.now())
        if _logger.isEnabledFor(logging.INFO):
            _logger.info(
                "open %s",
                self.request.path,
                extra={
                    "sse_event": "open",
                    "sse_route": self.target.label,
                    "sse_path": self.request.path,
                    "sse_resumed": resumed,
                },
            )
        return connection

    async def recheck(self) -> Verdict:
        """Ask the guard again, on a request without traces."""
        guard = self.settings.guard
        if guard is None:
            return "keep"
        try:
            allowed = await maybe_await(guard(self.clone())) is not False
        except web.HTTPException as exc:
            # A server's trouble is no refusal.
            allowed = exc.status >= 500
        return "keep" if allowed else "refused"

    def clone(self) -> web.Request:
        """Return the request as it came; itself, where its body was read already."""
        try:
            return self.request.clone()
        except RuntimeError:
            return self.request

    def greet(
        self,
        connection: Connection,
        feed: Source,
        resumed: Resumed,
        place: int,
        gap: GapReason | None,
    ) -> None:
        """Write hello, and the gap if there is one."""
        self.count(feed, resumed, place)
        at = feed.cursor(place)
        connection.said = self.hello_place(resumed, at)
        block = self.script.hello(connection.said, resumed)
        if gap is not None:
            block += self.script.gap_block(gap, self.brought.id, at)
            connection.said = at
        connection.write(block)

    def count(self, feed: Source, resumed: Resumed, place: int) -> None:
        """Count a connection that reads on from *place*, where it had been."""
        if resumed == "continued" and feed.has_after(place):
            self.script.tally.replays += 1

    def hello_place(self, resumed: Resumed, at: str) -> str:
        """Return the id of hello, where the stream goes on from *at*.

        Before a gap it is what the client brought, as when nothing is missing: a client
        that is cut between hello and the gap comes back with that, and is told.
        """
        return at if resumed == "fresh" else self.brought.known or at

    async def follow(
        self, connection: Connection, *, keep: bool = False
    ) -> web.StreamResponse:
        """Wait until *connection* is closed, whoever closes it.

        Then it is given back to aiohttp, unless *keep*.
        """
        try:
            while connection.closed is None:
                try:
                    await connection.closing()
                except asyncio.CancelledError:
                    if not self._excuses(connection):
                        raise
        except BaseException:
            connection.end("disconnected", connection.farewell())
            raise
        finally:
            self.close_up(connection)
            self.left(connection)
        if not keep:
            connection.release()
        return self.response

    def left(self, connection: Connection) -> None:
        """Do what is to be done when *connection* is closed that was followed."""

    def send_back(self, connection: Connection) -> None:
        """End *connection* at once: what its headers say has ceased to hold."""
        connection.end("gap", connection.farewell())
        self.close_up(connection)
        connection.release()

    def close_up(self, connection: Connection) -> None:
        """Count *connection* no more: it is closed."""
        self.hub.unwatch(connection)
        self.slot.release()
        self.response.seal(self.request)
        if _logger.isEnabledFor(logging.INFO):
            _logger.info(
                "close %s: %s",
                self.request.path,
                connection.closed,
                extra={
                    "sse_event": "close",
                    "sse_route": self.target.label,
                    "sse_path": self.request.path,
                    "sse_reason": connection.closed,
                    "sse_seconds": self.hub.clock.now() - connection.opened,
                    "sse_events": connection.received,
                    "sse_bytes": connection.total,
                },
            )

    async def outlast(self, producer: Producer, stop: Callable[[], None]) -> None:
        """Return when the run has ended, or the application need not wait for it.

        A cancellation that is not ours ends the run, by *stop*, and is raised behind
        that; a second one at once.
        """
        ended = producer.task
        released = self.hub.released
        pending: asyncio.CancelledError | None = None
        while not ended.done() and not released.done():
            try:
                await asyncio.wait(
                    {ended, released}, return_when=asyncio.FIRST_COMPLETED
                )
            except asyncio.CancelledError as exc:
                if self._excuses(self.response.connection):
                    continue
                if pending is not None:
                    raise
                pending = exc
                stop()
        if pending is not None:
            raise pending

    def _excuses(self, connection: Connection | None) -> bool:
        """Return whether a cancellation is the one that a lost connection brings.

        With ``handler_cancellation`` aiohttp cancels the handler of a client that has
        left, once. The run is not that client's connection, and what the middlewares
        hold open for it must stay so.
        """
        task = _current_task()
        if connection is not None and connection.cancelled and not self._excused:
            self._excused = True
            if task.uncancel() <= self._cancelling:
                return True
            # Another's came with it, such as that of a middleware's time limit.
        self._cancelling = task.cancelling()
        return False


def _script(hub: Hub, target: Target, settings: RouteSettings) -> RouteScript:
    script = hub.scripts[target] = RouteScript(
        retry=settings.retry,
        heartbeat=settings.heartbeat,
        control_events=settings.control_events,
        disconnect_slow=settings.on_slow == "disconnect",
        tally=hub.tally(target.name),
    )
    return script


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task
