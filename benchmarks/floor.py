"""What there is without this package: asyncio alone, aiohttp alone, aiohttp-sse.

Law: the floor does what cannot be left out, and nothing else: it knows no request, no
slow client, no end. It is what the machine takes.
"""

from __future__ import annotations

__all__ = ("BareServer", "MakingServer", "aiohttp_only", "bare", "making", "queues")

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

import aiohttp_sse
import msgspec
from aiohttp import web

from .actor import Events, Room, Server, event
from .apps import served

HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_BLOCK: Final = b"id: sse1.l.k3j2h1g0abcdefgh.%d\njson\ndata: %b\n\n"
PONG: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class BareServer(Server):
    """The floor: a chunk that is made once, and written to each transport.

    Attributes:
        transports: Those who follow.
        tasks: Those who have a task each.
        log: The chunk that a client which comes back is given.
    """

    def __init__(self) -> None:
        super().__init__(0)
        self.transports: set[asyncio.Transport] = set()
        self.tasks: dict[asyncio.Transport, asyncio.Task[None]] = {}
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

    async def publish(self, events: Events) -> None:
        """See `Server.publish`: a chunk an event."""
        for data in events:
            await self.together([data])

    async def together(self, events: Events) -> None:
        """See `Server.together`: one chunk."""
        chunk = _chunk(events)
        for transport in self.transports:
            transport.write(chunk)

    async def tick(self, events: Events) -> None:
        """See `Server.tick`: the tasks are given the chunk."""
        self.ticks.tick(_chunk(events))

    async def run(self, transport: asyncio.Transport) -> None:
        """Be a task that writes what it waits for."""
        for number in itertools.count():
            transport.write(await self.ticks.next(number))


class MakingServer(BareServer):
    """The floor of a generator a client: each task makes its own event, and writes it.

    Nobody's generators share a chunk, so that this is what cannot be left out.
    """

    async def tick(self, events: Events) -> None:
        """See `Server.tick`: the tasks are given the data."""
        self.ticks.tick(events[0])

    async def run(self, transport: asyncio.Transport) -> None:
        """Be a task that makes an event of what it waits for, and writes it."""
        encode = msgspec.json.encode
        for number in itertools.count():
            data = await self.ticks.next(number)
            block = _BLOCK % (data["n"], encode(data))
            transport.write(b"%x\r\n%b\r\n" % (len(block), block))


class _Bare(asyncio.Protocol):
    def __init__(self, server: BareServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        server, transport = self._server, self._transport
        if data.startswith(b"GET /ping"):
            transport.write(PONG)
            return
        transport.write(HEAD)
        if data.startswith(b"GET /private"):
            run = asyncio.get_running_loop().create_task(server.run(transport))
            server.tasks[transport] = run
            return
        server.transports.add(transport)
        if b"Last-Event-ID" in data:
            transport.write(server.log)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.transports.discard(self._transport)
        if run := self._server.tasks.pop(self._transport, None):
            run.cancel()


def _chunk(events: Events) -> bytes:
    blocks = b"".join(
        _BLOCK % (data["n"], json.dumps(data, separators=(",", ":")).encode())
        for data in events
    )
    return b"%x\r\n%b\r\n" % (len(blocks), blocks)


@asynccontextmanager
async def bare(store: str = "") -> AsyncIterator[BareServer]:
    """Have the floor: no framework at all."""
    async with _bare(BareServer()) as server:
        yield server


@asynccontextmanager
async def making(store: str = "") -> AsyncIterator[BareServer]:
    """Have the floor of a generator a client."""
    async with _bare(MakingServer()) as server:
        yield server


@asynccontextmanager
async def _bare(bare_server: BareServer) -> AsyncIterator[BareServer]:
    server = await asyncio.get_running_loop().create_server(
        lambda: _Bare(bare_server), "127.0.0.1", 0, backlog=4096
    )
    bare_server.listens(server.sockets[0].getsockname()[1])
    async with server:
        yield bare_server
        for transport in (*bare_server.transports, *bare_server.tasks):
            transport.abort()


class Queues(Server):
    """aiohttp-sse, and a queue for each client.

    Args:
        port: Where it listens.
        room: The queues.
    """

    def __init__(self, port: int, room: Room) -> None:
        super().__init__(port)
        self._room = room

    async def publish(self, events: Events) -> None:
        """See `Server.publish`."""
        await self._room.publish(events)


@asynccontextmanager
async def queues(store: str = "") -> AsyncIterator[Queues]:
    """Have what one writes with aiohttp-sse."""
    room = Room()

    async def stream(request: web.Request) -> web.StreamResponse:
        async with aiohttp_sse.sse_response(request) as response:
            # Each client that leaves would be a traceback in the log.
            with room.join() as queue, contextlib.suppress(ConnectionError):
                while response.is_connected():
                    number, text = await queue.get()
                    await response.send(text, id=str(number))
        return response

    async def private(request: web.Request) -> web.StreamResponse:
        async with aiohttp_sse.sse_response(request) as response:
            for number in itertools.count():
                data = await server.ticks.next(number)
                await response.send(json.dumps(data), id=str(data["n"]))
        return response

    app = web.Application()
    app.router.add_get("/stream", stream)
    app.router.add_get("/private", private)
    async with served(app) as port:
        server = Queues(port, room)
        yield server


@asynccontextmanager
async def aiohttp_only(store: str = "") -> AsyncIterator[Server]:
    """Have a response that was begun and never ends: what a connection itself takes."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b":\n\n")
        await asyncio.get_running_loop().create_future()
        return response

    app = web.Application()
    app.router.add_get("/stream", stream)
    async with served(app) as port:
        yield Server(port)
