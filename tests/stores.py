"""The stores that the contract is held against, and what watches them.

Law: a store is known here by a function that makes it, and by nothing else. Objects
made with the same folder are on the same log, as the workers of one application are.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aiohttp_sse_routes.logs.entry import Appended, Draft, Entry, Lineage, Page
from aiohttp_sse_routes.logs.memory import MemoryStore
from aiohttp_sse_routes.logs.redis import RedisStore
from aiohttp_sse_routes.logs.sqlite import SQLiteStore
from aiohttp_sse_routes.logs.store import Store

from .helpers import no_tasks_left
from .pages import DOCS, blocks_of
from .redis_server import RedisServer

Make = Callable[..., Store]
"""Makes a store: of a folder, and of bounds as keywords."""

NO_LIMIT = 1 << 30


def memory(folder: Path, **bounds: Any) -> Store:
    """Make the store that is never needed by two."""
    return MemoryStore(**bounds)


def sqlite(folder: Path, **bounds: Any) -> Store:
    """Make a store on a file."""
    return SQLiteStore(folder / "events.db", **bounds)


def redis(url: str) -> Make:
    """Return what makes a store on the server at *url*: a namespace for each folder."""

    def make(folder: Path, **bounds: Any) -> Store:
        return RedisStore(url, namespace="-".join(folder.parts[-2:]), **bounds)

    return make


def guide() -> Make:
    """Return what makes the store that the guide for writing one shows."""
    names: dict[str, Any] = {"__name__": "guide"}
    for block in blocks_of(DOCS / "howto" / "write-a-store.md"):
        if block.language == "python":
            exec(block.text, names)
    make: Make = names["make_store"]
    return make


def named(name: str) -> Make:
    """Return what ``module:function`` names, as ``SSE_STORE`` does."""
    module, _, function = name.partition(":")
    make: Make = getattr(importlib.import_module(module), function)
    return make


def kinds() -> list[str]:
    """Return the names of the stores to be tried: ours, or the one of ``SSE_STORE``."""
    if "SSE_STORE" in os.environ:
        return [os.environ["SSE_STORE"]]
    return ["memory", "sqlite", "redis", "guide"]


@pytest.fixture(scope="session")
def contract_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Have one Redis for all tests of the contract; return its URL."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=kinds())
def make_store(request: pytest.FixtureRequest) -> Make:
    """Return what makes a store, of each kind in turn."""
    kind: str = request.param
    if kind == "redis":
        return redis(request.getfixturevalue("contract_redis"))
    if ":" in kind:
        return named(kind)
    return {"memory": memory, "sqlite": sqlite}.get(kind) or guide()


@pytest.fixture
async def stores(make_store: Make, tmp_path: Path) -> AsyncIterator[Stores]:
    """Return what makes the stores of one log; in the end nothing is left of them."""
    tasks = asyncio.all_tasks()
    made = Stores(make_store, tmp_path)
    yield made
    await made.close()
    await no_tasks_left(tasks)


class Recorder:
    """A follower that keeps what it is told, and checks that it can be.

    Attributes:
        entries: All that it was given, over all generations.
        blocks: Their blocks.
        lineages: Each lineage with whether it was a reset, and how many entries there
            were before it.
        missed: What it was told was gone before it came.
        lost: What it was told is lost.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.blocks: list[bytes] = []
        self.missed: list[Mapping[str, int]] = []
        self.lineages: list[tuple[Lineage, bool, int]] = []
        self.lost: list[Mapping[str, int]] = []
        self.store: Store | None = None
        self._known: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()

    def on_lineage(self, lineage: Lineage, *, reset: bool) -> None:
        """See `Follower.on_lineage`."""
        assert asyncio.get_running_loop() is self._loop
        self.lineages.append((lineage, reset, len(self.entries)))
        if reset:
            self._known.clear()

    def on_entries(self, entries: Sequence[Entry], blocks: Sequence[bytes]) -> None:
        """See `Follower.on_entries`."""
        assert asyncio.get_running_loop() is self._loop
        assert self.lineages, "entries before a lineage"
        assert len(entries) == len(blocks) > 0
        if self.store is not None:
            assert self.store.tail.head == entries[-1].seq, "not in the tail"
            self._check_chain(entries, self.store.tail.base)
        self.entries += entries
        self.blocks += blocks

    def on_missed(self, floors: Mapping[str, int]) -> None:
        """See `Follower.on_missed`."""
        assert asyncio.get_running_loop() is self._loop
        assert floors
        self.missed.append(floors)
        for name, through in floors.items():
            self._known[name] = max(through, self._known.get(name, 0))

    def _check_chain(self, entries: Sequence[Entry], base: int) -> None:
        """Fail where something is missing that was not told before."""
        for entry in entries:
            known = self._known.get(entry.channel, base)
            assert entry.prev <= known, f"behind {known} of its channel comes {entry}"
            self._known[entry.channel] = entry.seq

    def on_lost(self, channels: Mapping[str, int]) -> None:
        """See `Follower.on_lost`."""
        self.lost.append(channels)

    @property
    def head(self) -> int:
        """The newest number that it was given."""
        return self.entries[-1].seq if self.entries else 0


