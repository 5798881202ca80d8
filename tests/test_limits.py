"""Limits, heartbeats, lifetimes and ``retry``: what a stream is sent besides events."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import Reconnect, ServerSentEvent, SSERouteTableDef
from aiohttp_sse_routes.http.hub import HUB_KEY
from aiohttp_sse_routes.testing import EventStream, SettableClock

from .helpers import RawClient, Served, app_of, until
from .rawhttp import RawResponse, ask, check_law, parse_response

Serve = Callable[..., Awaitable[Served]]


def counts(served: Served) -> Counter[Any]:
    """Return what the limits count now."""
    return served.app[HUB_KEY].limits.counts


def table_of_three() -> SSERouteTableDef:
    """Return a table with two private routes and a shared one; all go on for ever."""
    table = SSERouteTableDef()

    async def endless(it: Any) -> AsyncIterator[str]:
        yield "begun"
        await asyncio.Event().wait()

    table.sse_route("/a", name="a", max_connections=2)(endless)
    table.sse_route("/b", name="b")(endless)
    table.sse_route("/shared", name="shared", shared=True)(endless)
    return table


async def opened(served: Served, path: str, **options: Any) -> EventStream:
    """Return a stream that has begun."""
    stream = await served.stream(path, **options).open()
    assert 200 == stream.status
    await stream.next("sse-hello")
    return stream


def refused(response: RawResponse, reason: str = "limit") -> bool:
    """Return whether a response is a soft refusal, which must be to the letter."""
    if not response.named("sse-busy"):
        return False
    assert (200, True) == (response.status, response.complete)
    assert "text/event-stream" == response.headers["Content-Type"]
    assert "no-store, no-transform" == response.headers["Cache-Control"]
    check_law(response.body)
    (block,) = response.blocks
    assert {"retry", "event", "json", "data"} == block.keys()
    assert 22_500 <= int(block["retry"]) <= 37_500
    assert {"reason": reason} == response.data("sse-busy")
    return True


async def first_of(served: Served, path: str, *headers: str) -> RawResponse:
    """Return a response with its first blocks; its connection is closed after it."""
    client = await RawClient.connect(served)
    await client.get(path, *headers)
    while b"event: sse-" not in client.received:
        assert await client.read()
    await client.read_until(b"\n\n")
    response = parse_response(client.received)
    client.close()
    return response


# -- limits ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/a", "/b", "/shared"])
async def test_connections_in_all(
    serve: Serve, clock: SettableClock, path: str
) -> None:
    """Over the application's limit every route refuses softly."""
    served = await serve(app_of(table_of_three(), clock=clock, max_connections=2))
    streams = [await opened(served, "/b"), await opened(served, "/shared")]
    assert refused(await ask(served, path))
    assert refused(await ask(served, path, version="1.0"))
    assert 2 == served.sse.connections
    streams.pop().drop()
    await until(lambda: served.sse.connections == 1)
    assert not refused(await first_of(served, path))
    streams.pop().drop()


async def test_connections_of_a_route(serve: Serve, clock: SettableClock) -> None:
    """A route's limit is its own."""
    served = await serve(app_of(table_of_three(), clock=clock))
    streams = [await opened(served, "/a?1"), await opened(served, "/a?2")]
    assert refused(await ask(served, "/a?3"))
    streams += [await opened(served, "/b"), await opened(served, "/shared")]
    assert {("all",): 4} == {k: v for k, v in counts(served).items() if k == ("all",)}
    for stream in streams:
        stream.drop()


@pytest.mark.parametrize("key", ["sync", "async"])
async def test_connections_of_a_client(
    serve: Serve, clock: SettableClock, key: str
) -> None:
    """``client_key`` says who a client is; None is nobody who is counted."""

    def user(request: web.Request) -> str | None:
        return request.headers.get("User")

    async def async_user(request: web.Request) -> str | None:
        await asyncio.sleep(0)
        return user(request)

    app = app_of(
        table_of_three(),
        clock=clock,
        max_connections_per_client=1,
        client_key=user if key == "sync" else async_user,
    )
    served = await serve(app)
    streams = [await opened(served, "/b", headers={"User": "one"})]
    for path in ("/a", "/b", "/shared"):
        assert refused(await ask(served, path, "User: one"))
    streams.append(await opened(served, "/shared", headers={"User": "two"}))
    streams += [await opened(served, "/b"), await opened(served, "/b")]
    for stream in streams:
        stream.drop()


