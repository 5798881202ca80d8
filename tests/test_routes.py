"""Routes: how handlers become endpoints, and what an endpoint answers."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import functools
import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp_sse
import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    ServerSentEvent,
    SharedRun,
    SSERouteDef,
    SSERouteTableDef,
    get_sse,
    setup,
    sse_route,
)
from aiohttp_sse_routes.http.routes import DEFAULT_TABLE
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .rawhttp import OUR_ID, ask, check_law, parse_response

Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
def default_table() -> Iterator[SSERouteTableDef]:
    """The default table, empty, and put back afterwards."""
    before = DEFAULT_TABLE[:]
    DEFAULT_TABLE._items.clear()
    yield DEFAULT_TABLE
    DEFAULT_TABLE._items[:] = before


async def numbers(request: web.Request) -> AsyncIterator[int]:
    """Yield two numbers."""
    yield 1
    yield 2


async def path_of(run: SharedRun) -> AsyncIterator[str]:
    """Yield the path of a shared run, and go on."""
    yield run.path
    await asyncio.Event().wait()


# -- the decorator and tables ----------------------------------------------------------


async def test_the_decorator_and_setup_make_an_endpoint(
    serve: Serve, clock: SettableClock, default_table: SSERouteTableDef
) -> None:
    """`sse_route` notes the function and returns it unchanged; `setup` mounts it."""
    assert sse_route("/numbers")(numbers) is numbers
    assert inspect.isasyncgenfunction(numbers)
    assert 1 == len(default_table)
    app = web.Application()
    sse = setup(app, clock=clock)
    served = await serve(app)
    response = await ask(served, "/numbers")
    assert (200, ["1", "2"]) == (response.status, response.events)
    assert sse is get_sse(app) is served.sse


async def test_one_function_at_two_paths(
    serve: Serve, clock: SettableClock, default_table: SSERouteTableDef
) -> None:
    """A function that the decorator returned can be decorated again."""
    sse_route("/b", name="b")(sse_route("/a", name="a")(numbers))
    app = web.Application()
    setup(app, clock=clock)
    served = await serve(app)
    for path in ("/a", "/b"):
        assert ["1", "2"] == (await ask(served, path)).events


def test_the_options_can_be_seen() -> None:
    """`help` shows each option with its default, as the contract gives it."""
    defaults = {
        "name": None,
        "methods": ("GET",),
        "shared": False,
        "events": None,
        "guard": None,
        "owner": None,
        "replay": 500,
        "replay_bytes": 262144,
        "resume": 15.0,
        "history": 0,
        "heartbeat": 15.0,
        "retry": 3000,
        "lifetime": None,
        "open_timeout": 0.2,
        "on_slow": "gap",
        "client": True,
        "control_events": True,
        "max_connections": None,
    }
    for function in (sse_route, SSERouteTableDef().sse_route):
        parameters = inspect.signature(function).parameters
        assert ["path"] == [
            name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY
        ]
        shown = {name: p.default for name, p in parameters.items() if name != "path"}
        assert defaults == {k: v for k, v in shown.items() if k in defaults}


def test_a_table_is_a_sequence() -> None:
    """It is read as aiohttp's own."""
    table = SSERouteTableDef()
    assert table.sse_route("/a", name="a")(numbers) is numbers
    table.sse_route("/b", name="b")(numbers)
    assert ["/a", "/b"] == [route.path for route in table]
    assert "/b" == table[1].path
    assert ["/a"] == [route.path for route in table[:1]]
    assert table[0] in table
    assert "<SSERouteTableDef count=2>" == repr(table)
    assert f"<SSERouteDef GET /a -> {__name__}.numbers>" == repr(table[0])


class Ticker:
    """Handlers that are not functions."""

    async def method(self, request: web.Request) -> AsyncIterator[str]:
        """Yield from a bound method."""
        yield "method"

    async def later(self, request: web.Request) -> AsyncIterator[str]:
        """Return an iterator from a bound coroutine method."""
        return self.method(request)

    async def run(self, run: SharedRun) -> AsyncIterator[str]:
        """Yield to all."""
        yield "shared"

    @classmethod
    async def of_class(cls, request: web.Request) -> AsyncIterator[str]:
        """Yield from a class method."""
        yield cls.__name__

    @staticmethod
    async def static(request: web.Request) -> AsyncIterator[str]:
        """Yield from a static method."""
        yield "static"

    async def __call__(self, request: web.Request) -> AsyncIterator[str]:
        """Yield from the object itself."""
        yield "object"


