"""An application that shuts down ends its streams cleanly, and is gone at once.

Whatever ``shutdown_timeout`` is: streams are told to end and return by themselves, so
that aiohttp has nothing to wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import SharedRun, SSERouteTableDef
from aiohttp_sse_routes.http.hub import HUB_KEY
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, app_of, until
from .lifecycle import (
    PROMPTLY,
    Follower,
    complaints,
    connections_of,
    hub_of,
    producers_of,
    stalled,
)

Serve = Callable[..., Awaitable[Served]]

LAST = b"\r\n0\r\n\r\n"
STREAMS = 200
GRACE = 0.5
ROOT = Path(__file__).parents[1]


def idle_table(closed: list[str]) -> SSERouteTableDef:
    """Return routes on which nothing happens after the first event."""
    table = SSERouteTableDef()

    @table.sse_route("/replay", retry=2000)
    async def replay(request: web.Request) -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            closed.append("replay")

    @table.sse_route("/once", resume=0, retry=2000)
    async def once(request: web.Request) -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            closed.append("once")

    @table.sse_route("/shared/{key}", shared=True, retry=2000, history=1)
    async def shared(run: SharedRun) -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            closed.append("shared")

    return table


async def test_two_hundred_idle_streams_end_at_once_and_cleanly(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """``cleanup`` takes less than a second, and each client has its last chunk."""
    closed: list[str] = []
    served = await serve(app_of(idle_table(closed), clock=clock))
    assert 60 == served.runner._shutdown_timeout
    paths = ["/replay", "/once", "/shared/a", "/shared/b"]
    followers = [Follower(served, paths[n % len(paths)]) for n in range(STREAMS)]
    for follower in followers:
        await follower.connect()
    for follower in followers:
        await follower.read_events()
    for follower in followers:
        follower.retry = None
    assert STREAMS == served.sse.connections
    before = time.monotonic()
    await served.close()
    took = time.monotonic() - before
    assert took < 1.0, took
    assert STREAMS // 2 + 2 == len(closed)
    for follower in followers:
        await follower.read_all()
        assert follower.complete
        assert [] == follower.ends
        assert ["first"] == follower.events
    retries = {follower.retry for follower in followers}
    assert all(retry is not None and 1500 <= retry <= 2500 for retry in retries)
    # They are not to come back in step.
    assert len(retries) > STREAMS // 4
    assert not complaints(caplog)


async def test_runs_that_wait_for_their_clients_are_ended(
    serve: Serve, clock: SettableClock
) -> None:
    """Private runs whose clients have left, and shared ones that nobody follows."""
    closed: list[str] = []
    served = await serve(app_of(idle_table(closed), clock=clock))
    for path in ["/replay"] * 5 + ["/shared/a", "/shared/b"]:
        follower = Follower(served, path)
        client = await follower.connect()
        await follower.read_events()
        client.close()
    await until(lambda: not served.sse.connections)
    await until(lambda: served.sse.detached == 5)
    before = time.monotonic()
    await served.close()
    assert time.monotonic() - before < 1.0
    assert 7 == len(closed)


async def test_a_stalled_client_does_not_hold_the_shutdown(
    serve: Serve, clock: SettableClock
) -> None:
    """Nobody waits longer than the grace for a transport that takes no more."""
    table = SSERouteTableDef()

    @table.sse_route("/endless")
    async def endless(request: web.Request) -> AsyncIterator[Any]:
        while True:
            yield "x" * 20_000

    served = await serve(app_of(table, clock=clock, shutdown_grace=0.1))
    await stalled(served, "/endless")
    [connection] = connections_of(served)
    before = time.monotonic()
    await served.close()
    assert time.monotonic() - before < 1.0 + 0.1
    await until(lambda: connection.lost, timeout=PROMPTLY)


async def test_a_client_that_reads_slowly_has_its_last_chunk_too(
    serve: Serve, clock: SettableClock
) -> None:
    """The grace is for the transports as for the generators."""
    table = SSERouteTableDef()

    @table.sse_route("/endless")
    async def endless(request: web.Request) -> AsyncIterator[Any]:
        while True:
            yield "x" * 20_000

    served = await serve(app_of(table, clock=clock, shutdown_grace=10))
    follower = await stalled(served, "/endless")
    follower.retry = None
    before = time.monotonic()
    closing = asyncio.create_task(served.close())
    await until(lambda: not served.sse.connections)
    for _ in range(50):
        await asyncio.sleep(0)
    await follower.read_all()
    await closing
    assert follower.complete
    assert follower.retry is not None
    # It is not waited for longer than it takes.
    assert time.monotonic() - before < 5


@contextlib.asynccontextmanager
async def draining(served: Served) -> AsyncIterator[asyncio.Task[None]]:
    """Shut the application down, and hold it while it drains."""
    hub = hub_of(served)
    closing = asyncio.create_task(served.close())
    await until(lambda: hub.draining)
    yield closing
    await closing


def holding_table(go: asyncio.Event, begun: list[str]) -> SSERouteTableDef:
    """Return a route whose ``finally`` holds the drain, and others to be asked for."""
    table = SSERouteTableDef()

    @table.sse_route("/holding")
    async def holding(request: web.Request) -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            await go.wait()

    @table.sse_route("/other")
    async def other(request: web.Request) -> AsyncIterator[Any]:
        begun.append("other")
        yield "first"

    @table.sse_route("/crowd", shared=True)
    async def crowd(run: SharedRun) -> AsyncIterator[Any]:
        begun.append("crowd")
        yield "first"

    async def slow_guard(request: web.Request) -> None:
        begun.append("guard")
        await go.wait()

    @table.sse_route("/guarded", guard=slow_guard)
    async def guarded(request: web.Request) -> AsyncIterator[Any]:
        begun.append("guarded")
        yield "first"

    @table.sse_route("/crowd-guarded", guard=slow_guard, shared=True)
    async def crowd_guarded(run: SharedRun) -> AsyncIterator[Any]:
        begun.append("crowd guarded")
        yield "first"

    @table.sse_route("/made")
    async def made(request: web.Request) -> AsyncIterator[Any]:
        begun.append("guard")
        await go.wait()

        async def lines() -> AsyncIterator[str]:
            begun.append("made")
            yield "first"

        return lines()

    return table


@pytest.mark.parametrize("path", ["/other", "/crowd", "/guarded"])
async def test_a_request_during_the_drain_is_refused_softly(
    serve: Serve, clock: SettableClock, path: str
) -> None:
    """On a connection that is still open: 200, ``retry``, ``sse-busy``, and the end."""
    go, begun = asyncio.Event(), []  # type: asyncio.Event, list[str]
    app = app_of(holding_table(go, begun), clock=clock, shutdown_grace=5)
    served = await serve(app)
    holder = Follower(served, "/holding")
    await holder.connect()
    await holder.read_events()
    async with draining(served):
        assert app[HUB_KEY].draining
        answer = await asked_while_draining(served, path)
        go.set()
    assert b"HTTP/1.1 200 OK" in answer
    assert b"Content-Type: text/event-stream" in answer
    assert b"event: sse-busy\n" in answer
    assert b'{"reason":"shutdown"}' in answer
    retry = int(answer.partition(b"retry: ")[2].split(b"\n")[0])
    assert 22_500 <= retry <= 37_500
    assert b"id: " not in answer
    assert [] == begun


async def asked_while_draining(served: Served, path: str) -> bytes:
    """Return the answer to a GET that comes while the application drains.

    Its listeners are closed by then. So it comes as one that was accepted before and
    is read after: over a socket pair, straight to the server.
    """
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    server = served.runner.server
    assert server is not None
    transport, _ = await loop.connect_accepted_socket(server, theirs)
    client = RawClient(ours)
    ours.setblocking(False)
    await client.get(path)
    await client.read_until(b"\n\n")
    transport.abort()
    client.close()
    return client.received


@pytest.mark.parametrize("path", ["/guarded", "/crowd-guarded", "/made"])
async def test_a_request_that_was_guarded_when_the_drain_began_starts_nothing(
    serve: Serve, clock: SettableClock, path: str
) -> None:
    """What has not begun by then does not begin: nobody would end it."""
    go, begun = asyncio.Event(), []  # type: asyncio.Event, list[str]
    served = await serve(
        app_of(holding_table(go, begun), clock=clock, shutdown_grace=5)
    )
    holder = Follower(served, "/holding")
    await holder.connect()
    await holder.read_events()
    late = await RawClient.connect(served)
    await late.get(path)
    await until(lambda: begun)
    async with draining(served):
        go.set()
        await late.read_all()
    assert late.received.endswith(LAST if path == "/made" else b"\n\n")
    assert b"retry: " in late.received
    assert b"sse-end" not in late.received
    assert ["guard"] == begun
    assert not producers_of(served)


async def test_a_shared_run_that_failed_does_not_begin_again_in_the_drain(
    serve: Serve, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its time may come while the application waits for another's ``finally``."""
    go = asyncio.Event()
    begun: list[str] = []
    table = holding_table(go, begun)

    @table.sse_route("/failing", shared=True)
    async def failing(run: SharedRun) -> AsyncIterator[Any]:
        begun.append("failing")
        yield "first"
        raise ValueError("failed")

    served = await serve(app_of(table, clock=clock, shutdown_grace=5))
    for path in ("/holding", "/failing"):
        follower = Follower(served, path)
        await follower.connect()
        await follower.read_events()
    await until(lambda: len(producers_of(served)) == 1)
    assert ["failing"] == begun
    async with draining(served):
        await clock.advance(5)
        assert ["failing"] == begun
        go.set()
    assert not producers_of(served)
    assert 1 == len(complaints(caplog))


