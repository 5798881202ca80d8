"""Two workers of one application on one store: what is told here, and done there.

Law: each worker is an application of its own, with a store object of its own; they have
nothing in common but a file, or a server, that a test may take away.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    RedisStore,
    SQLiteStore,
    SSERouteTableDef,
    Store,
    StoreUnavailable,
)
from aiohttp_sse_routes.logs.sqlite import session
from aiohttp_sse_routes.testing import SettableClock

from .helpers import Served, app_of
from .redis_server import RedisServer

Serve = Callable[..., Awaitable[Served]]
Make = Callable[[], Store]


def user_of(request: web.Request) -> str | None:
    """Return who asks."""
    return request.headers.get("X-User")


def table_of() -> SSERouteTableDef:
    """Return a table with a channel route and a private one."""
    table = SSERouteTableDef()

    @table.sse_route("/rooms/{room}", owner=user_of)
    async def room(request: web.Request) -> Channels:
        return Channels(f"room:{request.match_info['room']}")

    @table.sse_route("/mine", owner=user_of)
    async def mine(request: web.Request) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    return table


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Return a Redis that keeps what it has, over a restart."""
    with RedisServer(tmp_path / "redis", appendonly="yes") as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return what makes a worker's store."""
    if request.param == "sqlite":
        return lambda: SQLiteStore(tmp_path / "events.db")
    url = request.getfixturevalue("redis").url
    return lambda: RedisStore(url)


async def test_a_user_is_disconnected_everywhere(serve: Serve, make: Make) -> None:
    """Whoever is meant is ended for good on each worker, and nobody else is."""
    here = await serve(app_of(table_of(), store=make()))
    there = await serve(app_of(table_of(), store=make()))
    ada, bob = {"X-User": "ada"}, {"X-User": "bob"}
    async with (
        there.stream("/rooms/1", headers=ada) as room,
        there.stream("/mine", headers=ada) as mine,
        there.stream("/rooms/1", headers=bob) as other,
    ):
        for stream in (room, mine, other):
            await stream.next("sse-hello")
        await here.sse.disconnect(owner="ada")
        for stream in (room, mine):
            await stream.rest()
            assert '{"reason":"disconnected"}' == stream.control[-1].data
            await stream.resume()
            assert 204 == stream.status
        await here.sse.publish("room:1", "still here")
        assert "still here" == (await other.next()).data


async def test_with_reconnect_another_worker_goes_on(serve: Serve, make: Make) -> None:
    """Who is sent away to come back misses nothing, wherever it comes back to."""
    here = await serve(app_of(table_of(), store=make()))
    there = await serve(app_of(table_of(), store=make()))
    stream = there.stream("/rooms/1")
    await stream.open()
    await stream.next("sse-hello")
    await here.sse.disconnect(channel="room:1", reconnect=True)
    await stream.rest()
    await there.sse.publish("room:1", 1)
    await here.sse.publish("room:1", 2)
    elsewhere = here.stream("/rooms/1", last_event_id=stream.last_event_id)
    async with elsewhere:
        assert ["1", "2"] == [e.data for e in await elsewhere.collect(2)]
        assert not elsewhere.gaps


async def test_redis_is_away(
    serve: Serve, clock: SettableClock, redis: RedisServer
) -> None:
    """Streams stay open and speak, a publish fails clearly, and all comes after."""
    store = RedisStore(redis.url)
    served = await serve(app_of(table_of(), store=store, clock=clock))
    stream = served.stream("/rooms/1")
    await stream.open()
    await stream.next("sse-hello")
    await served.sse.publish("room:1", 1)
    assert "1" == (await stream.next()).data
    redis.kill()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await served.sse.publish("room:1", "lost in the caller's hands")
    assert stream.response is not None
    for _ in range(3):
        await clock.advance(16)
        # The heartbeat: nothing else is written now.
        assert b":" in await stream.response.content.readany()
    assert 1 == served.sse.connections
    await asyncio.to_thread(redis.start)

    async def publish() -> None:
        while True:
            try:
                await served.sse.publish("room:1", 2, idempotency_key="two")
            except StoreUnavailable:
                await asyncio.sleep(0.01)
            else:
                return

    await publish()
    assert "2" == (await stream.next(timeout=15)).data
    assert not stream.gaps
    stream.drop()


async def test_a_publish_that_waits_for_redis(serve: Serve, redis: RedisServer) -> None:
    """With ``wait`` it returns when the event is there, once, and it is delivered."""
    store = RedisStore(redis.url, wait=15)
    served = await serve(app_of(table_of(), store=store))
    async with served.stream("/rooms/1") as stream:
        await stream.next("sse-hello")
        redis.kill()
        waiting = asyncio.ensure_future(served.sse.publish("room:1", 1))
        await asyncio.to_thread(redis.start)
        cursor = await waiting
        event = await stream.next(timeout=15)
        assert ("1", cursor) == (event.data, event.id)
        assert not stream.gaps


async def test_a_locked_file(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publish fails clearly, streams stay open, and it heals by itself."""
    monkeypatch.setattr(session, "_PATIENCE", 0.1)
    path = tmp_path / "events.db"
    served = await serve(app_of(table_of(), store=SQLiteStore(path)))
    async with served.stream("/rooms/1") as stream:
        await stream.next("sse-hello")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="lock"):
                await served.sse.publish("room:1", 1)
            other.execute("ROLLBACK")
        await served.sse.publish("room:1", 2)
        assert "2" == (await stream.next()).data
        assert 1 == served.sse.connections
