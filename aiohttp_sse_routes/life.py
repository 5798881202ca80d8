"""The plugin's part in the life of its application, from the start to the end.

Law: what can be known only when all is mounted is checked here, before the first
request. What the start has opened, the end closes; so an application can be started
twice.
"""

from __future__ import annotations

__all__ = ("Life",)

import logging
from collections.abc import AsyncIterator

from aiohttp import web

from .errors import ConfigurationError
from .face import SSE, SSE_KEY
from .http.cors import answer_preflights
from .http.hub import Hub
from .http.inspector import Inspector
from .http.mounted import Found, all_apps, find_routes
from .http.multiplex import Multiplex
from .http.pages import Pages
from .http.routes import DEFAULT_TABLE

_logger = logging.getLogger("aiohttp_sse_routes")


class Life:
    """What happens when an application starts, shuts down and ends.

    Args:
        sse: The application's plugin.
        hub: What it has while it runs.
        pages: Its files.
        multiplex: Its endpoint of several streams.
        inspector: Its inspector, if it has one.
        defaults: How many routes the default table had when it was mounted; None where
            it was not.
    """

    def __init__(
        self,
        sse: SSE,
        hub: Hub,
        pages: Pages,
        multiplex: Multiplex,
        inspector: Inspector | None,
        defaults: int | None,
    ) -> None:
        self._sse = sse
        self._hub = hub
        self._pages = pages
        self._multiplex = multiplex
        self._inspector = inspector
        self._defaults = defaults

    async def run(self, app: web.Application) -> AsyncIterator[None]:
        """Be a cleanup context of *app*, the root.

        Raises:
            ConfigurationError: what is mounted does not go together.
            StoreError: the store cannot work as it was configured.
        """
        self._check_late_routes()
        self._tell_inner(app)
        await self._open(find_routes(app))
        yield
        await self._hub.close()

    async def drain(self, app: web.Application) -> None:
        """End all streams, when *app* shuts down."""
        await self._hub.drain()

    def _check_late_routes(self) -> None:
        if self._defaults is not None and len(DEFAULT_TABLE) != self._defaults:
            late = ", ".join(item.label for item in DEFAULT_TABLE[self._defaults :])
            raise ConfigurationError(
                f"{late}: decorated after setup(app) had mounted the default table; "
                "import the module before setup, or give its routes an "
                "SSERouteTableDef of their own and app.add_routes(table)"
            )

    def _tell_inner(self, app: web.Application) -> None:
        """Let sub-applications have the root's plugin."""
        for inner in all_apps(app)[1:]:
            if inner.get(SSE_KEY, self._sse) is not self._sse:
                raise ConfigurationError(
                    "setup() was called on a sub-application and on the root: call it "
                    "on the root alone, and sub.add_routes(table) on the other"
                )
            if SSE_KEY not in inner:
                # A shared run's, or a background task's, that knows no other. At a
                # second start it is there, and the application frozen.
                inner[SSE_KEY] = self._sse

    async def _open(self, found: Found) -> None:
        hub, pages = self._hub, self._pages
        pages.open(found)
        if hub.settings.allow_origins:
            answer_preflights(
                [*(item.route for item in found), self._multiplex.route],
                hub.settings.allow_origins,
            )
        await hub.open([item.endpoint.target.settings_for(hub) for item in found])
        for item in found:
            hub.tally(item.definition.name)
        if self._inspector is not None:
            self._inspector.open(found, pages.user_loader())
        _report(found, pages)


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
