"""What a middleware holds open round a handler stays open as long as its generator.

A private run outlives its connection for a while; the request that began it does not
return before the run has ended. In both ``handler_cancellation`` modes: aiohttp's
cancellation of a handler whose client has left is not the run's end.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import SharedRun, SSERouteTableDef
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import (
    PROMPTLY,
    Follower,
    complaints,
    connections_of,
    parked,
    producers_of,
    stalled,
)

Serve = Callable[..., Awaitable[Served]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

USER: contextvars.ContextVar[str] = contextvars.ContextVar("USER", default="nobody")


class Journal:
    """What happened, in order; and a middleware and routes that write in it.

    Attributes:
        lines: What happened.
        limits: The time limit of each request, which a test moves.
        go: Lets the generator come to its end.
        left: The number of cancellations that each middleware found left over.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.limits: list[asyncio.Timeout] = []
        self.go = asyncio.Event()
        self.left: list[int] = []
        self._number = 0

    @web.middleware
    async def holding(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Hold something open round the handler, as one with a transaction does."""
        self._number += 1
        name = f"middleware {self._number}"
        task = asyncio.current_task()
        assert task is not None
        self.lines.append(f"{name} opens")
        try:
            response = await handler(request)
            # A cancellation that was passed over is not left to hit this.
            self.left.append(task.cancelling())
            await asyncio.sleep(0)
        finally:
            self.lines.append(f"{name} closes")
        return response

    @web.middleware
    async def limiting(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Put a time limit on the handler, which does not run until a test lets it."""
        try:
            async with asyncio.timeout(None) as limit:
                self.limits.append(limit)
                return await handler(request)
        except TimeoutError:
            self.lines.append("middleware timed out")
            return web.Response(status=504, text="TOO LATE")
        except asyncio.CancelledError:
            self.lines.append("middleware cancelled")
            raise

    @web.middleware
    async def in_a_task(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Run the handler in a task of its own, as ``wait_for`` did before 3.12."""
        inner = asyncio.ensure_future(handler(request))
        cancelled: asyncio.CancelledError | None = None
        while not inner.done():
            try:
                await asyncio.wait({inner})
            except asyncio.CancelledError as exc:
                inner.cancel()
                cancelled = exc
        if cancelled is not None:
            raise cancelled
        return inner.result()

    def table(self) -> SSERouteTableDef:
        """Return routes whose generators write in the journal."""
        table = SSERouteTableDef()

        async def lived() -> AsyncIterator[str]:
            try:
                yield "first"
                await self.go.wait()
                yield "last"
            finally:
                await asyncio.sleep(0)
                self.lines.append("generator closes")

        @table.sse_route("/replay")
        async def replay(request: web.Request) -> AsyncIterator[Any]:
            return lived()

        @table.sse_route("/once", resume=0)
        async def once(request: web.Request) -> AsyncIterator[Any]:
            return lived()

        @table.sse_route("/endless")
        async def endless(request: web.Request) -> AsyncIterator[Any]:
            try:
                while True:
                    yield "x" * 20_000
            finally:
                self.lines.append("generator closes")

        return table

    def app(self, clock: SettableClock, *middlewares: Any) -> web.Application:
        """Return an application with these *middlewares*, the outermost first."""
        app = app_of(self.table(), clock=clock)
        app.middlewares.extend(middlewares or (self.holding,))
        return app


@pytest.fixture
def journal() -> Journal:
    """An empty journal."""
    return Journal()


async def opened(served: Served, path: str) -> Follower:
    """Return a client that has the first event of *path*."""
    follower = Follower(served, path)
    await follower.connect()
    await follower.read_events()
    return follower


async def gone(served: Served, follower: Follower) -> None:
    """Let *follower* leave, and its connection end."""
    assert follower.client is not None
    follower.client.close()
    await until(lambda: not served.sse.connections, timeout=PROMPTLY)


ONE = ["middleware 1 opens", "generator closes", "middleware 1 closes"]


async def test_a_middleware_outlasts_a_detached_run_that_expires(
    serve: Serve,
    clock: SettableClock,
    journal: Journal,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It closes when the time to resume is over, behind the generator."""
    served = await serve(journal.app(clock))
    follower = await opened(served, "/replay")
    await gone(served, follower)
    await clock.advance(14)
    assert ["middleware 1 opens"] == journal.lines
    await clock.advance(2)
    await until(lambda: len(journal.lines) == 3, timeout=PROMPTLY)
    assert ONE == journal.lines
    assert [0] == journal.left
    assert not complaints(caplog)


async def test_a_middleware_outlasts_a_run_that_finishes_while_detached(
    serve: Serve, clock: SettableClock, journal: Journal
) -> None:
    """It closes when the generator has ended; the client still gets the rest."""
    served = await serve(journal.app(clock))
    follower = await opened(served, "/replay")
    await gone(served, follower)
    assert ["middleware 1 opens"] == journal.lines
    journal.go.set()
    await until(lambda: len(journal.lines) == 3, timeout=PROMPTLY)
    assert ONE == journal.lines
    await follower.connect()
    await follower.read_all()
    assert ["first", "last"] == follower.events
    assert ["finished"] == follower.ends
    assert not follower.gaps


async def test_a_middleware_outlasts_a_run_that_another_request_has_resumed(
    serve: Serve, clock: SettableClock, journal: Journal
) -> None:
    """The request that began the run returns last, whoever followed it meanwhile."""
    served = await serve(journal.app(clock))
    follower = await opened(served, "/replay")
    await gone(served, follower)
    await follower.connect()
    await follower.read_until(lambda: len(follower.control) == 2)
    assert ["middleware 1 opens", "middleware 2 opens"] == journal.lines
    await gone(served, follower)
    await until(lambda: len(journal.lines) == 3, timeout=PROMPTLY)
    assert "middleware 2 closes" == journal.lines[2]
    await follower.connect()
    await follower.read_until(lambda: len(follower.control) == 3)
    journal.go.set()
    await follower.read_all()
    await until(lambda: len(journal.lines) == 7, timeout=PROMPTLY)
    assert ["first", "last"] == follower.events
    assert ["middleware 3 opens", "generator closes"] == journal.lines[3:5]
    assert {"middleware 1 closes", "middleware 3 closes"} == set(journal.lines[5:])
    assert [0, 0, 0] == journal.left


async def test_a_middleware_outlasts_a_connection_that_was_replaced(
    serve: Serve, clock: SettableClock, journal: Journal
) -> None:
    """The replaced request stays, though its client's connection is closed."""
    served = await serve(journal.app(clock))
    follower = await opened(served, "/replay")
    older = follower.client
    assert older is not None
    await follower.connect()
    await follower.read_until(lambda: len(follower.control) == 2)
    rest = await older.read_all()
    assert b"replaced" in rest
    older.close()
    await clock.advance(20)
    assert ["middleware 1 opens", "middleware 2 opens"] == journal.lines
    journal.go.set()
    await follower.read_all()
    await until(lambda: len(journal.lines) == 5, timeout=PROMPTLY)
    assert "generator closes" == journal.lines[2]
    assert [0, 0] == journal.left


@pytest.mark.parametrize("path", ["/replay", "/once"])
@pytest.mark.parametrize("how", ["finished", "left", "shutdown"])
async def test_a_generator_closes_before_the_middleware_round_it(
    serve: Serve, clock: SettableClock, journal: Journal, path: str, how: str
) -> None:
    """What the generator's ``finally`` uses is still open, whatever ended it."""
    served = await serve(journal.app(clock))
    follower = await opened(served, path)
    if how == "finished":
        journal.go.set()
        await follower.read_all()
    elif how == "left":
        await gone(served, follower)
        await clock.advance(20)
    else:
        await served.close()
    await until(lambda: len(journal.lines) == 3, timeout=PROMPTLY)
    assert ONE == journal.lines
    assert [0] == journal.left


@pytest.mark.parametrize("state", ["streaming", "parked", "detached"])
@pytest.mark.parametrize("nested", [False, True], ids=["direct", "in-a-task"])
async def test_a_middlewares_own_time_limit_ends_stream_and_run(
    serve: Serve,
    clock: SettableClock,
    journal: Journal,
    state: str,
    nested: bool,
    handler_cancellation: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client sees a clean end and nothing behind it, and comes back by itself."""
    middlewares: list[Any] = [journal.limiting]
    if nested:
        middlewares.append(journal.in_a_task)
    served = await serve(journal.app(clock, *middlewares))
    if state == "parked":
        follower = await stalled(served, "/endless")
    else:
        follower = await opened(served, "/replay")
    if state == "detached":
        await gone(served, follower)
    assert [] == journal.lines
    journal.limits[0].reschedule(asyncio.get_running_loop().time())
    await until(lambda: len(journal.lines) == 2, timeout=PROMPTLY)
    # A task in between that aiohttp has cancelled stays so.
    last = "cancelled" if nested and state == "detached" else "timed out"
    last = last if handler_cancellation else "timed out"
    assert ["generator closes", f"middleware {last}"] == journal.lines
    assert not producers_of(served)
    assert not complaints(caplog)
    assert not served.sse.detached
    if state == "detached":
        return
    assert follower.client is not None
    # The response has said that it would be closed, and is.
    await follower.client.read_all()
    assert b"TOO LATE" not in follower.client.received
    assert follower.client.received.endswith(b"\r\n0\r\n\r\n")
    assert b"retry: " in follower.client.received.rpartition(b"id: ")[2]
    assert b"sse-end" not in follower.client.received


@pytest.mark.parametrize("state", ["streaming", "detached", "resumed"])
async def test_a_client_comes_back_to_a_run_that_a_time_limit_has_ended(
    serve: Serve, clock: SettableClock, journal: Journal, state: str
) -> None:
    """It begins a new one, and is told that what was between is unknown."""
    served = await serve(journal.app(clock, journal.limiting))
    follower = await opened(served, "/replay")
    if state != "streaming":
        await gone(served, follower)
    if state == "resumed":
        await follower.connect()
        await follower.read_until(lambda: len(follower.control) == 2)
    journal.limits[0].reschedule(asyncio.get_running_loop().time())
    await until(lambda: len(journal.lines) == 2, timeout=PROMPTLY)
    if state != "detached":
        await follower.read_all()
        assert follower.complete
        assert [] == follower.ends
    await follower.connect()
    await follower.read_events(2)
    assert ["unknown"] == follower.gaps
    assert 1 == len(producers_of(served))
    journal.go.set()
    await follower.read_all()
    assert ["first", "first", "last"] == follower.events
    assert ["finished"] == follower.ends


async def test_a_client_that_comes_back_as_its_run_is_ended_is_sent_back(
    serve: Serve, clock: SettableClock, journal: Journal
) -> None:
    """While its headers are made the time limit ends the run: it is told to retry."""
    app = journal.app(clock, journal.limiting)
    held: list[asyncio.Event] = []

    async def hold(request: web.Request, response: web.StreamResponse) -> None:
        if "Last-Event-ID" in request.headers and not held:
            held.append(asyncio.Event())
            await held[0].wait()

    app.on_response_prepare.append(hold)
    served = await serve(app)
    follower = await opened(served, "/replay")
    await gone(served, follower)
    await follower.connect()
    await until(lambda: held)
    journal.limits[0].reschedule(asyncio.get_running_loop().time())
    await until(lambda: len(journal.lines) == 2, timeout=PROMPTLY)
    held[0].set()
    await follower.read_all()
    assert follower.complete
    assert [] == follower.ends
    journal.go.set()
    await follower.connect()
    await follower.read_all()
    assert ["unknown"] == follower.gaps
    assert ["first", "first", "last"] == follower.events


async def test_what_a_middleware_answers_in_place_of_a_stream_is_not_sent(
    serve: Serve, clock: SettableClock
) -> None:
    """A response behind the stream's end would be taken for the next request's."""
    table = SSERouteTableDef()

    @table.sse_route("/once", resume=0)
    async def once(request: web.Request) -> AsyncIterator[Any]:
        yield "first"

    @web.middleware
    async def answering(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if request.path == "/once":
            return web.Response(text="IN PLACE", headers={"X-In-Place": "1"})
        return response

    async def plain(request: web.Request) -> web.Response:
        return web.Response(text="plain")

    app = app_of(table, clock=clock)
    app.middlewares.append(answering)
    app.router.add_get("/plain", plain)
    served = await serve(app)
    client = await RawClient.connect(served)
    await client.get("/once")
    await client.read_until(b"\r\n0\r\n\r\n")
    await client.get("/plain")
    await client.read_until(b"plain")
    answer = client.received.partition(b"\r\n0\r\n\r\n")[2]
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"lace" not in answer


@pytest.mark.parametrize("first", ["loss", "limit"])
async def test_a_time_limit_that_comes_with_the_loss_is_not_lost(
    serve: Serve, clock: SettableClock, journal: Journal, first: str
) -> None:
    """Of two cancellations in one turn of the loop, only aiohttp's is passed over."""
    served = await serve(journal.app(clock, journal.limiting))
    await opened(served, "/replay")
    [connection] = connections_of(served)
    now = asyncio.get_running_loop().time()
    if first == "limit":
        journal.limits[0].reschedule(now)
    connection.transport.abort()
    if first == "loss":
        journal.limits[0].reschedule(now)
    await until(lambda: len(journal.lines) == 2, timeout=PROMPTLY)
    assert ["generator closes", "middleware timed out"] == journal.lines
    await until(lambda: not producers_of(served), timeout=PROMPTLY)


async def test_a_loss_is_no_end_of_a_run_whose_handler_is_in_another_task(
    serve: Serve, clock: SettableClock, journal: Journal
) -> None:
    """Where a middleware hands aiohttp's cancellation on, the run still waits."""
    served = await serve(journal.app(clock, journal.in_a_task))
    follower = await opened(served, "/replay")
    await gone(served, follower)
    await clock.advance(10)
    assert 1 == served.sse.detached
    await follower.connect()
    journal.go.set()
    await follower.read_all()
    assert ["first", "last"] == follower.events
    assert not follower.gaps


async def test_a_stalled_clients_middleware_closes_with_its_run(
    serve: Serve, clock: SettableClock, journal: Journal
) -> None:
    """One whose client reads nothing is held, and let go, as any other."""
    served = await serve(journal.app(clock, journal.holding))
    follower = await stalled(served, "/endless")
    assert follower.client is not None
    follower.client.reset()
    await until(lambda: served.sse.detached, timeout=PROMPTLY)
    assert ["middleware 1 opens"] == journal.lines
    assert parked(served)
    await clock.advance(20)
    await until(lambda: len(journal.lines) == 3, timeout=PROMPTLY)
    assert ONE == journal.lines


async def test_context_variables_of_middlewares_are_seen_in_private_runs_only(
    serve: Serve, clock: SettableClock
) -> None:
    """A shared run begins in an empty context: it is no request's."""
    table = SSERouteTableDef()

    @table.sse_route("/own")
    async def own(request: web.Request) -> AsyncIterator[Any]:
        yield USER.get()
        USER.set("changed")
        await asyncio.sleep(0)
        yield USER.get()

    @table.sse_route("/shared", shared=True)
    async def shared(run: SharedRun) -> AsyncIterator[Any]:
        yield USER.get()
        yield str(len(contextvars.copy_context()))

    after: list[str] = []

    @web.middleware
    async def login(request: web.Request, handler: Handler) -> web.StreamResponse:
        USER.set("alice")
        response = await handler(request)
        after.append(USER.get())
        return response

    app = app_of(table, clock=clock)
    app.middlewares.append(login)
    served = await serve(app)
    stream = await served.stream("/own").open()
    assert ["alice", "changed"] == [event.data for event in await stream.rest()]
    stream = await served.stream("/shared").open()
    assert ["nobody", "0"] == [event.data for event in await stream.rest()]
    await until(lambda: len(after) == 2, timeout=PROMPTLY)
    assert ["alice", "alice"] == after


async def test_a_shared_runs_middleware_closes_with_its_client(
    serve: Serve, clock: SettableClock
) -> None:
    """A shared run belongs to no request, and holds none."""
    lines: list[str] = []
    table = SSERouteTableDef()

    @table.sse_route("/shared", shared=True)
    async def shared(run: SharedRun) -> AsyncIterator[Any]:
        yield "first"
        await asyncio.Event().wait()

    @web.middleware
    async def holding(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        finally:
            lines.append("closes")

    app = app_of(table, clock=clock)
    app.middlewares.append(holding)
    served = await serve(app)
    client = await RawClient.connect(served)
    await client.get("/shared")
    await client.read_until(b"first")
    client.close()
    await until(lambda: lines, timeout=PROMPTLY)
    assert 1 == len(producers_of(served))
