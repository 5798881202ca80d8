"""Several streams on one connection: what is taken, and what each of them is answered.

A sub-stream is a GET request of its own: whatever would happen to that happens to it,
and nothing of it to its neighbours.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    ConfigurationError,
    SharedRun,
    SSERouteDef,
    SSERouteTableDef,
    setup,
    sse_response,
)
from aiohttp_sse_routes.http.multiplex_trunk import Branch
from aiohttp_sse_routes.http.sharing import sharing_of
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import complaints, connections_of, hub_of
from .multiplexed import Multiplexed
from .rawhttp import ask, parse_response

Serve = Callable[..., Awaitable[Served]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ENDPOINT = "/_sse/streams"
JSON = "Content-Type: application/json"

NOTE = web.RequestKey("note", str)


def body_of(*urls: str) -> bytes:
    """Return a request's body for streams *urls*, whose keys are a, b, c, …."""
    streams = [{"key": chr(97 + n), "url": url} for n, url in enumerate(urls)]
    return json.dumps({"streams": streams}).encode()


def table_of_all() -> SSERouteTableDef:
    """Return one route of each kind, whose streams end, and one that does not."""
    table = SSERouteTableDef()

    @table.sse_route("/private/{name}")
    async def private(request: web.Request) -> AsyncIterator[Any]:
        yield {"name": request.match_info["name"], "query": dict(request.query)}

    @table.sse_route("/shared", shared=True)
    async def shared(run: SharedRun) -> AsyncIterator[Any]:
        yield "shared"

    @table.sse_route("/channel/{name}")
    async def channel(request: web.Request) -> Channels:
        return Channels(request.match_info["name"], history=10)

    @table.sse_route("/endless", resume=0)
    async def endless(request: web.Request) -> AsyncIterator[Any]:
        yield "endless"
        await asyncio.Event().wait()

    @table.sse_route("/posted", methods=("POST",))
    async def posted(request: web.Request) -> AsyncIterator[Any]:
        yield "never"

    return table


async def until_over(client: Multiplexed, *but: str) -> None:
    """Read until all streams *but* some are over, and these have an event."""
    await client.read_until(
        lambda: all(
            bool(sub.events) if key in but else sub.over
            for key, sub in client.subs.items()
        )
    )


# -- the streams -----------------------------------------------------------------------


async def test_streams_of_each_kind_share_a_connection(
    serve: Serve, clock: SettableClock
) -> None:
    """Each begins, goes on and ends as it would alone, behind a line that names it."""
    served = await serve(app_of(table_of_all(), clock=clock))
    paths = {"p": "/private/x?a=1&a=2", "s": "/shared", "Ch_-9": "/channel/c"}
    client = Multiplexed(served, paths)
    raw = await client.connect()
    await client.read_until(lambda: len(connections_of(served)) == 1)
    await served.sse.publish("c", {"n": 1})
    await until_over(client, "Ch_-9")
    assert [{"name": "x", "query": {"a": "1"}}] == [
        json.loads(data) for data in client["p"].events
    ]
    assert ["shared"] == client["s"].events
    assert ['{"n":1}'] == client["Ch_-9"].events
    assert ["sse-hello", "sse-end", "sse-eof"] == client["p"].names
    assert ["sse-hello", "sse-end", "sse-eof"] == client["s"].names
    assert ["sse-hello"] == client["Ch_-9"].names
    await served.sse.disconnect(channel="c")
    await client.read_all()
    assert ["sse-hello", "sse-end", "sse-eof"] == client["Ch_-9"].names
    # When all are over so is the response.
    response = parse_response(raw.received)
    assert response.complete
    assert "text/event-stream" == response.headers["Content-Type"]
    assert "no-store, no-transform" == response.headers["Cache-Control"]
    assert "no" == response.headers["X-Accel-Buffering"]
    lines, pieces = response.chunks[::2], response.chunks[1::2]
    assert {f"stream: {key}\n".encode() for key in paths} == {*lines}
    assert all(piece.endswith(b"\n\n") for piece in pieces)
    assert b"stream:" not in b"".join(pieces)


async def test_http_1_0(serve: Serve, clock: SettableClock) -> None:
    """Without chunks the lines say the same, and the end is the connection's."""
    served = await serve(app_of(table_of_all(), clock=clock))
    paths = {"a": "/private/x", "b": "/shared", "c": "/posted"}
    client = Multiplexed(served, paths, version="1.0")
    await client.connect()
    await client.read_all()
    assert b"chunked" not in client.head
    assert b"stream: a\nretry: " in client.body
    assert client["a"].ended
    assert ["shared"] == client["b"].events
    assert 405 == client["c"].status["status"]  # type: ignore[index]


