"""The demo: what it shows is true, a cut loses nothing, and it starts and ends cleanly.

Law: what a stream says is compared with where it is from: with /proc, with the file,
with hashlib over the same tree, with what was said. Nothing here waits for time to
pass; what takes time by itself (a file is looked at five times a second) is waited for
by its event.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ClientSession
from psutil import cpu_count, virtual_memory

from aiohttp_sse_routes.__main__ import main
from aiohttp_sse_routes.decoder import DecodedEvent
from aiohttp_sse_routes.demo import machine
from aiohttp_sse_routes.demo.app import PAGE, POLICY, create_app, default_tree
from aiohttp_sse_routes.demo.chat import Pace
from aiohttp_sse_routes.demo.hashing import index
from aiohttp_sse_routes.demo.serve import default_data
from aiohttp_sse_routes.demo.tail import Line, Notice, Tail
from aiohttp_sse_routes.demo.threads import in_thread
from aiohttp_sse_routes.demo.tree import Progress, Scan, Summary, Tree
from aiohttp_sse_routes.testing import EventStream

from .helpers import RawClient, Served

Serve = Callable[..., Awaitable[Served]]

ROOT = Path(__file__).parents[1]
LINUX = sys.platform == "linux"

on_linux = pytest.mark.skipif(not LINUX, reason="there is no /proc")


def numbers(events: list[DecodedEvent]) -> list[int]:
    """Return the number that each event says it is."""
    return [json.loads(event.data)["n"] for event in events]


async def until_cut(stream: EventStream) -> None:
    """Read until the server has cut the connection."""
    with pytest.raises(ClientPayloadError):
        await stream.next("nothing that ever comes")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of a few hundred files, with copies, empty ones and odd names."""
    root = tmp_path / "tree"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "skipped").mkdir()
    for number in range(300):
        (root / "deep" / f"{number:03}.bin").write_bytes(os.urandom(1 + number * 7))
    (root / "big").write_bytes(os.urandom(3_000_000))
    for name in ("one", "two", "deep/er/three"):
        (root / name).write_bytes(b"the same" * 100)
    (root / "none").touch()
    (root / "nothing").touch()
    (root / "back\\slash").write_bytes(b"quoted by sha256sum")
    (root / "not in the tree").symlink_to(root / "big")
    (root / "skipped" / "file").write_bytes(b"left out")
    return root


def files_of(root: Path, *, skip: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Return the content of each file below *root*, by path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not set(skip) & set(path.relative_to(root).parts)
    }


async def test_the_inspector_is_for_this_machine(serve: Serve, tree: Path) -> None:
    """Neither a proxy's visitors see it, nor a page under another name of this host."""
    served = await serve(create_app(tree=Tree(tree)))
    for headers, status in (
        ({}, 200),
        ({"X-Forwarded-For": "192.0.2.1"}, 403),
        ({"Host": "rebound.example"}, 403),
    ):
        assert status == (await served.get("/_sse/", headers=headers))[0]


# -- the job ---------------------------------------------------------------------------


def test_a_job_says_what_hashlib_says_of_the_same_tree(tree: Path) -> None:
    """Counts, bytes, the largest, the copies and the digest are those of the files."""
    *_, last, summary = index(Tree(tree, skip=("skipped",)))
    files = files_of(tree, skip=("skipped",))
    total = sum(map(len, files.values()))
    assert isinstance(last, Progress)
    assert isinstance(summary, Summary)
    assert (len(files), len(files), total, total) == (
        last.files,
        last.files_total,
        last.bytes,
        last.bytes_total,
    )
    assert (len(files), total) == (summary.files, summary.bytes)
    assert ("big", 3_000_000) == (summary.largest[0].path, summary.largest[0].bytes)
    (copies,) = summary.copies
    assert (800, 3) == (copies.bytes, copies.count)
    assert ["deep/er/three", "one", "two"] == copies.paths
    assert (1, 1600) == (summary.groups, summary.spare)
    lines = b""
    for path in sorted(files, key=os.fsencode):
        digest = hashlib.sha256(files[path]).hexdigest()
        mark, name = ("\\", path.replace("\\", "\\\\")) if "\\" in path else ("", path)
        lines += f"{mark}{digest}  ./{name}\n".encode()
    assert hashlib.sha256(lines).hexdigest() == summary.digest


@on_linux
def test_the_command_it_gives_finds_the_same_digest(tree: Path) -> None:
    """Anybody can check a job's digest in a shell, as it says."""
    *_, summary = index(Tree(tree, skip=("skipped",)))
    assert isinstance(summary, Summary)
    assert summary.command is not None
    printed = subprocess.check_output(["bash", "-c", summary.command], text=True)
    assert summary.digest == printed.split()[0]


def test_a_job_is_told_in_numbered_steps(tree: Path) -> None:
    """Its events are numbered from 1, first found, then read, and grow to the total."""
    events = list(index(Tree(tree), events=20))
    assert list(range(1, len(events) + 1)) == [event.n for event in events]
    kinds = [type(event) for event in events]
    assert [Scan, Progress, Summary] == [k for k in Counter(kinds) if kinds]
    progress = [event for event in events if isinstance(event, Progress)]
    assert 10 < len(progress) < 40
    assert sorted(event.bytes for event in progress) == [e.bytes for e in progress]
    assert sorted(event.files for event in progress) == [e.files for e in progress]
    assert all(event.current in files_of(tree) for event in progress)


