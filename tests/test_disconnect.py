"""A client's leaving is seen within a second on an idle stream, and is no error.

On every transport and loop that aiohttp serves on, with the settings of ``run_app``;
and a connection whose stream came to its end is used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import SharedRun, SSERouteTableDef
from aiohttp_sse_routes.http.hub import HUB_KEY
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import PROMPTLY, Run, Site, complaints

Serve = Callable[..., Awaitable[Served]]

LAST = b"\r\n0\r\n\r\n"


def leave(sock: socket.socket, how: str) -> None:
    """Leave as clients do."""
    if how == "rst":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    if how == "half-close":
        sock.shutdown(socket.SHUT_WR)
    elif how == "close-notify":
        # The end of TLS is said, and the connection stays.
        assert isinstance(sock, ssl.SSLSocket)
        sock.settimeout(0)
        with contextlib.suppress(ssl.SSLError):
            sock.unwrap()
    else:
        sock.close()


def idle_table(lines: list[str]) -> SSERouteTableDef:
    """Return routes on which nothing happens after the first event."""
    table = SSERouteTableDef()

    @table.sse_route("/once", resume=0)
    async def once(request: web.Request) -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            lines.append("closed")

    @table.sse_route("/replay")
    async def replay(request: web.Request) -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            lines.append("closed")

    @table.sse_route("/shared", shared=True, resume=0)
    async def shared(run: SharedRun) -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            lines.append("closed")

    return table


WAYS = [
    *[(t, how) for t in ("tcp", "tls", "unix") for how in ("fin", "rst", "half-close")],
    ("tls", "close-notify"),
]


@pytest.mark.parametrize(("transport", "how"), WAYS, ids=["-".join(w) for w in WAYS])
@pytest.mark.parametrize("path", ["/once", "/replay", "/shared"])
def test_leaving_is_seen_within_a_second(
    run: Run,
    handler_cancellation: bool,
    site_of: Callable[[str], Site],
    transport: str,
    how: str,
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever it travels on, whichever way it goes; and no logger has a word on it."""
    caplog.set_level(logging.DEBUG)
    site = site_of(transport)

    async def scenario() -> None:
        lines: list[str] = []
        clock = SettableClock()
        app = app_of(idle_table(lines), clock=clock)
        async with site.serving(app, handler_cancellation=handler_cancellation):
            hub = app[HUB_KEY]
            sock = await asyncio.to_thread(site.ask, path, b"first")
            assert 1 == hub.connections
            leave(sock, how)
            await until(lambda: not hub.connections, timeout=PROMPTLY)
            if path == "/replay":
                await until(lambda: hub.private.waiting, timeout=PROMPTLY)
                assert not lines
                await clock.advance(16)
            await until(lambda: lines, timeout=PROMPTLY)
            await until(lambda: access(caplog), timeout=PROMPTLY)
            sock.close()

    run(scenario)
    assert not complaints(caplog)
    [line] = access(caplog)
    assert f'"GET {path} HTTP/1.1" 200 ' in line
    assert ' 200 0 "' not in line


