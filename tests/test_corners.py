"""What a strict reader of the guarantees tries: the corners between two of them."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    ConfigurationError,
    ServerSentEvent,
    SharedRun,
    SSERouteTableDef,
    last_event_id,
    setup,
    sse_response,
)
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until

Serve = Callable[..., Awaitable[Served]]


async def test_a_late_handler_with_ids_of_its_own_is_known_the_next_time(
    serve: Serve, clock: SettableClock
) -> None:
    """Who was seen to give own ids resumes by itself, however late it asks."""
    go = asyncio.Event()
    table = SSERouteTableDef()

    @table.sse_route("/rows", open_timeout=0)
    async def rows(request: web.Request) -> AsyncIterator[ServerSentEvent]:
        await go.wait()
        start = int(last_event_id(request) or 0)
        for number in range(start + 1, start + 3):
            yield ServerSentEvent(number, id=f"{number}")

    served = await serve(app_of(table, clock=clock))
    async with served.stream("/rows") as first:
        await first.next("sse-hello")
        go.set()
        assert ["1", "2"] == [event.data for event in await first.rest()]
    go.clear()
    async with served.stream("/rows", last_event_id="2") as second:
        hello = await second.next("sse-hello")
        assert ("2", "continued") == (hello.id, (second.hello or {})["resumed"])
        go.set()
        assert ["3", "4"] == [event.data for event in await second.rest()]
        assert not second.gaps


async def test_the_end_of_a_run_without_events_is_told_by_204_alone(
    serve: Serve, clock: SettableClock
) -> None:
    """Without control events a client that has all of it does not come in a loop."""
    table = SSERouteTableDef()

    @table.sse_route("/rows", control_events=False)
    async def rows(request: web.Request) -> AsyncIterator[ServerSentEvent]:
        for number in range(int(last_event_id(request) or 0) + 1, 4):
            yield ServerSentEvent(number, id=f"{number}")

    served = await serve(app_of(table, clock=clock))
    async with served.stream("/rows") as stream:
        assert ["1", "2", "3"] == [event.data for event in await stream.rest()]
        assert 204 == (await stream.resume()).status


async def test_a_shared_run_begins_again_on_time(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed run begins again after the second it is given, not a tick later."""
    begun: list[float] = []
    table = SSERouteTableDef()

    @table.sse_route("/x", shared=True)
    async def x(run: SharedRun) -> AsyncIterator[Any]:
        begun.append(clock.now())
        yield "one"
        raise ValueError

    served = await serve(app_of(table, clock=clock))
    # Between two ticks, so that a tick would be late.
    await clock.advance(0.4)
    async with served.stream("/x") as stream:
        await stream.next()
        await until(lambda: caplog.records)
        await clock.advance(1)
        assert [0, 1] == [round(at - begun[0], 6) for at in begun]


async def test_compression_by_a_signal_spares_streams(
    serve: Serve, clock: SettableClock
) -> None:
    """A signal that compresses every response leaves a stream as it is."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[str]:
        yield "one"

    async def compress(request: web.Request, response: web.StreamResponse) -> None:
        response.enable_compression()

    app = app_of(table, clock=clock)
    app.on_response_prepare.append(compress)
    served = await serve(app)
    async with served.stream("/x", headers={"Accept-Encoding": "gzip"}) as stream:
        assert 200 == stream.status
        assert ["one"] == [event.data for event in await stream.rest()]


async def test_a_late_http_exception_does_not_corrupt_an_imperative_stream(
    serve: Serve,
) -> None:
    """The stream ends cleanly; the answer that comes too late is not written."""

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as response:
            await response.send("one")
            raise web.HTTPForbidden

    app = web.Application()
    setup(app, [])
    app.router.add_get("/", handler)
    client = await RawClient.connect(await serve(app))
    await client.get("/")
    received = await client.read_all()
    client.close()
    assert received.endswith(b"data: one\r\n\r\n\r\n0\r\n\r\n")
    assert b"403" not in received


async def test_the_client_is_served_compressed(
    serve: Serve, clock: SettableClock
) -> None:
    """Who takes gzip gets it, and what a cache keeps is told apart."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[str]:
        yield "one"

    served = await serve(app_of(table, clock=clock))
    bodies = []
    for encoding in ("identity", "gzip"):
        async with served.session.get(
            served.base + "/_sse/client.js",
            headers={"Accept-Encoding": encoding},
            auto_decompress=False,
        ) as response:
            bodies.append(await response.read())
            assert "Accept-Encoding" == response.headers["Vary"]
    assert bodies[0] == gzip.decompress(bodies[1])
    assert len(bodies[1]) < 6 * 1024 + 100


@pytest.mark.parametrize("value", [None, "", ".", ".."])
async def test_a_url_needs_its_parts(
    serve: Serve, clock: SettableClock, value: Any
) -> None:
    """A part of the path that is missing or means another path is refused."""
    table = SSERouteTableDef()

    @table.sse_route("/rooms/{room}")
    async def room(request: web.Request) -> AsyncIterator[str]:
        yield "one"

    served = await serve(app_of(table, clock=clock))
    with pytest.raises(ConfigurationError, match="room="):
        served.sse.url("room", room=value)
    assert "/rooms/a%2Fb" == served.sse.url("room", room="a/b")
