"""What every store promises, sentence by sentence: order, atomicity, gaps.

Law: each test runs on every store, knows nothing of its kind, and takes time as it is.
What another worker would do is done by a second store on the same log.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from aiohttp_sse_routes.logs.entry import Bounds, Draft, Entry
from aiohttp_sse_routes.logs.store import Store

from .stores import (
    NO_LIMIT,
    Stores,
    check_page,
    drafts,
    eventually,
    given_all,
    put,
    read_all,
)

NAMES = [
    "room:42",
    "with space and ünïcödé ☃",
    "{braces}*?[a]%s:$1'\"\\;--",
    "\x01shared:/ticker/{symbol}",
    "x" * 512,
]


def seqs(entries: list[Entry]) -> list[int]:
    """Return the numbers of *entries*."""
    return [entry.seq for entry in entries]


def check_chain(entries: list[Entry], first: dict[str, int] | None = None) -> None:
    """Check that each entry of a channel names the one before it."""
    newest = dict(first or {})
    for entry in entries:
        assert entry.prev == newest.get(entry.channel, 0), entry
        newest[entry.channel] = entry.seq


async def empty(store: Store, name: str) -> None:
    """Return when nothing of *name* is retained."""

    async def is_empty() -> bool:
        return not (await read_all(store, [name]))[0]

    await eventually(is_empty, what=f"{name} is empty")


# -- order -----------------------------------------------------------------------------


async def test_what_is_appended_is_read(stores: Stores) -> None:
    """Lines, key and channel come back as they were given, whatever is in them."""
    store = await stores.open()
    given = [
        Draft(b"data: hello\n\n"),
        Draft("event: ü\ndata: ☃\u2028\ndata: \n\n".encode(), "schlüssel\n'\""),
        Draft(b"json\ndata: " + b"x" * 1_000_000 + b"\n\n", "k" * 1000),
        Draft(b"data: \x01\x1f\xff\n\n", ""),
    ]
    for name in NAMES:
        done = await store.append(name, given)
        entries, floors = await read_all(store, [name])
        assert [(e.lines, e.key) for e in entries] == [(d.lines, d.key) for d in given]
        assert {entry.channel for entry in entries} == {name}
        assert seqs(entries) == list(range(done.first, done.last + 1))
        assert {} == floors


async def test_one_sequence_for_all_channels(stores: Stores) -> None:
    """Numbers grow over all channels, and each entry names the one before it."""
    store = await stores.open()
    assert 0 == await store.head() or store.shared
    place = await store.head()
    for turn in range(12):
        texts = [f"{turn}.{number}" for number in range(turn % 4 + 1)]
        done = await put(store, f"c{turn % 3}", *texts)
        assert store.lineage is not None
        assert done.generation == store.lineage.generation
        assert not done.repeated
        assert done.first > place
        assert done.last - done.first == len(texts) - 1
        place = done.last
        assert place == await store.head()
    entries, _ = await read_all(store, ["c0", "c1", "c2"])
    assert len(entries) == 30
    check_chain(entries)


async def test_sixteen_writers_make_one_order(stores: Stores) -> None:
    """However many write at once: no number twice, no append in another, one chain."""
    workers = await stores.workers(2)
    names = ["c0", "c1", "c2"]

    async def write(writer: int) -> list[tuple[int, int, list[bytes], str]]:
        store = workers[writer % 2].store
        done = []
        for turn in range(20):
            given = drafts(*(f"{writer}.{turn}.{n}" for n in range(turn % 4 + 1)))
            name = names[(writer + turn) % 3]
            at = await store.append(name, given)
            done.append((at.first, at.last, [d.lines for d in given], name))
        return done

    written = sorted(
        itertools.chain(*await asyncio.gather(*(write(n) for n in range(16))))
    )
    for worker in workers:
        entries, floors = await read_all(worker.store, names)
        assert {} == floors
        check_chain(entries)
        by_seq = {entry.seq: entry for entry in entries}
        assert len(by_seq) == len(entries) == sum(len(w[2]) for w in written)
        for first, last, lines, name in written:
            own = [by_seq[seq] for seq in range(first, last + 1)]
            assert [entry.lines for entry in own] == lines
            assert {entry.channel for entry in own} == {name}
        await given_all(worker, entries[-1].seq)
        assert worker.recorder.entries == entries


async def test_a_writers_appends_are_in_its_order(stores: Stores) -> None:
    """What one writer appends, one after the other without waiting, stays in order."""
    store = await stores.open()
    done = await asyncio.gather(*(put(store, "c", f"{n}") for n in range(100)))
    assert [at.first for at in done] == sorted(at.first for at in done)
    entries, _ = await read_all(store, ["c"])
    assert [e.lines for e in entries] == [
        d.lines for d in drafts(*map(str, range(100)))
    ]


# -- atomicity -------------------------------------------------------------------------


async def test_an_append_that_returned_is_there_for_everybody(stores: Stores) -> None:
    """As soon as `append` has returned, any worker reads it."""
    one, other = await stores.workers(2)
    for number in range(20):
        done = await put(one.store, "c", str(number), "b")
        assert await other.store.head() == done.last
        entries, _ = await read_all(other.store, ["c"], done.first - 1)
        assert seqs(entries) == [done.first, done.last]


async def test_nobody_reads_half_an_append(stores: Stores) -> None:
    """Through any head that the log ever had, each append is there whole."""
    one, other = await stores.workers(2)
    size = 10
    writing = True

    async def write(name: str) -> None:
        for turn in range(15):
            await put(one.store, name, *(f"{turn}" for _ in range(size)))

    async def read() -> int:
        reads = 0
        while writing:
            entries, _ = await read_all(other.store, ["a", "b", "c"])
            assert len(entries) % size == 0
            for start in range(0, len(entries), size):
                own = entries[start : start + size]
                assert len({(entry.channel, entry.lines) for entry in own}) == 1
            reads += 1
            await asyncio.sleep(0)
        return reads

    reading = asyncio.create_task(read())
    await asyncio.gather(*map(write, ["a", "b", "c"]))
    writing = False
    assert await reading > 0


async def test_a_cancelled_append_is_there_whole_or_not(stores: Stores) -> None:
    """Cancelling at any moment leaves no half, and a store that works as before."""
    [worker] = await stores.workers(1)
    store = worker.store
    for turns in range(30):
        task = asyncio.create_task(put(store, "c", *[f"{turns}"] * 5))
        for _ in range(turns % 10):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if turns % 3 == 0:
            await put(store, "c", *["between"] * 5)
    last = await put(store, "c", *["last"] * 5)
    entries, _ = await read_all(store, ["c"])
    assert entries[-1].seq == last.last
    check_chain(entries)
    for start in range(0, len(entries), 5):
        assert len({entry.lines for entry in entries[start : start + 5]}) == 1
    await given_all(worker, last.last)
    assert worker.recorder.entries == entries


@pytest.mark.parametrize("method", ["read", "newest", "head", "lease"])
async def test_a_cancelled_question_does_no_harm(stores: Stores, method: str) -> None:
    """Whatever was asked and not awaited, the next answer is right."""
    store = await stores.open()
    done = await put(store, "c", "a", "b")
    questions: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "read": lambda: store.read(["c"], 0, done.last, limit=1),
        "newest": lambda: store.newest(["c"], 1, done.last),
        "head": store.head,
        "lease": lambda: store.lease("l", "me", 60, wanted=True),
    }
    for turns in range(12):
        task = asyncio.create_task(questions[method]())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert done.last == await store.head()
    assert 2 == len((await read_all(store, ["c"]))[0])
    assert (await store.lease("l", "me", 60, wanted=True)).number is not None


# -- idempotency -----------------------------------------------------------------------


async def test_a_repeated_key_appends_once(stores: Stores) -> None:
    """A key that was given gives the first answer again, from any worker."""
    one, other = await stores.workers(2)
    first = await put(one.store, "c", "a", "b", idempotency_key="k ü\n")
    for worker in (one, other):
        again = await put(worker.store, "c", "another", idempotency_key="k ü\n")
        assert again == first._replace(repeated=True)
    elsewhere = await put(other.store, "d", "c", idempotency_key="k ü\n")
    assert not elsewhere.repeated
    assert not (await put(one.store, "c", "e", idempotency_key="")).repeated
    assert (await put(one.store, "c", "e", idempotency_key="")).repeated
    entries, _ = await read_all(one.store, ["c", "d"])
    assert [e.lines for e in entries] == [d.lines for d in drafts("a", "b", "c", "e")]


async def test_repetitions_at_the_same_time_append_once(stores: Stores) -> None:
    """Of many that bring one key at once, exactly one has appended."""
    workers = await stores.workers(2)
    for turn in range(5):
        done = await asyncio.gather(
            *(
                put(workers[n % 2].store, "c", "a", "b", idempotency_key=f"{turn}")
                for n in range(16)
            )
        )
        assert 1 == sum(not at.repeated for at in done)
        assert 1 == len({(at.generation, at.first, at.last) for at in done})
    assert 10 == len((await read_all(workers[0].store, ["c"]))[0])


async def test_a_key_outlives_its_events(stores: Stores) -> None:
    """A repetition is known also when nothing of the first time is retained."""
    store = await stores.open(max_events=2)
    first = await put(store, "c", "a", idempotency_key="k")
    await put(store, "c", "b", "c", "d")
    again = await put(store, "c", "a", idempotency_key="k")
    assert again == first._replace(repeated=True)


# -- pages -----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 40, 200, NO_LIMIT])
async def test_pages_join(stores: Stores, limit: int) -> None:
    """However small the pages, they give all, once, in order, from any place."""
    store = await stores.open()
    for turn in range(20):
        await put(store, f"c{turn % 3}", "x" * (turn % 5) * 20, "y")
    all_of, _ = await read_all(store, ["c0", "c1", "c2"])
    assert len(all_of) == 40
    for after in (0, all_of[0].seq, all_of[17].seq, all_of[-1].seq):
        for names in (["c0", "c1", "c2"], ["c1"], ["c2", "none"], ["none"]):
            entries, floors = await read_all(store, names, after, limit=limit)
            assert {} == floors
            assert entries == [
                e for e in all_of if e.seq > after and e.channel in names
            ]


async def test_a_page_ends_where_it_was_asked_to(stores: Stores) -> None:
    """Nothing above the last number that is wanted is returned, and it is the place."""
    store = await stores.open()
    done = await put(store, "c", *"abcdefghij")
    for through in range(done.first, done.last + 1):
        entries, _ = await read_all(store, ["c"], 0, through)
        assert seqs(entries) == list(range(done.first, through + 1))
    page = await store.read(["none"], 0, done.last, limit=1)
    assert ([], done.last, {}) == (list(page.entries), page.place, dict(page.floors))
    page = await store.read([], 0, done.last, limit=1)
    assert ([], done.last) == (list(page.entries), page.place)


async def test_many_channels_are_read_at_once(stores: Stores) -> None:
    """A reader may follow a thousand names."""
    store = await stores.open()
    names = [f"c{number}" for number in range(1000)]
    await asyncio.gather(*(put(store, name, name) for name in names[::10]))
    entries, floors = await read_all(store, names, limit=500)
    assert {} == floors
    assert sorted(entry.channel for entry in entries) == sorted(names[::10])
    assert seqs(entries) == sorted(seqs(entries))


async def test_the_newest_are_of_all_channels_together(stores: Stores) -> None:
    """From the place of the newest *count*, exactly those are read."""
    store = await stores.open(max_events=6)
    for turn in range(12):
        await put(store, f"c{turn % 3 and 1}", f"{turn}")
    head = await store.head()
    held, _ = await read_all(store, ["c0", "c1"])
    for through in (0, held[0].seq, held[5].seq, head):
        within = [entry for entry in held if entry.seq <= through]
        for count in (0, 1, 4, 100):
            place = await store.newest(["c0", "c1", "none"], count, through)
            entries, _ = await read_all(store, ["c0", "c1"], place, through)
            assert entries == (within[-count:] if count else [])
    place = await store.newest(["none"], 5, head)
    assert [] == (await read_all(store, ["none", "c0", "c1"], place, head))[0]


# -- bounds and gaps -------------------------------------------------------------------


async def retained(store: Store, name: str, given: list[int]) -> list[int]:
    """Return what *name* holds: an end of *given*, with all before it told as gone."""
    head = await store.head()
    page = await store.read([name], 0, head, limit=NO_LIMIT)
    check_page(page, [name], 0, head, NO_LIMIT)
    held = seqs(list(page.entries))
    gone = given[: len(given) - len(held)]
    assert held == given[len(gone) :]
    assert dict(page.floors) == ({name: gone[-1]} if gone else {})
    if held:
        assert page.entries[0].prev == (gone[-1] if gone else 0)
        check_chain(list(page.entries)[1:], {name: held[0]})
    return held


async def check_gaps(store: Store, name: str, given: list[int]) -> list[int]:
    """Check that from each place a gap is told if and only if there is one.

    Returns:
        What *name* holds of *given*.
    """
    held = await retained(store, name, given)
    gone = given[: len(given) - len(held)]
    head = await store.head()
    for place in {0, *given, *(seq - 1 for seq in given)}:
        told = (await store.read([name], place, head, limit=1)).floors
        missed = any(seq > place for seq in gone)
        assert dict(told) == ({name: gone[-1]} if missed else {})
    return held


async def test_a_channel_holds_so_many_events(stores: Stores) -> None:
    """Over the bound the oldest go, of that channel only, and exactly they are told."""
    store = await stores.open(max_events=5)
    given: dict[str, list[int]] = {"a": [], "b": []}
    for turn in range(14):
        name = "a" if turn % 5 else "b"
        done = await put(store, name, *["x"] * (turn % 3 + 1))
        given[name] += range(done.first, done.last + 1)
        for each, numbers in given.items():
            held = await check_gaps(store, each, numbers)
            assert len(held) == min(5, len(numbers))
    await put(store, "c", *map(str, range(12)))
    entries, _ = await read_all(store, ["c"])
    assert [e.lines for e in entries] == [
        d.lines for d in drafts(*map(str, range(7, 12)))
    ]


async def test_a_channel_holds_so_many_bytes(stores: Stores) -> None:
    """Over the bound in bytes the oldest go; the newest is held whatever its size."""
    most, head = 1000, 64  # what a store may add to the lines of an event
    store = await stores.open(max_bytes=most)
    given: list[int] = []
    sizes: dict[int, int] = {}
    for size in (100, 200, 300, 50, 400, 10, 10, 10, 5000, 10, 800, 190, 90):
        [draft] = drafts("x" * size)
        done = await store.append("c", [draft])
        given.append(done.first)
        sizes[done.first] = len(draft.lines)
        held = await check_gaps(store, "c", given)
        assert held[-1] == done.first
        assert len(held) == 1 or sum(sizes[seq] for seq in held) <= most
        if len(held) < len(given):
            more = given[-len(held) - 1 :]
            assert sum(sizes[seq] + head for seq in more) > most, "too much was dropped"


async def test_a_channel_may_have_bounds_of_its_own(stores: Stores) -> None:
    """What is given with each append of a channel holds for it, and for no other."""
    store = await stores.open(max_events=4)
    wide = Bounds(max_events=8)
    for turn in range(12):
        await put(store, "wide", f"{turn}", bounds=wide)
        await put(store, "own", f"{turn}")
    assert 8 == len((await read_all(store, ["wide"]))[0])
    assert 4 == len((await read_all(store, ["own"]))[0])


@pytest.mark.timeout(40)
async def test_an_event_is_held_for_its_age_and_then_goes(stores: Stores) -> None:
    """No event goes before its age, each goes after it, and what is gone is told."""
    age = 0.5
    store = await stores.open(max_age=age)
    given: list[int] = []
    born: dict[int, float] = {}

    async def check() -> list[int]:
        held = await retained(store, "c", given)
        now = time.monotonic()
        young = [seq for seq in given if now - born[seq] < age - 0.02]
        assert young == held[len(held) - len(young) :], "it went too early"
        return held

    async with stores.ticking():
        while not given or (await check())[:1] == given[:1]:
            before = time.monotonic()
            done = await put(store, "c", "x")
            given.append(done.first)
            born[done.first] = before
            await asyncio.sleep(0.02)
        await empty(store, "c")
        await check_gaps(store, "c", given)


@pytest.mark.timeout(40)
async def test_a_channel_of_which_nothing_is_left_goes_on(stores: Stores) -> None:
    """Its newest number is known: as the floor, and to its next entry, for anybody."""
    workers = await stores.workers(2, max_age=0.2)
    given: list[int] = []
    async with stores.ticking():
        for turn in range(4):
            worker = workers[turn % 2]
            done = await put(worker.store, "c", "a", "b")
            await given_all(worker, done.last)
            assert worker.recorder.entries[-2].prev == (given[-1] if given else 0)
            given += [done.first, done.last]
            for store, _ in workers:
                await empty(store, "c")
                await check_gaps(store, "c", given)


async def test_a_gap_is_told_by_every_worker(stores: Stores) -> None:
    """What one worker's appends have pushed out is gone for another as well."""
    one, other = await stores.workers(2, max_events=3)
    given: list[int] = []
    for turn in range(8):
        done = await put((one, other)[turn % 2].store, "c", "x")
        given.append(done.first)
        for worker in (one, other):
            assert len(await check_gaps(worker.store, "c", given)) == min(3, turn + 1)