async def test_a_client_is_its_address(serve: Serve, clock: SettableClock) -> None:
    """By default who comes from one address is one client."""
    served = await serve(
        app_of(table_of_three(), clock=clock, max_connections_per_client=1)
    )
    stream = await opened(served, "/b")
    assert refused(await ask(served, "/shared"))
    stream.drop()


async def test_a_refusal_asks_no_guard_and_begins_nothing(
    serve: Serve, clock: SettableClock
) -> None:
    """It is cheap; and HEAD, which begins nothing, is never refused."""
    asked: list[str] = []
    table = SSERouteTableDef()

    @table.sse_route("/x", max_connections=1, guard=lambda r: asked.append(r.method))
    async def x(request: web.Request) -> AsyncIterator[str]:
        asked.append("begun")
        yield "x"
        await asyncio.Event().wait()

    served = await serve(app_of(table, clock=clock))
    stream = await opened(served, "/x")
    assert refused(await ask(served, "/x"))
    assert ["GET", "begun"] == asked
    assert 200 == (await ask(served, "/x", method="HEAD")).status
    assert ["GET", "begun", "HEAD"] == asked
    stream.drop()


async def test_a_refusal_without_control_events(
    serve: Serve, clock: SettableClock
) -> None:
    """Then it is ``retry`` alone."""
    table = SSERouteTableDef()

    @table.sse_route("/x", max_connections=1, control_events=False, shared=True)
    async def x(run: Any) -> AsyncIterator[str]:
        yield "x"
        await asyncio.Event().wait()

    served = await serve(app_of(table, clock=clock))
    async with served.stream("/x") as stream:
        await stream.next()
        response = await ask(served, "/x")
    (block,) = response.blocks
    assert {"retry"} == block.keys()
    assert 22_500 <= int(block["retry"]) <= 37_500


async def test_refusals_while_the_application_shuts_down(
    serve: Serve, clock: SettableClock
) -> None:
    """New requests of old connections are refused as softly."""
    table = SSERouteTableDef()
    go = asyncio.Event()

    @table.sse_route("/x")
    async def x(request: web.Request) -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.Event().wait()
        finally:
            await go.wait()

    served = await serve(app_of(table, clock=clock, shutdown_grace=60))
    stream = await opened(served, "/x")
    client = await RawClient.connect(served)
    await ask(served, "/x", method="HEAD", client=client)
    hub = served.app[HUB_KEY]
    drain = asyncio.create_task(hub.drain())
    await until(lambda: hub.draining)
    assert refused(await ask(served, "/x", client=client), "shutdown")
    end = f"Last-Event-ID: {stream.last_event_id}.end"
    assert 204 == (await ask(served, "/x", end, client=client)).status
    go.set()
    await drain
    stream.drop()


# -- how slots come back ---------------------------------------------------------------


async def _finishes(client: RawClient, served: Served) -> None:
    await client.read_until(b"\r\n0\r\n\r\n")


async def _closes(client: RawClient, served: Served) -> None:
    client.close()


async def _resets(client: RawClient, served: Served) -> None:
    client.reset()


async def _is_cut(client: RawClient, served: Served) -> None:
    served.app[HUB_KEY].cut_all()
    client.close()


async def _is_cut_early(client: RawClient, served: Served) -> None:
    client.close()


ENDINGS: list[tuple[str, Callable[[RawClient, Served], Awaitable[None]]]] = [
    ("/finished", _finishes),
    ("/failed", _finishes),
    ("/late-403", _finishes),
    ("/reconnect", _finishes),
    ("/unsendable", _finishes),
    ("/lifetime", _finishes),
    ("/endless", _closes),
    ("/endless", _resets),
    ("/endless", _is_cut),
    ("/silent", _is_cut_early),
    ("/resume-0", _closes),
]


