"""One route's HTTP handler: what comes before a stream.

Law: whatever can refuse a request does so here, before the first byte of a stream: an
end that was told, the limits, the guard. A client that is merely too many is refused
so softly that a browser comes back.
"""

from __future__ import annotations

__all__ = ("Endpoint",)

from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from aiohttp import hdrs, web

from ..settings import RouteSettings
from .answers import Step, refusal
from .handler import Target, maybe_await
from .hub import Hub, hub_of
from .leased import LeasedVisit
from .limits import Slot
from .private import PrivateVisit
from .requests import Brought, brought_by
from .response import RouteResponse
from .shared import SharedVisit


class Endpoint:
    """A handler that was mounted.

    Args:
        target: The handler with its options.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    def handler(self) -> Callable[[web.Request], Coroutine[Any, Any, Any]]:
        """Return the function that aiohttp calls."""

        async def serve(request: web.Request) -> web.StreamResponse:
            slot = Slot()
            step: Step = self._enter(request, slot)
            try:
                # Here, in one frame, and not each in the one before it.
                while not isinstance(step, web.StreamResponse):
                    step = await step
                return step
            finally:
                slot.release()

        return serve

    async def _enter(self, request: web.Request, slot: Slot) -> Step:
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
        if not await self._admit(slot, request, hub, settings, brought):
            return refusal("limit", settings)
        await self._check_guard(request, settings)
        if hub.draining:
            # Nobody would end what began now.
            return refusal("shutdown", settings)
        visit = self._kind(hub)(self.target, request, hub, settings, brought, slot)
        return visit.serve()

    def _kind(self, hub: Hub) -> type[LeasedVisit | PrivateVisit | SharedVisit]:
        if self.target.form != "shared":
            return PrivateVisit
        return LeasedVisit if hub.store.shared else SharedVisit

    async def _admit(
        self,
        slot: Slot,
        request: web.Request,
        hub: Hub,
        settings: RouteSettings,
        brought: Brought,
    ) -> bool:
        client: Hashable = None
        if hub.settings.max_connections_per_client is not None:
            ask = hub.settings.client_key
            client = request.remote if ask is None else await maybe_await(ask(request))
        # The older connection of a private run leaves as the newer comes.
        instead = self.target.form != "shared" and hub.private.holds(brought.run)
        limit = settings.max_connections
        return hub.limits.admit(slot, self, limit, client, instead=instead)

    async def _check_guard(self, request: web.Request, settings: RouteSettings) -> None:
        if settings.guard is None:
            return
        if await maybe_await(settings.guard(request)) is False:
            raise web.HTTPForbidden
