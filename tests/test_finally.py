"""A generator's ``finally`` runs in its own task and in time, whatever ends it.

So that connections go back to their pools and subscriptions end when the client is
gone, not when the garbage collector comes by; and what the language promises inside a
task (context variables, task groups, timeouts) holds inside a handler's generator.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import SharedRun, SSERouteTableDef
from aiohttp_sse_routes.errors import EventError
from aiohttp_sse_routes.streams.producer import Producer
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, is_open, until
from .lifecycle import (
    INSIDE,
    PROMPTLY,
    Follower,
    Life,
    complaints,
    hub_of,
    parked,
    producers_of,
    stalled,
)

Serve = Callable[..., Awaitable[Served]]
Leave = Callable[[RawClient], None]

BIG = "x" * 20_000


def _half_close(client: RawClient) -> None:
    client.sock.shutdown(1)


LEAVES = [
    pytest.param(RawClient.close, id="fin"),
    pytest.param(RawClient.reset, id="rst"),
    pytest.param(_half_close, id="half-close"),
]


async def endless() -> AsyncIterator[str]:
    """Yield large events, without ever awaiting."""
    while True:
        yield BIG


def table_for(life: Life, body: Callable[[], Any] | None = None) -> SSERouteTableDef:
    """Return routes on which *life* is lived: with and without replay, and shared."""
    table = SSERouteTableDef()

    def lived() -> AsyncIterator[Any]:
        return life.lived(body() if body is not None else None)

    @table.sse_route("/replay", resume=15)
    async def replay(request: web.Request) -> AsyncIterator[Any]:
        return lived()

    @table.sse_route("/once", resume=0)
    async def once(request: web.Request) -> AsyncIterator[Any]:
        return lived()

    @table.sse_route("/shared", shared=True, resume=15)
    async def shared(run: SharedRun) -> AsyncIterator[Any]:
        async for item in _closing(lived()):
            yield item

    @table.sse_route("/shared-once", shared=True, resume=0)
    async def shared_once(run: SharedRun) -> AsyncIterator[Any]:
        async for item in _closing(lived()):
            yield item

    return table


async def _closing(inner: Any) -> AsyncIterator[Any]:
    try:
        async for item in inner:
            yield item
    finally:
        await inner.aclose()


# -- the client leaves -----------------------------------------------------------------


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("path", ["/once", "/shared-once"])
async def test_without_replay_the_finally_runs_when_the_client_leaves(
    serve: Serve, clock: SettableClock, path: str, leave: Leave
) -> None:
    """Where resume=0, leaving closes the generator in its task, within a second."""
    life = Life()
    served = await serve(app_of(table_for(life), clock=clock))
    client = await RawClient.connect(served)
    await client.get(path)
    await client.read_until(b"first")
    leave(client)
    await until(life.closed_once_in_its_task, timeout=PROMPTLY)
    await until(lambda: not producers_of(served), timeout=PROMPTLY)
    client.close()


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("path", ["/replay", "/shared"])
async def test_with_replay_the_finally_runs_when_the_time_to_resume_is_over(
    serve: Serve, clock: SettableClock, path: str, leave: Leave
) -> None:
    """The generator goes on for ``resume`` seconds, and is closed then, in its task."""
    life = Life()
    served = await serve(app_of(table_for(life), clock=clock))
    client = await RawClient.connect(served)
    await client.get(path)
    await client.read_until(b"first")
    leave(client)
    await until(lambda: not served.sse.connections, timeout=PROMPTLY)
    await clock.advance(14)
    assert life.closings == 0
    await clock.advance(2)
    await until(life.closed_once_in_its_task, timeout=PROMPTLY)
    client.close()


@pytest.mark.parametrize("leave", LEAVES)
async def test_a_client_that_leaves_before_the_first_event_is_seen(
    serve: Serve, clock: SettableClock, leave: Leave
) -> None:
    """Within a second, though nothing was yielded and ``open_timeout`` is long."""
    life = Life()
    life.task = None
    began = asyncio.Event()
    closed = asyncio.Event()
    table = SSERouteTableDef()

    @table.sse_route("/late", resume=0, open_timeout=60)
    async def late(request: web.Request) -> AsyncIterator[Any]:
        began.set()
        try:
            await asyncio.Event().wait()
            yield
        finally:
            closed.set()

    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/late")
    await began.wait()
    leave(client)
    await until(closed.is_set, timeout=PROMPTLY)
    client.close()


@pytest.mark.parametrize("leave", LEAVES)
async def test_a_paused_generator_is_closed_when_its_client_leaves(
    serve: Serve, clock: SettableClock, leave: Leave
) -> None:
    """One that is parked at its ``yield`` by back-pressure is closed there, at once."""
    life = Life()
    served = await serve(app_of(table_for(life, endless), clock=clock))
    follower = await stalled(served, "/once")
    assert life.closings == 0
    assert follower.client is not None
    leave(follower.client)
    await until(life.closed_once_in_its_task, timeout=PROMPTLY)
    assert [GeneratorExit] == life.thrown
    follower.client.close()


async def test_a_paused_generator_that_waits_for_its_client_is_closed_in_time(
    serve: Serve, clock: SettableClock
) -> None:
    """With replay it stays paused meanwhile, and its log stays within its bounds."""
    life = Life()
    served = await serve(app_of(table_for(life, endless), clock=clock))
    follower = await stalled(served, "/replay")
    assert follower.client is not None
    follower.client.reset()
    await until(lambda: served.sse.detached == 1, timeout=PROMPTLY)
    await clock.advance(14)
    assert life.closings == 0
    assert parked(served)
    await clock.advance(2)
    await until(life.closed_once_in_its_task, timeout=PROMPTLY)


# -- the run is taken over, and comes to its end ---------------------------------------


async def test_a_newer_connection_replaces_the_older_and_the_run_goes_on(
    serve: Serve, clock: SettableClock
) -> None:
    """The older is told ``sse-end`` ``replaced``; the generator notices nothing."""
    life = Life()
    served = await serve(app_of(table_for(life, _counting(life)), clock=clock))
    older = Follower(served, "/replay")
    await older.connect()
    await older.read_events()
    newer = Follower(served, "/replay")
    newer.last_event_id = older.last_event_id
    await newer.connect()
    await newer.read_until(lambda: newer.control)
    assert hello_of(newer) == "continued"
    await older.read_all()
    assert ["replaced"] == older.ends
    assert older.complete
    assert older.last_event_id.endswith(".end")
    life.go.set()
    await newer.read_all()
    assert ["first"] == older.events
    assert ["0", "1", "2"] == newer.events
    assert ["finished"] == newer.ends
    assert life.closed_once_in_its_task()
    assert not life.thrown


async def test_of_too_many_that_wait_the_longest_waiting_is_closed(
    serve: Serve, clock: SettableClock
) -> None:
    """Over ``max_detached`` a run is closed at once, in its task."""
    lives = [Life(), Life()]
    left = list(lives)
    table = SSERouteTableDef()

    @table.sse_route("/lived")
    async def lived(request: web.Request) -> AsyncIterator[Any]:
        return left.pop(0).lived()

    served = await serve(app_of(table, clock=clock, max_detached=1))
    for _ in lives:
        follower = Follower(served, "/lived")
        await follower.connect()
        await follower.read_events()
        follower.sock.close()
        await until(lambda: not served.sse.connections)
    await until(lives[0].closed_once_in_its_task, timeout=PROMPTLY)
    assert 0 == lives[1].closings
    assert 1 == served.sse.detached


async def test_the_end_of_a_replaced_connection_has_its_place(
    serve: Serve, clock: SettableClock
) -> None:
    """Its id is that of the last event it had, also of one that came live."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    table = SSERouteTableDef()

    @table.sse_route("/queue")
    async def items(request: web.Request) -> AsyncIterator[Any]:
        while True:
            yield await queue.get()

    served = await serve(app_of(table, clock=clock))
    older, newer = Follower(served, "/queue"), Follower(served, "/queue")
    await older.connect()
    await older.read_until(lambda: older.control)
    for count in range(1, 4):
        queue.put_nowait("item")
        await older.read_events(count)
    newer.last_event_id = place = older.last_event_id
    await newer.connect()
    await older.read_all()
    assert f"{place}.end" == older.last_event_id


