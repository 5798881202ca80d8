"""What becomes of an SQLite log when its file cannot be used: told, and healed."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiohttp_sse_routes.errors import StoreError, StoreUnavailable
from aiohttp_sse_routes.logs.sqlite import SQLiteStore, file, session

from .sqlite_worker import Refused, Worker
from .stores import Recorder, eventually, open_store, put, read_all

Open = Callable[..., Awaitable[SQLiteStore]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "events.db"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a lock for a trouble sooner than in earnest."""
    monkeypatch.setattr(session, "_PATIENCE", 0.1)


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[Open]:
    """Return what opens a store on the file; in the end all are closed."""
    stores = []

    async def one(follower: Recorder | None = None, **options: Any) -> SQLiteStore:
        stores.append(SQLiteStore(path, **options))
        await stores[-1].open(follower, now=time.monotonic)
        return stores[-1]

    yield one
    for store in stores:
        await store.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("sse-sqlite-w")]


@pytest.fixture
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection of another program to the file."""
    db = sqlite3.connect(path, isolation_level=None, timeout=0)
    yield db
    db.close()


def connection(store: SQLiteStore) -> sqlite3.Connection:
    """Return the connection that *store* writes by."""
    assert store._open is not None
    db = store._open.writer._session.db
    assert db is not None
    return db


def checked(path: Path) -> None:
    """Check that the file is whole, and its sums are right."""
    db = sqlite3.connect(path)
    assert [("ok",)] == db.execute("PRAGMA integrity_check").fetchall()
    wrong = db.execute(
        "SELECT * FROM channel c WHERE"
        " (events, nbytes) <> (SELECT count(*), coalesce(sum(length(lines)), 0)"
        "  FROM ev WHERE ch = c.id)"
        " OR newest > (SELECT head FROM log) OR floor > newest"
    )
    assert [] == wrong.fetchall()
    db.close()


# -- at the beginning ------------------------------------------------------------------


async def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    """A path that leads nowhere cannot work, and the error names the folder."""
    store = SQLiteStore(tmp_path / "none" / "events.db")
    with pytest.raises(StoreError, match=r"no directory .*/none: make it") as caught:
        await store.open(None, now=time.monotonic)
    assert not isinstance(caught.value, StoreUnavailable)
    with pytest.raises(StoreError, match="is not open"):
        await store.head()
    os.mkdir(tmp_path / "none")
    await open_store(store)
    await store.close()


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A path that is a folder cannot work, and the error says so."""
    with pytest.raises(StoreError, match="is a directory"):
        await SQLiteStore(tmp_path).open(None, now=time.monotonic)


def write(path: Path, text: bytes) -> bytes:
    """Make a file at *path*; return what is in it."""
    path.write_bytes(text)
    return text


def content(path: Path) -> bytes:
    """Return what is in the file at *path*."""
    return path.read_bytes()


async def test_a_text_is_no_database(path: Path) -> None:
    """A file that is something else is left as it is."""
    text = write(path, b"something else, of which nothing may be lost\n" * 100)
    with pytest.raises(StoreError, match="is not an SQLite database: name another"):
        await SQLiteStore(path).open(None, now=time.monotonic)
    assert text == content(path)


async def test_the_database_of_another_program_is_left_alone(
    path: Path, other: sqlite3.Connection
) -> None:
    """A database with tables of others is not made a log."""
    other.execute("CREATE TABLE users (name)")
    before = content(path)
    with pytest.raises(StoreError, match="of another program: give the SQLiteStore a"):
        await SQLiteStore(path).open(None, now=time.monotonic)
    assert before == content(path)


async def test_a_newer_schema_is_told(path: Path, opened: Open) -> None:
    """A file of a later version is not touched; the error names both versions."""
    store = await opened()
    await put(store, "c", "x")
    await store.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=7")
    db.close()
    before = content(path)
    with pytest.raises(StoreError, match=r"has schema 7.*knows schema 1: run the"):
        await SQLiteStore(path).open(None, now=time.monotonic)
    assert before == content(path)