async def test_each_run_is_told_once(serve: Serve, clock: SettableClock) -> None:
    """A ``finally`` is not interrupted by being told again, but for the time it has."""
    told: list[str] = []
    go = asyncio.Event()
    table = SSERouteTableDef()

    @table.sse_route("/careful")
    async def careful(request: web.Request) -> AsyncIterator[Any]:
        try:
            yield "first"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("told")
            raise
        finally:
            try:
                await go.wait()
            except asyncio.CancelledError:
                told.append("told again")
                raise

    served = await serve(app_of(table, clock=clock, shutdown_grace=5))
    follower = Follower(served, "/careful")
    client = await follower.connect()
    await follower.read_events()
    client.close()
    await until(lambda: served.sse.detached)
    # Its time is over, and then the application's.
    await clock.advance(20)
    assert ["told"] == told
    async with draining(served):
        go.set()
    assert ["told"] == told


async def test_an_application_works_that_is_started_twice(
    serve: Serve, clock: SettableClock
) -> None:
    """A second start knows nothing of the first: neither its runs nor its end."""
    closed: list[str] = []
    app = app_of(idle_table(closed), clock=clock)
    places: list[str] = []
    for _ in range(2):
        served = await serve(app)
        follower = Follower(served, "/replay")
        follower.last_event_id = places[-1] if places else ""
        await follower.connect()
        await follower.read_events()
        assert (["unknown"] if places else []) == follower.gaps
        crowd = Follower(served, "/shared/a")
        crowd.last_event_id = places[-2] if len(places) > 1 else ""
        await crowd.connect()
        await crowd.read_events()
        assert (["reset"] if places else []) == crowd.gaps
        places += [crowd.last_event_id, follower.last_event_id]
        assert 2 == served.sse.connections
        assert 0 == served.sse.detached
        before = time.monotonic()
        await served.close()
        assert time.monotonic() - before < 1.0
        await follower.read_all()
        assert follower.complete
    assert ["replay", "shared"] * 2 == sorted(closed[:2]) + sorted(closed[2:])