def hello_of(follower: Follower) -> str:
    """Return how the last ``sse-hello`` has called the resumption."""
    hellos = [data for name, data in follower.control if name == "sse-hello"]
    resumed: str = hellos[-1]["resumed"]
    return resumed


async def test_a_run_that_is_followed_again_waits_for_nobody(
    serve: Serve, clock: SettableClock
) -> None:
    """Though another came and left while the headers of this one were made."""
    life = Life()
    app = app_of(table_for(life), clock=clock, max_detached=1)
    held: list[asyncio.Event] = []

    async def hold(request: web.Request, response: web.StreamResponse) -> None:
        if "X-Hold" in request.headers:
            held.append(asyncio.Event())
            await held[0].wait()

    app.on_response_prepare.append(hold)
    served = await serve(app)
    first = Follower(served, "/replay")
    await first.connect()
    await first.read_events()
    slow = await RawClient.connect(served)
    place = f"Last-Event-ID: {first.last_event_id}"
    await slow.get("/replay", place, "X-Hold: 1")
    await until(lambda: held)
    await first.connect()
    await first.read_until(lambda: len(first.control) == 2)
    first.sock.close()
    await until(lambda: served.sse.detached == 1)
    held[0].set()
    await slow.read_until(b"sse-hello")
    assert 0 == served.sse.detached
    await clock.advance(60)
    # One more that waits is no reason to close the one that is followed.
    other = Follower(served, "/replay")
    await other.connect()
    await other.read_events()
    other.sock.close()
    await until(lambda: served.sse.detached == 1)
    assert life.closings == 0
    life.go.set()
    await slow.read_until(b"finished")


