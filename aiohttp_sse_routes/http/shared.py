"""A request for a shared run: follow the one of its path, or begin it.

Law: a client is given nothing of its own but its place; who waits for a run that fails
before it has begun is answered by what it raised, each with an answer of its own.
"""

from __future__ import annotations

__all__ = ("SharedVisit", "again")

from collections.abc import Hashable
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from ..streams.ending import Ending
from ..streams.producer import Producer
from ..streams.reader import GapReason
from ..streams.shared import SharedRun, SharedStream
from .answers import Step, failed_unopened, log_failure, status_of
from .connection import Connection
from .requests import Brought
from .script import Resumed, refuses
from .visit import Visit

_PRODUCER: Final = Producer.__module__


class SharedVisit(Visit):
    """See `Visit`."""

    __slots__ = ("_past", "_stream")

    async def serve(self) -> Step:
        """Attach to the run of the path, or begin it."""
        hub, brought = self.hub, self.brought
        info = self.request.match_info
        key = (self.target, tuple(sorted(info.items())))
        stream: SharedStream | None = None
        gap: GapReason | None = None
        if brought.present:
            stream, gap = hub.shared.locate(key, brought.cursor)
        place = brought.cursor.seq if stream and brought.cursor else None
        if stream is None:
            if gap is None:
                self.brought = Brought()
            stream = hub.shared.get(key) or self._begin_shared(key)
        elif (
            stream.ending is not None
            and place is not None
            and stream.feed.has_all(place)
            and not self.settings.control_events
        ):
            return web.Response(status=204)
        self._stream = stream
        stream.hold(self)
        # Taken as it comes: who begins a run misses nothing of it.
        fresh = stream.feed.fresh_place()
        self._past = stream.feed.delivered
        try:
            await self.first(stream.producer.opened)
            if failed_unopened(stream.producer) and (hub.shared.get(key) is not stream):
                raise again(status_of(stream.producer.ending))
            connection = await self._attach(stream, place, gap, fresh)
        except BaseException:
            self._let_go()
            raise
        if connection is None:
            self._let_go()
            return self.response
        return self.follow(connection)

    def left(self, connection: Connection) -> None:
        """See `Visit.left`."""
        self._stream.feed.leave(connection)
        self._stream.newcomers.discard(connection)
        self._let_go()

    def _let_go(self) -> None:
        stream, hub = self._stream, self.hub
        stream.let_go(self, hub.clock.now())
        if stream.resume == 0:
            hub.shared.tick(hub.clock.now())

    async def _attach(
        self,
        stream: SharedStream,
        place: int | None,
        gap: GapReason | None,
        fresh: int,
    ) -> Connection | None:
        if place is not None:
            gap = stream.resumption(place)
        resumed: Resumed = "gap" if gap else "fresh" if place is None else "continued"
        connection = await self.open(resumed)
        if connection is None:
            return None
        feed = stream.feed
        told = gap
        if place is not None:
            gap = stream.resumption(place)
        if gap != told and not self.settings.control_events:
            self.send_back(connection)
            return None
        if gap == "expired":
            start = feed.ring.floor
        elif gap or place is None:
            start = max(fresh, feed.ring.floor)
        else:
            start = place
        resumed = "gap" if gap else "fresh" if place is None else "continued"
        self.greet(connection, feed, resumed, start, gap)
        stream.attached = True
        connection.past = self._past
        feed.join(connection, start)
        if resumed == "fresh" and start == feed.delivered:
            stream.newcomers.add(connection)
        return connection

    def _begin_shared(self, key: Hashable) -> SharedStream:
        settings, hub, request = self.settings, self.hub, self.request
        handle = SharedRun(request.app, dict(request.match_info), request.path)

        def on_end(stream: SharedStream, ending: Ending) -> None:
            now = hub.clock.now()
            if ending.kind != "failed":
                hub.shared.finish(key, stream, now)
            elif not stream.attached and not stream.yielded:
                # Those who wait for it get what it raised as their status.
                if not stream.holders:
                    log_failure(stream.name, ending)
                hub.shared.drop(key, stream)
            else:
                if refuses(ending) and stream.feed.silent:
                    log_failure(stream.name, ending)
                    stream.feed.finish(ending)
                    hub.shared.finish(key, stream, now)
                else:
                    delay = stream.delay_restart(now)
                    log_failure(stream.name, ending, delay)
                    hub.later(delay, hub.shared.tick)

        stream = SharedStream(
            lambda: self.target.handler(handle),
            encode=self.target.encoder(hub, settings),
            log=hub.log,
            history=settings.history,
            max_events=settings.replay,
            max_bytes=settings.replay_bytes,
            resume=settings.resume,
            name=self.target.label,
            now=hub.clock.now(),
            turns=hub.turns,
            on_start=self.keep,
            on_end=on_end,
        )
        hub.shared.add(key, stream)
        return stream


def again(error: BaseException) -> BaseException:
    """Return *error* to be raised once more.

    An HTTPException is a response, and one response answers one request. Another error
    tells its way from the generator, and not the ways of those who waited before.
    """
    if not isinstance(error, web.HTTPException):
        way = error.__traceback__
        while way is not None and way.tb_frame.f_globals["__name__"] != _PRODUCER:
            way = way.tb_next
        return error.with_traceback(way)
    copy = Exception.__new__(type(error))
    copy.__dict__.update(error.__dict__)
    copy._headers = CIMultiDict(error.headers)  # noqa: SLF001 -- see above
    copy._state = {}  # noqa: SLF001
    copy.args = error.args
    return copy