async def test_a_fan_out_shares_its_bytes(
    serve: Serve, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes to several streams is encoded and framed once, for plain ones too."""
    given: list[bytes] = []
    write = Branch.write

    def spy(branch: Branch, data: bytes) -> None:
        if b"published" in data:
            given.append(data)
        write(branch, data)

    monkeypatch.setattr(Branch, "write", spy)
    served = await serve(app_of(table_of_all(), clock=clock))
    client = Multiplexed(served, {"a": "/channel/c", "b": "/channel/c"})
    await client.connect()
    await client.read_until(lambda: len(connections_of(served)) == 2)
    await served.sse.publish("c", "published")
    await until_over(client, "a", "b")
    assert len(given) == 2
    assert given[0] is given[1]


async def test_a_run_goes_on_on_a_connection_of_its_own(
    serve: Serve, clock: SettableClock
) -> None:
    """A place is a place however the stream came, and the older connection is told."""
    served = await serve(app_of(table_of_all(), clock=clock))
    table = SSERouteTableDef()

    @table.sse_route("/run")
    async def run(request: web.Request) -> AsyncIterator[Any]:
        yield "first"
        await asyncio.Event().wait()

    served = await serve(app_of(table, clock=clock))
    client = Multiplexed(served, {"a": "/run", "b": "/run"})
    await client.connect()
    await client.read_until(lambda: client["a"].events and client["b"].events)
    place = {"Last-Event-ID": client["a"].last_event_id}
    async with served.stream("/run", headers=place) as stream:
        await stream.next("sse-hello")
        assert stream.hello is not None
        assert "continued" == stream.hello["resumed"]
        await client.read_until(lambda: client["a"].over)
        assert ("sse-end", {"reason": "replaced"}) in client["a"].control
        assert not client["b"].over


# -- refused as a whole ----------------------------------------------------------------

STREAM = '{"key": "a", "url": "/shared"}'


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b""),
        (400, b"not JSON"),
        (400, b"\xff"),
        (400, b"[]"),
        (400, b"{}"),
        (400, b'{"streams": []}'),
        (400, b'{"streams": {}}'),
        (400, b'{"streams": ["a"]}'),
        (400, b'{"streams": [{"key": "a"}]}'),
        (400, b'{"streams": [{"url": "/shared"}]}'),
        (400, b'{"streams": [{"key": "", "url": "/shared"}]}'),
        (400, b'{"streams": [{"key": 1, "url": "/shared"}]}'),
        (400, b'{"streams": [{"key": "a b", "url": "/shared"}]}'),
        (400, b'{"streams": [{"key": "a\\n", "url": "/shared"}]}'),
        (400, b'{"streams": [{"key": "%b", "url": "/shared"}]}' % (b"k" * 17)),
        (400, b'{"streams": [{"key": "a", "url": ""}]}'),
        (400, b'{"streams": [{"key": "a", "url": "shared"}]}'),
        (400, b'{"streams": [{"key": "a", "url": "http://test/shared"}]}'),
        (400, b'{"streams": [{"key": "a", "url": "/shared#x"}]}'),
        (400, b'{"streams": [{"key": "a", "url": "/a b"}]}'),
        (400, b'{"streams": [{"key": "a", "url": "/a\\r\\nX: y"}]}'),
        (400, '{"streams": [{"key": "a", "url": "/ä"}]}'.encode()),
        (400, b'{"streams": [{"key": "a", "url": "/%b"}]}' % (b"x" * 8190)),
        (400, b'{"streams":[{"key":"a","url":"/x","lastEventId":1}]}'),
        (400, b'{"streams":[{"key":"a","url":"/x","lastEventId":"a\\r\\nX: y"}]}'),
        (400, b'{"streams":[{"key":"a","url":"/x","lastEventId":"\\ud800"}]}'),
        (400, f'{{"streams": [{STREAM}, {STREAM}]}}'.encode()),
        (400, body_of(*["/shared"] * 33)),
        (413, b'{"streams": [%b%b]}' % (b" " * 65_536, STREAM.encode())),
    ],
)
async def test_a_body_that_is_none(
    serve: Serve, clock: SettableClock, status: int, body: bytes
) -> None:
    """It is refused before anything is begun, with a status and what is wrong."""
    served = await serve(app_of(table_of_all(), clock=clock))
    response = await ask(served, ENDPOINT, JSON, method="POST", body=body)
    assert status == response.status
    assert json.loads(response.body)["error"]
    assert "application/json" in response.headers["Content-Type"]
    assert not hub_of(served).rounds.carriers


async def test_a_body_without_a_length_has_a_limit_too(
    serve: Serve, clock: SettableClock
) -> None:
    """Also one that comes in chunks is taken up to 64 KiB only."""
    served = await serve(app_of(table_of_all(), clock=clock))
    client = await RawClient.connect(served)
    head = f"POST {ENDPOINT} HTTP/1.1\r\nHost: test\r\n{JSON}\r\n"
    await client.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    await client.send(b"10001\r\n" + b" " * 0x10001 + b"\r\n0\r\n\r\n")
    assert b" 413 " in await client.read_until(b"\r\n")


async def test_32_streams_are_taken(serve: Serve, clock: SettableClock) -> None:
    """So many, and all of them stream."""
    served = await serve(app_of(table_of_all(), clock=clock))
    client = Multiplexed(served, {f"k{n}": "/endless" for n in range(32)})
    await client.connect()
    await until_over(client, *client.subs)
    assert 32 == len(connections_of(served)) == served.sse.connections


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
async def test_another_method(serve: Serve, clock: SettableClock, method: str) -> None:
    """The endpoint is for POST alone."""
    served = await serve(app_of(table_of_all(), clock=clock))
    body = b"" if method in ("GET", "HEAD") else body_of("/shared")
    response = await ask(served, ENDPOINT, JSON, method=method, body=body)
    assert 405 == response.status
    assert "POST" == response.headers["Allow"]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Content-Type: text/plain"],
        ["Content-Type: application/x-www-form-urlencoded"],
        ["Content-Type: multipart/form-data"],
        ["Content-Type: text/plain; x=application/json"],
    ],
)
async def test_another_content_type(
    serve: Serve, clock: SettableClock, headers: list[str]
) -> None:
    """What a page of any origin can send without asking first is not taken."""
    served = await serve(app_of(table_of_all(), clock=clock))
    body = body_of("/shared")
    response = await ask(served, ENDPOINT, *headers, method="POST", body=body)
    assert 415 == response.status
    assert "application/json" in json.loads(response.body)["error"]


@pytest.mark.parametrize(
    ("allowed", "headers"),
    [
        (True, []),
        (True, ["Origin: http://test"]),
        (True, ["Origin: http://TEST"]),
        (True, ["Origin: https://test"]),  # a proxy has taken TLS away
        (True, ["Origin: https://listed.example"]),
        (True, ["Origin: https://listed.example", "Sec-Fetch-Site: cross-site"]),
        # A proxy may have changed the host; a page cannot forge this.
        (True, ["Origin: http://outside", "Sec-Fetch-Site: same-origin"]),
        (False, ["Origin: http://outside"]),
        (False, ["Origin: http://test:81"]),
        (False, ["Origin: http://test.outside"]),
        (False, ["Origin: null"]),
        (False, ["Origin: "]),
        (False, ["Sec-Fetch-Site: cross-site"]),
        (False, ["Sec-Fetch-Site: same-site"]),
        (False, ["Origin: http://test", "Sec-Fetch-Site: cross-site"]),
        (False, ["Origin: http://other.test", "Sec-Fetch-Site: same-site"]),
        (False, ["Origin: http://listed.example"]),
    ],
)
async def test_another_origin(
    serve: Serve, clock: SettableClock, allowed: bool, headers: list[str]
) -> None:
    """Pages of the same origin, and of those that are listed, may use the endpoint."""
    origins = ["https://listed.example"]
    app = app_of(table_of_all(), clock=clock, allow_origins=origins)
    served = await serve(app)
    response = await ask(
        served, ENDPOINT, JSON, *headers, method="POST", body=body_of("/private/x")
    )
    assert (200 if allowed else 403) == response.status
    if not allowed:
        assert "origin" in json.loads(response.body)["error"]
    signed = response.headers.get("Access-Control-Allow-Origin")
    listed = "Origin: https://listed.example" in headers
    assert ("https://listed.example" if listed else None) == signed


async def test_a_host_with_the_default_port(serve: Serve, clock: SettableClock) -> None:
    """Browsers leave a default port out of an origin, and clients may name it."""
    served = await serve(app_of(table_of_all(), clock=clock))
    for scheme, port, status in (
        ("http", 80, 400),
        ("https", 443, 400),
        ("http", 443, 403),
        ("http", 8080, 403),
    ):
        client = await RawClient.connect(served)
        lines = [
            f"POST {ENDPOINT} HTTP/1.1",
            f"Host: test:{port}",
            JSON,
            f"Origin: {scheme}://test",
            "Content-Length: 0",
        ]
        await client.send("\r\n".join([*lines, "", ""]).encode())
        assert f" {status} ".encode() in await client.read_until(b"\r\n\r\n")


async def test_preflight(serve: Serve, clock: SettableClock) -> None:
    """A page of a listed origin may send JSON there; others may not."""
    origins = ["https://listed.example"]
    app = app_of(table_of_all(), clock=clock, allow_origins=origins)
    served = await serve(app)
    for origin in ("https://listed.example", "https://other.example"):
        response = await ask(served, ENDPOINT, f"Origin: {origin}", method="OPTIONS")
        assert 204 == response.status
        listed = origin in origins
        assert listed == ("Access-Control-Allow-Origin" in response.headers)
        if listed:
            assert "POST" == response.headers["Access-Control-Allow-Methods"]
            allowed = response.headers["Access-Control-Allow-Headers"]
            assert {"Content-Type", "Authorization"} <= {*allowed.split(", ")}


# -- what each is answered -------------------------------------------------------------


async def test_a_refused_stream_does_not_hurt_its_neighbours(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each has its own status, whoever refuses it, and the others go on."""
    table, run = table_of_all(), []

    @table.sse_route("/guarded", guard=lambda request: False)
    async def guarded(request: web.Request) -> AsyncIterator[Any]:
        yield "never"

    @table.sse_route("/busy", name="busy")
    async def busy(request: web.Request) -> Channels:
        headers = {"Retry-After": "7"}
        raise web.HTTPServiceUnavailable(text="ä" * 600, headers=headers)

    @table.sse_route("/broken", name="broken")
    async def broken(request: web.Request) -> AsyncIterator[Any]:
        raise ValueError("broken")
        yield

    async def plain(request: web.Request) -> web.Response:
        run.append(request)
        return web.Response(text="an effect")

    app = app_of(table, clock=clock)
    app.router.add_get("/plain", plain)
    served = await serve(app)
    wanted = {
        "/endless": None,
        "/guarded": 403,
        "/busy": 503,
        "/broken": 500,
        "/posted": 405,
        "/plain": 421,
        "/_sse/streams": 405,
        "/_sse/client.js": 421,
        "/nowhere": 404,
        "//nowhere": 404,
    }
    client = Multiplexed(served, {f"k{n}": path for n, path in enumerate(wanted)})
    await client.connect()
    await until_over(client, "k0")
    told = {sub.path: sub.status for sub in client.subs.values()}
    assert wanted == {path: s and s["status"] for path, s in told.items()}
    assert not run
    assert 1 == len(connections_of(served))
    busy_told = told["/busy"]
    assert busy_told is not None
    assert 7 == busy_told["retryAfter"]
    assert "ä" * 512 == busy_told["body"]  # a KiB
    assert told["/guarded"] == {
        "status": 403,
        "retryAfter": None,
        "body": "403: Forbidden",
    }
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert ["aiohttp.server"] == [record.name for record in errors]
    # The neighbours of those that were refused have the same fan-out, and the same end.
    await served.sse.disconnect(route="endless")
    await client.read_all()
    assert "sse-end" in client["k0"].names


async def test_what_another_handler_has_is_to_be_asked_for_by_itself(
    serve: Serve, clock: SettableClock, tmp_path: Path
) -> None:
    """It is answered by 421 where its path is a stream's too, and nothing of it runs.

    So it is for a plain handler, one of any method, a class, a stream that is written
    by hand, a file, and in a sub-application; what leads nowhere is 404, and what is
    not for GET 405.
    """
    ran: list[str] = []
    (tmp_path / "page.html").write_text("<p>a page")
    table = SSERouteTableDef()

    @table.sse_route("/rooms/{room}")
    async def room(request: web.Request) -> AsyncIterator[Any]:
        yield request.match_info["room"]

    @web.middleware
    async def watching(request: web.Request, handler: Handler) -> web.StreamResponse:
        ran.append(request.path)
        return await handler(request)

    async def plain(request: web.Request) -> web.StreamResponse:
        ran.append("plain")
        return web.Response(text="an effect")

    async def by_hand(request: web.Request) -> web.StreamResponse:
        ran.append("by hand")
        async with sse_response(request) as stream:
            await stream.send("by hand")
        return stream

    class View(web.View):
        async def get(self) -> web.Response:
            ran.append("a class")
            return web.Response()

    sub = web.Application(middlewares=[watching])
    sub.router.add_get("/{tail:.*}", plain)
    app = web.Application(middlewares=[watching])
    app.router.add_get("/rooms/plain", plain)
    app.router.add_get(r"/rooms/{number:\d+}", by_hand)
    app.router.add_route("*", "/rooms/any", plain)
    app.router.add_view("/rooms/view", View)
    app.router.add_post("/rooms/posted/{x}", plain)
    app.router.add_static("/rooms/files", tmp_path)
    app.add_subapp("/rooms/sub", sub)
    setup(app, table, clock=clock)
    served = await serve(app)
    misdirected = ("plain", "12", "any", "view", "files/page.html", "files/no", "sub/x")
    wanted: dict[str, int | None] = {f"/rooms/{path}": 421 for path in misdirected}
    wanted |= {"/rooms/posted/x": 405, "/rooms/a/b": 404, "/rooms/ours": None}
    client = Multiplexed(served, {f"k{n}": path for n, path in enumerate(wanted)})
    await client.connect()
    await client.read_all()
    told = {
        sub.path: sub.status and sub.status["status"] for sub in client.subs.values()
    }
    assert wanted == told
    assert ["ours"] == [data for sub in client.subs.values() for data in sub.events]
    paths = {path for path, status in wanted.items() if status != 421}
    assert {ENDPOINT, *paths} == {*ran}
    # By itself each is answered.
    response = await ask(served, "/rooms/12")
    assert b"by hand" in response.body


async def test_retry_after_may_be_a_date(serve: Serve, clock: SettableClock) -> None:
    """It is told in seconds; what is neither is left out."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> Channels:
        headers = {"Retry-After": request.query["after"]}
        raise web.HTTPTooManyRequests(headers=headers)

    served = await serve(app_of(table, clock=clock))
    dates = {
        "a": "Wed,%2021%20Oct%202015%2007:28:00%20GMT",
        "b": "Wed,%2021%20Oct%202095%2007:28:00%20-0000",
        "c": "soon",
        "d": "-1",
    }
    client = Multiplexed(served, {k: f"/x?after={v}" for k, v in dates.items()})
    await client.connect()
    await client.read_all()
    told = [client[key].status["retryAfter"] for key in dates]  # type: ignore[index]
    assert told[0] == 0
    assert told[1] > 1e9
    assert [None, None] == told[2:]


async def test_a_middleware_sees_requests_of_their_own(
    serve: Serve, clock: SettableClock
) -> None:
    """Path, match, cookies, headers and address are right, and nothing is left over."""
    seen: list[dict[str, Any]] = []

    @web.middleware
    async def watching(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "GET":
            seen.append(
                {
                    "url": request.path_qs,
                    "full": str(request.url),
                    "match": dict(request.match_info),
                    "cookies": dict(request.cookies),
                    "authorization": request.headers["Authorization"],
                    "last": request.headers.get("Last-Event-ID"),
                    "raw": dict(request.raw_headers).get(b"Last-Event-ID"),
                    "type": request.headers.get("Content-Type"),
                    "length": request.headers.get("Content-Length"),
                    "accept": request.headers.get("Accept"),
                    "body": await request.read(),
                    "remote": request.remote,
                    "secure": request.secure,
                    "notes": dict(request),
                    "peer": request.transport
                    and request.transport.get_extra_info("peername")[0],
                    "socket": request.get_extra_info("socket"),
                    "app": request.app is served.app,
                }
            )
        request[NOTE] = f"{request.method} {request.path}"
        return await handler(request)

    app = web.Application(middlewares=[watching])
    setup(app, table_of_all(), clock=clock)
    served = await serve(app)
    client = Multiplexed(
        served,
        {"a": "/private/x%20y?q=%C3%A4&q=2", "b": "/channel/c"},
        "Cookie: user=ann; theme=dark",
        "Authorization: Bearer token",
        "Last-Event-ID: of-the-post",
        "Accept: application/json",
    )
    client["b"].last_event_id = "an-ä-id"
    await client.connect()
    await client.read_until(lambda: client["a"].over and client["b"].control)
    both = {
        "cookies": {"user": "ann", "theme": "dark"},
        "authorization": "Bearer token",
        "type": None,
        "length": None,
        "accept": "text/event-stream",
        "body": b"",
        "remote": "127.0.0.1",
        "secure": False,
        "notes": {},
        "peer": "127.0.0.1",
        # It is not one stream's to set options of.
        "socket": None,
        "app": True,
    }
    assert sorted(seen, key=lambda item: item["url"]) == [
        {
            **both,
            "url": "/channel/c",
            "full": "http://test/channel/c",
            "match": {"name": "c"},
            "last": "an-ä-id",
            "raw": "an-ä-id".encode(),
        },
        {
            **both,
            "url": "/private/x%20y?q=%C3%A4&q=2",
            "full": "http://test/private/x%20y?q=%C3%A4&q=2",
            "match": {"name": "x y"},
            "last": None,
            "raw": None,
        },
    ]


async def test_a_middleware_that_authenticates_refuses_as_ever(
    serve: Serve, clock: SettableClock
) -> None:
    """Of the whole application, of a sub-application, and by what is asked for."""

    def asking(what: str) -> Any:
        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.headers.get(what) is None:
                raise web.HTTPUnauthorized(text=f"no {what}")
            if request.path == "/private/secret":
                return web.Response(status=403, text="not yours")
            return await handler(request)

        return check

    sub = web.Application(middlewares=[asking("X-Inner")])
    inner = SSERouteTableDef()

    @inner.sse_route("/{name}")
    async def of_sub(request: web.Request) -> AsyncIterator[Any]:
        yield request.match_info["name"]

    sub.add_routes(inner)
    app = web.Application(middlewares=[asking("X-Outer")])
    setup(app, table_of_all(), clock=clock)
    app.add_subapp("/sub", sub)
    served = await serve(app)
    paths = {"a": "/private/x", "b": "/private/secret", "c": "/sub/x"}
    client = Multiplexed(served, paths)
    await client.connect()
    await client.read_until(lambda: client.body == b"no X-Outer")
    assert 401 == client.status
    for headers, status in (["X-Outer: 1"], 401), (["X-Outer: 1", "X-Inner: 1"], None):
        client = Multiplexed(served, paths, *headers)
        await client.connect()
        await client.read_all()
        assert 1 == len(client["a"].events)
        assert {"status": 403, "retryAfter": None, "body": "not yours"} == (
            client["b"].status
        )
        assert status == (client["c"].status or {}).get("status")
        assert (["x"] if status is None else []) == client["c"].events


async def test_what_middlewares_answer_in_place_of_a_stream(
    serve: Serve, clock: SettableClock, tmp_path: Path
) -> None:
    """A stream of another's is passed on, event by event; of the rest the status."""
    (tmp_path / "page.html").write_text("<p>a page")
    cut: list[str] = []
    go = asyncio.Event()

    @web.middleware
    async def other(request: web.Request, handler: Handler) -> Any:
        kind = request.query.get("answer")
        headers = {"Content-Type": "text/event-stream"}
        if kind == "stream":
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            await response.write(b"data: 1\n\ndata: ")
            await go.wait()
            await response.write(b"2\n\ndata: cut off\n")
            return response
        if kind == "whole":
            return web.Response(body=b"data: 1\r\n\r\n", headers=headers)
        if kind == "behind":
            await handler(request)
            return web.Response(text="behind the stream")
        if kind == "file":
            return web.FileResponse(tmp_path / "page.html")
        if kind == "parts":
            response = web.StreamResponse(status=418)
            await response.prepare(request)
            for _ in range(1000):
                await response.write(b"teapot ")
            await response.write_eof()
            return response
        if kind == "packed":
            packed = web.Response(status=402, text="packed " * 100)
            packed.enable_compression(web.ContentCoding.gzip)
            return packed
        if kind == "nothing":
            return None
        if kind == "late":
            raise TimeoutError
        if kind == "huge":
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            try:
                for _ in range(100):
                    await response.write(b"x" * 1000)
            except ConnectionResetError:
                cut.append(kind)
            return response
        return await handler(request)

    app = web.Application(middlewares=[other])
    setup(app, table_of_all(), clock=clock, max_event_bytes=10_000)
    served = await serve(app)
    kinds = ["stream", "whole", "behind", "huge"]
    kinds += ["file", "parts", "packed", "nothing", "late"]
    client = Multiplexed(served, {k: f"/private/x?answer={k}" for k in kinds})
    await client.connect()
    await until_over(client, "stream")
    assert ["1"] == client["stream"].events
    go.set()
    await client.read_all()
    assert ["1", "2"] == client["stream"].events
    assert ["sse-eof"] == client["stream"].names
    assert ["1"] == client["whole"].events
    assert ["sse-hello", "sse-end", "sse-eof"] == client["behind"].names
    told = {k: client[k].status for k in kinds}
    expected = {"file": 200, "parts": 418, "packed": 402, "nothing": 500, "late": 504}
    assert expected == {
        kind: status["status"] for kind, status in told.items() if status is not None
    }
    assert told["packed"] is not None
    assert "" == told["packed"]["body"]
    assert told["parts"] is not None
    assert 1024 == len(told["parts"]["body"])
    assert ["sse-eof"] == client["huge"].names
    assert ["huge"] == cut


async def test_signals_are_sent_for_each(serve: Serve, clock: SettableClock) -> None:
    """``on_response_prepare`` sees the connection's answer, and each stream's own."""
    seen: list[tuple[str, str, int, str]] = []

    async def signal(request: web.Request, response: web.StreamResponse) -> None:
        kind = type(response).__name__
        seen.append((request.method, request.path, response.status, kind))
        response.headers["X-Seen"] = "yes"
        response.enable_compression(web.ContentCoding.gzip)

    app = app_of(table_of_all(), clock=clock)
    app.on_response_prepare.append(signal)
    served = await serve(app)
    client = Multiplexed(served, {"a": "/private/x", "b": "/posted"})
    raw = await client.connect()
    await client.read_all()
    assert sorted(seen) == [
        ("GET", "/posted", 405, "HTTPMethodNotAllowed"),
        ("GET", "/private/x", 200, "RouteResponse"),
        ("POST", ENDPOINT, 200, "RouteResponse"),
    ]
    headers = parse_response(raw.received).headers
    assert "yes" == headers["X-Seen"]
    assert "Content-Encoding" not in headers
    assert 1 == len(client["a"].events)


async def test_a_signal_that_fails_ends_one_stream(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the neighbours go on."""

    async def signal(request: web.Request, response: web.StreamResponse) -> None:
        if request.path == "/private/x":
            raise ValueError("of a signal")

    app = app_of(table_of_all(), clock=clock)
    app.on_response_prepare.append(signal)
    served = await serve(app)
    client = Multiplexed(served, {"a": "/private/x", "b": "/endless"})
    await client.connect()
    await until_over(client, "b")
    assert ["sse-eof"] == client["a"].names
    assert any("of a signal" in str(record.exc_info) for record in caplog.records)


async def test_the_access_log_has_a_line_for_each(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With its path and its status, as for a request of its own."""
    caplog.set_level(logging.INFO, "aiohttp.access")
    app = app_of(table_of_all(), clock=clock)
    runner = web.AppRunner(app, access_log_format='"%r" %s')
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    reader, writer = await asyncio.open_connection(host, port)
    body = body_of("/private/x", "/posted")
    head = f"POST {ENDPOINT} HTTP/1.1\r\nHost: test\r\n{JSON}\r\nContent-Length: "
    writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
    await reader.read()
    writer.close()
    await runner.cleanup()
    lines = [r.getMessage() for r in caplog.records if r.name == "aiohttp.access"]
    assert sorted(lines) == [
        '"GET /posted HTTP/1.1" 405',
        '"GET /private/x HTTP/1.1" 200',
        '"POST /_sse/streams HTTP/1.1" 200',
    ]


async def test_a_public_prefix_is_taken_off(serve: Serve, clock: SettableClock) -> None:
    """A page names streams as its browser sees them; without the prefix does too."""
    served = await serve(app_of(table_of_all(), clock=clock, public_prefix="/app"))
    paths = {"a": "/app/private/x", "b": "/private/x", "c": "/app", "d": "/apple"}
    client = Multiplexed(served, paths)
    await client.connect()
    await client.read_all()
    assert client["a"].events == client["b"].events != []
    assert [404, 404] == [client[key].status["status"] for key in "cd"]  # type: ignore[index]


# -- limits ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"max_connections": 3},
        {"max_connections_per_client": 3},
        {
            "max_connections_per_client": 3,
            "client_key": lambda request: request.headers["X-Client"],
        },
    ],
)
async def test_each_stream_counts_against_the_limits(
    serve: Serve, clock: SettableClock, options: dict[str, Any]
) -> None:
    """The connection does not; who is one too many is told to come back later."""
    served = await serve(app_of(table_of_all(), clock=clock, **options))
    client = Multiplexed(
        served, {f"k{n}": "/endless" for n in range(4)}, "X-Client: me"
    )
    raw = await client.connect()
    await until_over(client, "k0", "k1", "k2")
    assert [("sse-busy", {"reason": "limit"}), ("sse-eof", {})] == client["k3"].control
    response = await ask(served, "/endless", "X-Client: me")
    assert {"reason": "limit"} == response.data("sse-busy")
    raw.close()
    await until(lambda: not hub_of(served).limits.counts)


