"""This package, as it is served in the benchmarks.

Law: it is set up as its tutorial says, with its defaults; nothing is tuned.
"""

from __future__ import annotations

__all__ = ("Ours", "make_store", "ours", "publisher", "served")

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from aiohttp_sse_routes import (
    SSE,
    Channels,
    Publisher,
    RedisStore,
    SQLiteStore,
    SSERouteTableDef,
    Store,
    setup,
)

from .actor import CHANNEL, Events, Server, event


def make_store(where: str) -> Store | None:
    """Return the store at *where*: ``sqlite:PATH``, ``redis://...``, or empty."""
    made: Store | None = None
    if where.startswith("redis:"):
        made = RedisStore(where)
    elif where.startswith("sqlite:"):
        made = SQLiteStore(where.removeprefix("sqlite:"))
    return made


class Ours(Server):
    """This package.

    Args:
        port: Where it listens.
        sse: The plugin.
    """

    def __init__(self, port: int, sse: SSE) -> None:
        super().__init__(port)
        self._sse = sse
        self._heard: asyncio.Task[list[float]] | None = None

    async def publish(self, events: Events) -> None:
        """See `Server.publish`."""
        if len(events) == 1:
            await self._sse.publish(CHANNEL, events[0])
        else:
            await asyncio.gather(*(self._sse.publish(CHANNEL, one) for one in events))

    async def together(self, events: Events) -> None:
        """See `Server.together`."""
        await self._sse.publish_many(CHANNEL, events)

    async def cursor(self) -> str:
        """Return the place now."""
        return await self._sse.cursor(CHANNEL)

    async def fill(self, count: int) -> None:
        """Publish *count* events."""
        await self._sse.publish_many(CHANNEL, map(event, range(count)))

    async def pipeline(self, count: int, tasks: int) -> float:
        """Publish *count* events by *tasks* tasks; return the seconds that it took."""
        return await pipelined(self._sse.publish, count, tasks)

    async def probe(self, count: int, interval: float) -> list[float]:
        """Publish *count* events that tell the time; return what each call took."""
        took = []
        for _ in range(count):
            at = time.monotonic()
            await self._sse.publish(CHANNEL, {"at": at})
            took.append(time.monotonic() - at)
            await asyncio.sleep(interval)
        return took

    async def listen(self, count: int) -> None:
        """Begin to hear the events of another's `probe`."""
        stream = self._sse.subscribe(CHANNEL)

        async def hear() -> list[float]:
            delays = []
            async for heard in stream:
                delays.append(time.monotonic() - heard.data["at"])
                if len(delays) == count:
                    break
            return delays

        self._heard = asyncio.get_running_loop().create_task(hear())

    async def heard(self) -> list[float]:
        """Return how long each event was under way."""
        assert self._heard is not None
        return await self._heard


async def pipelined(
    publish: Callable[[str, Any], Awaitable[object]], count: int, tasks: int
) -> float:
    """Call *publish* so many times, from so many tasks; return the seconds."""
    numbers = iter(range(count))

    async def run() -> None:
        for number in numbers:
            await publish(CHANNEL, event(number))

    start = time.monotonic()
    await asyncio.gather(*(run() for _ in range(tasks)))
    return time.monotonic() - start


@asynccontextmanager
async def served(app: web.Application, port: int = 0) -> AsyncIterator[int]:
    """Serve *app* at a free port, or share *port* with others; yield the port."""

    async def ping(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    app.router.add_get("/ping", ping)
    # Some of the handlers do not notice that their clients have left.
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(
            runner, "127.0.0.1", port, backlog=4096, reuse_port=bool(port)
        )
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def ours(store: str = "", port: int = 0) -> AsyncIterator[Ours]:
    """Have this package follow a channel, and run a generator for each client."""
    table = SSERouteTableDef()

    @table.sse_route("/stream")
    async def stream(request: web.Request) -> Channels:
        return Channels(CHANNEL)

    @table.sse_route("/private")
    async def private(request: web.Request) -> AsyncIterator[dict[str, Any] | None]:
        yield None
        for number in itertools.count():
            yield await server.ticks.next(number)

    @table.sse_route("/waiting")
    async def waiting(request: web.Request) -> AsyncIterator[None]:
        # Waits as the handler of aiohttp alone does: what it is made of counts too.
        yield None
        await asyncio.get_running_loop().create_future()

    app = web.Application()
    sse = setup(app, table, store=make_store(store))
    async with served(app, port) as listening:
        server = Ours(listening, sse)
        yield server


class Publishing:
    """A process that only publishes."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def pipeline(self, count: int, tasks: int) -> float:
        """See `Ours.pipeline`."""
        return await pipelined(self._publisher.publish, count, tasks)


@asynccontextmanager
async def publisher(store: str) -> AsyncIterator[Publishing]:
    """Have a `Publisher`."""
    made = make_store(store)
    assert made is not None
    async with Publisher(made) as publisher:
        yield Publishing(publisher)
