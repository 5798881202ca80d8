"""Coming back: what a client is told and given for each id that it may bring."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    ServerSentEvent,
    SharedRun,
    SSERouteDef,
    SSERouteTableDef,
    last_event_id,
    setup,
)
from aiohttp_sse_routes.http.hub import HUB_KEY
from aiohttp_sse_routes.testing import EventStream, SettableClock

from .helpers import RawClient, Served, app_of, until
from .rawhttp import OUR_ID, RawResponse, ask, check_law, parse_response

Serve = Callable[..., Awaitable[Served]]
Log = pytest.LogCaptureFixture

UNKNOWN_RUN = f"sse1.r.{'A' * 22}.5"
UNKNOWN_LOG = "sse1.l.0123456789ab.5"


class Feed:
    """A handler that yields what it is fed, and counts its generators.

    Attributes:
        begun: How many generators were begun.
        closed: How many have run their ``finally``.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.closed = 0
        self._queues: list[asyncio.Queue[Any]] = []

    async def __call__(self, it: Any) -> AsyncIterator[Any]:
        """Yield what `feed` gives: an exception is raised, ``...`` is the end."""
        self.begun += 1
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._queues.append(queue)
        try:
            while (item := await queue.get()) is not ...:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.closed += 1

    def feed(self, *items: Any, run: int = -1) -> None:
        """Give *items* to generator number *run*, by default the latest."""
        for item in items:
            self._queues[run].put_nowait(item)


def feeding(**options: Any) -> tuple[Feed, SSERouteTableDef]:
    """Return a feed, and a table that has it at ``/x``."""
    feed, table = Feed(), SSERouteTableDef()
    options = {"name": "x", "open_timeout": 0, **options}
    table.sse_route("/x", **options)(feed)
    return feed, table


async def opened(served: Served, path: str = "/x", **options: Any) -> EventStream:
    """Return a stream whose hello has come."""
    stream = await served.stream(path, **options).open()
    assert 200 == stream.status
    await stream.next("sse-hello")
    return stream


def resumed(stream: EventStream) -> str:
    """Return what the stream's hello says."""
    assert stream.hello is not None
    value: str = stream.hello["resumed"]
    return value


async def data(stream: EventStream, count: int) -> list[str]:
    """Return the data of the next *count* events."""
    return [event.data for event in await stream.collect(count)]


def detached(served: Served, count: int) -> bool:
    """Return whether so many runs wait for their clients."""
    return served.sse.detached == count


def logged(caplog: Log, count: int) -> bool:
    """Return whether so many records were logged."""
    return len(caplog.records) == count


async def begin(
    served: Served,
    *headers: str,
    path: str = "/x",
    mark: bytes = b"sse-hello",
    method: str = "GET",
) -> RawResponse:
    """Return what comes first of a stream that goes on, when *mark* has come."""
    client = await RawClient.connect(served)
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *headers, "", ""]
    await client.send("\r\n".join(lines).encode("utf-8", "surrogateescape"))
    await client.read_until(mark)
    await client.read_until(b"\n\n\r\n")
    response = parse_response(client.received)
    client.close()
    return response


# -- hello and ids ---------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
async def test_hello_primes_the_cursor(
    serve: Serve, clock: SettableClock, shared: bool
) -> None:
    """A client that drops before its first event resumes by the id of hello."""
    feed, table = feeding(shared=shared, heartbeat=7.5)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    assert {"heartbeat": 7.5, "resumed": "fresh"} == stream.hello
    hello = stream.last_event_id
    assert OUR_ID.fullmatch(hello)
    await stream.drop()
    feed.feed("one", "two")
    await stream.open()
    assert ["one", "two"] == await data(stream, 2)
    assert {"heartbeat": 7.5, "resumed": "continued"} == stream.hello
    assert hello == stream.control[-1].id
    assert 1 == feed.begun
    assert not stream.gaps
    stream.drop()


@pytest.mark.parametrize("shared", [False, True])
async def test_every_event_carries_an_id_of_one_format(
    serve: Serve, clock: SettableClock, shared: bool
) -> None:
    """Ids made here differ, are short and safe, and an end is one with ``.end``."""
    feed, table = feeding(shared=shared)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    feed.feed("one", {"a": 1}, ServerSentEvent(event="e"), b"bytes", ...)
    await stream.rest()
    ids = [event.id for event in [stream.control[0], *stream.events]]
    assert 5 == len(ids) == len(set(ids))
    shape = {re.sub("[0-9]+$", "N", id or "") for id in ids}
    assert 1 == len(shape)
    for id in ids:
        assert OUR_ID.fullmatch(id or "")
    end = stream.control[-1]
    assert ("sse-end", f"{ids[-1]}.end") == (end.type, end.id)
    stream.drop()


@pytest.mark.parametrize("shared", [False, True])
async def test_each_place_gives_what_comes_after_it(
    serve: Serve, clock: SettableClock, shared: bool
) -> None:
    """From any id that it was given, as often as it likes, a client has the rest."""
    feed, table = feeding(shared=shared)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    feed.feed(*"abcde")
    events = await stream.collect(5)
    places = [stream.control[0].id, *[event.id for event in events]]
    for number, place in reversed(list(enumerate(places))):
        stream.drop()
        stream.last_event_id = place or ""
        await stream.open()
        if number == 5:
            await stream.next("sse-hello")
        assert list("abcde")[number:] == await data(stream, 5 - number)
        assert "continued" == resumed(stream)
        assert place == stream.control[-1].id
    assert 1 == feed.begun
    assert not stream.gaps
    stream.drop()


# -- what is not one's own -------------------------------------------------------------


def private_table(
    feed: Feed, owner: Callable[[web.Request], Any] | None = None
) -> SSERouteTableDef:
    """Return a table with routes that a token may be shown to."""
    table = SSERouteTableDef()
    options: dict[str, Any] = {"open_timeout": 0, "methods": ("GET", "POST")}
    if owner is not None:
        options["owner"] = owner
    for path, name in (("/a/{id}", "a"), ("/b/{id}", "b")):
        table.sse_route(path, name=name, **options)(feed)
    return table


AUTHORIZED = ["Authorization: Bearer one"]