def test_a_file_that_vanishes_is_said(tree: Path) -> None:
    """A file that was found and is gone is counted, and left out of the totals."""
    job = index(Tree(tree))
    next(job)
    (tree / "one").unlink()
    *_, last, summary = job
    assert isinstance(last, Progress)
    assert isinstance(summary, Summary)
    assert (1, None) == (summary.unreadable, summary.command)
    files = files_of(tree)
    assert (len(files), len(files)) == (last.files, last.files_total)
    assert sum(map(len, files.values())) == last.bytes == last.bytes_total


def test_a_tree_is_bounded(tree: Path) -> None:
    """Over the bound the rest is left out, and that is said."""
    *_, summary = index(Tree(tree, most=5))
    assert isinstance(summary, Summary)
    assert (5, True, None) == (summary.files, summary.limited, summary.command)


def test_an_empty_tree_is_done_at_once(tmp_path: Path) -> None:
    """A job with nothing to do says so and ends."""
    scan, progress, summary = index(Tree(tmp_path))
    assert isinstance(scan, Scan)
    assert isinstance(progress, Progress)
    assert isinstance(summary, Summary)
    assert (0, 0, 0) == (scan.files, progress.bytes_total, summary.files)


@on_linux
def test_a_name_that_is_no_text_is_shown(tmp_path: Path) -> None:
    """A file's name may be any bytes; what is sent is UTF-8."""
    (tmp_path / os.fsdecode(b"caf\xe9")).write_bytes(b"1")
    events = list(index(Tree(tmp_path)))
    assert isinstance(events[-2], Progress)
    assert "caf\ufffd" == events[-2].current
    assert isinstance(events[-1], Summary)
    assert "caf\ufffd" == events[-1].largest[0].path


async def test_the_job_over_http_says_what_hashlib_says(
    serve: Serve, tree: Path
) -> None:
    """The whole stream, as a client gets it, ends with the summary and ``sse-end``."""
    served = await serve(create_app(tree=Tree(tree), job_seconds=0))
    async with served.stream("/job") as stream:
        events = await stream.rest()
    assert list(range(1, len(events) + 1)) == numbers(events)
    assert "scan" == events[0].type
    assert ["progress", "summary"] == [event.type for event in events[-2:]]
    summary = json.loads(events[-1].data)
    files = files_of(tree)
    assert len(files) == summary["files"]
    assert sum(map(len, files.values())) == summary["bytes"]
    end = stream.control[-1]
    assert ("sse-end", {"reason": "finished"}) == (end.type, json.loads(end.data))


async def test_a_job_that_is_cut_goes_on_with_the_next_event(
    serve: Serve, tree: Path
) -> None:
    """After three cuts the events are numbered 1 to N: none missing, none twice."""
    served = await serve(create_app(tree=Tree(tree), job_seconds=2.0))
    async with served.stream("/job") as stream:
        for _ in range(3):
            await stream.next("progress")
            async with served.session.post(served.base + "/cut") as response:
                assert {"cut": 1} == await response.json()
            await until_cut(stream)
            await stream.resume()
            assert await stream.next("sse-hello")
            assert "continued" == (stream.hello or {})["resumed"]
        await stream.rest()
    assert list(range(1, len(stream.events) + 1)) == numbers(stream.events)
    assert "summary" == stream.events[-1].type
    assert [] == stream.gaps


def test_the_default_tree_is_the_standard_library() -> None:
    """Without ``--path`` it is this Python's library, not what was installed to it."""
    tree = default_tree()
    assert Path(os.__file__).parent == tree.root
    assert "site-packages" in tree.skip


# -- this machine ----------------------------------------------------------------------


def proc(folder: Path, *, busy: int, idle: int, received: int) -> Path:
    """Write files as Linux has them in /proc."""
    (folder / "net").mkdir(exist_ok=True)
    (folder / "stat").write_text(
        f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n"
        f"cpu0 {busy} 0 0 0 {idle} 0 0 0 0 0\n"
        "cpu1 0 0 0 0 0 0 0 0 0 0\n"
        "intr 1 2 3\n"
    )
    (folder / "meminfo").write_text(
        "MemTotal:        1000 kB\nMemFree:  1 kB\nMemAvailable:     250 kB\n"
        "HugePages_Total:       0\n"
    )
    head = "Inter-|   Receive  |  Transmit\n face |bytes ...\n"
    lines = f"    lo: 5 0 0 0 0 0 0 0 7 0 0 0 0 0 0 0\n  eth0:{received}" + " 0" * 15
    (folder / "net" / "dev").write_text(head + lines + "\n")
    return folder


def proc_text(name: str) -> str:
    """Return what the system itself says."""
    return Path("/proc", name).read_text()


def test_counters_are_read_from_the_files(tmp_path: Path) -> None:
    """Busy is all that is not idle or waiting, memory all that is not available."""
    found = machine.read_proc(proc(tmp_path, busy=30, idle=70, received=100))
    assert [30, 30, 0] == found.busy
    assert [100, 100, 0] == found.total
    assert (750 * 1024, 1000 * 1024) == (found.memory, found.memory_total)
    assert (105, 7) == (found.received, found.sent)


