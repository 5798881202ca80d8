"""Channels against a model: random publishers, clients, cuts, restarts and trims.

Law: hundreds of clients a run, and for every one of them the promise is checked whole.
The seed is printed; ``SSE_SEED`` runs it again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from aiohttp_sse_routes import (
    SSE_KEY,
    Channels,
    MemoryStore,
    SSERouteTableDef,
    Store,
    StoreError,
    setup,
)
from aiohttp_sse_routes.cursor import parse
from aiohttp_sse_routes.http.hub import HUB_KEY
from aiohttp_sse_routes.logs.sqlite import SQLiteStore

try:
    from aiohttp_sse_routes.logs.redis import RedisStore
except ImportError:
    pass

from .model import ModelClient, Oracle
from .redis_server import Proxy, RedisServer

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
CLIENTS = 300
CHANNELS = [f"ch{number}" for number in range(30)]
PUBLISHERS = 16
CALLS = 60
"""Calls of each publisher."""

BOUND = 40
"""Events that a channel holds: fewer than are published while some clients are away."""


class Worker:
    """One worker of the application: a server of its own, a store object of its own."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self.port = 0
        self.app: web.Application | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Serve."""
        table = SSERouteTableDef()

        @table.sse_route("/f", retry=500)
        async def f(request: web.Request) -> Channels:
            return Channels(*request.query.getall("c"))

        app = web.Application()
        setup(app, table, store=self._make())
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.app = app

    async def stop(self) -> None:
        """End in good order."""
        runner, self._runner, self.app = self._runner, None, None
        if runner is not None:
            await runner.cleanup()


class Batch(NamedTuple):
    """Events that were published together."""

    channel: str
    numbers: list[int]


class Run:
    """One run: the workers, who publishes, and who follows."""

    def __init__(self, rng: random.Random, workers: list[Worker], oracle: Oracle):
        self.rng = rng
        self.workers = workers
        self.oracle = oracle
        self.ports: list[int] = []
        self.numbers = itertools.count(1)
        self.maybe: dict[int, Batch] = {}
        self.progress = 0
        self.clients: list[ModelClient] = []

    def look(self) -> None:
        """Note which workers serve."""
        self.ports[:] = [w.port for w in self.workers if w.app is not None]

    async def stop(self, worker: Worker) -> None:
        """Stop *worker*, when nobody knocks: asyncio forgets who does as it closes."""
        self.ports.remove(worker.port)
        while any(c.knocks_at == worker.port for c in self.clients):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await worker.stop()

    async def publish(self, channel: str, numbers: list[int]) -> bool:
        """Publish; note what is known of it."""
        up = [w.app for w in self.workers if w.app is not None]
        if not up:
            await asyncio.sleep(0.005)
            return False
        sse = self.rng.choice(up)[SSE_KEY]
        items = [{"c": channel, "n": number} for number in numbers]
        try:
            if len(items) == 1:
                cursors = [await sse.publish(channel, items[0])]
            else:
                cursors = await sse.publish_many(channel, items)
        except StoreError:
            # It may be in the log, or not.
            self.maybe.update(dict.fromkeys(numbers, Batch(channel, numbers)))
            await self.find(channel)
            return False
        for cursor, number in zip(cursors, numbers, strict=True):
            self.oracle.note(cursor, channel, number)
        return True

    async def find(self, channel: str) -> None:
        """Note what is in the log of *channel* and was not confirmed."""
        while True:
            await asyncio.sleep(0.01)
            for worker in [w for w in self.workers if w.app is not None]:
                assert worker.app is not None
                store = worker.app[HUB_KEY].broker.store
                try:
                    head = await store.head()
                    page = await store.read([channel], 0, head, limit=1 << 30)
                except StoreError:
                    continue
                assert store.lineage is not None
                for entry in page.entries:
                    number = int(entry.lines.partition(b'"n":')[2].partition(b"}")[0])
                    if number in self.maybe:
                        self.found(store.lineage.cursor(entry.seq), number)
                return

    def found(self, cursor: str, number: int) -> None:
        """Note that *number* is in the log, at *cursor*, and its batch around it."""
        batch = self.maybe[number]
        place = parse(cursor)
        assert place is not None
        for other in batch.numbers:
            del self.maybe[other]
            at = replace(place, seq=place.seq + other - number)
            self.oracle.note(str(at), batch.channel, other)

    async def publisher(self) -> None:
        """Publish at random."""
        rng = self.rng
        for _ in range(CALLS):
            count = rng.choice([1, 1, 1, 1, 1, 2, 5, BOUND + 10])
            numbers = [next(self.numbers) for _ in range(count)]
            await self.publish(rng.choice(CHANNELS), numbers)
            self.progress += 1
            for _ in range(rng.randrange(4)):
                await asyncio.sleep(0)
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() * 0.03)

    async def mark(self) -> None:
        """Publish marks until every client has seen them."""
        for number in itertools.count(1):
            open_channels = {
                name for c in self.clients if not c.done for name in c.channels
            }
            if not open_channels:
                return
            for name in sorted(open_channels):
                await self.publish(name, [-number * 1000 - CHANNELS.index(name)])
            await asyncio.sleep(0.1)


async def play(
    run: Run, disturb: Callable[[Run], Any], *, seconds: float = 100.0
) -> None:
    """Let everything happen at once, then check every client."""
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    rng = run.rng
    async with asyncio.timeout(seconds), AsyncExitStack() as stack:
        for worker in run.workers:
            await worker.start()
            stack.push_async_callback(worker.stop)
        run.look()
        clients = run.clients = [
            ModelClient(
                number,
                rng.sample(CHANNELS, rng.choice([1, 1, 2, 3, 6])),
                random.Random(f"{SEED} {number}"),
                run.ports,
            )
            for number in range(CLIENTS)
        ]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run())
            await asyncio.wait_for(
                asyncio.gather(*[c.greeted.wait() for c in clients]), 30
            )
            publishers = [group.create_task(run.publisher()) for _ in range(PUBLISHERS)]
            await disturb(run)
            await asyncio.wait(publishers)
            for client in clients:
                client.calm = True
            await run.mark()
    for client in clients:
        for event in client.seen:
            if not event.type.startswith("sse-"):
                note(run, event.last_event_id, event.data)
    for client in clients:
        run.oracle.check(client)
    assert sum(client.cuts for client in clients) > CLIENTS


def note(run: Run, cursor: str, data: str) -> None:
    """Let the oracle know of what was published and not confirmed."""
    found = json.loads(data)
    known = run.oracle.log.get(run.oracle.key(cursor))
    if known is not None:
        assert known == (found["c"], found["n"]), f"{cursor} was given for {known}"
    else:
        batch = run.maybe.get(found["n"])
        assert batch is not None, f"nobody published {data}"
        assert batch.channel == found["c"], f"{data} is of another channel"
        run.found(cursor, found["n"])


async def when(run: Run, share: float) -> None:
    """Return when that share of all calls has been made."""
    while run.progress < share * PUBLISHERS * CALLS:  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def undisturbed(run: Run) -> None:
    """Do nothing but cuts and trims, which come by themselves."""


async def restarts(run: Run) -> None:
    """Restart each worker, in good order, in the midst of it."""
    for share in (0.2, 0.4, 0.6):
        await when(run, share)
        worker = run.rng.choice(run.workers)
        await run.stop(worker)
        await asyncio.sleep(0.05)
        await worker.start()
        run.look()


@pytest.mark.timeout(120)
async def test_memory() -> None:
    """One worker, its log in memory: every gap is told, and none that is none."""
    workers = [Worker(lambda: MemoryStore(max_events=BOUND))]
    oracle = Oracle(numbers_restart=True, may_reset=False)
    await play(Run(random.Random(SEED), workers, oracle), undisturbed)


@pytest.mark.timeout(120)
async def test_memory_restarted() -> None:
    """With the worker its log is gone: whoever comes back is told, and goes on."""
    workers = [Worker(lambda: MemoryStore(max_events=BOUND))]
    oracle = Oracle(numbers_restart=True, may_reset=True)
    await play(Run(random.Random(SEED), workers, oracle), restarts)


@pytest.mark.timeout(120)
async def test_sqlite(tmp_path: Path) -> None:
    """Two workers on one file, each restarted: nothing is lost by that."""
    path = tmp_path / "events.db"
    workers = [Worker(lambda: SQLiteStore(path, max_events=BOUND)) for _ in range(2)]
    oracle = Oracle(numbers_restart=False, may_reset=False)
    await play(Run(random.Random(SEED), workers, oracle), restarts)


def redis_workers(url: str) -> list[Worker]:
    """Return two workers on one Redis."""
    return [Worker(lambda: RedisStore(url, max_events=BOUND)) for _ in range(2)]


@pytest.fixture
def server(tmp_path: Path) -> Any:
    """Return a Redis that keeps everything, at once."""
    with RedisServer(tmp_path / "redis", appendonly="yes") as one:
        yield one


@pytest.mark.timeout(120)
async def test_redis(server: RedisServer) -> None:
    """Killed and restarted with its data, its messages cut: nothing is lost."""

    async def disturb(run: Run) -> None:
        await when(run, 0.2)
        await asyncio.to_thread(server.restart)
        await when(run, 0.4)
        await asyncio.to_thread(server.command, "CLIENT", "KILL", "TYPE", "pubsub")
        await restarts(run)
        await when(run, 0.7)
        await asyncio.to_thread(server.restart)

    oracle = Oracle(numbers_restart=False, may_reset=False)
    run = Run(random.Random(SEED), redis_workers(server.url), oracle)
    await play(run, disturb)


@pytest.mark.timeout(120)
async def test_redis_emptied(server: RedisServer) -> None:
    """Restarted without its data, and emptied while it runs: all are told."""

    async def disturb(run: Run) -> None:
        await when(run, 0.3)
        await asyncio.to_thread(server.restart, empty=True)
        await when(run, 0.6)
        await asyncio.to_thread(server.command, "FLUSHALL")

    oracle = Oracle(numbers_restart=False, may_reset=True)
    run = Run(random.Random(SEED), redis_workers(server.url), oracle)
    await play(run, disturb)


@pytest.mark.timeout(120)
async def test_redis_failover(tmp_path: Path) -> None:
    """A replica is promoted while writes go on: what it did not have is told."""
    with (
        RedisServer(tmp_path / "one") as one,
        RedisServer(tmp_path / "two", replicaof=f"127.0.0.1 {one.port}") as two,
    ):
        async with Proxy(one.port) as proxy:

            async def disturb(run: Run) -> None:
                await when(run, 0.4)
                one.kill()
                await asyncio.to_thread(two.command, "REPLICAOF", "NO", "ONE")
                await proxy.move(two.port)

            oracle = Oracle(numbers_restart=False, may_reset=True)
            run = Run(random.Random(SEED), redis_workers(proxy.url), oracle)
            await play(run, disturb)
