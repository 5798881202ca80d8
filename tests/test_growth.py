"""No cost a connection grows with how many connections, routes or channels there are.

Law: work is counted, and no time is taken. What counts are the bytecodes that the
package, aiohttp and asyncio's transports execute; and for what a single one of them
copies, the bytes that it allocates. The loop's own turns are not in it, nor are the
clients, which are sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
import statistics
import sys
import tracemalloc
from asyncio import selector_events
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import aiohttp
import aiohttp_sse
import pytest
from aiohttp import web

import aiohttp_sse_routes
from aiohttp_sse_routes import Channels, SharedRun, SSERouteTableDef
from aiohttp_sse_routes.http import rounds
from aiohttp_sse_routes.http.connection import Connection
from aiohttp_sse_routes.streams import slices
from aiohttp_sse_routes.testing import SettableClock

from .helpers import Served, app_of, until
from .lifecycle import connections_of, hub_of, queued

Serve = Callable[..., Awaitable[Served]]
Do = Callable[[], Awaitable[None]]
Wake = dict[str, asyncio.Event]

FEW, SOME, MANY = 64, 192, 768
"""Connections. There is a look at the clock for each 32 that are written to, and a turn
of the loop for each 192: so many are parts and turns that are full, or one turn."""

ROUTES = 300
CHANNELS = 1000
RUNS = 300
"""What else there is."""

TIMES = 3
"""How often a thing is done that is counted."""

A_COPY = 1000
"""Bytes that two measures of the same may differ by, for numbers that are longer and
tables that happen to grow. A list of 300 takes 2,400."""

_HEARTBEAT = 5
"""Seconds: as often as the kernel is asked what has been taken."""

_LEAST = 100
"""Bytecodes that everything takes here: fewer were not seen."""

_READ = 1024
"""Bytes that are read at a time: buffers would hide what else is allocated."""

_MARK = b"#"
_OURS = Path(aiohttp_sse_routes.__file__).parent
_PLACES = (
    _OURS,
    *(Path(module.__file__ or "").parent for module in (aiohttp, aiohttp_sse)),
    Path(selector_events.__file__),
)
_KIT = _OURS / "testing"
_BESIDE = {"_process_events", "rfc822_formatted_time"}

# In the other mode as much is counted, and it takes as long again.
pytestmark = pytest.mark.parametrize("handler_cancellation", [False], indirect=True)


# -- what is counted -------------------------------------------------------------------


class Work:
    """Counts what those who serve do, in a ``with``.

    Args:
        sizes: Whether to measure what is allocated, which takes longer.

    Attributes:
        steps: Bytecodes that they have executed, and lines that they have begun.
        taken: Bytes that they have allocated, were it for a moment.
    """

    def __init__(self, *, sizes: bool = False) -> None:
        self.steps = self.taken = 0
        self._sizes = sizes
        self._held = 0
        self._before: Any = None
        self._known: dict[CodeType, bool] = {}

    def __enter__(self) -> Work:
        # A collection may come at any time, and what it finds may be closed by code.
        gc.disable()
        if self._sizes:
            tracemalloc.start()
        self._before = sys.gettrace()
        # Some interpreters look here for whether anybody wants bytecodes.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._call)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(self._before)
        tracemalloc.stop()
        gc.enable()

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        counts = self._known.get(code)
        if counts is None:
            counts = self._known[code] = _counts(code)
        if not counts:
            return None
        frame.f_trace = self._step
        frame.f_trace_opcodes = True
        if self._sizes:
            self._held, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.steps += 1
        if self._sizes:
            held, peak = tracemalloc.get_traced_memory()
            self.taken += peak - self._held
            self._held = held
            tracemalloc.reset_peak()
        return self._step


def _counts(code: CodeType) -> bool:
    """Whether it is of who serves, and not of how the loop turns or time passes."""
    path = Path(code.co_filename)
    if path.is_relative_to(_KIT) or code.co_name in _BESIDE:
        return False
    return any(path.is_relative_to(place) for place in _PLACES)


class Took(NamedTuple):
    """What one thing took.

    Attributes:
        steps: Bytecodes, and lines.
        taken: Bytes that they have allocated, were it for a moment.
    """

    steps: float
    taken: float


async def took(do: Do, undo: Do | None = None) -> Took:
    """Do it some times, and *undo* it each time; return what it took, mostly."""
    found: list[Work] = []
    for _ in range(TIMES):
        gc.collect()
        with Work(sizes=True) as work:
            await do()
        found.append(work)
        if undo is not None:
            await undo()
    assert min(work.steps for work in found) > _LEAST
    return Took(
        statistics.median(work.steps for work in found),
        statistics.median(work.taken for work in found),
    )


async def steps_of(do: Do) -> int:
    """Do it twice; return the bytecodes of the second time."""
    await do()
    with Work() as work:
        await do()
    assert work.steps > _LEAST
    return work.steps


def same(one: Took, other: Took) -> None:
    """Fail unless it took the same, whatever else there was."""
    assert one.steps == other.steps
    assert one.taken == pytest.approx(other.taken, abs=A_COPY)


# -- who is served ---------------------------------------------------------------------


class World:
    """A server, and clients which are nothing but sockets.

    Args:
        served: The server, of `app_of_all`.
        wake: Has its generators yield, by what they wait for.
    """

    def __init__(self, served: Served, wake: Wake) -> None:
        self.served = served
        self._wake = wake
        self.sse = served.sse
        self._socks: list[socket.socket] = []

    async def connect(self, count: int, path: str = "/room") -> list[socket.socket]:
        """Open *count* streams, until each has begun."""
        socks: list[socket.socket] = []
        for _ in range(count):
            sock = socket.create_connection((self.served.host, self.served.port))
            self._socks.append(sock)
            socks.append(sock)
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            sock.setblocking(False)
            if not len(socks) % 32:
                await self.given(socks[-32:], b"sse-hello")
        await self.given(socks[count // 32 * 32 :], b"sse-hello")
        await self.settle()
        return socks

    async def given(self, socks: list[socket.socket], mark: bytes) -> None:
        """Read until each of *socks* has been given *mark*."""
        for sock in socks:
            got = b""
            spins = itertools.count()
            while mark not in got:
                assert next(spins) < 100_000, f"{mark!r} never came: {got!r}"
                try:
                    more = sock.recv(_READ)
                except BlockingIOError:
                    await asyncio.sleep(0)
                else:
                    assert more, f"the server has closed: {got!r}"
                    got += more

    async def settle(self) -> None:
        """Let what was begun come to its end."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def leave(self, socks: list[socket.socket]) -> None:
        """Close *socks*, and see the server note it."""
        left = self.sse.connections - len(socks)
        for sock in socks:
            sock.close()
            self._socks.remove(sock)
        await until(lambda: self.sse.connections == left)
        await self.settle()

    def close(self) -> None:
        """Close all sockets."""
        for sock in self._socks:
            sock.close()

    # -- what costs ----------------------------------------------------------------

    def publishing(self, socks: list[socket.socket]) -> Do:
        """Return what publishes an event, which *socks* are to be given."""

        async def publish() -> None:
            await self.sse.publish("room", "#")
            await self.given(socks, _MARK)
            await self.settle()

        return publish

    def yielding(self, who: str, socks: list[socket.socket]) -> Do:
        """Return what lets the generator of *who* yield, which *socks* are given."""

        async def wake() -> None:
            self._wake[who].set()
            await self.given(socks, _MARK)
            await self.settle()

        return wake

    async def coming_and_going(self, path: str = "/room") -> tuple[Took, Took]:
        """Return what one more takes that connects, and what it takes as it leaves."""
        come: list[socket.socket] = []

        async def connect() -> None:
            come.extend(await self.connect(1, path))

        async def leave() -> None:
            await self.leave([come.pop()])

        coming = await took(connect, leave)
        await connect()
        going = await took(leave, connect)
        await leave()
        return coming, going


