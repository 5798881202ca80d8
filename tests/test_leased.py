"""Shared runs over workers: one generator for all, in a store that they share.

Law: two applications in one process are two workers on one log; nothing is stood in
for. A worker that dies, and the times that it takes, are the matter of
test_leased_workers.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    Reconnect,
    ServerSentEvent,
    SharedRun,
    SSERouteTableDef,
    setup,
)
from aiohttp_sse_routes.errors import StoreUnavailable
from aiohttp_sse_routes.http.hub import HUB_KEY
from aiohttp_sse_routes.logs.entry import Appended, Draft, Entry, Fence
from aiohttp_sse_routes.logs.sqlite import SQLiteStore
from aiohttp_sse_routes.logs.store import Store
from aiohttp_sse_routes.streams.course import Mark
from aiohttp_sse_routes.testing import EventStream, StreamEnded

from .helpers import RawClient, Served, app_of, until
from .stores import Make, eventually, redis, sqlite

Serve = Callable[..., Awaitable[Served]]
Log = pytest.LogCaptureFixture

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a worker ask for its lease, and try an append again, more often."""
    for module in ("runner", "tenure"):
        monkeypatch.setattr(f"aiohttp_sse_routes.streams.{module}.ASK", 0.5)
    monkeypatch.setattr("aiohttp_sse_routes.streams.pipe._LAST_AGAIN", 0.1)


class Feed:
    """A handler that yields what it is fed, whichever worker has called it.

    Attributes:
        begun: How many generators were begun.
        closed: How many have run their ``finally``.
        runs: What each was called with.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.closed = 0
        self.runs: list[SharedRun] = []
        self._queues: list[asyncio.Queue[Any]] = []

    async def __call__(self, run: SharedRun) -> AsyncIterator[Any]:
        """Yield what `feed` gives: an exception is raised, ``...`` is the end."""
        self.begun += 1
        self.runs.append(run)
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


@pytest.fixture(params=["sqlite", "redis"])
def shared_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Return what makes the store of one more worker, of each kind that is shared."""
    make: Make = sqlite
    if request.param == "redis":
        make = redis(request.getfixturevalue("contract_redis"))
    return lambda: make(tmp_path)


class Workers:
    """Workers of one application: each with a store object of its own, on one log.

    Args:
        serve: Serves an application.
        make: Makes a store.
        handler: The handler at ``/x`` and ``/x/{room}``.
        options: The route's.
    """

    def __init__(
        self,
        serve: Serve,
        make: Callable[[], Store],
        handler: Callable[..., Any],
        **options: Any,
    ) -> None:
        self._serve = serve
        self._make = make
        self._handler = handler
        self._options = {"open_timeout": 0.05, "resume": 1.0, **options}
        self.stores: list[Store] = []

    async def start(self, store: Store | None = None) -> Served:
        """Return one more worker that serves, and has reached the log."""
        table = SSERouteTableDef()
        for name, path in (("x", "/x"), ("room", "/x/{room}")):
            options = {"name": name, **self._options}
            table.sse_route(path, shared=True, **options)(self._handler)
        store = store or self._make()
        self.stores.append(store)
        served = await self._serve(app_of(table, store=store))
        await served.app[HUB_KEY].broker.known()
        return served


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


async def log_of(store: Store) -> tuple[list[str], list[str]]:
    """Return what is in the log: data of events, and kinds of marks."""
    head = await store.head()
    channels = await names_of(store)
    events: list[Entry] = []
    marks: list[Entry] = []
    for into, channel in zip((events, marks), channels, strict=True):
        place = 0
        while place < head:
            page = await store.read((channel,), place, head, limit=1 << 20)
            into += page.entries
            place = page.place
    texts = [e.lines.removeprefix(b"data: ").strip().decode() for e in events]
    return texts, [Mark.of(e).kind for e in marks]


async def names_of(store: Store) -> tuple[str, str]:
    """Return the names of the channels of the run at ``/x``."""
    text = json.dumps(["x", "/x", []])
    return f"\x01events {text}", f"\x01marks {text}"