@pytest.mark.parametrize(
    ("path", "headers", "in_query"),
    [
        ("/b/1?q=1&r=2", AUTHORIZED, False),
        ("/a/2?q=1&r=2", AUTHORIZED, False),
        ("/a/1?q=2&r=2", AUTHORIZED, False),
        ("/a/1?q=1", AUTHORIZED, False),
        ("/a/1?q=1&r=2&r=2", AUTHORIZED, False),
        ("/a/1", AUTHORIZED, False),
        ("/a/1?q=1&r=2", ["Authorization: Bearer two"], False),
        ("/a/1?q=1&r=2", [], False),
        ("/a/1?q=1&r=2&last_event_id=ID", AUTHORIZED, True),
        ("/a/1?q=1&r=2&lastEventId=ID", AUTHORIZED, True),
    ],
    ids=[
        "route",
        "path",
        "query",
        "less",
        "more",
        "no-query",
        "owner",
        "nobody",
        "last_event_id",
        "lastEventId",
    ],
)
async def test_a_token_counts_only_where_it_was_given(
    serve: Serve, clock: SettableClock, path: str, headers: list[str], in_query: bool
) -> None:
    """Shown elsewhere, or in the query, it begins a fresh run, and a gap is told.

    The run whose token it is does not notice.
    """
    feed = Feed()
    served = await serve(app_of(private_table(feed), clock=clock))
    first = await opened(
        served, "/a/1?q=1&r=2", headers={"Authorization": "Bearer one"}
    )
    feed.feed("secret")
    await data(first, 1)
    place = first.last_event_id
    shown = [] if in_query else [f"Last-Event-ID: {place}"]
    response = await begin(
        served, *headers, *shown, path=path.replace("ID", place), mark=b"sse-gap"
    )
    assert 2 == feed.begun
    assert "gap" == response.data("sse-hello")["resumed"]
    assert {"reason": "unknown", "after": place} == response.data("sse-gap")
    assert [] == response.events
    (gap,) = response.named("sse-gap")
    # A client that is cut before the gap comes back with what it had, and is told.
    (hello,) = response.named("sse-hello")
    assert hello["id"] == (gap["id"] if in_query else place)
    assert gap["id"] != place
    feed.feed("more", run=0)
    assert ["more"] == await data(first, 1)
    assert ["sse-hello"] == [event.type for event in first.control]
    first.drop()


@pytest.mark.parametrize(
    "path",
    [
        "/a/1?r=2&q=1",
        "/a/1?q=1&r=2&last_event_id=7",
        "/a/1?last_event_id=sse1.l.0123456789ab.1.end&lastEventId=x&q=1&r=2",
    ],
)
async def test_what_does_not_count(
    serve: Serve, clock: SettableClock, path: str
) -> None:
    """The query's order and the ids in it are no part of a run; the header wins."""
    feed = Feed()
    served = await serve(app_of(private_table(feed), clock=clock))
    stream = await opened(served, "/a/1?q=1&r=2")
    feed.feed("one", "two")
    await data(stream, 1)
    response = await begin(
        served, f"Last-Event-ID: {stream.events[0].id}", path=path, mark=b"two"
    )
    assert "continued" == response.data("sse-hello")["resumed"]
    assert 1 == feed.begun
    stream.drop()


@pytest.mark.parametrize("is_async", [False, True])
async def test_owner(serve: Serve, clock: SettableClock, is_async: bool) -> None:
    """A callable says whose a run is, in place of the Authorization header."""
    feed = Feed()

    def owner(request: web.Request) -> Any:
        # It need not be hashable.
        return {"user": request.cookies.get("user")}

    async def async_owner(request: web.Request) -> Any:
        return owner(request)

    table = private_table(feed, async_owner if is_async else owner)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served, "/a/1", headers={"Cookie": "user=1"})
    place = f"Last-Event-ID: {stream.last_event_id}"
    response = await begin(
        served, "Cookie: user=1; x=y", "Authorization: other", place, path="/a/1"
    )
    assert "continued" == response.data("sse-hello")["resumed"]
    response = await begin(served, "Cookie: user=2", place, path="/a/1")
    assert "gap" == response.data("sse-hello")["resumed"]
    stream.drop()


async def test_a_token_of_another_method(serve: Serve, clock: SettableClock) -> None:
    """A run of a POST is not a GET's; and no POST is made for the token of a GET."""
    feed = Feed()
    served = await serve(app_of(private_table(feed), clock=clock))
    post = await opened(served, "/a/1", method="POST")
    place = post.last_event_id
    response = await begin(
        served, f"Last-Event-ID: {place}", path="/a/1", mark=b"sse-gap"
    )
    assert {"reason": "unknown", "after": place} == response.data("sse-gap")
    assert 2 == feed.begun
    get = response.named("sse-gap")[0]["id"]
    response = await ask(served, "/a/1", f"Last-Event-ID: {get}", method="POST")
    assert {"reason": "unknown", "after": get} == response.data("sse-gap")
    assert {"reason": "gone"} == response.data("sse-end")
    assert 2 == feed.begun
    post.drop()


async def test_a_token_of_another_application(
    serve: Serve, clock: SettableClock
) -> None:
    """Applications of one process do not know each other's runs, of one table too."""
    feed, table = feeding()
    one = await serve(app_of(table, clock=clock))
    two = await serve(app_of(table, clock=clock))
    stream = await opened(one)
    place = stream.last_event_id
    response = await begin(two, f"Last-Event-ID: {place}", mark=b"sse-gap")
    assert {"reason": "unknown", "after": place} == response.data("sse-gap")
    assert 2 == feed.begun
    stream.drop()


async def test_a_token_of_another_domain(serve: Serve, clock: SettableClock) -> None:
    """Two routes at one path, of two domains, do not know each other's runs."""
    feed = Feed()
    app = web.Application()
    setup(app, [], clock=clock)
    for name in ("a", "b"):
        sub = web.Application()
        sub.add_routes([SSERouteDef("/x", feed, name=name, open_timeout=0)])
        app.add_domain(f"{name}.example", sub)
    served = await serve(app)
    stream = await opened(served, headers={"Host": "a.example"})
    client = await RawClient.connect(served)
    place = f"Last-Event-ID: {stream.last_event_id}"
    await client.send(f"GET /x HTTP/1.1\r\nHost: b.example\r\n{place}\r\n\r\n".encode())
    await client.read_until(b"sse-gap")
    assert 2 == feed.begun
    stream.drop()


