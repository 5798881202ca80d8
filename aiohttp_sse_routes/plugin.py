"""``setup(app)``: what ties routes, hub and pages to one application.

Law: a thin face. Everything that happens while the application runs is the hub's;
everything that can be wrong is found here, before the first request.
"""

from __future__ import annotations

__all__ = ("SSE", "SSE_KEY", "get_sse", "setup")

import asyncio
import concurrent.futures
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final, Unpack

from aiohttp import web
from yarl import URL

from .errors import ConfigurationError, NotSetUp, StoreError
from .event import ServerSentEvent
from .http.cors import answer_preflights, sign_responses
from .http.dismissal import Dismissal, owner_text
from .http.hub import HUB_KEY, Hub, HubSettings
from .http.inspector import Guard, Inspector
from .http.multiplex import Multiplex
from .http.pages import Pages
from .http.rendering import rendered, rendered_async
from .http.routes import DEFAULT_TABLE, Found, all_apps, find_routes
from .http.stats import Stats, stats_of
from .logs.memory import MemoryStore
from .logs.store import Store
from .serialize import Dumps
from .settings import (
    DEFAULTABLE,
    RouteDefaults,
    RouteSettings,
    UnknownOption,
    check_callable,
    check_count,
    check_seconds,
)
from .streams.channels import Channels
from .streams.clock import Clock, MonotonicClock
from .streams.subscription import Subscription

_logger = logging.getLogger("aiohttp_sse_routes")

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