def waiting(served: Served) -> int:
    """Return how many requests wait at *served* for the run to begin."""
    return sum(len(run.runner._waiting) for run in served.app[HUB_KEY].leased)


def generators(feed: Feed) -> int:
    """Return how many generators there are now."""
    return feed.begun - feed.closed


def ids(*streams: EventStream) -> list[list[str | None]]:
    """Return the ids of the events that each stream was given."""
    return [[event.id for event in stream.events] for stream in streams]


# -- one generator for all -------------------------------------------------------------


async def test_two_workers_have_one_generator(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """Clients of both workers get the same events with the same ids, of one run."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed)
    one, other = await workers.start(), await workers.start()
    a, b = await opened(one), await opened(other)
    assert "fresh" == resumed(a) == resumed(b)
    feed.feed(*"abc")
    assert list("abc") == await data(a, 3) == await data(b, 3)
    assert ids(a)[0] == ids(b)[0]
    assert 1 == feed.begun
    feed.feed(*"def")
    # Who was on the one goes on at the other.
    await data(a, 1)
    a.drop()
    b.drop()
    moved = await opened(other, last_event_id=a.last_event_id)
    assert "continued" == resumed(moved)
    assert ["e", "f"] == await data(moved, 2)
    assert 1 == feed.begun
    assert not moved.gaps
    moved.drop()


async def test_all_at_once(serve: Serve, shared_store: Callable[[], Store]) -> None:
    """However many clients come to both workers at once, one generator begins."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, open_timeout=5)
    served = [await workers.start(), await workers.start()]
    tasks = [asyncio.create_task(opened(served[number % 2])) for number in range(20)]
    await until(lambda: feed.begun > 0)
    feed.feed("first", "second")
    streams = [await task for task in tasks]
    for stream in streams:
        assert ["second"] == await data(stream, 1) or ["second"] == await data(
            stream, 1
        )
        stream.drop()
    assert 1 == feed.begun


async def test_each_path_has_a_run_of_its_own(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """The path and its variables make the run; the handle says which it is."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed)
    one, other = await workers.start(), await workers.start()
    paths = ["/x", "/x/1", "/x/2", f"/x/{'n' * 700}"]
    for number, path in enumerate(paths):
        a = await opened(one, path)
        assert number + 1 == feed.begun
        assert path == feed.runs[number].path
        assert dict(feed.runs[number].match_info) == (
            {"room": path[3:]} if number else {}
        )
        b = await opened(other, path)
        feed.feed(path)
        assert [path] == await data(a, 1) == await data(b, 1)
        a.drop()
        b.drop()
    assert len(paths) == feed.begun


async def test_the_context_is_empty(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """The generator sees nothing of the request that happened to begin it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def handler(run: SharedRun) -> AsyncIterator[Any]:
        yield variable.get("empty")
        await asyncio.Event().wait()

    @web.middleware
    async def middleware(request: web.Request, handler: Any) -> Any:
        variable.set("the request's")
        return await handler(request)

    table = SSERouteTableDef()
    table.sse_route("/x", shared=True, resume=0)(handler)
    app = web.Application(middlewares=[middleware])
    setup(app, table, store=shared_store())
    served = await serve(app)
    stream = await opened(served)
    assert ["empty"] == await data(stream, 1)
    stream.drop()


async def test_history_is_of_the_present_run(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """A new client is given the last events, and none of a run before."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, history=3)
    one, other = await workers.start(), await workers.start()
    a = await opened(one)
    feed.feed(*"abcd", ...)
    assert list("abcd") == [event.data for event in await a.rest()]
    a = await opened(one)
    feed.feed("e")
    assert ["e"] == await data(a, 1)
    b = await opened(other)
    assert ["e"] == await data(b, 1)
    feed.feed(*"fgh")
    assert list("fgh") == await data(a, 3) == await data(b, 3)
    c = await opened(other)
    assert list("fgh") == await data(c, 3)
    assert [[], [], []] == [a.gaps, b.gaps, c.gaps]
    for stream in (a, b, c):
        stream.drop()


async def test_comments_and_nothing(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """An event without data carries no id of its own but that of a control event."""
    feed = Feed()
    served = await Workers(serve, shared_store, feed).start()
    stream = await opened(served)
    feed.feed(None, ServerSentEvent(comment="hello", retry=7000), "data")
    event = await stream.next()
    assert "data" == event.data
    [_, cursor] = stream.control
    assert ("sse-cursor", "{}") == (cursor.type, cursor.data)
    assert 7000 == stream.retry
    stream.drop()


async def test_comments_without_control_events(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """Without control events what has no data goes with the next that has."""
    feed = Feed()
    served = await Workers(serve, shared_store, feed, control_events=False).start()
    client = await RawClient.connect(served)
    await client.get("/x")
    await client.read_until(b"\r\n\r\n")
    feed.feed(ServerSentEvent(comment="hello"), "data")
    body = await client.read_until(b"data: data\n\n")
    assert b"\n: hello\ndata: data\n\n" in body
    assert b"sse-" not in body.lower().partition(b"\r\n\r\n")[2]


async def test_own_ids_are_refused(
    serve: Serve, shared_store: Callable[[], Store], caplog: Log
) -> None:
    """The ids of a shared run come from the store: an own one fails it."""
    feed = Feed()
    served = await Workers(serve, shared_store, feed).start()
    stream = await opened(served)
    feed.feed(ServerSentEvent("x", id="own"))
    await until(lambda: feed.closed == 1)
    await until(lambda: bool(caplog.records))
    assert caplog.records[-1].exc_info is not None
    assert "leave out id='own'" in str(caplog.records[-1].exc_info[1])
    stream.drop()


# -- how it begins ---------------------------------------------------------------------


async def test_a_status_before_the_first_yield(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """It answers those who wait for it; nothing of it is in the log."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, open_timeout=10)
    one, other = await workers.start(), await workers.start()
    for number, served in enumerate((one, other, one), 1):
        tasks = [asyncio.create_task(served.get("/x")) for _ in range(3)]
        await until(lambda number=number: feed.begun == number)  # type: ignore[misc]
        await until(lambda served=served: waiting(served) == 3)  # type: ignore[misc]
        feed.feed(web.HTTPNotFound(text="no such room"))
        for task in tasks:
            assert (404, b"no such room") == await task
    assert ([], []) == await log_of(workers.stores[0])
    # The lease was given back each time: it begins at once.
    coming = asyncio.create_task(opened(other))
    await until(lambda: feed.begun == 4)
    feed.feed("now")
    stream = await coming
    assert ["now"] == await data(stream, 1)
    stream.drop()


async def test_one_that_waits_elsewhere_has_a_status_of_its_own(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """Who waits at another worker is not left: there it begins, and fails, again."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, open_timeout=10)
    one, other = await workers.start(), await workers.start()
    first = asyncio.create_task(one.get("/x"))
    await until(lambda: feed.begun == 1)
    second = asyncio.create_task(other.get("/x"))
    await until(lambda: waiting(other) == 1)
    feed.feed(web.HTTPForbidden(text="not you"))
    assert (403, b"not you") == await first
    await until(lambda: feed.begun == 2)
    feed.feed(web.HTTPForbidden(text="not you"))
    assert (403, b"not you") == await second


async def test_a_refusal_after_the_open_timeout(
    serve: Serve, shared_store: Callable[[], Store], caplog: Log
) -> None:
    """A 4xx that comes late, before any event, ends it for all, on all workers."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, open_timeout=0.05)
    one, other = await workers.start(), await workers.start()
    a, b = await opened(one), await opened(other)
    feed.feed(web.HTTPGone())
    for stream in (a, b):
        assert [] == await stream.rest()
        _, error, end = stream.control
        assert "sse-error" == error.type
        assert ("sse-end", '{"reason":"disconnected"}') == (end.type, end.data)
        assert 204 == (await stream.resume()).status
        stream.drop()
    errors = {stream.control[1].data for stream in (a, b)}
    assert 1 == len(errors)
    assert json.loads(errors.pop())["ref"] in caplog.text


# -- how it ends -----------------------------------------------------------------------


async def test_it_ends_when_nobody_follows_anywhere(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """A client of another worker keeps it; ``resume`` after the last it is closed."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, resume=0)
    one, other = await workers.start(), await workers.start()
    a, b = await opened(one), await opened(other)
    feed.feed("a")
    await data(b, 1)
    a.drop()
    await until(lambda: not one.sse.connections)
    # Over several questions, of which each could have ended it.
    for number in range(5):
        await ask_again(one)
        feed.feed(number)
        assert [str(number)] == await data(b, 1)
    assert 0 == feed.closed
    b.drop()
    await until(lambda: feed.closed == 1, timeout=10)
    await eventually(lambda: marks_are(workers.stores[0], ["began", "stopped"]))
    c = await opened(other, last_event_id=b.last_event_id)
    await c.next("sse-gap")
    assert "unknown" == c.gaps[0]["reason"]
    assert 2 == feed.begun
    c.drop()


async def ask_again(served: Served) -> None:
    """Let the worker ask for its lease, and see the answer."""
    [run] = served.app[HUB_KEY].leased
    tenure = run.runner._tenure
    answered: asyncio.Event = asyncio.Event()
    before = tenure._on_answer

    def answer() -> None:
        before()
        answered.set()

    tenure._on_answer = answer
    tenure.ask()
    await answered.wait()
    tenure._on_answer = before


async def marks_are(store: Store, marks: list[str]) -> bool:
    """Return whether the log has these marks."""
    return (await log_of(store))[1] == marks


async def test_resume_0_ends_it_at_once(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """Without a resume time it is closed within a second of its last client."""
    feed = Feed()
    served = await Workers(serve, shared_store, feed, resume=0).start()
    stream = await opened(served)
    stream.drop()
    await until(lambda: feed.closed == 1, timeout=1)
    stream = await opened(served)
    feed.feed("anew")
    assert ["anew"] == await data(stream, 1)
    stream.drop()


async def test_a_finished_run(serve: Serve, shared_store: Callable[[], Store]) -> None:
    """All are told; who missed some has the rest; a new client begins a new run."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed)
    one, other = await workers.start(), await workers.start()
    a, b, c = await opened(one), await opened(other), await opened(other)
    feed.feed("one")
    await data(c, 1)
    c.drop()
    feed.feed("two", ...)
    for stream in (a, b):
        assert ["one", "two"] == [event.data for event in await stream.rest()]
        end = stream.control[-1]
        assert ("sse-end", '{"reason":"finished"}') == (end.type, end.data)
        assert 204 == (await stream.resume()).status
    for served in (one, other):
        late = await opened(served, last_event_id=c.last_event_id)
        assert "continued" == resumed(late)
        assert ["two"] == [event.data for event in await late.rest()]
        assert "sse-end" == late.control[-1].type
        # One that has everything, and was not told.
        full = await opened(served, last_event_id=b.events[-1].id)
        assert [] == await full.rest()
        assert "sse-end" == full.control[-1].type
    assert 1 == feed.begun
    third = await opened(other)
    assert "fresh" == resumed(third)
    feed.feed("anew")
    assert ["anew"] == await data(third, 1)
    assert 2 == feed.begun
    # The one before is not mixed up with it.
    late = await opened(one, last_event_id=c.last_event_id)
    assert ["two"] == [event.data for event in await late.rest()]
    assert "sse-end" == late.control[-1].type
    third.drop()


async def test_a_finished_run_without_control_events(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """The end is told by 204 alone, to who has everything."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, control_events=False)
    one, other = await workers.start(), await workers.start()
    streams = [await served.stream("/x").open() for served in (one, other)]
    feed.feed("one", "two", ...)
    for stream in streams:
        assert ["one", "two"] == [event.data for event in await stream.rest()]
        first, last = (event.id for event in stream.events)
        for served in (one, other):
            late = await served.stream("/x", last_event_id=first).open()
            assert ["two"] == [event.data for event in await late.rest()]
            assert 204 == (await served.stream("/x", last_event_id=last).open()).status
    assert 1 == feed.begun


async def test_reconnect(serve: Serve, shared_store: Callable[[], Store]) -> None:
    """All are sent away for a while, on all workers; who comes back is new."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed)
    one, other = await workers.start(), await workers.start()
    a, b = await opened(one), await opened(other)
    feed.feed("one", Reconnect(7))
    for stream in (a, b):
        assert ["one"] == [event.data for event in await stream.rest()]
        assert 7000 == stream.retry
    for number, stream in enumerate((a, b)):
        await stream.resume()
        await stream.next("sse-hello")
        assert "fresh" == resumed(stream)
        feed.feed(str(number))
        assert [str(number)] == await data(stream, 1)
    assert 2 == feed.begun
    assert [[], []] == [a.gaps, b.gaps]
    a.drop()
    b.drop()


# -- failures --------------------------------------------------------------------------


async def test_a_failed_run_begins_again(
    serve: Serve, shared_store: Callable[[], Store], caplog: Log
) -> None:
    """After a second, at the same worker; all who were there are told ``restarted``."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, history=2)
    one, other = await workers.start(), await workers.start()
    a, b = await opened(one), await opened(other)
    feed.feed("one")
    await data(a, 1)
    await data(b, 1)
    feed.feed(ValueError("secret"))
    await until(lambda: feed.closed == 1)
    await eventually(lambda: marks_are(workers.stores[0], ["began", "broken"]))
    new = [await opened(one), await opened(other)]
    for stream in new:
        assert ["one"] == await data(stream, 1), "the history is what there is"
    await until(lambda: feed.begun == 2)
    for stream in (a, b):
        gap = await stream.next("sse-gap")
        assert {"reason": "restarted", "after": stream.events[0].id} == stream.gaps[0]
        assert gap.id is not None
    feed.feed("two")
    for stream in (a, b, *new):
        assert ["two"] == await data(stream, 1)
    assert [[], []] == [stream.gaps for stream in new], "they have missed nothing"
    for served in (one, other):
        late = await opened(served, last_event_id=a.events[0].id)
        assert "gap" == resumed(late)
        assert ["two"] == await data(late, 1)
        assert "restarted" == late.gaps[0]["reason"]
        late.drop()
    assert "secret" in caplog.text
    for stream in (a, b, *new):
        stream.drop()


async def test_a_gap_without_control_events(
    serve: Serve, shared_store: Callable[[], Store], caplog: Log
) -> None:
    """Who is not told in the stream is sent back, and told in the header."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, control_events=False)
    served = await workers.start()
    stream = await served.stream("/x").open()
    feed.feed("one")
    await data(stream, 1)
    feed.feed(ValueError())
    await until(lambda: feed.begun == 2)
    assert [] == await stream.rest()
    await stream.resume()
    assert stream.response is not None
    assert "gap" == stream.response.headers["SSE-Resume"]
    feed.feed("two")
    assert ["two"] == await data(stream, 1)
    stream.drop()


# -- another takes over ----------------------------------------------------------------


async def test_a_worker_that_ends_hands_over(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """Its lease is given back: another begins at once, and tells ``restarted``."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, history=1)
    one, other = await workers.start(), await workers.start()
    a, b = await opened(one), await opened(other)
    feed.feed("one")
    assert ["one"] == await data(a, 1) == await data(b, 1)
    await one.close()
    await until(lambda: feed.begun == 2, timeout=1.5)
    assert 1 == generators(feed)
    await b.next("sse-gap")
    assert "restarted" == b.gaps[0]["reason"]
    feed.feed("two")
    assert ["two"] == await data(b, 1)
    a.drop()
    moved = await opened(other, last_event_id=a.last_event_id)
    assert ["two"] == await data(moved, 1)
    assert "restarted" == moved.gaps[0]["reason"]
    assert ["began", "broken", "began"] == (await log_of(workers.stores[1]))[1]
    places = [number_of(event.id) for event in b.events]
    assert places == sorted(set(places))
    b.drop()
    moved.drop()


def number_of(place: str | None) -> int:
    """Return the number of an id."""
    assert place is not None
    return int(place.rpartition(".")[2])


async def test_who_has_lost_its_lease_appends_nothing(
    serve: Serve, shared_store: Callable[[], Store], caplog: Log
) -> None:
    """The fence is the store's: what is yielded too late is in no log."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed)
    one, other = await workers.start(), await workers.start()
    a, b = await opened(one), await opened(other)
    feed.feed("one")
    assert ["one"] == await data(a, 1) == await data(b, 1)
    fence = fence_of(one)
    assert fence is not None
    await workers.stores[1].release(fence)
    feed.feed("too late", run=0)
    await until(lambda: feed.closed == 1)
    await until(lambda: feed.begun == 2)
    feed.feed("two")
    for stream in (a, b):
        assert ["two"] == await data(stream, 1)
        assert ["restarted"] == [gap["reason"] for gap in stream.gaps]
    assert ["one", "two"] == (await log_of(workers.stores[0]))[0]
    assert "lease is lost" in caplog.text
    a.drop()
    b.drop()


# -- the store -------------------------------------------------------------------------


class Flaky(SQLiteStore):
    """A store of which appends fail: before they are made, after, or for a while.

    Attributes:
        away: Whether all fail.
        chance: Decides whether one fails.
    """

    away = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.chance = random.Random(SEED)
        self.failures = 0

    async def append(
        self, channel: str, drafts: Sequence[Draft], **options: Any
    ) -> Appended:
        """See `Store.append`."""
        fails = self.chance.random() < 0.5
        if self.away or (fails and self.chance.random() < 0.5):
            self.failures += 1
            raise StoreUnavailable("away")
        done = await super().append(channel, drafts, **options)
        if fails:
            self.failures += 1
            raise StoreUnavailable("the answer was lost")
        return done


async def test_appends_that_fail_are_made_again(serve: Serve, tmp_path: Path) -> None:
    """What is not, or not known to be, in the log is appended once, and in order."""
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    feed = Feed()
    store = Flaky(tmp_path / "events.db")
    workers = Workers(serve, lambda: sqlite(tmp_path), feed)
    one, other = await workers.start(store), await workers.start()
    a, b = await opened(one), await opened(other)
    sent: list[str] = []
    for _ in range(12):
        more = [str(len(sent) + n) for n in range(store.chance.randrange(1, 20))]
        sent += more
        feed.feed(*more)
        assert more == await data(a, len(more)) == await data(b, len(more))
    assert store.failures
    assert sent == (await log_of(store))[0]
    assert [[], []] == [a.gaps, b.gaps]
    a.drop()
    b.drop()


async def test_the_generator_rests_while_the_store_is_away(
    serve: Serve, tmp_path: Path
) -> None:
    """Some events wait in memory, not more; nothing is lost when the store is back."""
    made = itertools.count()
    last = 0

    async def numbers(run: SharedRun) -> AsyncIterator[Any]:
        nonlocal last
        for last in made:
            yield last

    store = Flaky(tmp_path / "events.db")
    store.chance = random.Random(3)
    store.away = True
    workers = Workers(serve, lambda: store, numbers, open_timeout=0.01, replay=100000)
    served = await workers.start()
    stream = await opened(served)
    await until(lambda: store.failures > 2)
    assert 60 <= last <= 64
    store.away = False
    assert [str(n) for n in range(500)] == await data(stream, 500)
    stream.drop()


async def test_a_store_that_does_not_answer(serve: Serve, tmp_path: Path) -> None:
    """Nobody can know whether the run goes on: the client is asked to come later."""
    feed = Feed()

    class Silent(SQLiteStore):
        async def lease(self, *args: Any, **options: Any) -> Any:
            raise StoreUnavailable("away")

    store = Silent(tmp_path / "events.db")
    served = await Workers(serve, lambda: store, feed).start()
    status, body = await served.get("/x")
    assert 200 == status
    assert b'{"reason":"store"}' in body
    assert 0 == feed.begun


async def test_a_slow_client_is_given_its_run_s_end(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """Who reads late has the rest of its run and its end, and nothing of the next."""
    feed = Feed()
    workers = Workers(serve, shared_store, feed, replay_bytes=1 << 24)
    one, other = await workers.start(), await workers.start()
    slow = await RawClient.connect(other, rcvbuf=4096)
    await slow.get("/x")
    await slow.read_until(b"\n\n\r\n")
    large = [f"{number}" + "x" * 200_000 for number in range(20)]
    feed.feed(*large, ...)
    await until(lambda: feed.closed == 1)
    await eventually(lambda: marks_are(workers.stores[0], ["began", "finished"]))
    new = await opened(one)
    feed.feed("of the next")
    assert ["of the next"] == await data(new, 1)
    body = await slow.read_until(b"0\r\n\r\n", timeout=15)
    assert b"of the next" not in body
    assert b'{"reason":"finished"}' in body
    assert len(large) == body.count(b"data: ") - 2
    new.drop()


# -- random cuts and hand-overs --------------------------------------------------------


class Numbers:
    """A handler that yields its own number and a count, and pauses at random."""

    def __init__(self, chance: random.Random) -> None:
        self.begun = 0
        self.yielded = 0
        self._chance = chance

    async def __call__(self, run: SharedRun) -> AsyncIterator[Any]:
        """Yield ``generator.count``."""
        self.begun += 1
        turn = self.begun
        for count in itertools.count():
            yield f"{turn}.{count}"
            self.yielded += 1
            if self._chance.random() < 0.3:
                await asyncio.sleep(self._chance.random() * 0.01)


async def wander(
    workers: list[Served], chance: random.Random, enough: Callable[[], bool]
) -> list[str]:
    """Return what a client is given that goes from worker to worker, gaps too."""
    seen: list[str] = []
    place = ""
    while not enough() or len(seen) < 400:
        served = chance.choice(workers)
        stream = served.stream("/x", last_event_id=place)
        await stream.open()
        try:
            for _ in range(chance.randrange(1, 60)):
                gaps = len(stream.gaps)
                event = await stream.next()
                seen += [f"gap {gap['reason']}" for gap in stream.gaps[gaps:]]
                seen.append(event.data)
                if chance.random() < 0.01:
                    break
        except (StreamEnded, OSError):
            pass
        place = stream.last_event_id
        stream.drop()
    return seen


def check_numbers(seen: list[str]) -> None:
    """Check that within a turn nothing is missing, and a new turn is told."""
    last: tuple[int, int] | None = None
    told = True
    for item in seen:
        if item.startswith("gap"):
            assert item != "gap expired", seen
            told = True
            continue
        turn, count = map(int, item.split("."))
        if last is not None and turn == last[0]:
            assert count == last[1] + 1 or (told and count > last[1]), (last, item)
        elif last is not None:
            assert turn > last[0]
            assert told, f"{last}, then {item}, and no gap"
        last, told = (turn, count), False


@pytest.mark.timeout(60)
async def test_random_cuts_and_hand_overs(
    serve: Serve, shared_store: Callable[[], Store]
) -> None:
    """Whatever is cut and handed over, a client sees each turn whole, or is told."""
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    chance = random.Random(SEED)
    numbers = Numbers(chance)
    workers = Workers(serve, shared_store, numbers, replay=100_000, resume=5)
    live = [await workers.start(), await workers.start()]
    clients = [
        asyncio.create_task(
            wander(live, random.Random(SEED + n), lambda: numbers.begun > 4)
        )
        for n in range(4)
    ]
    for turn in range(1, 5):

        async def handed_over(turn: int = turn) -> bool:
            # As if their time had run out.
            for fence in filter(None, map(fence_of, live)):
                await workers.stores[0].release(fence)
            return numbers.begun > turn

        await until(lambda: numbers.yielded > 50, timeout=10)
        await eventually(handed_over, timeout=10)
        numbers.yielded = 0
    for client in clients:
        check_numbers(await client)
    assert numbers.begun > 2


def fence_of(served: Served) -> Fence | None:
    """Return the proof of the lease that *served* has, if it has one."""
    for run in served.app[HUB_KEY].leased:
        return run.runner._tenure.fence
    return None
