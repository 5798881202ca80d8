"""Snapshots: the state first, then what changes it, with nothing between."""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Channels,
    MemoryStore,
    Reconnect,
    ServerSentEvent,
    SSERouteTableDef,
    setup,
)
from aiohttp_sse_routes.cursor import new_generation
from aiohttp_sse_routes.logs.entry import Lineage
from aiohttp_sse_routes.testing import EventStream, SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import PROMPTLY, complaints, connections_of, hub_of, parked
from .rawhttp import check_law, parse_response
from .rooms import broker_of, seq_of
from .test_channels import followers, go_on, resumed, slow_client, stories

Serve = Callable[..., Awaitable[Served]]
Log = pytest.LogCaptureFixture

USER: contextvars.ContextVar[str] = contextvars.ContextVar("USER", default="nobody")


class State:
    """A value that is changed by events, and a route that sends it.

    Attributes:
        values: The state.
        begun: How many snapshots were begun.
        closed: How many have run their ``finally``.
        hold: What the snapshot waits for behind its first value, if anything.
        raises: What it raises behind its first value, if anything.
        users: For whom each was run, by a context variable.
    """

    def __init__(self, history: int = 0, **options: Any) -> None:
        self.values: list[Any] = ["one", "two"]
        self.history = history
        self.begun = self.closed = 0
        self.hold: asyncio.Event | None = None
        self.raises: BaseException | None = None
        self.users: list[str] = []
        self.table = SSERouteTableDef()
        self.table.sse_route("/state", name="state", **options)(self.handler)

    async def handler(self, request: web.Request) -> Channels:
        """Follow a channel whose events change the state."""
        USER.set(request.headers.get("User", "somebody"))
        return Channels("a", history=self.history, snapshot=self.snapshot)

    async def snapshot(self) -> AsyncIterator[Any]:
        """Yield the state."""
        self.begun += 1
        self.users.append(USER.get())
        try:
            for number, value in enumerate(tuple(self.values)):
                yield value
                if number == 0 and self.hold is not None:
                    await self.hold.wait()
                if number == 0 and self.raises is not None:
                    raise self.raises
        finally:
            self.closed += 1


async def opened(served: Served, **options: Any) -> EventStream:
    """Return a stream whose hello has come."""
    stream = await served.stream("/state", **options).open()
    await stream.next("sse-hello")
    return stream


async def test_the_state_comes_first(serve: Serve) -> None:
    """Then the place, then what is published; its ids say that it is a part."""
    state = State()
    state.values = [{"n": 1}, ServerSentEvent("two", event="named"), None, "three"]
    served = await serve(app_of(state.table))
    await served.sse.publish("a", "before")
    client = await RawClient.connect(served)
    await client.get("/state")
    await client.read_until(b"sse-cursor")
    cursor = await served.sse.publish("a", "after")
    await client.read_until(b"after")
    await client.read_until(b"\n\n\r\n")
    client.close()
    body = parse_response(client.received).body
    check_law(body)
    hello, *values, place, after = parse_response(client.received).blocks
    assert ['{"n":1}', "two", "three"] == [block["data"] for block in values]
    assert ["", "named", ""] == [block.get("event", "") for block in values]
    assert {hello["id"]} == {block["id"] for block in values}
    assert broker_of(served).cursor(1) == place["id"]
    assert place["id"].replace(".l.", ".s.") == hello["id"]
    assert (cursor, "after") == (after["id"], after["data"])
    assert (1, 1) == (state.begun, state.closed)


async def test_what_is_published_meanwhile_comes_behind_it(serve: Serve) -> None:
    """Nothing between the state and what changes it is lost, or comes too early."""
    state = State()
    state.hold = asyncio.Event()
    served = await serve(app_of(state.table))
    stream = await opened(served)
    assert "one" == (await stream.next()).data
    for number in range(5):
        await served.sse.publish("a", str(number))
    assert 0 == followers(served)
    state.hold.set()
    assert ["two", "sse-cursor", *"01234"] == await stories(stream, 7)
    stream.drop()
    # From the place behind the snapshot, all of it comes again.
    stream.last_event_id = next(
        e.id or "" for e in stream.control if e.type == "sse-cursor"
    )
    await stream.open()
    assert [*"01234"] == await stories(stream, 5)
    assert "continued" == resumed(stream)
    assert 1 == state.begun
    stream.drop()