def setup(
    app: web.Application,
    routes: Iterable[web.AbstractRouteDef] | None = None,
    *,
    store: Store | None = None,
    prefix: str = "/_sse",
    public_prefix: str = "",
    dumps: Dumps | None = None,
    max_event_bytes: int = 1_048_576,
    max_connections: int | None = None,
    max_connections_per_client: int | None = None,
    client_key: Callable[[web.Request], Any] | None = None,
    max_detached: int = 1000,
    allow_origins: Iterable[str] = (),
    inspector: Guard | None = None,
    schema: bool = False,
    shutdown_grace: float = 0.5,
    clock: Clock | None = None,
    **defaults: Unpack[RouteDefaults],
) -> SSE:
    """Make *app* serve SSE routes; call it once, on the root application.

    Args:
        app: The root application. Sub-applications mount tables with ``add_routes``
            and are found at start.
        routes: What to mount; by default all that `sse_route` has decorated.
        store: Where channels keep their events; a `MemoryStore` by default. It opens
            and closes with the application.
        prefix: Where the generated client is served.
        public_prefix: What a proxy puts before the application's paths, if it takes
            it away again; for the URLs in pages.
        dumps: Makes JSON in place of msgspec; returns ``str`` or ``bytes``.
        max_event_bytes: The most bytes of one event.
        max_connections: The most streams of the application; None for no limit. Over
            it a client is told to come back later.
        max_connections_per_client: The most streams of one client.
        client_key: Called with the request, awaited if need be: who the client is. By
            default its address.
        max_detached: The most private runs that wait for their clients; over it the
            longest waiting is closed.
        allow_origins: Origins, such as ``https://example.org``, whose pages may read
            the streams, with credentials.
        inspector: Who may see the inspector, a page at ``{prefix}/`` that shows the
            streams as they are and lets one open them: a callable on the request,
            awaited if need be, that raises to refuse; False is 403. Without it there
            is no such page.
        schema: Whether the routes are described at ``openapi.json`` beside the
            client, in OpenAPI 3.2.
        shutdown_grace: Seconds that generators have in all to run their ``finally``
            when the application shuts down.
        clock: Time for heartbeats, resume times and lifetimes; for tests.
        **defaults: Route options for all routes that do not set them.

    Raises:
        ConfigurationError: an argument is wrong, or the call comes twice or too late.
    """
    _check_app(app)
    settings = HubSettings(
        store=_checked_store(store),
        prefix=_checked_prefix("prefix", prefix),
        public_prefix=_checked_prefix("public_prefix", public_prefix, empty=True),
        dumps=dumps,
        max_event_bytes=max_event_bytes,
        max_connections=max_connections,
        max_connections_per_client=max_connections_per_client,
        client_key=client_key,
        max_detached=max_detached,
        allow_origins=_checked_origins(allow_origins),
        shutdown_grace=shutdown_grace,
        clock=clock if clock is not None else MonotonicClock(),
        defaults=_checked_defaults(defaults),
    )
    _check_numbers(settings)
    guard = _checked_inspector(inspector)
    default_table = routes is None
    mounted = DEFAULT_TABLE if routes is None else _checked_routes(routes)
    app.add_routes(mounted)
    count = len(DEFAULT_TABLE)

    hub = Hub(settings)
    pages = Pages(app, settings, schema=_checked_bool("schema", schema))
    sse = SSE(app, hub, pages)
    app[HUB_KEY] = hub
    app[SSE_KEY] = sse
    pages.mount()
    multiplex = Multiplex(app, settings)
    inspecting = Inspector(app, hub, guard) if guard is not None else None
    if settings.allow_origins:
        sign_responses(app, settings.allow_origins, settings.prefix)

    async def life(app: web.Application) -> AsyncIterator[None]:
        if default_table and len(DEFAULT_TABLE) != count:
            late = ", ".join(item.label for item in DEFAULT_TABLE[count:])
            raise ConfigurationError(
                f"{late}: decorated after setup(app) had mounted the default table; "
                "import the module before setup, or give its routes an "
                "SSERouteTableDef of their own and app.add_routes(table)"
            )
        for inner in all_apps(app)[1:]:
            if inner.get(SSE_KEY, sse) is not sse:
                raise ConfigurationError(
                    "setup() was called on a sub-application and on the root: call it "
                    "on the root alone, and sub.add_routes(table) on the other"
                )
            if SSE_KEY not in inner:
                # A shared run's, or a background task's, that knows no other. At a
                # second start it is there, and the application frozen.
                inner[SSE_KEY] = sse
        found = find_routes(app)
        pages.open(found)
        if settings.allow_origins:
            answer_preflights(
                [*(item.route for item in found), multiplex.route],
                settings.allow_origins,
            )
        await hub.open([item.endpoint.target.settings_for(hub) for item in found])
        for item in found:
            hub.tally(item.definition.name)
        if inspecting is not None:
            inspecting.open(found, pages.user_loader())
        _report(found, pages)
        yield
        await hub.close()

    async def drain(app: web.Application) -> None:
        await hub.drain()

    app.cleanup_ctx.append(life)
    app.on_shutdown.append(drain)
    return sse


def _report(found: Found, pages: Pages) -> None:
    if not found:
        _logger.warning(
            "no SSE route is mounted: decorate an async generator with "
            "@sse_route('/path') before setup(app), or give setup(app, routes=table)"
        )
        return
    paths = sorted({r.route.resource.canonical for r in found if r.route.resource})
    _logger.info(
        "SSE routes: %s; client: %s",
        ", ".join(paths),
        pages.client_url,
        extra={"sse_event": "start", "sse_routes": paths},
    )


# -- checks ----------------------------------------------------------------------------


def _check_app(app: web.Application) -> None:
    if not isinstance(app, web.Application):
        raise ConfigurationError(f"setup({app!r}): give the aiohttp.web.Application")
    if SSE_KEY in app:
        raise ConfigurationError(
            "setup() was called twice on this application: call it once, and mount "
            "more routes with app.add_routes(table)"
        )
    if app.frozen or app.pre_frozen:
        raise ConfigurationError(
            "setup() came too late, the application is frozen: call it before the "
            "application starts, on the root application and not on one that was "
            "given to add_subapp()"
        )


def _checked_store(store: Any) -> Store:
    if store is None:
        return MemoryStore()
    if not isinstance(store, Store):
        raise ConfigurationError(
            f"setup: store={store!r} must be a store, such as SQLiteStore('events.db')"
        )
    return store


