"""Channels over HTTP: what a client is told and given, for whatever it brings."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector, web

from aiohttp_sse_routes import (
    Channels,
    MemoryStore,
    SSERouteTableDef,
    StoreUnavailable,
    get_sse,
    setup,
)
from aiohttp_sse_routes.cursor import new_generation
from aiohttp_sse_routes.logs.entry import Lineage
from aiohttp_sse_routes.testing import EventStream, SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import PROMPTLY, complaints, connections_of, hub_of
from .rawhttp import OUR_ID, ask, check_law, parse_response
from .rooms import broker_of, seq_of, table_of_rooms

Serve = Callable[..., Awaitable[Served]]
Log = pytest.LogCaptureFixture

UNKNOWN_RUN = f"sse1.r.{'A' * 22}.5"
UNKNOWN_LOG = "sse1.l.0123456789ab.5"


async def room(serve: Serve, **options: Any) -> Served:
    """Return a served application with a route of channels."""
    clock, store = options.pop("clock", None), options.pop("store", None)
    return await serve(app_of(table_of_rooms(**options), clock=clock, store=store))


async def opened(served: Served, path: str, **options: Any) -> EventStream:
    """Return a stream whose hello has come."""
    stream = await served.stream(path, **options).open()
    assert 200 == stream.status
    await stream.next("sse-hello")
    return stream


async def data(stream: EventStream, count: int) -> list[str]:
    """Return the data of the next *count* events."""
    return [event.data for event in await stream.collect(count)]


def resumed(stream: EventStream) -> str:
    """Return what the stream's hello says."""
    assert stream.hello is not None
    value: str = stream.hello["resumed"]
    return value


def followers(served: Served) -> int:
    """Return how many readers there are."""
    return len(list(broker_of(served).readers))


async def stories(stream: EventStream, count: int) -> list[Any]:
    """Return the next *count* blocks but hello: data, or a control event's facts."""
    found: list[Any] = []
    while len(found) < count:
        event = await stream.next(control=True)
        if not event.type.startswith("sse-"):
            found.append(event.data)
        elif event.type == "sse-gap":
            gap = json.loads(event.data)
            after = gap["after"] and seq_of(gap["after"])
            found.append((gap["reason"], after, seq_of(event.id)))
        elif event.type != "sse-hello":
            found.append(event.type)
    return found


# -- what comes ------------------------------------------------------------------------


async def test_a_client_gets_what_is_published(serve: Serve) -> None:
    """To its channels alone, in one order, with ids of one format."""
    served = await room(serve)
    both = await opened(served, "/rooms/a+b")
    one = await opened(served, "/rooms/b")
    publish = served.sse.publish
    for number in range(6):
        await publish("abc"[number % 3], str(number))
    assert ["0", "1", "3", "4"] == await data(both, 4)
    assert ["1", "4"] == await data(one, 2)
    ids = [event.id for event in both.events]
    assert sorted(ids, key=seq_of) == ids
    assert all(OUR_ID.fullmatch(id or "") for id in ids)
    assert {event.id for event in one.events} < set(ids)
    both.drop()
    one.drop()
    await until(lambda: not followers(served))


async def test_hello_primes_the_cursor(serve: Serve) -> None:
    """Who drops before its first event resumes by the id of hello."""
    served = await room(serve)
    await served.sse.publish("a", "before")
    stream = await opened(served, "/rooms/a")
    assert {"heartbeat": 15.0, "resumed": "fresh"} == stream.hello
    stream.drop()
    await served.sse.publish("a", "1")
    await stream.open()
    assert ["1"] == await data(stream, 1)
    assert "continued" == resumed(stream)
    stream.drop()


async def test_the_bytes_keep_the_law(serve: Serve, clock: SettableClock) -> None:
    """Nothing that engines disagree on, in any block; each event is one chunk."""
    served = await room(serve, clock=clock, store=MemoryStore(max_events=2))
    client = await RawClient.connect(served)
    await client.get("/rooms/a", f"Last-Event-ID: {UNKNOWN_LOG}")
    await client.read_until(b"sse-gap")
    await served.sse.publish("a", "one\rtwo\nthree")
    await client.read_until(b"three")
    await served.sse.publish("b", "elsewhere")
    for _ in range(17):
        await clock.advance(1)
    await client.read_until(b"sse-cursor")
    await served.close()
    await client.read_all()
    response = parse_response(client.received)
    check_law(response.body)
    assert response.complete
    assert "text/event-stream" == response.headers["Content-Type"]
    assert "no-store, no-transform" == response.headers["Cache-Control"]
    assert "SSE-Resume" not in response.headers
    assert {"reason": "reset", "after": UNKNOWN_LOG} == response.data("sse-gap")


async def test_history_is_the_newest_of_all(serve: Serve) -> None:
    """A new client gets so many past events over all its channels, in order."""
    served = await room(serve)
    for number in range(20):
        await served.sse.publish("abc"[number % 3], str(number))
    wanted = [str(n) for n in range(20) if n % 3 < 2]
    for count in (0, 1, 5, 100):
        stream = await opened(served, f"/rooms/a+b+never?history={count}")
        await served.sse.publish("b", "now")
        given = wanted[len(wanted) - min(count, len(wanted)) :]
        assert [*given, "now"] == await data(stream, len(given) + 1)
        assert "fresh" == resumed(stream)
        assert not stream.gaps
        wanted.append("now")
        stream.drop()


