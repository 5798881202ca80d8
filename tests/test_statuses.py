"""Statuses before a stream, and what a failure is told as once it has begun."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    EventError,
    EventTooLarge,
    Reconnect,
    ServerSentEvent,
    SSERouteTableDef,
)
from aiohttp_sse_routes.http.hub import HUB_KEY
from aiohttp_sse_routes.testing import SettableClock, StreamEnded

from .helpers import RawClient, Served, app_of, until
from .rawhttp import RawResponse, ask, check_law, parse_response

Serve = Callable[..., Awaitable[Served]]
Log = pytest.LogCaptureFixture

SECRET = "the exception's own text"


def complaints(caplog: Log) -> list[logging.LogRecord]:
    """Return what was logged as a warning or worse."""
    return [r for r in caplog.records if r.levelno >= logging.WARNING]


def at_rest(served: Served) -> bool:
    """Return whether nothing runs, waits or is counted."""
    hub = served.app[HUB_KEY]
    return not (
        hub.limits.counts or hub.producers or hub.connections or len(hub.private)
    )


def table_that_refuses(
    source: str, refuse: Callable[[], Any], log: list[str]
) -> SSERouteTableDef:
    """Return a table whose route ``/x`` calls *refuse* at *source*."""
    table = SSERouteTableDef()

    async def generator(it: Any) -> AsyncIterator[str]:
        log.append("begun")
        try:
            if source in ("generator", "shared", "awaiting", "shared-awaiting"):
                if "awaiting" in source:
                    await asyncio.sleep(0)
                refuse()
            yield "x"
        finally:
            log.append("closed")

    async def coroutine(request: web.Request) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        refuse()
        return generator(request)

    def guard(request: web.Request) -> Any:
        return refuse()

    async def async_guard(request: web.Request) -> Any:
        await asyncio.sleep(0)
        return refuse()

    options: dict[str, Any] = {"open_timeout": 1000.0}
    if source.startswith("shared"):
        options["shared"] = True
    if source.endswith("async-guard"):
        options["guard"] = async_guard
    elif source.endswith("guard"):
        options["guard"] = guard
    table.sse_route("/x", **options)(coroutine if source == "coroutine" else generator)
    return table


SOURCES = [
    "guard",
    "async-guard",
    "shared-guard",
    "shared-async-guard",
    "coroutine",
    "generator",
    "awaiting",
    "shared",
    "shared-awaiting",
]


def raising(make: Callable[[], BaseException]) -> Callable[[], Any]:
    """Return a function that raises what *make* makes."""

    def refuse() -> None:
        raise make()

    return refuse


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda: web.HTTPUnauthorized(headers={"WWW-Authenticate": "Basic"}), 401),
        (lambda: web.HTTPForbidden(text="not you"), 403),
        (web.HTTPNotFound, 404),
        (lambda: web.HTTPFound("/login"), 302),
    ],
)
async def test_a_refusal_is_a_real_status(
    serve: Serve,
    clock: SettableClock,
    caplog: Log,
    source: str,
    make: Callable[[], web.HTTPException],
    status: int,
) -> None:
    """What is raised before the stream is the answer, with its headers and body."""
    log: list[str] = []
    table = table_that_refuses(source, raising(make), log)
    served = await serve(app_of(table, clock=clock))
    expected = make()
    client = await RawClient.connect(served)
    for _ in range(2):
        response = await ask(served, "/x", client=client)
        assert status == response.status
        assert (expected.text or "").encode() == response.body
        for name, value in expected.headers.items():
            assert value == response.headers[name]
        assert b"" == response.rest
    await until(lambda: at_rest(served))
    begins = "guard" not in source and source != "coroutine"
    assert ["begun", "closed"] * 2 * begins == log
    assert [] == complaints(caplog)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError(SECRET),
        lambda: ConnectionResetError(SECRET),
    ],
)
async def test_another_exception_is_500(
    serve: Serve,
    clock: SettableClock,
    caplog: Log,
    source: str,
    make: Callable[[], Exception],
) -> None:
    """Any other exception before the stream is 500, logged once, and not shown."""
    table = table_that_refuses(source, raising(make), [])
    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x")
    assert 500 == response.status
    assert SECRET.encode() not in response.body
    assert b"event-stream" not in response.headers["Content-Type"].encode()
    await until(lambda: at_rest(served))
    (record,) = complaints(caplog)
    assert record.exc_info
    assert type(make()) is record.exc_info[0]


@pytest.mark.parametrize("source", ["generator", "awaiting", "shared-awaiting"])
async def test_a_cancellation_of_the_generators_own_is_500(
    serve: Serve, clock: SettableClock, caplog: Log, source: str
) -> None:
    """Who awaited what another has cancelled has failed: its client is answered."""
    table = table_that_refuses(source, raising(asyncio.CancelledError), [])
    served = await serve(app_of(table, clock=clock))
    assert 500 == (await ask(served, "/x")).status
    await until(lambda: at_rest(served))
    (record,) = complaints(caplog)
    assert record.exc_info
    assert record.exc_info[1]
    assert isinstance(record.exc_info[1].__cause__, asyncio.CancelledError)


@pytest.mark.parametrize("source", ["guard", "async-guard", "shared-guard"])
@pytest.mark.parametrize(
    ("value", "status"),
    [(False, 403), (True, 200), (None, 200), (0, 200), ("", 200), ([], 200)],
)
async def test_a_guard_refuses_by_false_alone(
    serve: Serve, clock: SettableClock, source: str, value: object, status: int
) -> None:
    """``False`` is 403; a guard that returns nothing has nothing against it."""
    served = await serve(
        app_of(table_that_refuses(source, lambda: value, []), clock=clock)
    )
    assert status == (await ask(served, "/x")).status
    assert status == (await ask(served, "/x", method="HEAD")).status


async def test_guard_as_a_default(serve: Serve, clock: SettableClock) -> None:
    """A guard that `setup` was given is every route's that has none of its own."""
    table = SSERouteTableDef()

    async def one(request: web.Request) -> AsyncIterator[str]:
        yield "one"

    table.sse_route("/default", name="default")(one)
    table.sse_route("/own", guard=lambda request: True, name="own")(one)
    table.sse_route("/none", guard=None, name="none")(one)
    served = await serve(app_of(table, clock=clock, guard=lambda request: False))
    for path, status in (("/default", 403), ("/own", 200), ("/none", 200)):
        assert status == (await ask(served, path)).status