def test_a_sample_is_the_difference_of_two_readings() -> None:
    """Shares and rates are those of the time between, whatever was counted before."""
    first = machine.Counters(10.0, [5, 5], [50, 50], 1, 8, 1000, 100)
    later = machine.Counters(12.0, [9, 9], [66, 66], 2, 8, 5000, 50)
    readings = iter([first, later, later])
    steps = machine.samples(lambda: next(readings))
    sample = next(steps)
    assert (1, 2.0, 25.0, [25.0]) == (
        sample.n,
        sample.seconds,
        sample.processor,
        sample.cores,
    )
    # An interface that has gone makes a count smaller, and no rate negative.
    assert (2000.0, 0.0) == (sample.received, sample.sent)
    still = next(steps)
    assert (2, 0.0, 0.0) == (still.n, still.processor, still.received)


@on_linux
async def test_the_machine_is_the_one_that_proc_shows(serve: Serve) -> None:
    """Memory, cores and network are those of /proc, and the network's between two."""
    memory, stat = proc_text("meminfo"), proc_text("stat")
    served = await serve(create_app(tree=Tree(PAGE)))
    before = machine.read_proc()
    async with served.stream("/machine") as stream:
        event = await stream.next()
        after = machine.read_proc()
    sample = json.loads(event.data)
    (total,) = re.findall(r"^MemTotal:\s+(\d+) kB$", memory, re.MULTILINE)
    assert int(total) * 1024 == sample["memory_total"]
    assert 0 < sample["memory"] < sample["memory_total"]
    assert len(re.findall(r"^cpu\d+ ", stat, re.MULTILINE)) == len(sample["cores"])
    assert all(0 <= share <= 100 for share in [sample["processor"], *sample["cores"]])
    # To what is lost by rounding, what it says came in did so meanwhile.
    came = sample["received"] * sample["seconds"]
    assert came <= (after.received - before.received) * 1.01 + 1
    assert abs(sample["at"] - time.time()) < 5


async def test_a_new_tab_has_the_past_at_once(serve: Serve) -> None:
    """The run is shared: a second client gets the samples that the first one got."""
    served = await serve(create_app(tree=Tree(PAGE)))
    async with served.stream("/machine") as first:
        one, two = await first.collect(2)
        async with served.stream("/machine") as second:
            assert [one.data, two.data] == [e.data for e in await second.collect(2)]
    assert [1, 2] == numbers([one, two])


@on_linux
def test_psutil_says_the_same() -> None:
    """Where there is no /proc, psutil is asked, and it agrees where there are both."""
    here, there = machine.read_proc(), machine.read_psutil()
    assert virtual_memory().total == there.memory_total == here.memory_total
    assert len(here.busy) == len(there.busy) == 1 + (cpu_count() or 0)
    assert here.received <= there.received < here.received + 10**9


def test_without_proc_psutil_is_used(tmp_path: Path) -> None:
    """Another system than Linux has no such files."""
    assert machine.reader(tmp_path) is machine.read_psutil


