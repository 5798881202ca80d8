"""What is SQLiteStore's own: arguments, shared transactions, time, generations."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from aiohttp_sse_routes.cursor import Cursor
from aiohttp_sse_routes.errors import ConfigurationError, StoreError
from aiohttp_sse_routes.logs.entry import Fence
from aiohttp_sse_routes.logs.sqlite import SQLiteStore, log
from aiohttp_sse_routes.logs.sqlite.host import Host
from aiohttp_sse_routes.logs.sqlite.read import entries_after
from aiohttp_sse_routes.logs.store import IDEMPOTENCY_SECONDS

from .stores import Recorder, drafts, eventually, open_store, put, read_all

Make = Callable[..., SQLiteStore]


class FakeHost(Host):
    """A host whose clocks stand still, and can be set."""

    def __init__(self, boot: str = "first", uptime: float = 100.0) -> None:
        super().__init__()
        self.boot = boot
        self.up = uptime
        self.now = 1_800_000_000.0

    def uptime(self) -> float:
        """See `Host.uptime`."""
        return self.up

    def wall(self) -> float:
        """See `Host.wall`."""
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "events.db"


@pytest.fixture
async def make(path: Path) -> AsyncIterator[Make]:
    """Return what makes a store on one file; in the end all are closed."""
    made = []

    def new(host: Host | None = None, **options: Any) -> SQLiteStore:
        store = SQLiteStore(options.pop("path", path), **options)
        if host is not None:
            store._host = host
        made.append(store)
        return store

    yield new
    for store in made:
        await store.close()


def connection(store: SQLiteStore) -> sqlite3.Connection:
    """Return the connection that *store* writes by."""
    assert store._open is not None
    db = store._open.writer._session.db
    assert db is not None
    return db


def rows(path: Path, sql: str) -> list[Any]:
    """Return what the file says to *sql*."""
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def lines(*texts: str) -> list[bytes]:
    """Return the lines of events with *texts*."""
    return [draft.lines for draft in drafts(*texts)]


# -- arguments and life ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": ""}, "path of a file"),
        ({"path": b"x"}, "path of a file"),
        ({"path": None}, "path of a file"),
        ({"path": "a\0b"}, "path of a file"),
        ({"path": ":memory:"}, "MemoryStore"),
        ({"path": "file:x?mode=memory"}, "MemoryStore"),
        ({"wait": -1}, "wait"),
        ({"wait": float("nan")}, "wait"),
        ({"wait": "1"}, "wait"),
        ({"memory": -1}, "memory"),
        ({"memory": 1.5}, "memory"),
        ({"durable": 1}, "durable"),
        ({"max_events": 0}, "max_events"),
        ({"max_age": 0}, "max_age"),
        ({"max_bytes": 0}, "max_bytes"),
    ],
)
def test_a_wrong_argument_fails_at_once(arguments: dict[str, Any], said: str) -> None:
    """A store that could never work is not made, and the text names what is wrong."""
    with pytest.raises(ConfigurationError, match=said):
        SQLiteStore(**{"path": "x.db", **arguments})


def test_making_a_store_touches_no_file(tmp_path: Path) -> None:
    """Before it is opened there is neither a file nor a thread."""
    before = threading.active_count()
    SQLiteStore(tmp_path / "none" / "x.db")
    SQLiteStore(tmp_path / "x.db")
    assert [] == list(tmp_path.iterdir())
    assert before == threading.active_count()


async def test_a_relative_path_is_of_the_folder_where_the_store_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that changes its folder later still opens the same file."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("x.db")
    monkeypatch.chdir("/")
    await open_store(store)
    await store.close()
    assert ["x.db"] == os.listdir(tmp_path)


async def test_a_closed_store_is_one_file(make: Make, path: Path) -> None:
    """After the last one closed, all is in the file, with nothing beside it."""
    first, second = make(), make()
    await open_store(first)
    await open_store(second)
    for turn in range(200):
        await put(first, "c", f"{turn}" * 500)
    assert ["events.db", "events.db-shm", "events.db-wal"] == sorted(
        os.listdir(path.parent)
    )
    await first.close()
    await second.close()
    assert ["events.db"] == os.listdir(path.parent)
    assert [] == rows(path, "SELECT address FROM process")
    assert [("ok",)] == rows(path, "PRAGMA integrity_check")


async def test_what_was_accepted_is_done_before_the_end(make: Make) -> None:
    """Closing waits for the appends that were asked for, and they succeed."""
    store = make()
    await open_store(store)
    tasks = [asyncio.create_task(put(store, "c", f"{n}")) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert list(range(1, 51)) == sorted([(await task).first for task in tasks])
    await open_store(store)
    assert 50 == await store.head()


async def test_a_closed_store_says_so(make: Make) -> None:
    """Whoever asks a store that is not open learns that by a clear error."""
    store = make()
    with pytest.raises(StoreError, match="is not open"):
        await put(store, "c", "x")
    await open_store(store)
    with pytest.raises(StoreError, match="is open already"):
        await store.open(None, now=lambda: 0.0)
    await put(store, "c", "x")


# -- shared transactions ---------------------------------------------------------------


async def test_appends_that_wait_share_a_transaction(make: Make) -> None:
    """A thousand at once are few transactions, and each has its own answer."""
    store, recorder = make(max_events=5000), Recorder()
    await open_store(store, recorder)
    said: list[str] = []
    connection(store).set_trace_callback(said.append)
    done = await asyncio.gather(*(put(store, "c", f"{n}") for n in range(1000)))
    connection(store).set_trace_callback(None)
    assert 1 <= said.count("COMMIT") <= 20
    assert list(range(1, 1001)) == [at.first for at in done]
    assert 1000 == len(recorder.entries)


async def test_one_that_is_refused_harms_no_other(make: Make) -> None:
    """What cannot be stored, or has lost its lease, fails alone in its transaction."""
    store = make()
    await open_store(store)
    lease = await store.lease("l", "me", 60, wanted=False)
    assert lease.number is not None
    fence = Fence("l", lease.number)
    await store.release(fence)
    answers = await asyncio.gather(
        put(store, "c", "1"),
        put(store, "c", "bad", idempotency_key="\ud800"),
        put(store, "c", "late", fence=fence),
        put(store, "c", "2"),
        put(store, "\ud800", "bad"),
        put(store, "c", "3"),
        return_exceptions=True,
    )
    failed = [n for n, answer in enumerate(answers) if isinstance(answer, Exception)]
    assert [1, 2, 4] == failed
    assert all(isinstance(answers[n], StoreError) for n in failed)
    entries, _ = await read_all(store, ["c"])
    assert lines("1", "2", "3") == [entry.lines for entry in entries]


async def test_a_follower_that_fails_harms_nobody(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """What a follower raises is logged; appends are answered all the same."""

    class Failing(Recorder):
        def on_entries(self, entries: Any, blocks: Any) -> None:
            raise ZeroDivisionError

    store = make()
    await open_store(store, Failing())
    assert 1 == (await put(store, "c", "x")).first
    assert "a store's follower failed" in caplog.text


async def test_what_others_append_comes_without_a_bell(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no process can wake another, entries are seen by looking."""
    monkeypatch.setattr("aiohttp_sse_routes.logs.sqlite.bell.sys.platform", "other")
    first, second, recorder = make(), make(), Recorder()
    await open_store(first)
    await open_store(second, recorder)
    for turn in range(5):
        done = await put(first, "c", f"{turn}")
        await eventually(lambda d=done: recorder.head == d.last)  # type: ignore[misc]
    assert 5 == len(recorder.entries)