async def test_a_token_after_a_restart(serve: Serve, clock: SettableClock) -> None:
    """A run does not outlive its application, and an end does."""
    feed, table = feeding()
    app = app_of(table, clock=clock)
    served = await serve(app)
    stream = await opened(served)
    place = stream.last_event_id
    stream.drop()
    await served.close()
    await until(lambda: feed.closed == 1)
    served = await serve(app)
    response = await begin(served, f"Last-Event-ID: {place}", mark=b"sse-gap")
    assert {"reason": "unknown", "after": place} == response.data("sse-gap")
    assert 204 == (await ask(served, "/x", f"Last-Event-ID: {place}.end")).status


# -- two tabs --------------------------------------------------------------------------


async def test_the_older_of_two_tabs_is_replaced(
    serve: Serve, clock: SettableClock
) -> None:
    """The newer connection takes the run; the older is told, and stays away."""
    feed, table = feeding()
    served = await serve(app_of(table, clock=clock))
    older = await opened(served)
    feed.feed("one", "two")
    assert ["one"] == await data(older, 1)
    newer = await opened(served, last_event_id=older.last_event_id)
    assert "continued" == resumed(newer)
    await older.rest()
    end = older.control[-1]
    assert ("sse-end", '{"reason":"replaced"}') == (end.type, end.data)
    assert end.id is not None
    assert end.id.endswith(".end")
    await until(lambda: served.sse.connections == 1)
    feed.feed("three")
    assert ["two", "three"] == await data(newer, 2)
    assert 204 == (await older.resume()).status
    assert (1, 0) == (feed.begun, feed.closed)
    older.drop()
    newer.drop()


# -- ends ------------------------------------------------------------------------------