async def test_without_both_the_answer_is_a_status(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine that nothing can measure is 501, which says what would help."""
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setitem(sys.modules, "psutil", None)
    served = await serve(create_app(tree=Tree(PAGE)))
    status, body = await served.get("/machine")
    assert 501 == status
    assert b"aiohttp-sse-routes[demo]" in body


# -- a file that grows -----------------------------------------------------------------


@contextmanager
def tailing(path: Path, *, last: int = 20) -> Iterator[Tail]:
    """Follow *path*."""
    with closing(Tail(path, last=last)) as tail:
        yield tail


def told(tail: Tail) -> list[str]:
    """Return what is new: lines as they are, notices in angle brackets."""
    found: list[Line | Notice] = []
    # One look may find a piece of a line only, or that there is another file.
    for _ in range(4):
        found += tail.read()
    return [e.text if isinstance(e, Line) else f"<{e.what}>" for e in found]


def append(path: Path, data: bytes) -> None:
    """Write *data* at the file's end."""
    with path.open("ab") as file:
        file.write(data)


def test_a_line_is_given_when_it_is_complete(tmp_path: Path) -> None:
    """What has no line end yet waits for it, also in the middle of a character."""
    path = tmp_path / "file"
    path.touch()
    with tailing(path) as tail:
        append(path, b"one\ntw\xc3")
        assert ["one"] == told(tail)
        append(path, b"\xb6\r\n\nfour")
        assert ["tw\u00f6", ""] == told(tail)
        append(path, b"\n")
        assert ["four"] == told(tail)


def test_only_line_feeds_end_lines_and_other_bytes_are_replaced(tmp_path: Path) -> None:
    """U+2028, NUL and form feeds are text; bytes that are not UTF-8 are U+FFFD."""
    path = tmp_path / "file"
    path.write_bytes("a\u2028b\x0c\x00c\n".encode() + b"\xff\xfe\xed\xa0\x80\n")
    with tailing(path) as tail:
        assert ["a\u2028b\x0c\x00c", "\ufffd" * 5] == told(tail)


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"1\n2\n3\n4\n", ["3", "4"]),
        (b"1\n2\n3\n4", ["2", "3"]),
        (b"1\n", ["1"]),
        (b"x" * 20_000 + b"\n3\n4\n", ["3", "4"]),
        (b"1\n" * 20_000, ["1", "1"]),
    ],
)
def test_it_begins_with_the_last_lines(
    tmp_path: Path, content: bytes, lines: list[str]
) -> None:
    """The lines that are there already are given from the end, as many as asked for."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with tailing(path, last=2) as tail:
        assert lines == told(tail)[:2]


def test_a_file_that_is_cut_is_read_from_its_start(tmp_path: Path) -> None:
    """What had no line end is given, the cut is told, and nothing is read twice."""
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\nrest")
    with tailing(path) as tail:
        assert ["one", "two"] == told(tail)
        os.truncate(path, 0)
        append(path, b"new\n")
        assert ["rest", "<truncated>", "new"] == told(tail)


def test_a_file_that_is_replaced_is_read_to_its_end_first(tmp_path: Path) -> None:
    """Lines that were written to the old file up to the last moment come before it."""
    path = tmp_path / "file"
    path.write_bytes(b"one\n")
    with tailing(path) as tail:
        assert ["one"] == told(tail)
        append(path, b"two\n")
        path.rename(tmp_path / "file.1")
        assert ["two"] == told(tail)
        append(tmp_path / "file.1", b"three\n")
        assert ["three"] == told(tail)
        path.write_bytes(b"four\n")
        append(tmp_path / "file.1", b"late")
        assert ["late", "<rotated>", "four"] == told(tail)
        append(path, b"five\n")
        assert ["five"] == told(tail)


def test_a_file_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    """It is said once that it is missing; when it comes it is read from its start."""
    path = tmp_path / "file"
    with tailing(path) as tail:
        assert ["<missing>"] == told(tail)
        assert [] == told(tail)
        path.write_bytes(b"".join(b"%d\n" % n for n in range(100)))
        assert [str(n) for n in range(100)] == told(tail)


def test_a_very_long_line_comes_in_pieces(tmp_path: Path) -> None:
    """No more than a few KB wait for a line end, and no character is torn."""
    path = tmp_path / "file"
    text = "x" + "\u00e9\u20ac\U0001f600" * 5000
    path.touch()
    with tailing(path) as tail:
        append(path, text.encode())
        pieces = told(tail)
        append(path, b"\n")
        pieces += told(tail)
    assert text == "".join(pieces)
    assert all(len(piece.encode()) <= 8192 for piece in pieces)


def test_what_grows_too_fast_is_passed_over_and_told(tmp_path: Path) -> None:
    """Far behind the end the reader goes on near it, and says how much it left out."""
    path = tmp_path / "file"
    path.touch()
    line = b"0123456789abcde\n"
    with tailing(path) as tail:
        append(path, line * 200_000)
        first, *lines = tail.read()
        assert isinstance(first, Notice)
        assert ("skipped", 16 * 200_000) == (
            first.what,
            first.bytes + sum(16 for _ in lines),
        )


async def test_each_click_is_seen_in_the_log(serve: Serve) -> None:
    """The demo follows its own log: a request is a line there, its path escaped."""
    served = await serve(create_app(tree=Tree(PAGE)))
    async with served.stream("/log") as stream:
        await served.get("/no%0Asuch?token=secret")
        seen: list[str] = []
        while not seen or "such" not in seen[-1]:
            seen.append(json.loads((await stream.next()).data)["text"])
        assert seen[-1].endswith("GET /no%0Asuch 404")
        assert any(line.endswith("GET /log 200 stream") for line in seen)


async def test_a_file_is_followed_over_cuts(serve: Serve, tmp_path: Path) -> None:
    """``--follow``: each line once and in order, also those written while cut off."""
    path = tmp_path / "followed.log"
    path.write_bytes(b"0\n")
    served = await serve(create_app(tree=Tree(PAGE), follow=path))
    async with served.stream("/log") as stream:
        assert "0" == json.loads((await stream.next()).data)["text"]
        for n in range(1, 4):
            async with served.session.post(served.base + "/cut") as response:
                assert {"cut": 1} == await response.json()
            append(path, b"%d\n" % n)
            await until_cut(stream)
            await stream.resume()
            assert str(n) == json.loads((await stream.next()).data)["text"]
        os.truncate(path, 0)
        notice = await stream.next()
        assert ("notice", "truncated") == (notice.type, json.loads(notice.data)["what"])
    assert list(range(1, len(stream.events) + 1)) == numbers(stream.events)
    assert [] == stream.gaps


async def test_the_log_goes_with_the_application(serve: Serve) -> None:
    """The folder of the demo's log is removed at the end."""
    from aiohttp_sse_routes.demo.streams import FOLLOWED

    served = await serve(create_app(tree=Tree(PAGE)))
    path = served.app[FOLLOWED]
    await served.get("/")
    await served.close()
    assert not path.parent.exists()


# -- steps in a thread -----------------------------------------------------------------


async def test_a_step_runs_in_a_thread() -> None:
    """The generator never runs where the loop does."""

    def steps() -> Generator[int]:
        for _ in range(3):
            yield threading.get_ident()

    async with aclosing(in_thread(steps())) as found:
        assert threading.get_ident() not in [ident async for ident in found]