async def test_applications_in_one_process_are_independent(
    serve: Serve, clock: SettableClock
) -> None:
    """One's shutdown, runs and limits are nothing to the other, at the same routes."""
    closed: list[str] = []
    table = idle_table(closed)
    one = await serve(app_of(table, clock=clock, max_connections=2))
    two = await serve(app_of(table, clock=clock, max_connections=2))
    followers = []
    for served in (one, two):
        for path in ("/replay", "/shared/a"):
            follower = Follower(served, path)
            await follower.connect()
            await follower.read_events()
            followers.append(follower)
    assert (2, 2) == (one.sse.connections, two.sse.connections)
    stranger = Follower(two, "/replay")
    stranger.last_event_id = followers[0].last_event_id
    followers[3].sock.close()
    await until(lambda: two.sse.connections == 1)
    await stranger.connect()
    await stranger.read_events()
    assert ["unknown"] == stranger.gaps
    await one.close()
    assert ["replay", "shared"] == sorted(closed)
    assert 2 == two.sse.connections
    late = Follower(two, "/shared/a")
    await late.connect()
    await late.read_all()
    assert [("sse-busy", {"reason": "limit"})] == late.control


# -- a process of its own --------------------------------------------------------------

APPLICATION = textwrap.dedent(
    """
    import asyncio, logging, sys
    from aiohttp import web
    from aiohttp_sse_routes import SSERouteTableDef, setup

    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    table = SSERouteTableDef()

    @table.sse_route("/own")
    async def own(request):
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            print("closed own", file=sys.stderr, flush=True)

    @table.sse_route("/crowd", shared=True, history=1)
    async def crowd(run):
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            print("closed crowd", file=sys.stderr, flush=True)

    app = web.Application()
    setup(app, table)
    """
)