async def test_who_drops_in_the_middle_gets_the_whole_anew(serve: Serve) -> None:
    """After any block of it, as often as it happens; and is told that it has a part."""
    state = State()
    state.values = list("abcd")
    served = await serve(app_of(state.table))
    for count in range(5):
        stream = await opened(served)
        assert state.values[:count] == await stories(stream, count)
        stream.drop()
        await served.sse.publish("a", "meanwhile")
        await stream.open()
        place = broker_of(served).head
        gap, *values, end = await stories(stream, 6)
        assert ("unknown", place - 1, place) == gap
        assert (state.values, "sse-cursor") == (values, end)
        assert "gap" == resumed(stream)
        await served.sse.publish("a", "later")
        assert ["later"] == await stories(stream, 1)
        stream.drop()


@pytest.mark.parametrize("brought", ["sse1.l.0123456789ab.5", "garbage"])
async def test_after_an_unknown_place_the_state_comes(
    serve: Serve, brought: str
) -> None:
    """The gap first, with the id of who has no state yet, then the state."""
    state = State()
    served = await serve(app_of(state.table))
    await served.sse.publish("a", "before")
    stream = await opened(served, last_event_id=brought)
    story = await stories(stream, 4)
    assert ["one", "two", "sse-cursor"] == story[1:]
    assert story[0][2] == 1
    assert [True, True, False] == [".s." in (e.id or "") for e in stream.control]
    stream.drop()


async def test_after_an_expired_place_the_state_comes(serve: Serve) -> None:
    """In place of what is retained: that is in the state."""
    state = State()
    served = await serve(app_of(state.table, store=MemoryStore(max_events=2)))
    await served.sse.publish_many("a", list("12345"))
    stream = await opened(served, last_event_id=broker_of(served).cursor(1))
    assert [("expired", 1, 5), "one", "two", "sse-cursor"] == await stories(stream, 4)
    await served.sse.publish("a", "6")
    assert ["6"] == await stories(stream, 1)
    # Who has it all gets no state.
    await stream.resume()
    await served.sse.publish("a", "7")
    assert ["7"] == await stories(stream, 1)
    assert 1 == state.begun
    stream.drop()


async def test_history_comes_behind_the_state(serve: Serve) -> None:
    """To a new client, and to one whose place is unknown; not after ``expired``."""
    state = State(history=2)
    served = await serve(app_of(state.table, store=MemoryStore(max_events=3)))
    await served.sse.publish_many("a", list("12345"))
    values = ["one", "two", "sse-cursor"]
    stream = await opened(served)
    assert [*values, "4", "5"] == await stories(stream, 5)
    stream.drop()
    stream = await opened(served, last_event_id="garbage")
    assert [("unknown", None, 3), *values, "4", "5"] == await stories(stream, 6)
    stream.drop()
    stream = await opened(served, last_event_id=broker_of(served).cursor(1))
    await served.sse.publish("a", "6")
    assert [("expired", 1, 5), *values, "6"] == await stories(stream, 5)
    stream.drop()


async def overtaken(served: Served, large: int = 200_000) -> EventStream:
    """Return a client that has its state, and was too slow for what came then."""
    stream = await slow_client(served, "/state")
    await until(lambda: followers(served))
    while not any(c.blocked for c in connections_of(served)):
        await served.sse.publish("a", "x" * large)
    for number in range(5):
        await served.sse.publish("a", str(number))
    return stream


async def skip(stream: EventStream) -> list[Any]:
    """Return what comes from the next gap on through the state's end."""
    while not stream.gaps:
        await stories(stream, 1)
    story = await stories(stream, 3)
    return [stream.gaps[-1]["reason"], *story]