async def test_history_misses_nothing_that_was_trimmed(serve: Serve) -> None:
    """A new client is told of no gap, whatever its channels no longer hold."""
    served = await room(serve, store=MemoryStore(max_events=2))
    for number in range(10):
        await served.sse.publish("ab"[number % 2], str(number))
        await served.sse.publish("c", "x")
    stream = await opened(served, "/rooms/a+b?history=9")
    await served.sse.publish("a", "now")
    assert ["6", "7", "8", "9", "now"] == await stories(stream, 5)
    stream.drop()
    # Older events of one, from before what the other holds.
    await served.sse.publish("old", "0")
    await served.sse.publish_many("new", list("12345"))
    stream = await opened(served, "/rooms/old+new?history=9")
    await served.sse.publish("new", "6")
    assert ["0", "4", "5", "6"] == await stories(stream, 4)
    assert "fresh" == resumed(stream)
    stream.drop()
    stream = await opened(served, "/rooms/a", last_event_id=stream.last_event_id)
    await served.sse.publish("a", "then")
    assert ["then"] == await stories(stream, 1)
    assert "continued" == resumed(stream)
    stream.drop()


async def test_a_names_order_and_repetition_mean_nothing(serve: Serve) -> None:
    """A channel that is named twice is followed once."""
    served = await room(serve)
    stream = await opened(served, "/rooms/b+a+b+a")
    await served.sse.publish("a", "1")
    await served.sse.publish("b", "2")
    assert ["1", "2"] == await data(stream, 2)
    [connection] = connections_of(served)
    assert ("b", "a") == connection.channels
    stream.drop()


@pytest.mark.parametrize(
    ("args", "options", "error", "text"),
    [
        ((), {}, ValueError, "at least one"),
        (("",), {}, ValueError, "channel"),
        ((1,), {}, TypeError, "str"),
        (("a\n",), {}, ValueError, "control"),
        ([f"{n}" for n in range(257)], {}, ValueError, "256"),
        (("a",), {"history": -1}, ValueError, "history"),
        (("a",), {"history": True}, ValueError, "history"),
        (("a",), {"history": 1.5}, ValueError, "history"),
        (("a",), {"snapshot": 1}, TypeError, "snapshot"),
        (("a",), {"on_close": 1}, TypeError, "on_close"),
    ],
)
def test_wrong_channels_are_refused(
    args: Any, options: Any, error: type[Exception], text: str
) -> None:
    """The error says what is wrong, where the handler makes them."""
    with pytest.raises(error, match=text):
        Channels(*args, **options)


# -- coming back -----------------------------------------------------------------------


async def test_each_place_gives_what_comes_after_it(serve: Serve) -> None:
    """From any id that it was given, as often as it likes, a client has the rest."""
    served = await room(serve)
    stream = await opened(served, "/rooms/a+b")
    for number in range(5):
        await served.sse.publish("ab"[number % 2], str(number))
    await stream.collect(5)
    places = [stream.control[0].id, *[event.id for event in stream.events]]
    for number, place in reversed(list(enumerate(places))):
        stream.drop()
        stream.last_event_id = place or ""
        await stream.open()
        if number == 5:
            await stream.next("sse-hello")
        assert [str(n) for n in range(number, 5)] == await data(stream, 5 - number)
        assert "continued" == resumed(stream)
        assert place == stream.control[-1].id
    assert not stream.gaps
    stream.drop()


@pytest.mark.parametrize("history", [0, 2])
@pytest.mark.parametrize(
    ("brought", "reason"),
    [
        (UNKNOWN_LOG, "reset"),
        (UNKNOWN_RUN, "unknown"),
        ("garbage", "unknown"),
        ("ünïcode", "unknown"),
        ("x" * 2000, "unknown"),
        ("sse1.l.", "unknown"),
        ("sse2.l.0123456789ab.5", "unknown"),
        ("FUTURE", "unknown"),
        ("TRUNCATED", "unknown"),
        ("SNAPSHOT", "unknown"),
    ],
)
async def test_what_is_no_place_is_a_gap(
    serve: Serve, brought: str, reason: str, history: int
) -> None:
    """It is told first, with a new place, and then what a new client would get."""
    served = await room(serve)
    for number in range(3):
        await served.sse.publish("a", str(number))
    broker = broker_of(served)
    head = broker.cursor(3)
    brought = {
        "FUTURE": broker.cursor(4),
        "TRUNCATED": head[: head.rindex(".") + 1],
        "SNAPSHOT": head.replace(".l.", ".s."),
    }.get(brought, brought)
    stream = await opened(served, f"/rooms/a?history={history}", last_event_id=brought)
    ours = brought.startswith("sse1.") and brought[-1] != "."
    assert "gap" == resumed(stream)
    await served.sse.publish("a", "now")
    assert ["1", "2", "now"][2 - history :] == await data(stream, history + 1)
    assert [{"reason": reason, "after": brought if ours else None}] == stream.gaps
    hello, gap = stream.control
    assert broker.cursor(3 - history) == gap.id
    # Who is cut between the two comes back with what it had, and is told again.
    assert hello.id == (gap.id if len(brought) > 1024 else brought)
    # The gap's place is one: who drops behind it is told of none again.
    stream.drop()
    stream.last_event_id = gap.id or ""
    await stream.open()
    assert ["1", "2", "now"][2 - history :] == await data(stream, history + 1)
    assert "continued" == resumed(stream)
    stream.drop()