async def test_a_routes_own_limit(serve: Serve, clock: SettableClock) -> None:
    """It counts the streams of that route, on whatever connection."""
    table = SSERouteTableDef()

    @table.sse_route("/x", max_connections=1, resume=0)
    async def x(request: web.Request) -> AsyncIterator[Any]:
        yield "x"
        await asyncio.Event().wait()

    served = await serve(app_of(table, clock=clock))
    client = Multiplexed(served, {"a": "/x", "b": "/x"})
    await client.connect()
    await until_over(client, "a")
    assert ["sse-busy", "sse-eof"] == client["b"].names


# -- without control events ------------------------------------------------------------


async def test_a_route_without_control_events(
    serve: Serve, clock: SettableClock
) -> None:
    """What its header would say is told by an event, and its end by the status 204."""
    table = SSERouteTableDef()

    @table.sse_route("/quiet", control_events=False)
    async def quiet(request: web.Request) -> AsyncIterator[Any]:
        yield "only"

    served = await serve(app_of(table, clock=clock))
    client = Multiplexed(served, {"a": "/quiet", "b": "/quiet"})
    client["b"].last_event_id = f"sse1.r.{'x' * 22}.5"
    await client.connect()
    await client.read_all()
    assert [("sse-resume", {"resumed": "fresh"}), ("sse-eof", {})] == (
        client["a"].control
    )
    assert ("sse-resume", {"resumed": "gap"}) == client["b"].control[0]
    assert ["only"] == client["a"].events == client["b"].events
    await client.connect()
    await client.read_all()
    assert [204, 204] == [client[key].status["status"] for key in "ab"]  # type: ignore[index]


