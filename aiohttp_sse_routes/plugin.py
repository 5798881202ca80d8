"""``setup(app)``: what makes an application serve SSE routes.

Law: here things are made and tied to the application, and nothing is done by them;
everything that can be wrong is found before the first request.
"""

from __future__ import annotations

__all__ = ("setup",)

from collections.abc import Callable, Iterable
from typing import Any, Unpack

from aiohttp import web

from .arguments import (
    check_settings,
    checked_defaults,
    checked_inspector,
    checked_origins,
    checked_prefix,
    checked_routes,
    checked_store,
)
from .checks import check_bool
from .errors import ConfigurationError
from .face import SSE, SSE_KEY
from .http.cors import sign_responses
from .http.hub import HUB_KEY, Hub, HubSettings
from .http.inspector import Guard, Inspector
from .http.multiplex import Multiplex
from .http.pages import Pages
from .http.routes import DEFAULT_TABLE
from .life import Life
from .logs.store import Store
from .serialize import Dumps
from .settings import RouteDefaults
from .streams.clock import Clock, MonotonicClock


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
        store=checked_store(store),
        prefix=checked_prefix("prefix", prefix),
        public_prefix=checked_prefix("public_prefix", public_prefix, empty=True),
        dumps=dumps,
        max_event_bytes=max_event_bytes,
        max_connections=max_connections,
        max_connections_per_client=max_connections_per_client,
        client_key=client_key,
        max_detached=max_detached,
        allow_origins=checked_origins(allow_origins),
        shutdown_grace=shutdown_grace,
        clock=clock if clock is not None else MonotonicClock(),
        defaults=checked_defaults(defaults),
    )
    check_settings(settings)
    check_bool("setup: schema", schema)
    guard = checked_inspector(inspector)
    app.add_routes(DEFAULT_TABLE if routes is None else checked_routes(routes))
    defaults_mounted = len(DEFAULT_TABLE) if routes is None else None

    hub = Hub(settings)
    pages = Pages(app, settings, schema=schema)
    sse = SSE(app, hub, pages)
    app[HUB_KEY] = hub
    app[SSE_KEY] = sse
    pages.mount()
    multiplex = Multiplex(app, settings)
    inspecting = Inspector(app, hub, guard) if guard is not None else None
    if settings.allow_origins:
        sign_responses(app, settings.allow_origins, settings.prefix)

    life = Life(sse, hub, pages, multiplex, inspecting, defaults_mounted)
    app.cleanup_ctx.append(life.run)
    app.on_shutdown.append(life.drain)
    return sse


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