async def test_an_end_is_the_end(serve: Serve) -> None:
    """Who brings the id of an end is answered 204, and its handler is not asked."""
    served = await room(serve)
    response = await ask(served, "/rooms/a", f"Last-Event-ID: {UNKNOWN_LOG}.end")
    assert 204 == response.status


async def test_a_place_in_the_query_counts(serve: Serve) -> None:
    """As a page gives it that took the place before it queried its data."""
    served = await room(serve)
    cursor = await served.sse.cursor("a")
    await served.sse.publish("a", "between")
    url = served.sse.url("rooms", names="a", after=cursor)
    stream = await opened(served, url)
    assert ["between"] == await data(stream, 1)
    assert "continued" == resumed(stream)
    stream.drop()
    # What the browser has seen since counts more.
    await served.sse.publish("a", "later")
    await stream.open()
    assert ["later"] == await data(stream, 1)
    stream.drop()


async def test_a_restart_is_a_reset(serve: Serve) -> None:
    """A `MemoryStore` forgets, and says so; also where the number would fit."""
    served = await room(serve)
    await served.sse.publish("a", "old")
    stream = await opened(served, "/rooms/a?history=1")
    assert ["old"] == await data(stream, 1)
    await served.runner.cleanup()
    stream.drop()
    again = await room(serve)
    await again.sse.publish("a", "new")
    path = "/rooms/a?history=1"
    resumed_stream = await opened(again, path, last_event_id=stream.last_event_id)
    assert ["new"] == await data(resumed_stream, 1)
    assert [{"reason": "reset", "after": stream.last_event_id}] == resumed_stream.gaps
    resumed_stream.drop()


async def test_a_store_may_be_used_again(serve: Serve) -> None:
    """By the next application, when the first has ended; its log is another one."""
    store = MemoryStore()
    served = await room(serve, store=store)
    place = await served.sse.publish("a", "old")
    await served.close()
    served = await room(serve, store=store)
    assert place != await served.sse.publish("a", "new")
    stream = await opened(served, "/rooms/a?history=1", last_event_id=place)
    assert [("reset", 1, 0), "new"] == await stories(stream, 2)
    stream.drop()


# -- gaps ------------------------------------------------------------------------------


async def test_an_expired_place_gets_what_is_retained(serve: Serve) -> None:
    """Below the hole's end before the gap, all else behind it; ids only grow."""
    served = await room(serve, store=MemoryStore(max_events=3))
    await served.sse.publish("quiet", "1")
    await served.sse.publish("quiet", "2")
    await served.sse.publish_many("busy", [str(n) for n in range(3, 9)])
    broker = broker_of(served)
    path = "/rooms/quiet+busy"
    stream = await opened(served, path, last_event_id=broker.cursor(1))
    assert "gap" == resumed(stream)
    assert ["2", ("expired", 1, 5), "6", "7", "8"] == await stories(stream, 5)
    assert [{"reason": "expired", "after": broker.cursor(1)}] == stream.gaps
    stream.drop()
    rest: list[tuple[int, list[Any]]] = [
        (2, [("expired", 2, 5), "6", "7", "8"]),
        (5, ["6", "7", "8"]),
        (8, []),
    ]
    for place, story in rest:
        stream = await opened(served, path, last_event_id=broker.cursor(place))
        assert story == await stories(stream, len(story))
        assert ("gap" if place == 2 else "continued") == resumed(stream)
        stream.drop()


async def test_no_gap_is_told_that_is_none(serve: Serve) -> None:
    """Quiet channels, trimmed neighbours, clients that have all: nothing is missing."""
    served = await room(serve, store=MemoryStore(max_events=2))
    await served.sse.publish("quiet", "q")
    stream = await opened(served, "/rooms/quiet+never?history=1")
    assert ["q"] == await data(stream, 1)
    for _ in range(50):
        await served.sse.publish_many("busy", ["x", "x", "x"])
    stream.drop()
    await stream.open()
    await served.sse.publish("quiet", "r")
    assert ["r"] == await data(stream, 1)
    assert "continued" == resumed(stream)
    stream.drop()
    busy = await opened(
        served, "/rooms/busy", last_event_id=broker_of(served).cursor(150)
    )
    await served.sse.publish("busy", "y")
    assert ["x", "y"] == await data(busy, 2)
    assert not busy.gaps + stream.gaps
    busy.drop()


async def flood(served: Served, channel: str, count: int, size: int) -> None:
    """Publish *count* large events; the slow one's transport fills up."""
    for number in range(count):
        await served.sse.publish(channel, f"{number} ".ljust(size, "x"))


