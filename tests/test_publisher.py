"""`Publisher`: what another process publishes is what the application's clients get.

Law: each test has an application that serves the channel, on a store of its own over
the same file or server, as another process has; what is published comes in its stream.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    ConfigurationError,
    EventError,
    EventTooLarge,
    MemoryStore,
    Publisher,
    RedisStore,
    ServerSentEvent,
    SQLiteStore,
    SSERouteTableDef,
    Store,
    StoreError,
    StoreUnavailable,
)
from aiohttp_sse_routes.testing import nothing_left

from .helpers import Served, app_of
from .redis_server import RedisServer
from .stores import Make, redis, sqlite

Serve = Callable[..., Awaitable[Served]]


@pytest.fixture(params=["sqlite", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Return what makes stores of one log, of each kind that processes may share."""
    kind: Make = sqlite
    if request.param == "redis":
        kind = redis(request.getfixturevalue("contract_redis"))
    return lambda: kind(tmp_path)


def news(store: Store) -> web.Application:
    """Return an application whose ``/news`` follows the channel of that name."""
    table = SSERouteTableDef()

    @table.sse_route("/news")
    async def handler(request: web.Request) -> Channels:
        return Channels("news")

    return app_of(table, store=store)


async def test_what_is_published_elsewhere_comes_in_the_stream(
    serve: Serve, make: Callable[[], Store]
) -> None:
    """Events come as `SSE.publish` sends them, in order; the cursors are their ids."""
    served = await serve(news(make()))
    async with served.stream("/news") as stream:
        await stream.next("sse-hello")
        async with Publisher(make()) as publisher:
            cursors = [
                await publisher.publish("news", {"n": 1}),
                await publisher.publish("news", "two", event="headline", key="k"),
                await publisher.publish("news", ServerSentEvent("three", event="last")),
                *await publisher.publish_many("news", [4, 5], event="batch"),
            ]
        events = await stream.collect(5)
    assert cursors == [event.id for event in events]
    assert [
        ("message", '{"n":1}'),
        ("headline", "two"),
        ("last", "three"),
        ("batch", "4"),
        ("batch", "5"),
    ] == [(event.type, event.data) for event in events]
    assert [True, False, False, True, True] == [event.json for event in events]


async def test_a_job_that_is_run_again_publishes_once(
    serve: Serve, make: Callable[[], Store]
) -> None:
    """The same ``idempotency_key`` gives the same cursor, also of another publisher."""
    served = await serve(news(make()))
    async with served.stream("/news") as stream:
        await stream.next("sse-hello")
        cursors = []
        for _ in range(2):
            async with Publisher(make()) as publisher:
                cursors.append(
                    await publisher.publish("news", "done", idempotency_key="job 7")
                )
                await publisher.publish("news", "and on")
        assert 1 == len(set(cursors))
        told = [event.data for event in await stream.collect(3)]
    assert ["done", "and on", "and on"] == told


async def test_it_may_be_entered_again_and_leaves_nothing(
    make: Callable[[], Store],
) -> None:
    """One publisher serves one use after another; no task outlives it."""
    publisher = Publisher(make())
    cursors = []
    for number in range(3):
        async with nothing_left(), publisher as entered:
            assert publisher is entered
            cursors.append(await publisher.publish("news", number))
    assert 3 == len(set(cursors))


async def test_outside_of_async_with_it_says_so(make: Callable[[], Store]) -> None:
    """Before it was entered, and after it was left, the error names the fix."""
    publisher = Publisher(make())
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: publisher.publish("news", "x"),
        lambda: publisher.publish_many("news", ["x"]),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="async with Publisher"):
            await call()
    async with publisher:
        with pytest.raises(StoreError, match="open already"):
            await publisher.__aenter__()
        await publisher.publish("news", "still open")
    for call in calls:
        with pytest.raises(StoreError, match="async with Publisher"):
            await call()


async def test_a_store_is_not_shared_with_the_application(
    serve: Serve, make: Callable[[], Store]
) -> None:
    """An application's own store is open already; that the publisher fails is all."""
    store = make()
    served = await serve(news(store))
    publisher = Publisher(store)
    with pytest.raises(StoreError, match="of its own"):
        await publisher.__aenter__()
    with pytest.raises(StoreError, match="not open"):
        await publisher.publish("news", "x")
    async with served.stream("/news") as stream:
        await stream.next("sse-hello")
        await served.sse.publish("news", "unharmed")
        assert "unharmed" == (await stream.next()).data