async def test_a_generator_is_closed_behind_the_step_that_runs() -> None:
    """Who stops in a step does not wait for it, and leaves nothing open."""
    closed, entered, go = threading.Event(), threading.Event(), threading.Event()

    def steps() -> Generator[int]:
        try:
            while True:
                entered.set()
                go.wait(5)
                yield 1
        finally:
            closed.set()

    async def read() -> None:
        async with aclosing(in_thread(steps())) as found:
            async for _ in found:
                pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(entered.wait, 5)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert not closed.is_set()
    go.set()
    assert await asyncio.to_thread(closed.wait, 5)


async def test_an_error_of_a_step_is_the_iterators() -> None:
    """What a step raises is raised where it is waited for."""

    def steps() -> Generator[int]:
        yield 1
        raise ValueError("of the step")

    found = in_thread(steps())
    assert 1 == await anext(found)
    with pytest.raises(ValueError, match="of the step"):
        await anext(found)


# -- the chat room ---------------------------------------------------------------------


async def speak(
    served: Served, text: object, *, visitor: str = "ann", **more: object
) -> tuple[int, str]:
    """Say something in the room; return the answer's status and text."""
    async with served.session.post(
        served.base + "/room",
        json={"text": text, **more},
        headers={"Cookie": f"demo_visitor={visitor}"},
    ) as response:
        return response.status, await response.text()


def messages(events: Sequence[DecodedEvent]) -> list[dict[str, Any]]:
    """Return what was said."""
    return [json.loads(event.data) for event in events]


def texts(events: Sequence[DecodedEvent]) -> list[str]:
    """Return the texts of what was said."""
    return [message["text"] for message in messages(events)]


async def test_what_is_said_is_heard_by_all_once(serve: Serve) -> None:
    """A message is as it was sent, with its sender; one that is sent again is not."""
    served = await serve(create_app(tree=Tree(PAGE)))
    async with served.stream("/room") as here, served.stream("/room") as there:
        await here.next("sse-hello")
        await there.next("sse-hello")
        answers = []
        for n, text in ((1, "hello"), (1, "hello"), (2, "<b>&amp;</b> ü"), (2, "!")):
            status, answer = await speak(served, text, name="Ann", tab="t1", n=n)
            assert 201 == status
            answers.append(json.loads(answer)["id"])
        first, second = messages(await here.collect(2))
        assert [first, second] == messages(await there.collect(2))
        ids = [event.id for event in here.events]
        assert [ids[0], ids[0], ids[1], ids[1]] == answers
    assert ("hello", "<b>&amp;</b> ü") == (first["text"], second["text"])
    assert ((1, "Ann"), (2, "Ann")) == (
        (first["n"], first["name"]),
        (second["n"], second["name"]),
    )
    assert first["sender"] == second["sender"]
    assert abs(first["at"] - time.time()) < 5


async def test_nobody_can_speak_as_another(serve: Serve) -> None:
    """A sender's name is of the cookie, which it does not tell, and of the tab."""
    served = await serve(create_app(tree=Tree(PAGE)))
    async with served.stream("/room") as stream:
        await stream.next("sse-hello")
        for visitor, tab in (("ann", "t1"), ("bob", "t1"), ("ann", "t2"), ("ann", "")):
            status, _ = await speak(served, "I", visitor=visitor, tab=tab, n=1)
            assert 201 == status
        senders = [message["sender"] for message in messages(await stream.collect(4))]
    assert 4 == len(set(senders))
    assert not any("ann" in sender or "bob" in sender for sender in senders)
    headers = {"Cookie": "demo_visitor=ann"}
    _, page = await served.get("/chat", headers=headers)
    assert f'data-visitor="{senders[3]}"'.encode() in page


async def test_a_page_that_is_new_knows_its_own_name(serve: Serve) -> None:
    """The first page of a browser shows the name that its cookie will have."""
    served = await serve(create_app(tree=Tree(PAGE)))
    async with served.session.get(served.base + "/chat") as response:
        cookie = response.cookies["demo_visitor"].value
        page = await response.text()
    async with served.stream("/room") as stream:
        await speak(served, "hello", visitor=cookie)
        (message,) = messages([await stream.next()])
    assert f'data-visitor="{message["sender"]}"' in page


async def test_numbers_of_a_tab_leave_nothing_out(serve: Serve) -> None:
    """A number that is not the next is refused, so that none can seem to be missing."""
    served = await serve(create_app(tree=Tree(PAGE)))
    for n, status in ((5, 201), (7, 409), (4, 409), (5, 201), (6, 201), (5, 409)):
        assert status == (await speak(served, "hello", tab="t1", n=n))[0]
    assert 201 == (await speak(served, "hello", tab="t2", n=1))[0]


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"text": "x" * 500}, 201),
        ({"text": "x" * 501}, 400),
        ({"text": " \n\t "}, 400),
        ({"text": "\x00\x1b"}, 400),
        ({"text": "x", "name": "n" * 25}, 400),
        ({"text": "x", "tab": "A<"}, 400),
        ({"text": "x", "n": -1}, 400),
        ({"text": "x", "n": 2**53}, 400),
        ({"text": "x", "n": 1.5}, 400),
        ({"text": 7}, 400),
        ({}, 400),
        ([], 400),
        ({"text": "\ud800"}, 400),
        ({"text": "x" * 9000}, 413),
    ],
)
async def test_what_cannot_be_said_is_refused(
    serve: Serve, message: object, status: int
) -> None:
    """What is too long, empty or of another kind is a status, and nobody hears it."""
    served = await serve(create_app(tree=Tree(PAGE)))
    async with served.session.post(served.base + "/room", json=message) as response:
        assert status == response.status
    async with served.stream("/room") as stream:
        await speak(served, "the end")
        heard = [await stream.next()]
        while "the end" != texts(heard)[-1]:
            heard.append(await stream.next())
    assert (2 if status == 201 else 1) == len(heard)


