"""A silent blackout loses nothing: what is written is not yet received.

A phone that loses its network says nothing: no FIN, no RST. The server's kernel takes
megabytes for a peer that acknowledges none of them. A socket filter that drops whatever
comes to the client's socket makes such a client here.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import SSERouteTableDef
from aiohttp_sse_routes.http.sockets import STALL
from aiohttp_sse_routes.streams.private import PrivateRun
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import (
    PROMPTLY,
    Follower,
    complaints,
    connections_of,
    hub_of,
    parked,
    producers_of,
    queued,
    unread,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="socket filters are Linux's"
)

Serve = Callable[..., Awaitable[Served]]

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
SEEDS = int(os.environ.get("SSE_SEEDS", "150")) // 5

SO_ATTACH_FILTER = 26
RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
"""The classic BPF program of one instruction, ``ret 0``: every packet is dropped."""


def black_out(sock: socket.socket) -> None:
    """Let nothing more arrive at *sock*, not even an acknowledgement."""
    program = ctypes.create_string_buffer(RETURN_NOTHING)
    head = struct.pack("HL", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, head)


class Numbers:
    """A stream of numbered events.

    Attributes:
        count: How many there are.
        yielded: How many the latest run has yielded.
    """

    def __init__(self, count: int, sizes: list[int]) -> None:
        self.count = count
        self.sizes = sizes
        self.yielded = 0
        self.go = asyncio.Event()
        self.go.set()

    def event(self, number: int) -> str:
        """Return the event of that number."""
        return f"{number} ".ljust(self.sizes[number % len(self.sizes)], "x")

    def app(self, clock: SettableClock, **options: Any) -> web.Application:
        """Return an application that serves them."""
        table = SSERouteTableDef()

        @table.sse_route("/numbers", **options)
        async def numbers(request: web.Request) -> AsyncIterator[Any]:
            for number in range(self.count):
                await self.go.wait()
                self.yielded = number + 1
                yield self.event(number)

        # Nobody is there to take the end of a silent connection.
        return app_of(table, clock=clock, shutdown_grace=0.02)


async def paused(served: Served, numbers: Numbers) -> None:
    """Turn the loop until the generator is paused, or has ended, for many turns."""
    still, before = 0, -1
    while still < 100:
        await asyncio.sleep(0)
        resting = parked(served) or not producers_of(served)
        still = still + 1 if resting and before == numbers.yielded else 0
        before = numbers.yielded


def run_of(served: Served) -> PrivateRun:
    """Return the private run that is served."""
    [run] = hub_of(served).private
    found: PrivateRun = run
    return found


@pytest.mark.parametrize("sizes", [[20], [3_000], [60_000]], ids=["20", "3k", "60k"])
async def test_a_generator_is_paused_while_its_client_is_silent(
    serve: Serve, clock: SettableClock, sizes: list[int]
) -> None:
    """At half of what the log holds, though the kernel would take megabytes more."""
    numbers = Numbers(100_000, sizes)
    numbers.go.clear()
    options: dict[str, Any] = {"replay": 200, "replay_bytes": 200_000}
    served = await serve(numbers.app(clock, **options))
    follower = Follower(served, "/numbers")
    await follower.connect()
    await follower.read_until(lambda: follower.control)
    black_out(follower.sock)
    numbers.go.set()
    await paused(served, numbers)
    nbytes = sum(len(numbers.event(n)) + 50 for n in range(numbers.yielded))
    assert numbers.yielded <= 101
    assert nbytes <= 100_000 + 2 * (sizes[0] + 50)
    # It was the acknowledgements that paused it, neither kernel nor transport.
    [connection] = connections_of(served)
    assert not connection.blocked
    assert 0 == unread(follower.sock)
    assert queued(connection.transport.get_extra_info("socket")) > 0


async def test_a_client_that_comes_back_from_a_blackout_has_lost_nothing(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Over a new connection, with the old one open and silent: no gap, no loss."""
    numbers = Numbers(3_000, [200])
    served = await serve(numbers.app(clock))
    follower = Follower(served, "/numbers")
    await follower.connect()
    olds = []
    for mark in (100, 400, 900):
        await follower.read_events(mark)
        black_out(follower.sock)
        await paused(served, numbers)
        assert numbers.yielded < 3_000
        olds.extend(connections_of(served))
        await follower.connect()
        await follower.read_events(len(follower.events) + 1)
        assert 1 == served.sse.connections
        assert "replaced" == olds[-1].closed
    await follower.read_all()
    assert [numbers.event(n) for n in range(3_000)] == follower.events
    assert [] == follower.gaps
    assert ["finished"] == follower.ends
    # The silent ones go away too, though nobody acknowledges their end.
    await clock.advance(STALL + 5)
    await until(lambda: all(o.lost or o.released for o in olds), timeout=PROMPTLY)
    assert not hub_of(served).rounds.leaving
    assert not complaints(caplog)