def app_of_all(clock: SettableClock, routes: int) -> tuple[web.Application, Wake]:
    """Return an application with each kind of stream, and so many routes more."""
    table = SSERouteTableDef()
    wake: Wake = {name: asyncio.Event() for name in ("idle", "one", "shared")}

    async def woken(who: str) -> AsyncIterator[str | None]:
        yield None
        while True:
            await wake[who].wait()
            wake[who].clear()
            yield _MARK.decode()

    async def follow(request: web.Request) -> Channels:
        return Channels(*request.query.get("names", "room").split("."))

    async def run(request: web.Request) -> AsyncIterator[str | None]:
        return woken(request.query.get("who", "idle"))

    async def run_for_all(run: SharedRun) -> AsyncIterator[str | None]:
        async for item in woken("shared"):
            yield item

    table.sse_route("/room", name="room")(follow)
    table.sse_route("/run", name="run", resume=0)(run)
    table.sse_route("/shared", name="shared", shared=True)(run_for_all)
    for number in range(routes):
        table.sse_route(f"/other{number}", name=f"other{number}")(follow)
    options = {"heartbeat": _HEARTBEAT, "shutdown_grace": 0.02}
    return app_of(table, clock=clock, **options), wake


Begin = Callable[..., Awaitable[World]]


@pytest.fixture
def begin(
    serve: Serve, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Begin]:
    """Return a function that has a server with so many routes more than it needs."""
    # Counting takes longer than a turn may: there a turn ends by the number of writes.
    monkeypatch.setattr(slices, "SLICE", 1e9)
    monkeypatch.setattr(rounds, "_SLICE", 1e9)
    # Buffers of 256 KiB that come and go would hide what else is allocated.
    transport = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    monkeypatch.setattr(transport, "max_size", _READ)
    worlds: list[World] = []

    async def start(routes: int = 0) -> World:
        app, wake = app_of_all(clock, routes)
        worlds.append(World(await serve(app), wake))
        return worlds[-1]

    with files(3 * MANY):
        yield start
        for world in worlds:
            world.close()