async def test_a_read_only_file_is_told() -> None:
    """Who may not write the file, or its folder, is told so, and works when he may."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.db"
        store = SQLiteStore(path)
        await open_store(store)
        await put(store, "c", "x")
        await store.close()
        worker = await Worker.start(path)
        await worker.do("unprivileged")
        for mode_of_folder, mode in (0o777, 0o444), (0o555, 0o444), (0o555, 0o666):
            os.chmod(path, mode)
            os.chmod(folder, mode_of_folder)
            with pytest.raises(
                Refused, match=r"StoreError.*write the file and its dir"
            ):
                await worker.do("open")
        os.chmod(folder, 0o777)
        await worker.do("open")
        assert 2 == (await worker.do("append", channel="c", text="y"))[1]
        await worker.do("close")
        await worker.kill()


async def test_a_lock_at_the_beginning_passes(
    path: Path, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that opens while the file is locked says so, and begins when it can."""
    caplog.set_level(logging.INFO, "aiohttp_sse_routes")
    first = await opened()
    await put(first, "c", "x")
    await first.close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN EXCLUSIVE")
    recorder = Recorder()
    store = await opened(recorder)
    assert store.lineage is None
    assert "is locked by another program: end its transaction" in caplog.text
    for use in put(store, "c", "y"), store.head():
        with pytest.raises(StoreUnavailable, match="is locked by another program"):
            await use
    db.execute("ROLLBACK")
    db.close()
    await eventually(lambda: store.lineage is not None)
    assert 2 == (await put(store, "c", "y")).first
    assert ([2], 1) == ([e.seq for e in recorder.entries], len(recorder.lineages))
    await eventually(lambda: "can be used again" in caplog.text)


async def test_a_full_disk_at_the_beginning_passes(path: Path) -> None:
    """A store that opens where nothing can be written begins when something can."""
    worker = await Worker.start(path)
    await worker.do("limit", size=4096)
    await worker.do("open")
    with pytest.raises(Refused, match="StoreUnavailable"):
        await worker.do("append", channel="c", text="x")
    await worker.do("limit", size=None)
    assert 1 == (await worker.do("append", channel="c", text="x"))[1]
    assert [[1, "c", "x"]] == await worker.do("entries")
    await worker.do("close")
    await worker.kill()
    checked(path)


# -- while it is in use ----------------------------------------------------------------


async def test_a_lock_is_told_and_passes(
    opened: Open, other: sqlite3.Connection
) -> None:
    """While another program has the lock appends fail, and readers do not."""
    recorder = Recorder()
    store = await opened(recorder)
    await put(store, "c", "1")
    other.execute("BEGIN IMMEDIATE")
    answers = await asyncio.gather(
        *(put(store, "c", f"never {n}") for n in range(5)),
        store.lease("l", "me", 1, wanted=True),
        return_exceptions=True,
    )
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    assert "is locked by another program: end its transaction" in str(answers[0])
    assert 1 == len((await read_all(store, ["c"]))[0])
    other.execute("ROLLBACK")
    assert 2 == (await put(store, "c", "2")).first
    assert [1, 2] == [entry.seq for entry in recorder.entries]


async def test_an_append_may_wait(opened: Open, other: sqlite3.Connection) -> None:
    """With ``wait`` an append is done when the lock is gone, in its order, once."""
    store = await opened(wait=60)
    other.execute("BEGIN IMMEDIATE")
    tasks = [asyncio.create_task(put(store, "c", f"{n}")) for n in range(5)]
    assert store._open is not None
    writer = store._open.writer
    await eventually(lambda: writer._tries > 2)
    assert not any(task.done() for task in tasks)
    other.execute("ROLLBACK")
    assert [1, 2, 3, 4, 5] == [at.first for at in await asyncio.gather(*tasks)]


async def test_closing_does_not_wait_for_a_lock(
    opened: Open, other: sqlite3.Connection
) -> None:
    """Whoever still waits for the file when the store is closed is told."""
    store = await opened(wait=60)
    other.execute("BEGIN IMMEDIATE")
    task = asyncio.create_task(put(store, "c", "x"))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreUnavailable, match="is locked"):
        await task
    other.execute("ROLLBACK")


async def test_closing_empties_what_is_beside_the_file(
    path: Path, opened: Open, other: sqlite3.Connection
) -> None:
    """A program that has the file open does not keep the log of changes large."""
    store = await opened()
    await put(store, "c", *["x" * 1000] * 500)
    assert [(500,)] == other.execute("SELECT count(*) FROM ev").fetchall()
    wal = f"{path}-wal"
    assert os.stat(wal).st_size > 500_000
    await store.close()
    assert 0 == os.stat(wal).st_size
    assert [(500,)] == other.execute("SELECT count(*) FROM ev").fetchall()