async def test_a_slow_client_gets_the_state_anew(serve: Serve) -> None:
    """A gap while it is connected, then the state, then what is published."""
    state = State()
    served = await serve(app_of(state.table, store=MemoryStore(max_events=2)))
    stream = await overtaken(served)
    state.values = ["three", "four"]
    go_on(stream)
    assert ["slow", "three", "four", "sse-cursor"] == await skip(stream)
    assert ".s." in next(e.id or "" for e in stream.control if e.type == "sse-gap")
    await served.sse.publish("a", "now")
    assert ["now"] == await stories(stream, 1)
    assert (2, 2) == (state.begun, state.closed)
    await stream.resume()
    await served.sse.publish("a", "then")
    assert ["then"] == await stories(stream, 1)
    assert "continued" == resumed(stream)
    stream.drop()


async def test_a_later_snapshot_is_its_own_clients(serve: Serve) -> None:
    """It runs in the context of its request, whoever's event has brought the gap."""
    state = State()
    store = MemoryStore(max_events=2)
    served = await serve(app_of(state.table, store=store))
    streams = [await opened(served, headers={"User": name}) for name in ("ann", "bob")]
    for stream in streams:
        await stories(stream, 3)

    async def somebody_else() -> None:
        USER.set("eve")
        store.begin(Lineage(new_generation()), 9)
        await served.sse.publish("a", "1")

    await asyncio.create_task(somebody_else())
    for stream in streams:
        assert ("reset", 0, 10) == (await stories(stream, 1))[0]
        assert ["one", "two", "sse-cursor"] == await stories(stream, 3)
        stream.drop()
    assert ["ann", "bob", "ann", "bob"] == state.users


@pytest.mark.parametrize("control_events", [True, False])
async def test_who_is_to_be_sent_away_is_sent_no_state(
    serve: Serve, control_events: bool
) -> None:
    """``disconnect``, or where no gap can be told: the next connection gets it."""
    on_slow = "disconnect" if control_events else "gap"
    state = State(control_events=control_events, on_slow=on_slow)
    served = await serve(app_of(state.table, store=MemoryStore(max_events=2)))
    stream = served.stream("/state")
    await stream.open()
    assert stream.response is not None
    assert stream.response.connection is not None
    transport = stream.response.connection.transport
    transport.pause_reading()  # type: ignore[union-attr]
    await until(lambda: followers(served))
    while not any(c.blocked for c in connections_of(served)):
        await served.sse.publish("a", "x" * 200_000)
    for number in range(5):
        await served.sse.publish("a", str(number))
    go_on(stream)
    assert await stream.rest()
    assert 1 == state.begun
    assert not stream.gaps
    await stream.resume()
    assert ["one", "two"] == [e.data for e in await stream.collect(2)]
    header = stream.response.headers.get("SSE-Resume")
    assert (None if control_events else "gap") == header
    assert 2 == state.begun
    stream.drop()


async def test_a_snapshot_that_is_overtaken_begins_anew(serve: Serve) -> None:
    """What came while it ran has been dropped before it ended: gap, state, and on."""
    state = State()
    state.hold = asyncio.Event()
    served = await serve(app_of(state.table, store=MemoryStore(max_events=2)))
    stream = await opened(served)
    assert ["one"] == await stories(stream, 1)
    await served.sse.publish_many("a", list("12345"))
    state.hold.set()
    story = await stories(stream, 6)
    assert ["two", "sse-cursor", ("slow", 0, 5), "one", "two", "sse-cursor"] == story
    await served.sse.publish("a", "6")
    assert ["6"] == await stories(stream, 1)
    stream.drop()


async def test_another_log_meanwhile_is_a_reset(serve: Serve) -> None:
    """The place that the snapshot began at is none any more: gap, and the state."""
    state = State()
    state.hold = asyncio.Event()
    store = MemoryStore()
    served = await serve(app_of(state.table, store=store))
    stream = await opened(served)
    assert ["one"] == await stories(stream, 1)
    store.begin(Lineage(new_generation()), 50)
    state.hold.set()
    story = await stories(stream, 5)
    assert ["two", ("reset", 0, 50), "one", "two", "sse-cursor"] == story
    await served.sse.publish("a", "6")
    assert ["6"] == await stories(stream, 1)
    stream.drop()