ENDS = [
    f"{UNKNOWN_RUN}.end",
    f"{UNKNOWN_LOG}.end",
    f"sse1.r.{'-_' * 11}.0.end",
    f"sse1.l.{'a' * 16}.9999999999999999.end",
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_an_end_is_204_before_anything_else(
    serve: Serve, clock: SettableClock, method: str
) -> None:
    """On any route and worker, whatever else: no guard, no limit, no handler runs."""
    ran: list[str] = []
    table = SSERouteTableDef()

    def guard(request: web.Request) -> bool:
        ran.append("guard")
        return False

    def owner(request: web.Request) -> str:
        ran.append("owner")
        return ""

    async def generator(it: Any) -> AsyncIterator[str]:
        ran.append("handler")
        yield "x"

    async def coroutine(request: web.Request) -> AsyncIterator[str]:
        ran.append("handler")
        return generator(request)

    def client_key(request: web.Request) -> str:
        ran.append("client_key")
        return ""

    methods = ("GET", "POST")
    table.sse_route("/private", guard=guard, owner=owner, methods=methods)(generator)
    table.sse_route("/shared", guard=guard, shared=True, name="shared")(generator)
    table.sse_route("/coroutine", guard=guard, methods=methods)(coroutine)
    table.sse_route(
        "/quiet", guard=guard, control_events=False, methods=methods, name="quiet"
    )(generator)
    options = {"max_connections_per_client": 1, "client_key": client_key}
    served = await serve(app_of(table, clock=clock, **options))
    client = await RawClient.connect(served)
    paths = ["/private", "/coroutine", "/quiet"] + ["/shared"] * (method != "POST")
    for end, path in itertools.product(ENDS, paths):
        response = await ask(
            served, path, f"Last-Event-ID: {end}", method=method, client=client
        )
        assert (204, b"", b"") == (response.status, response.body, response.rest)
        response = await ask(
            served, f"{path}?last_event_id={end}", method=method, client=client
        )
        assert 204 == response.status
    assert [] == ran


async def test_what_only_looks_like_an_end(serve: Serve, clock: SettableClock) -> None:
    """Somebody's own id that ends so is no end: only the full format is."""
    feed, table = feeding()
    served = await serve(app_of(table, clock=clock))
    for text in ("x.end", ".end", f"{UNKNOWN_RUN}.END", f"{UNKNOWN_RUN}.end.end"):
        response = await begin(served, f"Last-Event-ID: {text}", mark=b"sse-gap")
        assert 200 == response.status
        assert {"reason": "unknown", "after": None} == response.data("sse-gap")
    assert 4 == feed.begun


# -- garbage ---------------------------------------------------------------------------

GARBAGE: list[tuple[str, str | None]] = [
    ("garbage", None),
    ("0", None),
    ("{}", None),
    ("é🎉", None),
    ("a" * 1024, None),
    ("a" * 1025, None),
    ("é" * 513, None),
    ("sse1." * 1500, None),
    (f"{UNKNOWN_RUN} x", None),
    ("\udcff\udc80", None),
    (UNKNOWN_RUN, UNKNOWN_RUN),
    (UNKNOWN_LOG, UNKNOWN_LOG),
    (f"sse1.r.{'A' * 22}.9999999999999999", f"sse1.r.{'A' * 22}.9999999999999999"),
]


@pytest.mark.parametrize("shared", [False, True])
async def test_garbage_is_a_gap(
    serve: Serve, clock: SettableClock, shared: bool
) -> None:
    """An id that means nothing here begins a fresh stream, after a gap: no error."""
    feed, table = feeding(shared=shared)
    served = await serve(app_of(table, clock=clock))
    for number, (text, after) in enumerate(GARBAGE, 1):
        response = await begin(served, f"Last-Event-ID: {text}", mark=b"sse-gap")
        assert 200 == response.status
        check_law(response.body)
        reason = "reset" if shared and after == UNKNOWN_LOG else "unknown"
        assert {"reason": reason, "after": after} == response.data("sse-gap"), text
        assert "gap" == response.data("sse-hello")["resumed"]
        # The place that it was told is one to come back to.
        place = response.named("sse-gap")[0]["id"]
        feed.feed(f"event {number}")
        mark = b"event %d" % number
        response = await begin(served, f"Last-Event-ID: {place}", mark=mark)
        assert "continued" == response.data("sse-hello")["resumed"]
        assert [f"event {number}"] == response.events
        assert (1 if shared else number) == feed.begun


@pytest.mark.parametrize("shared", [False, True])
async def test_garbage_in_the_query(
    serve: Serve, clock: SettableClock, shared: bool
) -> None:
    """What no header could carry is no error either, and gets into no field."""
    _, table = feeding(shared=shared)
    served = await serve(app_of(table, clock=clock))
    for query in (
        "last_event_id=a%0Ab",
        "last_event_id=a%0D",
        "last_event_id=%00",
        "lastEventId=%FF%FE",
        "lastEventId=%ED%A0%80",
        "last_event_id=" + "a" * 1025,
        "last_event_id=&lastEventId=x",
    ):
        response = await begin(served, path=f"/x?{query}", mark=b"sse-gap")
        assert 200 == response.status
        check_law(response.body)
        assert {"reason": "unknown", "after": None} == response.data("sse-gap"), query


@pytest.mark.parametrize("shared", [False, True])
async def test_no_id_is_no_gap(
    serve: Serve, clock: SettableClock, shared: bool
) -> None:
    """An empty id is none."""
    _, table = feeding(shared=shared)
    served = await serve(app_of(table, clock=clock))
    for query in ("", "?last_event_id=", "?last_event_id=&lastEventId="):
        response = await begin(served, "Last-Event-ID:", path=f"/x{query}")
        assert "fresh" == response.data("sse-hello")["resumed"]
        assert [] == response.named("sse-gap")


@pytest.mark.parametrize("shared", [False, True])
async def test_a_place_that_is_not_yet(
    serve: Serve, clock: SettableClock, shared: bool
) -> None:
    """A place forged in the future of a real log is unknown, and skips nothing."""
    feed, table = feeding(shared=shared)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    feed.feed("one")
    await data(stream, 1)
    forged = re.sub("[0-9]+$", "999", stream.last_event_id)
    response = await begin(served, f"Last-Event-ID: {forged}", mark=b"sse-gap")
    assert {"reason": "unknown", "after": forged} == response.data("sse-gap")
    assert "gap" == response.data("sse-hello")["resumed"]
    assert (1 if shared else 2) == feed.begun
    stream.drop()


# -- ids of one's own ------------------------------------------------------------------


class Owned:
    """A handler that gives ids of its own, and resumes by them.

    Attributes:
        brought: What `last_event_id` gave each generator.
    """

    def __init__(self, *, as_coroutine: bool = False, **options: Any) -> None:
        self.brought: list[str | None] = []
        self.closed = 0
        self.go = asyncio.Event()
        self.table = SSERouteTableDef()

        async def numbers(start: int) -> AsyncIterator[Any]:
            try:
                for number in range(start + 1, 4):
                    yield ServerSentEvent(number, id=f"own-{number}é ")
                yield "no id"
                await self.go.wait()
                yield ServerSentEvent("last", id="own-4")
                yield "nor this"
            finally:
                self.closed += 1

        async def generator(request: web.Request) -> AsyncIterator[Any]:
            inner = numbers(self.start(request))
            try:
                async for item in inner:
                    yield item
            finally:
                await inner.aclose()  # type: ignore[attr-defined]

        async def coroutine(request: web.Request) -> AsyncIterator[Any]:
            return numbers(self.start(request))

        handler = coroutine if as_coroutine else generator
        self.table.sse_route("/x", name="x", **options)(handler)

    def start(self, request: web.Request) -> int:
        """Return where to begin."""
        text = last_event_id(request)
        self.brought.append(text)
        found = re.match("own-([0-9])", text or "")
        return int(found[1]) if found else 0


@pytest.mark.parametrize("as_coroutine", [False, True])
@pytest.mark.parametrize("way", ["header", "last_event_id", "lastEventId"])
async def test_own_ids(
    serve: Serve, clock: SettableClock, as_coroutine: bool, way: str
) -> None:
    """They go out as given and come back; hello says so, and nothing is replayed."""
    owned = Owned(as_coroutine=as_coroutine)
    served = await serve(app_of(owned.table, clock=clock))
    response = await begin(served, mark=b"no id")
    assert "fresh" == response.data("sse-hello")["resumed"]
    own = [b["id"] for b in response.blocks if b.get("id", "").startswith("own")]
    assert [f"own-{n}é " for n in (1, 2, 3)] == own
    (plain,) = [b for b in response.blocks if b.get("data") == "no id"]
    assert {"data": "no id"} == plain
    # The run ends with its client, though others would wait.
    await until(lambda: owned.closed == 1)
    assert 0 == served.sse.detached

    if way == "header":
        response = await begin(served, "Last-Event-ID: own-2é ", mark=b"no id")
        brought = "own-2é"
    else:
        brought = "own-2é "
        response = await begin(served, path=f"/x?{way}={quote(brought)}", mark=b"no id")
    assert [None, brought] == owned.brought
    (hello,) = response.named("sse-hello")
    assert brought == hello["id"]
    assert "continued" == response.data("sse-hello")["resumed"]
    assert [] == response.named("sse-gap")
    assert ["3", "no id"] == response.events
    await until(lambda: owned.closed == 2)


async def test_an_end_of_own_ids(serve: Serve, clock: SettableClock) -> None:
    """A run of own ids ends as any other, by an id that is 204 anywhere."""
    owned = Owned()
    owned.go.set()
    served = await serve(app_of(owned.table, clock=clock))
    response = await ask(served, "/x")
    assert ["1", "2", "3", "no id", "last", "nor this"] == response.events
    assert [None] * 2 == [
        block.get("id")
        for block in response.blocks
        if block.get("data", "")[:2] == "no"
    ]
    (end,) = response.named("sse-end")
    assert 204 == (await ask(served, "/x", f"Last-Event-ID: {end['id']}")).status
    assert 1 == len(owned.brought)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * 1024, "a" * 1024),
        ("é" * 512, "é" * 512),
        ("a" * 1025, None),
        ("é" * 513, None),
        (UNKNOWN_RUN, None),
        (UNKNOWN_LOG, UNKNOWN_LOG),
        ("\udcff", "\ufffd"),
        ("  padded  ", "padded"),
    ],
    ids=lambda value: (value or "null")[:12],
)
async def test_last_event_id(
    serve: Serve, clock: SettableClock, text: str, expected: str | None
) -> None:
    """It is what the client brought; never a run's id, nor what is too long for one."""
    owned = Owned()
    served = await serve(app_of(owned.table, clock=clock))
    response = await begin(served, f"Last-Event-ID: {text}", mark=b"no id")
    assert [expected] == owned.brought
    check_law(response.body)
    (hello,) = response.named("sse-hello")
    if expected is None:
        assert "gap" == response.data("sse-hello")["resumed"]
    else:
        assert "continued" == response.data("sse-hello")["resumed"]
        assert expected == hello["id"]


