"""Publishing: what is accepted, where it goes, and that the loop gets its turns."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    EventError,
    EventTooLarge,
    MemoryStore,
    ServerSentEvent,
    SharedRun,
    SSERouteTableDef,
    StoreError,
    get_sse,
    setup,
)
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .rawhttp import blocks_of, parse_response
from .rooms import broker_of, seq_of, table_of_rooms

Serve = Callable[..., Awaitable[Served]]


async def room(serve: Serve, **options: Any) -> Served:
    """Return a served application with a route of channels."""
    return await serve(app_of(table_of_rooms(), **options))


# -- what comes back -------------------------------------------------------------------


async def test_a_cursor_is_the_events_id(serve: Serve) -> None:
    """What publishing returns is what the client gets as the event's id."""
    served = await room(serve)
    async with served.stream("/rooms/a") as stream:
        await stream.next("sse-hello")
        one = await served.sse.publish("a", "1", event="named")
        many = await served.sse.publish_many("a", ["2", {"three": 3}])
        events = await stream.collect(3)
    assert [one, *many] == [event.id for event in events]
    assert ["named", "message", "message"] == [event.type for event in events]
    assert ["1", "2", '{"three":3}'] == [event.data for event in events]
    assert [False, False, True] == [event.json for event in events]


async def test_a_batch_is_one_chunk_and_one_write(serve: Serve) -> None:
    """A thousand events that were published together come as one chunk."""
    served = await room(serve)
    client = await RawClient.connect(served)
    await client.get("/rooms/a")
    await client.read_until(b"sse-hello")
    await client.read_until(b"\n\n\r\n")
    await served.sse.publish_many("a", [f"event {n}" for n in range(1000)])
    await client.read_until(b"event 999\n\n\r\n")
    chunks = parse_response(client.received).chunks
    assert [1, 1000] == [len(blocks_of(chunk)) for chunk in chunks]


async def test_an_event_may_be_named_by_itself(serve: Serve) -> None:
    """A `ServerSentEvent` goes out with its name, its comment and its ``retry``."""
    served = await room(serve)
    async with served.stream("/rooms/a") as stream:
        await stream.next("sse-hello")
        await served.sse.publish("a", ServerSentEvent("1", event="x", retry=1234))
        await served.sse.publish("a", ServerSentEvent("2"), event="y")
        await served.sse.publish("a", ServerSentEvent("3", event="z"), event="z")
        await served.sse.publish_many("a", ["4", ServerSentEvent("5")], event="w")
        await served.sse.publish("a", None, event="empty")
        events = await stream.collect(6)
        assert 1234 == stream.retry
    assert ["x", "y", "z", "w", "w", "empty"] == [event.type for event in events]
    assert ["1", "2", "3", "4", "5", ""] == [event.data for event in events]


async def test_nothing_published_is_nothing_done(serve: Serve) -> None:
    """An empty batch returns no cursor; the channel's name is checked all the same."""
    served = await room(serve)
    assert [] == await served.sse.publish_many("a", [])
    with pytest.raises(ValueError, match="channel"):
        await served.sse.publish_many("", [])
    assert 0 == broker_of(served).head


# -- what is refused -------------------------------------------------------------------


class Unencodable:
    """JSON cannot carry it."""


WRONG: list[Any] = [
    pytest.param(("a", None), {}, EventError, "nothing to publish", id="nothing"),
    pytest.param(("a", ServerSentEvent("x", id="1")), {}, EventError, "id=", id="id"),
    pytest.param(("a", Unencodable()), {}, EventError, "JSON", id="not-json"),
    pytest.param(("a", float("nan")), {}, EventError, "NaN", id="nan"),
    pytest.param(("a", b"\xff"), {}, EventError, "UTF-8", id="bytes"),
    pytest.param(("a", "\0"), {}, EventError, "NUL", id="nul"),
    pytest.param(("a", "x" * 200), {}, EventTooLarge, "max_event_bytes", id="large"),
    pytest.param(("", "x"), {}, ValueError, "channel", id="no-name"),
    pytest.param(("a" * 513, "x"), {}, ValueError, "512", id="long-name"),
    pytest.param(("é" * 257, "x"), {}, ValueError, "512", id="long-bytes"),
    pytest.param(("a\n", "x"), {}, ValueError, "control", id="control"),
    pytest.param(("\ud800", "x"), {}, ValueError, "UTF-8", id="surrogate"),
    pytest.param((None, "x"), {}, TypeError, "str", id="name-none"),
    pytest.param((1, "x"), {}, TypeError, "str", id="name-int"),
    pytest.param(("a", "x"), {"event": "sse-gap"}, ValueError, "sse-", id="reserved"),
    pytest.param(("a", "x"), {"event": "a\nb"}, ValueError, "LF", id="injection"),
    pytest.param(
        ("a", ServerSentEvent("x")),
        {"event": "sse-gap"},
        ValueError,
        "sse-",
        id="reserved-of-an-event",
    ),
    pytest.param(
        ("a", ServerSentEvent("x")),
        {"event": "a\ndata: b"},
        ValueError,
        "LF",
        id="injection-of-an-event",
    ),
    pytest.param(
        ("a", ServerSentEvent("x", event="y")),
        {"event": "z"},
        ValueError,
        "leave one",
        id="two-names",
    ),
    pytest.param(("a", "x"), {"event": 1}, TypeError, "str", id="event-int"),
    pytest.param(("a", "x"), {"key": ""}, ValueError, "key", id="no-key"),
    pytest.param(("a", "x"), {"key": "k" * 513}, ValueError, "512", id="long-key"),
    pytest.param(("a", "x"), {"key": 1}, TypeError, "key", id="key-int"),
    pytest.param(("a", "x"), {"key": "\ud800"}, ValueError, "UTF-8", id="key-bytes"),
    pytest.param(
        ("a", "x"), {"idempotency_key": ""}, ValueError, "idempotency", id="no-idem"
    ),
    pytest.param(
        ("a", "x"), {"idempotency_key": 1}, TypeError, "idempotency", id="idem-int"
    ),
]


