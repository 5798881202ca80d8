"""What every store promises its follower: each entry, in order, once.

Law: as in test_store_contract.
"""

from __future__ import annotations

import asyncio
import random

from aiohttp_sse_routes.logs.entry import Entry

from .stores import (
    Recorder,
    Stores,
    eventually,
    given_all,
    open_store,
    put,
    read_all,
)

NAMES = ["c0", "c1", "c2"]


async def test_the_follower_is_given_what_is_read(stores: Stores) -> None:
    """Entries of all channels and workers come, with the block that has their id."""
    workers = await stores.workers(2)
    last = 0
    for turn in range(30):
        store = workers[turn % 2].store
        last = (await put(store, f"c{turn % 3}", *["x"] * (turn % 4 + 1))).last
    for worker in workers:
        await given_all(worker, last)
        entries, _ = await read_all(worker.store, NAMES)
        assert worker.recorder.entries == entries
        lineage = worker.store.lineage
        assert lineage is not None
        assert worker.recorder.blocks == [
            b"id: %b\n%b" % (lineage.cursor(entry.seq).encode(), entry.lines)
            for entry in entries
        ]
        assert [] == worker.recorder.lost


async def test_the_lineage_comes_first_and_once(stores: Stores) -> None:
    """Before any entry the follower is told of the log; no change of it is invented."""
    [worker] = await stores.workers(1)
    await put(worker.store, "c", "a")
    last = await put(worker.store, "c", "b")
    await given_all(worker, last.last)
    [(lineage, reset, before)] = worker.recorder.lineages
    assert (worker.store.lineage, True, 0) == (lineage, reset, before)


async def test_what_was_given_is_in_the_tail(stores: Stores) -> None:
    """The follower reads from memory what it was told of, and from where it may."""
    one, other = await stores.workers(2)
    done = await put(one.store, "c", *"abcdef")
    await put(other.store, "d", "x")
    await given_all(other, done.last)
    tail = other.store.tail
    blocks = other.recorder.blocks[: len("abcdef")]
    place = done.first - 1
    assert (blocks, done.last) == tail.after(["c"], place, done.last, 1 << 20)
    assert (blocks[2:4], done.first + 3) == tail.after(
        ["c"], done.first + 1, done.first + 3, 1 << 20
    )
    assert tail.floor("c") <= place
    assert tail.last("c") == done.last


async def test_a_follower_is_given_what_comes_from_now_on(stores: Stores) -> None:
    """What is in the log already is not handed on; the chain goes on behind it."""
    [one] = await stores.workers(1)
    if not one.store.shared:
        # The log of its own begins with its opening.
        assert [] == one.recorder.entries
        return
    before = [await put(one.store, name, "a", "b") for name in NAMES]
    recorder = Recorder()
    late = await stores.open(recorder)
    assert late.lineage == one.store.lineage
    assert late.tail.head >= before[-1].last
    done = await put(one.store, "c1", "c")
    await eventually(lambda: recorder.head == done.last)
    [entry] = recorder.entries
    assert entry.prev == before[1].last
    assert (await read_all(late, NAMES))[0] == (await read_all(one.store, NAMES))[0]


async def test_a_follower_that_comes_in_between_misses_nothing(
    stores: Stores,
) -> None:
    """Opened while others write: what it reads through its head, and what comes, join.

    This is what a reader does that comes back.
    """
    [one] = await stores.workers(1)
    if not one.store.shared:
        return
    writing = True

    async def write(name: str) -> None:
        while writing:
            await put(one.store, name, "x", "y")
            await asyncio.sleep(0)

    writers = [asyncio.create_task(write(name)) for name in NAMES]
    joined: list[tuple[int, Recorder, list[Entry]]] = []
    for _ in range(5):
        recorder = Recorder()
        store = await stores.open(recorder)
        head = store.tail.head
        joined.append((head, recorder, (await read_all(store, NAMES, 0, head))[0]))
    writing = False
    await asyncio.gather(*writers)
    last = (await put(one.store, "c0", "last")).last
    whole, _ = await read_all(one.store, NAMES)
    for head, recorder, entries in joined:
        await eventually(lambda r=recorder: r.head == last)  # type: ignore[misc]
        live = [entry for entry in recorder.entries if entry.seq > head]
        assert entries + live == whole


async def test_a_log_that_is_followed_moves_fast(stores: Stores) -> None:
    """Bursts from several at once come to every follower as they are in the log."""
    workers = await stores.workers(2, max_events=10_000)
    rng = random.Random(7)
    sizes = [[rng.choice([1, 1, 1, 50]) for _ in range(25)] for _ in range(8)]

    async def write(number: int) -> int:
        store, last = workers[number % 2].store, 0
        for size in sizes[number]:
            last = (await put(store, NAMES[number % 3], *["x"] * size)).last
        return last

    last = max(await asyncio.gather(*map(write, range(8))))
    for worker in workers:
        await given_all(worker, last)
        assert len(worker.recorder.entries) == sum(map(sum, sizes))
        newest: dict[str, int] = {}
        before = 0
        for entry in worker.recorder.entries:
            assert entry.seq > before
            assert entry.prev == newest.get(entry.channel, 0)
            newest[entry.channel] = before = entry.seq


async def test_nothing_comes_after_the_end(stores: Stores) -> None:
    """A store that was closed hands nothing on, though others go on writing."""
    one, other = await stores.workers(2)
    done = await put(one.store, "c", "a")
    for worker in (one, other):
        await given_all(worker, done.last)
    await other.store.close()
    if one.store.shared:
        done = await put(one.store, "c", "b")
        await given_all(one, done.last)
    assert 1 == len(other.recorder.entries)


async def test_what_was_accepted_before_the_end_is_there(stores: Stores) -> None:
    """An append whose caller was told of success is in the log, whenever it closes."""
    [one] = await stores.workers(1)
    if not one.store.shared:
        return
    writer = await stores.open()
    tasks = [asyncio.create_task(put(writer, "c", f"{n}", "x")) for n in range(50)]
    for _ in range(3):
        await asyncio.sleep(0)
    await writer.close()
    await asyncio.wait(tasks)
    numbers = {
        seq
        for task in tasks
        if not task.cancelled() and task.exception() is None
        for seq in (task.result().first, task.result().last)
    }
    entries, _ = await read_all(one.store, ["c"])
    assert numbers <= {entry.seq for entry in entries}
    await given_all(one, (await put(one.store, "c", "last")).last)
    assert len(one.recorder.entries) == len(entries) + 1


async def test_it_is_followed_anew_after_it_was_opened_again(stores: Stores) -> None:
    """Each opening has a follower of its own, for whom the log begins at its head."""
    first, second = Recorder(), Recorder()
    store = await stores.open(first)
    done = await put(store, "c", "a")
    await eventually(lambda: first.head == done.last)
    await store.close()
    last = 0
    if store.shared:
        meanwhile = await stores.open()
        last = (await put(meanwhile, "c", "meanwhile")).last
    await open_store(store, second)
    assert [(store.lineage, True, 0)] == second.lineages
    done = await put(store, "c", "b")
    await eventually(lambda: second.head == done.last)
    assert 1 == len(first.entries) == len(second.entries)
    assert second.entries[0].prev == last
    assert (last == 0) == (store.tail.floor("c") == 0)