class Worker(NamedTuple):
    """A process of an application: its store, and what follows that."""

    store: Store
    recorder: Recorder


class Stores:
    """The stores of one test, all on one log.

    Args:
        make: Makes one.
        folder: Where, and under which name.
        **bounds: What a channel holds.
    """

    def __init__(self, make: Make, folder: Path, **bounds: Any) -> None:
        self._make = make
        self._folder = folder
        self._bounds = bounds
        self.all: list[Store] = []

    def new(self, **bounds: Any) -> Store:
        """Return one more store, not open yet."""
        store = self._make(self._folder, **{**self._bounds, **bounds})
        self.all.append(store)
        return store

    async def open(self, follower: Recorder | None = None, **bounds: Any) -> Store:
        """Return one more store, open, with its log reached."""
        store = self.new(**bounds)
        await open_store(store, follower)
        return store

    async def workers(self, count: int, **bounds: Any) -> list[Worker]:
        """Return so many followed stores; always the same if they cannot share."""
        recorder = Recorder()
        workers = [Worker(await self.open(recorder, **bounds), recorder)]
        for _ in range(count - 1):
            if workers[0].store.shared:
                recorder = Recorder()
                store = await self.open(recorder, **bounds)
                workers.append(Worker(store, recorder))
            else:
                workers.append(workers[0])
        return workers

    async def close(self) -> None:
        """Close all."""
        for store in self.all:
            await store.close()

    @contextlib.asynccontextmanager
    async def ticking(self) -> AsyncIterator[None]:
        """Tick all, as an application does, only faster."""

        async def tick() -> None:
            while True:
                for store in self.all:
                    if store.lineage is not None:
                        store.tick(time.monotonic())
                await asyncio.sleep(0.02)

        task = asyncio.create_task(tick())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def open_store(store: Store, follower: Recorder | None = None) -> None:
    """Open *store*, and return when its log was reached."""
    if follower is not None:
        follower.store = store
    await store.open(follower, now=time.monotonic)
    await eventually(lambda: store.lineage is not None, what="the log was reached")


async def eventually(
    condition: Callable[[], Awaitable[object] | object],
    *,
    timeout: float = 10.0,
    what: str = "",
) -> None:
    """Return when *condition* holds, which may be awaited; it is asked now and then."""
    limit = time.monotonic() + timeout
    while True:
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < limit, f"it never came about: {what or condition}"
        await asyncio.sleep(0.005)


def drafts(*texts: str, key: str | None = None) -> list[Draft]:
    """Return a draft for each of *texts*."""
    return [Draft(f"data: {text}\n\n".encode(), key) for text in texts]


async def put(store: Store, channel: str, *texts: str, **options: Any) -> Appended:
    """Append events with *texts*."""
    return await store.append(channel, drafts(*texts), **options)


async def read_all(
    store: Store,
    channels: Sequence[str],
    after: int = 0,
    through: int | None = None,
    *,
    limit: int = NO_LIMIT,
) -> tuple[list[Entry], dict[str, int]]:
    """Read page by page, as a reader does; return the entries, and the first floors.

    Each page is checked for what holds of any.
    """
    if through is None:
        through = await store.head()
    entries: list[Entry] = []
    floors: dict[str, int] = {}
    place = after
    while True:
        page = await store.read(channels, place, through, limit=limit)
        check_page(page, channels, place, through, limit)
        if place == after:
            floors = dict(page.floors)
        entries += page.entries
        place = page.place
        if place >= through:
            return entries, floors


def check_page(
    page: Page, channels: Sequence[str], after: int, through: int, limit: int
) -> None:
    """Check what holds of every page, whatever is in the log."""
    seqs = [entry.seq for entry in page.entries]
    assert seqs == sorted(set(seqs))
    assert all(after < seq <= through for seq in seqs)
    assert {entry.channel for entry in page.entries} <= set(channels)
    assert sum(len(entry.lines) for entry in page.entries[:-1]) <= limit
    assert set(page.floors) <= set(channels)
    assert all(floor > after for floor in page.floors.values())
    if page.place < through:
        assert seqs, "a page without an entry, and more to come"
        assert page.place >= seqs[-1]
    else:
        assert page.place == through


async def given_all(worker: Worker, through: int) -> None:
    """Return when what follows *worker* has been given everything through *through*."""
    recorder = worker.recorder
    await eventually(
        lambda: recorder.head >= through, what=f"{recorder.head} becomes {through}"
    )
