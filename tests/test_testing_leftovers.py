"""The kit finds what was left behind, and says what it is and where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from aiohttp_sse_routes import (
    Channels,
    NotSetUp,
    SharedRun,
    SSERouteTableDef,
    get_sse,
    setup,
)
from aiohttp_sse_routes.testing import (
    EventStream,
    LeftBehind,
    SettableClock,
    no_runs_left,
    nothing_left,
)

from .lifecycle import Run

Client = Callable[[web.Application], Any]


async def endless() -> AsyncGenerator[int]:
    """Yield numbers, and wait for ever behind the first."""
    yield 1
    await asyncio.Event().wait()


def app_that_streams(clock: SettableClock, **options: Any) -> web.Application:
    """Return an application with a run for each, one for all, and a room."""
    table = SSERouteTableDef()

    @table.sse_route("/private/{name}", name="private", **options)
    async def private(request: web.Request) -> AsyncIterator[int]:
        async for number in endless():
            yield number

    @table.sse_route("/ended", **options)
    async def ended(request: web.Request) -> AsyncIterator[int]:
        yield 1

    @table.sse_route("/shared", shared=True)
    async def shared(run: SharedRun) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    @table.sse_route("/room")
    async def room(request: web.Request) -> Channels:
        return Channels("room")

    app = web.Application()
    setup(app, table, clock=clock)
    return app


async def test_a_whole_life_that_leaves_nothing(sse_clock: SettableClock) -> None:
    """An application of all kinds of streams, which clients leave as they are."""
    async with nothing_left():
        app = app_that_streams(sse_clock)
        async with TestClient(TestServer(app)) as client:
            for path in ("/private/a", "/shared", "/room"):
                stream = await EventStream(client, path).open()
                await stream.next("sse-hello")


async def test_a_task_is_named_with_its_place() -> None:
    """From the outside inwards, with file and line."""

    async def inner() -> None:
        await asyncio.Event().wait()

    async def outer() -> None:
        await inner()

    before = asyncio.create_task(asyncio.Event().wait())
    tasks: set[asyncio.Task[Any]] = {before}
    with pytest.raises(LeftBehind) as caught:
        async with nothing_left(timeout=0.01):
            tasks.add(asyncio.create_task(outer(), name="forgotten"))
    [left] = caught.value.left
    assert left.startswith("task 'forgotten' (")
    places = left.partition("): ")[2].split(" > ")
    for place, name in zip(places, ("outer", "inner", "wait"), strict=False):
        assert place.endswith(name), place
        assert ".py:" in place
    assert "1 left behind:\ntask 'forgotten'" in str(caught.value)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_task_that_ends_by_itself_is_waited_for() -> None:
    """Only what stays is left."""
    async with nothing_left():
        task = asyncio.create_task(asyncio.sleep(0.1))
    assert task.done()


def test_a_generator_that_nobody_closes_is_found(run: Run) -> None:
    """With the line at which it is, on any loop; one from before is nobody's fault."""

    async def scenario() -> None:
        older = endless()
        assert 1 == await anext(older)
        async with nothing_left():
            closed = endless()
            await anext(closed)
            await closed.aclose()
        newer = endless()

        async def leave() -> None:
            async with nothing_left(timeout=0.01):
                await anext(newer)

        with pytest.raises(LeftBehind) as caught:
            await leave()
        [left] = caught.value.left
        assert left.startswith("async generator endless, never closed: ")
        assert f"{__file__}:" in left
        for one in (older, newer):
            await one.aclose()

    run(scenario)


async def test_a_check_in_the_midst() -> None:
    """It can be asked for before the end."""
    async with nothing_left(timeout=0.01) as watch:
        await watch.check()
        task = asyncio.create_task(asyncio.Event().wait())
        with pytest.raises(LeftBehind):
            await watch.check()
        task.cancel()


async def test_what_is_raised_within_is_not_hidden() -> None:
    """What fails first is what is told."""
    tasks = set()

    async def fail() -> None:
        async with nothing_left(timeout=0.01):
            tasks.add(asyncio.create_task(asyncio.Event().wait()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    tasks.pop().cancel()


async def test_runs_of_an_application_that_goes_on(
    aiohttp_client: Client, sse_clock: SettableClock
) -> None:
    """Connections and runs are told by route, with where they are, until they end."""
    app = app_that_streams(sse_clock, resume=15)
    client = await aiohttp_client(app)
    await no_runs_left(app)
    streams = [
        await EventStream(client, path).open()
        for path in ("/private/a", "/shared", "/room")
    ]
    for stream in streams:
        await stream.next("sse-hello")
    await sse_clock.advance(3)
    with pytest.raises(LeftBehind) as caught:
        await no_runs_left(app, timeout=0.01)
    *links, one, other = caught.value.left
    assert ["'private'", "'shared'", "'room'"] == [t.split(" ")[3] for t in links]
    assert all("open for 3 s" in text for text in links)
    private, shared = (one, other) if "route" in one else (other, one)
    assert "app_that_streams.<locals>.private, route 'private': " in private
    assert "in app_that_streams.<locals>.private" in private
    assert f"{__file__}:" in private
    assert f"app_that_streams.<locals>.shared: {__file__}:" in shared
    for stream in streams:
        await stream.drop()
    await sse_clock.advance(5)
    with pytest.raises(LeftBehind, match="waits for its client since 5 of 15 s"):
        await no_runs_left(app, timeout=0.01)
    await sse_clock.advance(20)
    await no_runs_left(app)


async def test_a_run_that_has_ended_is_remembered(
    aiohttp_client: Client, sse_clock: SettableClock
) -> None:
    """Its log is kept for its client, which is told too."""
    app = app_that_streams(sse_clock, resume=15)
    client = await aiohttp_client(app)
    async with EventStream(client, "/ended") as stream:
        await stream.rest()
    with pytest.raises(LeftBehind, match=r"has ended \(finished\) and is remembered"):
        await no_runs_left(app, timeout=0.01)
    await sse_clock.advance(20)
    await no_runs_left(app)


async def test_a_finally_that_hangs_is_told(
    aiohttp_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """As a run while the application goes on, and as a task when that has ended."""
    go = asyncio.Event()
    table = SSERouteTableDef()

    @table.sse_route("/hangs", resume=0)
    async def hangs(request: web.Request) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await go.wait()

    app = web.Application()
    setup(app, table, shutdown_grace=0.01)

    async def live() -> None:
        async with nothing_left(timeout=0.05):
            client = await aiohttp_client(app)
            async with EventStream(client, "/hangs") as stream:
                await stream.next()
                await stream.drop()
            with pytest.raises(LeftBehind, match=r"run of .*hangs: .*in .*hangs > "):
                await no_runs_left(app, timeout=0.01)
            await client.close()
            await no_runs_left(app)

    with pytest.raises(LeftBehind, match=r"task 'sse-run .*hangs'"):
        await live()
    go.set()
    assert "still run their finally" in caplog.text
    assert not get_sse(app).connections


async def test_an_application_without_a_plugin() -> None:
    """It has no runs; the error says why."""
    with pytest.raises(NotSetUp, match="no_runs_left"):
        await no_runs_left(web.Application())
