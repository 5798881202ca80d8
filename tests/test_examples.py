"""The examples do what they say: each is run, served, and its streams are read."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from aiohttp import ClientError, ClientSession, web

from aiohttp_sse_routes.decoder import DecodedEvent
from aiohttp_sse_routes.testing import EventStream

from .helpers import Served, until
from .programs import (
    EXAMPLES,
    Program,
    default_table,
    interruptible,
    run_program,
)
from .redis_server import free_port, needs_redis

Start = Callable[..., Awaitable[tuple[Program, Served]]]


@pytest.fixture(autouse=True)
def _default_table() -> Iterator[None]:
    with default_table():
        yield


@pytest.fixture
def start(serve: Callable[[web.Application], Awaitable[Served]]) -> Start:
    """Return a function that runs an example and serves it on a free port."""

    async def run(name: str, *arguments: object) -> tuple[Program, Served]:
        program = run_program(EXAMPLES / name, *arguments)
        return program, await serve(program.app)

    return run


def value(event: DecodedEvent) -> Any:
    """Return the value that was sent as JSON."""
    assert event.json
    return json.loads(event.data)


def test_every_example_has_a_test() -> None:
    """There is a test here for each file, and each says how it is tried."""
    tests = Path(__file__).read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in tests, f"no test runs {path.name}"
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 75
        if path.name != "gunicorn.conf.py":
            assert re.search(rf"python examples/{path.name}|deploy:app", text)


async def test_clock(start: Start) -> None:
    """The clock tells the time, and a client that was cut has it all the same."""
    _, served = await start("clock.py")
    async with served.stream("/clock") as stream:
        first = await stream.next()
        assert value(first)["now"] == pytest.approx(time.time(), abs=5)
        assert stream.hello is not None
        assert stream.hello["resumed"] == "fresh"
        await stream.resume()
        second = await stream.next()
        assert stream.hello["resumed"] == "continued"
        assert value(second)["now"] > value(first)["now"]
        assert _number(second) == _number(first) + 1


async def test_report(start: Start) -> None:
    """The report is refused by real statuses, and its end is final."""
    program, served = await start("report.py")
    allowed = {"Authorization": f"Bearer {program.names['TOKEN']}"}
    for headers in ({}, {"Authorization": "Bearer cats"}):
        status, _ = await served.get("/report/modules", headers=headers)
        assert status == 401
    status, _ = await served.get("/report/cats", headers=allowed)
    assert status == 404

    async with served.stream("/report/modules", headers=allowed) as stream:
        modules = {value(event)["module"]: event for event in await stream.rest()}
        assert list(modules) == sorted(modules)
        assert value(modules["json"])["file"] == json.__file__
        assert stream.control[-1].type == "sse-end"
        await stream.resume()
        assert stream.status == 204

    async with served.stream("/report/disk", headers=allowed) as stream:
        usage = value(await stream.next())
        assert usage["total"] == shutil.disk_usage("/").total


async def test_load(start: Start) -> None:
    """The load is measured once for all; who comes later has what was before."""
    _, served = await start("load.py")
    async with served.stream("/load") as first, served.stream("/load") as second:
        event = await first.next()
        assert event.type == "load"
        load = value(event)
        assert load["at"] == pytest.approx(time.time(), abs=5)
        assert all(load[key] >= 0 for key in ("one", "five", "fifteen"))
        assert await second.next() == event
        async with served.stream("/load") as third:
            assert await third.next() == event


async def test_hash_folder(start: Start, tmp_path: Path) -> None:
    """The job is told once and whole, to a client that was cut in the middle too."""
    (tmp_path / "inner").mkdir()
    files = {f"inner/{n:02}.txt": f"file {n}".encode() for n in range(20)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    _, served = await start("hash_folder.py", tmp_path)
    async with served.stream("/hash") as stream:
        await stream.next()
        await stream.resume()
        await stream.rest()
        assert stream.hello is not None
        assert stream.hello["resumed"] == "continued"
        *told, done = stream.events
        assert done.type == "done"
        assert value(done) == {"files": 20}
        assert [value(event) for event in told] == [
            {
                "file": name,
                "sha256": hashlib.sha256(content).hexdigest(),
                "number": number,
                "of": 20,
            }
            for number, (name, content) in enumerate(files.items(), 1)
        ]
        await stream.resume()
        assert stream.status == 204


async def test_notes(start: Start, tmp_path: Path) -> None:
    """Rows come once by their own ids, after a restart of the server too."""
    database = tmp_path / "notes.db"
    _, served = await start("notes.py", database)
    for text in ("milk", "bread\nbutter"):
        await _post(served, "/notes", text)
    async with served.stream("/notes") as stream:
        assert [("1", "milk"), ("2", "bread\nbutter")] == [
            (event.id, event.data) for event in await stream.collect(2)
        ]
        stream.drop()
        await _post(served, "/notes", "tea")
        place = stream.last_event_id
    await served.close()

    with default_table():
        _, served = await start("notes.py", database)
        async with served.stream("/notes", last_event_id=place) as stream:
            event = await stream.next()
            assert ("3", "tea") == (event.id, event.data)
            assert stream.hello is not None
            assert stream.hello["resumed"] == "continued"
            assert stream.gaps == []
        status, _ = await served.get("/notes", headers={"Last-Event-ID": "cats"})
        assert status == 400
        await served.close()


async def test_subapp(start: Start) -> None:
    """A table of a sub-application is served, with the middleware of the root."""
    _, served = await start("subapp.py")
    async with served.stream("/admin/requests") as stream:
        assert value(await stream.next()) == {}
        await served.get("/")
        assert value(await stream.next()) == {"/": 1}


async def test_imperative(start: Start) -> None:
    """Two tasks send to one stream, and end with it."""
    _, served = await start("imperative.py")
    async with served.stream("/machine") as stream:
        kinds = {event.type: event for event in await stream.collect(2)}
        assert len(json.loads(kinds["load"].data)) == 3
        assert 0 <= json.loads(kinds["free"].data) <= shutil.disk_usage("/").total


async def test_chat(start: Start, tmp_path: Path) -> None:
    """Rooms are apart; what was said is there after a restart, and nothing twice."""
    database = tmp_path / "chat.db"
    _, served = await start("chat.py", database)
    _, body = await served.get("/")
    assert b"<title>lobby</title>" in body
    match = re.search(r'<script src="([^"]+)">', body.decode())
    assert match is not None
    assert (await served.get(match[1]))[0] == 200

    async with served.stream("/rooms/lobby/messages") as stream:
        for text in ("hello", "<b>bold</b>"):
            for _ in range(2):
                assert 201 == await _say(served, "lobby", name="Ann", text=text)
        await _say(served, "attic", name="Bob", text="nobody hears")
        assert ["hello", "<b>bold</b>"] == _texts(await stream.collect(2))
        place = stream.last_event_id
    await _say(served, "lobby", name="Ann", text="meanwhile")
    await served.close()

    with default_table():
        _, served = await start("chat.py", database)
        async with served.stream("/rooms/lobby/messages") as stream:
            await stream.collect(3)
            assert ["hello", "<b>bold</b>", "meanwhile"] == _texts(stream.events)
        async with served.stream(
            "/rooms/lobby/messages", last_event_id=place
        ) as stream:
            assert ["meanwhile"] == _texts([await stream.next()])
            assert stream.hello is not None
            assert stream.hello["resumed"] == "continued"
        for refused in (
            {"name": "Ann"},
            {"name": "Ann", "text": " "},
            {"name": "Ann", "text": "x" * 1001},
            {"name": 1, "text": "x"},
            {"name": "Ann", "text": "\ud800"},
            {"name": "Ann", "text": "x", "key": ""},
        ):
            assert 400 == await _say(served, "lobby", **refused)
        async with served.session.post(
            served.base + "/rooms/lobby/messages", data="["
        ) as response:
            assert response.status == 400
        for room in ("/rooms/Lobby", "/rooms/Lobby/messages", "/rooms/a%0Ab"):
            assert 404 == (await served.get(room))[0]
        await served.close()


async def test_page_jinja(start: Start) -> None:
    """The page includes the client, which knows the route."""
    _, served = await start("page_jinja.py")
    _, body = await served.get("/")
    match = re.search(r'<script src="([^"]+)">', body.decode())
    assert match is not None
    status, script = await served.get(match[1])
    assert status == 200
    assert b'"clock":["/clock"' in script.replace(b" ", b"")
    async with served.stream("/clock") as stream:
        assert "now" in value(await stream.next())


async def test_page_eventsource(start: Start) -> None:
    """The page asks for a stream of unnamed events, as `onmessage` takes them."""
    _, served = await start("page_eventsource.py")
    _, body = await served.get("/")
    match = re.search(r'new EventSource\("([^"]+)"\)', body.decode())
    assert match is not None
    async with served.stream(match[1]) as stream:
        event = await stream.next()
        assert event.type == "message"
        assert value(event)["load"] >= 0


async def test_htmx(start: Start, tmp_path: Path) -> None:
    """The list is in the page, and what is added to it comes as HTML, escaped.

    That htmx shows it is tested in a browser.
    """
    _, served = await start("htmx.py", tmp_path)
    status, page = await served.get("/")
    assert (200, True) == (status, b"<li>salt &amp; pepper</li>" in page)
    connect = re.search(r'sse-connect="([^"]+)"', page.decode())
    assert connect is not None
    url = served.base + "/todos"
    async with served.session.post(url, data={"text": "a < b"}) as response:
        assert response.status == 204
    async with served.stream(connect[1]) as stream:
        event = await stream.next()
        assert (event.type, event.data) == ("todo", "<li>a &lt; b</li>")


async def test_behind_prefix(start: Start) -> None:
    """Every URL in the page, and the stream, is right through a proxy's prefix."""
    program, served = await start("behind_prefix.py")
    assert program.options["port"] == 8081
    assert "proxy_pass http://127.0.0.1:8081/;" in (
        (EXAMPLES / "nginx.conf").read_text("utf-8")
    )
    async with _proxy("/live", served.port) as base:
        async with served.session.get(base + "/live/") as response:
            page = await response.text()
        urls = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(urls) == 2
        for url in urls:
            async with served.session.get(base + url) as response:
                assert response.status == 200
                response.close()
        async with EventStream(served.session, base + "/live/clock") as stream:
            await stream.next()
            await stream.resume()
            assert "now" in value(await stream.next())
            assert stream.hello is not None
            assert stream.hello["resumed"] == "continued"


