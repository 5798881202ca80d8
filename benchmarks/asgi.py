"""The peers that uvicorn serves: sse-starlette, FastAPI, Litestar.

Law: each as its own documentation writes it, on uvicorn as `uvicorn[standard]` is. What
has channels is used by them; where there are none, there is a queue for each client.
"""

from __future__ import annotations

__all__ = ("fastapi_native", "fastapi_text", "litestar_channels", "starlette_sse")

import asyncio
import itertools
import json
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fastapi.sse
import litestar
import litestar.channels
import uvicorn
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.response import ServerSentEvent, ServerSentEventMessage
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from .actor import CHANNEL, Events, Room, Server


class Asgi(Server):
    """A server with a queue for each client.

    Args:
        room: The queues.
    """

    def __init__(self, room: Room) -> None:
        super().__init__(0)
        self._room = room

    async def publish(self, events: Events) -> None:
        """See `Server.publish`."""
        await self._room.publish(events)

    @asynccontextmanager
    async def serve(self, app: Any) -> AsyncIterator[None]:
        """Have uvicorn serve *app* at a free port."""
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            backlog=4096,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=3,
        )
        server = uvicorn.Server(config)
        task = asyncio.get_running_loop().create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 -- it has no event for that
            await asyncio.sleep(0.01)
        self._port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def starlette_sse(store: str = "") -> AsyncIterator[Asgi]:
    """Have sse-starlette: a generator that reads a queue."""
    room = Room()
    server = Asgi(room)

    async def follow() -> AsyncIterator[dict[str, str]]:
        with room.join() as queue:
            while True:
                number, text = await queue.get()
                yield {"id": str(number), "data": text}

    async def run() -> AsyncIterator[dict[str, str]]:
        for number in itertools.count():
            data = await server.ticks.next(number)
            yield {"id": str(data["n"]), "data": json.dumps(data)}

    async def stream(request: Request) -> EventSourceResponse:
        return EventSourceResponse(follow())

    async def private(request: Request) -> EventSourceResponse:
        return EventSourceResponse(run())

    async def ping(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    routes = [
        Route("/stream", stream),
        Route("/private", private),
        Route("/ping", ping),
    ]
    async with server.serve(Starlette(routes=routes)):
        yield server


async def _ping() -> str:
    return "ok"


@asynccontextmanager
async def fastapi_native(store: str = "") -> AsyncIterator[Asgi]:
    """Have FastAPI's own: a path operation that is a generator."""
    room = Room()
    server = Asgi(room)

    async def stream() -> AsyncIterable[fastapi.sse.ServerSentEvent]:
        with room.join() as queue:
            while True:
                number, text = await queue.get()
                yield fastapi.sse.ServerSentEvent(raw_data=text, id=str(number))

    async def private() -> AsyncIterable[fastapi.sse.ServerSentEvent]:
        for number in itertools.count():
            data = await server.ticks.next(number)
            yield fastapi.sse.ServerSentEvent(data=data, id=str(data["n"]))

    app = fastapi.FastAPI()
    response = fastapi.sse.EventSourceResponse
    app.get("/stream", response_class=response)(stream)
    app.get("/private", response_class=response)(private)
    app.get("/ping")(_ping)
    async with server.serve(app):
        yield server


@asynccontextmanager
async def fastapi_text(store: str = "") -> AsyncIterator[Asgi]:
    """Have FastAPI with a plain StreamingResponse of texts, with no ping at all."""
    room = Room()
    server = Asgi(room)

    async def follow() -> AsyncIterator[str]:
        with room.join() as queue:
            while True:
                number, text = await queue.get()
                yield f"id: {number}\ndata: {text}\n\n"

    async def run() -> AsyncIterator[str]:
        for number in itertools.count():
            data = await server.ticks.next(number)
            yield f"id: {data['n']}\ndata: {json.dumps(data)}\n\n"

    async def stream() -> Any:
        return StreamingResponse(follow(), media_type="text/event-stream")

    async def private() -> Any:
        return StreamingResponse(run(), media_type="text/event-stream")

    app = fastapi.FastAPI()
    app.get("/stream")(stream)
    app.get("/private")(private)
    app.get("/ping")(_ping)
    async with server.serve(app):
        yield server


class Litestar(Asgi):
    """Litestar with its channels.

    Args:
        channels: The plugin.
    """

    def __init__(self, channels: Any) -> None:
        super().__init__(Room())
        self._channels = channels

    async def publish(self, events: Events) -> None:
        """See `Server.publish`."""
        for data in events:
            self._channels.publish(data, [CHANNEL])


@asynccontextmanager
async def litestar_channels(store: str = "") -> AsyncIterator[Litestar]:
    """Have Litestar's channels, whose events have no id, and its ServerSentEvent."""
    plugin = litestar.channels.ChannelsPlugin(
        MemoryChannelsBackend(), channels=[CHANNEL]
    )
    server = Litestar(plugin)

    async def follow() -> AsyncIterator[bytes]:
        async with plugin.start_subscription([CHANNEL]) as subscriber:
            async for data in subscriber.iter_events():
                yield data

    async def run() -> AsyncIterator[Any]:
        for number in itertools.count():
            data = await server.ticks.next(number)
            yield ServerSentEventMessage(json.dumps(data), id=str(data["n"]))

    async def stream() -> ServerSentEvent:
        return ServerSentEvent(follow())

    async def private() -> ServerSentEvent:
        return ServerSentEvent(run())

    get = litestar.get
    handlers = [get("/stream")(stream), get("/private")(private), get("/ping")(_ping)]
    async with server.serve(litestar.Litestar(handlers, plugins=[plugin])):
        yield server
