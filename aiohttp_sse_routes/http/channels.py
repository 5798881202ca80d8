"""A request for channels: follow what its handler returned.

Law: the place is taken before anything is asked for, and nothing lies between it and
the first event. What a handler wants to be told of the client's leaving is told once,
however far the client had come.
"""

from __future__ import annotations

__all__ = ("ChannelVisit",)

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ..errors import StoreUnavailable
from ..streams.channels import Channels
from ..streams.resumption import Start, begin
from .connection import Connection
from .handler import maybe_await
from .recheck import Verdict
from .snapshot import Snapshots, unready
from .visit import Visit, refusal

_logger = logging.getLogger("aiohttp_sse_routes")


class ChannelVisit(Visit):
    """See `Visit`."""

    _names: tuple[str, ...] | None = None

    async def serve(self, spec: Channels) -> web.StreamResponse:
        """Follow *spec* until the client leaves."""
        self._names = spec.names
        try:
            return await self._serve(spec)
        finally:
            if spec.on_close is not None:
                await self._tell_closed(spec.on_close)

    async def _serve(self, spec: Channels) -> web.StreamResponse:
        broker = self.hub.broker
        try:
            start = await self._start(spec)
            connection = await self.open(start.resumed)
            if connection is None:
                return self.response
            if broker.lineage is not start.lineage:
                # The log has become another one while the headers were sent.
                start = await self._start(spec)
        except StoreUnavailable as exc:
            _logger.warning("%s refused for now: %s", self.request.path, exc)
            if self.response.connection is None:
                return refusal("store", self.settings)
            self.send_back(self.response.connection)
            return self.response
        connection.channels = spec.names
        snapshots = self._snapshots(connection, spec)
        try:
            self._begin(connection, start, snapshots)
            await self.follow(connection)
        finally:
            broker.leave(connection)
            if snapshots is not None:
                snapshots.stop()
        if snapshots is not None:
            for producer in snapshots.producers:
                await self.outlast(producer, producer.stop)
        connection.release()
        return self.response

    async def recheck(self) -> Verdict:
        """Ask the guard, then the handler's coroutine, which may say other channels."""
        verdict = await super().recheck()
        if verdict != "keep" or self._names is None:
            return verdict
        try:
            result = await self.target.call(self.clone())
        except web.HTTPException as exc:
            return "refused" if exc.status < 500 else "keep"
        if isinstance(result, Channels) and set(result.names) == set(self._names):
            return "keep"
        return "changed"

    async def _start(self, spec: Channels) -> Start:
        return await begin(
            self.hub.broker,
            spec.names,
            brought=self.brought.present,
            cursor=self.brought.cursor,
            history=spec.history,
            keeping="conflate" if self.settings.on_slow == "conflate" else "gap",
        )

    def _snapshots(self, connection: Connection, spec: Channels) -> Snapshots | None:
        if spec.snapshot is None:
            return None
        snapshots = Snapshots(
            spec.snapshot,
            connection,
            broker=self.hub.broker,
            script=self.script,
            encode=self.target.encoder(self.hub, self.settings),
            keep=self.keep,
            name=self.target.label,
        )
        connection.on_hole = snapshots.renew
        return snapshots

    def _begin(
        self, connection: Connection, start: Start, snapshots: Snapshots | None
    ) -> None:
        """Write hello and what belongs to it; let the connection follow."""
        broker, script, resumed = self.hub.broker, self.script, start.resumed
        place = broker.cursor(start.place)
        at = self.brought.id if resumed == "continued" and self.brought.id else place
        new = snapshots is not None and resumed != "continued"
        if new:
            # What is retained behind a hole is in the state.
            start = start if start.gap != "expired" else start.anew(broker)
            at = unready(broker.cursor(start.place))
        block = script.hello(at, resumed)
        if start.gap is not None and (new or start.gap != "expired"):
            block += script.gap_block(start.gap, self.brought.id, at)
        connection.announced = start.place
        connection.write(block)
        if not self.settings.control_events:
            # The header has told it.
            start.following.forgiven.update(start.missed)
        if new and snapshots is not None:
            snapshots.run(start.following, start.place)
        else:
            broker.join(connection, start.following, start.place)

    async def _tell_closed(self, on_close: Callable[[], Any]) -> None:
        """Call *on_close* to its end, also if this is cancelled meanwhile."""

        async def call() -> None:
            try:
                await maybe_await(on_close())
            except Exception:
                _logger.exception("%s: on_close failed", self.target.label)

        task = asyncio.get_running_loop().create_task(
            call(), name=f"sse-on-close {self.target.label}"
        )
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as exc:
                if cancelled is not None:
                    raise
                cancelled = exc
        if cancelled is not None:
            raise cancelled