async def test_only_json_of_this_site_is_taken(serve: Serve) -> None:
    """What a page of another site can send is refused."""
    served = await serve(create_app(tree=Tree(PAGE)))
    body = b'{"text": "hello"}'
    for headers, status in (
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "application/json"}, 201),
    ):
        async with served.session.post(
            served.base + "/room", data=body, headers=headers
        ) as response:
            assert status == response.status


async def test_what_steers_a_terminal_is_left_out(serve: Serve) -> None:
    """A message is one line of what can be printed; joined emoji stay joined."""
    served = await serve(create_app(tree=Tree(PAGE)))
    family = "\U0001f469\u200d\U0001f467"
    async with served.stream("/room") as stream:
        await speak(served, f" a\r\n\x1b[2Jb \u2028 c {family} ", name="\x07Ann\n")
        (message,) = messages([await stream.next()])
    assert (f"a [2Jb c {family}", "Ann") == (message["text"], message["name"])


async def test_who_says_too_much_waits(serve: Serve) -> None:
    """Over the pace the answer is 429 and says for how long; then it goes on."""
    hours = [0.0]
    app = create_app(tree=Tree(PAGE), now=lambda: hours[0])
    served = await serve(app)
    said = [(await speak(served, "hello"))[0] for _ in range(20)]
    count = said.count(201)
    assert 5 <= count <= 10
    assert [201] * count + [429] * (20 - count) == said
    # A new cookie does not help.
    async with served.session.post(
        served.base + "/room",
        json={"text": "hello"},
        headers={"Cookie": "demo_visitor=another"},
    ) as response:
        assert 429 == response.status
        hours[0] += int(response.headers["Retry-After"])
    assert 201 == (await speak(served, "hello"))[0]


def test_the_pace_is_kept_in_the_long_run() -> None:
    """A burst, then one each so many seconds; whoever rests may have a burst again."""
    now = [0.0]
    pace = Pace(3, 2.0, lambda: now[0])
    assert [0.0, 0.0, 0.0, 2.0] == [pace.wait("a") for _ in range(4)]
    assert 0.0 == pace.wait("b")
    now[0] = 1.5
    assert 0.5 == pace.wait("a")
    now[0] = 2.0
    assert [0.0, 2.0] == [pace.wait("a") for _ in range(2)]
    now[0] = 100.0
    assert [0.0, 0.0, 0.0, 2.0] == [pace.wait("a") for _ in range(4)]


async def test_an_outage_refuses_what_is_said_too(serve: Serve) -> None:
    """A visitor who asks for an outage cannot speak meanwhile, and then can."""
    hours = [0.0]
    served = await serve(create_app(tree=Tree(PAGE), now=lambda: hours[0]))
    url, headers = served.base + "/outage", {"Cookie": "demo_visitor=ann"}
    async with served.session.post(url, headers=headers) as response:
        assert 200 == response.status
    assert 503 == (await speak(served, "hello", tab="t1", n=1))[0]
    assert 201 == (await speak(served, "hello", visitor="bob"))[0]
    hours[0] = 5.0
    assert 201 == (await speak(served, "hello", tab="t1", n=1))[0]


async def test_the_room_is_there_after_a_restart(serve: Serve, tmp_path: Path) -> None:
    """Who was there goes on where it was, who is new has the past, nobody has a gap."""
    data = tmp_path / "chat.db"
    served = await serve(create_app(tree=Tree(PAGE), data=data))
    async with served.stream("/room") as stream:
        await stream.next("sse-hello")
        for n in (1, 2):
            await speak(served, f"number {n}", tab="t1", n=n)
        await stream.next()
        place = stream.last_event_id
    await served.close()

    served = await serve(create_app(tree=Tree(PAGE), data=data))
    # Its answer was lost, as the page thinks.
    for n in (2, 3):
        status, _ = await speak(served, f"number {n}", tab="t1", n=n)
        assert 201 == status
    async with (
        served.stream("/room", last_event_id=place) as stream,
        served.stream("/room") as new,
    ):
        assert ["number 2", "number 3"] == texts(await stream.collect(2))
        told = ["number 1", "number 2", "number 3"]
        assert told == texts(await new.collect(3))
        assert [] == stream.gaps == new.gaps
        assert stream.hello is not None
        assert "continued" == stream.hello["resumed"]