@pytest.mark.parametrize("char", ["%0A", "%0D", "%00"])
async def test_last_event_id_of_the_query(
    serve: Serve, clock: SettableClock, char: str
) -> None:
    """What would break a field is not handed back, for a handler may send it on."""
    owned = Owned()
    served = await serve(app_of(owned.table, clock=clock))
    await begin(served, path=f"/x?last_event_id=a{char}b", mark=b"no id")
    await begin(served, "Last-Event-ID: h", path="/x?last_event_id=q", mark=b"no id")
    assert [None, "h"] == owned.brought


async def test_an_own_id_that_the_handler_does_not_ask_for(
    serve: Serve, clock: SettableClock
) -> None:
    """Then nobody resumes by it, and the client is told of the gap."""
    feed, table = feeding()
    served = await serve(app_of(table, clock=clock))
    response = await begin(served, "Last-Event-ID: own-2", mark=b"sse-gap")
    assert {"reason": "unknown", "after": None} == response.data("sse-gap")
    feed.feed("one")
    await until(lambda: served.sse.detached == 1)


# -- the log of a private run ----------------------------------------------------------


# A block of one letter takes 45 bytes.
@pytest.mark.parametrize("bound", [{"replay": 4}, {"replay_bytes": 4 * 45 + 20}])
async def test_an_expired_place(
    serve: Serve, clock: SettableClock, bound: dict[str, int]
) -> None:
    """A place that the log has lost is a gap, and what is retained comes after it."""
    feed, table = feeding(**bound)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    places = []
    for letter in "abcdefgh":
        feed.feed(letter)
        await data(stream, 1)
        places.append(stream.last_event_id)
    stream.drop()
    response = await begin(served, f"Last-Event-ID: {places[1]}", mark=b"data: h")
    check_law(response.body)
    assert "gap" == response.data("sse-hello")["resumed"]
    assert {"reason": "expired", "after": places[1]} == response.data("sse-gap")
    assert list("efgh") == response.events
    hello, gap, first = response.blocks[:3]
    assert (places[1], places[3]) == (hello["id"], gap["id"])
    assert places[4] == first["id"]
    # The last one lost is the first place that misses nothing.
    response = await begin(served, f"Last-Event-ID: {places[3]}", mark=b"data: h")
    assert "continued" == response.data("sse-hello")["resumed"]
    assert list("efgh") == response.events
    assert 1 == feed.begun


@pytest.mark.parametrize("seconds", [1, 15, 60.5])
async def test_a_run_waits_for_its_client(
    serve: Serve, clock: SettableClock, seconds: float
) -> None:
    """It goes on for ``resume`` seconds; then it is closed, and a new one begins."""
    feed, table = feeding(resume=seconds)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    await stream.drop()
    await clock.advance(seconds - 0.9)
    feed.feed("meanwhile")
    await stream.open()
    assert ["meanwhile"] == await data(stream, 1)
    assert "continued" == resumed(stream)
    await stream.drop()
    assert 0 == feed.closed
    await clock.advance(seconds + 1)
    await until(lambda: feed.closed == 1)
    assert 0 == served.sse.detached
    place = stream.last_event_id
    await stream.open()
    await stream.next("sse-gap")
    assert [{"reason": "unknown", "after": place}] == stream.gaps
    assert "gap" == resumed(stream)
    assert 2 == feed.begun
    assert stream.last_event_id != place
    stream.drop()


async def test_resume_0(serve: Serve, clock: SettableClock) -> None:
    """``resume=0``: closed at once, and who comes back is told so."""
    feed, table = feeding(resume=0)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    stream.drop()
    await until(lambda: feed.closed == 1)
    assert 0 == served.sse.detached
    await stream.open()
    await stream.next("sse-gap")
    assert ["unknown"] == [gap["reason"] for gap in stream.gaps]
    stream.drop()


async def test_a_finished_run_gives_the_rest(
    serve: Serve, clock: SettableClock
) -> None:
    """It is remembered for ``resume`` seconds, and begins anew after that."""
    feed, table = feeding()
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    feed.feed("one")
    await data(stream, 1)
    place = stream.last_event_id
    stream.drop()
    feed.feed("two", ...)
    await until(lambda: feed.closed == 1)
    await clock.advance(14)
    response = await ask(served, "/x", f"Last-Event-ID: {place}")
    assert "continued" == response.data("sse-hello")["resumed"]
    assert ["two"] == response.events
    assert {"reason": "finished"} == response.data("sse-end")
    last = response.blocks[1]["id"]
    # It has all, but was cut before the end.
    response = await ask(served, "/x", f"Last-Event-ID: {last}")
    assert [] == response.events
    assert "continued" == response.data("sse-hello")["resumed"]
    assert {"reason": "finished"} == response.data("sse-end")
    assert f"{last}.end" == response.blocks[-1]["id"]
    await clock.advance(16)
    assert 0 == served.sse.detached
    response = await begin(served, f"Last-Event-ID: {place}", mark=b"sse-gap")
    assert {"reason": "unknown", "after": place} == response.data("sse-gap")
    assert 2 == feed.begun


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_may_have_had_effects_is_never_run_again(
    serve: Serve, clock: SettableClock, method: str
) -> None:
    """Within ``resume`` it is continued; after it comes a gap, and the end for good."""
    feed, table = feeding(methods=(method,))
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served, method=method)
    stream.drop()
    feed.feed("one")
    await stream.open()
    assert ["one"] == await data(stream, 1)
    await stream.drop()
    await clock.advance(16)
    await until(lambda: feed.closed == 1)
    place = stream.last_event_id
    response = await ask(served, "/x", f"Last-Event-ID: {place}", method=method)
    assert (200, True) == (response.status, response.complete)
    check_law(response.body)
    assert "gap" == response.data("sse-hello")["resumed"]
    assert {"reason": "unknown", "after": place} == response.data("sse-gap")
    assert {"reason": "gone"} == response.data("sse-end")
    assert ["sse-hello", "sse-gap", "sse-end"] == [b["event"] for b in response.blocks]
    end = response.blocks[-1]["id"]
    assert end.endswith(".end")
    again = await ask(served, "/x", f"Last-Event-ID: {end}", method=method)
    assert 204 == again.status
    # Nor is it by a token in the query.
    response = await ask(served, f"/x?last_event_id={place}", method=method)
    assert {"reason": "gone"} == response.data("sse-end")
    assert 1 == feed.begun