async def test_a_full_file_is_told_and_passes(path: Path, opened: Open) -> None:
    """What does not fit is told, and not even in part in the log; then it goes on."""
    recorder = Recorder()
    store = await opened(recorder)
    await put(store, "c", "1")
    (pages,) = connection(store).execute("PRAGMA page_count").fetchone()
    connection(store).execute(f"PRAGMA max_page_count={pages + 20}")
    with pytest.raises(StoreUnavailable, match="has no room left: free space"):
        await put(store, "c", *["x" * 1000] * 200)
    assert 2 == (await put(store, "c", "2")).first
    connection(store).execute("PRAGMA max_page_count=1000000")
    done = await put(store, "c", *["x" * 1000] * 200)
    assert (3, 202) == (done.first, done.last)
    assert list(range(1, 203)) == [entry.seq for entry in recorder.entries]
    await store.close()
    checked(path)


async def test_a_limit_of_the_file_is_told_and_passes(path: Path) -> None:
    """Where the system writes no more that is told; when it does again all goes on."""
    worker = await Worker.start(path)
    await worker.do("open")
    await worker.do("append", channel="c", text="1")
    await worker.do("limit", size=400_000)
    there = 1

    async def fill() -> None:
        nonlocal there
        while there < 1000:
            await worker.do("append", channel="c", text="x" * 5000)
            there += 1

    with pytest.raises(Refused, match=r"StoreUnavailable.*disk has room"):
        await fill()
    await worker.do("limit", size=None)
    last = (await worker.do("append", channel="c", text="2"))[1]
    assert there + 1 == last
    assert last == len(await worker.do("entries"))
    await worker.do("close")
    await worker.kill()
    checked(path)


async def test_a_file_that_turns_read_only_is_told_and_passes(opened: Open) -> None:
    """A disk that was put read-only is told; the store looks anew by itself."""
    recorder = Recorder()
    store = await opened(recorder)
    await put(store, "c", "1")
    connection(store).execute("PRAGMA query_only=ON")
    with pytest.raises(StoreUnavailable, match="let this process's user write"):
        await put(store, "c", "never")
    assert 2 == (await put(store, "c", "2")).first
    assert [1, 2] == [entry.seq for entry in recorder.entries]
    assert 1 == len(recorder.lineages)


async def test_a_file_that_was_deleted_is_begun_anew(path: Path, opened: Open) -> None:
    """All processes go on together on a new file, and know that it is another log."""
    recorders = Recorder(), Recorder()
    stores = [await opened(recorder) for recorder in recorders]
    await put(stores[0], "c", "1", "2", "3")
    await eventually(lambda: recorders[1].head == 3)
    os.unlink(path)  # and not what is beside it, which is the old log's
    assert 1 == (await put(stores[0], "c", "a")).first
    for store, recorder in zip(stores, recorders, strict=True):
        await eventually(lambda r=recorder: len(r.lineages) == 2)  # type: ignore[misc]
        assert recorder.lineages[1][1], "it was not told that it is another log"
        assert store.lineage == recorder.lineages[1][0]
    assert stores[0].lineage == stores[1].lineage
    assert 2 == (await put(stores[1], "c", "b")).first
    await eventually(lambda: recorders[0].entries[-1].lines == b"data: b\n\n")
    for store in stores:
        entries, _ = await read_all(store, ["c"])
        assert [b"data: a\n\n", b"data: b\n\n"] == [e.lines for e in entries]
        await store.close()
    checked(path)


async def test_a_file_that_was_replaced_is_used(path: Path, opened: Open) -> None:
    """Nothing of the old log gets into the one that is put in its place."""
    better = SQLiteStore(path.with_name("better.db"))
    await open_store(better)
    await put(better, "c", "a")
    await better.close()
    recorder = Recorder()
    store = await opened(recorder)
    await put(store, "c", *["old" * 1000] * 100)
    os.replace(path.with_name("better.db"), path)
    await eventually(lambda: len(recorder.lineages) == 2)
    assert recorder.lineages[1][1]
    assert 2 == (await put(store, "c", "b")).first
    entries, _ = await read_all(store, ["c"])
    assert [b"data: a\n\n", b"data: b\n\n"] == [entry.lines for entry in entries]
    await store.close()
    checked(path)