async def test_a_process_that_has_gone_is_rung_no_more(make: Make, path: Path) -> None:
    """Of a process that was killed nothing is left after the next appends."""
    store = make()
    await open_store(store, Recorder())
    assert store._open is not None
    network = store._open._bell.network
    db = sqlite3.connect(path)
    with db:
        db.execute("INSERT INTO process VALUES ('dead', ?)", (network,))
    db.close()
    await put(store, "c", "1")
    await put(store, "c", "2")
    assert [(store._open._bell.address,)] == rows(path, "SELECT address FROM process")


async def test_a_burst_of_others_comes_in_order(make: Make) -> None:
    """Many entries of others, and one's own among them, are handed on in order once."""
    writer, recorder = make(max_events=20_000), Recorder()
    store = make(max_events=20_000)
    await open_store(writer)
    await open_store(store, recorder)

    async def burst(into: SQLiteStore, count: int) -> None:
        for turn in range(count):
            await into.append(f"c{turn % 3}", drafts(*map(str, range(50))))

    with blockbuster_ctx():
        await asyncio.gather(*(burst(writer, 20) for _ in range(8)), burst(store, 20))
    await eventually(lambda: recorder.head == 9000)
    assert list(range(1, 9001)) == [entry.seq for entry in recorder.entries]