# -- heartbeats ------------------------------------------------------------------------


async def test_one_heartbeat_for_all(serve: Serve, clock: SettableClock) -> None:
    """A comment of the connection, when nothing at all was written for the shortest."""
    table = SSERouteTableDef()

    def endless(path: str, heartbeat: float) -> None:
        @table.sse_route(path, name=path[1:], heartbeat=heartbeat, resume=0)
        async def x(request: web.Request) -> AsyncIterator[Any]:
            yield "x"
            await asyncio.Event().wait()

    endless("/short", 20)
    endless("/long", 50)

    @table.sse_route("/room", heartbeat=60)
    async def room(request: web.Request) -> Channels:
        return Channels("room")

    served = await serve(app_of(table, clock=clock))
    client = Multiplexed(served, {"a": "/short", "b": "/long", "c": "/room"})
    raw = await client.connect()
    await client.read_until(lambda: client["a"].events and client["b"].events)
    clock.follow(served.app)

    async def comments(seconds: int, every: int = 0) -> int:
        """Return how many come in *seconds*, with an event *every* so many."""
        before, events = client.comments, len(client["c"].events)
        for second in range(seconds):
            await clock.advance(1)
            if every and second % every == 0:
                await served.sse.publish("room", "news")
                events += 1
        await served.sse.publish("room", "the end")
        await client.read_until(lambda: len(client["c"].events) > events)
        return client.comments - before

    await comments(5)
    assert await comments(90) in (3, 4)
    # What one of them has to say puts the comment off.
    assert await comments(90, every=15) == 0
    # A place that has moved without an event is the stream's own to tell.
    await served.sse.publish("elsewhere", "x")
    assert await comments(90) in (3, 4)
    assert ["sse-hello", "sse-cursor"] == client["c"].names
    assert {"sse-hello"} == {*client["a"].names, *client["b"].names}
    chunks = parse_response(raw.received).chunks
    before = [one for one, two in itertools.pairwise(chunks) if two == b":\n\n"]
    assert not [chunk for chunk in before if chunk.startswith(b"stream")]