# The clients of a shared run that fails stay with it.
@pytest.mark.parametrize(
    ("shared", "path", "ending"),
    [
        *[(False, *case) for case in ENDINGS],
        *[(True, *c) for c in ENDINGS if c[0] not in ("/failed", "/unsendable")],
    ],
)
async def test_a_slot_is_given_back(
    serve: Serve,
    clock: SettableClock,
    shared: bool,
    path: str,
    ending: Callable[[RawClient, Served], Awaitable[None]],
) -> None:
    """However a connection ends, another may take its place: nothing stays counted."""
    table = SSERouteTableDef()

    async def handler(it: Any) -> AsyncIterator[Any]:
        if it.path == "/silent":
            await asyncio.Event().wait()
        yield None
        if it.path == "/late-403":
            raise web.HTTPForbidden
        yield "x"
        if it.path == "/failed":
            raise ValueError
        if it.path == "/reconnect":
            raise Reconnect
        if it.path == "/unsendable":
            yield object()
        if it.path != "/finished":
            await asyncio.Event().wait()

    options: dict[str, Any] = {"shared": shared, "max_connections": 1}
    if path == "/lifetime":
        options["lifetime"] = 10
    if path == "/resume-0":
        options["resume"] = 0
    if path == "/silent":
        options["open_timeout"] = 1000
    table.sse_route(path, **options)(handler)
    served = await serve(app_of(table, clock=clock, max_connections=1))
    for number in range(3):
        client = await RawClient.connect(served)
        await client.get(f"{path}?{number}")
        await until(lambda: counts(served)[("all",)] == 1)
        if path != "/silent":
            await client.read_until(b"sse-hello")
            assert not refused(parse_response(client.received))
        if path == "/lifetime":
            await clock.advance(12)
        await ending(client, served)
        await until(lambda: not counts(served), what="the slot is given back")


@pytest.mark.parametrize("source", ["guard", "coroutine", "generator", "owner"])
@pytest.mark.parametrize("error", [web.HTTPForbidden, ValueError])
async def test_a_slot_of_a_refusal_is_given_back(
    serve: Serve, clock: SettableClock, source: str, error: type[Exception]
) -> None:
    """Who was refused is not counted."""
    table = SSERouteTableDef()

    def refuse(request: web.Request) -> None:
        raise error

    async def generator(request: web.Request) -> AsyncIterator[str]:
        refuse(request)
        yield "x"

    async def coroutine(request: web.Request) -> AsyncIterator[str]:
        refuse(request)
        return generator(request)

    options: dict[str, Any] = {}
    if source in ("guard", "owner"):
        options[source] = refuse
    table.sse_route("/x", max_connections=1, **options)(
        coroutine if source == "coroutine" else generator
    )
    served = await serve(app_of(table, clock=clock))
    for _ in range(3):
        assert (await ask(served, "/x")).status in (403, 500)
        await until(lambda: not counts(served))


# -- zombies ---------------------------------------------------------------------------


async def test_a_resuming_client_is_not_refused_for_its_own_zombie(
    serve: Serve, clock: SettableClock
) -> None:
    """The connection that it has left, unseen yet, is the one whose place it takes."""
    app = app_of(
        table_of_three(),
        clock=clock,
        max_connections=1,
        max_connections_per_client=1,
    )
    served = await serve(app)
    zombie = await opened(served, "/a")
    newer = zombie
    for _ in range(3):
        newer = await opened(served, "/a", last_event_id=zombie.last_event_id)
        assert newer.hello is not None
        assert "continued" == newer.hello["resumed"]
        await zombie.rest()
        assert "sse-end" == zombie.control[-1].type
        await until(lambda: counts(served)[("all",)] == 1)
        zombie.drop()
        zombie = newer
    # Anybody else is refused still.
    assert refused(await ask(served, "/a"))
    newer.drop()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/b", []),
        ("/a?x=1", []),
        ("/a", ["Authorization: other"]),
        ("/shared", []),
    ],
)
async def test_a_token_is_no_way_round_the_limits(
    serve: Serve, clock: SettableClock, path: str, headers: list[str]
) -> None:
    """Only who really takes a connection's place is let in beyond a limit.

    A client that shows its token elsewhere would else have as many runs as it likes.
    """
    served = await serve(app_of(table_of_three(), clock=clock, max_connections=1))
    stream = await opened(served, "/a")
    token = f"Last-Event-ID: {stream.last_event_id}"
    for _ in range(3):
        assert refused(await first_of(served, path, token, *headers))
    assert {("all",): 1} == {k: v for k, v in counts(served).items() if len(k) == 1}
    assert ["begun"] == [event.data for event in await stream.collect(1)]
    stream.drop()
    await until(lambda: not counts(served))


async def test_a_zombie_that_leaves_while_the_guard_is_asked(
    serve: Serve, clock: SettableClock
) -> None:
    """The place that it has left is its client's: nobody is let in between."""
    go = asyncio.Event()
    table = SSERouteTableDef()

    async def guard(request: web.Request) -> None:
        if "slow" in request.headers:
            await go.wait()

    @table.sse_route("/x", guard=guard)
    async def x(request: web.Request) -> AsyncIterator[str]:
        yield "x"
        await asyncio.Event().wait()

    served = await serve(app_of(table, clock=clock, max_connections=1))
    for other_comes in (False, True):
        go.clear()
        zombie = await opened(served, "/x")
        client = await RawClient.connect(served)
        await client.get("/x", f"Last-Event-ID: {zombie.last_event_id}", "slow: yes")
        await until(lambda: counts(served)[("all",)] == 2)
        zombie.drop()
        await until(lambda: counts(served)[("all",)] == 1)
        if other_comes:
            assert refused(await ask(served, "/x"))
        go.set()
        await client.read_until(b"\n\n")
        response = parse_response(client.received)
        assert "continued" == response.data("sse-hello")["resumed"]
        client.close()
        await until(lambda: not counts(served))