async def test_a_client_closes_its_run(serve: Serve, clock: SettableClock) -> None:
    """The generated client's ``close()`` ends a run at once, by its token alone."""
    feed, table = feeding()
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    bodies = ["", "garbage", "\xff", UNKNOWN_RUN, UNKNOWN_LOG, "x" * 100_000]
    for body in bodies:
        response = await ask(
            served, "/_sse/close", method="POST", body=body.encode("latin-1")
        )
        assert 204 == response.status
    assert 0 == feed.closed
    place = stream.last_event_id
    response = await ask(served, "/_sse/close", method="POST", body=place.encode())
    assert 204 == response.status
    await until(lambda: feed.closed == 1)
    await stream.rest()
    assert '{"reason":"disconnected"}' == stream.control[-1].data
    assert 0 == served.sse.detached
    response = await begin(served, f"Last-Event-ID: {place}", mark=b"sse-gap")
    assert {"reason": "unknown", "after": place} == response.data("sse-gap")
    # One that waits for its client is ended as well.
    place = response.named("sse-gap")[0]["id"]
    await until(lambda: served.sse.detached == 1)
    await ask(served, "/_sse/close", method="POST", body=place.encode())
    await until(lambda: feed.closed == 2)
    stream.drop()


async def test_tokens_and_cursors_are_not_logged(
    serve: Serve, clock: SettableClock, caplog: Log
) -> None:
    """Whoever reads the log cannot take a run over."""
    caplog.set_level(logging.DEBUG)
    feed, table = feeding()
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    feed.feed("one")
    await data(stream, 1)
    await stream.resume()
    await stream.next("sse-hello")
    second = await opened(served, last_event_id=stream.last_event_id)
    feed.feed(ValueError())
    await second.rest()
    await ask(served, f"/x?last_event_id={stream.last_event_id}.end")
    token = stream.last_event_id.split(".")[2]
    assert caplog.records
    for record in caplog.records:
        assert token not in record.getMessage()
        assert token not in repr(record.__dict__)
    stream.drop()
    second.drop()


async def test_max_detached(serve: Serve, clock: SettableClock) -> None:
    """Over the bound the run that has waited longest is closed; who is back is safe."""
    feed, table = feeding()
    served = await serve(app_of(table, clock=clock, max_detached=2))
    streams = [await opened(served) for _ in range(4)]
    for number, stream in enumerate(streams[:2], 1):
        stream.drop()
        await until(functools.partial(detached, served, number))
    await streams[0].open()
    await streams[0].next("sse-hello")
    assert "continued" == resumed(streams[0])
    assert 1 == served.sse.detached
    # Now the second has waited longest.
    for stream in (streams[2], streams[3]):
        stream.drop()
        await until(lambda: served.sse.connections <= 3)
    await until(lambda: served.sse.connections == 1)
    await until(lambda: feed.closed == 1)
    assert 2 == served.sse.detached
    told = []
    for stream in streams[1:]:
        await stream.open()
        await stream.next("sse-hello")
        told.append(resumed(stream))
    assert ["gap", "continued", "continued"] == told
    for stream in streams:
        stream.drop()


async def test_no_run_may_wait(serve: Serve, clock: SettableClock) -> None:
    """``max_detached=0`` closes each as its client leaves."""
    feed, table = feeding()
    served = await serve(app_of(table, clock=clock, max_detached=0))
    stream = await opened(served)
    stream.drop()
    await until(lambda: feed.closed == 1)
    assert 0 == served.sse.detached


# -- without control events ------------------------------------------------------------


def quiet(response: RawResponse) -> None:
    """Assert that a response sends nothing that is not the application's."""
    check_law(response.body)
    assert b"sse-" not in response.body
    assert {"retry"} == response.blocks[0].keys()
    for block in response.blocks[1:]:
        assert "id" in block
        assert "event" not in block


async def test_a_private_run_without_control_events(
    serve: Serve, clock: SettableClock
) -> None:
    """The header says how it resumed, and the end is told by 204 alone."""
    feed, table = feeding(control_events=False)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/x")
    await client.read_until(b"retry: ")
    feed.feed("one", "two", "three")
    await client.read_until(b"three")
    response = parse_response(client.received)
    quiet(response)
    assert "fresh" == response.headers["SSE-Resume"]
    places = [block["id"] for block in response.blocks[1:]]
    client.close()
    await until(lambda: served.sse.detached == 1)
    feed.feed(...)
    await until(lambda: feed.closed == 1)
    response = await ask(served, "/x", f"Last-Event-ID: {places[0]}")
    quiet(response)
    assert ["two", "three"] == response.events
    assert "continued" == response.headers["SSE-Resume"]
    response = await ask(served, "/x", f"Last-Event-ID: {places[2]}")
    assert (204, b"") == (response.status, response.body)
    await clock.advance(16)
    response = await begin(served, f"Last-Event-ID: {places[2]}", mark=b"retry: ")
    quiet(response)
    assert "gap" == response.headers["SSE-Resume"]
    assert 2 == feed.begun


async def test_an_end_behind_a_comment_without_control_events(
    serve: Serve, clock: SettableClock
) -> None:
    """Who has every event of a finished run has all, whatever else was said."""
    feed, table = feeding(control_events=False)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/x")
    await client.read_until(b"retry: ")
    feed.feed("one", ServerSentEvent(comment="bye"), ...)
    await client.read_all()
    place = parse_response(client.received).blocks[1]["id"]
    assert 204 == (await ask(served, "/x", f"Last-Event-ID: {place}")).status
    assert 1 == feed.begun


async def test_a_shared_run_without_control_events(
    serve: Serve, clock: SettableClock
) -> None:
    """So it is with a shared run."""
    feed, table = feeding(control_events=False, shared=True, history=1)
    served = await serve(app_of(table, clock=clock))
    client = await RawClient.connect(served)
    await client.get("/x")
    await client.read_until(b"retry: ")
    feed.feed("one", "two")
    await client.read_until(b"two")
    first, second = [b["id"] for b in parse_response(client.received).blocks[1:]]
    for headers, told, events in (
        ([], "fresh", ["two"]),
        ([f"Last-Event-ID: {first}"], "continued", ["two"]),
        (["Last-Event-ID: garbage"], "gap", ["two"]),
        ([f"Last-Event-ID: {UNKNOWN_LOG}"], "gap", ["two"]),
    ):
        response = await begin(served, *headers, mark=b"two")
        quiet(response)
        assert told == response.headers["SSE-Resume"]
        assert events == response.events
    feed.feed(...)
    await client.read_until(b"0\r\n\r\n")
    quiet(parse_response(client.received))
    response = await ask(served, "/x", f"Last-Event-ID: {first}")
    assert ["two"] == response.events
    response = await ask(served, "/x", f"Last-Event-ID: {second}")
    assert 204 == response.status
    client.close()


