"""What is replayed is marked: ``replay: N`` before the N blocks that were there before.

Law: an event is replayed if the log had it when its connection was opened, and live if
not; the mark goes with the write that it is about, and costs none of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    MemoryStore,
    ServerSentEvent,
    SQLiteStore,
    SSERouteTableDef,
)
from aiohttp_sse_routes.client import connect
from aiohttp_sse_routes.testing import EventStream

from .helpers import RawClient, Served, app_of, until
from .lifecycle import hub_of
from .multiplexed import Multiplexed
from .rooms import table_of_rooms
from .stores import Make
from .test_resume import feeding, opened

Serve = Callable[..., Awaitable[Served]]

PAST, LIVE = True, False


async def told(stream: EventStream, count: int) -> list[tuple[str, bool]]:
    """Return the data of the next *count* events, and whether they are replayed."""
    return [(event.data, event.replayed) for event in await stream.collect(count)]


async def again(stream: EventStream) -> None:
    """Have *stream* come back, until its hello is there."""
    await stream.resume()
    await stream.next("sse-hello")


async def left(served: Served) -> None:
    """Wait until nobody follows."""
    await until(lambda: hub_of(served).connections == 0)


async def publish(served: Served, channel: str, *texts: str) -> None:
    """Publish *texts*, one after another."""
    for text in texts:
        await served.sse.publish(channel, text)


async def test_channels(serve: Serve, make_store: Make, tmp_path: Path) -> None:
    """History, and what was missed, is replayed from every store; the rest is live.

    Where others share the log it is read from there: the server is started anew.
    """
    store = make_store(tmp_path)
    served = await serve(app_of(table_of_rooms(), store=store))
    await publish(served, "a", "1", "2", "3")
    if store.shared:
        await served.close()
        served = await serve(app_of(table_of_rooms(), store=make_store(tmp_path)))
    stream = await opened(served, "/rooms/a+b?history=2")
    assert [("2", PAST), ("3", PAST)] == await told(stream, 2)
    await publish(served, "a", "4")
    assert [("4", LIVE)] == await told(stream, 1)
    stream.drop()
    await left(served)
    await publish(served, "b", "5")
    await publish(served, "a", "6")
    if store.shared:
        await served.close()
        served = await serve(app_of(table_of_rooms(), store=make_store(tmp_path)))
        stream.session, stream.url = served.session, f"{served.base}/rooms/a+b"
    await again(stream)
    assert [("5", PAST), ("6", PAST)] == await told(stream, 2)
    await publish(served, "b", "7")
    assert [("7", LIVE)] == await told(stream, 1)
    assert [] == stream.gaps
    stream.drop()


async def test_behind_a_gap(serve: Serve) -> None:
    """What is retained behind a gap at the opening is replayed."""
    served = await serve(app_of(table_of_rooms(), store=MemoryStore(max_events=2)))
    stream = await opened(served, "/rooms/a")
    stream.drop()
    await left(served)
    await publish(served, "a", "1", "2", "3")
    await again(stream)
    assert [("2", PAST), ("3", PAST)] == await told(stream, 2)
    await publish(served, "a", "4")
    assert [("4", LIVE)] == await told(stream, 1)
    assert ["expired"] == [gap["reason"] for gap in stream.gaps]
    stream.drop()


async def test_a_large_past(serve: Serve, tmp_path: Path) -> None:
    """Over several writes, from memory and from a file, each has its own mark."""
    stores = [MemoryStore(), SQLiteStore(tmp_path / "events.db")]
    for store in stores:
        served = await serve(app_of(table_of_rooms(), store=store))
        stream = await opened(served, "/rooms/a")
        stream.drop()
        await left(served)
        texts = [f"{number}".ljust(5000, "-") for number in range(60)]
        await publish(served, "a", *texts)
        await again(stream)
        await publish(served, "a", "new")
        events = [*await told(stream, 60), *await told(stream, 1)]
        assert [*((text, PAST) for text in texts), ("new", LIVE)] == events
        stream.drop()
        await served.close()


async def test_slow_is_not_past(serve: Serve) -> None:
    """What came while a connection was open is live, however late it is written."""
    served = await serve(app_of(table_of_rooms()))
    client = await RawClient.connect(served, rcvbuf=65536)
    await client.get("/rooms/a")
    await client.read_until(b"sse-hello")
    [connection] = hub_of(served).rounds.open
    text = "x" * 100_000
    while not connection.blocked:
        await served.sse.publish("a", text)
    await publish(served, "a", text, "last")
    await client.read_until(b"data: last")
    assert b"replay" not in client.received


async def test_a_private_run(serve: Serve) -> None:
    """What a run has yielded without its client is replayed; its first event is not."""
    feed, table = feeding(open_timeout=5)
    served = await serve(app_of(table))
    stream = served.stream("/x")
    opening = asyncio.create_task(stream.open())
    await until(lambda: feed.begun == 1)
    feed.feed("1")
    await opening
    assert [("1", LIVE)] == await told(stream, 1)
    stream.drop()
    await until(lambda: served.sse.detached == 1)
    [run] = hub_of(served).private
    feed.feed("2", ServerSentEvent(comment="no event"), "3")
    await until(lambda: run.feed.head == 4)
    await again(stream)
    feed.feed("4")
    assert [("2", PAST), ("3", PAST), ("4", LIVE)] == await told(stream, 3)
    # Who comes back to a run that has ended is given what it missed of it.
    stream.drop()
    await until(lambda: served.sse.detached == 1)
    feed.feed("5", ...)
    await until(lambda: run.ending is not None)
    await again(stream)
    assert [("5", PAST)] == await told(stream, 1)
    stream.drop()


async def test_a_run_that_begins_anew(serve: Serve) -> None:
    """Behind a gap a new run is live from its first event on."""
    feed, table = feeding(resume=0, open_timeout=5)
    served = await serve(app_of(table))
    stream = served.stream("/x", last_event_id=f"sse1.r.{'A' * 22}.5")
    opening = asyncio.create_task(stream.open())
    await until(lambda: feed.begun == 1)
    feed.feed("1")
    await opening
    assert [("1", LIVE)] == await told(stream, 1)
    assert ["unknown"] == [gap["reason"] for gap in stream.gaps]
    stream.drop()


@pytest.mark.parametrize("over_workers", [False, True])
async def test_a_shared_run(serve: Serve, tmp_path: Path, over_workers: bool) -> None:
    """Who begins it has all of it live; who comes later has its history replayed."""
    store = SQLiteStore(tmp_path / "events.db") if over_workers else None
    feed, table = feeding(shared=True, history=2, open_timeout=5)
    served = await serve(app_of(table, store=store))
    first, second = served.stream("/x"), served.stream("/x")
    opening = asyncio.create_task(first.open())
    await until(lambda: feed.begun == 1)
    feed.feed("1")
    await opening
    assert [("1", LIVE)] == await told(first, 1)
    feed.feed("2", "3")
    assert [("2", LIVE), ("3", LIVE)] == await told(first, 2)
    await second.open()
    assert [("2", PAST), ("3", PAST)] == await told(second, 2)
    first.drop()
    await until(lambda: hub_of(served).connections == 1)
    feed.feed("4")
    assert [("4", LIVE)] == await told(second, 1)
    await again(first)
    feed.feed("5")
    assert [("4", PAST), ("5", LIVE)] == await told(first, 2)
    assert [] == first.gaps
    first.drop()
    second.drop()


async def test_the_newest_by_key(serve: Serve) -> None:
    """Conflated, too: what was missed is replayed, and marked in the one write."""
    store = MemoryStore(max_events=2)
    table = table_of_rooms(on_slow="conflate")
    served = await serve(app_of(table, store=store))
    stream = await opened(served, "/rooms/a")
    stream.drop()
    await left(served)
    for number in range(9):
        await served.sse.publish("a", str(number), key=str(number % 3))
    await again(stream)
    await served.sse.publish("a", "9", key="0")
    events = await told(stream, 4)
    assert [("6", PAST), ("7", PAST), ("8", PAST), ("9", LIVE)] == events
    stream.drop()


async def test_a_snapshot(serve: Serve) -> None:
    """A snapshot is the present; what was missed since it was sent is replayed."""
    table = SSERouteTableDef()

    async def state() -> AsyncIterator[str]:
        yield "state"

    @table.sse_route("/room")
    async def room(request: web.Request) -> Channels:
        return Channels("a", snapshot=state)

    served = await serve(app_of(table))
    await publish(served, "a", "1")
    stream = await opened(served, "/room")
    assert [("state", LIVE)] == await told(stream, 1)
    await stream.next("sse-cursor")
    await publish(served, "a", "2")
    assert [("2", LIVE)] == await told(stream, 1)
    stream.drop()
    await left(served)
    await publish(served, "a", "3")
    await again(stream)
    await publish(served, "a", "4")
    assert [("3", PAST), ("4", LIVE)] == await told(stream, 2)
    stream.drop()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_the_bytes(serve: Serve, version: str) -> None:
    """The line is the first of the write that it is about, before all ids."""
    served = await serve(app_of(table_of_rooms()))
    await publish(served, "a", "1", "2")
    client = await RawClient.connect(served)
    await client.get("/rooms/a?history=9", version=version)
    await client.read_until(b"data: 2")
    await publish(served, "a", "3")
    await client.read_until(b"data: 3")
    text = client.received.decode()
    ids = re.findall(r"id: \S+\n", text)
    past = f"replay: 2\n{ids[1]}data: 1\n\n{ids[2]}data: 2\n\n"
    if version == "1.1":
        past = f"{len(past):x}\r\n{past}\r\n"
    assert past in text
    assert 1 == text.count("replay")


async def test_without_control_events(serve: Serve) -> None:
    """Parsers ignore the line, so that it is sent on such a route as well."""
    served = await serve(app_of(table_of_rooms(control_events=False)))
    await publish(served, "a", "1")
    stream = await served.stream("/rooms/a?history=1").open()
    assert [("1", PAST)] == await told(stream, 1)
    stream.drop()


async def test_several_streams_of_a_connection(serve: Serve) -> None:
    """Each has marks of its own, which stand behind the line that names it."""
    served = await serve(app_of(table_of_rooms()))
    await publish(served, "a", "1", "2")
    await publish(served, "b", "3")
    paths = {"a": "/rooms/a?history=2", "b": "/rooms/b?history=1", "c": "/rooms/c"}
    client = Multiplexed(served, paths)
    await client.connect()
    await client.read_until(lambda: client["a"].events and client["b"].events)
    await client.read_until(lambda: len(client["c"].control) == 1)
    for channel in "abc":
        await publish(served, channel, "live")
    await client.read_until(
        lambda: all(sub.events[-1:] == ["live"] for sub in client.subs.values())
    )
    marks = re.findall(rb"stream: (\w)\nreplay: (\d)\n", client.body)
    assert [(b"a", b"2"), (b"b", b"1")] == sorted(marks)
    replayed = {key: sub.replayed for key, sub in client.subs.items()}
    assert {"a": ["1", "2"], "b": ["3"], "c": []} == replayed


async def test_the_python_client(serve: Serve) -> None:
    """`connect` says so of each event."""
    served = await serve(app_of(table_of_rooms()))
    await publish(served, "a", "1")
    async with connect(f"{served.base}/rooms/a?history=1") as stream:
        event = await anext(stream)
        assert ("1", PAST) == (event.raw, event.replayed)
        await publish(served, "a", "2")
        event = await anext(stream)
        assert ("2", LIVE) == (event.raw, event.replayed)