@pytest.mark.parametrize(("args", "options", "error", "text"), WRONG)
async def test_what_cannot_be_an_event_is_refused(
    serve: Serve, args: Any, options: Any, error: type[Exception], text: str
) -> None:
    """The error says what is wrong, and nothing was appended."""
    served = await room(serve, max_event_bytes=100)
    with pytest.raises(error, match=text):
        await served.sse.publish(*args, **options)
    if "idempotency_key" not in options:
        with pytest.raises(error, match=text):
            await served.sse.publish_many(args[0], ["fine", args[1]], **options)
    assert 0 == broker_of(served).head


@pytest.mark.parametrize("items", ["text", b"bytes", {"a": 1}])
async def test_one_event_is_no_batch(serve: Serve, items: Any) -> None:
    """What would fall to pieces by mistake is refused."""
    served = await room(serve)
    with pytest.raises(TypeError, match="publish"):
        await served.sse.publish_many("a", items)
    assert 0 == broker_of(served).head


async def test_only_a_running_application_publishes() -> None:
    """Before the start and after the end everything is a `StoreError` that says so."""
    app = app_of(table_of_rooms())
    sse = get_sse(app)

    async def refused() -> None:
        for publishing in (
            sse.publish("a", "1"),
            sse.publish_many("a", ["1"]),
            sse.cursor("a"),
        ):
            with pytest.raises(StoreError, match="does not run"):
                await publishing
        for call in (
            lambda: sse.publish_threadsafe("a", "1"),
            lambda: sse.subscribe("a"),
        ):
            with pytest.raises(StoreError, match="does not run"):
                call()

    await refused()
    runner = web.AppRunner(app)
    await runner.setup()
    await sse.publish("a", "1")
    await runner.cleanup()
    await refused()


async def test_startup_and_cleanup_may_publish() -> None:
    """A `cleanup_ctx` that was added behind ``setup`` publishes on both its sides."""
    app = app_of(table_of_rooms())
    cursors = []

    async def life(app: web.Application) -> Any:
        cursors.append(await get_sse(app).publish("a", "hello"))
        yield
        cursors.append(await get_sse(app).publish("a", "goodbye"))

    app.cleanup_ctx.append(life)
    runner = web.AppRunner(app)
    await runner.setup()
    await runner.cleanup()
    assert [1, 2] == [seq_of(cursor) for cursor in cursors]


# -- once ------------------------------------------------------------------------------


async def test_an_idempotency_key_publishes_once(
    serve: Serve, clock: SettableClock
) -> None:
    """The same key of the same channel is the same event, for 300 s."""
    served = await room(serve, clock=clock)
    publish = served.sse.publish
    first = await publish("a", "1", idempotency_key="k")
    assert first == await publish("a", "2", idempotency_key="k")
    assert first != await publish("b", "3", idempotency_key="k")
    assert first != await publish("a", "4", idempotency_key="l")
    assert 3 == broker_of(served).head
    await clock.advance(299)
    assert first == await publish("a", "5", idempotency_key="k")
    await clock.advance(2)
    assert first != await publish("a", "6", idempotency_key="k")
    async with served.stream("/rooms/a?history=9") as stream:
        assert ["1", "4", "6"] == [event.data for event in await stream.collect(3)]


# -- threads ---------------------------------------------------------------------------