async def slow_client(served: Served, path: str) -> EventStream:
    """Return a stream that was opened and is not read."""
    stream = served.stream(path)
    await stream.open()
    await stream.next("sse-hello")
    assert stream.response is not None
    assert stream.response.connection is not None
    transport = stream.response.connection.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    return stream


def go_on(stream: EventStream) -> None:
    """Let *stream* be read again."""
    assert stream.response is not None
    assert stream.response.connection is not None
    transport = stream.response.connection.transport
    assert isinstance(transport, asyncio.Transport)
    transport.resume_reading()


async def test_a_slow_client_is_told_and_goes_on(serve: Serve) -> None:
    """``gap``: it is told what it missed, and others have had everything meanwhile."""
    served = await room(serve, store=MemoryStore(max_events=5))
    slow = await slow_client(served, "/rooms/a")
    fast = await opened(served, "/rooms/a")
    seen = 0
    while not any(c.blocked for c in connections_of(served)) or seen < 20:
        await flood(served, "a", 1, 200_000)
        await fast.next()
        seen += 1
        assert seen < 500
    before = broker_of(served).head
    await flood(served, "a", 10, 10)
    assert 10 == len(await fast.collect(10))
    # Its bytes are the kernel's and one transport's buffer: no queue of its own.
    assert all(
        c.transport.get_write_buffer_size() < 600_000 for c in connections_of(served)
    )
    go_on(slow)
    events = []
    while not slow.gaps:
        events.append(await slow.next())
    had = len(events) - 1
    assert [f"{n}" for n in range(had)]  # some had gone out before it was full
    numbers = [seq_of(event.id) for event in events]
    assert list(range(1, had + 1)) == numbers[:had]
    rest = await slow.collect(4)
    assert numbers[had:] + [seq_of(e.id) for e in rest] == list(
        range(before + 6, before + 11)
    )
    [gap] = slow.gaps
    assert ("slow", had) == (gap["reason"], seq_of(gap["after"]))
    assert before + 5 == seq_of(slow.control[-1].id)
    slow.drop()
    fast.drop()


async def test_a_slow_client_is_sent_away(serve: Serve) -> None:
    """``disconnect``: the connection ends cleanly; coming back tells what is gone."""
    served = await room(serve, store=MemoryStore(max_events=5), on_slow="disconnect")
    slow = await slow_client(served, "/rooms/a")
    while not any(c.blocked for c in connections_of(served)):
        await flood(served, "a", 1, 200_000)
    await flood(served, "a", 10, 10)
    assert 1 == served.sse.connections
    go_on(slow)
    events = await slow.rest()
    assert not slow.gaps
    assert slow.retry
    await until(lambda: not served.sse.connections)
    await slow.resume()
    assert 5 == len(await slow.collect(5))
    assert "gap" == resumed(slow)
    [gap] = slow.gaps
    assert ("expired", events[-1].id) == (gap["reason"], gap["after"])
    slow.drop()


async def test_another_log_is_told_to_who_is_connected(serve: Serve) -> None:
    """Live clients are told ``reset``, and go on in the new log."""
    store = MemoryStore()
    served = await room(serve, store=store)
    stream = await opened(served, "/rooms/a")
    await served.sse.publish("a", "1")
    assert ["1"] == await data(stream, 1)
    before = stream.last_event_id
    store.begin(Lineage(new_generation()), 7)
    await served.sse.publish("a", "2")
    assert [("reset", 1, 7), "2"] == await stories(stream, 2)
    assert before == stream.gaps[0]["after"]
    await stream.resume()
    await served.sse.publish("a", "3")
    assert ["3"] == await data(stream, 1)
    assert "continued" == resumed(stream)
    stream.drop()


async def test_the_log_may_change_while_the_headers_are_sent(
    serve: Serve, clock: SettableClock
) -> None:
    """What hello says, or the header, holds; where it has ceased to, it ends."""
    held: list[asyncio.Event] = []

    async def hold(request: web.Request, response: web.StreamResponse) -> None:
        held.append(asyncio.Event())
        await held[-1].wait()

    store = MemoryStore()
    table = table_of_rooms()
    app = web.Application()
    app.on_response_prepare.append(hold)
    setup(
        app,
        [*table, *table_of_rooms("/plain/{names}", name="plain", control_events=False)],
        store=store,
    )
    served = await serve(app)
    await served.sse.publish("a", "1")
    for path in ("/rooms/a", "/plain/a"):
        broker = broker_of(served)
        place = broker.head
        stream = served.stream(path, last_event_id=broker.cursor(place))
        opening = asyncio.create_task(stream.open())
        await until(lambda: held)
        store.begin(Lineage(new_generation()), place + 6)
        held.pop().set()
        await opening
        await served.sse.publish("a", "2")
        if path == "/rooms/a":
            assert [("reset", 1, 7), "2"] == await stories(stream, 2)
            assert "gap" == resumed(stream)
        else:
            assert stream.response is not None
            assert "continued" == stream.response.headers["SSE-Resume"]
            assert [] == await stream.rest()
        await stream.drop()