async def test_a_large_snapshot_waits_for_its_client(serve: Serve) -> None:
    """It is paused while the client does not read, and comes whole."""
    state = State()
    size = 20_000
    state.values = [f"{number} ".ljust(size, "x") for number in range(2000)]
    served = await serve(app_of(state.table))
    client = await RawClient.connect(served, rcvbuf=4096)
    await client.get("/state")
    await until(lambda: parked(served))
    [connection] = connections_of(served)
    assert connection.transport.get_write_buffer_size() < 65_536 + 2 * size
    await served.sse.publish("a", "behind it")
    await client.read_until(b"sse-hello")
    assert not hub_of(served).broker._live._topics
    client.close()
    await until(lambda: state.closed == 1, timeout=PROMPTLY)
    stream = await opened(served)
    events = await stream.collect(2000)
    assert state.values == [event.data for event in events]
    assert ["sse-cursor"] == await stories(stream, 1)
    stream.drop()


async def test_a_tight_snapshot_gives_the_loop_its_turns(serve: Serve) -> None:
    """One that never awaits does not hold up the others."""
    state = State()
    state.values = [str(number) for number in range(2000)]
    served = await serve(app_of(state.table))
    turns = 0
    async with asyncio.timeout(5):
        stream = served.stream("/state")
        opening = asyncio.create_task(stream.open())
        while not state.closed:
            await asyncio.sleep(0)
            turns += bool(state.begun)
        await opening
    assert turns > 2000 / 64 / 2
    assert state.values == [event.data for event in await stream.collect(2000)]
    stream.drop()


# -- what goes wrong -------------------------------------------------------------------


async def test_an_exception_is_told_and_logged_once(serve: Serve, caplog: Log) -> None:
    """The client comes back later, and gets the whole state then."""
    state = State()
    state.raises = RuntimeError("secret")
    served = await serve(app_of(state.table))
    client = await RawClient.connect(served)
    await client.get("/state")
    await client.read_until(b"\r\n0\r\n\r\n")
    response = parse_response(client.received)
    check_law(response.body)
    assert response.complete
    assert ["one"] == response.events
    ref = response.data("sse-error")["ref"]
    assert "30000" == response.named("sse-error")[0]["retry"]
    assert b"secret" not in client.received
    [record] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert ref in record.getMessage()
    assert "State.handler snapshot" in record.getMessage()
    await until(lambda: not served.sse.connections)
    state.raises = None
    place = response.named("sse-hello")[0]["id"]
    stream = await opened(served, last_event_id=place)
    assert ["one", "two", "sse-cursor"] == (await stories(stream, 4))[1:]
    stream.drop()


async def test_an_end_for_now_is_no_failure(serve: Serve, caplog: Log) -> None:
    """``Reconnect`` says when to come back; nothing is logged."""
    state = State()
    state.raises = Reconnect(after=7)
    served = await serve(app_of(state.table))
    stream = await opened(served)
    assert ["one"] == [event.data for event in await stream.rest()]
    assert 7000 == stream.retry
    assert ["sse-hello"] == [event.type for event in stream.control]
    assert [] == complaints(caplog)
    stream.drop()