# -- time ------------------------------------------------------------------------------


async def test_what_is_gone_is_told_exactly(make: Make, path: Path) -> None:
    """A floor above the entries that are handed on is told as it is."""
    store = make(max_events=3)
    await open_store(store)
    for name, texts in (("a", "1"), ("b", "1"), ("a", "234567")):
        await put(store, name, *texts)
    db = sqlite3.connect(path)
    entries, gone = entries_after(db, 0, count=1, limit=1 << 20)
    assert [("b", 2)] == [(entry.channel, entry.seq) for entry in entries]
    assert {"a": 5} == gone
    entries, gone = entries_after(db, 2, count=9, limit=1 << 20)
    assert ([6, 7, 8], {"a": 5}) == ([entry.seq for entry in entries], gone)
    db.close()


async def test_a_quiet_channel_ages(make: Make) -> None:
    """What is too old goes without an append; its newest number is known for ever."""
    host = FakeHost()
    store = make(host, max_age=10)
    await open_store(store)
    last = 0
    for turn in range(1200):
        last = (await put(store, f"c{turn % 4}", "x")).last
    host.up += 9.9
    store.tick(0)
    await put(store, "new", "y")
    assert 300 == len((await read_all(store, ["c3"]))[0])
    host.up += 0.1
    store.tick(0)

    async def gone() -> bool:
        return not (await read_all(store, ["c0", "c1", "c2", "c3"]))[0]

    await eventually(gone)
    page = await store.read(["c3", "new", "none"], 5, last + 1, limit=1000)
    assert {"c3": last} == page.floors
    assert [last + 1] == [entry.seq for entry in page.entries]
    again = await put(store, "c3", "z")
    page = await store.read(["c3"], last, again.last, limit=1000)
    assert ({}, last) == (page.floors, page.entries[0].prev)


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
async def test_a_clock_that_is_set_changes_no_age(make: Make, step: float) -> None:
    """Ages are those of the running host, wherever the wall clock is put."""
    host = FakeHost()
    store = make(host, max_age=10)
    await open_store(store)
    first = await put(store, "c", "1", idempotency_key="k")
    host.now += step
    host.up += 5
    store.tick(0)
    other = make(host, max_age=10)
    await open_store(other)
    second = await put(other, "c", "2")
    assert (await put(store, "c", "1", idempotency_key="k")).repeated
    page = await store.read(["c"], 0, second.last, limit=1000)
    assert [first.first, second.first] == [entry.seq for entry in page.entries]
    host.up += 5
    await put(store, "d", "3")
    page = await store.read(["c"], 0, second.last, limit=1000)
    assert ([second.first], {"c": 1}) == ([e.seq for e in page.entries], page.floors)


async def test_a_clock_set_back_over_a_boot_changes_no_age(make: Make) -> None:
    """After a boot with a wrong clock, events are as old as they were at least."""
    store = make(FakeHost(), max_age=10)
    await open_store(store)
    await put(store, "c", "1")
    await store.close()
    host = FakeHost("second", 1.0)
    host.now -= 86_400
    store = make(host, max_age=10)
    await open_store(store)
    host.up += 9
    second = await put(store, "c", "2")
    assert 2 == len((await read_all(store, ["c"]))[0])
    host.up += 1
    await put(store, "d", "3")
    page = await store.read(["c"], 0, second.last, limit=1000)
    assert [second.first] == [entry.seq for entry in page.entries]


async def test_a_key_is_forgotten_after_its_time(make: Make, path: Path) -> None:
    """A repeated key appends again after 300 s, and then takes no room any more."""
    host = FakeHost()
    store = make(host)
    await open_store(store)
    await put(store, "c", "1", idempotency_key="k")
    host.up += IDEMPOTENCY_SECONDS - 0.1
    assert (await put(store, "c", "1", idempotency_key="k")).repeated
    host.up += 0.1
    assert not (await put(store, "c", "1", idempotency_key="k")).repeated
    await store.lease("l", "me", 1, wanted=True)
    host.up += 7200
    store.tick(0)
    left = "SELECT (SELECT count(*) FROM published) + (SELECT count(*) FROM lease)"
    await eventually(lambda: rows(path, left) == [(0,)])


