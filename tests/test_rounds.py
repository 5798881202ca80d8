"""The ticker's rounds: none holds the loop, and the kernel is asked seldom.

A peer that takes nothing is cut in time all the same.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import Channels, SSERouteTableDef
from aiohttp_sse_routes.http import peer
from aiohttp_sse_routes.http.connection import Connection
from aiohttp_sse_routes.http.response import RouteResponse
from aiohttp_sse_routes.http.rounds import Rounds
from aiohttp_sse_routes.http.sockets import STALL, unacknowledged
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import PROMPTLY, Follower, connections_of, hub_of, queued

Serve = Callable[..., Awaitable[Served]]


class Ticked(Connection):
    """A connection of which only the ticks are of interest.

    Args:
        transport: Whose it is.
        seconds: What a tick of it takes, of the CPU.
        order: Where it notes the ticks, and for which time each was.
    """

    def __init__(
        self, transport: Any, seconds: float, order: list[tuple[Any, float]]
    ) -> None:
        super().__init__(transport, chunked=True, script=None, now=0.0)
        self.seconds = seconds
        self.order = order

    def tick(self, now: float, heartbeat: float) -> None:
        """Take its time."""
        self.order.append((self, now))
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            pass
        if heartbeat < 0:
            raise RuntimeError("the test's")


@pytest.fixture
async def many() -> AsyncIterator[tuple[list[Ticked], list[tuple[Any, float]]]]:
    """Return connections each of which takes a tenth of a millisecond to look at."""
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(
        asyncio.Protocol, sock=ours
    )
    order: list[tuple[Any, float]] = []
    yield [Ticked(transport, 0.0001, order) for _ in range(500)], order
    transport.abort()
    theirs.close()


def rounds_of(connections: list[Ticked]) -> Rounds:
    """Return rounds that look at *connections*."""
    rounds = Rounds()
    rounds.open = dict.fromkeys(connections, 15.0)
    return rounds


async def test_a_round_gives_the_loop_its_turns(
    many: tuple[list[Ticked], list[tuple[Any, float]]],
) -> None:
    """Between slices of some milliseconds; each connection is looked at once."""
    connections, order = many
    rounds = rounds_of(connections)
    seen = [0]
    rounds.begin(7.0)
    while len(order) < len(connections):
        seen.append(len(order))
        await asyncio.sleep(0)
    assert [(connection, 7.0) for connection in connections] == order
    # The clock is asked about after each 32; a slice is 3 ms, or 30 of them.
    assert len(seen) > 5
    steps = [b - a for a, b in zip(seen, [*seen[1:], len(order)], strict=True)]
    assert max(steps) <= 64


async def test_a_round_that_is_under_way_is_not_begun_anew(
    many: tuple[list[Ticked], list[tuple[Any, float]]],
) -> None:
    """A tick that comes before its end finds it at work; the next begins another."""
    connections, order = many
    rounds = rounds_of(connections)
    rounds.begin(1.0)
    rounds.begin(2.0)
    await until(lambda: len(order) >= 500)
    await asyncio.sleep(0)
    assert [1.0] * 500 == [now for _, now in order]
    rounds.begin(3.0)
    await until(lambda: len(order) >= 1000)
    assert [3.0] * 500 == [now for _, now in order[500:]]


async def test_a_round_can_be_ended(
    many: tuple[list[Ticked], list[tuple[Any, float]]],
) -> None:
    """Nobody is looked at any more, as when the application has ended."""
    connections, order = many
    rounds = rounds_of(connections)
    rounds.begin(1.0)
    done = len(order)
    rounds.end()
    for _ in range(20):
        await asyncio.sleep(0)
    assert done == len(order) < 500


async def test_what_one_raises_concerns_no_other(
    many: tuple[list[Ticked], list[tuple[Any, float]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The round goes on behind it, and says what has failed."""
    connections, order = many
    rounds = Rounds()
    rounds.open = {c: -1.0 if n == 3 else 15.0 for n, c in enumerate(connections)}
    rounds.begin(1.0)
    await until(lambda: len(order) >= 500)
    assert connections == [connection for connection, _ in order]
    [record] = caplog.records
    assert "a connection's tick failed; the others go on" == record.getMessage()
    assert record.exc_info is not None


# -- what is asked of the kernel -------------------------------------------------------