async def with_word(word: str, request: web.Request) -> AsyncIterator[str]:
    """Yield a word that a partial has given."""
    yield word


async def later_with(word: str, request: web.Request) -> AsyncIterator[str]:
    """Return an iterator, by a partial."""
    return with_word(word, request)


TICKER = Ticker()


@pytest.mark.parametrize(
    ("handler", "options", "data", "name"),
    [
        (TICKER.method, {}, "method", "method"),
        (TICKER.later, {}, "method", "later"),
        (TICKER.run, {"shared": True}, "shared", "run"),
        (Ticker.of_class, {}, "Ticker", "of_class"),
        (Ticker.static, {}, "static", "static"),
        (TICKER, {}, "object", "Ticker"),
        (functools.partial(with_word, "p"), {}, "p", "with_word"),
        (functools.partial(later_with, "p"), {}, "p", "later_with"),
        (functools.partial(TICKER), {}, "object", "Ticker"),
        (functools.partial(functools.partial(with_word), "p"), {}, "p", "with_word"),
    ],
)
async def test_a_route_without_a_decorator(
    serve: Serve,
    clock: SettableClock,
    handler: Any,
    options: Any,
    data: str,
    name: str,
) -> None:
    """`SSERouteDef` takes bound methods, partials and callable objects."""
    definition = SSERouteDef("/x", handler, **options)
    assert name == definition.name
    app = web.Application()
    setup(app, [], clock=clock)
    app.add_routes([definition])
    served = await serve(app)
    response = await ask(served, "/x")
    assert (200, [data]) == (response.status, response.events)
    assert "0x" not in definition.label


async def test_routes_of_both_kinds_in_one_list(
    serve: Serve, clock: SettableClock
) -> None:
    """Routes of aiohttp and ours are mounted alike, by `setup` and `add_routes`."""

    async def plain(request: web.Request) -> web.Response:
        return web.Response(text=get_sse(request).__class__.__name__)

    app = web.Application()
    setup(app, [SSERouteDef("/a", numbers), web.get("/plain", plain)], clock=clock)
    app.add_routes([SSERouteDef("/b", TICKER.method), web.get("/also", plain)])
    served = await serve(app)
    assert (200, b"SSE") == await served.get("/plain")
    assert (200, b"SSE") == await served.get("/also")
    assert ["1", "2"] == (await ask(served, "/a")).events
    assert ["method"] == (await ask(served, "/b")).events


async def test_url_for(serve: Serve, clock: SettableClock) -> None:
    """A route's name finds its URL, as any route's of aiohttp."""
    table = SSERouteTableDef()
    table.sse_route("/rooms/{room}", name="room")(numbers)
    app = app_of(table, clock=clock)
    sub = web.Application()
    sub.add_routes([SSERouteDef("/inner/{id}", TICKER.method, name="inner.one")])
    app.add_subapp("/sub", sub)
    served = await serve(app)
    assert "/rooms/a%20b" == str(app.router["room"].url_for(room="a b"))
    assert "/sub/inner/5" == str(sub.router["inner.one"].url_for(id="5"))
    assert "/sub/inner/5" == served.sse.url("inner.one", id=5)
    url = str(app.router["room"].url_for(room="x"))
    assert ["1", "2"] == (await ask(served, url)).events


# -- sub-applications ------------------------------------------------------------------


async def test_sub_applications(serve: Serve, clock: SettableClock) -> None:
    """Tables of nested sub-applications are found at start; one `setup` is for all."""
    seen: list[web.Application] = []

    async def shared(run: SharedRun) -> AsyncIterator[str]:
        seen.append(run.app)
        yield run.path

    async def private(request: web.Request) -> AsyncIterator[str]:
        seen.append(request.app)
        yield str(get_sse(request) is sse)

    app, outer, inner = web.Application(), web.Application(), web.Application()
    sse = setup(app, [], clock=clock)
    inner.add_routes([SSERouteDef("/run", shared, shared=True)])
    inner.add_routes([SSERouteDef("/own", private)])
    outer.add_subapp("/inner", inner)
    app.add_subapp("/outer", outer)
    served = await serve(app)
    assert ["/outer/inner/run"] == (await ask(served, "/outer/inner/run")).events
    assert ["True"] == (await ask(served, "/outer/inner/own")).events
    assert [inner, inner] == seen