async def test_channels_are_not_remembered_without_end(
    make: Make, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """Of too many empty channels the oldest are forgotten: something may be gone."""
    monkeypatch.setattr(log, "_MAX_EMPTY", 3)
    host = FakeHost()
    store = make(host, max_age=10)
    await open_store(store)
    for number in range(1, 11):
        await put(store, f"c{number}", "x")
    host.up += 10
    await put(store, "kept", "y")
    store.tick(0)
    await eventually(lambda: rows(path, "SELECT count(*) FROM channel") == [(4,)])
    page = await store.read(["c1", "c7", "c8", "never", "kept"], 0, 11, limit=1000)
    assert {"c1": 7, "c7": 7, "c8": 8, "never": 7} == page.floors
    page = await store.read(["c1", "never", "c8"], 7, 11, limit=1000)
    assert {"c8": 8} == page.floors
    again = await put(store, "c1", "z")
    page = await store.read(["c1"], 7, again.last, limit=1000)
    assert (12, 7) == page.entries[0][:2]


# -- generations -----------------------------------------------------------------------


def copy(path: Path, into: Path) -> None:
    """Copy the file at *path*, as a host that loses power leaves it."""
    source, target = sqlite3.connect(path), sqlite3.connect(into)
    source.backup(target)
    source.close()
    target.close()


async def test_a_boot_after_a_crash_is_a_fork(make: Make, tmp_path: Path) -> None:
    """Commits may be lost with the power: numbers leap, old places go on or mean none.

    A cursor through the newest number that is there still goes on without a gap; one
    above means nothing any more.
    """
    store = make(FakeHost())
    await open_store(store)
    await put(store, "c", "1", "2", "3")
    await store.lease("l", "one that is dead", 3600, wanted=False)
    assert store.lineage is not None
    old = store.lineage.generation
    copy(store_path(store), tmp_path / "copy.db")
    after = make(FakeHost("second", 5.0), path=tmp_path / "copy.db")
    await open_store(after)
    found = after.lineage
    assert found is not None
    assert found.generation != old
    assert {old: 3} == found.forks
    assert 3 == found.place(Cursor("l", old, 3))
    assert found.place(Cursor("l", old, 4)) is None
    done = await put(after, "c", "4")
    assert done.first > 1 << 20
    entries, floors = await read_all(after, ["c"], 2)
    assert ([3, done.first], {}) == ([entry.seq for entry in entries], floors)
    assert 3 == entries[-1].prev
    assert (await after.lease("l", "me", 1, wanted=False)).number is not None


async def test_a_boot_after_a_clean_end_is_none(make: Make) -> None:
    """If all processes ended cleanly the log goes on as it was, over any boot."""
    store = make(FakeHost())
    await open_store(store)
    await put(store, "c", "1")
    assert store.lineage is not None
    old = store.lineage.generation
    await store.close()
    after = make(FakeHost("second", 5.0))
    await open_store(after)
    assert after.lineage is not None
    assert (old, {}) == (after.lineage.generation, after.lineage.forks)
    assert 2 == (await put(after, "c", "2")).first


async def test_a_crash_of_one_process_is_no_fork(make: Make, tmp_path: Path) -> None:
    """Within one boot the system keeps what was committed: the generation goes on."""
    store = make(FakeHost())
    await open_store(store)
    await put(store, "c", "1")
    copy(store_path(store), tmp_path / "copy.db")
    after = make(FakeHost(), path=tmp_path / "copy.db")
    await open_store(after)
    assert store.lineage == after.lineage
    assert 2 == (await put(after, "c", "2")).first


async def test_without_a_name_of_the_boot_commits_wait_for_the_disk(
    make: Make,
) -> None:
    """Where a boot cannot be told from another, nothing may be lost with the power."""
    modes = []
    for store in make(FakeHost("")), make(durable=True), make():
        await open_store(store)
        modes += connection(store).execute("PRAGMA synchronous").fetchone()
        await put(store, "c", "x")
        await store.close()
    assert [2, 2, 1] == modes


def store_path(store: SQLiteStore) -> Path:
    """Return where the file of *store* is."""
    return Path(os.fspath(store._path))


async def test_only_so_many_forks_are_remembered(make: Make, path: Path) -> None:
    """Generations of long ago are forgotten, the newest are not."""
    for number in range(20):
        store = make(FakeHost(f"boot {number}"))
        await open_store(store)
        await store.close()
        db = sqlite3.connect(path)
        with db:
            db.execute("INSERT INTO process VALUES ('one that was killed', '')")
        db.close()
    store = make(FakeHost("last"))
    await open_store(store)
    assert store.lineage is not None
    assert 16 == len(store.lineage.forks)
    assert 20 << 20 == await store.head()
    assert 19 << 20 == max(store.lineage.forks.values())
