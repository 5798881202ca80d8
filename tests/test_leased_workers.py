"""Shared runs over real worker processes, which are killed, paused and restarted.

Law: each worker is a process that the test has started and ends by its id. Times that
are asserted are the contract's, 10 s for a takeover; everything else is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout

from aiohttp_sse_routes.decoder import DecodedEvent
from aiohttp_sse_routes.logs.entry import Entry
from aiohttp_sse_routes.logs.store import Store
from aiohttp_sse_routes.streams.course import Mark
from aiohttp_sse_routes.testing import EventStream

from .leased_worker import NAME, PATH, store_of
from .redis_server import BINARY, RedisServer, port_of_its_own
from .stores import eventually, open_store

ROOT = Path(__file__).parents[1]

TAKEOVER = 10.0
"""Seconds within which another worker has taken over, by the contract."""


class WorkerProcess:
    """A worker, in a process of its own."""

    def __init__(self, session: ClientSession, kind: str, place: str) -> None:
        self.session = session
        self.port = port_of_its_own(self)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.leased_worker"),
                *(str(self.port), kind, place),
            ],
            cwd=ROOT,
        )

    @property
    def pid(self) -> str:
        """Its process id, as its events have it."""
        return str(self._process.pid)

    async def ready(self) -> None:
        """Return when it serves."""

        async def serves() -> bool:
            try:
                async with self.session.head(f"{self.url}{PATH}"):
                    return True
            except ClientError:
                return False

        await eventually(serves, timeout=20)

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    async def follow(self, last_event_id: str = "") -> EventStream:
        """Return a stream of the run, whose first event has come."""
        stream = EventStream(self.session, self.url + PATH, last_event_id=last_event_id)
        await stream.open()
        await stream.next(timeout=20)
        return stream

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End it, and return its status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
        return self._process.wait(20)


class Site:
    """The workers of one test, and their store.

    Attributes:
        store: The same log, in the test's own process.
        server: The Redis, where it is one.
    """

    def __init__(
        self, session: ClientSession, kind: str, place: str, server: RedisServer | None
    ) -> None:
        self.kind = kind
        self.place = place
        self.server = server
        self.store: Store = store_of(kind, place)
        self.workers: list[WorkerProcess] = []
        self._session = session

    async def start(self, count: int) -> list[WorkerProcess]:
        """Return *count* more workers that serve."""
        workers = [
            WorkerProcess(self._session, self.kind, self.place) for _ in range(count)
        ]
        self.workers += workers
        for worker in workers:
            await worker.ready()
        return workers

    async def read(self, what: str) -> list[Entry]:
        """Return all of the run's *what* in the log."""
        channel = f"\x01{what} {json.dumps([NAME, PATH, []])}"
        head, place = await self.store.head(), 0
        entries: list[Entry] = []
        while place < head:
            page = await self.store.read((channel,), place, head, limit=1 << 22)
            entries += page.entries
            place = page.place
        return entries

    async def marks(self) -> list[str]:
        """Return the kinds of the marks in the log."""
        return [Mark.of(entry).kind for entry in await self.read("marks")]


@contextlib.asynccontextmanager
async def at(kind: str, folder: Path) -> AsyncIterator[Site]:
    """Have a store, and what starts workers on it; all are ended."""
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            ClientSession(timeout=ClientTimeout(total=10))
        )
        server: RedisServer | None = None
        place = str(folder / "events.db")
        if kind == "redis":
            server = RedisServer(folder / "redis", appendonly="yes")
            place = stack.enter_context(server).url
        found = Site(session, kind, place, server)
        await open_store(found.store)
        stack.push_async_callback(found.store.close)
        try:
            yield found
        finally:
            for worker in found.workers:
                worker.end()