async def test_a_post_without_control_events(
    serve: Serve, clock: SettableClock
) -> None:
    """What must not be run again is over: 204."""
    feed, table = feeding(control_events=False, methods=("POST",))
    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x", f"Last-Event-ID: {UNKNOWN_RUN}", method="POST")
    assert 204 == response.status
    assert 0 == feed.begun


async def test_a_gap_that_comes_while_the_headers_are_sent(
    serve: Serve, clock: SettableClock
) -> None:
    """Where only the header can tell it, the client is sent back to be told by it."""
    feed, table = feeding(control_events=False, shared=True, replay=2)
    app = app_of(table, clock=clock)
    waiting = asyncio.Event()
    go = asyncio.Event()

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        if "slow" in request.headers:
            waiting.set()
            await go.wait()

    app.on_response_prepare.append(on_prepare)
    served = await serve(app)
    other = await RawClient.connect(served)
    await other.get("/x")
    await other.read_until(b"retry: ")
    feed.feed("one")
    await other.read_until(b"one")
    place = f"Last-Event-ID: {parse_response(other.received).blocks[1]['id']}"
    client = await RawClient.connect(served)
    await client.get("/x", place, "slow: yes")
    await waiting.wait()
    for letter in "abcde":
        feed.feed(letter)
        await other.read_until(b"data: %b" % letter.encode())
    go.set()
    while b"0\r\n\r\n" not in client.received:
        assert await client.read()
    response = parse_response(client.received)
    assert "continued" == response.headers["SSE-Resume"]
    assert [] == response.events
    response = await begin(served, place, mark=b"data: e")
    assert "gap" == response.headers["SSE-Resume"]
    assert ["d", "e"] == response.events
    other.close()


# -- shared runs -----------------------------------------------------------------------


@pytest.mark.parametrize("history", [0, 1, 3, 100])
async def test_history(serve: Serve, clock: SettableClock, history: int) -> None:
    """A new client of a shared run is given its last events, and then what comes."""
    feed, table = feeding(shared=True, history=history)
    served = await serve(app_of(table, clock=clock))
    first = await opened(served)
    feed.feed(*"abcde")
    await data(first, 5)
    second = await opened(served)
    assert "fresh" == resumed(second)
    feed.feed("f")
    expected = [*"abcde"[max(0, 5 - history) :], "f"] if history else ["f"]
    assert expected == await data(second, len(expected))
    assert 1 == feed.begun
    assert not second.gaps
    # It resumes, from the place of hello too, to the same events.
    hello = second.control[0].id
    second.drop()
    second.last_event_id = hello or ""
    await second.open()
    assert expected == await data(second, len(expected))
    first.drop()
    second.drop()


async def test_a_shared_run_lives_with_its_clients(
    serve: Serve, clock: SettableClock
) -> None:
    """It begins with the first client and ends ``resume`` seconds after the last."""
    feed, table = feeding(shared=True, resume=10)
    served = await serve(app_of(table, clock=clock))
    assert 0 == feed.begun
    first = await opened(served)
    second = await opened(served)
    first.drop()
    await until(lambda: served.sse.connections == 1)
    await clock.advance(100)
    assert 0 == feed.closed
    feed.feed("one")
    await data(second, 1)
    await second.drop()
    await clock.advance(9)
    feed.feed("two")
    await second.open()
    assert ["two"] == await data(second, 1)
    assert "continued" == resumed(second)
    place = second.last_event_id
    await second.drop()
    await clock.advance(11)
    await until(lambda: feed.closed == 1)
    await second.open()
    await second.next("sse-gap")
    assert [{"reason": "unknown", "after": place}] == second.gaps
    assert 2 == feed.begun
    second.drop()


async def test_a_shared_run_with_resume_0(serve: Serve, clock: SettableClock) -> None:
    """It ends with its last client, and not before."""
    feed, table = feeding(shared=True, resume=0)
    served = await serve(app_of(table, clock=clock))
    first, second = await opened(served), await opened(served)
    first.drop()
    await until(lambda: served.sse.connections == 1)
    feed.feed("one")
    assert ["one"] == await data(second, 1)
    assert 0 == feed.closed
    second.drop()
    await until(lambda: feed.closed == 1)


async def test_gaps_of_a_shared_run(serve: Serve, clock: SettableClock) -> None:
    """Each reason is told; after ``expired`` comes what is retained, else history."""
    feed, table = feeding(shared=True, replay=4, history=1)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    for letter in "abcdefgh":
        feed.feed(letter)
        await data(stream, 1)
    events = stream.events
    old, kept = events[0].id, events[3].id
    for brought, reason, retained in (
        (old, "expired", "efgh"),
        (stream.control[0].id, "expired", "efgh"),
        (UNKNOWN_LOG, "reset", "h"),
        (UNKNOWN_RUN, "unknown", "h"),
        (re.sub("[0-9]+$", "0", old or ""), "unknown", "h"),
    ):
        response = await begin(served, f"Last-Event-ID: {brought}", mark=b"data: h")
        check_law(response.body)
        assert {"reason": reason, "after": brought} == response.data("sse-gap")
        assert list(retained) == response.events
        hello, gap = response.blocks[:2]
        assert brought == hello["id"]
        assert gap["id"] == events[7 - len(retained)].id
    response = await begin(served, f"Last-Event-ID: {kept}", mark=b"data: h")
    assert [] == response.named("sse-gap")
    assert list("efgh") == response.events
    assert 1 == feed.begun
    stream.drop()


async def test_a_cursor_in_the_query_counts_for_a_shared_run(
    serve: Serve, clock: SettableClock
) -> None:
    """A page may name its place in the URL: it authorises nothing. The header wins."""
    feed, table = feeding(shared=True)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    feed.feed("one", "two", "three")
    one, two, _ = await stream.collect(3)
    url = served.sse.url("x", after=one.id)
    response = await begin(served, path=url, mark=b"three")
    assert "continued" == response.data("sse-hello")["resumed"]
    assert ["two", "three"] == response.events
    response = await begin(served, f"Last-Event-ID: {two.id}", path=url, mark=b"three")
    assert ["three"] == response.events
    stream.drop()