# -- share= ----------------------------------------------------------------------------


def test_what_a_route_shares() -> None:
    """Shared runs over all tabs, channels by session, private runs never."""

    async def generator(request: Any) -> AsyncIterator[int]:
        yield 1

    async def channels(request: Any) -> Channels:
        return Channels("x")

    async def untold(request: Any):  # type: ignore[no-untyped-def]
        return Channels("x")

    async def iterator(request: Any) -> AsyncIterator[int]:
        return generator(request)

    class Rooms:
        async def room(self, request: Any) -> Channels:
            return Channels("x")

    def sharing(handler: Any, **options: Any) -> int:
        definition = SSERouteDef("/x", handler, **options)
        return sharing_of(handler, definition.form, definition.settings)

    assert 1 == sharing(generator)
    assert 2 == sharing(generator, shared=True)
    assert 2 == sharing(generator, shared=True, share=True)
    assert 1 == sharing(generator, shared=True, share=False)
    assert 3 == sharing(channels) == sharing(Rooms().room)
    assert 2 == sharing(channels, share=True) == sharing(untold, share=True)
    assert 1 == sharing(channels, share=False)
    assert 1 == sharing(untold) == sharing(iterator)
    assert 0 == sharing(generator, methods=("POST",))
    assert 1 == sharing(generator, methods=("GET", "POST"))
    # It would begin anew with each change of the others on its connection.
    assert 0 == sharing(generator, resume=0) == sharing(untold, resume=0)
    assert 2 == sharing(generator, shared=True, resume=0)
    assert 2 == sharing(untold, resume=0, share=True)
    # A gap is told by the header of its own response.
    assert 0 == sharing(generator, shared=True, control_events=False)