def _counting(life: Life) -> Callable[[], AsyncIterator[str]]:
    async def count() -> AsyncIterator[str]:
        await life.go.wait()
        for number in range(3):
            yield str(number)

    return count


@pytest.mark.parametrize("path", ["/replay", "/once", "/shared", "/shared-once"])
async def test_a_generator_that_ends_has_run_its_finally_in_its_task(
    serve: Serve, clock: SettableClock, path: str
) -> None:
    """At its own end it is in its own task too."""
    life = Life()
    life.go.set()
    served = await serve(app_of(table_for(life), clock=clock))
    stream = await served.stream(path).open()
    await stream.rest()
    assert ["first"] == [event.data for event in stream.events]
    assert life.closed_once_in_its_task()


@pytest.mark.parametrize("path", ["/replay", "/once", "/shared", "/shared-once"])
async def test_a_generator_that_raises_has_run_its_finally_in_its_task(
    serve: Serve,
    clock: SettableClock,
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its client is told ``sse-error``, and the log has the exception, once."""
    life = Life()

    async def broken() -> AsyncIterator[str]:
        await life.go.wait()
        raise ValueError("secret")
        yield

    served = await serve(app_of(table_for(life, broken), clock=clock))
    follower = Follower(served, path)
    await follower.connect()
    await follower.read_events()
    life.go.set()
    if path.startswith("/shared"):
        # It begins again after a second; its clients stay for that.
        await until(lambda: not producers_of(served), timeout=PROMPTLY)
    else:
        await follower.read_all()
        assert "sse-error" == follower.control[-1][0]
        assert follower.complete
    assert life.closed_once_in_its_task()
    logged = [record for record in caplog.records if record.exc_info]
    assert [ValueError] == [record.exc_info[0] for record in logged if record.exc_info]
    assert follower.client is not None
    assert b"secret" not in follower.client.received


# -- the application shuts down --------------------------------------------------------


@pytest.mark.parametrize("path", ["/replay", "/once", "/shared", "/shared-once"])
@pytest.mark.parametrize("leaves", [False, True], ids=["open", "left"])
async def test_the_shutdown_closes_every_generator_in_its_task(
    serve: Serve, clock: SettableClock, path: str, leaves: bool
) -> None:
    """Whether its client is there or gone, before ``cleanup`` returns."""
    life = Life()
    served = await serve(app_of(table_for(life), clock=clock))
    client = await RawClient.connect(served)
    await client.get(path)
    await client.read_until(b"first")
    if leaves:
        client.close()
        await until(lambda: not served.sse.connections, timeout=PROMPTLY)
    await served.close()
    assert life.closed_once_in_its_task()
    client.close()


async def test_the_shutdown_closes_a_paused_generator(
    serve: Serve, clock: SettableClock
) -> None:
    """One that is parked by back-pressure gets ``GeneratorExit`` at its ``yield``."""
    life = Life()
    served = await serve(app_of(table_for(life, endless), clock=clock))
    follower = await stalled(served, "/replay")
    await served.close()
    assert life.closed_once_in_its_task()
    assert [GeneratorExit] == life.thrown
    assert follower.client is not None
    follower.client.close()


@pytest.mark.parametrize("shared", [False, True], ids=["private", "shared"])
@pytest.mark.parametrize("leaves", [False, True], ids=["open", "left"])
async def test_the_shutdown_does_not_wait_for_a_long_finally(
    serve: Serve,
    clock: SettableClock,
    shared: bool,
    leaves: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """``cleanup`` returns after the grace and says once, by name, what still runs."""
    table = SSERouteTableDef()

    async def slow() -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(10)

    if shared:

        @table.sse_route("/slow", shared=True)
        async def slow_one(run: SharedRun) -> AsyncIterator[Any]:
            async for item in _closing(slow()):
                yield item
    else:

        @table.sse_route("/slow")
        async def slow_two(request: web.Request) -> AsyncIterator[Any]:
            return slow()

    served = await serve(app_of(table, clock=clock, shutdown_grace=0.2))
    client = await RawClient.connect(served)
    await client.get("/slow")
    await client.read_until(b"first")
    if leaves:
        client.close()
        await until(lambda: not served.sse.connections, timeout=PROMPTLY)
    [producer] = producers_of(served)
    loop = asyncio.get_running_loop()
    before = loop.time()
    await served.close()
    took = loop.time() - before
    assert 0.15 < took < 0.2 + 0.5, took
    named = [r for r in caplog.records if "slow_" in r.getMessage()]
    named = [r for r in named if r.levelno >= logging.WARNING]
    assert 1 == len(named)
    assert not producer.task.done()
    producer.task.cancel()
    await asyncio.wait({producer.task})
    client.close()


# -- generators that do not do as they are told ----------------------------------------


@pytest.mark.parametrize("how", ["leave", "shutdown"])
async def test_one_that_swallows_the_cancellation_and_yields_is_closed(
    serve: Serve, clock: SettableClock, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once; when it yields again, it is closed at that ``yield``."""
    life = Life()
    swallowed = 0

    async def stubborn() -> AsyncIterator[object]:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                # Nothing is made of it: it could not even be sent.
                yield object()

    served = await serve(app_of(table_for(life, stubborn), clock=clock))
    client = await RawClient.connect(served)
    await client.get("/once")
    await client.read_until(b"first")
    if how == "leave":
        client.close()
    else:
        await served.close()
    await until(life.closed_once_in_its_task, timeout=PROMPTLY)
    assert 1 == swallowed
    assert [GeneratorExit] == life.thrown
    assert not complaints(caplog)
    client.close()


class Numbers:
    """An async iterator that is no generator, closed by its own ``aclose``."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any] | None] = []
        self.closed = 0
        self.context: list[str] = []

    def __aiter__(self) -> Numbers:
        return self

    async def __anext__(self) -> str:
        self.tasks.append(asyncio.current_task())
        if len(self.tasks) == 1:
            INSIDE.set("iterator")
            return "first"
        await asyncio.Event().wait()
        raise AssertionError

    async def aclose(self) -> None:
        """Note that, and where."""
        self.closed += 1
        self.tasks.append(asyncio.current_task())
        self.context.append(INSIDE.get())


async def test_an_iterator_that_is_no_generator_is_closed_too(
    serve: Serve, clock: SettableClock
) -> None:
    """Its ``aclose`` is awaited once, in the task and the context that iterated it."""
    numbers = Numbers()
    table = SSERouteTableDef()

    @table.sse_route("/numbers", resume=0)
    async def route(request: web.Request) -> AsyncIterator[Any]:
        return numbers

    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/numbers")
    await client.read_until(b"first")
    client.close()
    await until(lambda: numbers.closed, timeout=PROMPTLY)
    await until(lambda: not producers_of(served), timeout=PROMPTLY)
    assert 1 == numbers.closed
    assert ["iterator"] == numbers.context
    assert 1 == len(set(numbers.tasks))


async def test_an_iterator_without_aclose_just_ends(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is asked of an iterator that the language does not ask of it."""

    class Bare:
        def __init__(self) -> None:
            self.left = 2

        def __aiter__(self) -> Bare:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    table = SSERouteTableDef()

    @table.sse_route("/bare", resume=0)
    async def bare(request: web.Request) -> AsyncIterator[Any]:
        return Bare()

    served = await serve(app_of(table, clock=clock))
    stream = await served.stream("/bare").open()
    assert ["1", "0"] == [event.data for event in await stream.rest()]
    assert not complaints(caplog)


async def test_a_generator_that_was_never_started_is_closed_without_running(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client left while the coroutine made it: not a line of it runs."""
    asked = asyncio.Event()
    ran: list[str] = []
    made: list[Any] = []
    table = SSERouteTableDef()

    async def lines() -> AsyncIterator[str]:
        ran.append("body")
        yield "line"

    @table.sse_route("/lines", open_timeout=0, resume=15)
    async def route(request: web.Request) -> AsyncIterator[Any]:
        asked.set()
        await until(lambda: request.transport is None)
        made.append(lines())
        found: AsyncIterator[Any] = made[0]
        return found

    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/lines")
    await asked.wait()
    client.close()
    await until(lambda: not hub_of(served).limits.counts, timeout=PROMPTLY)
    await until(lambda: not producers_of(served), timeout=PROMPTLY)
    assert [] == ran
    assert not any(one.ag_frame for one in made)
    assert not complaints(caplog)


async def test_a_producer_that_is_stopped_before_its_first_step_runs_nothing() -> None:
    """The generator is closed, and its end is told once."""
    ran: list[str] = []
    ends: list[str] = []

    async def body() -> AsyncIterator[str]:
        ran.append("body")
        yield "never"

    generator: Any = body()
    producer = Producer(
        generator,
        emit=lambda item: False,
        has_room=lambda: True,
        can_wait=lambda: False,
        on_end=lambda ending: ends.append(ending.kind),
        name="body",
    )
    producer.stop()
    producer.stop()
    await is_open(producer)
    assert [] == ran
    assert ["stopped"] == ends
    assert generator.ag_frame is None


@pytest.mark.parametrize("yields", [True, False], ids=["open", "not-yet-open"])
async def test_what_the_finally_raises_is_logged(
    serve: Serve, clock: SettableClock, yields: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in a ``finally`` is the user's to know, though no client is there."""
    table = SSERouteTableDef()
    begun = asyncio.Event()

    @table.sse_route("/broken", resume=0)
    async def broken(request: web.Request) -> AsyncIterator[Any]:
        try:
            if yields:
                yield "first"
            begun.set()
            await asyncio.Event().wait()
        finally:
            raise ValueError("in finally")

    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/broken")
    await begun.wait()
    if yields:
        await client.read_until(b"first")
    client.close()
    await until(lambda: not producers_of(served), timeout=PROMPTLY)
    logged = [record for record in caplog.records if record.exc_info]
    assert [ValueError] == [record.exc_info[0] for record in logged if record.exc_info]


async def test_what_a_shared_run_raises_when_nobody_is_there_is_logged(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its only client left before it had begun: nobody gets the error as a status."""
    go = asyncio.Event()
    begun = asyncio.Event()
    table = SSERouteTableDef()

    @table.sse_route("/broken", shared=True)
    async def broken(run: SharedRun) -> AsyncIterator[Any]:
        begun.set()
        await go.wait()
        raise ValueError("unseen")
        yield

    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/broken")
    await begun.wait()
    client.close()
    await until(lambda: not hub_of(served).limits.counts, timeout=PROMPTLY)
    go.set()
    await until(lambda: not producers_of(served), timeout=PROMPTLY)
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert ValueError is record.exc_info[0]
    assert "broken" in record.getMessage()


async def test_nothing_of_an_ended_run_waits_for_the_garbage_collector(
    serve: Serve, clock: SettableClock
) -> None:
    """With the collector off, a generator has ended, and its frame is gone."""
    life = Life()
    served = await serve(app_of(table_for(life), clock=clock))
    gc.disable()
    try:
        client = await RawClient.connect(served)
        await client.get("/once")
        await client.read_until(b"first")
        client.close()
        await until(life.closed_once_in_its_task, timeout=PROMPTLY)
    finally:
        gc.enable()


# -- task groups and timeouts inside a generator ---------------------------------------


class ChildFailed(Exception):
    """What a child task raises in these tests."""


def group_table(
    life: Life, *, parks: bool, ended: list[str], resume: float = 15
) -> SSERouteTableDef:
    """Return a route whose generator has a task group open."""
    table = SSERouteTableDef()

    async def fails() -> None:
        try:
            await life.go.wait()
            raise ChildFailed
        finally:
            ended.append("fails")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("waits")

    @table.sse_route("/group", resume=resume)
    async def group(request: web.Request) -> AsyncIterator[Any]:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fails())
                tasks.create_task(waits())
                yield "first"
                while parks:
                    yield BIG
                await asyncio.Event().wait()
        except BaseException as exc:
            life.thrown.append(type(exc))
            raise
        finally:
            ended.append("generator")

    return table


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "awaiting"])
async def test_a_task_group_inside_a_generator_works(
    serve: Serve,
    clock: SettableClock,
    parks: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A child's failure arrives in the generator, parked at ``yield`` or awaiting."""
    life, ended = Life(), []  # type: Life, list[str]
    table = group_table(life, parks=parks, ended=ended)
    served = await serve(app_of(table, clock=clock))
    follower = Follower(served, "/group")
    await follower.connect(rcvbuf=4096)
    if parks:
        await until(lambda: parked(served) and served.sse.connections)
    else:
        await follower.read_events()
    life.go.set()
    await until(lambda: "generator" in ended, timeout=PROMPTLY)
    assert ["fails", "waits", "generator"] == ended
    assert [ExceptionGroup] == life.thrown
    await follower.read_all()
    assert "sse-error" == follower.control[-1][0]
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ExceptionGroup)
    assert [ChildFailed] == [type(e) for e in record.exc_info[1].exceptions]
    assert follower.control[-1][1]["ref"] in record.getMessage()


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "awaiting"])
@pytest.mark.parametrize("how", ["leave", "shutdown"])
async def test_a_generator_with_an_open_task_group_can_be_closed(
    serve: Serve,
    clock: SettableClock,
    parks: bool,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its children are cancelled and waited for, and that is no failure."""
    life, ended = Life(), []  # type: Life, list[str]
    table = group_table(life, parks=parks, ended=ended, resume=0)
    served = await serve(app_of(table, clock=clock))
    follower = Follower(served, "/group")
    client = await follower.connect(rcvbuf=4096)
    if parks:
        await until(lambda: parked(served) and served.sse.connections)
    else:
        await follower.read_events()
    if how == "leave":
        client.reset()
    else:
        await served.close()
    await until(lambda: "generator" in ended, timeout=PROMPTLY)
    await until(lambda: not producers_of(served), timeout=PROMPTLY)
    assert ["fails", "waits", "generator"] == ended
    assert not complaints(caplog)
    client.close()


async def test_what_cannot_be_sent_is_the_failure_though_a_task_group_is_open(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing the generator then is no failure to be told in place of it."""
    table = SSERouteTableDef()

    @table.sse_route("/unsendable")
    async def unsendable(request: web.Request) -> AsyncIterator[Any]:
        yield "first"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.Event().wait())
            yield object()

    served = await serve(app_of(table, clock=clock))
    follower = Follower(served, "/unsendable")
    await follower.connect()
    await follower.read_all()
    assert "sse-error" == follower.control[-1][0]
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert EventError is record.exc_info[0]