async def test_a_shared_run_after_a_restart_of_the_server(
    serve: Serve, clock: SettableClock
) -> None:
    """The log was in memory: a place of before is ``reset``."""
    feed, table = feeding(shared=True)
    app = app_of(table, clock=clock)
    served = await serve(app)
    stream = await opened(served)
    feed.feed("one")
    await data(stream, 1)
    place = stream.last_event_id
    stream.drop()
    await served.close()
    served = await serve(app)
    response = await begin(served, f"Last-Event-ID: {place}", mark=b"sse-gap")
    assert {"reason": "reset", "after": place} == response.data("sse-gap")


async def test_a_finished_shared_run(serve: Serve, clock: SettableClock) -> None:
    """Its clients are told; who missed some has the rest; a new one begins anew."""
    feed, table = feeding(shared=True, history=5)
    served = await serve(app_of(table, clock=clock))
    first, second = await opened(served), await opened(served)
    feed.feed("one")
    await data(first, 1)
    place = first.last_event_id
    first.drop()
    feed.feed("two", ...)
    assert ["one", "two"] == [event.data for event in await second.rest()]
    end = second.control[-1]
    assert ("sse-end", '{"reason":"finished"}') == (end.type, end.data)
    assert 204 == (await second.resume()).status
    response = await ask(served, "/x", f"Last-Event-ID: {place}")
    assert ["two"] == response.events
    assert {"reason": "finished"} == response.data("sse-end")
    third = await opened(served)
    assert "fresh" == resumed(third)
    feed.feed("anew")
    assert ["anew"] == await data(third, 1)
    assert 2 == feed.begun
    # The finished one is remembered beside it, as long as others.
    response = await ask(served, "/x", f"Last-Event-ID: {place}")
    assert ["two"] == response.events
    await clock.advance(16)
    response = await begin(served, f"Last-Event-ID: {place}", mark=b"sse-gap")
    assert {"reason": "unknown", "after": place} == response.data("sse-gap")
    for stream in (second, third):
        stream.drop()


# -- shared runs that fail -------------------------------------------------------------


async def test_a_failed_shared_run_begins_again(
    serve: Serve, clock: SettableClock, caplog: Log
) -> None:
    """After 1 s, doubling to 60; clients stay, and are told ``restarted`` each time."""
    feed, table = feeding(shared=True, history=2)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    feed.feed("one")
    await data(stream, 1)
    for number, delay in enumerate((1, 2, 4, 8, 16, 32, 60, 60), 1):
        before = stream.last_event_id
        feed.feed(ValueError("secret"))
        await until(functools.partial(logged, caplog, number))
        await clock.advance(delay - 1)
        assert number == feed.begun
        await clock.advance(1)
        assert number + 1 == feed.begun == feed.closed + 1
        gap = await stream.next("sse-gap")
        assert {"reason": "restarted", "after": before} == stream.gaps[-1]
        assert gap.id != before
        if number == 1:
            # It has gone on: but for a second only.
            feed.feed("again")
            assert ["again"] == await data(stream, 1)
    assert ["sse-hello", *["sse-gap"] * 8] == [event.type for event in stream.control]
    for record in caplog.records:
        assert "failed" in record.getMessage()
        assert record.__dict__["sse_ref"] in record.getMessage()
    # Who comes from before a restart is told so too, and gets what a new client would.
    feed.feed("now")
    await data(stream, 1)
    response = await begin(
        served, f"Last-Event-ID: {stream.events[0].id}", mark=b"data: now"
    )
    assert "restarted" == response.data("sse-gap")["reason"]
    assert ["now"] == response.events
    stream.drop()


async def test_a_run_that_has_gone_well_begins_with_a_second_again(
    serve: Serve, clock: SettableClock, caplog: Log
) -> None:
    """The delay is doubled by failures that follow upon each other, not by old ones."""
    feed, table = feeding(shared=True)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    for number in range(1, 4):
        feed.feed("event")
        await data(stream, 1)
        await clock.advance(61)
        feed.feed(ValueError())
        await until(functools.partial(logged, caplog, number))
        await clock.advance(1)
        await stream.next("sse-gap")
        assert number + 1 == feed.begun
    stream.drop()


async def test_a_failed_shared_run_that_nobody_follows_is_dropped(
    serve: Serve, clock: SettableClock, caplog: Log
) -> None:
    """It is begun again for those who come back, and not for ever."""
    feed, table = feeding(shared=True, resume=5)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    feed.feed(ValueError())
    await until(lambda: caplog.records)
    await stream.drop()
    await clock.advance(100)
    assert 2 == feed.begun == feed.closed
    assert not served.app[HUB_KEY].producers


async def test_a_client_that_comes_while_a_run_waits_to_begin_again(
    serve: Serve, clock: SettableClock, caplog: Log
) -> None:
    """It waits too, and is told no gap: only who had part of the failed run has one."""
    feed, table = feeding(shared=True)
    served = await serve(app_of(table, clock=clock))
    stream = await opened(served)
    feed.feed("one", ValueError())
    await data(stream, 1)
    await until(lambda: caplog.records)
    stream.drop()
    await stream.open()
    await stream.next("sse-hello")
    assert "continued" == resumed(stream)
    fresh = await opened(served)
    assert "fresh" == resumed(fresh)
    await clock.advance(1)
    await stream.next("sse-gap")
    assert ["restarted"] == [gap["reason"] for gap in stream.gaps]
    feed.feed("two")
    for one in (stream, fresh):
        assert ["two"] == await data(one, 1)
    assert not fresh.gaps
    feed.feed(ValueError())
    await until(lambda: 2 == len(caplog.records))
    await clock.advance(2)
    for one in (stream, fresh):
        await one.next("sse-gap")
        assert "restarted" == one.gaps[-1]["reason"]
        one.drop()


async def test_a_shared_handler_that_is_an_object(
    serve: Serve, clock: SettableClock
) -> None:
    """The run that it is given knows its path."""
    seen: list[SharedRun] = []
    table = SSERouteTableDef()

    @table.sse_route("/x/{a}/{b:.*}", shared=True)
    async def x(run: SharedRun) -> AsyncIterator[dict[str, str]]:
        seen.append(run)
        yield dict(run.match_info)

    served = await serve(app_of(table, clock=clock))
    response = await ask(served, "/x/1/2/3")
    assert ['{"a":"1","b":"2/3"}'] == response.events
    assert ["/x/1/2/3"] == [run.path for run in seen]