@pytest.mark.parametrize("handler_cancellation", [False], indirect=True)
async def test_deploy(start: Start) -> None:
    """What gunicorn is told to serve runs by itself as well."""
    _, served = await start("deploy.py")
    async with served.stream("/clock") as stream:
        assert "now" in value(await stream.next())


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn is for Unix")
async def test_deploy_by_gunicorn(tmp_path: Path) -> None:
    """As "gunicorn.conf.py" has it, gunicorn serves the stream and ends it cleanly."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py"),
        *("--bind", "127.0.0.1:0", "deploy:app"),
        cwd=EXAMPLES,
        env={"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        log = ""
        while "Listening at: " not in log:
            line = await process.stderr.readline()
            assert line, f"gunicorn did not start: {log}"
            log += line.decode()
        match = re.search(r"Listening at: (\S+)", log)
        assert match is not None
        async with (
            ClientSession() as session,
            EventStream(session, match[1] + "/clock") as stream,
        ):
            await stream.next(timeout=10)
            process.terminate()
            await stream.rest()
        output, rest = await process.communicate()
        assert b"the clock stops" in output
        assert b"Traceback" not in rest
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


STORES = ["sqlite", pytest.param("redis", marks=needs_redis)]


@pytest.fixture
def store_of(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return what the examples that share a store are given for it."""
    if request.param == "sqlite":
        return str(tmp_path / "news.db")
    url: str = request.getfixturevalue("contract_redis")
    return f"{url}/{next(_databases)}"