@contextlib.contextmanager
def files(count: int) -> Iterator[None]:
    """Let so many files be open."""
    if sys.platform == "win32":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        yield
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"{count} files are needed, and {hard} may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def with_routes(world: World) -> None:
    """Have a client on each of the other routes, and an event in its channel."""
    for number in range(ROUTES):
        await world.connect(1, f"/other{number}?names=c{number}")
        await world.sse.publish(f"c{number}", number)
    await world.settle()


async def with_channels(world: World) -> None:
    """Have a thousand channels that are followed, with an event in each."""
    names = [f"c{number}" for number in range(CHANNELS)]
    for first in range(0, CHANNELS, 250):
        await world.connect(1, f"/room?names={'.'.join(names[first : first + 250])}")
    for name in names:
        await world.sse.publish(name, name)
    await world.settle()


# -- an event --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["channel", "shared"])
async def test_a_delivery_costs_the_same_however_many_there_are(
    begin: Begin, kind: str
) -> None:
    """Each that is one more adds as much, with hundreds as with some.

    The first of a turn are written to by a loop that is shorter, and so cost less.
    """
    world = await begin()
    socks: list[socket.socket] = []
    found: dict[int, int] = {}
    for count in (FEW, SOME, 2 * SOME, 3 * SOME, MANY):
        more = count - len(socks)
        if kind == "channel":
            socks += await world.connect(more)
            event = world.publishing(socks)
        else:
            socks += await world.connect(more, "/shared")
            event = world.yielding("shared", socks)
        found[count] = await steps_of(event)
    each = found[MANY] - found[3 * SOME]
    assert each == found[3 * SOME] - found[2 * SOME]
    assert (found[SOME] - found[FEW]) / (SOME - FEW) <= each / SOME