# -- without control events ------------------------------------------------------------


async def test_without_control_events_the_header_tells(serve: Serve) -> None:
    """``SSE-Resume`` says what hello would; no event of ours is sent."""
    store = MemoryStore(max_events=3)
    served = await room(serve, control_events=False, store=store)
    client = await RawClient.connect(served)
    await client.get("/rooms/a")
    await client.read_until(b"retry:")
    await served.sse.publish_many("a", list("12345"))
    await client.read_until(b"data: 5\n\n\r\n")
    response = parse_response(client.received)
    assert "fresh" == response.headers["SSE-Resume"]
    assert list("12345") == response.events
    check_law(response.body)
    client.close()
    broker = broker_of(served)
    for brought, said, events in [
        (broker.cursor(0), "gap", "345"),
        (broker.cursor(1), "gap", "345"),
        (broker.cursor(2), "continued", "345"),
        (broker.cursor(4), "continued", "5"),
        (UNKNOWN_LOG, "gap", ""),
        ("garbage", "gap", ""),
    ]:
        stream = await served.stream("/rooms/a", last_event_id=brought).open()
        assert stream.response is not None
        assert said == stream.response.headers["SSE-Resume"]
        assert list(events) == await data(stream, len(events))
        assert not stream.control
        stream.drop()


async def test_without_control_events_a_hole_ends_the_connection(serve: Serve) -> None:
    """A slow client is sent away: the next connection's header tells it."""
    store = MemoryStore(max_events=5)
    served = await room(serve, control_events=False, store=store)
    slow = served.stream("/rooms/a")
    await slow.open()
    assert slow.response is not None
    assert slow.response.connection is not None
    slow.response.connection.transport.pause_reading()  # type: ignore[union-attr]
    while not any(c.blocked for c in connections_of(served)):
        await flood(served, "a", 1, 200_000)
    await flood(served, "a", 10, 10)
    go_on(slow)
    assert await slow.rest()
    await slow.resume()
    assert "gap" == slow.response.headers["SSE-Resume"]
    assert 5 == len(await slow.collect(5))
    slow.drop()


# -- who may what ----------------------------------------------------------------------


async def test_cursors_authorise_nothing(serve: Serve) -> None:
    """A place of another's channels gives the route's own, and nothing else."""
    table = SSERouteTableDef()

    @table.sse_route("/mine")
    async def mine(request: web.Request) -> Channels:
        user = request.headers.get("User")
        if user is None:
            raise web.HTTPUnauthorized
        return Channels(f"user:{user}")

    served = await serve(app_of(table))
    alice = await opened(served, "/mine", headers={"User": "alice"})
    for number in range(4):
        await served.sse.publish("user:alice", f"secret {number}")
        await served.sse.publish("user:bob", f"bob's {number}")
    await alice.collect(4)
    for cursor in [alice.control[0].id, alice.last_event_id]:
        async with served.stream(
            "/mine", headers={"User": "bob"}, last_event_id=cursor or ""
        ) as bob:
            first = 0 if cursor == alice.control[0].id else 3
            wanted = [f"bob's {n}" for n in range(first, 4)]
            assert wanted == await data(bob, len(wanted))
        status, _ = await served.get("/mine", headers={"Last-Event-ID": cursor or ""})
        assert 401 == status
    alice.drop()


async def test_the_handler_may_refuse(serve: Serve, caplog: Log) -> None:
    """What the coroutine raises is the answer, and nothing is followed."""
    table = SSERouteTableDef()

    @table.sse_route("/x/{what}")
    async def x(request: web.Request) -> Any:
        match request.match_info["what"]:
            case "refused":
                raise web.HTTPForbidden
            case "moved":
                raise web.HTTPFound("/elsewhere")
            case "wrong":
                return ["a"]
        return Channels("")

    served = await serve(app_of(table))
    for what, status in [("refused", 403), ("moved", 302), ("wrong", 500), ("", 404)]:
        got, _ = await served.get(f"/x/{what}", allow_redirects=False)
        assert status == got
    assert (await served.get("/x/empty"))[0] == 500
    assert not followers(served)
    assert not served.sse.connections


async def test_a_store_that_was_never_reached_refuses_softly(serve: Serve) -> None:
    """A browser comes back later; publishing raises what says so."""

    class Away(MemoryStore):
        async def open(self, follower: Any, *, now: Callable[[], float]) -> None:
            await super().open(None, now=now)

        async def append(self, *args: Any, **options: Any) -> Any:
            raise StoreUnavailable("away")

    served = await room(serve, store=Away())
    response = await ask(served, "/rooms/a")
    assert (200, {"reason": "store"}) == (response.status, response.data("sse-busy"))
    with pytest.raises(StoreUnavailable):
        await served.sse.publish("a", "1")
    with pytest.raises(StoreUnavailable):
        await served.sse.cursor("a")


# -- heartbeats ------------------------------------------------------------------------


async def beat(clock: SettableClock, seconds: int = 10) -> None:
    """Let time pass, tick by tick."""
    for _ in range(seconds * 4):
        await clock.advance(0.25)


