"""Each event once and in order, on each of the streams of one connection.

The connection is cut after every byte, at every turn of the loop and at random, and the
client comes back with the places that it has come to: what it collected of each stream
is that stream's sequence, and no gap is told where nothing is lost.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    MemoryStore,
    ServerSentEvent,
    SharedRun,
    SSERouteTableDef,
)
from aiohttp_sse_routes.testing import SettableClock

from .helpers import Served, app_of, until
from .lifecycle import hub_of
from .multiplexed import Multiplexed

Serve = Callable[..., Awaitable[Served]]

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
SEEDS = 25
COUNT = 6
PATHS = {"p": "/private", "s": "/shared", "c": "/channels?history=99"}


def table_of(pause: Callable[[int], bool], size: int = 1) -> SSERouteTableDef:
    """Return one route of each kind; two of them yield a sequence."""
    table = SSERouteTableDef()

    async def numbers(name: str) -> AsyncIterator[Any]:
        for number in range(COUNT):
            if pause(number):
                await asyncio.sleep(0)
            text = f"{name}{number}".ljust(size, "-")
            yield ServerSentEvent(text, event="third") if number % 3 == 2 else text

    @table.sse_route("/private")
    async def private(request: web.Request) -> AsyncIterator[Any]:
        async for item in numbers("p"):
            yield item

    @table.sse_route("/shared", shared=True, history=COUNT)
    async def shared(run: SharedRun) -> AsyncIterator[Any]:
        async for item in numbers("s"):
            yield item

    @table.sse_route("/channels")
    async def channels(request: web.Request) -> Channels:
        return Channels("one", "two", history=int(request.query["history"]))

    return table


def expected(key: str, size: int = 1) -> list[str]:
    """Return the sequence of the stream *key*."""
    return [f"{key}{number}".ljust(size, "-") for number in range(COUNT)]


async def publish(served: Served, size: int = 1) -> None:
    """Publish the sequence of the channels."""
    for number, text in enumerate(expected("c", size)):
        await served.sse.publish(("one", "two")[number % 2], text)
        await asyncio.sleep(0)


async def complete(client: Multiplexed, size: int = 1) -> None:
    """Come back until there is all of it; check it."""
    while not all(
        sub.ended or len(sub.events) >= COUNT for sub in client.subs.values()
    ):
        assert client.connections < 1000
        raw = await client.connect()
        while len(client["c"].events) < COUNT or not all(
            sub.ended for key, sub in client.subs.items() if key != "c"
        ):
            if not await client.read():
                break
        raw.close()
    for key, sub in client.subs.items():
        assert expected(key, size) == sub.events
        assert not sub.gaps


@pytest.mark.timeout(120)
@pytest.mark.parametrize("handler_cancellation", [False], indirect=True)
async def test_cut_after_every_byte(serve: Serve, clock: SettableClock) -> None:
    """A cut after any byte of the connection loses, repeats and reorders nothing."""
    table = table_of(lambda number: number % 2 == 0)
    served = await serve(app_of(table, clock=clock))
    await publish(served)
    whole = Multiplexed(served, PATHS)
    raw = await whole.connect()
    await whole.read_until(lambda: whole["p"].over and whole["s"].over)
    raw.close()
    await complete(whole)
    assert whole.connections == 1
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    # Each run has a third of them; which one, is the seed's.
    for position in range(SEED % 3, len(raw.received), 3):
        client = Multiplexed(served, PATHS)
        raw = await client.connect()
        while len(raw.received) < position:
            assert await client.read(position - len(raw.received))
        (raw.reset if position % 2 else raw.close)()
        await complete(client)


@pytest.mark.timeout(60)
async def test_cut_at_every_turn_of_the_loop(
    serve: Serve, clock: SettableClock
) -> None:
    """A cut at any await of opening and delivery loses and repeats nothing."""
    turns, done = 0, False
    while not done:
        served = await serve(app_of(table_of(lambda number: True), clock=clock))
        client = Multiplexed(served, PATHS)
        raw = await client.connect()
        reading = asyncio.create_task(client.read_all())
        publishing = asyncio.create_task(publish(served))
        for _ in range(turns):
            await asyncio.sleep(0)
        done = turns > 60
        if turns % 2:
            hub_of(served).cut_all()
        reading.cancel()
        raw.reset()
        await asyncio.wait({reading, publishing})
        await complete(client)
        await served.close()
        turns += 1


@pytest.mark.timeout(60)
async def test_many_cuts_at_random(serve: Serve, clock: SettableClock) -> None:
    """Any number of cuts at random places, of events of any size, loses nothing."""
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    for number in range(SEEDS):
        rng = random.Random(f"{SEED} {number}")
        size = rng.choice([1, 40, 3000, 40_000])
        pauses = [rng.random() < 0.5 for _ in range(COUNT)]
        served = await serve(app_of(table_of(pauses.__getitem__, size), clock=clock))
        client = Multiplexed(served, PATHS, version=rng.choice(["1.0", "1.1"]))
        publishing = asyncio.create_task(publish(served, size))
        for _ in range(rng.randrange(1, 12)):
            raw = await client.connect(rcvbuf=rng.choice([None, 4096]))
            until_then = rng.randrange(0, 1500 + size * COUNT)
            while len(raw.received) < until_then and not client.complete:
                limit = rng.randrange(1, until_then - len(raw.received) + 1)
                if len(client["c"].events) == COUNT or not await client.read(limit):
                    break
            rng.choice([raw.close, raw.reset])()
            if all(sub.ended for sub in client.subs.values()):
                break
        await publishing
        await complete(client, size)
        await served.close()


async def test_many_streams_with_much_to_catch_up_share_a_slow_connection(
    serve: Serve, clock: SettableClock
) -> None:
    """Each of 32 streams goes on from its place, in turn, and holds bounded memory."""
    table = SSERouteTableDef()

    @table.sse_route("/room/{name}")
    async def room(request: web.Request) -> Channels:
        return Channels(request.match_info["name"], history=1000)

    store = MemoryStore()
    served = await serve(app_of(table, clock=clock, store=store))
    texts = [f"{number} ".ljust(4000, "x") for number in range(40)]
    keys = [f"k{number}" for number in range(32)]
    for key in keys:
        await served.sse.publish_many(key, texts)
    client = Multiplexed(served, {key: f"/room/{key}" for key in keys})
    await client.connect(rcvbuf=65_536)
    hub = hub_of(served)
    await until(lambda: len(hub.rounds.carriers) == 1)
    [trunk] = hub.rounds.carriers
    most = 0
    while any(len(sub.events) < len(texts) for sub in client.subs.values()):
        assert await client.read()
        most = max(most, trunk.transport.get_write_buffer_size())
    for sub in client.subs.values():
        assert texts == sub.events
    # Of 5 MB; one batch of 64 KiB for each stream would be 2 MB.
    assert 0 < most < 400_000
