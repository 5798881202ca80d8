"""Several streams on one connection: how they end, together and one by one.

What ends the connection ends all at once; what ends one leaves the others as they are.
Nothing outlives the request that asked for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import Channels, SharedRun, SSERouteTableDef, setup
from aiohttp_sse_routes.http.connection import Connection
from aiohttp_sse_routes.http.multiplex_trunk import Branch, Trunk
from aiohttp_sse_routes.http.sockets import STALL
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import (
    PROMPTLY,
    Life,
    Run,
    Site,
    complaints,
    connections_of,
    hub_of,
    producers_of,
)
from .multiplexed import Multiplexed
from .rawhttp import ask
from .test_blackout import black_out

Serve = Callable[..., Awaitable[Served]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

USER: contextvars.ContextVar[str] = contextvars.ContextVar("USER", default="nobody")

GRACE = 0.5


class Journal:
    """What middlewares and generators hold open, and when they let go.

    Attributes:
        lines: What happened, in order.
        lives: The generators, by path.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.lives: dict[str, Life] = {}

    @web.middleware
    async def holding(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        """Hold something open round the handler, under the path's name."""
        task = asyncio.current_task()
        assert task is not None
        assert USER.get() == "nobody" or request.path != "/_sse/streams"
        USER.set(request.path)
        self.lines.append(f"{request.path} opens")
        try:
            response = await handler(request)
            # A cancellation that was passed over is not left to hit this.
            assert not task.cancelling()
            await asyncio.sleep(0)
        finally:
            assert USER.get() == request.path
            self.lines.append(f"{request.path} closes")
        return response

    def app(self, clock: SettableClock, **options: Any) -> web.Application:
        """Return an application with a route of each kind, none of which ends."""
        table = SSERouteTableDef()

        def lived(path: str) -> AsyncIterator[Any]:
            life = self.lives[path] = Life()
            return life.lived()

        @table.sse_route("/brief/{n}", resume=0)
        async def brief(request: web.Request) -> AsyncIterator[Any]:
            async for item in lived(request.path):
                yield item

        @table.sse_route("/lasting", resume=15)
        async def lasting(request: web.Request) -> AsyncIterator[Any]:
            async for item in lived(request.path):
                yield item

        @table.sse_route("/shared", shared=True, resume=0, history=1)
        async def shared(run: SharedRun) -> AsyncIterator[Any]:
            async for item in lived(run.path):
                yield item

        @table.sse_route("/room")
        async def room(request: web.Request) -> Channels:
            return Channels("room", on_close=lambda: self.lines.append("room on_close"))

        app = web.Application(middlewares=[self.holding])
        setup(app, table, clock=clock, **options)
        return app

    @property
    def open(self) -> set[str]:
        """The paths round whose handlers something is held open."""
        opened = {line.split()[0] for line in self.lines if line.endswith("opens")}
        closed = {line.split()[0] for line in self.lines if line.endswith("closes")}
        return opened - closed


PATHS = {"a": "/brief/1", "b": "/brief/2", "s": "/shared", "r": "/room"}


async def opened(client: Multiplexed, **options: Any) -> RawClient:
    """Connect and read until every stream has begun."""
    raw = await client.connect(**options)
    await client.read_until(
        lambda: (
            all(sub.control and not sub.over for sub in client.subs.values())
            and all(sub.events for key, sub in client.subs.items() if key != "r")
        )
    )
    return raw


def _half_close(client: RawClient) -> None:
    client.sock.shutdown(socket.SHUT_WR)


# -- the client leaves -----------------------------------------------------------------


@pytest.mark.parametrize(
    "leave",
    [RawClient.close, RawClient.reset, _half_close],
    ids=["closed", "reset", "half-closed"],
)
async def test_a_client_that_leaves_ends_all_at_once(
    serve: Serve,
    clock: SettableClock,
    caplog: pytest.LogCaptureFixture,
    leave: Callable[[RawClient], None],
) -> None:
    """Within a second every ``finally`` has run and every middleware has let go."""
    journal = Journal()
    served = await serve(journal.app(clock))
    client = Multiplexed(served, PATHS)
    raw = await opened(client)
    assert journal.open == {*PATHS.values(), "/_sse/streams"}
    leave(raw)
    await until(lambda: not journal.open, timeout=PROMPTLY, what=str(journal.lines))
    assert all(life.closed_once_in_its_task() for life in journal.lives.values())
    assert journal.lines.count("room on_close") == 1
    assert "/_sse/streams closes" == journal.lines[-1]
    hub = hub_of(served)
    assert {0} == {len(hub.rounds.carriers), len(hub.limits.counts), len(hub.producers)}
    assert not connections_of(served)
    assert [] == complaints(caplog)


async def test_a_client_that_leaves_early(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """At whatever turn of the loop it leaves, nothing is left behind."""
    journal = Journal()
    served = await serve(journal.app(clock))
    hub = hub_of(served)
    for turns in range(40):
        client = Multiplexed(served, PATHS)
        raw = await client.connect()
        for _ in range(turns):
            await asyncio.sleep(0)
        raw.reset()
        counts, carriers = hub.limits.counts, hub.rounds.carriers
        await until(
            lambda: not (journal.open or carriers or counts or hub.producers),  # noqa: B023
            timeout=PROMPTLY,
            what=f"{journal.open} {counts} {hub.producers} after {turns} turns",
        )
        journal.lines.clear()
    assert [] == complaints(caplog)


async def test_a_handler_that_hangs_before_its_stream(
    serve: Serve, clock: SettableClock, handler_cancellation: bool
) -> None:
    """It is cancelled with its client where the server does that, and else goes on."""
    table, lines, go = SSERouteTableDef(), list[str](), asyncio.Event()

    @table.sse_route("/hangs")
    async def hangs(request: web.Request) -> Channels:
        lines.append("begun")
        try:
            await go.wait()
            lines.append("done")
        except asyncio.CancelledError:
            lines.append("cancelled")
            raise
        return Channels("x")

    served = await serve(app_of(table, clock=clock))
    client = Multiplexed(served, {"a": "/hangs", "b": "/nowhere"})
    raw = await client.connect()
    await client.read_until(lambda: client["b"].over)
    raw.close()
    await until(lambda: not hub_of(served).rounds.carriers, timeout=PROMPTLY)
    go.set()
    await until(lambda: not hub_of(served).limits.counts, timeout=PROMPTLY)
    assert ["begun", "cancelled" if handler_cancellation else "done"] == lines


async def test_a_run_that_waits_keeps_its_request_open(
    serve: Serve, clock: SettableClock
) -> None:
    """What middlewares hold for it stays so until it ends, and the others let go."""
    journal = Journal()
    served = await serve(journal.app(clock))
    client = Multiplexed(served, {"a": "/brief/1", "l": "/lasting"})
    raw = await opened(client)
    raw.close()
    await until(lambda: served.sse.detached == 1, timeout=PROMPTLY)
    await until(lambda: "/brief/1" not in journal.open, timeout=PROMPTLY)
    assert journal.open == {"/lasting", "/_sse/streams"}
    raw = await client.connect()
    await client.read_until(lambda: client["l"].names.count("sse-hello") == 2)
    assert ("sse-hello", {"heartbeat": 15.0, "resumed": "continued"}) == (
        client["l"].control[-1]
    )
    assert ["first"] == client["l"].events
    raw.close()
    await until(lambda: served.sse.detached == 1, timeout=PROMPTLY)
    await clock.advance(16)
    await until(lambda: not journal.open, timeout=PROMPTLY)
    assert journal.lives["/lasting"].closed_once_in_its_task()


async def test_a_slow_client_that_sends_no_more_has_left(
    serve: Serve, clock: SettableClock
) -> None:
    """Its streams end at once, though what was written is yet to go out."""
    app, yielded = numbers_app(clock, 20_000, resume=0, replay_bytes=10_000_000)
    served = await serve(app)
    client = Multiplexed(served, {"a": "/numbers/0", "b": "/numbers/1"})
    raw = await client.connect(rcvbuf=4096)
    await client.read_until(lambda: len(connections_of(served)) == 2)
    await settled(served, yielded)
    [trunk] = hub_of(served).rounds.carriers
    assert trunk.blocked
    _half_close(raw)
    await until(lambda: not producers_of(served), timeout=PROMPTLY)
    assert trunk.transport.get_write_buffer_size() > 0
    raw.close()


async def test_a_cut_is_a_cut(serve: Serve, clock: SettableClock) -> None:
    """As by a network: nothing says that the streams have ended."""
    journal = Journal()
    served = await serve(journal.app(clock))
    client = Multiplexed(served, PATHS)
    await opened(client)
    assert 4 == hub_of(served).cut_all()
    await client.read_all()
    assert not client.complete
    assert not any(sub.over for sub in client.subs.values())


# -- one ends, the others go on --------------------------------------------------------


async def test_streams_end_one_by_one(serve: Serve, clock: SettableClock) -> None:
    """By dismissal, by lifetime, by a recheck, by themselves: each alone."""
    allowed = True
    table = SSERouteTableDef()
    go = asyncio.Event()

    async def endless(request: web.Request) -> AsyncIterator[Any]:
        yield "first"
        await asyncio.Event().wait()

    @table.sse_route("/finished")
    async def finished(request: web.Request) -> AsyncIterator[Any]:
        yield "first"
        await go.wait()

    options: dict[str, Any] = {
        "dismissed": {"resume": 0, "owner": lambda request: "ann"},
        "aged": {"lifetime": 100},
        "checked": {"recheck": 200, "guard": lambda request: allowed},
        "stays": {"resume": 0},
    }
    for name, own in options.items():
        table.sse_route(f"/{name}", name=name, **own)(endless)

    served = await serve(app_of(table, clock=clock))
    names = ("dismissed", "aged", "checked", "finished", "stays")
    client = Multiplexed(served, {name: f"/{name}" for name in names})
    raw = await opened(client)

    async def over(*expected: str) -> None:
        await client.read_until(lambda: client[expected[-1]].over)
        assert {*expected} == {key for key, sub in client.subs.items() if sub.over}

    await served.sse.disconnect(owner="ann")
    await over("dismissed")
    go.set()
    await over("dismissed", "finished")
    clock.follow(served.app)
    await clock.advance(111)
    await over("dismissed", "finished", "aged")
    allowed = False
    await clock.advance(251)
    await over("dismissed", "finished", "aged", "checked")
    await served.sse.disconnect(route="stays", reconnect=True)
    await over(*names)
    await client.read_all()
    assert client.complete
    assert not await raw.read()
    assert {
        "dismissed": ["sse-end", "sse-eof"],
        "finished": ["sse-end", "sse-eof"],
        "aged": ["sse-hello", "sse-eof"],
        "checked": ["sse-end", "sse-eof"],
        "stays": ["sse-hello", "sse-eof"],
    } == {name: client[name].names[-2:] for name in names}
    assert client["checked"].control[-2] == ("sse-end", {"reason": "disconnected"})


async def test_a_middleware_ends_its_own_stream(
    serve: Serve, clock: SettableClock
) -> None:
    """Closing what it takes for the connection ends the stream, and no other."""

    @web.middleware
    async def closing(request: web.Request, handler: Handler) -> web.StreamResponse:
        how = request.query.get("how")
        assert request.transport is not None
        if how is not None:
            loop = asyncio.get_running_loop()
            ways: dict[str, Callable[[], object]] = {
                "abort": request.transport.abort,
                "close": request.transport.close,
                "force": request.protocol.force_close,
            }
            # When the stream has begun.
            loop.call_later(0.01, ways[how])
        return await handler(request)

    journal = Journal()
    app = journal.app(clock)
    app.middlewares.append(closing)
    served = await serve(app)
    ways = ("abort", "close", "force")
    paths = {how: f"/brief/{how}?how={how}" for how in ways}
    client = Multiplexed(served, {**paths, "x": "/brief/x"})
    await client.connect()
    await client.read_until(lambda: all(client[how].over for how in ways))
    assert not client["x"].over
    await until(lambda: journal.open == {"/brief/x", "/_sse/streams"}, timeout=PROMPTLY)
    assert [["sse-hello", "sse-eof"]] * 3 == [client[how].names for how in ways]


async def test_a_time_limit_on_one_request(serve: Serve, clock: SettableClock) -> None:
    """It is cancelled alone; one on the whole ends all, and is raised behind that."""
    limits: dict[str, asyncio.Timeout] = {}

    @web.middleware
    async def limiting(request: web.Request, handler: Handler) -> web.StreamResponse:
        async with asyncio.timeout(None) as limit:
            limits[request.path] = limit
            return await handler(request)

    journal = Journal()
    app = journal.app(clock)
    app.middlewares.append(limiting)
    served = await serve(app)
    client = Multiplexed(served, {"a": "/brief/1", "b": "/brief/2", "l": "/lasting"})
    await opened(client)
    now = asyncio.get_running_loop().time()
    limits["/brief/1"].reschedule(now)
    await client.read_until(lambda: client["a"].over)
    assert not client["b"].over
    limits["/_sse/streams"].reschedule(now)
    await client.read_all()
    assert client.complete
    assert all(sub.over for sub in client.subs.values())
    await until(lambda: not journal.open, timeout=PROMPTLY)
    assert all(life.closed_once_in_its_task() for life in journal.lives.values())


# -- the application ends --------------------------------------------------------------


async def test_shutdown_ends_all_cleanly(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is told when to come back, then comes the last chunk, and it is gone."""
    journal = Journal()
    served = await serve(journal.app(clock))
    client = Multiplexed(served, {**PATHS, "l": "/lasting"})
    raw = await opened(client)
    loop = asyncio.get_running_loop()
    began = loop.time()
    closing = asyncio.create_task(served.close())
    await client.read_all()
    await closing
    assert loop.time() - began < 1
    assert client.complete
    for key, sub in client.subs.items():
        assert "sse-eof" == sub.names[-1]
        line = f"stream: {key}\n".encode()
        assert client.body.count(line + b"retry: ") >= 1
    assert raw.received.endswith(b"\r\n0\r\n\r\n")
    assert not journal.open
    assert all(life.closed_once_in_its_task() for life in journal.lives.values())
    assert [] == complaints(caplog)


async def test_shutdown_waits_for_nobody(serve: Serve, clock: SettableClock) -> None:
    """Not for a handler that hangs, nor for the body of a request."""
    table = SSERouteTableDef()
    hung = asyncio.Event()

    @table.sse_route("/hangs")
    async def hangs(request: web.Request) -> Channels:
        hung.set()
        await asyncio.Event().wait()
        return Channels("never")

    @table.sse_route("/tidies")
    async def tidies(request: web.Request) -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)

    served = await serve(app_of(table, clock=clock, shutdown_grace=GRACE))
    client = Multiplexed(served, {"a": "/hangs", "b": "/tidies"})
    await client.connect()
    await client.read_until(lambda: client["b"].events)
    await hung.wait()
    other = await RawClient.connect(served)
    head = "POST /_sse/streams HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n"
    await other.send(f"{head}Content-Type: application/json\r\n\r\n".encode())
    hub, loop = hub_of(served), asyncio.get_running_loop()
    await until(lambda: hub._enders)
    began = loop.time()
    closing = asyncio.create_task(served.close())
    await client.read_all()
    assert ["sse-eof"] == client["a"].names
    await closing
    assert b'{"reason":"shutdown"}' in await other.read_all()
    assert loop.time() - began < 1 + GRACE


async def test_a_request_while_the_application_shuts_down(
    serve: Serve, clock: SettableClock
) -> None:
    """It is refused as softly as any stream."""
    table = SSERouteTableDef()
    go = asyncio.Event()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[Any]:
        try:
            yield "x"
            await asyncio.Event().wait()
        finally:
            await go.wait()

    served = await serve(app_of(table, clock=clock, shutdown_grace=60))
    async with served.stream("/x") as stream:
        await stream.next()
        hub = hub_of(served)
        drain = asyncio.create_task(hub.drain())
        await until(lambda: hub.draining)
        body = b'{"streams": [{"key": "a", "url": "/x"}]}'
        kind = "Content-Type: application/json"
        for content in (body, b"no JSON"):
            response = await ask(
                served, "/_sse/streams", kind, method="POST", body=content
            )
            assert 200 == response.status
            assert {"reason": "shutdown"} == response.data("sse-busy")
        go.set()
        await drain


# -- the client is slow ----------------------------------------------------------------


def numbers_app(
    clock: SettableClock, size: int, count: int = 100_000, **options: Any
) -> tuple[web.Application, list[int]]:
    """Return an application with a run that never rests, and what it has yielded."""
    table, yielded = SSERouteTableDef(), [0, 0]

    @table.sse_route("/numbers/{n}", **options)
    async def numbers(request: web.Request) -> AsyncIterator[Any]:
        n = int(request.match_info["n"])
        for number in range(count):
            yielded[n] = number + 1
            yield f"{number} ".ljust(size, "x")

    @table.sse_route("/room")
    async def room(request: web.Request) -> Channels:
        return Channels("room")

    return app_of(table, clock=clock, shutdown_grace=0.02), yielded


async def settled(served: Served, yielded: list[int]) -> None:
    """Turn the loop until nothing moves any more, for many turns."""
    still, before = 0, [*yielded]
    while still < 200:
        await asyncio.sleep(0)
        still = still + 1 if before == yielded else 0
        before = [*yielded]


async def test_a_client_that_takes_nothing_holds_bounded_memory(
    serve: Serve, clock: SettableClock
) -> None:
    """Its runs are paused at half their logs, and after half a minute it is cut."""
    app, yielded = numbers_app(clock, 20_000, replay=100, replay_bytes=10_000_000)
    served = await serve(app)
    client = Multiplexed(served, {"a": "/numbers/0", "b": "/numbers/1", "r": "/room"})
    raw = await client.connect(rcvbuf=4096)
    await client.read_until(lambda: len(connections_of(served)) == 3)
    [trunk] = hub_of(served).rounds.carriers
    assert isinstance(trunk, Trunk)
    await settled(served, yielded)
    assert max(yielded) <= 51
    for _ in range(2000):
        await served.sse.publish("room", "x" * 1000)
    assert trunk.blocked
    assert trunk.transport.get_write_buffer_size() < 400_000
    assert all(connection.blocked for connection in connections_of(served))
    taken, since = -1, clock.now()
    while trunk.closed is None:
        if trunk.acknowledged > taken:
            taken, since = trunk.acknowledged, clock.now()
        assert clock.now() - since < STALL + 2
        await clock.advance(1)
    assert "stalled" == trunk.closed
    assert clock.now() - since >= STALL
    await until(lambda: not connections_of(served), timeout=PROMPTLY)
    assert served.sse.detached == 2
    raw.close()
    # What it had is known: it comes back, and both runs go on from there.
    last = [len(client[key].events) for key in "ab"]
    await client.connect()
    await client.read_until(lambda: all(len(client[key].events) > 120 for key in "ab"))
    for key in "ab":
        found = [int(text.split()[0]) for text in client[key].events]
        assert found == [*range(len(found))]
    assert not client["a"].gaps + client["b"].gaps
    assert max(last) < 120


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")
@pytest.mark.parametrize("size", [20, 3000])
async def test_a_blackout_loses_nothing_on_any_of_the_streams(
    serve: Serve, clock: SettableClock, size: int
) -> None:
    """What was written is not received: each run is paused, and replays its log."""
    options: dict[str, Any] = {"replay": 200, "replay_bytes": 400_000}
    app, yielded = numbers_app(clock, size, **options)
    served = await serve(app)
    client = Multiplexed(served, {"a": "/numbers/0", "b": "/numbers/1"})
    raw = await client.connect()
    for connection in range(4):
        least = 20 + 50 * connection
        while any(len(sub.events) <= least for sub in client.subs.values()):
            assert await client.read()
        black_out(raw.sock)
        await settled(served, yielded)
        for key, count in zip("ab", yielded, strict=True):
            assert count - len(client[key].events) <= 120 + 65_536 // size
        raw.close()
        raw = await client.connect()
    await client.read_until(
        lambda: all(len(sub.events) > 500 for sub in client.subs.values())
    )
    for sub in client.subs.values():
        found = [int(text.split()[0]) for text in sub.events]
        assert found == [*range(len(found))]
        assert not sub.gaps


async def test_a_busy_stream_does_not_hold_up_its_neighbour(
    serve: Serve, clock: SettableClock
) -> None:
    """What is acknowledged is known for each: a run goes on beside one that floods."""
    table = SSERouteTableDef()
    turns: list[int] = []

    @table.sse_route("/flood")
    async def flood(request: web.Request) -> AsyncIterator[Any]:
        while True:
            yield "x" * 10_000

    @table.sse_route("/few", replay=20, replay_bytes=4000)
    async def few(request: web.Request) -> AsyncIterator[Any]:
        for number in range(200):
            turns.append(number)
            yield f"{number} ".ljust(100, ".")

    served = await serve(app_of(table, clock=clock, shutdown_grace=0.02))
    client = Multiplexed(served, {"f": "/flood", "n": "/few"})
    raw = await client.connect()
    await client.read_until(lambda: client["n"].over)
    assert 200 == len(client["n"].events)
    assert not client["n"].gaps
    # Its log of 20 was never overrun: it was paced by acknowledgements, not by luck.
    assert len(client["f"].events) > 20
    raw.close()


class Wire(asyncio.Transport):
    """A transport that takes a number of bytes and then pauses, as asyncio's does."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.written: list[bytes] = []
        self.protocol: Any = asyncio.Protocol()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        before, self.room = self.room, self.room - len(data)
        if before >= 0 > self.room:
            self.protocol.pause_writing()

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": "peer", "socket": None}.get(name, default)

    def get_write_buffer_size(self) -> int:
        return max(0, -self.room)


class Heard(asyncio.Protocol):
    """A branch's protocol that notes what it is told."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told

    def pause_writing(self) -> None:
        self.told.append(f"{self.name} paused")

    def resume_writing(self) -> None:
        self.told.append(f"{self.name} resumed")


def trunk_of(wire: Wire, keys: str) -> tuple[Trunk, list[Branch], list[str]]:
    """Return a trunk on *wire*, its branches, and what they are told."""
    trunk = Trunk(wire, chunked=False, now=0.0)
    branches, told = list(trunk.branch(list(keys))), list[str]()
    for key, branch in zip(keys, branches, strict=True):
        branch.set_protocol(Heard(key, told))
    return trunk, branches, told


async def test_others_are_paused_in_a_turn_of_their_own() -> None:
    """Never within another's write; and they go on in turn, who has waited first."""
    wire = Wire(100)
    trunk, (a, b, c), told = trunk_of(wire, "abc")
    b.write(b"x" * 200)
    assert ["b paused"] == told
    # In the same turn, as in a fan-out: it is written, and paused within its own write.
    c.write(b"y")
    assert ["b paused", "c paused"] == told
    assert b"stream: c\ny" == wire.written[-1]
    await asyncio.sleep(0)
    assert ["b paused", "c paused", "a paused"] == told
    told.clear()
    wire.room = 100
    trunk.resume_writing()
    assert ["b resumed"] == told
    b.write(b"x" * 200)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ["b resumed", "b paused"] == told
    wire.room = 1000
    told.clear()
    trunk.resume_writing()
    for _ in range(5):
        await asyncio.sleep(0)
    assert ["c resumed", "a resumed", "b resumed"] == told
    a.finish()
    wire.room = 0
    told.clear()
    b.write(b"x")
    await asyncio.sleep(0)
    assert ["b paused", "c paused"] == told


async def test_what_is_acknowledged_is_known_for_each() -> None:
    """Never more than was, and all of it in the end, however much was written."""
    wire = Wire(1 << 40)
    trunk, (a, b), _ = trunk_of(wire, "ab")
    acknowledged = 0
    trunk.outstanding = lambda: trunk.sent - acknowledged  # type: ignore[method-assign]
    ends: dict[Branch, list[tuple[int, int]]] = {a: [(0, 0)], b: [(0, 0)]}
    for number in range(500):
        branch = (a, a, b)[number % 3]
        branch.write(b"x" * (number % 7 + 1))
        ends[branch].append((trunk.sent, branch._written))
        if number % 50 == 0:
            acknowledged += (trunk.sent - acknowledged) // 2
            for one in (a, b):
                exact = max(n for end, n in ends[one] if end <= acknowledged)
                known = one._written - one.outstanding()
                assert exact - 100 <= known <= exact
    acknowledged = trunk.sent
    assert 0 == a.outstanding() == b.outstanding()


# -- kinds of transports and loops -----------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "tls", "unix"])
@pytest.mark.parametrize("cancelling", [False, True], ids=["default", "cancelling"])
def test_on_every_transport_and_loop(
    run: Run,
    site_of: Callable[[str], Site],
    transport: str,
    cancelling: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Streams flow, a client that leaves ends them, and the application ends them."""

    async def scenario() -> None:
        clock, journal, site = SettableClock(), Journal(), site_of(transport)
        app = journal.app(clock)
        async with site.serving(app, handler_cancellation=cancelling):
            sock = await asyncio.to_thread(asked, site)
            assert journal.open == {*PATHS.values(), "/_sse/streams"}
            if transport == "tls":
                sock.close()
            else:
                linger = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                sock.close()
            await until(lambda: not journal.open, timeout=PROMPTLY)
            sock = await asyncio.to_thread(asked, site)
            loop = asyncio.get_running_loop()
            began = loop.time()
        assert loop.time() - began < 1
        assert not journal.open
        assert (await asyncio.to_thread(rest_of, sock)).endswith(b"\r\n0\r\n\r\n")
        sock.close()
        lives = journal.lives.values()
        assert all(life.closed_once_in_its_task() for life in lives)

    run(scenario)
    assert [] == complaints(caplog)


def asked(site: Site) -> socket.socket:
    """Return a client whose streams have all begun."""
    sock = site.connect()
    sock.settimeout(5)
    streams = [{"key": key, "url": url} for key, url in PATHS.items()]
    body = json.dumps({"streams": streams})
    head = "POST /_sse/streams HTTP/1.1\r\nHost: test\r\nContent-Type: application/json"
    sock.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    data = b""
    while data.count(b"data: first") < 3 or data.count(b"sse-hello") < 4:
        more = sock.recv(65536)
        assert more, data
        data += more
    return sock


def rest_of(sock: socket.socket) -> bytes:
    """Return what comes until the end."""
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


async def test_the_streams_are_what_handlers_know(
    serve: Serve, clock: SettableClock
) -> None:
    """A stream of several is a `Connection`, on a transport of its own."""
    journal = Journal()
    served = await serve(journal.app(clock))
    client = Multiplexed(served, {"a": "/brief/1", "b": "/brief/2"})
    await opened(client)
    streams = connections_of(served)
    assert all(isinstance(stream, Connection) for stream in streams)
    assert 2 == len({id(stream.transport) for stream in streams})
    assert 2 == len(producers_of(served)) == served.sse.connections