async def test_what_others_append_during_a_trouble_comes_behind_it(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that had to let go of the file goes on where it was, without a hole."""
    recorder = Recorder()
    store, other = await opened(recorder), await opened()
    await put(store, "c", "1")
    assert store._open is not None
    session = store._open.writer._session
    opening = session.open
    stopped = threading.Event()

    def not_now() -> None:
        stopped.set()
        raise file.Trouble("not now", passing=True)

    monkeypatch.setattr(session, "open", not_now)
    connection(store).execute("PRAGMA query_only=ON")
    with pytest.raises(StoreUnavailable):
        await put(store, "c", "never")
    await eventually(stopped.is_set)
    await put(other, "c", "2", "3")
    with pytest.raises(StoreUnavailable, match="not now"):
        await store.head()
    assert 1 == recorder.head
    monkeypatch.setattr(session, "open", opening)
    assert 4 == (await put(store, "c", "4")).first
    await eventually(lambda: recorder.head == 4)
    assert [1, 2, 3, 4] == [entry.seq for entry in recorder.entries]
    assert 1 == len(recorder.lineages)


async def test_a_copy_of_an_earlier_moment_is_another_log(
    path: Path, opened: Open
) -> None:
    """Where a backup is put in the file's place, numbers are not given out again."""
    recorder = Recorder()
    store = await opened(recorder)
    await put(store, "c", "1", "2")
    copy = sqlite3.connect(path.with_name("copy.db"))
    with sqlite3.connect(path) as source:
        source.backup(copy)
    source.close()
    copy.close()
    await put(store, "c", "lost")
    os.replace(path.with_name("copy.db"), path)
    await eventually(lambda: len(recorder.lineages) == 2)
    lineage, reset, _ = recorder.lineages[1]
    assert ({}, True) == (lineage.forks, reset)
    done = await put(store, "c", "3")
    assert done.first > 1 << 20
    entries, _ = await read_all(store, ["c"])
    assert [1, 2, done.first] == [entry.seq for entry in entries]
    assert recorder.entries[-1] == entries[-1]


async def test_a_link_to_the_file_is_as_good(path: Path) -> None:
    """Behind a symbolic link the log is the one there, also if that is replaced."""
    store, better, recorder = SQLiteStore(path), SQLiteStore(f"{path}.new"), Recorder()
    for one in store, better:
        await open_store(one)
        await put(one, "c", "a")
        await one.close()
    os.symlink(path, path.with_name("link.db"))
    linked = SQLiteStore(path.with_name("link.db"))
    await open_store(linked, recorder)
    assert 2 == (await put(linked, "c", *["old" * 1000] * 100)).first
    os.replace(f"{path}.new", path)
    await eventually(lambda: len(recorder.lineages) == 2)
    assert (await put(linked, "c", "b")).first == 2
    await linked.close()
    checked(path)


async def is_empty(store: SQLiteStore) -> bool:
    """Return whether *store* answers, and there is nothing in its log."""
    try:
        return 0 == await store.head()
    except StoreUnavailable:
        return False


async def test_an_answer_is_of_the_log_that_was_meant(path: Path, opened: Open) -> None:
    """Numbers of a log that is gone are not looked up in the one that follows."""
    store = await opened(Recorder())
    await put(store, "c", "1", "2", "3")
    known = store.lineage
    os.unlink(path)
    await eventually(lambda: store.lineage is not known)
    # It can be read a moment after that.
    await eventually(lambda: is_empty(store))
    store.lineage, now = known, store.lineage
    with pytest.raises(StoreUnavailable, match="another log by now"):
        await store.read(["c"], 0, 3, limit=1000)
    store.lineage = now
    assert 0 == await store.head()


async def test_a_folder_that_was_deleted_is_told_and_passes(
    path: Path, opened: Open
) -> None:
    """Without the folder appends fail; when it is there again a new log begins."""
    store = await opened(Recorder())
    await put(store, "c", "1")
    shutil.rmtree(path.parent)
    with pytest.raises(StoreUnavailable, match="there is no directory"):
        await put(store, "c", "never")
    with pytest.raises(StoreUnavailable):
        await store.head()
    os.mkdir(path.parent)
    assert 1 == (await put(store, "c", "2")).first


async def test_a_file_that_becomes_something_else_is_told_and_passes(
    path: Path, opened: Open
) -> None:
    """A file put in its place that is no log is left alone, until it is moved away."""
    store = await opened(Recorder())
    await put(store, "c", "1")
    new = path.with_name("new")
    text = write(new, b"something else\n" * 1000)
    os.replace(new, path)
    with pytest.raises(StoreUnavailable, match="is not an SQLite database"):
        await put(store, "c", "never")
    assert text == content(path)
    os.unlink(path)
    assert 1 == (await put(store, "c", "2")).first


async def test_tables_that_were_dropped_are_told(
    opened: Open, other: sqlite3.Connection
) -> None:
    """A log that another program has taken apart is told, and harms no thread."""
    store = await opened(Recorder())
    await put(store, "c", "1")
    other.execute("DROP TABLE ev")
    for use in put(store, "c", "never"), store.newest(["c"], 1, 1):
        with pytest.raises(StoreUnavailable, match="is not as this program left it"):
            await use