async def test_an_idle_stream_beats(serve: Serve, clock: SettableClock) -> None:
    """A comment where nothing has moved, ``sse-cursor`` where the place has."""
    served = await room(serve, clock=clock, heartbeat=5)
    client = await RawClient.connect(served)
    await client.get("/rooms/a")
    await client.read_until(b"sse-hello")
    await beat(clock, 6)
    await client.read_until(b"\r\n:\n\n\r\n")
    await served.sse.publish("a", "mine")
    await client.read_until(b"mine")
    await beat(clock, 6)
    # It has the id of its own event: nothing has moved.
    await client.read_until(b"mine\n\n\r\n3\r\n:\n\n\r\n")
    elsewhere = await served.sse.publish("b", "not mine")
    await beat(clock, 6)
    await client.read_until(elsewhere.encode())
    await client.read_until(b"\n\n\r\n")
    await beat(clock, 6)
    await client.read_until(b"data: {}\n\n\r\n3\r\n:\n\n\r\n")
    blocks = parse_response(client.received).blocks
    names = [block.get("event", block.get("data", "")) for block in blocks]
    assert ["sse-hello", "", "mine", "", "sse-cursor", ""] == names
    assert {"id": elsewhere, "event": "sse-cursor", "json": "", "data": "{}"} == (
        blocks[4]
    )
    client.close()


async def test_a_busy_stream_does_not_beat(serve: Serve, clock: SettableClock) -> None:
    """No heartbeat within its time of an event."""
    served = await room(serve, clock=clock, heartbeat=5)
    client = await RawClient.connect(served)
    await client.get("/rooms/a")
    await client.read_until(b"sse-hello")
    for number in range(5):
        await beat(clock, 4)
        await served.sse.publish("b", "elsewhere")
        await served.sse.publish("a", f"number {number}")
        await client.read_until(f"number {number}".encode())
    assert b"sse-cursor" not in client.received
    assert b"\n:\n" not in client.received
    client.close()


async def test_the_place_of_a_heartbeat_is_one(
    serve: Serve, clock: SettableClock
) -> None:
    """Who comes back with it gets what came after it, and is told of no gap."""
    served = await room(serve, clock=clock, heartbeat=5)
    stream = await opened(served, "/rooms/a")
    await served.sse.publish_many("b", ["x", "y"])
    await beat(clock)
    place = await stream.next("sse-cursor")
    assert broker_of(served).cursor(2) == place.id == stream.last_event_id
    await served.sse.publish("a", "1")
    await stream.resume()
    assert ["1"] == await data(stream, 1)
    assert "continued" == resumed(stream)
    stream.drop()


async def test_without_control_events_only_comments_beat(
    serve: Serve, clock: SettableClock
) -> None:
    """The place is not told without an event there."""
    served = await room(serve, clock=clock, heartbeat=5, control_events=False)
    client = await RawClient.connect(served)
    await client.get("/rooms/a")
    await client.read_until(b"retry:")
    await served.sse.publish("b", "elsewhere")
    await beat(clock)
    await client.read_until(b"\r\n:\n\n\r\n")
    assert b"sse-" not in client.received.partition(b"\r\n\r\n")[2]
    client.close()


# -- on_close --------------------------------------------------------------------------


class Closing:
    """A route whose ``on_close`` is counted, and may wait.

    Attributes:
        begun: How often it was called.
        ended: How often it has come to its end.
    """

    def __init__(self, **options: Any) -> None:
        self.begun = self.ended = 0
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None
        self.published: list[str] = []
        self.wait_in_handler: asyncio.Event | None = None
        self.in_handler = 0
        self.table = SSERouteTableDef()
        self.table.sse_route("/x", **options)(self.handler)

    async def handler(self, request: web.Request) -> Channels:
        """Follow a channel, and be told of the end."""

        async def closed() -> None:
            self.begun += 1
            await self.go.wait()
            self.published.append(await get_sse(request).publish("left", "goodbye"))
            self.ended += 1
            if self.error is not None:
                raise self.error

        self.in_handler += 1
        if self.wait_in_handler is not None:
            await self.wait_in_handler.wait()
        return Channels("a", on_close=closed)


@pytest.mark.parametrize(
    "how", ["drop", "reset", "cut", "lifetime", "slow", "dismissed"]
)
async def test_on_close_is_awaited_once(
    serve: Serve, clock: SettableClock, caplog: Log, how: str
) -> None:
    """Whatever ended the connection; it may publish."""
    closing = Closing(on_slow="disconnect", lifetime=100 if how == "lifetime" else None)
    store = MemoryStore(max_events=5)
    served = await serve(app_of(closing.table, clock=clock, store=store))
    left = served.sse.subscribe("left")
    client = await RawClient.connect(served)
    await client.get("/x")
    await client.read_until(b"sse-hello")
    match how:
        case "drop":
            client.close()
        case "reset":
            client.reset()
        case "cut":
            hub_of(served).cut_all()
        case "lifetime":
            await clock.advance(120)
        case "dismissed":
            await served.sse.disconnect(channel="a")
        case "slow":
            while not any(c.blocked for c in connections_of(served)):
                await flood(served, "a", 1, 200_000)
            await flood(served, "a", 10, 10)
            await client.read_until(b"\r\n0\r\n\r\n")
    await until(lambda: closing.ended, timeout=PROMPTLY)
    await until(lambda: not served.sse.connections)
    assert "goodbye" == (await anext(left)).data
    assert (1, 1) == (closing.begun, closing.ended)
    assert not followers(served)
    assert [] == complaints(caplog)