async def test_two_demos_on_one_file_are_one_room(serve: Serve, tmp_path: Path) -> None:
    """A demo that is started beside another, on another port, has the same room."""
    one, two = [
        await serve(create_app(tree=Tree(PAGE), data=tmp_path / "chat.db"))
        for _ in range(2)
    ]
    async with one.stream("/room") as here, two.stream("/room") as there:
        await here.next("sse-hello")
        await there.next("sse-hello")
        for number, served in enumerate((one, two, one, two)):
            await speak(served, str(number))
        for stream in (here, there):
            assert ["0", "1", "2", "3"] == texts(await stream.collect(4))


# -- the page and its buttons ----------------------------------------------------------


async def test_the_page_includes_the_client_under_a_strict_policy(
    serve: Serve,
) -> None:
    """Each page answers 200; all it loads is here, and is there to be loaded."""
    served = await serve(create_app(tree=Tree(PAGE)))
    for page, script, streams in (
        ("/", "streams.js", ("/job", "/machine", "/log")),
        ("/chat", "chat.js", ("/room",)),
    ):
        await check_page(served, page, script, streams)


async def check_page(
    served: Served, page: str, script: str, streams: Sequence[str]
) -> None:
    """Check that *page* loads *script*, and what that needs, and nothing else."""
    async with served.session.get(served.base + page) as response:
        html = await response.text()
        assert (200, POLICY) == (
            response.status,
            response.headers["Content-Security-Policy"],
        )
    assert "unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
    scripts = re.findall(r'<script (?:type="module" )?src="([^"]+)"></script>', html)
    assert len(scripts) == html.count("<script")
    assert re.fullmatch(r"/_sse/client\.global-[0-9a-f]{16}\.js", scripts[0])
    assert [script] == scripts[1:]
    _, source = await served.get(f"/{script}")
    imported = re.findall(rb'from "\./([^"]+)"', source)
    assert [b"demo.js"] == imported
    for url in [*scripts, "demo.js", "demo.css"]:
        status, body = await served.get(f"/{url.lstrip('/')}")
        assert (200, True) == (status, len(body) > 1000), url
    # A policy without unsafe-inline would refuse these.
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    loaded = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert not [url for url in loaded if re.match(r"(https?:)?//", url)]
    for path in streams:
        assert f"curl -N {served.base}{path}<" in html


async def test_the_page_escapes_what_it_is_told(serve: Serve, tmp_path: Path) -> None:
    """A folder's name is text, whatever is in it; so is the Host header."""
    folder = tmp_path / "<script>alert(1)"
    folder.mkdir()
    app = create_app(tree=Tree(folder), follow=folder / "<b>", data=folder / "<i>")
    served = await serve(app)
    for page in ("/", "/chat"):
        status, body = await served.get(page)
        assert 200 == status
        assert b"<script>alert" not in body
        assert b"<b>" not in body
        assert b"<i>" not in body
        for host in ('x"><script>alert(2)', "x:none", "[", ""):
            status, body = await served.get(page, headers={"Host": host})
            assert 200 == status
            assert b"<script>alert" not in body


async def test_the_page_shows_the_handlers_as_they_are(serve: Serve) -> None:
    """What it shows for code is the source that runs."""
    served = await serve(create_app(tree=Tree(PAGE)))
    _, body = await served.get("/")
    for line in ("async def machine(run: SharedRun)", "in_thread(steps, every="):
        assert line.encode() in body
    _, body = await served.get("/chat")
    for line in ("return Channels(ROOM, history=100)", "async def say(request"):
        assert line.encode() in body


async def test_a_cut_is_a_cut_of_ones_own_connections(serve: Serve) -> None:
    """The button of one browser does nothing to another's streams, nor to curl's."""
    served = await serve(create_app(tree=Tree(PAGE)))
    mine, yours = ({"Cookie": f"demo_visitor={name}"} for name in ("me", "you"))
    async with (
        served.stream("/machine", headers=mine) as a,
        served.stream("/log", headers=mine) as b,
        served.stream("/machine", headers=yours) as c,
        served.stream("/machine") as d,
    ):
        for stream in (a, b, c, d):
            await stream.next()
        url = served.base + "/cut"
        async with served.session.post(url, headers=mine) as response:
            assert {"cut": 2} == await response.json()
        await until_cut(a)
        await until_cut(b)
        await c.next()
        await d.next()