async def test_domains(serve: Serve, clock: SettableClock) -> None:
    """A sub-application may be a domain's; its runs are its own."""

    async def domain(name: str, run: SharedRun) -> AsyncIterator[str]:
        yield f"{name} {run.path}"

    app = web.Application()
    setup(app, [], clock=clock)
    for name in ("a", "b"):
        sub = web.Application()
        handler = functools.partial(domain, name)
        sub.add_routes([SSERouteDef("/x", handler, shared=True, name=name)])
        app.add_domain(f"{name}.example", sub)
    served = await serve(app)
    for name in ("a", "b"):
        _, body = await served.get("/x", headers={"Host": f"{name}.example"})
        assert f"data: {name} /x\n".encode() in body
    assert 404 == (await ask(served, "/x")).status


async def test_several_applications_are_independent(
    serve: Serve, clock: SettableClock
) -> None:
    """One table serves several applications of a process; each has its own runs."""
    begun: list[web.Application] = []
    table = SSERouteTableDef()

    @table.sse_route("/shared", shared=True)
    async def shared(run: SharedRun) -> AsyncIterator[int]:
        begun.append(run.app)
        yield len(begun)
        await asyncio.Event().wait()

    first = await serve(app_of(table, clock=clock))
    second = await serve(app_of(table, clock=clock, max_connections=1))
    async with first.stream("/shared") as a, second.stream("/shared") as b:
        assert ["1", "2"] == [(await a.next()).data, (await b.next()).data]
        assert 1 == first.sse.connections == second.sse.connections
        async with first.stream("/shared") as c:
            await c.next("sse-hello")
    assert [first.app, second.app] == begun


async def test_an_application_started_twice(
    clock: SettableClock, handler_cancellation: bool
) -> None:
    """Stopped and started again, it serves as at first, with new runs."""
    from aiohttp import ClientSession

    table = SSERouteTableDef()
    table.sse_route("/shared", shared=True)(path_of)
    app = app_of(table, clock=clock, allow_origins=["https://a.example"])
    sub = web.Application()
    app.add_subapp("/sub", sub)
    for _ in range(2):
        runner = web.AppRunner(app, handler_cancellation=handler_cancellation)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession() as session:
            served = Served(app, runner, session)
            async with served.stream("/shared") as stream:
                await stream.next()
                assert {"resumed": "fresh", "heartbeat": 15.0} == stream.hello
                assert 1 == get_sse(app).connections
                assert get_sse(app) is get_sse(sub)
            await served.close()
        assert 0 == get_sse(app).connections


# -- responses -------------------------------------------------------------------------


