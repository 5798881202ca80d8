"""A client that reads slowly, or not at all, costs little memory and nobody's time.

A private run is paused by its client; a shared run is not, and its slow clients are
told what they have missed. A client whose TCP takes nothing for half a minute is cut.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import ServerSentEvent, SharedRun, SSERouteTableDef
from aiohttp_sse_routes.http.connection import Connection
from aiohttp_sse_routes.http.hub import HUB_KEY, Hub
from aiohttp_sse_routes.http.sockets import STALL
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import (
    PROMPTLY,
    Follower,
    Run,
    Site,
    complaints,
    connections_of,
    hub_of,
    parked,
    producers_of,
    queued,
    stalled,
    unread,
)
from .test_rounds import takes_no_more

Serve = Callable[..., Awaitable[Served]]

MOST = 512 * 1024
"""Bytes of a stalled client in user space: its log, and its transport's buffer."""


class Source:
    """A generator that could produce gigabytes, and counts what it has yielded.

    Attributes:
        sizes: How large its events are, in turn.
        stop: The number at which it ends; None for never.
        yielded: How many events it has yielded.
        nbytes: How many bytes of data they had.
    """

    def __init__(self, *sizes: int, stop: int | None = None) -> None:
        self.sizes = sizes
        self.stop = stop
        self.yielded = 0
        self.nbytes = 0

    def event(self, number: int) -> str:
        """Return the event of that number."""
        return f"{number} ".ljust(self.sizes[number % len(self.sizes)], "x")

    async def events(self) -> AsyncIterator[str]:
        """Yield them, without ever awaiting."""
        while self.yielded != self.stop:
            event = self.event(self.yielded)
            self.yielded += 1
            self.nbytes += len(event)
            yield event

    def expected(self, count: int) -> list[str]:
        """Return the first *count* events."""
        return [self.event(number) for number in range(count)]

    def table(self, **options: Any) -> SSERouteTableDef:
        """Return a private route that yields them."""
        table = SSERouteTableDef()

        @table.sse_route("/source", **options)
        async def source(request: web.Request) -> AsyncIterator[Any]:
            return self.events()

        return table


def in_user_space(source: Source, connection: Connection, sock: socket.socket) -> int:
    """Return how many of the bytes yielded are in no kernel's queue."""
    kernel = queued(connection.transport.get_extra_info("socket")) + unread(sock)
    return source.nbytes - kernel


async def settled(source: Source, hub: Hub) -> None:
    """Turn the loop until the generator has been paused for many turns."""
    still = 0
    before = -1
    while still < 200:
        await asyncio.sleep(0)
        paused = any(p._waiter is not None for p in hub.producers)
        still = still + 1 if paused and before == source.nbytes else 0
        before = source.nbytes


