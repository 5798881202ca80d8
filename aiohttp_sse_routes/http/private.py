"""A request for a private run: attach it to its client's, or begin one.

Law: a run is resumed only by what it was begun with, and a request that may have had
effects is never made again.
"""

from __future__ import annotations

__all__ = ("PrivateVisit",)

import hashlib
from collections.abc import Hashable

from aiohttp import hdrs, web

from ..errors import ConfigurationError
from ..streams.channels import Channels
from ..streams.ending import Ending
from ..streams.private import PrivateRun
from ..streams.reader import GapReason
from .answers import Step, failed_unopened, log_failure, refusal, status_of
from .channels import ChannelVisit
from .connection import Connection
from .dismissal import owner_text
from .handler import maybe_await
from .requests import QUERY_NAMES, Brought, consulted
from .script import Resumed
from .visit import Visit


class PrivateVisit(Visit):
    """See `Visit`."""

    __slots__ = ("_announced", "_run")

    async def serve(self) -> Step:
        """Attach to the client's run, or begin one."""
        key = await self._key()
        run = self.hub.private.find(self.brought.run, key)
        if self.slot.over and (run is None or run.reader is None):
            # It takes nobody's place after all.
            return refusal("limit", self.settings)
        if run is not None:
            place = self.brought.run.seq if self.brought.run else 0
            ending, at_end = run.ending, run.feed.has_all(place)
            if ending is not None and ending.kind == "reconnect" and at_end:
                # It was told to come back, for a new run.
                self.hub.private.forget(run)
                self.brought = Brought()
            elif ending is not None and at_end and not self.settings.control_events:
                return web.Response(status=204)
            else:
                return self._continue(run, place)
        elif self._was_run() and self.request.method != hdrs.METH_GET:
            return self._gone()
        return self._begin(key)

    def _was_run(self) -> bool:
        cursor = self.brought.cursor
        return cursor is not None and cursor.kind == "r"

    async def _key(self) -> Hashable:
        request, ask = self.request, self.settings.owner
        if ask is None:
            text = request.headers.get(hdrs.AUTHORIZATION)
            owner: Hashable = (
                text and hashlib.sha256(text.encode(errors="surrogateescape")).digest()
            )
        else:
            owner = await maybe_await(ask(request))
            self.owner = owner_text(owner)
        query: tuple[tuple[str, str], ...] = ()
        if request.query_string:
            items = request.query.items()
            query = tuple(sorted((k, v) for k, v in items if k not in QUERY_NAMES))
        return self.target, request.method, request.path, query, owner

    async def _continue(self, run: PrivateRun, place: int) -> Step:
        hub = self.hub
        hub.private.attached(run)
        try:
            gap = run.resumption(place)
            connection = await self.open("gap" if gap else "continued")
        except BaseException:
            if run.reader is None:
                self._leave_waiting(run)
            raise
        # While the headers were sent the log may have moved on, the run been ended, or
        # another client come and gone.
        hub.private.attached(run)
        told, gap = gap, run.resumption(place)
        if connection is not None and (
            run.expired or (gap != told and not self.settings.control_events)
        ):
            self.send_back(connection)
            connection = None
        if connection is None:
            if run.reader is None:
                self._leave_waiting(run)
            return self.response
        start = run.feed.floor if gap else place
        self.greet(connection, run.feed, "gap" if gap else "continued", start, gap)
        self._run = run
        connection.on_dismissed = self._close
        connection.past = run.feed.head
        run.attach(connection, start)
        return self.follow(connection)

    async def _begin(self, key: Hashable) -> Step:
        settings, hub = self.settings, self.hub
        result = await self.target.call(self.request)
        if isinstance(result, Channels):
            visit = ChannelVisit(
                self.target, self.request, hub, settings, self.brought, self.slot
            )
            visit.owner = self.owner
            return visit.serve(result)
        if settings.share:
            raise ConfigurationError(
                f"{self.target.label}: share=True, and it returned an async iterator: "
                "a private run is one tab's alone, leave share out"
            )
        self._announced = False
        self._run = run = PrivateRun(
            result,
            encoder=self.target.encoder(hub, settings),
            key=key,
            max_events=settings.replay,
            max_bytes=settings.replay_bytes,
            resume=settings.resume,
            name=self.target.label,
            on_end=self._ended,
            route=self.target.name,
            owner=self.owner,
        )
        self.keep(run.producer)
        if hub.draining:
            # The handler's coroutine took until now: not a line of it is to run.
            run.producer.stop()
        return self._see_through(run)

    def _ended(self, run: PrivateRun, ending: Ending) -> None:
        if ending.kind == "failed" and (self._announced or run.producer.yielded):
            log_failure(run.name, ending)
            self.hub.private.forget(run)

    async def _see_through(self, run: PrivateRun) -> web.StreamResponse:
        """Stream a run that has just begun; return when it has ended."""
        try:
            await self.first(run.producer.opened)
            if failed_unopened(run.producer):
                raise status_of(run.ending)
            if self._is_over(run):
                return web.Response(status=204)
            self._announced = True
            connection = await self._open_run(run)
            if connection is not None:
                await self.follow(connection, keep=True)
                if run.producer.task.done():
                    connection.release()
                else:
                    connection.hang_up()
        except BaseException:
            # Nobody waits for what it raises now: it is for the log.
            self._announced = self._announced or run.ending is None
            self._abandon(run)
            await self.outlast(run.producer, lambda: None)
            raise
        await self.outlast(run.producer, lambda: self._abandon(run))
        return self.response

    def _is_over(self, run: PrivateRun) -> bool:
        """Return whether it ended with nothing, where only 204 tells that."""
        ending = run.ending
        return (
            not self.settings.control_events
            and ending is not None
            and ending.kind == "finished"
            and run.feed.has_all(0)
        )

    def _abandon(self, run: PrivateRun) -> None:
        """End *run* though its client may come back, who then begins a new one."""
        connection = run.reader
        if isinstance(connection, Connection):
            connection.end("disconnected", connection.farewell())
        self.hub.private.close(run)

    async def _open_run(self, run: PrivateRun) -> Connection | None:
        """Open the stream of a run that has just begun; None if the client has left."""
        if run.resume > 0:
            # The handler stays on with a run that waits; the connection must not.
            self.response.force_close()
        resumed = self._fresh_or_gap(run)
        connection = await self.open(resumed)
        if connection is None:
            run.producer.stop()
            return None
        if resumed == "continued":
            run.feed.keep_ids()
        gap: GapReason | None = "unknown" if resumed == "gap" else None
        self.greet(connection, run.feed, resumed, 0, gap)
        self.hub.private.add(run)
        connection.on_dismissed = self._close
        run.attach(connection, 0)
        return connection

    def _close(self) -> None:
        self.hub.private.close(self._run)

    def left(self, connection: Connection) -> None:
        """See `Visit.left`."""
        run = self._run
        if run.detach(connection):
            self._leave_waiting(run)
        self.target.resumes_itself |= run.feed.gave_ids

    def _fresh_or_gap(self, run: PrivateRun) -> Resumed:
        if not self.brought.present:
            return "fresh"
        if self.brought.own is not None and (
            run.feed.own_ids or consulted(self.request) or self.target.resumes_itself
        ):
            return "continued"
        return "gap"

    def _leave_waiting(self, run: PrivateRun) -> None:
        failed = run.ending is not None and run.ending.kind == "failed"
        if failed or not run.can_wait or self.hub.draining:
            self.hub.private.close(run)
        else:
            self.hub.private.wait(run, self.hub.clock.now())

    async def _gone(self) -> web.StreamResponse:
        """Tell that a request which may have had effects is not made again."""
        if not self.settings.control_events:
            return web.Response(status=204)
        connection = await self.open("gap")
        if connection is not None:
            assert self.brought.id is not None
            place = str(self.brought.cursor)
            connection.write(
                self.script.hello(place, "gap")
                + self.script.gap_block("unknown", self.brought.id, place)
            )
            connection.end("finished", self.script.end_block("gone", place))
            self.close_up(connection)
            connection.release()
        return self.response