async def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    """An event, name or key that cannot be is an error, and nothing is published."""
    store = SQLiteStore(tmp_path / "events.db")
    async with Publisher(store, max_event_bytes=100) as publisher:
        for publishing, error in (
            (publisher.publish("news", "x" * 200), EventTooLarge),
            (publisher.publish("news", ServerSentEvent("x", id="7")), EventError),
            (publisher.publish("news", float("nan")), EventError),
            (publisher.publish("", "x"), ValueError),
            (publisher.publish("news", "x", event="sse-own"), ValueError),
            (publisher.publish("news", "x", idempotency_key=""), ValueError),
            (publisher.publish_many("news", ["x", float("nan")]), EventError),
        ):
            with pytest.raises(error):
                await publishing
        assert 0 == await store.head()
        assert [] == await publisher.publish_many("news", [])


async def test_dumps_makes_the_json(tmp_path: Path) -> None:
    """An application's own encoder is the publisher's too."""

    def dumps(value: object) -> str:
        return json.dumps(value, default=str)

    store = SQLiteStore(tmp_path / "events.db")
    async with Publisher(store, dumps=dumps) as publisher:
        await publisher.publish("news", {"at": tmp_path})
        (entry,) = (await store.read(["news"], 0, 1, limit=1000)).entries
    assert json.dumps({"at": str(tmp_path)}).encode() in entry.lines


@pytest.mark.parametrize(
    ("arguments", "options", "what"),
    [
        ((MemoryStore(),), {}, "stays in this process"),
        (("redis://localhost",), {}, "takes a store"),
        ((None,), {}, "takes a store"),
        ((SQLiteStore("x"),), {"max_event_bytes": 0}, "max_event_bytes"),
        ((SQLiteStore("x"),), {"dumps": "json"}, "dumps"),
        ((SQLiteStore("x"),), {"dumps": asyncio.sleep}, "coroutine function"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[Any, ...], options: dict[str, Any], what: str
) -> None:
    """What cannot work is refused when it is made, with the reason."""
    with pytest.raises(ConfigurationError, match=what):
        Publisher(*arguments, **options)


async def test_a_server_that_is_not_there_is_said_and_waited_for(
    tmp_path: Path,
) -> None:
    """Entering succeeds; publishing fails, or waits for as long as the store says."""
    server = RedisServer(tmp_path / "redis")
    async with Publisher(RedisStore(server.url)) as publisher:
        with pytest.raises(StoreUnavailable):
            await publisher.publish("news", "x")
    async with Publisher(RedisStore(server.url, wait=15)) as publisher:
        publishing = asyncio.create_task(publisher.publish("news", "x"))
        await asyncio.to_thread(server.start)
        try:
            assert (await publishing).startswith("sse1.l.")
        finally:
            await asyncio.to_thread(server.stop)


async def test_what_cannot_heal_is_said_on_entering(tmp_path: Path) -> None:
    """A path that leads nowhere is no matter of time."""
    with pytest.raises(StoreError, match="nowhere"):
        await Publisher(SQLiteStore(tmp_path / "nowhere" / "x.db")).__aenter__()


_JOB = """
import asyncio, sys
from aiohttp_sse_routes import Publisher, SQLiteStore

async def publish(data):
    async with Publisher(SQLiteStore(sys.argv[1])) as publisher:
        return await publisher.publish("news", data)

for number in range(3):
    print(asyncio.run(publish(number)))
"""


async def test_code_without_a_loop_runs_one_for_each_event(
    serve: Serve, tmp_path: Path
) -> None:
    """Another process that calls ``asyncio.run`` each time publishes all in order."""
    path = tmp_path / "events.db"
    served = await serve(news(SQLiteStore(path)))
    async with served.stream("/news") as stream:
        await stream.next("sse-hello")
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", "-c", _JOB, str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        events = await stream.collect(3)
    assert ["0", "1", "2"] == [event.data for event in events]
    assert done.stdout.split() == [event.id for event in events]
    assert "" == done.stderr