SERVE = """
if __name__ == "__main__":
    sock = __import__("socket").socket(fileno=int(sys.argv[1]))
    web.run_app(app, sock=sock, print=None)
"""


class Process:
    """A server in a process of its own.

    Args:
        arguments: What to run, behind the interpreter.
        listener: The socket that it is to listen on.
        folder: Where it runs.
    """

    def __init__(
        self, arguments: list[str], listener: socket.socket, folder: Path
    ) -> None:
        self.address = listener.getsockname()
        self.log = folder / "stderr"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", *arguments],
                cwd=folder,
                pass_fds=[listener.fileno()],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )

    def ask(self, path: str) -> socket.socket:
        """Return a client that has the first event of *path*."""
        sock = socket.create_connection(self.address, timeout=10)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        data = b""
        while b"first" not in data:
            more = sock.recv(65536)
            assert more, f"{data!r} {self.log.read_text()}"
            data += more
        return sock

    def terminate(self) -> float:
        """Send SIGTERM; return how many seconds the process took to end."""
        before = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
        return time.monotonic() - before


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket: who connects before the server runs waits for it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def checked_end(process: Process, *, extra: float) -> str:
    """Open streams, end the process; return its log."""
    try:
        clients = [process.ask(path) for path in ["/own", "/crowd"] * 5]
        took = process.terminate()
        assert took < 1.0 + GRACE + extra, f"{took} {process.log.read_text()}"
        for sock in clients:
            data = b""
            while more := sock.recv(65536):
                data += more
            assert data.endswith(LAST), data
            assert b"retry: " in data
            sock.close()
    finally:
        process.process.kill()
        process.process.wait(10)
    log = process.log.read_text()
    assert "Traceback" not in log, log
    assert 5 == log.count("closed own"), log
    assert 1 == log.count("closed crowd"), log
    return log


def test_run_app_ends_on_sigterm_with_streams_open(
    tmp_path: Path, listener: socket.socket
) -> None:
    """A process of ``web.run_app`` with its default settings is gone in a second."""
    (tmp_path / "served.py").write_text(APPLICATION + SERVE)
    process = Process(["served.py", str(listener.fileno())], listener, tmp_path)
    log = checked_end(process, extra=0)
    assert 0 == process.process.returncode, log


def test_gunicorn_ends_on_sigterm_with_streams_open(
    tmp_path: Path, listener: socket.socket
) -> None:
    """So is gunicorn, whose worker looks once a second whether it is to end."""
    pytest.importorskip("gunicorn")
    (tmp_path / "served.py").write_text(APPLICATION)
    process = Process(
        [
            *["-W", "ignore", "-m", "gunicorn", "served:app"],
            *["--worker-class", "aiohttp.GunicornWebWorker"],
            *["--bind", f"fd://{listener.fileno()}"],
            *["--worker-tmp-dir", str(tmp_path)],
        ],
        listener,
        tmp_path,
    )
    log = checked_end(process, extra=1.0)
    assert "ERROR" not in log
    assert 0 == process.process.returncode, log


def test_the_log_says_what_still_runs_when_the_process_ends(
    tmp_path: Path, listener: socket.socket
) -> None:
    """A ``finally`` that takes long is named, and does not keep the process."""
    source = APPLICATION.replace("setup(app, table)\n", "") + textwrap.dedent(
        """
        @table.sse_route("/slow")
        async def slow(request):
            try:
                yield "first"
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(10)

        setup(app, table)
        """
    )
    (tmp_path / "served.py").write_text(source + SERVE)
    process = Process(["served.py", str(listener.fileno())], listener, tmp_path)
    try:
        sock = process.ask("/slow")
        took = process.terminate()
    finally:
        process.process.kill()
        process.process.wait(10)
    log = process.log.read_text()
    assert took < 1.0 + GRACE, f"{took} {log}"
    assert 1 == log.count("__main__.slow"), log
    assert logging.getLevelName(logging.WARNING) in log
    sock.close()