@pytest.mark.parametrize("state", ["parked", "awaiting", "detached"])
async def test_a_timeout_inside_a_generator_works(
    serve: Serve, clock: SettableClock, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It arrives at the ``yield`` where the generator is parked, as in an ``await``."""
    limits: list[asyncio.Timeout] = []
    caught: list[str] = []
    table = SSERouteTableDef()

    @table.sse_route("/limited")
    async def limited(request: web.Request) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                yield "first"
                while state != "awaiting":
                    yield BIG
                await asyncio.Event().wait()
        except TimeoutError:
            caught.append("timeout")
            task = asyncio.current_task()
            assert task is not None
            assert not task.cancelling()
        yield "behind"

    served = await serve(app_of(table, clock=clock))
    follower = Follower(served, "/limited")
    client = await follower.connect(rcvbuf=4096)
    if state == "awaiting":
        await follower.read_events()
    else:
        await until(lambda: parked(served) and served.sse.connections)
    if state == "detached":
        follower.events.clear()
        client.reset()
        await until(lambda: served.sse.detached)
    limits[0].reschedule(asyncio.get_running_loop().time())
    await until(lambda: caught, timeout=PROMPTLY)
    if state == "detached":
        await clock.advance(20)
        await until(lambda: not producers_of(served), timeout=PROMPTLY)
    else:
        await follower.read_all()
        assert "behind" == follower.events[-1]
        assert ["finished"] == follower.ends
    assert not complaints(caplog)


@pytest.mark.parametrize("parks", [True, False], ids=["parked", "awaiting"])
async def test_timeouts_and_task_groups_work_in_a_finally_too(
    serve: Serve, clock: SettableClock, parks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What told the generator to end does not disturb what its ``finally`` awaits."""
    done: list[str] = []
    table = SSERouteTableDef()

    async def fails() -> None:
        raise ChildFailed

    @table.sse_route("/last", resume=0)
    async def last(request: web.Request) -> AsyncIterator[Any]:
        try:
            yield "first"
            while parks:
                yield BIG
            await asyncio.Event().wait()
        finally:
            try:
                async with asyncio.timeout(0):
                    await asyncio.Event().wait()
            except TimeoutError:
                done.append("timeout")
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(fails())
                    await asyncio.Event().wait()
            except* ChildFailed:
                done.append("group")
            await asyncio.sleep(0)
            done.append("end")

    served = await serve(app_of(table, clock=clock))
    follower = Follower(served, "/last")
    client = await follower.connect(rcvbuf=4096)
    if parks:
        await until(lambda: parked(served) and served.sse.connections)
    else:
        await follower.read_events()
    client.reset()
    await until(lambda: not producers_of(served), timeout=PROMPTLY)
    assert ["timeout", "group", "end"] == done
    assert not complaints(caplog)


async def test_a_generator_runs_in_its_requests_context() -> None:
    """`Producer` runs all of a generator in one context, which is not its maker's."""
    seen: list[str] = []

    async def body() -> AsyncIterator[str]:
        token = INSIDE.set("generator")
        try:
            yield INSIDE.get()
            await asyncio.sleep(0)
            yield INSIDE.get()
        finally:
            seen.append(INSIDE.get())
            INSIDE.reset(token)
            seen.append(INSIDE.get())

    items: list[str] = []

    def emit(item: str) -> bool:
        items.append(item)
        return True

    context = contextvars.copy_context()
    context.run(INSIDE.set, "request")
    producer = Producer(
        body(),
        emit=emit,
        has_room=lambda: True,
        can_wait=lambda: False,
        on_end=lambda ending: None,
        name="body",
        context=context,
    )
    await producer.task
    assert ["generator", "generator"] == items
    assert ["generator", "request"] == seen
    assert "" == INSIDE.get()