def access(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the access log."""
    return [r.getMessage() for r in caplog.records if r.name == "aiohttp.access"]


@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
def test_a_stream_comes_to_its_end_on_every_transport(
    run: Run,
    handler_cancellation: bool,
    site_of: Callable[[str], Site],
    transport: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All of a large stream arrives, its last chunk too, and the log is quiet."""
    caplog.set_level(logging.DEBUG)
    site = site_of(transport)
    table = SSERouteTableDef()

    @table.sse_route("/large")
    async def large(request: web.Request) -> AsyncIterator[Any]:
        for number in range(200):
            yield f"{number} " + "x" * 10_000

    async def scenario() -> None:
        async with site.serving(
            app_of(table), handler_cancellation=handler_cancellation
        ):
            sock = await asyncio.to_thread(site.ask, "/large", b"id: ")
            data = await asyncio.to_thread(read_all, sock)
            assert data.endswith(LAST)
            assert b"data: 199 xxx" in data
            assert data.count(b"xxx\n") > 190
            sock.close()

    run(scenario)
    assert not complaints(caplog)


def read_all(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


async def test_a_client_that_leaves_while_its_headers_are_made_is_no_error(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Gone before the first byte, it leaves no run, no generator and no complaint."""
    lines: list[str] = []
    asked = asyncio.Event()
    app = app_of(idle_table(lines), clock=clock)

    async def signal(request: web.Request, response: web.StreamResponse) -> None:
        asked.set()
        await until(lambda: request.transport is None)

    app.on_response_prepare.append(signal)
    served = await serve(app)
    hub = app[HUB_KEY]
    for path in ("/once", "/replay", "/shared"):
        asked.clear()
        client = await RawClient.connect(served)
        await client.get(path)
        await asked.wait()
        client.close()
        await until(lambda: not hub.limits.counts, timeout=PROMPTLY)
        await until(lambda: not hub.producers, timeout=PROMPTLY)
        assert not served.sse.connections
        assert not served.sse.detached
    assert ["closed"] * 3 == lines
    assert not complaints(caplog)


# -- the connection is used again ------------------------------------------------------


def ending_table(go: asyncio.Event) -> SSERouteTableDef:
    """Return routes that come to their end when *go* is set."""
    table = SSERouteTableDef()

    @table.sse_route("/once", resume=0)
    async def once(request: web.Request) -> AsyncIterator[Any]:
        yield "first"
        await go.wait()

    @table.sse_route("/replay")
    async def replay(request: web.Request) -> AsyncIterator[Any]:
        yield "first"
        await go.wait()

    @table.sse_route("/shared", shared=True)
    async def shared(run: SharedRun) -> AsyncIterator[Any]:
        yield "first"
        await go.wait()

    return table


def ending_app(go: asyncio.Event, **options: Any) -> web.Application:
    """Return an application of `ending_table`, with a plain route beside it."""

    async def plain(request: web.Request) -> web.Response:
        return web.Response(text="plain")

    app = app_of(ending_table(go), **options)
    app.router.add_get("/plain", plain)
    return app


def untouched(served: Served) -> bool:
    """Return whether nothing of ours stands between transports and aiohttp."""
    server = served.runner.server
    assert server is not None
    return all(
        one.transport is not None and one.transport.get_protocol() is one
        for one in server.connections
    )


@pytest.mark.parametrize("path", ["/once", "/shared"])
async def test_a_connection_is_used_again_after_its_stream(
    serve: Serve, clock: SettableClock, path: str
) -> None:
    """The next requests on it, streams or not, are answered as any."""
    go = asyncio.Event()
    served = await serve(ending_app(go, clock=clock))
    client = await RawClient.connect(served)
    for _ in range(3):
        go.clear()
        client.received = b""
        await client.get(path)
        await client.read_until(b"first")
        assert 1 == served.sse.connections
        go.set()
        await client.read_until(LAST)
        assert client.received.endswith(LAST)
        assert b"connection: close" not in client.received.lower()
        await until(lambda: untouched(served))
        client.received = b""
        await client.get("/plain")
        await client.read_until(b"\r\n\r\nplain")
        assert client.received.startswith(b"HTTP/1.1 200 OK")
        assert client.received.endswith(b"plain")
    assert not served.sse.connections


async def test_the_loss_of_a_connection_that_was_used_again_is_seen(
    serve: Serve, clock: SettableClock
) -> None:
    """A second stream on the same connection has its client watched as the first."""
    go = asyncio.Event()
    go.set()
    served = await serve(ending_app(go, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/shared")
    await client.read_until(LAST)
    go.clear()
    client.received = b""
    await client.get("/once")
    await client.read_until(b"first")
    client.close()
    await until(lambda: not served.sse.connections, timeout=PROMPTLY)
    await until(lambda: len(served.app[HUB_KEY].producers) == 0, timeout=PROMPTLY)


async def test_a_stream_with_replay_says_that_its_connection_is_closed(
    serve: Serve, clock: SettableClock
) -> None:
    """Its request outlives it, so that nothing could be answered behind it."""
    go = asyncio.Event()
    go.set()
    served = await serve(ending_app(go, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/replay")
    await client.read_all()
    assert b"connection: close\r\n" in client.received.lower()
    assert client.received.endswith(LAST)


async def test_a_connection_is_used_again_after_head(
    serve: Serve, clock: SettableClock
) -> None:
    """HEAD has the headers, begins nothing, and leaves no byte of a body behind."""
    go = asyncio.Event()
    served = await serve(ending_app(go, clock=clock))
    client = await RawClient.connect(served)
    for path in ("/once", "/replay", "/shared"):
        client.received = b""
        await client.send(f"HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        await client.read_until(b"\r\n\r\n")
        assert b"Content-Type: text/event-stream\r\n" in client.received
        assert client.received.endswith(b"\r\n\r\n")
        assert 1 == client.received.count(b"\r\n\r\n")
    client.received = b""
    await client.get("/plain")
    await client.read_until(b"plain")
    assert client.received.startswith(b"HTTP/1.1 200 OK")
    assert not served.app[HUB_KEY].producers


@pytest.mark.parametrize("path", ["/once", "/shared"])
async def test_a_pipelined_request_is_answered_behind_the_stream(
    serve: Serve, clock: SettableClock, path: str
) -> None:
    """One that came with the stream's, or in the middle of it, waits for its end."""
    go = asyncio.Event()
    served = await serve(ending_app(go, clock=clock))
    client = await RawClient.connect(served)
    plain = b"GET /plain HTTP/1.1\r\nHost: test\r\n\r\n"
    await client.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode() + plain)
    await client.read_until(b"first")
    await client.send(plain)
    await clock.advance(1)
    assert b"plain" not in client.received
    go.set()
    while client.received.count(b"\r\n\r\nplain") < 2:
        assert await client.read()
    stream, last, behind = client.received.partition(LAST)
    assert stream.count(b"HTTP/1.1 200 OK") == 1
    assert behind.count(b"HTTP/1.1 200 OK") == 2
    assert last


@pytest.mark.parametrize("path", ["/once", "/replay", "/shared"])
async def test_a_client_that_pipelines_and_leaves_is_seen(
    serve: Serve, clock: SettableClock, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that waits behind a stream is nobody's when its client has gone."""
    go = asyncio.Event()
    served = await serve(ending_app(go, clock=clock))
    client = await RawClient.connect(served)
    plain = b"GET /plain HTTP/1.1\r\nHost: test\r\n\r\n"
    await client.send(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode() + plain)
    await client.read_until(b"first")
    client.close()
    await until(lambda: not served.sse.connections, timeout=PROMPTLY)
    assert not complaints(caplog)