async def test_other_threads_publish(serve: Serve) -> None:
    """Each gets the cursor of its event; the order of a thread is its order."""
    served = await room(serve)
    cursors: dict[int, list[str]] = {}

    def work(number: int) -> None:
        futures = [
            served.sse.publish_threadsafe("a", f"{number} {n}") for n in range(50)
        ]
        cursors[number] = [future.result(5) for future in futures]

    async with served.stream("/rooms/a") as stream:
        await stream.next("sse-hello")
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        events = await stream.collect(200)
        for thread in threads:
            await asyncio.to_thread(thread.join)
    for number, given in cursors.items():
        mine = [e for e in events if e.data.startswith(f"{number} ")]
        assert [f"{number} {n}" for n in range(50)] == [event.data for event in mine]
        assert given == [event.id for event in mine]


async def test_a_thread_gets_the_error(serve: Serve) -> None:
    """What cannot be published raises where the future is waited for."""
    served = await room(serve)
    future = served.sse.publish_threadsafe("", "x")
    assert isinstance(future, concurrent.futures.Future)
    with pytest.raises(ValueError, match="channel"):
        await asyncio.wrap_future(future)


# -- the loop --------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 500])
async def test_a_tight_loop_gives_the_loop_its_turns(serve: Serve, batch: int) -> None:
    """Who publishes without a pause holds up neither the loop nor the delivery."""
    served = await room(serve)
    turns = 0
    longest = 0.0

    async def others() -> None:
        nonlocal turns, longest
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(0)
            turns += 1
            longest = max(longest, loop.time() - before)
            before = loop.time()

    async with served.stream("/rooms/a") as stream:
        await stream.next("sse-hello")
        task = asyncio.create_task(others())
        await asyncio.sleep(0)
        for number in range(0, 5000, batch):
            await served.sse.publish_many("a", [str(number + n) for n in range(batch)])
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert turns >= 5000 // max(64, batch) - 1
        assert longest < 0.5
        events = await stream.collect(1000 if batch == 1 else 5000)
        assert [str(n) for n in range(len(events))] == [e.data for e in events]


async def test_a_publisher_may_be_cancelled(serve: Serve) -> None:
    """A cancellation of who publishes harms nobody else, and loses nothing told."""
    served = await room(serve)
    told: list[str] = []

    async def endless() -> None:
        while True:
            told.append(await served.sse.publish("a", str(len(told))))

    async with served.stream("/rooms/a") as stream:
        await stream.next("sse-hello")
        task = asyncio.create_task(endless())
        await until(lambda: len(told) > 200)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        last = await served.sse.publish("a", "last")
        ids: list[str | None] = []
        while last not in ids:
            ids.append((await stream.next()).id)
        # What was being published when it was cancelled may be there, or not.
        assert [*told, last] == [id for id in ids if id in told or id == last]


# -- stores ----------------------------------------------------------------------------


async def test_a_store_is_one_applications(serve: Serve) -> None:
    """One store given to two applications is a clear error at the second's start."""
    store = MemoryStore()
    served = await serve(app_of(table_of_rooms(), store=store))
    other = web.AppRunner(app_of(table_of_rooms(), store=store))
    with pytest.raises(StoreError, match="one of its own"):
        await other.setup()
    await other.cleanup()
    await served.sse.publish("a", "the first goes on")


async def test_two_applications_know_nothing_of_each_other(serve: Serve) -> None:
    """Two applications in one process, with the same names: two logs."""
    one, two = await room(serve), await room(serve)
    async with one.stream("/rooms/a") as first, two.stream("/rooms/a") as second:
        await first.next("sse-hello")
        await second.next("sse-hello")
        await one.sse.publish("a", "one")
        await two.sse.publish("a", "two")
        assert "one" == (await first.next()).data
        assert "two" == (await second.next()).data
        place = first.last_event_id
    async with two.stream("/rooms/a", last_event_id=place) as stream:
        await stream.next("sse-gap")
        assert [{"reason": "reset", "after": place}] == stream.gaps


async def test_a_sub_application_publishes_to_the_root(serve: Serve) -> None:
    """`get_sse` in a sub-application's handler or shared run is the root's."""
    table = SSERouteTableDef()

    @table.sse_route("/follow")
    async def follow(request: web.Request) -> Channels:
        return Channels("a")

    @table.sse_route("/run", shared=True)
    async def run(run: SharedRun) -> AsyncIterator[str]:
        yield await get_sse(run.app).publish("a", "from a run")

    async def say(request: web.Request) -> web.Response:
        cursor = await get_sse(request).publish("a", "hi")
        return web.Response(text=cursor)

    app, sub = web.Application(), web.Application()
    setup(app, [])
    sub.add_routes(table)
    sub.router.add_post("/say", say)
    app.add_subapp("/sub", sub)
    served = await serve(app)
    async with served.stream("/sub/follow") as stream:
        await stream.next("sse-hello")
        async with served.session.post(f"{served.base}/sub/say") as response:
            cursor = await response.text()
        event = await stream.next()
        assert (cursor, "hi") == (event.id, event.data)
        async with served.stream("/sub/run") as other:
            cursor = (await other.next()).data
        event = await stream.next()
        assert (cursor, "from a run") == (event.id, event.data)