async def test_the_response_to_the_letter(serve: Serve, clock: SettableClock) -> None:
    """Status, headers, chunks and lines of a whole stream are what is promised."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[Any]:
        yield {"a": 1}
        await asyncio.sleep(0)
        yield "b"

    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x")
    assert 200 == response.status
    assert "text/event-stream" == response.headers["Content-Type"]
    assert "no-store, no-transform" == response.headers["Cache-Control"]
    assert "no" == response.headers["X-Accel-Buffering"]
    assert "chunked" == response.headers["Transfer-Encoding"]
    assert "Content-Length" not in response.headers
    check_law(response.body)
    hello, first, second, end = response.blocks
    assert re.fullmatch(
        rb"retry: [0-9]+\nid: [!-~]+\nevent: sse-hello\njson\n"
        rb'data: \{"heartbeat":15.0,"resumed":"fresh"\}\n\n'
        rb'id: [!-~]+\njson\ndata: \{"a":1\}\n\n'
        rb"id: [!-~]+\ndata: b\n\n"
        rb'id: [!-~]+\.end\nevent: sse-end\njson\ndata: \{"reason":"finished"\}\n\n',
        response.body,
    )
    ids = [block["id"] for block in (hello, first, second, end)]
    assert len(set(ids)) == 4
    assert all(OUR_ID.fullmatch(id) for id in ids)


async def test_one_event_is_one_chunk(serve: Serve, clock: SettableClock) -> None:
    """An event that comes alone is one chunk; those of one turn go together."""
    table = SSERouteTableDef()
    go = asyncio.Event()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[str]:
        await go.wait()
        yield "alone\n" * 3
        go.clear()
        await go.wait()
        for number in range(5):
            yield f"turn {number}"

    served = await serve(app_of(table, clock=clock, open_timeout=0))
    client = await RawClient.connect(served)
    await client.get("/x")
    await client.read_until(b"sse-hello")
    go.set()
    await client.read_until(b"alone")
    go.set()
    await client.read_all()
    response = parse_response(client.received)
    hello, alone, *turn = response.chunks
    assert b"sse-hello" in hello
    assert b"alone\ndata: alone\ndata: alone\n" in alone
    assert 2 >= sum(b"turn" in chunk for chunk in turn)
    assert [f"turn {n}" for n in range(5)] == response.events[1:]


async def test_the_connection_is_of_use_afterwards(
    serve: Serve, clock: SettableClock
) -> None:
    """A shared stream that has ended leaves its HTTP/1.1 connection to the next."""
    table = SSERouteTableDef()

    @table.sse_route("/x", shared=True)
    async def x(run: SharedRun) -> AsyncIterator[str]:
        yield "x"

    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    for _ in range(3):
        response = await ask(served, "/x", client=client)
        assert (["x"], b"") == (response.events, response.rest)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("keep_alive", [False, True])
async def test_http_1_0(
    serve: Serve, clock: SettableClock, shared: bool, keep_alive: bool
) -> None:
    """HTTP/1.0 gets no chunks, and the connection's end is the stream's."""
    table = SSERouteTableDef()

    async def x(it: Any) -> AsyncIterator[str]:
        yield "one"
        await asyncio.sleep(0)
        yield "two"

    table.sse_route("/x", shared=shared)(x)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    headers = ["Connection: keep-alive"] * keep_alive
    await client.get("/x", *headers, version="1.0")
    await client.read_all()
    response = parse_response(client.received)
    assert 200 == response.status
    assert "Transfer-Encoding" not in response.headers
    assert "keep-alive" != response.headers.get("Connection")
    check_law(response.body)
    assert ["one", "two"] == response.events
    assert "finished" == response.data("sse-end")["reason"]


async def test_http_1_0_soft_refusal(serve: Serve, clock: SettableClock) -> None:
    """A refusal of HTTP/1.0 is whole too."""
    table = SSERouteTableDef()
    table.sse_route("/x", shared=True, max_connections=1)(path_of)
    served = await serve(app_of(table, clock=clock))
    async with served.stream("/x") as stream:
        await stream.next()
        response = await ask(served, "/x", version="1.0")
        assert {"reason": "limit"} == response.data("sse-busy")


@pytest.mark.parametrize("shared", [False, True])
async def test_head(serve: Serve, clock: SettableClock, shared: bool) -> None:
    """HEAD gives the headers and asks the guard; no run begins, nothing is closed."""
    begun: list[object] = []
    asked: list[str] = []
    table = SSERouteTableDef()

    async def x(it: Any) -> AsyncIterator[str]:
        begun.append(it)
        yield "x"

    def guard(request: web.Request) -> bool:
        asked.append(request.method)
        return "no" not in request.query

    table.sse_route("/x", shared=shared, guard=guard)(x)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    for _ in range(2):
        response = await ask(served, "/x", method="HEAD", client=client)
        assert (200, b"") == (response.status, response.rest)
        assert "text/event-stream" == response.headers["Content-Type"]
        assert "no-store, no-transform" == response.headers["Cache-Control"]
        assert "no" == response.headers["X-Accel-Buffering"]
        assert not {"Content-Length", "Transfer-Encoding"} & set(response.headers)
    response = await ask(served, "/x?no", method="HEAD", client=client)
    assert 403 == response.status
    assert [] == begun
    assert ["HEAD"] * 3 == asked
    assert ["x"] == (await ask(served, "/x", client=client)).events


async def test_head_of_http_1_0(serve: Serve, clock: SettableClock) -> None:
    """HEAD works there too."""
    table = SSERouteTableDef()
    table.sse_route("/x")(numbers)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.send(b"HEAD /x HTTP/1.0\r\n\r\n")
    response = parse_response(await client.read_all(), head=True)
    assert (200, b"") == (response.status, response.rest)


# -- methods ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_are_405(
    serve: Serve, clock: SettableClock, method: str
) -> None:
    """What the route does not have is not allowed, and the answer says what is."""
    table = SSERouteTableDef()
    table.sse_route("/x")(numbers)
    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x", method=method)
    assert 405 == response.status
    assert {"GET", "HEAD"} == set(response.headers["Allow"].split(","))


@pytest.mark.parametrize("size", [10, 300_000])
@pytest.mark.parametrize("early", [False, True])
async def test_post_with_a_body(
    serve: Serve, clock: SettableClock, size: int, early: bool
) -> None:
    """A generator reads the request's body, before its first yield or after."""
    table = SSERouteTableDef()

    @table.sse_route("/x", methods=("POST",))
    async def x(request: web.Request) -> AsyncIterator[Any]:
        if early:
            yield None
            yield "begun"
            await asyncio.sleep(0)
        yield {"size": len((await request.json())["text"])}

    served = await serve(app_of(table, clock=clock))
    body = json.dumps({"text": "x" * size}).encode()
    type_ = "Content-Type: application/json"
    response = await ask(served, "/x", type_, method="POST", body=body)
    assert (200, f'{{"size":{size}}}') == (response.status, response.events[-1])
    check_law(response.body)
    assert 405 == (await ask(served, "/x")).status
    assert 405 == (await ask(served, "/x", method="HEAD")).status


