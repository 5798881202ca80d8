"""What every store promises of its life: opened, closed, opened again; nothing left.

Law: as in test_store_contract.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from aiohttp_sse_routes.cursor import parse
from aiohttp_sse_routes.errors import StoreError
from aiohttp_sse_routes.logs.entry import Fence
from aiohttp_sse_routes.logs.store import Store

from .stores import (
    Make,
    Recorder,
    Stores,
    eventually,
    given_all,
    open_store,
    put,
    read_all,
)

METHODS: dict[str, Callable[[Store], Coroutine[Any, Any, object]]] = {
    "append": lambda store: put(store, "c", "x"),
    "read": lambda store: store.read(["c"], 0, 1, limit=1),
    "newest": lambda store: store.newest(["c"], 1, 1),
    "head": lambda store: store.head(),
    "lease": lambda store: store.lease("l", "me", 1, wanted=True),
    "release": lambda store: store.release(Fence("l", 1)),
}


@pytest.mark.parametrize("method", METHODS)
async def test_a_closed_store_says_so(stores: Stores, method: str) -> None:
    """Before it was opened and after it was closed each method raises `StoreError`."""
    store = stores.new()
    with pytest.raises(StoreError):
        await METHODS[method](store)
    await open_store(store)
    await METHODS[method](store)
    await store.close()
    with pytest.raises(StoreError):
        await METHODS[method](store)


async def test_a_store_is_opened_once(stores: Stores) -> None:
    """Opening an open store is refused, and changes nothing for who has it."""
    [worker] = await stores.workers(1)
    done = await put(worker.store, "c", "a")
    with pytest.raises(StoreError):
        await worker.store.open(None, now=time.monotonic)
    then = await put(worker.store, "c", "b")
    assert then.generation == done.generation
    await given_all(worker, then.last)
    assert 2 == len(worker.recorder.entries)


async def test_closing_twice_is_closing_once(stores: Stores) -> None:
    """A store that is closed, or was never opened, may be closed."""
    store = stores.new()
    await store.close()
    await open_store(store)
    await asyncio.gather(store.close(), store.close())
    await store.close()


async def test_a_shared_log_outlives_its_stores(stores: Stores) -> None:
    """What all workers share is there for who opens it next; a log of one is anew."""
    [worker] = await stores.workers(1)
    store = worker.store
    done = await put(store, "c", "a", "b", idempotency_key="k")
    before, _ = await read_all(store, ["c"])
    lineage = store.lineage
    await store.close()
    for again in (store, stores.new() if store.shared else store):
        await open_store(again)
        assert again.lineage is not None
        assert lineage is not None
        if store.shared:
            assert again.lineage == lineage
            assert before == (await read_all(again, ["c"]))[0]
            repeated = await put(again, "c", "a", "b", idempotency_key="k")
            assert repeated == done._replace(repeated=True)
        else:
            assert again.lineage.generation != lineage.generation
            assert lineage.generation not in again.lineage.forks
            assert ([], {}) == await read_all(again, ["c"])
        assert (await put(again, "d", "c")).first > (done.last if store.shared else 0)
        await again.close()


async def test_a_proof_does_not_outlive_its_time(stores: Stores) -> None:
    """No lease that is given after opening again has the number of an old one."""
    store = await stores.open()
    first = (await store.lease("l", "one", 0.05, wanted=True)).number
    assert first is not None
    await store.close()
    await open_store(store)
    numbers: list[int] = []

    async def taken() -> bool:
        number = (await store.lease("l", "other", 60, wanted=True)).number
        numbers.extend([number] if number is not None else [])
        return number is not None

    await eventually(taken)
    assert numbers[0] > first


async def test_who_only_publishes_follows_nothing(stores: Stores) -> None:
    """Opened without a follower a store does everything else."""
    store = await stores.open(None)
    done = await put(store, "c", "a", "b")
    assert done.last == await store.head()
    assert 2 == len((await read_all(store, ["c"]))[0])
    assert done.first == await store.newest(["c"], 1, done.last)
    assert (await store.lease("l", "one", 1, wanted=False)).number is not None


async def test_an_id_is_a_place_in_the_log(stores: Stores) -> None:
    """The generation's name fits into an id, and the id leads back to the number."""
    store = await stores.open()
    done = await put(store, "c", "a")
    assert store.lineage is not None
    assert done.generation == store.lineage.generation
    cursor = parse(store.lineage.cursor(done.last))
    assert cursor is not None
    assert done.last == store.lineage.place(cursor)


async def test_a_store_is_made_without_touching_anything(stores: Stores) -> None:
    """Making one opens nothing: a server forks its workers with the store made."""
    before = _descriptors(), threading.active_count()
    made = [stores.new() for _ in range(3)]
    assert before == (_descriptors(), threading.active_count())
    assert [None] * 3 == [store.lineage for store in made]


async def test_nothing_is_left(make_store: Make, tmp_path: Path) -> None:
    """After closing there is no task, no thread, no open file more than before."""
    # What the first use of a module opens is not the store's.
    for turn in range(3):
        before = _left()
        stores = Stores(make_store, tmp_path)
        workers = await stores.workers(2)
        for worker in workers:
            await put(worker.store, "c", "x")
            await worker.store.lease("l", "me", 60, wanted=True)
            await read_all(worker.store, ["c"])
        await stores.close()
        del workers, worker, stores
        gc.collect()
        if turn:
            await eventually(lambda b=before: _left() == b, what=f"{before} again")  # type: ignore[misc]


def _left() -> tuple[int, int, int]:
    return len(asyncio.all_tasks()), threading.active_count(), _descriptors()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0


async def test_closing_in_the_midst_of_work_ends(stores: Stores) -> None:
    """Whoever waits when the store is closed is answered, or told by `StoreError`."""
    store = await stores.open(Recorder())
    await put(store, "c", *["x" * 100] * 50)
    tasks = [
        asyncio.create_task(method(store))
        for _ in range(10)
        for method in METHODS.values()
    ]
    await asyncio.sleep(0)
    await store.close()
    done, pending = await asyncio.wait(tasks, timeout=10)
    assert not pending
    for task in done:
        assert task.cancelled() or isinstance(task.exception(), StoreError | None)


async def test_the_loop_is_not_blocked(stores: Stores) -> None:
    """Nothing that waits for a disk or a network does so on the event loop."""
    made = [stores.new(max_events=20, max_age=0.2)]
    if made[0].shared:
        made.append(stores.new(max_events=20, max_age=0.2))
    recorder = Recorder()
    with blockbuster_ctx() as blocked:
        # A look at a file of the kernel's is nothing that waits.
        blocked.functions["os.stat"].deactivate()
        for store in made:
            await open_store(store, recorder if store is made[0] else None)
        async with stores.ticking():
            last = 0
            for turn in range(30):
                store = made[turn % len(made)]
                done = await put(store, "c", "x", "y", idempotency_key=f"{turn}")
                last = done.last
                await read_all(store, ["c"])
                await store.newest(["c"], 5, last)
                await store.lease("l", f"{turn}", 0.01, wanted=True)
            await eventually(lambda: recorder.head == last)
        await stores.close()