SIZES = [
    pytest.param((100,), id="small"),
    pytest.param((20_000,), id="large"),
    pytest.param((300_000,), id="larger-than-the-log"),
    pytest.param((1, 5_000, 70_000), id="mixed"),
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("rcvbuf", [4096, None], ids=["small-window", "default-window"])
async def test_a_stalled_client_pauses_its_generator_and_loses_nothing(
    serve: Serve, clock: SettableClock, sizes: tuple[int, ...], rcvbuf: int | None
) -> None:
    """User space holds under 512 KB, of a stream of gigabytes; then it goes on."""
    source = Source(*sizes)
    # One event larger than the bounds may be under way: that is the user's.
    most = MOST + max(sizes)
    served = await serve(app_of(source.table(), clock=clock))
    follower = Follower(served, "/source")
    await follower.connect(rcvbuf=rcvbuf)
    await until(lambda: served.sse.connections)
    [connection] = connections_of(served)
    await settled(source, hub_of(served))
    paused_at = source.yielded
    assert in_user_space(source, connection, follower.sock) < most
    assert connection.transport.get_write_buffer_size() < most
    [run] = hub_of(served).private
    assert run.feed.nbytes < 262_144 + max(sizes) + 65_536
    for _ in range(20):
        await clock.advance(1)
    assert paused_at <= source.yielded < paused_at + 1000
    assert in_user_space(source, connection, follower.sock) < most
    # Twice as much again as may wait anywhere.
    wanted = source.yielded + 2 * MOST * len(sizes) // sum(sizes)
    await follower.read_events(wanted)
    assert source.expected(wanted) == follower.events[:wanted]
    assert [] == follower.gaps


@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
def test_the_bound_holds_on_every_transport(
    run: Run,
    handler_cancellation: bool,
    site_of: Callable[[str], Site],
    transport: str,
) -> None:
    """On TLS, on unix sockets and with uvloop too."""
    site = site_of(transport)
    source = Source(2_000, stop=3_000)

    async def scenario() -> None:
        app = app_of(source.table())
        async with site.serving(app, handler_cancellation=handler_cancellation):
            hub = app[HUB_KEY]
            sock = await asyncio.to_thread(site.ask, "/source", b"\r\n\r\n")
            await until(lambda: hub.connections)
            [connection] = hub.rounds.open
            await settled(source, hub)
            assert source.yielded < source.stop if source.stop else False
            # What TLS has read from the kernel and not given out is not much.
            assert in_user_space(source, connection, sock) < MOST
            data = await asyncio.to_thread(read_all, sock)
            sock.close()
        assert b'"finished"' in data
        lines = [line for line in data.split(b"\n") if line.startswith(b"data: ")]
        numbers = [int(line.split()[1]) for line in lines if line[6:7].isdigit()]
        assert list(range(3000))[-len(numbers) :] == numbers
        # The head was read with the response's headers.
        assert len(numbers) > 2900

    # A default unix socket takes 200 KB, a TCP one megabytes.
    run(scenario)


def read_all(sock: socket.socket) -> bytes:
    """Read until the server closes."""
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


async def test_a_run_whose_client_is_away_is_paused_at_half_its_log(
    serve: Serve, clock: SettableClock
) -> None:
    """It goes on meanwhile, no further than its log can tell; nothing is lost."""
    source = Source(100, stop=1000)
    served = await serve(app_of(source.table(replay=100), clock=clock))
    follower = await stalled(served, "/source")
    await follower.read_events(3)
    follower.sock.close()
    await until(lambda: served.sse.detached)
    await settled(source, hub_of(served))
    [run] = hub_of(served).private
    assert source.yielded - run.feed.acknowledged == 51
    assert len(run.feed) <= 100
    await follower.connect()
    await follower.read_all()
    if follower.gaps:
        # What its kernel had taken and it had not read was acknowledged.
        assert ["expired"] == follower.gaps
    assert source.expected(1000)[-100:] == follower.events[-100:]
    assert ["finished"] == follower.ends


# -- shared runs -----------------------------------------------------------------------


class Stage:
    """A shared run whose events a test makes."""

    def __init__(self, **options: Any) -> None:
        self.table = SSERouteTableDef()
        self.queue: asyncio.Queue[str] = asyncio.Queue()
        self.made: list[str] = []

        @self.table.sse_route("/stage", shared=True, **options)
        async def stage(run: SharedRun) -> AsyncIterator[Any]:
            while True:
                yield await self.queue.get()

    def make(self, size: int) -> str:
        """Let the run yield an event."""
        event = f"{len(self.made)} ".ljust(size, "x")
        self.made.append(event)
        self.queue.put_nowait(event)
        return event


async def followed(served: Served, *, rcvbuf: int | None = None) -> Follower:
    """Return a client of the stage that has been greeted."""
    follower = Follower(served, "/stage")
    await follower.connect(rcvbuf=rcvbuf)
    await follower.read_until(lambda: follower.control)
    return follower


async def overtaken(
    served: Served, stage: Stage, slow: Follower, quick: Follower
) -> None:
    """Make events, each read by *quick* at once, until the log has passed *slow*."""
    connection = next(c for c in connections_of(served) if _is_of(c, slow))
    [stream] = hub_of(served).shared
    extra = 0
    while extra < 50:
        event = stage.make(20_000)
        count = len(quick.events) + 1
        await quick.read_events(count)
        assert event == quick.events[-1]
        assert stream.feed.ring.nbytes <= 262_144
        assert connection.transport.get_write_buffer_size() < 200_000
        if connection.blocked and connection.place < stream.feed.ring.floor:
            extra += 1


def _is_of(connection: Connection, follower: Follower) -> bool:
    peer = connection.transport.get_extra_info("peername")
    return bool(peer == follower.sock.getsockname())


async def test_a_stalled_follower_delays_nobody_and_is_told_what_it_missed(
    serve: Serve, clock: SettableClock
) -> None:
    """The others get each event at once; memory is bounded; ``sse-gap`` says slow."""
    stage = Stage(replay=100)
    served = await serve(app_of(stage.table, clock=clock))
    slow = await followed(served, rcvbuf=4096)
    quick = await followed(served)
    await overtaken(served, stage, slow, quick)
    assert stage.made == quick.events
    assert [] == quick.gaps
    last = stage.made[-1]
    await slow.read_until(lambda: last in slow.events)
    assert ["slow"] == slow.gaps
    # Before the gap and behind it, all is in order; it lacks something between.
    first = slow.events.index(next(e for e in slow.events if _after(slow, e)))
    behind = slow.events[first:]
    assert stage.made[:first] == slow.events[:first]
    assert stage.made[-len(behind) :] == behind
    assert first + len(behind) < len(stage.made)
    event = stage.make(10)
    await slow.read_until(lambda: event in slow.events)
    assert 1 == len(slow.gaps)


def _after(follower: Follower, event: str) -> bool:
    """Whether *event* does not follow the one before it in number."""
    index = follower.events.index(event)
    number = int(event.split()[0])
    return index != number


async def test_an_overtaken_follower_is_disconnected_where_the_route_says_so(
    serve: Serve, clock: SettableClock
) -> None:
    """Its stream ends with ``retry``; when it comes back it is told the gap."""
    stage = Stage(replay=100, on_slow="disconnect")
    served = await serve(app_of(stage.table, clock=clock))
    slow = await followed(served, rcvbuf=4096)
    quick = await followed(served)
    await overtaken(served, stage, slow, quick)
    slow.retry = None
    await slow.read_all()
    assert slow.complete
    assert slow.retry is not None
    assert [] == slow.gaps
    assert [] == slow.ends
    assert stage.made[: len(slow.events)] == slow.events
    seen = len(slow.events)
    await slow.connect()
    await slow.read_until(lambda: stage.made[-1] in slow.events)
    assert ["expired"] == slow.gaps
    behind = slow.events[seen:]
    assert stage.made[-len(behind) :] == behind


# -- the cut of those that take nothing -----------------------------------------------


async def test_a_client_that_takes_nothing_for_half_a_minute_is_cut(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted from the last byte that it acknowledged; its run waits, as for any."""
    source = Source(20_000, stop=100)
    served = await serve(app_of(source.table(), clock=clock))
    follower = await stalled(served, "/source")
    [connection] = connections_of(served)
    await settled(source, hub_of(served))
    taken, since = -1, clock.now()
    while connection.closed is None:
        now = connection.total - connection.outstanding()
        if now > taken:
            taken, since = now, clock.now()
        assert clock.now() - since < STALL + 2
        await clock.advance(1)
    assert "stalled" == connection.closed
    assert STALL <= clock.now() - since <= STALL + 2
    await until(lambda: served.sse.detached == 1, timeout=PROMPTLY)
    await follower.connect()
    await follower.read_all()
    assert source.expected(100)[-3:] == follower.events[-3:]
    assert [] == follower.gaps
    assert [] == complaints(caplog)


@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
@pytest.mark.parametrize("lifetime", [None, 5], ids=["open", "ended"])
def test_the_cut_is_made_on_every_transport(
    run: Run,
    handler_cancellation: bool,
    site_of: Callable[[str], Site],
    transport: str,
    lifetime: float | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On TLS, on unix sockets and with uvloop too, of streams that have ended too."""
    site = site_of(transport)
    source = Source(20_000)
    clock = SettableClock()

    async def scenario() -> None:
        table = source.table(lifetime=lifetime, resume=1000)
        app = app_of(table, clock=clock, shutdown_grace=0.1)
        async with site.serving(app, handler_cancellation=handler_cancellation):
            hub = app[HUB_KEY]
            sock = await asyncio.to_thread(site.ask, "/source", b"\r\n\r\n")
            await until(lambda: hub.connections)
            [connection] = hub.rounds.open
            await settled(source, hub)
            await clock.advance(7)
            assert connection.closed == (None if lifetime is None else "lifetime")
            for _ in range(100):
                if not connection.lost:
                    await clock.advance(1)
            assert connection.lost
            await clock.advance(1)
            assert not hub.connections
            assert not hub.rounds.leaving
            sock.close()

    run(scenario)
    assert not complaints(caplog)


@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
def test_the_ticker_outlives_a_stream_whose_request_is_over(
    run: Run,
    handler_cancellation: bool,
    site_of: Callable[[str], Site],
    transport: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its transport is closed once more then, after which TLS knows nothing."""
    site = site_of(transport)
    source = Source(20_000)
    clock = SettableClock()

    async def scenario() -> None:
        table = source.table(lifetime=5, resume=6, heartbeat=20)
        app = app_of(table, clock=clock, shutdown_grace=0.1)
        async with site.serving(app, handler_cancellation=handler_cancellation):
            hub = app[HUB_KEY]
            sock = await asyncio.to_thread(site.ask, "/source", b"\r\n\r\n")
            await until(lambda: hub.connections)
            await settled(source, hub)
            await clock.advance(7)
            assert not hub.connections
            await until(lambda: hub.private.waiting)
            await clock.advance(7)
            await until(lambda: not hub.producers, timeout=PROMPTLY)
            await clock.advance(60)
            assert not hub.rounds.leaving
            sock.close()

    run(scenario)
    assert not complaints(caplog)


async def test_a_client_that_takes_a_little_is_not_cut_however_long_it_is_paused(
    serve: Serve, clock: SettableClock
) -> None:
    """Over ten minutes on a line that carries next to nothing, nothing is lost."""
    source = Source(20_000)
    served = await serve(app_of(source.table(heartbeat=10_000), clock=clock))
    follower = await stalled(served, "/source")
    [connection] = connections_of(served)
    await settled(source, hub_of(served))
    for _ in range(24):
        before = connection.total - connection.outstanding()
        while connection.total - connection.outstanding() <= before:
            if unread(follower.sock):
                await follower.read(2048)
            await asyncio.sleep(0)
        await clock.advance(25)
        assert connection.closed is None
        assert parked(served)
    count = len(follower.events) + 20
    await follower.read_events(count)
    assert source.expected(count) == follower.events[:count]


async def test_a_shared_follower_that_takes_nothing_is_cut_too(
    serve: Serve, clock: SettableClock
) -> None:
    """Though nobody waits for it: its buffers are to be had for others."""
    stage = Stage(replay=100, heartbeat=10_000)
    served = await serve(app_of(stage.table, clock=clock))
    slow = await followed(served, rcvbuf=4096)
    quick = await followed(served)
    await overtaken(served, stage, slow, quick)
    [connection] = [c for c in connections_of(served) if c.blocked]
    for _ in range(100):
        if connection.closed is None:
            await clock.advance(1)
    assert "stalled" == connection.closed
    assert 1 == served.sse.connections
    event = stage.make(10)
    await quick.read_until(lambda: event in quick.events)


async def test_an_idle_client_is_not_cut(serve: Serve, clock: SettableClock) -> None:
    """Only where bytes wait is silence a reason."""
    stage = Stage(heartbeat=10_000)
    served = await serve(app_of(stage.table, clock=clock))
    follower = await followed(served)
    await clock.advance(600)
    assert 1 == served.sse.connections
    event = stage.make(10)
    await follower.read_until(lambda: event in follower.events)


@pytest.mark.parametrize("resume", [0, 1000])
async def test_a_stream_that_has_ended_is_cut_if_nobody_takes_the_end_of_it(
    serve: Serve, clock: SettableClock, resume: float
) -> None:
    """It does not stay in memory for as long as a client cares to say nothing."""
    source = Source(20_000)
    table = source.table(lifetime=5, resume=resume)
    served = await serve(app_of(table, clock=clock))
    await stalled(served, "/source")
    hub = hub_of(served)
    [leaving] = connections_of(served)
    await settled(source, hub)
    await takes_no_more(leaving)
    await clock.advance(6)
    assert "lifetime" == leaving.closed
    assert 0 == served.sse.connections
    assert leaving.transport.get_write_buffer_size() > 0
    await clock.advance(STALL - 10)
    assert not leaving.lost
    await clock.advance(12)
    await until(lambda: leaving.lost, timeout=PROMPTLY)
    await clock.advance(2)
    assert not hub.rounds.leaving


# -- the loop's other tasks ------------------------------------------------------------


class Greedy:
    """An async iterator that never awaits, and counts."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.made = 0

    def __aiter__(self) -> Greedy:
        return self

    async def __anext__(self) -> Any:
        self.made += 1
        return self.make()


GREEDY = [
    pytest.param(lambda: "x" * 10, 65, id="small"),
    pytest.param(lambda: "x" * 100_000, 4, id="large"),
    pytest.param(lambda: None, 2, id="none"),
    pytest.param(lambda: ServerSentEvent(comment="nothing new"), 65, id="comments"),
]


@pytest.mark.parametrize(("make", "most"), GREEDY)
@pytest.mark.parametrize("shared", [False, True], ids=["private", "shared"])
async def test_a_generator_that_never_awaits_leaves_the_loop_its_turns(
    serve: Serve, clock: SettableClock, make: Callable[[], Any], most: int, shared: bool
) -> None:
    """In one turn of the loop it yields a few events, and others are served."""
    greedy = Greedy(make)
    table = SSERouteTableDef()

    if shared:

        @table.sse_route("/greedy", shared=True, resume=0)
        async def crowd(run: SharedRun) -> AsyncIterator[Any]:
            async for item in greedy:
                yield item

    else:

        @table.sse_route("/greedy", resume=0)
        async def own(request: web.Request) -> AsyncIterator[Any]:
            return greedy

    async def plain(request: web.Request) -> web.Response:
        return web.Response(text="plain")

    app = app_of(table, clock=clock)
    app.router.add_get("/plain", plain)
    served = await serve(app)
    client = await RawClient.connect(served)
    await client.get("/greedy")
    await client.read_until(b"\r\n\r\n")
    reading = asyncio.create_task(_drink(client))
    steps: list[int] = []
    for _ in range(500):
        before = greedy.made
        await asyncio.sleep(0)
        steps.append(greedy.made - before)
    assert 0 < max(steps) <= most
    assert (200, b"plain") == await served.get("/plain")
    assert served.sse.connections == 1
    reading.cancel()
    await asyncio.wait({reading})
    client.close()
    await until(lambda: not producers_of(served), timeout=PROMPTLY)


async def _drink(client: RawClient) -> None:
    while await client.read():
        client.received = b""


async def test_a_greedy_generator_does_not_hold_another_clients_stream(
    serve: Serve, clock: SettableClock
) -> None:
    """Beside one that yields without end, another's events come as they are made."""
    stage = Stage()

    @stage.table.sse_route("/greedy", shared=True)
    async def greedy(run: SharedRun) -> AsyncIterator[Any]:
        while True:
            yield "x" * 1000

    served = await serve(app_of(stage.table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/greedy")
    reading = asyncio.create_task(_drink(client))
    quick = await followed(served)
    for _ in range(20):
        event = stage.make(10)
        await quick.read_events(len(quick.events) + 1)
        assert event == quick.events[-1]
    reading.cancel()
    await asyncio.wait({reading})