async def test_the_guard_is_asked_on_every_connect(
    serve: Serve, clock: SettableClock
) -> None:
    """Resumed or not: who may no more is refused, and the run waits for who may."""
    allowed = True
    asked = 0
    table = SSERouteTableDef()
    go = asyncio.Event()

    def guard(request: web.Request) -> bool:
        nonlocal asked
        asked += 1
        return allowed

    @table.sse_route("/x", guard=guard)
    async def x(request: web.Request) -> AsyncIterator[str]:
        yield "one"
        await go.wait()
        yield "two"

    served = await serve(app_of(table, clock=clock))
    stream = served.stream("/x")
    await stream.open()
    assert "one" == (await stream.next()).data
    allowed = False
    await stream.resume()
    assert 403 == stream.status
    allowed = True
    await stream.resume()
    go.set()
    assert "two" == (await stream.next()).data
    assert {"heartbeat": 15.0, "resumed": "continued"} == stream.hello
    await stream.rest()
    assert 3 == asked
    # The end was told: nobody is asked about that.
    assert 204 == (await stream.resume()).status
    assert 3 == asked
    stream.drop()


# -- guard and coroutine take their time -----------------------------------------------


@pytest.mark.parametrize("source", ["guard", "coroutine"])
async def test_guard_and_coroutine_are_awaited_without_limit(
    serve: Serve, clock: SettableClock, source: str
) -> None:
    """However long they take, what they raise is the status."""
    go = asyncio.Event()
    table = SSERouteTableDef()

    async def slow(request: web.Request) -> None:
        await go.wait()
        raise web.HTTPForbidden

    async def plain(request: web.Request) -> AsyncIterator[str]:
        yield "x"

    async def refusing(request: web.Request) -> AsyncIterator[str]:
        await slow(request)
        return plain(request)

    if source == "guard":
        table.sse_route("/x", guard=slow, open_timeout=0)(plain)
    else:
        table.sse_route("/x", open_timeout=0)(refusing)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/x")
    await until(lambda: served.app[HUB_KEY].limits.counts)
    await clock.advance(1000)
    assert b"" == client.received
    go.set()
    await client.read_until(b"\r\n\r\n")
    assert 403 == parse_response(client.received).status


