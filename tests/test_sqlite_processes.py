"""Several processes on one SQLite file: at work together, killed, stopped, forked."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from aiohttp_sse_routes.errors import LeaseLost
from aiohttp_sse_routes.logs.entry import Fence
from aiohttp_sse_routes.logs.sqlite import SQLiteStore

from .sqlite_worker import Refused, Worker
from .stores import Recorder, eventually, open_store, put, read_all

SEED = int(os.environ.get("SSE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
KILLS = int(os.environ.get("SSE_KILLS", "6"))
CHANNELS = ["c0", "c1", "c2"]

pytestmark = pytest.mark.timeout(120)

Start = Callable[[], Awaitable[Worker]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "events.db"


@pytest.fixture
async def start(path: Path) -> AsyncIterator[Start]:
    """Return what starts a process; in the end none is left."""
    workers: list[Worker] = []

    async def one() -> Worker:
        worker = await Worker.start(path)
        workers.append(worker)
        await worker.do("open")
        return worker

    yield one
    for worker in workers:
        await worker.kill()


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    """Return a store of this process, open."""
    store = SQLiteStore(path, max_events=100_000)
    await open_store(store, Recorder())
    yield store
    await store.close()


def follower(store: SQLiteStore) -> Recorder:
    """Return who follows *store*."""
    assert isinstance(store._follower, Recorder)
    return store._follower


async def lines_of(worker: Worker, count: int) -> list[str]:
    """Return the first *count* lines that a process says."""
    assert worker.process.stdout is not None
    read = worker.process.stdout.readline
    return [(await read()).decode().rstrip("\n") for _ in range(count)]


async def test_what_was_acknowledged_outlives_a_kill(path: Path, start: Start) -> None:
    """A process is killed at any moment: what it knew to be there is, once, in order.

    Two at a time append without end, until one is killed and then the other.
    """
    print(f"SSE_SEED={SEED}")  # noqa: T201 -- to run it again
    rng = random.Random(SEED)
    said: list[str] = []
    for _ in range(KILLS):
        workers = await asyncio.gather(start(), start())
        for worker in workers:
            worker.tell("flood", writers=rng.choice([1, 8, 50]))
        for worker in workers:
            said += await lines_of(worker, rng.randrange(1, 40))
            # Any moment is as good as another here: nothing is waited for.
            await asyncio.sleep(rng.random() * 0.05)
            rest = (await worker.kill()).decode()
            # What it was saying when it was killed is not known to be said.
            said += rest.split("\n")[:-1]
    known = dict(line.split(" ") for line in said)
    assert len(known) == len(said)
    store = SQLiteStore(path, max_events=1_000_000)
    await open_store(store)
    entries, floors = await read_all(store, CHANNELS)
    await store.close()
    assert {} == floors
    there = {str(entry.seq): entry.lines.decode() for entry in entries}
    assert len(set(there.values())) == len(there), "an event is there twice"
    for seq, text in known.items():
        assert there.get(seq) == text, f"SSE_SEED={SEED}: {seq} {text}"
    in_order: dict[str, int] = {}
    for entry in entries:
        writer, _, number = entry.lines.decode().rpartition(".")
        assert int(number) > in_order.get(writer, -1)
        in_order[writer] = int(number)


async def test_processes_see_each_others_events(
    store: SQLiteStore, start: Start
) -> None:
    """Each is given all entries of all, in one order, each once."""
    workers = [await start(), await start()]

    async def append(turn: int) -> None:
        worker = workers[turn % 2]
        for number in range(100):
            worker.tell("append", channel=f"c{number % 3}", text=f"{turn}.{number}")
            await put(store, "c0", f"{turn}.{number}")
        for _ in range(100):
            await worker.answer()

    await asyncio.gather(append(0), append(1))
    head = await store.head()
    assert 400 == head
    recorder = follower(store)
    await eventually(lambda: recorder.head == head)
    entries, _ = await read_all(store, CHANNELS)
    assert entries == recorder.entries
    told = [[e.seq, e.channel, e.lines.decode()] for e in entries]
    for worker in workers:

        async def all_told(worker: Worker = worker) -> bool:
            told_last: bool = (await worker.do("entries"))[-1:] == told[-1:]
            return told_last

        await eventually(all_told)
        first, *_ = mine = await worker.do("entries")
        assert told[told.index(first) :] == mine
        await worker.do("close")


async def test_others_events_come_soon(store: SQLiteStore, start: Start) -> None:
    """Another process is woken: it does not have to look, and to wait until it does."""
    worker = await start()
    recorder = follower(store)
    assert store._open is not None
    woken = 0
    wait = store._open._bell.wait

    def counting(seconds: float) -> bool:
        nonlocal woken
        rung = wait(seconds)
        woken += rung
        return rung

    store._open._bell.wait = counting  # type: ignore[method-assign]
    for turn in range(1, 21):
        await worker.do("append", channel="c", text="x")
        await eventually(lambda t=turn: recorder.head == t)  # type: ignore[misc]
    await eventually(lambda: woken > 10)


async def test_a_process_that_was_stopped_has_lost_its_lease(
    store: SQLiteStore, start: Start
) -> None:
    """Whoever slept beyond the time of its lease appends nothing when it wakes."""
    worker = await start()
    number, _ = await worker.do("lease", name="l", holder="worker", seconds=0.5)
    fence = ["l", number]
    await worker.do("append", channel="c", text="1", fence=fence)
    assert (await store.lease("l", "me", 60, wanted=True)).number is None
    worker.process.send_signal(signal.SIGSTOP)
    try:
        mine: list[int] = []

        async def taken() -> bool:
            lease = await store.lease("l", "me", 60, wanted=True)
            mine.extend([lease.number] if lease.number is not None else [])
            return bool(mine)

        await eventually(taken)
        worker.tell("append", channel="c", text="late", fence=fence)
        await put(store, "c", "2", fence=Fence("l", mine[0]))
    finally:
        worker.process.send_signal(signal.SIGCONT)
    with pytest.raises(Refused, match="LeaseLost"):
        await worker.answer()
    assert mine[0] > number
    entries, _ = await read_all(store, ["c"])
    assert [b"1", b"data: 2\n\n"] == [entry.lines for entry in entries]


async def test_a_lease_ends_by_itself(store: SQLiteStore) -> None:
    """A lease that is not renewed ends, though nobody else has asked for it."""
    lease = await store.lease("l", "me", 0.05, wanted=False)
    assert lease.number is not None
    until = time.monotonic() + 0.05
    await eventually(lambda: time.monotonic() > until)
    with pytest.raises(LeaseLost):
        await put(store, "c", "x", fence=Fence("l", lease.number))
    assert 0 == await store.head()


async def test_a_fork_is_told_to_open_a_store_of_its_own(
    store: SQLiteStore, start: Start
) -> None:
    """A store that was opened before a fork works on in the parent alone."""
    worker = await start()
    await worker.do("append", channel="c", text="1")
    said = await worker.do("fork")
    assert said.startswith("StoreError: ")
    assert "open one in each process, after the fork" in said
    await worker.do("append", channel="c", text="2")
    await worker.do("close")
    entries, _ = await read_all(store, ["c"])
    assert [b"1", b"2"] == [entry.lines for entry in entries]
    await eventually(lambda: follower(store).head == 2)
