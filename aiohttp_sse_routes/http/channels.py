"""A request for channels: follow what its handler returned.

Law: the place is taken before anything is asked for, and nothing lies between it and
the first event. What a handler wants to be told of the client's leaving is told once,
however far the client had come.
"""

from __future__ import annotations

__all__ = ("ChannelVisit",)

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from ..errors import StoreUnavailable
from ..streams.channels import Channels
from ..streams.resumption import Start, begin
from .answers import Step, refusal
from .connection import Connection
from .handler import maybe_await
from .recheck import Verdict
from .snapshot import Snapshots, unready
from .visit import Visit

_logger = logging.getLogger("aiohttp_sse_routes")


class ChannelVisit(Visit):
    """See `Visit`."""

    __slots__ = ("_names",)

    _names: tuple[str, ...]

    def serve(self, spec: Channels) -> Step:
        """Follow *spec* until the client leaves."""
        self._names = spec.names
        if spec.on_close is None:
            return self._serve(spec)
        return self._serve_and_tell(spec, spec.on_close)

    async def _serve_and_tell(
        self, spec: Channels, on_close: Callable[[], Any]
    ) -> web.StreamResponse:
        try:
            step: Step = self._serve(spec)
            while not isinstance(step, web.StreamResponse):
                step = await step
            return step
        finally:
            await self._tell_closed(on_close)

    async def _serve(self, spec: Channels) -> Step:
        try:
            start = await self._start(spec)
        except StoreUnavailable as exc:
            _logger.warning("%s refused for now: %s", self.request.path, exc)
            return refusal("store", self.settings)
        connection = await self.open(start.resumed)
        if connection is None:
            return self.response
        connection.channels = spec.names
        if spec.snapshot is not None:
            snapshots = self._snapshots(connection, spec.snapshot)
            return self._follow_snapshots(connection, spec, start, snapshots)
        await self._begin(connection, spec, start, None)
        return self.follow(connection)

    async def _follow_snapshots(
        self,
        connection: Connection,
        spec: Channels,
        start: Start,
        snapshots: Snapshots,
    ) -> web.StreamResponse:
        try:
            await self._begin(connection, spec, start, snapshots)
            await self.follow(connection, keep=True)
        finally:
            await self._end_snapshot(snapshots)
        connection.release()
        return self.response

    async def _begin(
        self,
        connection: Connection,
        spec: Channels,
        start: Start,
        snapshots: Snapshots | None,
    ) -> None:
        """Begin to stream; from now on `follow` alone ends *connection*."""
        told = start.resumed
        try:
            if self.hub.broker.lineage is not start.lineage:
                # The log has become another one while the headers were sent.
                start = await self._start(spec)
            if start.resumed != told and not self.settings.control_events:
                # The headers have ceased to hold.
                connection.end("gap", connection.farewell())
            elif connection.closed is None:
                self._greet(connection, start, snapshots)
        except StoreUnavailable:
            connection.end("reconnect", connection.farewell())
        except BaseException:
            connection.end("error", connection.farewell())
            self.close_up(connection)
            raise

    async def _end_snapshot(self, snapshots: Snapshots) -> None:
        snapshots.stop()
        if snapshots.producer is not None:
            await self.outlast(snapshots.producer, lambda: None)

    async def recheck(self) -> Verdict:
        """Ask the guard, then the handler's coroutine, which may say other channels."""
        verdict = await super().recheck()
        if verdict != "keep":
            return verdict
        try:
            result = await self.target.call(self.clone())
        except web.HTTPException as exc:
            return "refused" if exc.status < 500 else "keep"
        if isinstance(result, Channels) and set(result.names) == set(self._names):
            return "keep"
        return "changed"

    async def _start(self, spec: Channels) -> Start:
        """Find where the client begins; a shutdown waits for no store's answer."""
        present = self.brought.present
        beginning = begin(
            self.hub.broker,
            spec.names,
            brought=present,
            cursor=self.brought.cursor,
            history=spec.history,
            keeping="conflate" if self.settings.on_slow == "conflate" else "gap",
        )
        if self.hub.store.complete or not (present or spec.history):
            # There is nothing to ask the store for, and no task is needed.
            return await beginning
        found = asyncio.ensure_future(beginning)
        self.hub.at_drain(self, found.cancel)
        try:
            await asyncio.wait({found})
        finally:
            self.hub.forget(self)
            found.cancel()
        if found.cancelled():
            raise StoreUnavailable("the application shuts down")
        return found.result()

    def _snapshots(
        self, connection: Connection, snapshot: Callable[[], AsyncIterator[Any]]
    ) -> Snapshots:
        snapshots = Snapshots(
            snapshot,
            connection,
            broker=self.hub.broker,
            script=self.script,
            encode=self.target.encoder(self.hub, self.settings),
            keep=self.keep,
            name=self.target.label,
        )
        connection.on_hole = snapshots.renew
        return snapshots

    def _greet(
        self, connection: Connection, start: Start, snapshots: Snapshots | None
    ) -> None:
        """Write hello and what belongs to it; let the connection follow."""
        broker, script, resumed = self.hub.broker, self.script, start.resumed
        self.count(start.following, resumed, start.place)
        at = broker.cursor(start.place)
        hello = self.hello_place(resumed, at)
        new = snapshots is not None and resumed != "continued"
        if new:
            # What is retained behind a hole is in the state.
            start = start if start.gap != "expired" else start.anew(broker)
            hello = at = unready(broker.cursor(start.place))
        connection.said = hello
        block = script.hello(hello, resumed)
        if start.gap is not None and (new or start.gap != "expired"):
            block += script.gap_block(start.gap, self.brought.id, at)
            connection.said = at
        connection.announced, connection.past = start.place, start.head
        connection.write(block)
        if not self.settings.control_events:
            # The header has told it.
            start.following.forgive(start.missed)
            self.script.tally.gaps["expired"] += start.gap == "expired" and not new
        if new and snapshots is not None:
            snapshots.run(start.following, start.place)
        else:
            broker.join(connection, start.following, start.place)

    async def _tell_closed(self, on_close: Callable[[], Any]) -> None:
        """Call *on_close* to its end, also if this is cancelled meanwhile.

        When the application shuts down it has what is left of the grace.
        """
        hub, loop = self.hub, asyncio.get_running_loop()
        task = loop.create_task(
            self._closed(on_close), name=f"sse-on-close {self.target.label}"
        )
        hub.closings.add(task)
        task.add_done_callback(hub.closings.discard)
        cancelled: asyncio.CancelledError | None = None
        while not task.done() and not hub.released.done():
            try:
                await asyncio.wait(
                    {task, hub.released}, return_when=asyncio.FIRST_COMPLETED
                )
            except asyncio.CancelledError as exc:
                if cancelled is not None:
                    raise
                cancelled = exc
        if not task.done():
            left = max(0.0, hub.deadline - loop.time())
            if not (await asyncio.wait({task}, timeout=left))[0]:
                _logger.warning(
                    "shut down while on_close of %s still runs", self.target.label
                )
        if cancelled is not None:
            raise cancelled

    async def _closed(self, on_close: Callable[[], Any]) -> None:
        try:
            await maybe_await(on_close())
        except Exception:
            _logger.exception("%s: on_close failed", self.target.label)