# -- several clients wait for one shared run -------------------------------------------


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda: web.HTTPForbidden(text="nobody", headers={"X-Why": "no"}), 403),
        (lambda: web.HTTPFound("/login"), 302),
        (lambda: ValueError(SECRET), 500),
        (asyncio.CancelledError, 500),
    ],
)
async def test_each_waiting_client_has_an_answer_of_its_own(
    serve: Serve,
    clock: SettableClock,
    caplog: Log,
    make: Callable[[], BaseException],
    status: int,
) -> None:
    """A shared run that fails before its first yield answers all who wait for it."""
    go = asyncio.Event()
    begun = 0
    table = SSERouteTableDef()

    @table.sse_route("/x", shared=True, open_timeout=1000)
    async def x(run: Any) -> AsyncIterator[str]:
        nonlocal begun
        begun += 1
        if begun == 1:
            await go.wait()
            raise make()
        yield "again"

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.add("X-Signal", "once")

    app = app_of(table, clock=clock)
    app.on_response_prepare.append(on_prepare)
    served = await serve(app)
    clients = [await RawClient.connect(served) for _ in range(3)]
    for client in clients:
        await client.get("/x")
    await until(lambda: served.app[HUB_KEY].limits.counts[("all",)] == 3)
    go.set()
    for client in clients:
        await client.read_until(b"\r\n\r\n")
        while not parse_response(client.received).complete:
            await client.read()
        response = parse_response(client.received)
        assert (status, b"") == (response.status, response.rest)
        assert ["once"] == response.headers.getall("X-Signal")
        if status == 403:
            assert (b"nobody", "no") == (response.body, response.headers["X-Why"])
        if status == 302:
            assert "/login" == response.headers["Location"]
    await until(lambda: at_rest(served))
    assert 1 == begun
    # It is forgotten: the next client begins it anew; aiohttp closes after a 500 only.
    client = clients[0] if status != 500 else await RawClient.connect(served)
    assert ["again"] == (await ask(served, "/x", client=client)).events
    logged = [len(traceback.format_tb(r.exc_info[2])) for r in complaints(caplog)]  # type: ignore[index]
    assert len(logged) == (3 if status == 500 else 0)
    assert len(set(logged)) <= 1, "a client's log tells of the others"


# -- once the stream has begun ---------------------------------------------------------