_databases = itertools.count(1)

on_each_store = pytest.mark.parametrize("store_of", STORES, indirect=True)
in_processes = pytest.mark.timeout(60)


class Worker:
    """A process that serves, or starts others that do.

    Args:
        *command: What it runs, behind the name of Python.
        store: What ``STORE`` is.
        port: What ``PORT`` is.
    """

    def __init__(self, *command: object, store: str, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", *map(str, command)],
            cwd=EXAMPLES,
            env={**os.environ, "STORE": store, "PORT": str(port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self._process.pid

    async def said(self, pattern: str) -> str:
        """Return what *pattern* finds first in what it says."""
        assert self._process.stdout is not None
        log = ""
        while not (match := re.search(pattern, log)):
            line = await asyncio.to_thread(self._process.stdout.readline)
            assert line, f"it has ended: {log}"
            log += line
        return match[match.lastindex or 0]

    def kill(self) -> None:
        """End it without a word; return when it has ended."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End it in good order."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.communicate(timeout=15)


@contextlib.asynccontextmanager
async def _worker(*command: object, **options: Any) -> AsyncIterator[Worker]:
    worker = Worker(*command, **options)
    try:
        yield worker
    finally:
        await asyncio.to_thread(worker.end)


async def _publish(session: ClientSession, url: str, text: str) -> int:
    """Publish on a connection of its own; return which worker has done it."""
    headers = {"Connection": "close"}
    async with session.post(url, data=text, headers=headers) as response:
        assert response.status == 201
        return int((await response.text()).split()[-1])


@contextlib.contextmanager
def _paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@on_each_store
@in_processes
async def test_two_workers(store_of: str) -> None:
    """Two on one port: each client has it all, and goes on at the one that is left."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/news"
    program = EXAMPLES / "two_workers.py"
    async with (
        _worker(program, store=store_of, port=port) as one,
        _worker(program, store=store_of, port=port) as two,
        ClientSession() as session,
        contextlib.AsyncExitStack() as opened,
    ):
        for worker in (one, two):
            assert str(worker.pid) == await worker.said(r"This is worker (\d+)")
            await worker.said("Running on")
        # The system gives each connection to one of the two.
        streams = [
            await opened.enter_async_context(EventStream(session, url))
            for _ in range(16)
        ]
        texts: list[str] = []
        workers: set[int] = set()
        while len(workers) < 2:
            texts.append(f"number {len(texts)}")
            assert len(texts) < 100, f"only {workers} have answered"
            workers.add(await _publish(session, url, texts[-1]))
        assert {one.pid, two.pid} == workers
        for stream in streams:
            assert texts == _texts(await stream.collect(len(texts), timeout=10))

        await asyncio.to_thread(two.kill)
        assert one.pid == await _publish(session, url, "last")
        cut = 0
        for stream in streams:
            try:
                await stream.next(timeout=10)
            except ClientError:
                cut += 1
                await stream.resume()
                await stream.next(timeout=10)
            assert [*texts, "last"] == _texts(stream.events)
            assert [] == stream.gaps
        assert 0 < cut < len(streams)


@on_each_store
@in_processes
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn is for Unix")
async def test_two_workers_by_gunicorn(store_of: str) -> None:
    """Two workers that gunicorn has started have one log."""
    options = ("--config", "gunicorn.conf.py", "--workers", 2, "--bind", "127.0.0.1:0")
    async with (
        _worker(
            *("-m", "gunicorn", *options, "two_workers:app"), store=store_of
        ) as gunicorn,
        ClientSession() as session,
        contextlib.AsyncExitStack() as opened,
    ):
        base = await gunicorn.said(r"Listening at: (\S+)")
        url = f"{base}/news"
        one = await _publish(session, url, "first")
        # They share a socket: what one does not take, the other does.
        with _paused(one):
            at_two = await opened.enter_async_context(EventStream(session, url))
            two = await _publish(session, url, "second")
        assert one != two
        with _paused(two):
            at_one = await opened.enter_async_context(EventStream(session, url))
            assert one == await _publish(session, url, "third")
        for stream in (at_one, at_two):
            texts = _texts(await stream.collect(3, timeout=10))
            assert ["first", "second", "third"] == texts


def _run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / "publish_script.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@on_each_store
@in_processes
async def test_publish_script(start: Start, store_of: str) -> None:
    """What a script publishes comes in the streams, under the ids that it prints."""
    with patch.dict(os.environ, {"STORE": store_of}):
        _, served = await start("two_workers.py")
    async with served.stream("/news") as stream:
        await stream.next("sse-hello")
        done = await asyncio.to_thread(_run_script, store_of, "one", "two")
        events = await stream.collect(2)
    assert ["one", "two"] == _texts(events)
    assert [event.id for event in events] == done.stdout.split()
    assert (0, "") == (done.returncode, done.stderr)
    await served.close()


async def test_follow(start: Start, tmp_path: Path) -> None:
    """The program goes on behind what it has printed when it is started again."""
    _, served = await start("clock.py")
    place = tmp_path / "place.txt"
    url = served.base + "/clock"
    numbers = []
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            EXAMPLES / "follow.py",
            url,
            place,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
            preexec_fn=interruptible,
        )
        assert process.stdout is not None
        assert json.loads((await process.stdout.readline()).split(b" ", 1)[1])["now"]
        await until(lambda: place.exists() and place.read_text().strip())
        process.send_signal(signal.SIGINT)
        rest = await process.stdout.read()
        assert await process.wait() == 0
        numbers.append((int(place.read_text().rpartition(".")[2]), rest.count(b"\n")))
    (first, _), (second, more) = numbers
    # One line was read before the rest: nothing in between was missed.
    assert second == first + 1 + more


def test_follow_says_how_it_is_used() -> None:
    """Without a place there is nothing to resume from."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "follow.py"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )
    assert done.returncode == 1
    assert "usage: python examples/follow.py" in done.stderr


def test_publish_script_says_how_it_is_used() -> None:
    """Without a text there is nothing to publish."""
    done = _run_script()
    assert done.returncode == 1
    assert "usage: python examples/publish_script.py" in done.stderr


def _number(event: DecodedEvent) -> int:
    assert event.id is not None
    return int(event.id.rpartition(".")[2])


def _texts(events: list[DecodedEvent]) -> list[str]:
    return [value(event)["text"] for event in events]


async def _say(served: Served, room: str, **message: object) -> int:
    """Say something in *room*, by default with a key of the text's own."""
    url = f"{served.base}/rooms/{room}/messages"
    message.setdefault("key", f"{message.get('text')}")
    async with served.session.post(url, json=message) as response:
        return response.status


async def _post(served: Served, path: str, text: str) -> None:
    async with served.session.post(served.base + path, data=text) as response:
        assert response.status == 201


@contextlib.asynccontextmanager
async def _proxy(prefix: str, port: int) -> AsyncIterator[str]:
    """Serve what is at *port* below *prefix*, as nginx does; yield the proxy's URL."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def accept(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # One request a connection: enough for a test.
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(f"GET {prefix}/".encode())
        head = head.replace(f"GET {prefix}/".encode(), b"GET /", 1)
        head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        answers, requests = await asyncio.open_connection("127.0.0.1", port)
        requests.write(head)
        with contextlib.suppress(ConnectionError):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(pump(answers, writer))
                tasks.create_task(pump(reader, requests))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        host, own_port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{own_port}"