def _checked_inspector(guard: Any) -> Guard | None:
    if guard is None:
        return None
    if not callable(guard) or inspect.isclass(guard):
        raise ConfigurationError(
            f"setup: inspector={guard!r} must be a function that says who may see the "
            "page, such as one that returns request.get('user') in ADMINS: it takes "
            "the request, and raises or returns False to refuse"
        )
    check_callable("setup: inspector", guard)
    checked: Guard = guard
    return checked


def _checked_routes(routes: Any) -> list[web.AbstractRouteDef]:
    try:
        checked = list(routes)
    except TypeError:
        checked = [routes]
    for route in checked:
        if not isinstance(route, web.AbstractRouteDef):
            raise ConfigurationError(
                f"setup: routes holds {route!r}, which is no route: give an "
                "SSERouteTableDef, or a list of SSERouteDef(path, handler)"
            )
    return checked


def _checked_prefix(name: str, value: str, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"setup: {name}={value!r} must be a str")
    value = value.rstrip("/")
    if (value or not empty) and not value.startswith("/"):
        raise ConfigurationError(
            f"setup: {name}={value!r} must begin with '/', as '/_sse' does"
        )
    if any(char in value for char in "{}?#\r\n\"'<> "):
        raise ConfigurationError(f"setup: {name}={value!r} must be a plain path")
    return value


def _checked_bool(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"setup: {name}={value!r} must be True or False")
    return value


def _checked_origins(origins: Iterable[str]) -> tuple[str, ...]:
    if isinstance(origins, str):
        raise ConfigurationError(
            f"setup: allow_origins={origins!r} must be a list of origins, such as "
            f"[{origins!r}]"
        )
    if not isinstance(origins, Iterable):
        raise ConfigurationError(
            f"setup: allow_origins={origins!r} must be a list of origins"
        )
    checked = tuple(origins)
    for origin in checked:
        if origin == "*":
            raise ConfigurationError(
                "setup: allow_origins=['*'] would let every site read your users' "
                "streams: name the origins"
            )
        if origin != _origin_of(origin):
            raise ConfigurationError(
                f"setup: allow_origins: {origin!r} is not an origin as browsers send "
                "it: write 'https://example.org', in small letters, without a path or "
                "a default port"
            )
    return checked


def _origin_of(text: Any) -> str | None:
    try:
        return str(URL(text).origin())
    except (TypeError, ValueError):
        return None


def _checked_defaults(defaults: RouteDefaults) -> dict[str, Any]:
    for option in defaults:
        if option not in DEFAULTABLE:
            raise UnknownOption(
                f"setup: {option!r} is not an option; route options that can be set "
                f"for all are {', '.join(sorted(DEFAULTABLE))}"
            )
    RouteSettings.checked(defaults, "setup")
    return dict(defaults)


def _check_numbers(settings: HubSettings) -> None:
    check_count("setup: max_event_bytes", settings.max_event_bytes, least=1)
    check_count("setup: max_detached", settings.max_detached)
    check_seconds("setup: shutdown_grace", settings.shutdown_grace)
    for name in ("max_connections", "max_connections_per_client"):
        value = getattr(settings, name)
        if value is not None:
            check_count(f"setup: {name}", value, least=1)
    if settings.client_key is not None and settings.max_connections_per_client is None:
        raise ConfigurationError(
            "setup: client_key= means nothing without max_connections_per_client="
        )
    check_callable("setup: client_key", settings.client_key)
    check_callable("setup: dumps", settings.dumps, what="the value")
    if inspect.iscoroutinefunction(settings.dumps):
        raise ConfigurationError(
            f"setup: dumps={settings.dumps!r} is a coroutine function: events are "
            "encoded at once, make it a plain function"
        )
    if not hasattr(settings.clock, "now") or not hasattr(settings.clock, "sleep"):
        raise ConfigurationError(
            f"setup: clock={settings.clock!r} must have now() and sleep(), as "
            "aiohttp_sse_routes.testing.SettableClock has"
        )
