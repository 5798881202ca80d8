"""What ``setup`` returns: an application's plugin, as its code speaks to it.

Law: a thin face. What is wrong with a call is said here; what it does is the hub's and
the pages'.
"""

from __future__ import annotations

__all__ = ("SSE", "SSE_KEY", "get_sse")

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiohttp import web

from .errors import NotSetUp, StoreError
from .event import ServerSentEvent
from .http.dismissal import Dismissal, owner_text
from .http.hub import Hub
from .http.pages import Pages
from .http.rendering import rendered, rendered_async
from .http.stats import Stats, stats_of
from .streams.channels import Channels
from .streams.subscription import Subscription

_PATIENCE: Final = 10.0
"""Seconds that another thread waits for the application's."""


class SSE:
    """The plugin of one application: what ``setup`` returns."""

    def __init__(self, app: web.Application, hub: Hub, pages: Pages) -> None:
        self._app = app
        self._hub = hub
        self._pages = pages

    @property
    def connections(self) -> int:
        """How many streams are open now."""
        return self._hub.connections

    @property
    def detached(self) -> int:
        """How many private runs wait for their clients now."""
        return self._hub.private.waiting

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Publish an event to all who follow *channel*, on every worker.

        Args:
            channel: The channel's name: 1 to 512 bytes, no control characters.
            data: As what a generator yields; a `ServerSentEvent` too, without an id.
            event: The event's name; ``message`` where it is None.
            key: What ``on_slow="conflate"`` keeps the newest of, of this channel.
            idempotency_key: If the same was given for this channel within the last
                300 s, nothing is published, and the answer is what it was then.

        Returns:
            The event's cursor: its id, and the place behind it.

        Raises:
            StoreUnavailable: the store cannot be written now. The event may be in it
                all the same, if no *idempotency_key* was given.
            StoreError: the application does not run.
            EventError: the event cannot be sent.
            ValueError: a name or key is not one.
        """
        self._check_running("publish")
        return await self._hub.outlet.publish(
            channel, data, event=event, key=key, idempotency_key=idempotency_key
        )

    async def publish_many(
        self,
        channel: str,
        items: Iterable[Any],
        *,
        event: str | None = None,
        key: str | None = None,
    ) -> list[str]:
        """Publish several events together: all are there, one behind another, or none.

        Args:
            channel: See `publish`.
            items: Each as the data of `publish`.
            event: The name of each that has none of its own.
            key: The key of each.

        Returns:
            Their cursors.

        Raises:
            StoreUnavailable, StoreError, EventError, ValueError: as `publish`.
        """
        self._check_running("publish_many")
        return await self._hub.outlet.publish_many(channel, items, event=event, key=key)

    def publish_threadsafe(
        self,
        channel: str,
        data: Any,
        *,
        event: str | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> concurrent.futures.Future[str]:
        """Publish from another thread than the application's; see `publish`.

        Returns:
            A future of the cursor. Waiting for it in the application's own thread
            would wait for ever.

        Raises:
            StoreError: the application does not run.
        """
        self._check_running("publish_threadsafe")
        publishing = self.publish(
            channel, data, event=event, key=key, idempotency_key=idempotency_key
        )
        return asyncio.run_coroutine_threadsafe(publishing, self._hub.loop)

    def subscribe(self, *channels: str, after: str | None = None) -> Subscription:
        """Follow *channels* in a handler that filters or transforms what it sends on.

        Args:
            *channels: Names, at least one.
            after: The cursor to begin behind, such as `last_event_id`'s; by default
                only what is published from now on is given.

        Returns:
            An async iterator of `ServerSentEvent`, whose ids are their cursors. A hole
            raises `ReplayGap`; iterating again goes on behind it.

        Raises:
            StoreError: the application does not run.
            ValueError: a name is not a channel's.
        """
        names = Channels(*channels).names
        self._check_running("subscribe")
        return Subscription(self._hub.broker, names, after)

    async def cursor(self, *channels: str) -> str:
        """Return the place "now", for a page that queries its data after that.

        The page opens its stream with it (``sse_url(..., after=cursor)``, or the
        client's ``lastEventId``), and nothing between is lost. While the store cannot
        be reached it is the place that this worker has come to.

        Args:
            *channels: What the page will follow; a place is one of all channels.

        Raises:
            StoreUnavailable: the store was never reached yet.
            StoreError: the application does not run.
            ValueError: a name is not a channel's.
        """
        if channels:
            Channels(*channels)
        self._check_running("cursor")
        return await self._hub.cursor()

    async def disconnect(
        self,
        *,
        owner: Any = None,
        channel: str | None = None,
        route: str | None = None,
        reconnect: bool = False,
    ) -> None:
        """End connections, on every worker that shares the store: a revoked user.

        All that is given must hold for a connection. A client is told not to come back
        (``sse-end``, ``disconnected``); one that is between two connections at the
        moment cannot be told, so let a ``guard`` refuse it too.

        Args:
            owner: What the route's ``owner`` has returned; something JSON can carry.
            channel: A channel that the connection follows.
            route: The route's name, else its handler's.
            reconnect: Whether they may come back at once, for new rights or content.

        Raises:
            StoreUnavailable: it was done on this worker, and the others cannot be
                told now.
            StoreError: the application does not run.
            ValueError: nothing is given, the route is unknown, or JSON cannot carry
                the owner.
        """
        if owner is None and channel is None and route is None:
            raise ValueError(
                "disconnect() would end every connection: give owner=, channel= or "
                "route="
            )
        if route is not None and route not in self._pages.route_names:
            raise ValueError(
                f"disconnect(route={route!r}): there is no such route; the routes are "
                f"{', '.join(sorted(self._pages.route_names)) or 'none'}"
            )
        text = owner_text(owner)
        if owner is not None and text is None:
            raise ValueError(
                f"disconnect(owner={owner!r}): JSON cannot carry it, so no other "
                "worker could know it: let owner= return a str or an int"
            )
        self._check_running("disconnect")
        await self._hub.dismissals.send(
            Dismissal(owner=text, channel=channel, route=route, reconnect=reconnect)
        )

    def render(
        self,
        template: str,
        request_or_app: web.BaseRequest | web.Application,
        context: Mapping[str, Any],
        *,
        event: str | None = None,
    ) -> ServerSentEvent:
        """Return an event whose data is a Jinja template of the application's own.

        Args:
            template: The template's name.
            request_or_app: The application whose environment it is of, or a request,
                which has the results of aiohttp-jinja2's context processors too.
            context: What the template is given.
            event: The event's name; ``message`` where it is None.

        Raises:
            ConfigurationError: there is no Jinja environment; or it is one with
                ``enable_async``, and the template awaits something: then it is for
                `render_async`.
            jinja2.TemplateError: the template is not there, or is wrong.
        """
        text = rendered(template, request_or_app, self._app, context)
        return ServerSentEvent(text, event=event)

    async def render_async(
        self,
        template: str,
        request_or_app: web.BaseRequest | web.Application,
        context: Mapping[str, Any],
        *,
        event: str | None = None,
    ) -> ServerSentEvent:
        """Return what `render` does, of a template that awaits (``enable_async``)."""
        text = await rendered_async(template, request_or_app, self._app, context)
        return ServerSentEvent(text, event=event)

    def stats(self) -> Stats:
        """Return the counts of this worker's connections, by the routes' names.

        They begin at the application's start. It is one pass over the open connections,
        about a microsecond for each; deliveries pay nothing for it. Routes of
        one name are counted together; streams of `sse_response` by the name of their
        route, else of their handler. The connection that carries several streams of a
        page is none itself: its streams are.

        Returns:
            A dict of `RouteStats` that JSON can carry; its ``total`` is all together.

        Raises:
            TimeoutError: it was called from another thread, which may be done, and the
                application's had no turn for it within ten seconds.
        """
        hub = self._hub
        if not hub.running or threading.get_ident() == hub.thread:
            return stats_of(hub)

        async def ask() -> Stats:
            return stats_of(hub)

        return asyncio.run_coroutine_threadsafe(ask(), hub.loop).result(_PATIENCE)

    def _check_running(self, what: str) -> None:
        if not self._hub.running:
            raise StoreError(f"{what}: the application does not run")

    @property
    def client_url(self) -> str:
        """Where the client is, as a page imports it: an ES module."""
        return self._pages.client_url

    def url(self, route: str, /, **parts: Any) -> str:
        """Return the URL of a stream, as ``{{ sse_url(...) }}`` gives it.

        Args:
            route: The route's name, else its handler's.
            **parts: The path's variables; the rest goes to the query. ``after`` is a
                cursor to begin at.

        Raises:
            ConfigurationError: there is no such route, or a part is missing.
        """
        return self._pages.url(route, **parts)


SSE_KEY: Final = web.AppKey("aiohttp_sse_routes", SSE)
"""Where the application keeps its `SSE` object."""


def get_sse(request_or_app: web.BaseRequest | web.Application) -> SSE:
    """Return the `SSE` object of the application, from a request or from itself.

    A sub-application has the root's, from the start on.

    Raises:
        NotSetUp: ``setup(app)`` was not called.
    """
    if isinstance(request_or_app, web.Application):
        found = request_or_app.get(SSE_KEY)
    else:
        found = getattr(request_or_app, "config_dict", {}).get(SSE_KEY)
    if found is None:
        raise NotSetUp("get_sse() found no SSE plugin")
    sse: SSE = found
    return sse
