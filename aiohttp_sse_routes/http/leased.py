"""A request for a shared run in a store that several workers share.

Law: as for any shared run, a client is given nothing of its own but its place. Where
the generator begins in this worker, what it raises before its first yield is the answer
to those who wait for it here; where another has it, a client follows what the log says.
"""

from __future__ import annotations

__all__ = ("LeasedVisit",)

import hashlib
import json
import logging
from typing import Final

from aiohttp import web

from ..errors import StoreUnavailable
from ..logs.entry import Bounds
from ..streams.leased import LeasedRun
from ..streams.resumption import Start
from ..streams.shared import SharedRun
from ..streams.stint import Names, Plan
from .answers import Step, log_failure, refusal, status_of
from .connection import Connection
from .requests import Brought
from .script import refuses
from .shared import again
from .visit import Visit

_logger = logging.getLogger("aiohttp_sse_routes")

_LONGEST: Final = 400
"""Characters of a run's name in the store that are not replaced by their hash."""


class LeasedVisit(Visit):
    """See `Visit`."""

    __slots__ = ("_run",)

    async def serve(self) -> Step:
        """Follow the run of the path, wherever its generator is; or begin it."""
        self._run = run = self._find()
        run.use(self)
        try:
            answer = await self._open(run)
        except StoreUnavailable as exc:
            run.let_go(self)
            _logger.warning("%s refused for now: %s", self.request.path, exc)
            return refusal("store", self.settings)
        except BaseException:
            run.let_go(self)
            raise
        if isinstance(answer, Connection):
            return self.follow(answer)
        run.let_go(self)
        return answer

    def left(self, connection: Connection) -> None:
        """See `Visit.left`."""
        self._run.leave(connection)
        self._run.let_go(self)

    async def _open(self, run: LeasedRun) -> Connection | web.StreamResponse:
        await run.known()
        start = await self._enter(run)
        over = run.over(start)
        if over is not None and await run.has_all(start.place, over):
            if over.kind == "reconnect":
                self.brought, over = Brought(), None
                start = await self._enter(run)
            elif not self.settings.control_events:
                return web.Response(status=204)
        if over is None:
            start = await self._wait(run, start)
        connection = await self.open(start.resumed)
        if connection is None:
            return self.response
        try:
            await self._begin(run, connection, start)
        except BaseException:
            run.leave(connection)
            raise
        return connection

    async def _enter(self, run: LeasedRun) -> Start:
        brought = self.brought
        return await run.enter(brought=brought.present, cursor=brought.cursor)

    async def _wait(self, run: LeasedRun, start: Start) -> Start:
        """Have the run go on; return where to begin when it does, or may not soon."""
        opening = await run.runner.want(self)
        if run.runner.under_way and opening.failure is None:
            return run.settle(start)
        await self.first(opening.opened)
        if opening.failure is not None:
            raise again(status_of(opening.failure))
        if start.resumed == "continued" or start.gap == "expired":
            return run.settle(start)
        return run.afresh(start)

    async def _begin(
        self, run: LeasedRun, connection: Connection, start: Start
    ) -> None:
        """Begin to stream; from now on `follow` alone ends *connection*."""
        told = start.resumed
        try:
            while self.hub.broker.lineage is not start.lineage:
                # The log has become another one while the headers were sent.
                start = await self._enter(run)
            start = run.settle(start)
            if start.resumed != told and not self.settings.control_events:
                # The headers have ceased to hold.
                connection.end("gap", connection.farewell())
            elif connection.closed is None:
                self._greet(connection, start)
                run.join(self, connection, start)
        except StoreUnavailable:
            connection.end("reconnect", connection.farewell())
        except BaseException:
            connection.end("error", connection.farewell())
            self.close_up(connection)
            raise

    def _greet(self, connection: Connection, start: Start) -> None:
        connection.announced, connection.past = start.place, start.head
        told = None if start.gap == "expired" else start.gap
        self.greet(connection, start.following, start.resumed, start.place, told)
        if not self.settings.control_events:
            # The header has told it.
            start.following.forgive(start.missed)
            self.script.tally.gaps["expired"] += start.gap == "expired"

    # -- the run -----------------------------------------------------------------------

    def _find(self) -> LeasedRun:
        hub, names = self.hub, self._names()
        run = hub.leased.get(names)
        if run is None:
            run = LeasedRun(
                self._plan(),
                names,
                broker=hub.broker,
                holder=hub.leased.holder,
                now=hub.clock.now,
                later=hub.later,
                on_idle=hub.leased.remove,
            )
            hub.leased.add(run)
        return run

    def _names(self) -> Names:
        """Return what all workers call the run of this path."""
        match = self.request.match_info
        resource = match.route.resource
        canonical = resource.canonical if resource is not None else ""
        name = self.settings.name or self.target.label
        text = json.dumps([name, canonical, sorted(match.items())])
        if len(text) > _LONGEST:
            digest = hashlib.sha256(text.encode()).hexdigest()
            text = f"{text[: _LONGEST - len(digest)]}{digest}"
        # No channel of the users' has such a name.
        return Names(f"\x01run {text}", f"\x01events {text}", f"\x01marks {text}")

    def _plan(self) -> Plan:
        hub, settings, target = self.hub, self.settings, self.target
        match = self.request.match_info
        handle = SharedRun(self.request.app, dict(match), self.request.path)
        return Plan(
            name=target.label,
            begin=lambda: target.handler(handle),
            encode=target.encoder(hub, settings),
            bounds=Bounds(settings.replay, max_bytes=settings.replay_bytes),
            history=settings.history,
            resume=settings.resume,
            control_events=settings.control_events,
            refuses=refuses,
            on_start=hub.keep,
            on_failure=lambda ending, delay: log_failure(target.label, ending, delay),
        )
