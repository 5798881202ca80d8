"""A client that a test opens, cuts, stalls and resumes as it likes.

Law: what is done to a connection is done at once, and as a network or a slow client
does it; the server is not asked.
"""

from __future__ import annotations

__all__ = ("EventStream",)

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from .clock import SettableClock
from .reading import Reading
from .served import Effect, app_of, clock_of, is_held_up, links_of, peer_of


class EventStream(Reading):
    """A client of one stream, over any number of connections.

    ``async with`` opens it and cuts it; ``async for`` iterates over its events until
    it ends. Control events, those whose names begin with ``sse-``, are not among what
    is handed over, unless asked for by name.

    Args:
        session: A ``TestClient``, such as pytest-aiohttp's ``aiohttp_client`` makes,
            a ``ClientSession``, or a `FaultProxy`.
        url: The stream's; relative to a test client's or a proxy's server.
        method: The HTTP method.
        headers: Sent with each connection.
        last_event_id: Where to begin.
        app: The application that serves it, where *session* does not tell.
        **options: Further arguments of aiohttp's ``request``, such as ``json``.

    Attributes:
        response: The present connection's response.
        hello: The data of its ``sse-hello``; None until that has been read.
        events: Every event that was handed over, over all connections.
        gaps: The data of each ``sse-gap``.
        control: Every event whose name begins with ``sse-``.
        comments: The text of every comment.
        last_event_id: Where the next connection begins.
        retry: The reconnection time that the server gave, in ms.
        connections: How many connections it has opened.
    """

    def __init__(
        self,
        session: Any,
        url: str | URL,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        last_event_id: str = "",
        app: web.Application | None = None,
        **options: Any,
    ) -> None:
        super().__init__(f"{method} {url}", last_event_id)
        self.session = session
        self.url = url
        self.method = method
        self.headers = dict(headers or {})
        self._app = app
        self._options = options

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.drop()

    def __repr__(self) -> str:
        return f"<EventStream {self._name}: {self._story()}>"

    @property
    def app(self) -> web.Application | None:
        """The application that serves it, where that is known."""
        return self._app if self._app is not None else app_of(self.session)

    async def open(self) -> Self:
        """Connect, with the last event ID where there is one."""
        headers = dict(self.headers)
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        url = URL(self.url)
        # A test client takes no absolute URL; its session does.
        session = self.session.session if self._is_elsewhere(url) else self.session
        response = await session.request(
            self.method,
            url,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
            **self._options,
        )
        self._begin(response)
        clock = clock_of(self.app)
        if isinstance(clock, SettableClock) and self.app is not None:
            clock.follow(self.app)
        return self

    # Not `Effect` alone: type checkers that look for a forgotten `await` would want it
    # awaited each time.
    def drop(self) -> Effect | Awaitable[None]:
        """Cut the connection, as a network does; what was not read is lost.

        It is cut at once. ``await stream.drop()`` returns when the server has seen it
        too, which takes an application that is known; a `SettableClock` does not move
        on before that in any case.
        """
        app, address = self.app, self._address

        def seen() -> bool:
            return not any(peer_of(link) == address for link in links_of(app))

        if self.response is not None:
            self.response.close()
            self._is_dropped = self._ended is None
            clock = clock_of(app)
            if isinstance(clock, SettableClock):
                clock.expect(seen)
        self._waiting.clear()
        return self._effect(seen, f"the server has seen the client of {self._name} go")

    async def resume(self) -> Self:
        """Connect again, with the last event ID; what is open is cut first."""
        self.drop()
        return await self.open()

    def stall(self) -> Effect | Awaitable[None]:
        """Take nothing from the connection any more, until `go_on`.

        The system is told to keep little for it, so that what is written soon waits at
        the server. `next` hands over what it has, then raises. ``await stream.stall()``
        returns when the server feels it: its generator is paused, or what it has
        written waits for the connection.
        """
        self._opened()
        self._line.stall()
        app, address = self.app, self._address

        def felt() -> bool:
            links = [link for link in links_of(app) if peer_of(link) == address]
            return any(is_held_up(app, link) for link in links)

        what = f"the server feels that the client of {self._name} takes nothing"
        return self._effect(felt, what)

    def go_on(self) -> None:
        """Read again, after `stall`."""
        self._line.go_on()

    @property
    def _address(self) -> object:
        """The address that the server knows this client by."""
        behind = getattr(self.session, "address_behind", None)
        return self._line.address if behind is None else behind(self._line.address)

    def _effect(self, seen: Callable[[], object], what: str) -> Effect:
        return Effect(seen if self.app is not None else None, what)

    def _is_elsewhere(self, url: URL) -> bool:
        return url.absolute and isinstance(
            getattr(self.session, "session", None), aiohttp.ClientSession
        )
