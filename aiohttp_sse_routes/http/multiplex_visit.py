"""One request to the multiplexed endpoint: a connection, and its sub-requests.

Law: each sub-request is dispatched by the root application in a task of its own, as
aiohttp's server does, and what becomes of it is told to its stream alone. The request
returns when all of them have, so that none outlives it; the connection is closed
before, for a private run may wait for its client.
"""

from __future__ import annotations

__all__ = ("TrunkVisit", "Wanted")

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from .hub import Hub
from .multiplex_request import BranchProtocol, BranchWriter, sub_request
from .multiplex_trunk import Branch, Trunk
from .response import RouteResponse
from .routes import endpoint_of

_LAST: Final = 0.1
"""Seconds that what was cancelled at shutdown has to end."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sub-stream, as the client asked for it.

    Attributes:
        key: What the client calls it.
        url: Its path and query.
        last_event_id: Where the client has come to; None to begin.
    """

    key: str
    url: str
    last_event_id: str | None


class TrunkVisit:
    """One request's way to its streams, and to the end of all.

    Args:
        request: The request.
        hub: The application's.
        wanted: The sub-streams, at least one.
    """

    def __init__(
        self, request: web.Request, hub: Hub, wanted: Sequence[Wanted]
    ) -> None:
        self._request = request
        self._hub = hub
        self._wanted = wanted
        self._root = request.match_info.apps[0]
        self._response = RouteResponse()
        self._tasks: list[asyncio.Task[None]] = []
        self._excused = False
        self._cancelling = _current_task().cancelling()

    async def serve(self) -> web.StreamResponse:
        """Open the connection, begin the streams, and see all of them out."""
        request, response, hub = self._request, self._response, self._hub
        # The handler may stay on with runs that wait; the connection must not.
        response.force_close()
        try:
            await response.prepare(request)
        except ConnectionError:
            return response
        if request.transport is None:
            return response
        trunk = Trunk(
            request.transport,
            chunked=request.version >= (1, 1),
            now=hub.clock.now(),
            task=request.task,
        )
        response.connection = trunk
        hub.rounds.carriers[trunk] = math.inf
        if hub.draining:
            trunk.end("shutdown")
        elif trunk.closed is None:
            self._begin(trunk)
        await self._follow(trunk)
        return response

    def _begin(self, trunk: Trunk) -> None:
        loop = asyncio.get_running_loop()
        branches = trunk.branch([wanted.key for wanted in self._wanted])
        self._tasks = [
            loop.create_task(self._run(branch, wanted), name="sse-sub-stream")
            for branch, wanted in zip(branches, self._wanted, strict=True)
        ]

    # -- the connection ----------------------------------------------------------------

    async def _follow(self, trunk: Trunk) -> None:
        """Wait for the end of the connection, and then of the sub-requests.

        A cancellation that is not the one of a lost connection ends them, and is raised
        behind that; a second one at once.
        """
        ended = asyncio.gather(*self._tasks, return_exceptions=True)
        pending: asyncio.CancelledError | None = None
        over = False
        try:
            while not over:
                try:
                    await trunk.wait_closed()
                    self._close_up(trunk)
                    await self._outlast(ended)
                    over = True
                except asyncio.CancelledError as exc:
                    if self._excuses(trunk):
                        continue
                    if pending is not None:
                        raise
                    pending = exc
                    trunk.end("disconnected")
                    self._cancel()
        finally:
            self._close_up(trunk)
        if pending is not None:
            raise pending

    def _close_up(self, trunk: Trunk) -> None:
        if self._hub.rounds.carriers.pop(trunk, None) is not None:
            self._hub.unwatch(trunk)
            self._response.seal(self._request)
            trunk.hang_up()

    async def _outlast(self, ended: asyncio.Future[Any]) -> None:
        """Return when *ended* is done, or the application need not wait for it."""
        released = self._hub.released
        await asyncio.wait({ended, released}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return
        left = max(0.0, self._hub.deadline - asyncio.get_running_loop().time())
        _, late = await asyncio.wait({ended}, timeout=left)
        if late:
            # Nobody gets what they do; aiohttp knows nothing of them.
            self._cancel()
            await asyncio.wait({ended}, timeout=_LAST)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _excuses(self, trunk: Trunk) -> bool:
        """Return whether a cancellation is the one that a lost connection brings.

        The sub-requests are cancelled by that too, each as one of its own would be.
        """
        task = _current_task()
        if trunk.cancelled and not self._excused:
            self._excused = True
            if task.uncancel() <= self._cancelling:
                return True
        self._cancelling = task.cancelling()
        return False

    # -- a sub-request -----------------------------------------------------------------

    async def _run(self, branch: Branch, wanted: Wanted) -> None:
        """Handle one, as aiohttp's server handles a request."""
        protocol = BranchProtocol(branch, self._request.protocol)
        limit = self._hub.settings.max_event_bytes
        writer = BranchWriter(branch, protocol, limit)
        request = sub_request(
            self._root,
            self._request,
            protocol,
            writer,
            url=wanted.url,
            last_event_id=wanted.last_event_id,
        )
        began = asyncio.get_running_loop().time()
        try:
            response = await self._answer(branch, request)
            await response.prepare(request)
            await response.write_eof()
            protocol.log_access(request, response, began)
        except ConnectionError:
            # The client has left, or has an answer already.
            pass
        except Exception as exc:  # noqa: BLE001 -- one must not hurt the others
            protocol.log_exception("Unhandled exception", exc_info=exc)
        finally:
            writer.finish()
            # Whose frame holds what holds this.
            protocol.task = request._task = None  # type: ignore[assignment]  # noqa: SLF001

    async def _answer(self, branch: Branch, request: web.Request) -> web.StreamResponse:
        """Return what the application answers, or what aiohttp does in its place."""
        protocol = request.protocol
        try:
            answer: Any = await self._dispatch(branch, request)
        except web.HTTPException as exc:
            return exc
        except TimeoutError:
            return protocol.handle_error(request, 504)
        except Exception as exc:  # noqa: BLE001 -- aiohttp logs it, and answers 500
            return protocol.handle_error(request, 500, exc)
        if isinstance(answer, web.StreamResponse):
            return answer
        protocol.log_exception("Missing return statement on request handler")
        return web.Response(status=500)

    async def _dispatch(
        self, branch: Branch, request: web.Request
    ) -> web.StreamResponse:
        """Let the root application handle *request*, if it is for a stream of ours.

        Where nothing is found the application answers too, for its middlewares may. Of
        what another handler has, none of it runs: its client may ask for it by itself.
        """
        info = await self._root.router.resolve(request)
        found = None
        if info.http_exception is None:
            found = endpoint_of(info.route)
            if found is None:
                raise web.HTTPMisdirectedRequest(text="421: not on this connection")
        if found is not None:
            heartbeat = found[1].target.settings_for(self._hub).heartbeat
            carriers, trunk = self._hub.rounds.carriers, branch.trunk
            if trunk in carriers:
                carriers[trunk] = min(carriers[trunk], heartbeat)
        return await self._root._handle(request)  # noqa: SLF001 -- as aiohttp's server does


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task