class Wrong:
    """Not to be sent."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ServerSentEvent("x", id="1"), "get their ids here"),
        (Wrong(), "JSON"),
        ("x" * 2000, "over the limit"),
    ],
    ids=["id", "not-json", "too-large"],
)
async def test_what_cannot_be_sent_is_a_failure(
    serve: Serve, caplog: Log, value: Any, text: str
) -> None:
    """The log says what and where, the client that it is to come back later."""
    state = State()
    state.values = ["fine", value]
    served = await serve(app_of(state.table, max_event_bytes=1000))
    stream = await opened(served)
    assert ["fine"] == [event.data for event in await stream.rest()]
    assert "sse-error" == stream.control[-1].type
    [record] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.exc_info is not None
    assert text in str(record.exc_info[1])
    stream.drop()


def _raises() -> Any:
    raise RuntimeError("at once")


@pytest.mark.parametrize(
    ("snapshot", "text"),
    [(_raises, "at once"), (lambda: [1], "async generator function")],
    ids=["raises", "no-iterator"],
)
async def test_a_snapshot_that_cannot_begin_is_a_failure(
    serve: Serve, caplog: Log, snapshot: Any, text: str
) -> None:
    """The stream has begun by then: it ends cleanly, and is counted no more."""
    table = SSERouteTableDef()

    @table.sse_route("/state")
    async def state(request: web.Request) -> Channels:
        return Channels("a", snapshot=snapshot)

    served = await serve(app_of(table))
    stream = await opened(served)
    assert [] == await stream.rest()
    assert "sse-error" == stream.control[-1].type
    await until(lambda: not served.sse.connections)
    [record] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.exc_info is not None
    assert text in str(record.exc_info[1])
    stream.drop()


async def _coroutine() -> None:
    """Be no generator."""


@pytest.mark.parametrize("snapshot", [_coroutine, 1, "abc"])
def test_what_is_no_generator_function_is_refused(snapshot: Any) -> None:
    """Where the handler makes its channels."""
    with pytest.raises(TypeError, match="snapshot"):
        Channels("a", snapshot=snapshot)


async def test_a_generator_itself_is_refused() -> None:
    """It could run once only, and a gap asks for another."""

    async def states() -> AsyncIterator[int]:
        yield 1

    begun = states()
    with pytest.raises(TypeError, match="brackets"):
        Channels("a", snapshot=begun)  # type: ignore[arg-type]
    await begun.aclose()  # type: ignore[attr-defined]


async def test_an_object_may_give_the_state(serve: Serve) -> None:
    """Whatever iterates asynchronously, from a function or a bound method."""

    class Rows:
        def __aiter__(self) -> AsyncIterator[str]:
            return self._rows()

        async def _rows(self) -> AsyncIterator[str]:
            yield "row"

    table = SSERouteTableDef()

    @table.sse_route("/state")
    async def state(request: web.Request) -> Channels:
        return Channels("a", snapshot=Rows)  # type: ignore[arg-type]

    served = await serve(app_of(table))
    stream = await opened(served)
    assert ["row", "sse-cursor"] == await stories(stream, 2)
    stream.drop()


# -- who leaves ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["drop", "cut", "lifetime", "dismissed", "shutdown"])
async def test_a_snapshot_ends_with_its_connection(
    serve: Serve, clock: SettableClock, caplog: Log, how: str
) -> None:
    """Its generator is closed promptly, wherever it waits, and nothing is left."""
    state = State(lifetime=100)
    state.hold = asyncio.Event()
    served = await serve(app_of(state.table, clock=clock))
    stream = await opened(served)
    assert ["one"] == await stories(stream, 1)
    match how:
        case "drop":
            stream.drop()
        case "cut":
            hub_of(served).cut_all()
        case "lifetime":
            await clock.advance(120)
        case "dismissed":
            await served.sse.disconnect(channel="a")
        case "shutdown":
            await served.runner.cleanup()
    await until(lambda: state.closed, timeout=PROMPTLY)
    await until(lambda: not served.sse.connections)
    assert (1, 1) == (state.begun, state.closed)
    assert 0 == followers(served)
    if how == "dismissed":
        await stream.rest()
        end = stream.control[-1]
        assert {"reason": "disconnected"} == json.loads(end.data)
        assert 0 == seq_of(end.id)
        status, _ = await served.get("/state", headers={"Last-Event-ID": end.id or ""})
        assert 204 == status
    stream.drop()
    assert [] == complaints(caplog)


async def test_a_request_lasts_as_long_as_its_snapshot(serve: Serve) -> None:
    """What a middleware holds open for it is open in the generator's ``finally``."""
    story: list[str] = []
    go = asyncio.Event()
    table = SSERouteTableDef()

    @web.middleware
    async def holds(request: web.Request, handler: Any) -> web.StreamResponse:
        story.append("opened")
        try:
            response: web.StreamResponse = await handler(request)
        finally:
            story.append("closed")
        return response

    @table.sse_route("/state")
    async def handler(request: web.Request) -> Channels:
        async def snapshot() -> AsyncIterator[str]:
            try:
                yield "one"
                await asyncio.Event().wait()
            finally:
                await go.wait()
                story.append("finally")

        return Channels(
            "a", snapshot=snapshot, on_close=lambda: story.append("on_close")
        )

    app = web.Application(middlewares=[holds])
    setup(app, table)
    served = await serve(app)
    stream = await opened(served)
    await stream.next()
    stream.drop()
    await until(lambda: connections_of(served) == [])
    for _ in range(20):
        await asyncio.sleep(0)
    assert ["opened"] == story
    go.set()
    await until(lambda: len(story) == 4)
    assert ["opened", "finally", "on_close", "closed"] == story