async def test_a_body_that_nobody_reads(serve: Serve, clock: SettableClock) -> None:
    """A POST whose handler ignores the body streams and ends as any other."""
    table = SSERouteTableDef()
    table.sse_route("/x", methods=("POST",))(numbers)
    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x", method="POST", body=b"x" * 1000)
    assert ["1", "2"] == response.events


async def test_methods_of_one_path(serve: Serve, clock: SettableClock) -> None:
    """One function may serve several methods, and several functions one path."""
    table = SSERouteTableDef()

    async def method(request: web.Request) -> AsyncIterator[str]:
        yield request.method

    async def other(request: web.Request) -> AsyncIterator[str]:
        yield f"other {request.method}"

    table.sse_route("/x", methods=["GET", "POST"])(method)  # type: ignore[arg-type]
    table.sse_route("/y", methods=("PUT",))(method)
    table.sse_route("/x", methods=("PUT",))(other)
    app = web.Application()
    definitions = [*table]
    definitions[1] = SSERouteDef("/y", other, methods=("PUT",), client=False)
    setup(app, definitions, clock=clock, client=False)
    served = await serve(app)
    for name, text in (("GET", "GET"), ("POST", "POST"), ("PUT", "other PUT")):
        assert [text] == (await ask(served, "/x", method=name)).events
    assert 405 == (await ask(served, "/x", method="DELETE")).status


# -- CORS and signals ------------------------------------------------------------------

ORIGIN = "https://a.example"
CORS = ("Access-Control-Allow-Origin", "Access-Control-Allow-Credentials")


def cors_app(clock: SettableClock, **options: Any) -> web.Application:
    """Return an application with routes that answer all kinds of status."""
    table = SSERouteTableDef()

    @table.sse_route("/ok", methods=("GET", "POST"))
    async def ok(request: web.Request) -> AsyncIterator[str]:
        yield "ok"

    @table.sse_route("/no")
    async def no(request: web.Request) -> AsyncIterator[str]:
        raise web.HTTPForbidden
        yield

    @table.sse_route("/broken")
    async def broken(request: web.Request) -> AsyncIterator[str]:
        raise ValueError("broken")

    @table.sse_route("/moved", guard=lambda request: _raise(web.HTTPFound("/ok")))
    async def moved(request: web.Request) -> AsyncIterator[str]:
        yield "moved"

    table.sse_route("/full", shared=True, max_connections=1)(path_of)

    @table.sse_route("/other")
    async def other(request: web.Request) -> AsyncIterator[str]:
        yield "other"

    @table.sse_route("/ok", methods=("PUT",), client=False)
    async def put(request: web.Request) -> AsyncIterator[str]:
        yield "put"

    return app_of(table, clock=clock, **options)


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize("origin", [ORIGIN, "https://b.example:8443"])
@pytest.mark.parametrize(
    ("path", "status"),
    [("/ok", 200), ("/no", 403), ("/broken", 500), ("/moved", 302), ("/full", 200)],
)
async def test_every_status_carries_the_headers(
    serve: Serve, clock: SettableClock, origin: str, path: str, status: int
) -> None:
    """A page of a listed origin can read a stream, and can tell why there is none."""
    origins = [ORIGIN, "https://b.example:8443"]
    served = await serve(cors_app(clock, allow_origins=origins))
    async with served.stream("/full") as stream:
        await stream.next()
        for method in ("GET", "HEAD"):
            if method == "HEAD" and path in ("/no", "/broken"):
                continue
            response = await ask(served, path, f"Origin: {origin}", method=method)
            assert status == response.status
            assert [origin, "true"] == [response.headers[name] for name in CORS]
            assert "Origin" in response.headers.getall("Vary")
            exposed = response.headers["Access-Control-Expose-Headers"]
            assert {"SSE-Resume", "Retry-After"} <= set(exposed.split(", "))