@pytest.mark.parametrize("others", [with_routes, with_channels])
async def test_an_event_costs_the_same_whatever_else_there_is(
    begin: Begin, others: Callable[[World], Awaitable[None]]
) -> None:
    """Other routes with their clients, or other channels, add nothing to it."""
    alone = await begin()
    among = await begin(ROUTES)
    await others(among)
    same(
        await took(alone.publishing(await alone.connect(FEW))),
        await took(among.publishing(await among.connect(FEW))),
    )


async def test_an_event_of_a_run_costs_the_same_however_many_are_idle(
    begin: Begin,
) -> None:
    """A private run's event has no work with the runs of others."""
    world = await begin()
    socks = await world.connect(1, "/run?who=one")
    await world.connect(10, "/run")
    few = await took(world.yielding("one", socks))
    await world.connect(RUNS - 10, "/run")
    same(few, await took(world.yielding("one", socks)))


# -- coming and going ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/room", "/run", "/shared"])
async def test_to_connect_costs_the_same_however_many_there_are(
    begin: Begin, path: str
) -> None:
    """One more that connects, and one that leaves, are no work with the others."""
    world = await begin()
    await world.connect(FEW, path)
    few = await world.coming_and_going(path)
    await world.connect(MANY - FEW, path)
    many = await world.coming_and_going(path)
    for one, other in zip(few, many, strict=True):
        same(one, other)


@pytest.mark.parametrize("others", [with_routes, with_channels])
async def test_to_connect_costs_the_same_whatever_else_there_is(
    begin: Begin, others: Callable[[World], Awaitable[None]]
) -> None:
    """Other routes with their clients, or other channels, add nothing to it."""
    alone = await begin()
    among = await begin(ROUTES)
    await others(among)
    for world in (alone, among):
        await world.connect(1)
    for one, other in zip(
        await alone.coming_and_going(), await among.coming_and_going(), strict=True
    ):
        same(one, other)


# -- the ticker ------------------------------------------------------------------------


async def test_a_tick_costs_the_same_however_many_there_are(
    begin: Begin, clock: SettableClock
) -> None:
    """Each connection adds as much to five ticks, in which it has one heartbeat."""
    world = await begin()
    seconds = itertools.count(clock.now())
    found: list[int] = []

    def taken() -> bool:
        # What has come to a client may be acknowledged a little later.
        return not any(map(waiting_for, connections_of(world.served)))

    async def ticks() -> int:
        steps = 0
        for _ in range(_HEARTBEAT):
            with Work() as work:
                hub_of(world.served).tick(next(seconds))
            steps += work.steps
            await until(taken)
        return steps

    for count in (FEW, SOME, MANY):
        await world.connect(count - world.sse.connections)
        for _ in range(_HEARTBEAT):
            hub_of(world.served).tick(next(seconds))
            await until(taken)
        found.append(await ticks())
    few, some, many = found
    assert few > _LEAST * FEW
    assert (many - some) / (MANY - SOME) == (some - few) / (SOME - FEW)


def waiting_for(connection: Connection) -> int:
    """Return how many bytes the client of *connection* has not acknowledged."""
    return queued(connection.transport.get_extra_info("socket"))


# -- memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/room", "/run", "/shared"])
async def test_a_connection_takes_the_same_however_many_there_are(
    begin: Begin, path: str
) -> None:
    """As many objects, and as many bytes, but for tables that happen to grow."""
    world = await begin()
    found = []
    for others in (FEW, MANY):
        await world.connect(others - world.sse.connections, path)
        gc.collect()
        objects = len(gc.get_objects())
        tracemalloc.start()
        await world.connect(FEW, path)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] / FEW
        tracemalloc.stop()
        found.append((len(gc.get_objects()) - objects, size))
    (few, few_bytes), (many, many_bytes) = found
    # Which of the same tuples the collector looks at differs from Python to Python.
    assert abs(many - few) < FEW, f"{few} and {many}: one more for each"
    assert many_bytes <= few_bytes + A_COPY