async def test_no_heartbeat_tells_a_place_in_a_snapshot(
    serve: Serve, clock: SettableClock
) -> None:
    """A comment keeps it alive; the id stays that of who has a part only."""
    state = State(heartbeat=5)
    state.hold = asyncio.Event()
    served = await serve(app_of(state.table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/state")
    await client.read_until(b"data: one")
    await served.sse.publish("a", "meanwhile")
    for _ in range(40):
        await clock.advance(0.25)
    await client.read_until(b"\r\n:\n\n\r\n")
    assert b"sse-cursor" not in client.received
    client.close()
    await until(lambda: state.closed)


async def test_behind_a_snapshot_only_news_are_told(
    serve: Serve, clock: SettableClock
) -> None:
    """The place was told with its end: a heartbeat does not tell it once more."""
    state = State(heartbeat=5)
    store = MemoryStore()
    served = await serve(app_of(state.table, clock=clock, store=store))
    stream = await opened(served)
    assert ["one", "two", "sse-cursor"] == await stories(stream, 3)
    store.begin(Lineage(new_generation()), 50)
    await served.sse.publish("b", "elsewhere")
    assert ("reset", 0, 51) == (await stories(stream, 1))[0]
    assert ["one", "two", "sse-cursor"] == await stories(stream, 3)
    for _ in range(80):
        await clock.advance(0.25)
    await served.sse.publish("a", "now")
    assert ["now"] == await stories(stream, 1)
    stream.drop()


async def test_without_control_events_the_state_comes_too(serve: Serve) -> None:
    """No place is told; who drops before its first event gets the state anew."""
    state = State(control_events=False)
    served = await serve(app_of(state.table))
    stream = await served.stream("/state").open()
    assert ["one", "two"] == [e.data for e in await stream.collect(2)]
    assert "" == stream.last_event_id
    await stream.resume()
    assert ["one", "two"] == [e.data for e in await stream.collect(2)]
    await until(lambda: followers(served))
    await served.sse.publish("a", "1")
    assert "1" == (await stream.next()).data
    await stream.resume()
    assert stream.response is not None
    assert "continued" == stream.response.headers["SSE-Resume"]
    await served.sse.publish("a", "2")
    assert "2" == (await stream.next()).data
    assert not stream.control
    assert 2 == state.begun
    stream.drop()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_the_state_and_a_change_are_never_apart(
    serve: Serve, version: str
) -> None:
    """A counter that is changed and published all the time is always right."""
    counter = 0
    table = SSERouteTableDef()

    @table.sse_route("/count")
    async def count(request: web.Request) -> Channels:
        async def snapshot() -> AsyncIterator[Any]:
            await asyncio.sleep(0)
            yield {"is": counter}
            await asyncio.sleep(0)

        return Channels("count", snapshot=snapshot)

    served = await serve(app_of(table))

    async def counts() -> None:
        nonlocal counter
        while True:
            counter += 1
            await served.sse.publish("count", counter)
            await asyncio.sleep(0)

    counting = asyncio.create_task(counts())
    for _ in range(20):
        client = await RawClient.connect(served)
        await client.get("/count", version=version)
        while client.received.count(b"data: ") < 30:
            await client.read()
        data = client.received[: client.received.rindex(b"data: ")]
        client.close()
        values = [
            line[6:] for line in data.decode().splitlines() if line[:6] == "data: "
        ]
        hello, state, cursor, *changes = values
        assert "{}" == cursor
        assert "resumed" in hello
        known = json.loads(state)["is"]
        numbers = [int(change) for change in changes]
        # The first change may be in the state already; none behind it is missing.
        assert numbers[0] <= known + 1
        assert list(range(numbers[0], numbers[0] + len(numbers))) == numbers
    counting.cancel()
    await asyncio.wait({counting})