async def test_a_silent_client_is_cut_and_may_come_back_later(
    serve: Serve, clock: SettableClock
) -> None:
    """After half a minute its connection is given up; its run waits from then on."""
    numbers = Numbers(2_000, [200])
    served = await serve(numbers.app(clock))
    follower = Follower(served, "/numbers")
    await follower.connect()
    await follower.read_events(100)
    black_out(follower.sock)
    await paused(served, numbers)
    await clock.advance(STALL + 3)
    assert 0 == served.sse.connections
    assert 1 == served.sse.detached
    await clock.advance(10)
    await follower.connect()
    await follower.read_all()
    assert [numbers.event(n) for n in range(2_000)] == follower.events
    assert [] == follower.gaps


async def test_one_that_falls_silent_after_an_idle_time_has_its_half_minute(
    serve: Serve, clock: SettableClock
) -> None:
    """It counts from the bytes that wait, not from the last that were taken."""
    numbers = Numbers(100_000, [200])
    numbers.go.clear()
    served = await serve(numbers.app(clock, heartbeat=1000))
    follower = Follower(served, "/numbers")
    await follower.connect()
    await follower.read_until(lambda: follower.control)
    await clock.advance(300)
    black_out(follower.sock)
    numbers.go.set()
    await paused(served, numbers)
    [connection] = connections_of(served)
    await clock.advance(STALL - 2)
    assert connection.closed is None
    await clock.advance(5)
    assert "stalled" == connection.closed


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_what_was_acknowledged_and_not_read_is_replayed(
    serve: Serve, clock: SettableClock, again: bool
) -> None:
    """The kernel of a client that died had taken it; the log still has it."""
    numbers = Numbers(2_000, [100])
    numbers.go.clear()
    served = await serve(numbers.app(clock, replay=500))
    follower = Follower(served, "/numbers")
    await follower.connect()
    await follower.read_until(lambda: follower.control)
    numbers.go.set()
    # Its kernel takes what comes, and it reads nothing of that.
    await until(lambda: numbers.yielded >= 300)
    numbers.go.clear()
    await until(lambda: unread(follower.sock) > 100 * 200)
    assert follower.client is not None
    follower.client.reset()
    await until(lambda: served.sse.detached)
    if again:
        # The next connection is lost too, before anything came of it.
        await until(lambda: run_of(served).feed.acknowledged > 200)
        lost = await RawClient.connect(served)
        black_out(lost.sock)
        await lost.get("/numbers", f"Last-Event-ID: {follower.last_event_id}")
        await until(lambda: served.sse.connections)
        numbers.go.set()
        await paused(served, numbers)
    await follower.connect()
    await follower.read_until(lambda: len(follower.control) >= 2)
    numbers.go.set()
    await follower.read_all()
    assert [] == follower.gaps
    assert [numbers.event(n) for n in range(2_000)] == follower.events