# -- heartbeats ------------------------------------------------------------------------


def feeding(**options: Any) -> tuple[asyncio.Queue[Any], SSERouteTableDef]:
    """Return a queue, and a table whose route ``/x`` yields what is put there."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    table = SSERouteTableDef()

    async def x(it: Any) -> AsyncIterator[Any]:
        while True:
            yield await queue.get()

    table.sse_route("/x", **{"open_timeout": 0, **options})(x)
    return queue, table


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("heartbeat", [0.5, 2, 15])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_heartbeats_only_when_idle(
    serve: Serve, clock: SettableClock, shared: bool, heartbeat: float, version: str
) -> None:
    """After ``heartbeat`` seconds of silence comes a comment, and not before."""
    queue, table = feeding(shared=shared, heartbeat=heartbeat)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/x", version=version)
    await client.read_until(b"sse-hello")
    await client.read_until(b"\n\n")
    block = b":\n\n" if version == "1.0" else b"3\r\n:\n\n\r\n"

    async def beats_in(seconds: float) -> int:
        """Return how many heartbeats come while the clock moves on."""
        client.received = b""
        await clock.advance(seconds)
        queue.put_nowait(ServerSentEvent(event="mark"))
        await client.read_until(b"event: mark")
        await client.read_until(b"\n\n")
        return client.received.count(block)

    interval = min(1.0, heartbeat / 4)
    assert 0 == await beats_in(heartbeat - 0.1)
    # An event has just been sent: the silence begins again, as a tick sees it.
    assert 0 == await beats_in(heartbeat - interval)
    assert 1 == await beats_in(heartbeat + interval)
    assert 3 == await beats_in(3 * heartbeat + interval)
    for _ in range(5):
        assert 0 == await beats_in(heartbeat * 0.7)
    client.close()


async def test_heartbeats_without_control_events(
    serve: Serve, clock: SettableClock
) -> None:
    """They are comments, which no consumer takes for data."""
    _, table = feeding(control_events=False, heartbeat=5)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/x")
    await client.read_until(b"retry: ")
    await clock.advance(6)
    await client.read_until(b"\r\n:\n\n")
    client.close()


# -- lifetimes -------------------------------------------------------------------------


async def test_a_lifetime_ends_cleanly_and_unseen(
    serve: Serve, clock: SettableClock
) -> None:
    """The connection ends with ``retry`` and a last chunk; replay hides it."""
    for shared in (False, True):
        queue, table = feeding(shared=shared, lifetime=100, retry=2000, resume=60)
        served = await serve(app_of(table, clock=clock))
        client = await RawClient.connect(served)
        await client.get("/x")
        await client.read_until(b"sse-hello")
        queue.put_nowait("one")
        await client.read_until(b"data: one")
        await clock.advance(88)
        assert 1 == served.sse.connections
        await clock.advance(25)
        while not parse_response(client.received).complete:
            assert await client.read()
        response = parse_response(client.received)
        check_law(response.body)
        last = response.blocks[-1]
        assert {"retry"} == last.keys()
        assert 1500 <= int(last["retry"]) <= 2500
        assert not response.named("sse-end")
        queue.put_nowait("two")
        stream = served.stream("/x", last_event_id=response.blocks[1]["id"])
        await stream.open()
        assert "two" == (await stream.next()).data
        assert stream.hello is not None
        assert "continued" == stream.hello["resumed"]
        assert not stream.gaps
        stream.drop()
        await served.close()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_the_end_of_a_lifetime_is_the_end_of_a_private_connection(
    serve: Serve, clock: SettableClock, version: str
) -> None:
    """Its handler stays with the run; the connection does not stay with the handler."""
    _, table = feeding(lifetime=5)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/x", version=version)
    await client.read_until(b"sse-hello")
    await clock.advance(6)
    await client.read_all()
    assert 1 == served.sse.detached


async def test_lifetimes_are_spread(serve: Serve, clock: SettableClock) -> None:
    """Connections opened together end at ages of ±10 %, not together."""
    _, table = feeding(shared=True, lifetime=1000, heartbeat=10_000)
    served = await serve(app_of(table, clock=clock))
    streams = [await opened(served, "/x") for _ in range(60)]
    assert 60 == served.sse.connections
    await clock.advance(899)
    assert 60 == served.sse.connections
    ended = Counter[int]()
    for age in range(900, 1110, 10):
        await clock.advance(10)
        ended[age] = 60 - served.sse.connections - ended.total()
    assert 0 == served.sse.connections
    assert 0 == sum(count for age, count in ended.items() if age > 1100)
    assert len([age for age, count in ended.items() if count]) >= 10
    assert max(ended.values()) < 20
    for stream in streams:
        stream.drop()


async def test_no_lifetime(serve: Serve, clock: SettableClock) -> None:
    """By default a connection lives as long as it is used."""
    _, table = feeding()
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served, "/x")
    await clock.advance(2000)
    assert 1 == served.sse.connections
    stream.drop()


# -- retry -----------------------------------------------------------------------------


@pytest.mark.parametrize("retry", [0, 400, 600, 3000, 100_000])
async def test_retry_is_spread(serve: Serve, clock: SettableClock, retry: int) -> None:
    """Each connection is told another time, ±25 %, and 500 ms at least."""
    _, table = feeding(retry=retry, shared=True)
    served = await serve(app_of(table, clock=clock))
    told = []
    for _ in range(60):
        response = await first_of(served, "/x")
        told.append(int(response.blocks[0]["retry"]))
        assert response.blocks[0]["event"] == "sse-hello"
    assert max(500, retry * 0.75) <= min(told)
    assert max(told) <= max(500, retry * 1.25)
    if retry >= 3000:
        assert len(set(told)) > 50
        assert statistics.stdev(told) > retry * 0.1
    elif retry <= 400:
        assert {500} == set(told)


async def test_refusals_are_spread(serve: Serve, clock: SettableClock) -> None:
    """Those who were refused do not come back together either."""
    served = await serve(app_of(table_of_three(), clock=clock, max_connections=1))
    stream = await opened(served, "/b")
    client = await RawClient.connect(served)
    told = []
    for _ in range(60):
        response = await ask(served, "/b", client=client)
        assert refused(response)
        told.append(int(response.blocks[0]["retry"]))
    assert len(set(told)) > 50
    assert statistics.stdev(told) > 3000
    stream.drop()


# -- nothing forbidden -----------------------------------------------------------------


async def test_nothing_forbidden_on_the_wire(
    serve: Serve, clock: SettableClock
) -> None:
    """Whatever is yielded, the stream keeps the law, and loses no event."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 -- shown where the test fails
    rng = random.Random(seed)
    alphabet = "ab:\n\r é\ufeff\u2028\u0085\x0b\x1c\x7f🎉"

    def text(length: int = 12) -> str:
        return "".join(rng.choices(alphabet, k=rng.randrange(length)))

    def field() -> str | None:
        return text().replace("\n", "").replace("\r", "") or None

    table = SSERouteTableDef()
    sent: list[ServerSentEvent] = []
    for _ in range(300):
        data = rng.choice([text(), text().encode(), [text()], {text(): None}, None])
        sent.append(
            ServerSentEvent(
                data,
                event=field() if rng.random() < 0.5 else None,
                retry=rng.choice([None, None, 0, 10_000]),
                comment=text() if rng.random() < 0.3 else None,
            )
        )

    async def x(it: Any) -> AsyncIterator[Any]:
        for number, event in enumerate(sent):
            if number % 7 == 0:
                await asyncio.sleep(0)
            yield event

    table.sse_route("/private", name="private")(x)
    table.sse_route("/shared", shared=True, name="shared", history=500)(x)
    served = await serve(app_of(table, clock=clock))
    fired = [e for e in sent if e.data is not None or e.event is not None]
    for path in ("/private", "/shared"):
        async with served.stream(path) as stream:
            events = await stream.rest()
        assert [e.event or "message" for e in fired] == [e.type for e in events]
        client = await RawClient.connect(served)
        await client.get(path)
        await client.read_until(b"sse-end")
        await client.read_until(b"0\r\n\r\n")
        body = parse_response(client.received).body
        assert b"\0" not in body
        assert b"\r" not in body
        assert not body.startswith(b"\xef\xbb\xbf")
        for line in body.split(b"\n"):
            name, _, value = line.partition(b":")
            assert name in (b"", b"id", b"event", b"retry", b"json", b"data"), line
            assert name != b"retry" or int(value) >= 500