async def test_an_end_carries_the_headers(serve: Serve, clock: SettableClock) -> None:
    """The 204 that ends a stream is readable too."""
    served = await serve(cors_app(clock, allow_origins=[ORIGIN]))
    response = await ask(served, "/ok")
    end = response.blocks[-1]["id"]
    response = await ask(served, "/ok", f"Last-Event-ID: {end}", f"Origin: {ORIGIN}")
    assert (204, ORIGIN) == (response.status, response.headers[CORS[0]])


@pytest.mark.parametrize("listed", [[], [ORIGIN], iter([ORIGIN])])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"{ORIGIN}.evil"])
async def test_other_origins_get_nothing(
    serve: Serve, clock: SettableClock, listed: Any, origin: str
) -> None:
    """An origin that is not listed gets no header, and nobody gets ``*``."""
    if not isinstance(listed, list):
        listed = (ORIGIN,)
    served = await serve(cors_app(clock, allow_origins=listed))
    for headers in ([f"Origin: {origin}"], []):
        response = await ask(served, "/ok", *headers)
        assert 200 == response.status
        assert not [h for h in response.headers if h.startswith("Access-Control")]
        # A cache must not give one origin's answer to another.
        assert ("Origin" in response.headers.getall("Vary", [])) == bool(listed)
    response = await ask(
        served,
        "/ok",
        f"Origin: {origin}",
        "Access-Control-Request-Method: POST",
        method="OPTIONS",
    )
    assert not [h for h in response.headers if h.startswith("Access-Control")]
    assert response.status == (204 if listed else 405)


async def test_preflight(serve: Serve, clock: SettableClock) -> None:
    """A preflight is answered for every method of the path, and begins no run."""
    served = await serve(cors_app(clock, allow_origins=[ORIGIN]))
    response = await ask(
        served,
        "/ok",
        f"Origin: {ORIGIN}",
        "Access-Control-Request-Method: PUT",
        "Access-Control-Request-Headers: last-event-id",
        method="OPTIONS",
    )
    assert 204 == response.status
    assert [ORIGIN, "true"] == [response.headers[name] for name in CORS]
    methods = response.headers["Access-Control-Allow-Methods"].split(", ")
    assert ["GET", "POST", "PUT"] == methods
    allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "cache-control", "last-event-id"} <= set(allowed)
    assert int(response.headers["Access-Control-Max-Age"]) > 0
    assert ["Origin"] == response.headers.getall("Vary")


async def test_preflight_of_a_sub_application(
    serve: Serve, clock: SettableClock
) -> None:
    """Routes of sub-applications are covered, and one's own OPTIONS is left alone."""

    async def options(request: web.Request) -> web.Response:
        return web.Response(text="mine")

    app, sub = web.Application(), web.Application()
    setup(app, [], clock=clock, allow_origins=[ORIGIN])
    sub.add_routes([SSERouteDef("/a", numbers)])
    resource = sub.router.add_resource("/b")
    resource.add_route("OPTIONS", options)
    sub.add_routes([SSERouteDef("/b", TICKER.method)])
    app.add_subapp("/sub", sub)
    served = await serve(app)
    for path, status in (("/sub/a", 204), ("/sub/b", 200)):
        response = await ask(served, path, f"Origin: {ORIGIN}", method="OPTIONS")
        assert status == response.status
    response = await ask(served, "/sub/b", f"Origin: {ORIGIN}")
    assert ORIGIN == response.headers[CORS[0]]