class Late:
    """A route whose generator fails when it is told to.

    Args:
        first: What it yields before.
        make: What it raises.
    """

    def __init__(
        self, first: list[Any], make: Callable[[], BaseException], **options: Any
    ) -> None:
        self.go = asyncio.Event()
        self.begun = 0
        self.table = SSERouteTableDef()

        async def x(it: Any) -> AsyncIterator[Any]:
            self.begun += 1
            for item in first:
                yield item
            await self.go.wait()
            raise make()

        self.table.sse_route("/x", **{"open_timeout": 0.001, **options})(x)

    async def fails(self, served: Served, *, method: str = "GET") -> RawResponse:
        """Return the whole response to a client that sees the failure."""
        client = await RawClient.connect(served)
        await client.send(f"{method} /x HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        await client.read_until(b"sse-hello")
        self.go.set()
        while not parse_response(client.received).complete:
            assert await client.read()
        self.go.clear()
        return parse_response(client.received)


EXCEPTIONS: list[tuple[Callable[[], BaseException], bool]] = [
    (lambda: ValueError(SECRET), False),
    (lambda: web.HTTPForbidden(text=SECRET), True),
    (lambda: web.HTTPNotFound(text=SECRET), True),
    (lambda: web.HTTPFound("/" + SECRET), False),
    (web.HTTPNoContent, False),
    (lambda: web.HTTPInternalServerError(text=SECRET), False),
    (lambda: ExceptionGroup(SECRET, [ValueError(SECRET)]), False),
    (lambda: asyncio.CancelledError(SECRET), False),
    (lambda: TimeoutError(SECRET), False),
    (lambda: StopAsyncIteration(SECRET), False),
]


def check_failure(response: RawResponse, caplog: Log) -> None:
    """Assert that a response tells of a failure as promised, and the log too."""
    assert (200, True) == (response.status, response.complete)
    assert SECRET.encode() not in response.body
    check_law(response.body)
    (block,) = response.named("sse-error")
    data = json.loads(block["data"])
    assert ["ref"] == list(data)
    expected = {"retry": "30000", "event": "sse-error", "json": ""}
    assert {**expected, "data": block["data"]} == block
    assert b'retry: 30000\nevent: sse-error\njson\ndata: {"ref":' in response.body
    (record,) = complaints(caplog)
    assert ("aiohttp_sse_routes", logging.ERROR) == (record.name, record.levelno)
    assert data["ref"] == record.__dict__["sse_ref"]
    assert data["ref"] in record.getMessage()
    assert record.exc_info


@pytest.mark.parametrize("first", [[], [None], ["one"]], ids=["silent", "none", "one"])
@pytest.mark.parametrize(("make", "refuses"), EXCEPTIONS)
async def test_a_late_exception_is_an_error_event(
    serve: Serve,
    clock: SettableClock,
    caplog: Log,
    first: list[Any],
    make: Callable[[], BaseException],
    refuses: bool,
) -> None:
    """It ends the stream with a ref that the log has too, and never with its text.

    A 4xx before the first event ends it for good; whatever it is, the body stays whole.
    """
    late = Late(first, make)
    served = await serve(app_of(late.table, clock=clock))
    response = await late.fails(served)
    check_failure(response, caplog)
    assert [item for item in first if item] == response.events
    last = response.blocks[-1]
    if refuses and first != ["one"]:
        assert "disconnected" == response.data("sse-end")["reason"]
        assert "sse-end" == last["event"]
        again = await ask(served, "/x", f"Last-Event-ID: {last['id']}")
        assert 204 == again.status
    else:
        assert "sse-error" == last["event"]
    await until(lambda: at_rest(served))
    assert 1 == late.begun


@pytest.mark.parametrize(("make", "refuses"), EXCEPTIONS[:2])
async def test_a_late_exception_without_control_events(
    serve: Serve,
    clock: SettableClock,
    caplog: Log,
    make: Callable[[], BaseException],
    refuses: bool,
) -> None:
    """Then the stream ends with ``retry: 30000`` alone."""
    late = Late(["one"], make, control_events=False)
    served = await serve(app_of(late.table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/x")
    await client.read_until(b"one")
    late.go.set()
    while not parse_response(client.received).complete:
        assert await client.read()
    response = parse_response(client.received)
    assert ["one"] == response.events
    assert {"retry": "30000"} == response.blocks[-1]
    assert b"sse-" not in response.body
    assert 1 == len(complaints(caplog))


@pytest.mark.parametrize("first", [[], [None]], ids=["silent", "none"])
async def test_a_late_4xx_of_a_shared_run_ends_for_good(
    serve: Serve, clock: SettableClock, caplog: Log, first: list[None]
) -> None:
    """Before its first event a shared run refuses all who follow, and who still wait.

    It is not begun again for them; a new client begins it anew.
    """
    late = Late(first, web.HTTPForbidden, shared=True)
    served = await serve(app_of(late.table, clock=clock))
    async with served.stream("/x") as other:
        await other.next("sse-hello")
        response = await late.fails(served)
        check_failure(response, caplog)
        assert "disconnected" == response.data("sse-end")["reason"]
        assert [] == await other.rest()
        types = [event.type for event in other.control]
        assert ["sse-hello", "sse-error", "sse-end"] == types
        assert 204 == (await other.resume()).status
    await clock.advance(100)
    assert 1 == late.begun


async def test_a_shared_run_that_begins_again_may_refuse(
    serve: Serve, clock: SettableClock, caplog: Log
) -> None:
    """A 4xx before the first event ends it for good in a later turn as in the first."""
    errors: list[Exception] = [web.HTTPForbidden(), ValueError()]
    late = Late([], errors.pop, shared=True)
    served = await serve(app_of(late.table, clock=clock))
    async with served.stream("/x") as stream:
        await stream.next("sse-hello")
        late.go.set()
        await until(lambda: len(errors) == 1)
        await clock.advance(1)
        await stream.rest()
    types = [event.type for event in stream.control]
    assert ["sse-hello", "sse-gap", "sse-error", "sse-end"] == types
    assert 2 == late.begun == len(complaints(caplog))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_failed_run_is_forgotten(
    serve: Serve, clock: SettableClock, caplog: Log, method: str
) -> None:
    """Who comes back is told of the gap; a GET begins anew, any other never does."""
    late = Late(["one"], ValueError, methods=(method,))
    served = await serve(app_of(late.table, clock=clock))
    response = await late.fails(served, method=method)
    place = response.blocks[1]["id"]
    client = await RawClient.connect(served)
    await client.send(
        f"{method} /x HTTP/1.1\r\nHost: t\r\nLast-Event-ID: {place}\r\n\r\n".encode()
    )
    await client.read_until(b"one" if method == "GET" else b"sse-end")
    again = parse_response(client.received)
    assert {"reason": "unknown", "after": place} == again.data("sse-gap")
    if method == "GET":
        assert 2 == late.begun
        assert "gap" == again.data("sse-hello")["resumed"]
    else:
        assert 1 == late.begun
        assert "gone" == again.data("sse-end")["reason"]


async def test_a_failure_that_nobody_sees(
    serve: Serve, clock: SettableClock, caplog: Log
) -> None:
    """A run that fails while its client is away is logged once, and forgotten."""
    late = Late(["one"], lambda: ValueError(SECRET))
    served = await serve(app_of(late.table, clock=clock))
    stream = await served.stream("/x").open()
    await stream.next()
    stream.drop()
    await until(lambda: served.sse.detached == 1)
    late.go.set()
    await until(lambda: served.sse.detached == 0)
    assert 1 == len(complaints(caplog))
    late.go.clear()
    await stream.resume()
    assert "one" == (await stream.next()).data
    assert ["unknown"] == [gap["reason"] for gap in stream.gaps]
    stream.drop()


async def test_what_was_yielded_comes_before_the_error(
    serve: Serve, clock: SettableClock
) -> None:
    """Events of the same turn as the failure are all delivered."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[int]:
        for number in range(10):
            yield number
        raise ValueError

    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x")
    assert [str(n) for n in range(10)] == response.events
    assert "sse-error" == response.blocks[-1]["event"]


async def test_yield_none_decides(
    serve: Serve, clock: SettableClock, caplog: Log
) -> None:
    """After ``yield None`` the stream has begun, though the failure comes at once."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[None]:
        yield None
        raise web.HTTPForbidden

    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x")
    check_failure(response, caplog)
    assert "disconnected" == response.data("sse-end")["reason"]


# -- the callables beside the handler --------------------------------------------------


@pytest.mark.parametrize("which", ["owner", "client_key", "guard"])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("make", "status"), [(lambda: ValueError(SECRET), 500), (web.HTTPUnauthorized, 401)]
)
async def test_exceptions_of_the_other_callables(
    serve: Serve,
    clock: SettableClock,
    caplog: Log,
    which: str,
    is_async: bool,
    make: Callable[[], Exception],
    status: int,
) -> None:
    """What owner, client_key and guard raise is the answer; no slot is kept."""
    table = SSERouteTableDef()

    async def x(request: web.Request) -> AsyncIterator[str]:
        yield "x"

    def refuse(request: web.Request) -> None:
        raise make()

    async def async_refuse(request: web.Request) -> None:
        raise make()

    ask_for = async_refuse if is_async else refuse
    options: dict[str, Any] = {"max_connections_per_client": 1}
    if which == "client_key":
        options["client_key"] = ask_for
        table.sse_route("/x")(x)
    else:
        table.sse_route("/x", **{which: ask_for})(x)  # type: ignore[arg-type]
    served = await serve(app_of(table, clock=clock, **options))
    for _ in range(3):
        response = await ask(served, "/x")
        assert status == response.status
        assert SECRET.encode() not in response.body
    assert at_rest(served)
    assert (3 if status == 500 else 0) == len(complaints(caplog))


# -- events that cannot be sent --------------------------------------------------------

UNSENDABLE = [
    object(),
    float("nan"),
    {"deep": [float("inf")]},
    b"\xff",
    "nul \0",
    "\ud800",
    "x" * 1000,
    ["x" * 1000],
    ServerSentEvent(object()),
    ServerSentEvent("x" * 1000, event="large"),
]


@pytest.mark.parametrize("value", UNSENDABLE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("before", [[], ["one"]])
async def test_an_event_that_cannot_be_sent(
    serve: Serve, clock: SettableClock, caplog: Log, value: Any, before: list[str]
) -> None:
    """It fails the stream that yielded it, and no other; the log says where."""
    table = SSERouteTableDef()
    finished: list[bool] = []

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[Any]:
        try:
            for item in before:
                yield item
            if "bad" in request.query:
                yield value
            yield "fine"
            await asyncio.Event().wait()
        finally:
            finished.append("bad" in request.query)

    served = await serve(app_of(table, clock=clock, max_event_bytes=500))
    async with served.stream("/x") as other:
        response = await ask(served, "/x?bad")
        check_failure(response, caplog)
        assert before == response.events
        assert [] == response.named("sse-end")
        (record,) = complaints(caplog)
        assert record.exc_info
        error = record.exc_info[1]
        assert isinstance(error, EventError)
        assert isinstance(error, EventTooLarge) == ("x" * 1000 in str(value))
        assert any("test_statuses.py:" in note for note in error.__notes__)
        assert [*before, "fine"] == [
            event.data for event in await other.collect(len(before) + 1)
        ]
        assert [True] == finished


@pytest.mark.parametrize("result", [None, b"\xff", "\0", {"a": 1}])
async def test_dumps_that_fails(
    serve: Serve, clock: SettableClock, caplog: Log, result: Any
) -> None:
    """What `dumps` raises, or returns in error, fails the stream; text passes it by."""
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[Any]:
        yield "text"
        yield {"a": 1}

    def dumps(value: Any) -> Any:
        if result is None:
            raise ValueError(SECRET)
        return result

    served = await serve(app_of(table, clock=clock, dumps=dumps))
    response = await ask(served, "/x")
    check_failure(response, caplog)
    assert ["text"] == response.events


async def test_an_id_of_ones_own_in_a_shared_run(
    serve: Serve, clock: SettableClock, caplog: Log
) -> None:
    """Ids of shared runs are made here: one's own is a `ValueError`, and logged."""
    table = SSERouteTableDef()

    @table.sse_route("/x", shared=True)
    async def x(run: Any) -> AsyncIterator[Any]:
        yield "one"
        yield ServerSentEvent("two", id="own")

    served = await serve(app_of(table, clock=clock))
    async with served.stream("/x") as stream:
        assert "one" == (await stream.next()).data
        await until(lambda: complaints(caplog))
    (record,) = complaints(caplog)
    assert record.exc_info
    assert isinstance(record.exc_info[1], ValueError)
    assert "'own'" in str(record.exc_info[1])


# -- Reconnect -------------------------------------------------------------------------


class Returning:
    """A route whose generator sends its clients away, and counts how often it began."""

    def __init__(self, after: float, tail: list[Any], **options: Any) -> None:
        self.begun = 0
        self.table = SSERouteTableDef()

        async def x(it: Any) -> AsyncIterator[Any]:
            self.begun += 1
            yield f"run {self.begun}"
            for item in tail:
                yield item
            raise Reconnect(after)

        self.table.sse_route("/x", **options)(x)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("after", [0, 5, 7.5, 100])
@pytest.mark.parametrize(
    "tail",
    [[], ["two"], [ServerSentEvent(comment="bye"), ServerSentEvent(retry=9000)]],
    ids=["", "more", "comment"],
)
async def test_reconnect(
    serve: Serve,
    clock: SettableClock,
    caplog: Log,
    shared: bool,
    after: float,
    tail: list[Any],
) -> None:
    """The stream ends now, without an error; who comes back then gets a new run.

    Nothing was lost, so no gap is told, also when it is to come back after the time
    that runs are remembered.
    """
    route = Returning(after, tail, shared=shared)
    served = await serve(app_of(route.table, clock=clock))
    headers: list[str] = []
    for number in range(1, 4):
        response = await ask(served, "/x", *headers)
        check_law(response.body)
        assert number == route.begun
        assert f"run {number}" == response.events[0]
        assert "fresh" == response.data("sse-hello")["resumed"]
        assert {"retry": str(max(500, round(after * 1000)))} == response.blocks[-1]
        assert not response.named("sse-gap")
        assert not response.named("sse-end")
        place = [block["id"] for block in response.blocks if "id" in block][-1]
        headers = [f"Last-Event-ID: {place}"]
        await clock.advance(after)
    assert [] == complaints(caplog)


@pytest.mark.parametrize("shared", [False, True])
async def test_who_missed_the_last_events_gets_them_first(
    serve: Serve, clock: SettableClock, shared: bool
) -> None:
    """A client that was cut before the end of a run has the rest, and then the new."""
    route = Returning(5, ["two"], shared=shared)
    served = await serve(app_of(route.table, clock=clock))
    response = await ask(served, "/x")
    place = response.blocks[1]["id"]
    response = await ask(served, "/x", f"Last-Event-ID: {place}")
    assert ["two"] == response.events
    assert "continued" == response.data("sse-hello")["resumed"]
    assert {"retry": "5000"} == response.blocks[-1]
    assert 1 == route.begun
    place = response.blocks[1]["id"]
    response = await ask(served, "/x", f"Last-Event-ID: {place}")
    assert ["run 2", "two"] == response.events
    assert not response.named("sse-gap")


@pytest.mark.parametrize("shared", [False, True])
async def test_reconnect_before_the_first_yield(
    serve: Serve, clock: SettableClock, shared: bool
) -> None:
    """It is no refusal: the stream opens, and ends."""
    table = SSERouteTableDef()

    async def x(it: Any) -> AsyncIterator[str]:
        raise Reconnect(after=9)
        yield

    table.sse_route("/x", shared=shared)(x)
    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x")
    assert 200 == response.status
    assert {"retry": "9000"} == response.blocks[-1]


@pytest.mark.parametrize(
    ("after", "error"),
    [("5", TypeError), (True, TypeError), (None, TypeError), (-1, ValueError)],
)
def test_reconnect_takes_seconds(after: Any, error: type[Exception]) -> None:
    """Something else is told where it is written."""
    with pytest.raises(error, match="Reconnect"):
        Reconnect(after)
    assert 5.0 == Reconnect().after


async def test_the_test_client_tells_an_end(serve: Serve, clock: SettableClock) -> None:
    """`StreamEnded` says what had come when the stream ended too early."""
    route = Returning(5, [])
    served = await serve(app_of(route.table, clock=clock))
    async with served.stream("/x") as stream:
        await stream.next()
        with pytest.raises(StreamEnded) as caught:
            await stream.next()
    assert ["run 1"] == [event.data for event in caught.value.seen]
    assert 5000 == stream.retry
