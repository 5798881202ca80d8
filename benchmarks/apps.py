"""The servers that are compared: this package, and what one would write without it.

Law: all are given the same events at the same times, and ways to publish that a user
would take: no server is tuned. Each listens at a free port of loopback.
"""

from __future__ import annotations

__all__ = ("aiohttp_only", "bare", "make_store", "ours", "publisher", "queues")

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp_sse
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

CHANNEL = "room"
"""The one channel that all follow."""

BATCH = 100
"""Events of a batch."""


def make_store(where: str) -> Store | None:
    """Return the store at *where*: ``sqlite:PATH``, ``redis://...``, or empty."""
    made: Store | None = None
    if where.startswith("redis:"):
        made = RedisStore(where)
    elif where.startswith("sqlite:"):
        made = SQLiteStore(where.removeprefix("sqlite:"))
    return made


def event(number: int, mark: str = "#") -> dict[str, Any]:
    """Return the data of an event: about 100 bytes with what is around it."""
    return {"n": number, "text": f"{mark} hello to everybody", "at": 1767225600.25}


class Server:
    """What a server is asked to do.

    Args:
        port: Where it listens.
        publish: Publishes events.
    """

    def __init__(
        self, port: int, publish: Callable[[list[dict[str, Any]]], Awaitable[object]]
    ) -> None:
        self._port = port
        self._publish = publish

    async def port(self) -> int:
        """Return where it listens."""
        return self._port

    async def pace(self, count: int, batch: int, interval: float) -> list[float]:
        """Publish *batch* events each *interval* seconds; return when that was."""
        times = []
        due = time.monotonic()
        for number in range(count):
            events = [event(number * batch + n) for n in range(batch)]
            times.append(time.monotonic())
            await self._publish(events)
            due += interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        return times


class Ours(Server):
    """This package.

    Args:
        port: Where it listens.
        sse: The plugin.
    """

    def __init__(self, port: int, sse: SSE) -> None:
        super().__init__(port, self._publish_ours)
        self._sse = sse
        self._heard: asyncio.Task[list[float]] | None = None

    async def _publish_ours(self, events: list[dict[str, Any]]) -> None:
        if len(events) == 1:
            await self._sse.publish(CHANNEL, events[0])
        else:
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
async def served(app: web.Application) -> AsyncIterator[int]:
    """Serve *app* at a free port; yield that."""
    # Some of the handlers do not notice that their clients have left.
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def ours(store: str = "") -> AsyncIterator[Ours]:
    """Have this package follow a channel, and run a generator for each client."""
    table = SSERouteTableDef()

    @table.sse_route("/stream")
    async def stream(request: web.Request) -> Channels:
        return Channels(CHANNEL)

    @table.sse_route("/private")
    async def private(request: web.Request) -> AsyncIterator[None]:
        yield None
        await asyncio.get_running_loop().create_future()

    app = web.Application()
    sse = setup(app, table, store=make_store(store))
    async with served(app) as port:
        yield Ours(port, sse)


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


@asynccontextmanager
async def queues(store: str = "") -> AsyncIterator[Server]:
    """Have what one writes with aiohttp-sse: a queue for each client."""
    waiting: set[asyncio.Queue[tuple[int, str]]] = set()

    async def stream(request: web.Request) -> web.StreamResponse:
        queue: asyncio.Queue[tuple[int, str]] = asyncio.Queue(1000)
        async with aiohttp_sse.sse_response(request) as response:
            waiting.add(queue)
            try:
                while response.is_connected():
                    number, text = await queue.get()
                    await response.send(text, id=str(number))
            finally:
                waiting.discard(queue)
        return response

    async def publish(events: list[dict[str, Any]]) -> None:
        for data in events:
            item = data["n"], json.dumps(data)
            for queue in waiting:
                queue.put_nowait(item)

    app = web.Application()
    app.router.add_get("/stream", stream)
    async with served(app) as port:
        yield Server(port, publish)


@asynccontextmanager
async def aiohttp_only(store: str = "") -> AsyncIterator[Server]:
    """Have a response that was begun and never ends: what a connection itself takes."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b":\n\n")
        await asyncio.get_running_loop().create_future()
        return response

    async def publish(events: list[dict[str, Any]]) -> None:
        raise NotImplementedError

    app = web.Application()
    app.router.add_get("/stream", stream)
    async with served(app) as port:
        yield Server(port, publish)


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class BareServer(Server):
    """The floor: a chunk that is made once, and written to each transport.

    Attributes:
        transports: Those who follow.
        log: The chunk that a client which comes back is given.
    """

    def __init__(self) -> None:
        super().__init__(0, self._write)
        self.transports: set[asyncio.Transport] = set()
        self.log = b""

    def listens(self, port: int) -> None:
        """Note where it listens."""
        self._port = port

    async def cursor(self) -> str:
        """Return an id."""
        return "0"

    async def fill(self, count: int) -> None:
        """Have *count* events ready for who comes back."""
        self.log = _chunk([event(number) for number in range(count)])

    async def _write(self, events: list[dict[str, Any]]) -> None:
        chunk = _chunk(events)
        for transport in self.transports:
            transport.write(chunk)


class _Bare(asyncio.Protocol):
    def __init__(self, server: BareServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(HEAD)
        self._server.transports.add(self._transport)
        if b"Last-Event-ID" in data:
            self._transport.write(self._server.log)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.transports.discard(self._transport)


def _chunk(events: list[dict[str, Any]]) -> bytes:
    blocks = b"".join(
        b"id: sse1.l.k3j2h1g0abcdefgh.%d\njson\ndata: %b\n\n"
        % (data["n"], json.dumps(data, separators=(",", ":")).encode())
        for data in events
    )
    return b"%x\r\n%b\r\n" % (len(blocks), blocks)


@asynccontextmanager
async def bare(store: str = "") -> AsyncIterator[BareServer]:
    """Have the floor: no framework at all."""
    bare_server = BareServer()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Bare(bare_server), "127.0.0.1", 0, backlog=4096
    )
    bare_server.listens(server.sockets[0].getsockname()[1])
    async with server:
        yield bare_server
        for transport in tuple(bare_server.transports):
            transport.abort()