async def test_a_browser_gets_a_name_once(serve: Serve) -> None:
    """The page sets a cookie that scripts cannot read, and leaves it as it is."""
    served = await serve(create_app(tree=Tree(PAGE)))
    async with served.session.get(served.base + "/") as response:
        (cookie,) = response.headers.getall("Set-Cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    name = {"Cookie": cookie.partition(";")[0]}
    async with served.session.get(served.base + "/", headers=name) as response:
        assert "Set-Cookie" not in response.headers


async def test_an_outage_refuses_and_then_lets_on(serve: Serve) -> None:
    """For a while who comes back is answered 503; then the stream goes on as it was."""
    hours = [0.0]
    app = create_app(tree=default_tree(), outage=5, now=lambda: hours[0])
    served = await serve(app)
    async with served.stream("/job") as stream:
        await stream.next("progress")
        async with served.session.post(served.base + "/outage") as response:
            assert {"cut": 1, "refused": 5} == await response.json()
        await until_cut(stream)
        for now, status in ((1.0, 503), (4.9, 503), (5.0, 200)):
            hours[0] = now
            await stream.resume()
            assert status == stream.status
        await stream.next("progress")
    assert list(range(1, len(stream.events) + 1)) == numbers(stream.events)
    assert [] == stream.gaps


async def test_another_sites_page_cannot_cut(serve: Serve) -> None:
    """A browser says where a request is from, and the buttons are for our page only."""
    served = await serve(create_app(tree=Tree(PAGE)))
    for path in ("/cut", "/outage"):
        headers = {"Sec-Fetch-Site": "cross-site"}
        async with served.session.post(served.base + path, headers=headers) as answer:
            assert 403 == answer.status
        async with served.session.get(served.base + path) as answer:
            assert 405 == answer.status


async def test_the_connection_that_brings_the_cut_is_spared(serve: Serve) -> None:
    """One that has carried a stream before lives to tell how many were cut."""
    served = await serve(create_app(tree=Tree(PAGE)))
    client = await RawClient.connect(served)
    await client.send(
        b"HEAD /job HTTP/1.1\r\nHost: test\r\n\r\n"
        b"POST /cut HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"
    )
    await client.read_until(b'{"cut": 0}')


# -- the command line ------------------------------------------------------------------


class Demo:
    """``python -m aiohttp_sse_routes demo``, as a process of its own."""

    def __init__(self, data: Path, *arguments: str) -> None:
        command = [sys.executable, "-u", "-m", "aiohttp_sse_routes", "demo"]
        self.process = subprocess.Popen(
            [*command, "--data", str(data), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.said: list[str] = []

    def url(self) -> str:
        """Return the address that it prints."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            found = re.search(r"http://\S+/", line)
            if found:
                return found[0]
        _, errors = self.process.communicate(timeout=5)
        pytest.fail(f"it has ended: {self.said} {errors}")

    def interrupt(self) -> float:
        """Press Ctrl-C; return how many seconds it took to end."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=10)
        assert (0, "") == (self.process.returncode, errors)
        return time.monotonic() - began

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


async def test_the_demo_starts_answers_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    """It says where it is, and while a job is hashing and streams are open it ends."""
    with Demo(tmp_path / "chat.db", "--port", "0") as demo:
        url = await asyncio.to_thread(demo.url)
        async with (
            ClientSession() as session,
            EventStream(session, url + "job") as job,
            EventStream(session, url + "machine") as samples,
            EventStream(session, url + "log") as log,
        ):
            async with session.get(url) as response:
                assert 200 == response.status
            await job.next("progress")
            await samples.next()
            await log.next()
            assert await asyncio.to_thread(demo.interrupt) < 2


async def test_a_taken_port_is_passed_over_and_said(tmp_path: Path) -> None:
    """Where the port is taken the next free one is taken, and the demo says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Demo(tmp_path / "chat.db", "--port", str(port)) as demo:
            url = await asyncio.to_thread(demo.url)
            found = int(re.findall(r":(\d+)/", url)[0])
            assert port < found
            assert f"Port {port} is taken, so this is {found}.\n" == demo.said[0]
            await asyncio.to_thread(demo.interrupt)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", ["kill", "interrupt"])
async def test_a_restart_of_the_process_loses_nothing_that_was_said(
    tmp_path: Path, how: str
) -> None:
    """Killed or ended, and started again, it has all that was said, once."""
    data = tmp_path / "a folder" / "chat.db"
    place = ""
    for number in range(3):
        with Demo(data, "--port", "0") as demo:
            url = await asyncio.to_thread(demo.url)
            assert demo.process.stdout is not None
            said = await asyncio.to_thread(demo.process.stdout.readline)
            assert f"The chat room is kept in {data}\n" == said
            async with (
                ClientSession() as session,
                EventStream(session, url + "room", last_event_id=place) as stream,
                session.post(url + "room", json={"text": str(number)}) as answer,
            ):
                assert 201 == answer.status
                assert str(number) == texts([await stream.next()])[0]
                place = stream.last_event_id
                assert [] == stream.gaps
                async with EventStream(session, url + "room") as new:
                    past = texts(await new.collect(number + 1))
                    assert [str(n) for n in range(number + 1)] == past
            await asyncio.to_thread(demo.kill if how == "kill" else demo.interrupt)


def test_the_chat_is_kept_where_the_user_keeps_such(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file's place is the same each time, and follows the user's settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    name = Path("aiohttp-sse-routes", "demo-chat.db")
    if LINUX:
        assert tmp_path / ".local" / "state" / name == default_data()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert tmp_path / "state" / name == default_data()


def test_wrong_arguments_are_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be is said before anything is served, with the status of misuse."""
    file, d = tmp_path / "file", str(tmp_path / "d" / "x.db")
    file.write_bytes(b"no database, but something else" * 100)
    for arguments, what in [
        (["--path", str(tmp_path / "none")], "there is no such folder"),
        (["--follow", str(tmp_path)], "no file that can grow"),
        (["--data", str(file / "x")], "there can be no such file"),
        (["--port", "0", "--data", str(file)], "not a database"),
        (["--data", d, "--host", "192.0.2.1"], "cannot listen on 192.0.2.1 port 8080"),
    ]:
        assert 2 == main(["demo", *arguments])
        assert what in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["demo", "--port", "65536"])
    assert "65536 is no port" in capsys.readouterr().err