async def test_what_the_log_has_lost_is_told_by_a_gap(
    serve: Serve, clock: SettableClock
) -> None:
    """More than the log holds was acknowledged and not read: that is said, once."""
    numbers = Numbers(5_000, [100])
    served = await serve(numbers.app(clock, replay=50))
    follower = Follower(served, "/numbers")
    await follower.connect(rcvbuf=1_000_000)
    await follower.read_events(10)
    await until(lambda: unread(follower.sock) > 100 * 200)
    assert follower.client is not None
    follower.client.reset()
    await until(lambda: not served.sse.connections)
    seen = len(follower.events)
    await follower.connect()
    await follower.read_all()
    assert ["expired"] == follower.gaps
    behind = follower.events[seen:]
    everything = [numbers.event(n) for n in range(5_000)]
    assert everything[:seen] == follower.events[:seen]
    assert everything[-len(behind) :] == behind
    assert len(behind) < 5_000 - seen
    assert ["finished"] == follower.ends


class Phone(Follower):
    """A client that loses its network again and again, and notes where gaps were told.

    Attributes:
        gaps_at: How many events it had at each gap.
        silent: The sockets of its earlier connections, which nobody closes.
    """

    def __init__(self, served: Served, path: str) -> None:
        super().__init__(served, path)
        self.gaps_at: list[int] = []
        self.silent: list[RawClient] = []

    def _take(self, event: Any) -> None:
        super()._take(event)
        if event.type == "sse-gap":
            self.gaps_at.append(len(self.events))

    async def lose_the_network(self, how: str) -> None:
        """Fall silent, or be reset, or hang up."""
        assert self.client is not None
        if how == "blackout":
            black_out(self.sock)
            self.silent.append(self.client)
        elif how == "rst":
            self.client.reset()
        else:
            self.client.close()

    def check(self, numbers: Numbers, *, gaps: bool) -> None:
        """Fail if anything was lost silently, came twice or out of order."""
        events = [int(event.split()[0]) for event in self.events]
        assert [numbers.event(n) for n in events] == self.events
        due = 0
        for index, number in enumerate(events):
            if index in self.gaps_at:
                assert number > due, f"a gap was told at {number} that is none"
            else:
                assert number == due, f"{due} was lost silently, or came twice"
            due = number + 1
        assert due == numbers.count or len(events) in self.gaps_at
        assert gaps or not self.gaps_at


@pytest.mark.parametrize("log", ["ample", "small"])
async def test_no_loss_is_silent_however_often_the_network_goes(
    serve: Serve, clock: SettableClock, log: str
) -> None:
    """Blackouts, resets and hang-ups at random: each event once, or a true gap.

    With a log that is larger than what a client's kernel takes there is no gap at all.
    """
    print(f"SSE_SEED={SEED}")  # noqa: T201
    for number in range(SEEDS):
        rng = random.Random(f"{SEED} {number} {log}")
        numbers = Numbers(1_500, [rng.choice([10, 50, 900, 4000]) for _ in range(7)])
        options: dict[str, Any] = {"replay": rng.choice([20, 100, 400])}
        if log == "ample":
            options = {"replay": 100_000, "replay_bytes": 100_000_000}
        served = await serve(numbers.app(clock, **options))
        phone = Phone(served, "/numbers")
        try:
            await travel(served, phone, numbers, rng)
            phone.check(numbers, gaps=log == "small")
            assert "slow" not in phone.gaps
        except AssertionError as error:
            error.add_note(f"SSE_SEED={SEED}, number {number}, log {log}")
            raise
        await served.close()


async def travel(
    served: Served, phone: Phone, numbers: Numbers, rng: random.Random
) -> None:
    """Follow the stream to its end, through tunnels."""
    for _ in range(rng.randrange(1, 10)):
        await phone.connect(rcvbuf=rng.choice([None, 4096, 30_000]))
        target = len(phone.events) + rng.choice([0, 1, 5, 100])
        while len(phone.events) < target and not phone.complete:
            if not await phone.read(rng.choice([100, 3_000, 65_536])):
                break
        if phone.ends:
            return
        # What comes now lies in its kernel unread.
        for _ in range(rng.choice([0, 1, 20, 200])):
            await asyncio.sleep(0)
        await phone.lose_the_network(rng.choice(["blackout", "blackout", "rst", "fin"]))
        for _ in range(rng.choice([0, 1, 20, 200])):
            await asyncio.sleep(0)
    while not phone.ends:
        await phone.connect()
        await phone.read_all()
