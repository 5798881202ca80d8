"""The kit's clock moves all that the package measures, and waits until it is done."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    MemoryStore,
    SharedRun,
    SSERouteTableDef,
    get_sse,
    setup,
    sse_response,
)
from aiohttp_sse_routes.client import connect
from aiohttp_sse_routes.http.hub import HUB_KEY
from aiohttp_sse_routes.testing import (
    EventStream,
    FaultProxy,
    SettableClock,
    StreamTimeout,
)

from .helpers import app_of

Client = Callable[[web.Application], Any]


class Rooms:
    """An application that streams in each of the ways, with a clock.

    Attributes:
        closed: How many generators have ended.
        allowed: Whether the guard lets in.
        fail: Whether the shared run fails.
    """

    def __init__(self, **options: Any) -> None:
        self.clock = SettableClock()
        self.closed = 0
        self.allowed = True
        self.begun = 0
        self.fail = asyncio.Event()
        table = SSERouteTableDef()

        options["guard"] = lambda request: self.allowed

        @table.sse_route("/private", **options)
        async def private(request: web.Request) -> AsyncIterator[str]:
            try:
                yield "hello"
                await asyncio.Event().wait()
            finally:
                # A good many turns, as one that gives a connection back.
                for _ in range(150):
                    await asyncio.sleep(0)
                self.closed += 1

        @table.sse_route("/shared", shared=True)
        async def shared(run: SharedRun) -> AsyncIterator[int]:
            self.begun += 1
            yield self.begun
            await self.fail.wait()
            self.fail.clear()
            raise ValueError

        @table.sse_route("/room", **options)
        async def room(request: web.Request) -> Channels:
            return Channels("room")

        self.app = app_of(table, clock=self.clock, store=MemoryStore(max_age=60))
        self.sse = get_sse(self.app)


async def test_resume_times(aiohttp_client: Client) -> None:
    """A run waits as long as it says, and then its ``finally`` has run."""
    rooms = Rooms()
    client = await aiohttp_client(rooms.app)
    async with EventStream(client, "/private") as stream:
        await stream.next()
        stream.drop()
        # Not awaited: the clock itself waits until the server has seen it.
        await rooms.clock.advance(14)
        assert (0, 1) == (rooms.closed, rooms.sse.detached)
        await stream.resume()
        await stream.next("sse-hello")
        assert [] == stream.gaps
        stream.drop()
        await rooms.clock.advance(16)
        assert (1, 0) == (rooms.closed, rooms.sse.detached)
        await stream.resume()
        await stream.next("sse-gap")
        assert "unknown" == stream.gaps[0]["reason"]


async def test_a_departure_that_takes_its_time(aiohttp_client: Client) -> None:
    """The clock does not move before the server has seen it."""
    rooms = Rooms()
    client = await aiohttp_client(rooms.app)
    async with FaultProxy(client) as proxy:
        stream = await EventStream(proxy, "/private").open()
        await stream.next()
        proxy.stall()
        stream.drop()
        later = asyncio.get_running_loop().call_later
        later(0.1, lambda: tasks.append(asyncio.create_task(proxy.go_on())))
        tasks: list[asyncio.Task[None]] = []
        await rooms.clock.advance(16)
        assert (1, 0) == (rooms.closed, rooms.sse.detached)
        assert tasks[0].done()


@pytest.mark.parametrize("path", ["/private", "/room", "/shared"])
async def test_heartbeats(aiohttp_client: Client, path: str) -> None:
    """One comes in each time that the route says, and none before."""
    rooms = Rooms()
    client = await aiohttp_client(rooms.app)
    async with EventStream(client, path) as stream:
        await stream.next("sse-hello")
        await rooms.clock.advance(14)
        with pytest.raises(StreamTimeout):
            await stream.heartbeat(timeout=0.02)
        for _ in range(4):
            await rooms.clock.advance(16)
            await stream.heartbeat()
        assert len(stream.comments) in (4, 5)


async def test_a_cursor_in_place_of_a_heartbeat(aiohttp_client: Client) -> None:
    """The clock is moved, and then the event is there to be read."""
    rooms = Rooms()
    client = await aiohttp_client(rooms.app)
    async with EventStream(client, "/room") as stream:
        await stream.next("sse-hello")
        await rooms.sse.publish("elsewhere", "x")
        await rooms.clock.advance(16)
        await stream.next("sse-cursor")
        assert stream.last_event_id == await rooms.sse.cursor("room")


async def test_lifetimes(aiohttp_client: Client) -> None:
    """A connection ends at its age, ±10 %, and comes back without loss."""
    rooms = Rooms(lifetime=300)
    client = await aiohttp_client(rooms.app)
    async with EventStream(client, "/room") as stream:
        await rooms.clock.advance(265)
        assert 1 == rooms.sse.connections
        await rooms.clock.advance(70)
        assert 0 == rooms.sse.connections
        assert [] == await stream.rest()
        await stream.resume()
        await stream.next("sse-hello")
        assert stream.hello is not None
        assert "continued" == stream.hello["resumed"]


async def test_rechecks(aiohttp_client: Client) -> None:
    """The guard is asked again, and who is refused has been told when it is done."""
    rooms = Rooms(recheck=60)
    client = await aiohttp_client(rooms.app)
    async with EventStream(client, "/room") as stream:
        await rooms.clock.advance(80)
        assert 1 == rooms.sse.connections
        rooms.allowed = False
        await rooms.clock.advance(80)
        assert 0 == rooms.sse.connections
        assert {"reason": "disconnected"} == (await stream.next("sse-end")).value


async def test_a_client_that_takes_nothing(aiohttp_client: Client) -> None:
    """It is cut after its half minute, and no other is, however far the clock moves."""
    rooms = Rooms()
    client = await aiohttp_client(rooms.app)
    async with (
        EventStream(client, "/room") as stalled,
        EventStream(client, "/room") as other,
    ):
        await other.next("sse-hello")
        await stalled.next("sse-hello")
        stalled.stall()
        for _ in range(100):
            await rooms.sse.publish("room", "x" * 50_000)
        await stalled.stall()
        await other.collect(100)
        await rooms.clock.advance(20)
        assert 2 == rooms.sse.connections
        await rooms.clock.advance(20)
        assert 1 == rooms.sse.connections
        await rooms.clock.advance(500)
        await rooms.sse.publish("room", "still here")
        assert "still here" == (await other.next()).data


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that can be told to")
async def test_a_client_that_acknowledges_late(aiohttp_client: Client) -> None:
    """The clock waits for it: it has real time to say that it has what was written."""
    rooms = Rooms(heartbeat=0.5)
    client = await aiohttp_client(rooms.app)
    async with EventStream(client, "/room") as stream:
        await stream.next("sse-hello")
        assert stream.response is not None
        assert stream.response.connection is not None
        assert stream.response.connection.transport is not None
        sock = stream.response.connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        [link] = rooms.app[HUB_KEY].rounds.open
        await rooms.clock.advance(3)
        assert 0 == link.outstanding()
        await rooms.clock.advance(200)
        assert 1 == rooms.sse.connections


async def test_pauses_of_a_shared_run_that_failed(
    aiohttp_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """It begins again after a second, then after two."""
    rooms = Rooms()
    client = await aiohttp_client(rooms.app)
    async with EventStream(client, "/shared") as stream:
        assert 1 == (await stream.next()).value
        for number, pause in ((2, 1), (3, 2)):
            rooms.fail.set()
            await rooms.clock.advance(pause - 0.5)
            assert number - 1 == rooms.begun
            await rooms.clock.advance(1)
            assert number == (await stream.next()).value
        assert ["restarted"] * 2 == [gap["reason"] for gap in stream.gaps]
    assert 2 == len(caplog.records)


async def test_ages_of_a_memory_store(aiohttp_client: Client) -> None:
    """What is too old is gone, and a key may be used again, when the clock says so."""
    rooms = Rooms()
    client = await aiohttp_client(rooms.app)
    publish = rooms.sse.publish
    async with EventStream(client, "/room") as stream:
        await stream.next("sse-hello")
        first = await publish("room", 1, idempotency_key="a")
        assert first == await publish("room", 1, idempotency_key="a")
        await stream.next()
        stream.drop()
        await publish("room", 2)
        await rooms.clock.advance(62)
        await publish("room", 3)
        await stream.resume()
        assert 3 == (await stream.next()).value
        assert "expired" == stream.gaps[0]["reason"]
        await rooms.clock.advance(301)
        assert first != await publish("room", 1, idempotency_key="a")


async def test_pings_of_the_imperative_form(aiohttp_client: Client) -> None:
    """They come by the same clock."""
    clock = SettableClock()

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request, ping_interval=10) as response:
            await response.send("hello")
            await response.wait()
        return response

    app = web.Application()
    setup(app, [web.get("/", handler)], clock=clock)
    client = await aiohttp_client(app)
    async with EventStream(client, "/") as stream:
        assert "hello" == (await stream.next()).data
        await clock.advance(11)
        await stream.heartbeat()
        await stream.drop()


async def test_the_python_client(aiohttp_client: Client) -> None:
    """Its pauses go by it too: it comes back when the clock says so."""
    rooms = Rooms(lifetime=100, retry=5000)
    client = await aiohttp_client(rooms.app)
    url = client.make_url("/room")
    async with connect(url, clock=rooms.clock) as stream:
        coming = asyncio.create_task(stream.next())
        while stream.state == "open":
            await rooms.clock.advance(1)
        assert ("waiting", 0) == (stream.state, rooms.sse.connections)
        await rooms.sse.publish("room", "missed")
        await rooms.clock.advance(10)
        assert "missed" == (await coming).data


async def test_sleepers_wake_in_their_order() -> None:
    """At its own time each; those of one time as they fell asleep."""
    clock = SettableClock(100)
    woken: list[tuple[str, float]] = []

    async def sleep(name: str, *seconds: float) -> None:
        for some in seconds:
            await clock.sleep(some)
            woken.append((name, clock.now()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleep("a", 3, 1))
        tasks.create_task(sleep("b", 1, 2, 1))
        gone = tasks.create_task(sleep("gone", 2))
        await clock.settle()
        assert "<SettableClock at 100 s, 3 sleepers, the next due at 101 s>" == repr(
            clock
        )
        gone.cancel()
        await clock.advance(2.5)
        assert ([("b", 101)], 102.5) == (woken, clock.now())
        await clock.advance(1.5)
    expected = [("b", 101), ("a", 103), ("b", 103), ("a", 104), ("b", 104)]
    assert expected == woken
    assert "<SettableClock at 104 s, 0 sleepers>" == repr(clock)


@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan])
async def test_it_does_not_go_back(seconds: float) -> None:
    """The error says what was asked for."""
    with pytest.raises(ValueError, match="advance"):
        await SettableClock().advance(seconds)


async def test_a_task_that_is_never_done_does_not_hold_it() -> None:
    """Nor does one that has to wait for something that is not the clock."""
    clock = SettableClock()
    turns = 0

    async def spin() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    spinning = asyncio.create_task(spin())
    waiting = asyncio.create_task(asyncio.Event().wait())
    begun = asyncio.get_running_loop().time()
    for _ in range(10):
        await clock.advance(1)
    assert asyncio.get_running_loop().time() - begun < 2
    assert turns >= 100
    for task in (spinning, waiting):
        task.cancel()
    await asyncio.wait({spinning, waiting})


async def test_what_is_expected_holds_it_for_a_while() -> None:
    """A second at most, and only once."""
    clock = SettableClock()
    loop = asyncio.get_running_loop()
    clock.expect(lambda: loop.time() >= begun + 0.1)
    begun = loop.time()
    await clock.advance(5)
    assert 0.1 <= loop.time() - begun < 0.9
    clock.expect(lambda: False)
    await clock.advance(5)
    assert loop.time() - begun >= 1
    between = loop.time()
    await clock.advance(5)
    assert loop.time() - between < 0.9


async def test_it_follows_an_application_that_has_ended(serve: Any) -> None:
    """Of one that does not run, and of one that has no plugin, there is nothing."""
    clock = SettableClock()
    clock.follow(web.Application())
    rooms = Rooms()
    rooms.clock.follow(rooms.app)
    served = await serve(rooms.app)
    await served.close()
    await rooms.clock.advance(100)
    await clock.advance(1)