async def test_on_close_is_awaited_at_shutdown(serve: Serve, caplog: Log) -> None:
    """Within the grace, while the store is open still."""
    closing = Closing()
    served = await serve(app_of(closing.table))
    stream = await opened(served, "/x")
    closing.go.clear()
    asyncio.get_running_loop().call_later(0.05, closing.go.set)
    await served.runner.cleanup()
    assert (1, 1) == (closing.begun, closing.ended)
    assert 1 == len(closing.published)
    stream.drop()
    assert [] == complaints(caplog)


async def test_an_on_close_that_hangs_does_not_hold_up_the_end(
    serve: Serve, caplog: Log
) -> None:
    """It is logged by name when the grace is over, and not waited for any more."""
    closing = Closing()
    served = await serve(app_of(closing.table, shutdown_grace=0.1))
    stream = await opened(served, "/x")
    closing.go.clear()
    async with asyncio.timeout(PROMPTLY):
        await served.runner.cleanup()
    assert (1, 0) == (closing.begun, closing.ended)
    [complaint] = complaints(caplog)
    assert "on_close" in complaint
    assert "Closing.handler" in complaint
    stream.drop()
    closing.published, closing.go = [], closing.go
    with caplog.at_level(logging.CRITICAL):
        closing.go.set()
        await until(lambda: closing.begun == 1)


async def test_on_close_is_awaited_for_who_left_before_the_headers(
    serve: Serve, caplog: Log
) -> None:
    """The handler has returned its channels: it is told that the client has left."""
    closing = Closing()
    closing.wait_in_handler = asyncio.Event()
    served = await serve(app_of(closing.table))
    client = await RawClient.connect(served)
    await client.get("/x")
    await until(lambda: closing.in_handler)
    client.reset()
    for _ in range(20):
        await asyncio.sleep(0)
    closing.wait_in_handler.set()
    cancelled = served.runner._kwargs["handler_cancellation"]
    if not cancelled:
        await until(lambda: closing.ended)
    for _ in range(20):
        await asyncio.sleep(0)
    # Cancelled in its own coroutine, a handler has returned nothing to be told of.
    assert (0 if cancelled else 1) == closing.begun == closing.ended
    assert not followers(served)
    assert [] == complaints(caplog)


async def test_an_error_of_on_close_is_logged(serve: Serve, caplog: Log) -> None:
    """Once, with the handler's name; nobody else is harmed."""
    closing = Closing()
    closing.error = RuntimeError("bad")
    served = await serve(app_of(closing.table))
    stream = await opened(served, "/x")
    stream.drop()
    await until(lambda: complaints(caplog))
    [complaint] = complaints(caplog)
    assert "on_close" in complaint
    assert "Closing.handler" in complaint
    assert 1 == closing.ended


async def test_on_close_may_be_a_plain_function(serve: Serve) -> None:
    """It is called all the same."""
    called: list[int] = []
    table = SSERouteTableDef()

    @table.sse_route("/x")
    async def x(request: web.Request) -> Channels:
        return Channels("a", on_close=lambda: called.append(1))

    served = await serve(app_of(table))
    (await opened(served, "/x")).drop()
    await until(lambda: called)
    await until(lambda: not served.sse.connections)
    assert [1] == called