def test_share_that_means_nothing() -> None:
    """For a private run, and where nothing can be asked for by GET, it is an error."""

    async def generator(request: Any) -> AsyncIterator[int]:
        yield 1

    async def channels(request: Any) -> Channels:
        return Channels("x")

    for value in (True, False):
        with pytest.raises(ConfigurationError, match="share= means nothing here"):
            SSERouteDef("/x", generator, share=value)
    with pytest.raises(ConfigurationError, match="share=True means nothing here"):
        SSERouteDef("/x", channels, methods=("POST",), share=True)
    with pytest.raises(ConfigurationError, match="share=True needs control events"):
        SSERouteDef("/x", channels, control_events=False, share=True)
    with pytest.raises(ConfigurationError, match="must be True, False or None"):
        SSERouteDef("/x", channels, share="tabs")  # type: ignore[arg-type]


async def test_a_private_run_is_not_shared_by_mistake(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A coroutine that says it shares and returns an iterator is told in the log."""
    table = SSERouteTableDef()

    @table.sse_route("/x", share=True)
    async def x(request: web.Request):  # type: ignore[no-untyped-def]
        async def numbers() -> AsyncIterator[int]:
            yield 1

        return numbers()

    served = await serve(app_of(table, clock=clock))
    assert 500 == (await ask(served, "/x")).status
    assert "leave share out" in caplog.text
    assert 1 == len(complaints(caplog))
    # Its traceback holds the iterator that nobody began.
    caplog.clear()
    gc.collect()
