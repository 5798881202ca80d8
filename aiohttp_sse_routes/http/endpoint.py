"""One route's HTTP handler: what comes before a stream.

Law: whatever can refuse a request does so here, before the first byte of a stream: an
end that was told, the limits, the guard. A client that is merely too many is refused
so softly that a browser comes back.
"""

from __future__ import annotations

__all__ = ("Endpoint",)

from collections.abc import Hashable

from aiohttp import hdrs, web

from ..settings import RouteSettings
from .handler import Target, maybe_await
from .hub import Hub, Slot, hub_of
from .leased import LeasedVisit
from .private import PrivateVisit
from .requests import Brought, brought_by
from .response import RouteResponse
from .shared import SharedVisit
from .visit import refusal


class Endpoint:
    """A handler that was mounted.

    Args:
        target: The handler with its options.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer *request*: the handler that aiohttp calls."""
        hub = hub_of(request, self.target.label)
        settings = self.target.settings_for(hub)
        brought = brought_by(request)
        if brought.ended:
            return web.Response(status=204)
        if request.method == hdrs.METH_HEAD:
            await self._check_guard(request, settings)
            return RouteResponse()
        if hub.draining or not hub.running:
            return refusal("shutdown", settings)
        slot = await self._admit(request, hub, settings, brought)
        if slot is None:
            return refusal("limit", settings)
        try:
            await self._check_guard(request, settings)
            if hub.draining:
                # Nobody would end what began now.
                return refusal("shutdown", settings)
            visit = self._kind(hub)(self.target, request, hub, settings, brought, slot)
            return await visit.serve()
        finally:
            slot.release()

    def _kind(self, hub: Hub) -> type[LeasedVisit | PrivateVisit | SharedVisit]:
        if self.target.form != "shared":
            return PrivateVisit
        return LeasedVisit if hub.store.shared else SharedVisit

    async def _admit(
        self, request: web.Request, hub: Hub, settings: RouteSettings, brought: Brought
    ) -> Slot | None:
        client: Hashable = None
        if hub.settings.max_connections_per_client is not None:
            ask = hub.settings.client_key
            client = request.remote if ask is None else await maybe_await(ask(request))
        # The older connection of a private run leaves as the newer comes.
        instead = self.target.form != "shared" and hub.private.holds(brought.run)
        return hub.admit(self, settings.max_connections, client, instead=instead)

    async def _check_guard(self, request: web.Request, settings: RouteSettings) -> None:
        if settings.guard is None:
            return
        if await maybe_await(settings.guard(request)) is False:
            raise web.HTTPForbidden