async def test_a_cancelled_handler_awaits_on_close(serve: Serve, caplog: Log) -> None:
    """A middleware's time limit ends the stream; the cancellation goes on behind it."""
    closing = Closing()
    seen: list[str] = []

    @web.middleware
    async def limit(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            async with asyncio.timeout(0.05):
                response: web.StreamResponse = await handler(request)
        except TimeoutError:
            seen.append(f"limit, {closing.ended}")
            raise web.HTTPGatewayTimeout from None
        return response

    app = web.Application(middlewares=[limit])
    setup(app, closing.table)
    served = await serve(app)
    closing.go.clear()
    asyncio.get_running_loop().call_later(0.2, closing.go.set)
    stream = await opened(served, "/x")
    await stream.rest()
    await until(lambda: seen)
    assert ["limit, 1"] == seen
    stream.drop()


# -- all ways of HTTP ------------------------------------------------------------------


async def test_http_1_0_has_no_chunks(serve: Serve) -> None:
    """The same events, closed at the end."""
    served = await room(serve)
    client = await RawClient.connect(served)
    await client.get("/rooms/a", version="1.0")
    await client.read_until(b"sse-hello")
    await served.sse.publish("a", "1")
    await served.sse.publish_many("a", ["2", "3"])
    await client.read_until(b"data: 3\n\n")
    await served.close()
    await client.read_all()
    response = parse_response(client.received)
    assert ["1", "2", "3"] == response.events
    check_law(response.body)


async def test_head_is_headers_alone(serve: Serve) -> None:
    """The handler is not asked, and nothing is followed."""
    served = await room(serve)
    response = await ask(served, "/rooms/a", method="HEAD")
    assert (200, b"") == (response.status, response.body)
    assert "text/event-stream" == response.headers["Content-Type"]
    assert not followers(served)
    response = await ask(served, "/rooms/a", method="POST")
    assert 405 == response.status


async def test_another_method_follows_too(serve: Serve) -> None:
    """A POST whose body says what to follow; coming back it says so again."""
    table = SSERouteTableDef()

    @table.sse_route("/follow", methods=("POST",))
    async def follow(request: web.Request) -> Channels:
        return Channels(*await request.json())

    served = await serve(app_of(table))
    stream = served.stream("/follow", method="POST", json=["a", "b"])
    await stream.open()
    await stream.next("sse-hello")
    await served.sse.publish("b", "1")
    assert ["1"] == await data(stream, 1)
    await served.sse.publish("a", "2")
    await stream.resume()
    assert ["2"] == await data(stream, 1)
    stream.drop()


async def test_limits_count_channels(serve: Serve) -> None:
    """One too many is refused softly; who has left makes room."""
    served = await room(serve, max_connections=2)
    streams = [await opened(served, "/rooms/a") for _ in range(2)]
    response = await ask(served, "/rooms/a")
    assert {"reason": "limit"} == response.data("sse-busy")
    streams.pop().drop()
    await until(lambda: served.sse.connections == 1)
    streams.append(await opened(served, "/rooms/a"))
    for stream in streams:
        stream.drop()


async def test_a_lifetime_loses_nothing(serve: Serve, clock: SettableClock) -> None:
    """A connection of that age ends cleanly, and the next one goes on."""
    served = await room(serve, clock=clock, lifetime=60)
    stream = await opened(served, "/rooms/a")
    await clock.advance(70)
    assert [] == await stream.rest()
    await served.sse.publish("a", "between")
    await stream.resume()
    assert ["between"] == await data(stream, 1)
    assert "continued" == resumed(stream)
    stream.drop()


async def test_a_shutdown_ends_the_stream_cleanly(serve: Serve, caplog: Log) -> None:
    """What was published comes first, then a ``retry`` and the last chunk."""
    served = await room(serve)
    client = await RawClient.connect(served)
    await client.get("/rooms/a")
    await client.read_until(b"sse-hello")
    await served.sse.publish_many("a", [str(n) for n in range(100)])
    async with asyncio.timeout(PROMPTLY):
        await served.runner.cleanup()
    await client.read_all()
    response = parse_response(client.received)
    assert response.complete
    assert [str(n) for n in range(100)] == response.events
    assert "retry" in response.blocks[-1]
    assert [] == complaints(caplog)


async def test_over_a_unix_socket(serve: Serve, tmp_path: Any) -> None:
    """Channels do not care what the transport is."""
    served = await room(serve)
    path = str(tmp_path / "socket")
    site = web.UnixSite(served.runner, path)
    await site.start()
    async with ClientSession(connector=UnixConnector(path)) as session:
        stream = EventStream(session, "http://x/rooms/a")
        await stream.open()
        await stream.next("sse-hello")
        await served.sse.publish("a", "1")
        assert ["1"] == await data(stream, 1)
        stream.drop()


async def test_over_tls(serve: Serve, authority: Any) -> None:
    """Nor whether it is encrypted; a burst comes whole, and a drop is resumed."""
    import ssl

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    served = await serve(app_of(table_of_rooms()), ssl_context=server)
    stream = await opened(served, "/rooms/a", ssl=client)
    await served.sse.publish_many("a", [str(n).ljust(5000) for n in range(200)])
    assert 200 == len(await stream.collect(200))
    stream.drop()
    await served.sse.publish("a", "later")
    await stream.open()
    assert ["later"] == await data(stream, 1)
    stream.drop()


async def test_in_a_sub_application(serve: Serve) -> None:
    """A table that is mounted below follows the root's channels."""
    app, sub = web.Application(), web.Application()
    setup(app, [])
    sub.add_routes(table_of_rooms())
    app.add_subapp("/sub", sub)
    served = await serve(app)
    stream = await opened(served, "/sub/rooms/a")
    await served.sse.publish("a", "1")
    assert ["1"] == await data(stream, 1)
    stream.drop()


async def test_many_followers_get_everything(serve: Serve) -> None:
    """Three hundred connections on one channel, over bursts and single events."""
    served = await room(serve)
    clients = [await RawClient.connect(served) for _ in range(300)]
    for client in clients:
        await client.get("/rooms/a")
    await until(lambda: followers(served) == 300)
    for number in range(50):
        await served.sse.publish("a", f"{number}.")
        if number % 7 == 0:
            await asyncio.sleep(0)
    for client in clients:
        await client.read_until(b"49.\n\n\r\n")
        response = parse_response(client.received)
        assert [f"{number}." for number in range(50)] == response.events
        assert not response.named("sse-gap")
        client.close()
    await until(lambda: not served.sse.connections)
    assert not broker_of(served)._live._topics