async def test_signals_and_user_headers(serve: Serve, clock: SettableClock) -> None:
    """`on_response_prepare` sees one of aiohttp-sse's, and what it adds goes out.

    The signals of every application on the way are sent.
    """
    seen: list[type] = []

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        seen.append(type(response))
        assert isinstance(response, aiohttp_sse.EventSourceResponse)
        await asyncio.sleep(0)
        response.headers.add("X-User", request.path)
        response.set_cookie("user", "1")

    app, sub = web.Application(), web.Application()
    setup(app, [], clock=clock)
    sub.add_routes([SSERouteDef("/p", numbers)])
    sub.add_routes([SSERouteDef("/s", TICKER.run, shared=True)])
    app.on_response_prepare.append(on_prepare)
    sub.on_response_prepare.append(on_prepare)
    app.add_subapp("/sub", sub)
    served = await serve(app)
    for path in ("/sub/p", "/sub/s"):
        for method in ("GET", "HEAD"):
            response = await ask(served, path, method=method)
            assert [path, path] == response.headers.getall("X-User")
            assert "text/event-stream" == response.headers["Content-Type"]
            if method == "GET":
                assert response.events
    assert 8 == len(seen)


async def test_a_signal_that_fails_is_an_error(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What `on_response_prepare` raises ends that request, and its generator."""
    closed: list[bool] = []
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        if isinstance(response, aiohttp_sse.EventSourceResponse):
            raise ValueError("signal")

    app = app_of(table, clock=clock)
    app.on_response_prepare.append(on_prepare)
    served = await serve(app)
    client = await RawClient.connect(served)
    await client.get("/x")
    await client.read_all()
    await until(lambda: closed)
    assert 0 == served.sse.connections == served.sse.detached


# -- what is yielded -------------------------------------------------------------------


@dataclasses.dataclass
class Price:
    """A price."""

    value: float


@dataclasses.dataclass
class Offer(Price):
    """A price of a kind."""


@dataclasses.dataclass
class Other:
    """Something else."""

    value: float


async def test_events_are_named_by_their_types(
    serve: Serve, clock: SettableClock
) -> None:
    """``events=`` names what is yielded by its type or the nearest base of it."""
    table = SSERouteTableDef()

    async def typed(it: Any) -> AsyncIterator[Any]:
        yield Price(1)
        yield Offer(2)
        yield Other(3)
        yield "text"
        yield 5
        yield True
        yield None
        yield ServerSentEvent(Price(6))
        yield ServerSentEvent(Price(7), event="own")
        yield ServerSentEvent("x")
        yield {"a": 1}

    events = {"price": Price, "words": str, "number": int}
    table.sse_route("/private", events=events, name="private")(typed)
    table.sse_route("/shared", events=events, shared=True, name="shared")(typed)
    served = await serve(app_of(table, clock=clock))
    for path in ("/private", "/shared"):
        response = await ask(served, path)
        named = [
            (block.get("event"), block["data"])
            for block in response.blocks
            if not block.get("event", "").startswith("sse-")
        ]
        assert [
            ("price", '{"value":1}'),
            ("price", '{"value":2}'),
            (None, '{"value":3}'),
            ("words", "text"),
            ("number", "5"),
            ("number", "true"),
            ("price", '{"value":6}'),
            ("own", '{"value":7}'),
            ("words", "x"),
            (None, '{"a":1}'),
        ] == named


@pytest.mark.parametrize("shared", [False, True])
async def test_none_opens_the_stream(
    serve: Serve, clock: SettableClock, shared: bool
) -> None:
    """``yield None`` opens the stream at once, and sends nothing."""
    table = SSERouteTableDef()
    go = asyncio.Event()

    async def x(it: Any) -> AsyncIterator[Any]:
        yield None
        await go.wait()
        yield None
        yield "x"
        yield None

    table.sse_route("/x", shared=shared, open_timeout=1000)(x)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/x")
    await client.read_until(b"sse-hello")
    await until(lambda: client.received.endswith(b"\n\n\r\n"))
    go.set()
    await client.read_until(b"sse-end")
    response = parse_response(client.received)
    assert ["x"] == response.events
    assert 3 == len(response.blocks)


async def test_an_event_without_data(serve: Serve, clock: SettableClock) -> None:
    """A named event fires without data; a comment or ``retry`` alone fires nothing."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(event="ping")
        yield ServerSentEvent(comment="no event\nat all")
        yield ServerSentEvent(retry=1)

    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x")
    check_law(response.body)
    ping, comment, retry = response.blocks[1:-1]
    assert {"id": ping["id"], "event": "ping", "data": ""} == ping
    assert {"": "no event\nat all"} == comment
    assert {"retry": "500"} == retry


async def test_dumps(serve: Serve, clock: SettableClock) -> None:
    """`setup(dumps=...)` makes the JSON of what is yielded, and not that of ours."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[Any]:
        yield {"a": 1}
        yield "text"

    served = await serve(
        app_of(table, clock=clock, dumps=lambda value: json.dumps(value, indent=1))
    )
    response = await ask(served, "/x")
    assert ['{\n "a": 1\n}', "text"] == response.events
    assert b'json\ndata: {\ndata:  "a": 1\ndata: }\n' in response.body
    assert {"heartbeat": 15.0, "resumed": "fresh"} == response.data("sse-hello")


# -- coroutine handlers ----------------------------------------------------------------


class Lines:
    """An async iterator that is no generator: it has nothing to close."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str:
        if not self.lines:
            raise StopAsyncIteration
        return self.lines.pop(0)


class Many:
    """An async iterable that makes an iterator."""

    def __aiter__(self) -> AsyncIterator[str]:
        return Lines("c", "d")


@pytest.mark.parametrize(
    ("result", "data"),
    [
        (numbers, ["1", "2"]),
        (lambda request: Lines("a", "b"), ["a", "b"]),
        (lambda request: Many(), ["c", "d"]),
        (lambda request: Lines(), []),
    ],
)
async def test_a_coroutine_returns_an_async_iterator(
    serve: Serve, clock: SettableClock, result: Any, data: list[str]
) -> None:
    """Any async iterator or iterable is streamed."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> Any:
        await asyncio.sleep(0)
        return result(request)

    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x")
    assert (200, data) == (response.status, response.events)
    assert "finished" == response.data("sse-end")["reason"]


@pytest.mark.parametrize(
    "result",
    [None, 1, "text", [1, 2], numbers, web.Response(text="x"), iter([1])],
    ids=lambda value: type(value).__name__,
)
async def test_a_coroutine_that_returns_something_else(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture, result: Any
) -> None:
    """The answer is 500, and the log names the handler and what it must return."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> Any:
        return result

    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x")
    assert 500 == response.status
    (record,) = [r for r in caplog.records if r.exc_info]
    text = str(record.exc_info[1]) if record.exc_info else ""
    assert "<locals>.x returned" in text
    assert "must return Channels, or an async iterator" in text


# -- shared runs -----------------------------------------------------------------------

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


async def test_a_shared_run_is_nobodys(serve: Serve, clock: SettableClock) -> None:
    """It begins with the first client, in an empty context, and is one for all.

    It is keyed by route and match_info: queries and headers are no part of it.
    """
    begun: list[SharedRun] = []
    table = SSERouteTableDef()

    @table.sse_route("/ticker/{symbol}", shared=True)
    async def ticker(run: SharedRun) -> AsyncIterator[Any]:
        begun.append(run)
        yield [WHO.get(), run.match_info["symbol"], run.path, len(begun)]
        await asyncio.Event().wait()

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> web.StreamResponse:
        WHO.set("somebody")
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(middlewares=[middleware])
    setup(app, table, clock=clock, history=1)
    served = await serve(app)
    assert [] == begun
    async with (
        served.stream("/ticker/a?x=1") as one,
        served.stream("/ticker/a?x=2", headers={"Authorization": "other"}) as two,
        served.stream("/ticker/b") as three,
    ):
        first = json.loads((await one.next()).data)
        assert ["nobody", "a", "/ticker/a", 1] == first
        assert first == json.loads((await two.next()).data)
        assert ["nobody", "b", "/ticker/b", 2] == json.loads((await three.next()).data)
    assert [app, app] == [run.app for run in begun]
    assert "<SharedRun /ticker/a>" == repr(begun[0])