@pytest.fixture(params=["sqlite", "redis"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """Return a site, with each store in turn."""
    async with at(request.param, tmp_path) as found:
        yield found


@pytest.fixture
async def redis_site(tmp_path: Path) -> AsyncIterator[Site]:
    """Return a site with a Redis of its own."""
    if BINARY is None:
        pytest.skip("redis-server is not installed")
    async with at("redis", tmp_path) as found:
        yield found


def source(event: DecodedEvent) -> str:
    """Return which process has yielded *event*."""
    return event.data.partition(".")[0]


def check(stream: EventStream) -> None:
    """Check that ids grow, and that each generator's events are seen without a hole."""
    numbers = [int((event.id or "").rpartition(".")[2]) for event in stream.events]
    assert numbers == sorted(set(numbers))
    before: DecodedEvent | None = None
    changes = 0
    for event in stream.events:
        if before is not None and source(before) == source(event):
            count = int(event.data.partition(".")[2])
            assert count == int(before.data.partition(".")[2]) + 1
        elif before is not None:
            changes += 1
        before = event
    assert changes == len(stream.gaps), (changes, stream.gaps)
    assert {"restarted"} >= {gap["reason"] for gap in stream.gaps}


async def events_of(stream: EventStream, pid: str, *, timeout: float = 20) -> float:
    """Read until an event of process *pid* has come; return how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(timeout):
        while source(await stream.next(timeout=timeout)) != pid:
            pass
    return time.monotonic() - began


def in_order(one: WorkerProcess, other: WorkerProcess, stream: EventStream) -> None:
    """Check that *one* has the generator."""
    assert source(stream.events[-1]) == one.pid != other.pid


@pytest.mark.timeout(60)
async def test_a_killed_worker_is_followed_by_another(site: Site) -> None:
    """Within 10 s; who follows at the other sees all it had appended, and the gap."""
    one, other = await site.start(2)
    a = await one.follow()
    b = await other.follow()
    in_order(one, other, b)
    await b.collect(20)
    one.end(signal.SIGKILL)
    assert await events_of(b, other.pid) < TAKEOVER
    await b.collect(20)
    check(b)
    assert ["restarted"] == [gap["reason"] for gap in b.gaps]
    moved = await other.follow(a.last_event_id)
    assert ["restarted"] == [gap["reason"] for gap in moved.gaps]
    texts = [event.data for event in b.events]
    seen = [entry.lines[6:-2].decode() for entry in await site.read("events")]
    start = seen.index(texts[0])
    assert texts == seen[start : start + len(texts)], "nothing of the log is missing"
    for stream in (a, b, moved):
        stream.drop()


@pytest.mark.timeout(60)
async def test_a_paused_worker_that_wakes_appends_nothing(site: Site) -> None:
    """Its lease has gone: the log has nothing of it behind the other's beginning."""
    one, other = await site.start(2)
    a = await one.follow()
    b = await other.follow()
    in_order(one, other, b)
    one.send(signal.SIGSTOP)
    assert await events_of(b, other.pid) < TAKEOVER
    one.send(signal.SIGCONT)
    # It serves again, and its client is given the other's events behind a gap.
    await events_of(a, other.pid)
    await a.collect(100)
    await b.collect(100)
    [_, began] = await site.read("marks")
    late = [entry for entry in await site.read("events") if entry.seq > began.seq]
    assert {other.pid} == {
        entry.lines[6:].partition(b".")[0].decode() for entry in late
    }
    for stream in (a, b):
        check(stream)
        assert ["restarted"] == [gap["reason"] for gap in stream.gaps]
        stream.drop()


@pytest.mark.timeout(60)
async def test_a_worker_that_is_stopped_hands_over(site: Site) -> None:
    """It gives its lease back: another goes on well before that would have run out."""
    one, other = await site.start(2)
    a = await one.follow()
    b = await other.follow()
    in_order(one, other, b)
    stopped = asyncio.get_running_loop().run_in_executor(None, one.end, signal.SIGTERM)
    assert await events_of(b, other.pid) < TAKEOVER / 2
    assert 0 == await stopped
    await b.collect(20)
    check(b)
    assert ["began", "broken", "began"] == await site.marks()
    a.drop()
    b.drop()


@pytest.mark.timeout(60)
async def test_workers_that_start_at_once_have_one_generator(site: Site) -> None:
    """However the first requests fall, one process yields."""
    workers = await site.start(3)
    streams = await asyncio.gather(*(worker.follow() for worker in workers * 3))
    for stream in streams:
        await stream.collect(20)
        check(stream)
        assert not stream.gaps
    assert 1 == len({source(event) for s in streams for event in s.events})
    assert ["began"] == await site.marks()
    for stream in streams:
        stream.drop()


@pytest.mark.timeout(60)
async def test_it_ends_when_nobody_follows_at_any_worker(site: Site) -> None:
    """The last one's leaving counts, wherever it was; a new one begins a new run."""
    one, other = await site.start(2)
    a = await one.follow()
    b = await other.follow()
    a.drop()
    await b.collect(300)
    check(b)
    b.drop()

    async def ended() -> bool:
        return await site.marks() == ["began", "stopped"]

    await eventually(ended, timeout=15)
    c = await other.follow()
    assert other.pid == source(c.events[0])
    c.drop()


@pytest.mark.timeout(60)
async def test_redis_is_restarted_in_between(redis_site: Site) -> None:
    """The generator rests meanwhile; nothing is lost, and no gap is told."""
    one, other = await redis_site.start(2)
    assert redis_site.server is not None
    a = await one.follow()
    b = await other.follow()
    await b.collect(20)
    redis_site.server.restart()
    await a.collect(300, timeout=20)
    await b.collect(300, timeout=20)
    for stream in (a, b):
        check(stream)
        assert not stream.gaps
        stream.drop()


@pytest.mark.timeout(60)
async def test_redis_has_lost_everything(redis_site: Site) -> None:
    """All are told that the log is another one, and go on with a new beginning."""
    one, other = await redis_site.start(2)
    assert redis_site.server is not None
    a = await one.follow()
    b = await other.follow()
    await b.collect(20)
    redis_site.server.restart(empty=True)
    for stream in (a, b):
        await stream.next("sse-gap", timeout=20)
        assert "reset" == stream.gaps[0]["reason"]
        stream.events.clear()
        stream.gaps.clear()
        await stream.collect(50, timeout=20)
        check(stream)
        stream.drop()