class Asked:
    """How often the kernel was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(peer, "unacknowledged", self._ask)

    def _ask(self, transport: asyncio.Transport, written: int) -> int:
        self.count += 1
        return unacknowledged(transport, written)


def room_app(clock: SettableClock, **options: Any) -> web.Application:
    """Return an application with a channel."""
    table = SSERouteTableDef()

    @table.sse_route("/room", **options)
    async def follow(request: web.Request) -> Channels:
        return Channels("room")

    return app_of(table, clock=clock, shutdown_grace=0.02)


async def follow(served: Served, **options: Any) -> tuple[Follower, Connection]:
    """Return a client of the channel that has begun, and its connection."""
    follower = Follower(served, "/room")
    await follower.connect(**options)
    await follower.read_until(lambda: follower.control)
    [connection] = connections_of(served)
    return follower, connection


async def all_taken(connection: Connection) -> None:
    """Return when the client's kernel has what was written."""
    sock = connection.transport.get_extra_info("socket")
    await until(lambda: queued(sock) == 0)


async def takes_no_more(connection: Connection) -> None:
    """Return when the client's kernel has taken nothing for a tenth of a second.

    What it takes later, on a machine that is busy, would look as if it came when the
    clock has been moved.
    """
    loop = asyncio.get_running_loop()
    sock = connection.transport.get_extra_info("socket")
    left, since = -1, 0.0
    while left != queued(sock) or loop.time() - since < 0.1:
        if left != queued(sock):
            left, since = queued(sock), loop.time()
        await asyncio.sleep(0)


async def publish_each_second(
    served: Served, clock: SettableClock, follower: Follower, seconds: int
) -> None:
    """Let so much time pass, with an event in each second, which is taken."""
    [connection] = connections_of(served)
    for number in range(seconds):
        await served.sse.publish("room", number)
        await follower.read_events(number + 1)
        await all_taken(connection)
        await clock.advance(1)


async def test_who_takes_what_comes_is_asked_about_each_five_seconds(
    serve: Serve, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not each second, though something is written in each."""
    served = await serve(room_app(clock))
    follower, _ = await follow(served)
    asked = Asked(monkeypatch)
    await publish_each_second(served, clock, follower, 30)
    assert 5 <= asked.count <= 7


async def test_who_has_everything_is_not_asked_about(
    serve: Serve, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is known to have it: silence costs no system call."""
    served = await serve(room_app(clock, heartbeat=1000))
    _, connection = await follow(served)
    await all_taken(connection)
    await clock.advance(2)
    asked = Asked(monkeypatch)
    await clock.advance(300)
    assert 0 == asked.count


@pytest.mark.parametrize("after", range(7))
async def test_a_busy_client_that_stalls_has_its_half_minute_and_not_much_more(
    serve: Serve, clock: SettableClock, after: int
) -> None:
    """At whatever point between two questions it ceases to take what comes."""
    served = await serve(room_app(clock))
    follower, connection = await follow(served, rcvbuf=4096)
    await publish_each_second(served, clock, follower, 10 + after)
    # From now on it reads nothing, and its window is soon full.
    await served.sse.publish_many("room", ["x" * 1000] * 100)
    await takes_no_more(connection)
    for _ in range(int(STALL) - 2):
        await served.sse.publish("room", "more")
        await clock.advance(1)
    assert connection.closed is None
    await clock.advance(10)
    assert "stalled" == connection.closed
    assert not hub_of(served).rounds.open


# -- waiting for the end ---------------------------------------------------------------


async def test_all_who_wait_for_the_end_learn_of_it(
    serve: Serve, clock: SettableClock
) -> None:
    """The handler, and whoever has the response, such as a signal's task."""
    responses: list[RouteResponse] = []
    app = room_app(clock)

    async def note(request: web.Request, response: web.StreamResponse) -> None:
        assert isinstance(response, RouteResponse)
        responses.append(response)

    app.on_response_prepare.append(note)
    served = await serve(app)
    client = await RawClient.connect(served)
    await client.get("/room")
    await client.read_until(b"sse-hello")
    await until(lambda: served.sse.connections)
    [response] = responses
    waiters = [asyncio.create_task(response.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    # Whoever gives up takes nobody along.
    waiters[0].cancel()
    await asyncio.sleep(0)
    assert not waiters[1].done()
    client.close()
    await until(lambda: not served.sse.connections, timeout=PROMPTLY)
    await until(lambda: all(waiter.done() for waiter in waiters), timeout=PROMPTLY)
    assert [True, False, False] == [waiter.cancelled() for waiter in waiters]
    await until(lambda: not hub_of(served).limits.counts, timeout=PROMPTLY)
