"""The imperative form: what it does better than the package whose place it takes.

What it does alike is in test_imperative_compatibility.py.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Any

import aiohttp_sse
import pytest
import trustme
from aiohttp import ClientConnectionResetError, web
from aiohttp.abc import AbstractAccessLogger

from aiohttp_sse_routes import (
    EventSourceResponse,
    SSERouteTableDef,
    setup,
    sse_response,
)
from aiohttp_sse_routes.http.hub import HUB_KEY
from aiohttp_sse_routes.testing import SettableClock

from .helpers import RawClient, Served, until

Serve = Callable[..., Awaitable[Served]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MEGABYTE = 1_000_000


def new_app(
    handler: Handler,
    plugin: bool = True,
    *,
    path: str = "/",
    **options: Any,
) -> web.Application:
    """Return an application with *handler*, with the plugin or without."""
    app = web.Application()
    if plugin:
        setup(app, SSERouteTableDef(), **options)
    app.router.add_route("*", path, handler)
    return app


@pytest.fixture(params=[False, True], ids=["alone", "set-up"])
def plugin(request: pytest.FixtureRequest) -> bool:
    """Whether the application has the plugin; it all works without, too."""
    value: bool = request.param
    return value


# Where aiohttp cancels handlers of clients that left, they see nothing else.
uncancelled = pytest.mark.parametrize("handler_cancellation", [False], indirect=True)


class Log:
    """What a server logs that something is wrong with."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def errors(self) -> list[str]:
        """The messages that are errors, or have a traceback."""
        return [
            record.getMessage()
            for record in self._caplog.records
            if record.levelno >= logging.ERROR or record.exc_info
        ]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    """Give the log of this test."""
    caplog.set_level(logging.DEBUG)
    return Log(caplog)


def test_it_is_one_of_aiohttp_sse() -> None:
    """Code that knows aiohttp-sse's response takes ours for one."""
    assert isinstance(EventSourceResponse(), aiohttp_sse.EventSourceResponse)


async def test_a_class_of_aiohttp_sse_is_taken(serve: Serve) -> None:
    """A library's own subclass of aiohttp-sse's response goes on to work."""

    class Theirs(aiohttp_sse.EventSourceResponse):
        pass

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request, response_cls=Theirs) as resp:
            assert isinstance(resp, Theirs)
            await resp.send("a")
        return resp

    app = new_app(handler)
    assert (200, b"data: a\r\n\r\n") == await (await serve(app)).get("/")


async def test_a_stopped_stream_is_not_connected(serve: Serve, plugin: bool) -> None:
    """That shows at once, before the ping task has had its turn."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            resp.stop_streaming()
            seen.append(resp.is_connected())
        return resp

    app = new_app(handler, plugin)
    await (await serve(app)).get("/")
    assert [False] == seen


# -- the disconnect ------------------------------------------------------------------


@pytest.fixture(scope="session")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context and one that trusts it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def loops() -> Iterator[Any]:
    """Yield the loops that there are here."""
    yield pytest.param(asyncio.new_event_loop, id="asyncio")
    try:
        import uvloop
    except ImportError:
        return
    yield pytest.param(uvloop.new_event_loop, id="uvloop")


@pytest.mark.parametrize("new_loop", [*loops()])
@pytest.mark.parametrize("encrypted", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("cut", [False, True], ids=["close", "abort"])
def test_the_disconnect_is_seen_at_once(
    handler_cancellation: bool,
    plugin: bool,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    encrypted: bool,
    cut: bool,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """An idle handler that waits is told at once, long before the next ping."""
    streams: list[EventSourceResponse] = []
    told = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            streams.append(resp)
            try:
                await resp.wait()
            except asyncio.CancelledError:
                told.append("cancelled")
                raise
            told.append("waited")
        return resp

    async def scenario() -> None:
        app = new_app(handler, plugin)
        runner = web.AppRunner(app, handler_cancellation=handler_cancellation)
        await runner.setup()
        server, client = tls if encrypted else (None, None)
        await web.TCPSite(runner, "localhost", 0, ssl_context=server).start()
        port = runner.addresses[0][1]
        reader, writer = await asyncio.open_connection("localhost", port, ssl=client)
        writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await until(lambda: streams)
        assert streams[0].is_connected()
        if cut:
            writer.transport.abort()
        else:
            writer.close()
        await until(lambda: told)
        assert not streams[0].is_connected()
        await runner.cleanup()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())
    # Where aiohttp cancels too, it is a matter of turns which comes first.
    assert told[0] == "waited" or handler_cancellation


@uncancelled
async def test_a_client_that_sends_no_more_has_left(serve: Serve, plugin: bool) -> None:
    """A half-closed connection is one that was left, to us as to aiohttp."""
    told = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            await resp.wait()
            told.append(resp.is_connected())
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app))) as client:
        await client.get("/")
        await client.read_until(b"\r\n\r\n")
        client.sock.shutdown(1)
        await until(lambda: told)
    assert [False] == told


async def send_in_a_block(request: web.Request) -> web.StreamResponse:
    """Send for ever, as aiohttp-sse's README has it but for the condition."""
    async with sse_response(request) as resp:
        while True:
            await resp.send("a")
            await asyncio.sleep(0)
    return resp


async def send_by_hand(request: web.Request) -> web.StreamResponse:
    """Send for ever, without a block that could catch anything."""
    resp = EventSourceResponse()
    await resp.prepare(request)
    while True:
        await resp.send("a")
        await asyncio.sleep(0)


async def send_while_connected(request: web.Request) -> web.StreamResponse:
    """Send as long as the client is there."""
    async with sse_response(request) as resp:
        while resp.is_connected():
            await resp.send("a")
            await asyncio.sleep(0)
    return resp


async def send_from_tasks(request: web.Request) -> web.StreamResponse:
    """Send for ever from two tasks of a group."""

    async def send(resp: EventSourceResponse) -> None:
        while True:
            await resp.send("a")
            await asyncio.sleep(0)

    async with sse_response(request) as resp, asyncio.TaskGroup() as group:
        group.create_task(send(resp))
        group.create_task(send(resp))
    return resp


async def wait_to_the_end(request: web.Request) -> web.StreamResponse:
    """Wait until the client has left."""
    async with sse_response(request) as resp:
        await resp.send("a")
        await resp.wait()
    return resp


async def end_too_late(request: web.Request) -> web.StreamResponse:
    """Write the end to a client that has left."""
    resp = EventSourceResponse()
    await resp.prepare(request)
    await resp.send("a")
    await resp.wait()
    await resp.write_eof(b": bye\r\n\r\n")
    return resp


@pytest.mark.parametrize(
    "handler",
    [
        send_in_a_block,
        send_by_hand,
        send_while_connected,
        send_from_tasks,
        wait_to_the_end,
        end_too_late,
    ],
)
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_an_ordinary_disconnect_is_no_error(
    serve: Serve, plugin: bool, log: Log, handler: Handler, reset: bool
) -> None:
    """However a handler is written, a client that leaves puts no error in the log."""
    ended = []

    async def watched(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        finally:
            ended.append(True)

    app = new_app(watched, plugin)
    served = await serve(app)
    with closing(await RawClient.connect(served)) as client:
        await client.get("/")
        await client.read_until(b"data: a")
        if reset:
            client.reset()
    await until(lambda: ended)
    await served.close()
    assert [] == log.errors


@pytest.mark.parametrize("begun", [False, True])
async def test_the_access_log_has_a_disconnect(log: Log, begun: bool) -> None:
    """It is one line: the stream's status and bytes, or that the client was gone."""
    lines: list[tuple[int, bool]] = []

    class AccessLogger(AbstractAccessLogger):
        def log(
            self, request: web.BaseRequest, response: web.StreamResponse, time: float
        ) -> None:
            lines.append((response.status, response.body_length > 100))

    async def handler(request: web.Request) -> web.StreamResponse:
        if not begun:
            await until(lambda: request.transport is None)
        async with sse_response(request, status=201) as resp:
            await resp.send("a" * 100)
            while True:
                await resp.send("a")
                await asyncio.sleep(0)
        return resp

    app = new_app(handler)
    runner = web.AppRunner(
        app, access_log_class=AccessLogger, access_log=logging.getLogger("access")
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    if begun:
        await until(lambda: app[HUB_KEY].connections)
    else:
        await writer.drain()
    writer.close()
    await until(lambda: lines)
    await runner.cleanup()
    assert [(201, True) if begun else (499, False)] == lines
    assert [] == log.errors


@uncancelled
async def test_a_handler_sees_the_disconnect_around_its_block(
    serve: Serve, plugin: bool
) -> None:
    """The error of a send leaves the block: what follows is not run in its stead."""
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        resp = None
        try:
            async with sse_response(request) as resp:
                while True:
                    await resp.send("a")
                    await asyncio.sleep(0)
            seen.append("after")
        except ConnectionResetError as exc:
            seen.append(exc)
        assert resp is not None
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app))) as client:
        await client.get("/")
        await client.read_until(b"data: a")
    await until(lambda: seen)
    (exc,) = seen
    assert isinstance(exc, ClientConnectionResetError)
    assert "Cannot write to closing transport" == str(exc)


class Oops(Exception):
    """An error that is the handler's own."""


@pytest.mark.parametrize(
    "error",
    [
        Oops(),
        ConnectionResetError("the database has gone"),
        ExceptionGroup("tasks", [Oops()]),
    ],
    ids=["exception", "reset", "group"],
)
async def test_an_error_of_the_handler_is_still_logged(
    serve: Serve, plugin: bool, log: Log, error: Exception
) -> None:
    """Only the loss of this very client is passed over."""

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            await resp.send("a")
            raise error
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app))) as client:
        await client.get("/")
        received = await client.read_all()
    assert received.endswith(b"data: a\r\n\r\n\r\n")
    assert ["Error handling request from 127.0.0.1"] == log.errors


@uncancelled
async def test_a_group_with_another_error_in_it_stays_one(
    serve: Serve, plugin: bool
) -> None:
    """A task group that failed of more than the disconnect is raised as it is."""
    seen: list[Exception] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        resp = None

        async def send(resp: EventSourceResponse) -> None:
            await resp.wait()
            try:
                await resp.send("a")
            finally:
                raise Oops

        try:
            async with sse_response(request) as resp:
                await resp.send("a")
                async with asyncio.TaskGroup() as group:
                    group.create_task(send(resp))
        except ExceptionGroup as exc:
            seen.append(exc)
        assert resp is not None
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app))) as client:
        await client.get("/")
        await client.read_until(b"data: a")
    await until(lambda: seen)
    assert isinstance(seen[0], ExceptionGroup)
    assert isinstance(seen[0].exceptions[0], Oops)


@pytest.mark.parametrize("kind", ["plain", "stream", "group"])
async def test_a_handler_that_sends_to_another_client_has_failed(
    serve: Serve, plugin: bool, log: Log, kind: str
) -> None:
    """The loss of a client excuses its own handler: another is answered with 500."""
    streams: list[EventSourceResponse] = []
    stay = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            streams.append(resp)
            try:
                await stay.wait()
            finally:
                await asyncio.shield(asyncio.ensure_future(stay.wait()))
        return resp

    async def say(request: web.Request) -> web.StreamResponse:
        if kind == "plain":
            await streams[0].send("a")
            return web.Response()
        async with sse_response(request) as resp, asyncio.TaskGroup() as group:
            await resp.send("a")
            if kind == "group":
                group.create_task(streams[0].send("a"))
        await streams[0].send("a")
        return resp

    app = new_app(stream, plugin)
    app.router.add_get("/say", say)
    served = await serve(app)
    with closing(await RawClient.connect(served)) as client:
        await client.get("/")
        await client.read_until(b"\r\n\r\n")
        await until(lambda: streams)
    await until(lambda: not streams[0].is_connected())
    with closing(await RawClient.connect(served)) as client:
        await client.get("/say")
        received = await client.read_all()
    stay.set()
    assert ["Error handling request from 127.0.0.1"] == log.errors
    if kind == "plain":
        assert received.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert received.endswith(b"\r\n\r\n500: Internal Server Error")
    else:
        assert received.endswith(b"data: a\r\n\r\n\r\n")


@uncancelled
@pytest.mark.parametrize("by_hand", [False, True], ids=["block", "by-hand"])
async def test_a_client_that_left_before_the_stream(
    serve: Serve, plugin: bool, log: Log, by_hand: bool
) -> None:
    """Preparing for it raises ConnectionResetError, and no error is logged."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        await until(lambda: request.transport is None)
        resp = EventSourceResponse()
        try:
            if by_hand:
                await resp.prepare(request)
            else:
                async with sse_response(request) as resp:
                    seen.append("within")
        except ConnectionResetError:
            seen.append("reset")
            raise
        return resp

    app = new_app(handler, plugin)
    served = await serve(app)
    with closing(await RawClient.connect(served)) as client:
        await client.get("/")
    await until(lambda: seen)
    await served.close()
    assert ["reset"] == seen
    assert [] == log.errors


@uncancelled
@pytest.mark.parametrize("own_error", [False, True])
async def test_a_client_that_leaves_while_a_signal_runs(
    serve: Serve, plugin: bool, log: Log, own_error: bool
) -> None:
    """That is no error either; but an error of the signal's own is one."""
    ran = []
    begun = asyncio.Event()

    async def sign(request: web.Request, response: web.StreamResponse) -> None:
        begun.set()
        if own_error:
            ran.append(True)
            raise ConnectionResetError("the session store has gone")
        await until(lambda: request.transport is None)
        ran.append(True)

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            pass
        return resp

    app = new_app(handler, plugin)
    app.on_response_prepare.append(sign)
    served = await serve(app)
    with closing(await RawClient.connect(served)) as client:
        await client.get("/")
        await begun.wait()
        if own_error:
            await client.read_all()
    await until(lambda: ran)
    await served.close()
    assert own_error == bool(log.errors)


@uncancelled
async def test_a_subclass_that_goes_round_prepare(
    serve: Serve, plugin: bool, log: Log
) -> None:
    """One that sends its headers by itself is told of the loss as well."""
    seen = []

    class Own(EventSourceResponse):
        async def prepare(self, request: web.BaseRequest) -> Any:
            if self.prepared:
                return self._payload_writer
            writer = await web.StreamResponse.prepare(self, request)
            if "ping" in request.query:
                self._ping_task = asyncio.create_task(self._ping())
            return writer

    async def handler(request: web.Request) -> web.StreamResponse:
        resp = Own()
        await resp.prepare(request)
        if "ping" in request.query:
            await resp.wait()
        else:
            await until(lambda: request.transport is None)
        seen.append(resp.is_connected())
        await resp.write(b"a")
        return resp

    app = new_app(handler, plugin)
    served = await serve(app)
    for path in ("/", "/?ping"):
        with closing(await RawClient.connect(served)) as client:
            await client.get(path)
            await client.read_until(b"\r\n\r\n")
    await until(lambda: len(seen) == 2)
    await served.close()
    assert [False, False] == seen
    assert [] == log.errors


# -- slow clients --------------------------------------------------------------------


async def test_a_send_waits_for_a_slow_client(serve: Serve, plugin: bool) -> None:
    """The handler is held while the transport is paused, and all arrives in order."""
    count = 3000
    sent: list[int] = []
    requests: list[web.Request] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        async with sse_response(request) as resp:
            for number in range(count):
                await resp.send(f"{number:01000}")
                sent.append(number)
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app), rcvbuf=4096)) as client:
        await client.get("/")
        await until(lambda: requests and requests[0].protocol.writing_paused)
        held_at = len(sent)
        for _ in range(100):
            await asyncio.sleep(0)
        assert held_at == len(sent) < count
        transport = requests[0].transport
        assert transport is not None
        assert transport.get_write_buffer_size() < 128 * 1024
        received = await read_to_end(client)
    lines = [line for line in received.split(b"\r\n") if line.startswith(b"data: ")]
    assert list(range(count)) == [int(line[6:]) for line in lines]


async def read_to_end(client: RawClient) -> bytes:
    """Return all to the last chunk, much of it as fast as it comes."""
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MEGABYTE)
    received = bytearray(client.received)
    while not received.endswith(b"\r\n0\r\n\r\n"):
        client.received = b""
        received += await client.read(MEGABYTE)
    return bytes(received)


async def fill(resp: EventSourceResponse) -> asyncio.Task[None]:
    """Return the task that sends until the client takes no more, and waits there."""
    request = resp._req
    assert request is not None
    task = asyncio.create_task(resp.send("x" * 3 * MEGABYTE))
    await until(lambda: request.protocol.writing_paused)
    return task


async def test_senders_keep_their_order(serve: Serve, plugin: bool) -> None:
    """Events of several tasks leave in the order of the calls, whoever waited."""
    waiting = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            first = await fill(resp)
            tasks = [asyncio.create_task(resp.send(str(n))) for n in range(20)]
            await asyncio.sleep(0)
            waiting.set()
            await asyncio.wait({first})
            # This one comes when the others have room and no turn yet.
            tasks.append(asyncio.create_task(resp.send("20")))
            await asyncio.gather(*tasks)
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app), rcvbuf=4096)) as client:
        await client.get("/")
        await waiting.wait()
        received = await read_to_end(client)
    lines = [line for line in received.split(b"\r\n") if line.startswith(b"data: ")]
    assert [b"data: %d" % n for n in range(21)] == lines[1:]


async def test_a_cancelled_sender_harms_nobody(
    serve: Serve, plugin: bool, log: Log
) -> None:
    """Who gives up waiting has sent nothing; the others wait on and send."""
    waiting = asyncio.Event()
    gave_up: list[bool] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            first = await fill(resp)
            other = asyncio.create_task(resp.send("other"))
            try:
                await asyncio.wait_for(resp.send("never"), 0.001)
            except TimeoutError:
                gave_up.append(True)
            first.cancel()
            waiting.set()
            await other
            await resp.send("after")
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app), rcvbuf=4096)) as client:
        await client.get("/")
        await waiting.wait()
        received = await read_to_end(client)
    assert received.endswith(
        b"f\r\ndata: other\r\n\r\n\r\nf\r\ndata: after\r\n\r\n\r\n0\r\n\r\n"
    )
    assert [True] == gave_up
    assert [] == log.errors


async def test_the_end_of_a_stream_leaves_no_sender_waiting(
    serve: Serve, plugin: bool
) -> None:
    """What was written goes out before the end; who had no turn is told it is late."""
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            first = await fill(resp)
            second = asyncio.create_task(resp.send("late"))
            await asyncio.sleep(0)
            await resp.write_eof()
            await first
            with pytest.raises(ConnectionResetError):
                await second
        ended.set()
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app), rcvbuf=4096)) as client:
        await client.get("/")
        await ended.wait()
        received = await read_to_end(client)
    assert b"late" not in received
    assert received.endswith(b"xxx\r\n\r\n\r\n0\r\n\r\n")


@uncancelled
async def test_a_time_limit_of_one_is_no_cancellation_of_another(
    serve: Serve, plugin: bool
) -> None:
    """When the client is cut, the other senders see ConnectionResetError."""
    seen: list[str] = []

    async def send(resp: EventSourceResponse) -> None:
        try:
            await resp.send("a")
        except ConnectionResetError:
            seen.append("reset")
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request, send_timeout=0.5) as resp:
            first = await fill(resp)
            # These wait for their turn, with less of their time gone: half of it less.
            await asyncio.sleep(0.25)
            later = [asyncio.create_task(send(resp)) for _ in range(3)]
            with pytest.raises(TimeoutError):
                await first
            await asyncio.wait(later)
            seen.append("end")
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app), rcvbuf=4096)) as client:
        await client.get("/")
        await until(lambda: "end" in seen)
    assert ["reset"] * 3 + ["end"] == seen


@uncancelled
async def test_a_ping_that_waits_too_long_cuts_the_client(
    serve: Serve, clock: SettableClock
) -> None:
    """The ticker's pings find a client that takes nothing, by the clock."""
    streams: list[EventSourceResponse] = []
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request, ping_interval=15, send_timeout=3600) as resp:
            task = await fill(resp)
            streams.append(resp)
            await resp.wait()
            try:
                await task
            except ConnectionResetError:
                seen.append("reset")
        return resp

    app = new_app(handler, clock=clock)
    with closing(await RawClient.connect(await serve(app), rcvbuf=4096)) as client:
        await client.get("/")
        await until(lambda: streams)
        await clock.advance(15 + 3600 - 1)
        assert streams[0].is_connected()
        await clock.advance(3)
        await until(lambda: seen)
    assert ["reset"] == seen


async def test_what_a_slow_client_has_not_taken_is_its_still(
    serve: Serve, plugin: bool
) -> None:
    """The end of the handler cuts nothing off: the client reads to the last chunk."""
    size = 60_000
    ended = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            await resp.send("x" * size)
        ended.append(True)
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app), rcvbuf=4096)) as client:
        await client.get("/")
        await until(lambda: ended)
        received = await client.read_until(b"\r\n0\r\n\r\n")
    assert size == received.count(b"x") - received.partition(b"data: ")[0].count(b"x")


@pytest.mark.parametrize("size", [1, 10_000])
@pytest.mark.parametrize("raw", [False, True], ids=["send", "write"])
async def test_a_loop_of_sends_leaves_others_their_turns(
    serve: Serve, plugin: bool, size: int, raw: bool
) -> None:
    """A handler that sends without a pause does not hold the loop."""
    turns = 0
    most = 0
    count = 640

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal turns, most
        done = asyncio.Event()

        async def other() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        before = -1
        without = 0
        async with sse_response(request) as resp:
            for _ in range(count):
                if raw:
                    await resp.write(b"data: " + b"x" * size)
                else:
                    await resp.send("x" * size)
                without = 0 if turns != before else without + 1
                before = turns
                most = max(most, without)
        done.set()
        await task
        return resp

    app = new_app(handler, plugin)
    status, body = await (await serve(app)).get("/")
    assert (200, count) == (status, body.count(b"data: "))
    assert turns >= count // 64 - 1
    assert most <= (64 if size == 1 else 7)


# -- the plugin's ticker -------------------------------------------------------------


async def test_pings_come_from_the_one_ticker(
    serve: Serve, clock: SettableClock
) -> None:
    """They come each interval by the application's clock, without a task a stream."""
    streams: list[EventSourceResponse] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request, sep="\n") as resp:
            streams.append(resp)
            await resp.wait()
        return resp

    app = new_app(handler, clock=clock)
    with closing(await RawClient.connect(await serve(app))) as client:
        await client.get("/")
        await client.read_until(b"\r\n\r\n")
        await until(lambda: streams)
        (resp,) = streams
        assert not isinstance(resp._ping_task, asyncio.Task)
        for step in range(4):
            # Events do not put it off, and it does not come before its time.
            await clock.advance(14 if step == 0 else 13)
            await resp.send(f"{step}")
            await clock.advance(2)
        resp.stop_streaming()
        await clock.advance(60)
        received = await client.read_until(b"\r\n0\r\n\r\n")
    body = received.partition(b"\r\n\r\n")[2]
    pinged = b"".join(
        b"9\r\ndata: %d\n\n\r\n8\r\n: ping\n\n\r\n" % step for step in range(4)
    )
    assert pinged + b"0\r\n\r\n" == body


async def test_a_late_ticker_does_not_ping_twice(serve: Serve) -> None:
    """What a loop that was held has missed is not made up for."""
    streams: list[EventSourceResponse] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request, sep="\n") as resp:
            streams.append(resp)
            await resp.wait()
        return resp

    app = new_app(handler)
    with closing(await RawClient.connect(await serve(app))) as client:
        await client.get("/")
        await until(lambda: streams)
        hub = app[HUB_KEY]
        late = hub.clock.now() + 100
        for seconds in (0, 0, 14, 15.5, 16):
            hub.tick(late + seconds)
        streams[0].stop_streaming()
        received = await client.read_until(b"\r\n0\r\n\r\n")
    assert 2 == received.count(b": ping")


async def test_frequent_pings_hurry_nobody_else(serve: Serve) -> None:
    """An interval below a second has a task, and the ticker keeps its pace."""
    streams: list[EventSourceResponse] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request, ping_interval=0.001) as resp:
            streams.append(resp)
            await resp.wait()
        return resp

    app = new_app(handler)
    with closing(await RawClient.connect(await serve(app))) as client:
        await client.get("/")
        await client.read_until(b": ping")
        assert isinstance(streams[0]._ping_task, asyncio.Task)
        app[HUB_KEY].tick(app[HUB_KEY].clock.now() + 3600)
        assert 1.0 == app[HUB_KEY].ticker._interval


async def test_the_plugin_counts_the_streams(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are among the open connections while they are, and leave nothing behind."""
    # The records that pytest keeps have tracebacks, which hold the handler's locals.
    monkeypatch.setattr(logging.getLogger("aiohttp.server"), "disabled", True)
    go_on = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            await resp.send("a")
            await go_on.wait()
            if "fail" in request.query:
                raise Oops
        return resp

    app = new_app(handler)
    served = await serve(app)
    hub = app[HUB_KEY]
    with (
        closing(await RawClient.connect(served)) as first,
        closing(await RawClient.connect(served)) as second,
    ):
        await first.get("/")
        await second.get("/?fail")
        await first.read_until(b"data: a")
        await second.read_until(b"data: a")
        assert 2 == served.sse.connections
        go_on.set()
        await first.read_until(b"\r\n0\r\n\r\n")
        await second.read_all()
        await until(lambda: served.sse.connections == 0)
        # What a failed handler has left is forgotten with its response.
        await until(lambda: gc.collect() >= 0 and not hub._enders)


async def test_a_stream_is_logged_by_the_plugin(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """One record at its begin and one at its end, with the reason."""
    caplog.set_level(logging.INFO, "aiohttp_sse_routes")

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            await resp.send("a")
        return resp

    app = new_app(handler, path="/stream")
    await (await serve(app)).get("/stream")
    records = [r for r in caplog.records if hasattr(r, "sse_event")]
    begin, end = (r for r in records if getattr(r, "sse_path", "") == "/stream")
    assert ["open /stream", "close /stream: finished"] == [
        begin.getMessage(),
        end.getMessage(),
    ]
    assert "finished" == getattr(end, "sse_reason", None)
    assert getattr(begin, "sse_route", "").endswith("handler")


# -- shutdown ------------------------------------------------------------------------


async def wait_for_the_end(request: web.Request, seen: list[str]) -> None:
    """Wait for the stream to end."""
    async with sse_response(request) as resp:
        await resp.send("a", retry=10_000)
        await resp.wait()
        seen.append(f"told {resp.is_connected()}")


async def send_to_the_end(request: web.Request, seen: list[str]) -> None:
    """Send until that fails."""
    async with sse_response(request) as resp:
        await resp.send("a", retry=10_000)
        try:
            while True:
                await resp.send("b")
                await asyncio.sleep(0)
        except ConnectionResetError:
            seen.append(f"told {resp.is_connected()}")


async def do_something_else(request: web.Request, seen: list[str]) -> None:
    """Do something else for ever in a block."""
    async with sse_response(request) as resp:
        await resp.send("a", retry=10_000)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(f"told {resp.is_connected()}")


async def do_something_else_by_hand(request: web.Request, seen: list[str]) -> None:
    """Do something else for ever without a block."""
    resp = EventSourceResponse()
    await resp.prepare(request)
    await resp.send("a", retry=10_000)
    try:
        await asyncio.Event().wait()
    finally:
        seen.append(f"told {resp.is_connected()}")


BUSY = [
    wait_for_the_end,
    send_to_the_end,
    do_something_else,
    do_something_else_by_hand,
]


@pytest.mark.parametrize("busy", BUSY)
async def test_a_shutdown_ends_the_stream(
    serve: Serve, log: Log, busy: Callable[[web.Request, list[str]], Awaitable[None]]
) -> None:
    """The client gets a spread retry and a last chunk; the handler is told, or ended.

    And all that without waiting for the shutdown_timeout, which is a minute.
    """
    seen: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        await busy(request, seen)
        # That is no answer to anybody any more.
        return web.Response(text="late")

    app = new_app(handler, shutdown_grace=0.05)
    served = await serve(app)
    with closing(await RawClient.connect(served)) as client:
        await client.get("/")
        await client.read_until(b"data: a")
        reading = asyncio.create_task(client.read_all())
        async with asyncio.timeout(5):
            await served.runner.cleanup()
        received = await reading
    assert ["told False"] == seen
    *_, last, end = received.split(b"\r\nretry: ")[-1].split(b"\n\n")
    assert b"\r\n0\r\n\r\n" == end
    assert 7500 <= int(last) <= 12_500
    assert [] == log.errors


@uncancelled
@pytest.mark.parametrize("busy", BUSY[2:])
async def test_a_shutdown_ends_handlers_whose_clients_have_left(
    serve: Serve, busy: Callable[[web.Request, list[str]], Awaitable[None]]
) -> None:
    """One that never looked up after its client had left does not hold it up."""
    seen: list[str] = []
    requests: list[web.Request] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        await busy(request, seen)
        return web.Response()

    app = new_app(handler, shutdown_grace=0.01)
    served = await serve(app)
    with closing(await RawClient.connect(served)) as client:
        await client.get("/")
        await client.read_until(b"data: a")
    await until(lambda: requests[0].transport is None)
    assert [] == seen
    async with asyncio.timeout(5):
        await served.runner.cleanup()
    assert ["told False"] == seen


async def test_a_shutdown_does_not_wait_for_a_slow_client(serve: Serve) -> None:
    """A handler that waits to send to one is told, and the grace is all it gets."""
    seen = []
    waiting = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            task = await fill(resp)
            waiting.set()
            try:
                await task
            except ConnectionResetError:
                seen.append("reset")
        return resp

    app = new_app(handler, shutdown_grace=0.05)
    served = await serve(app)
    with closing(await RawClient.connect(served, rcvbuf=4096)) as client:
        await client.get("/")
        await waiting.wait()
        async with asyncio.timeout(5):
            await served.runner.cleanup()
    assert ["reset"] == seen


async def test_a_shutdown_leaves_a_handler_its_grace(serve: Serve) -> None:
    """What a handler does when it was told is done, not cancelled."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            await resp.send("a")
            await resp.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            seen.append("done")
        return resp

    app = new_app(handler, shutdown_grace=5)
    served = await serve(app)
    with closing(await RawClient.connect(served)) as client:
        await client.get("/")
        await client.read_until(b"data: a")
        async with asyncio.timeout(4):
            await served.runner.cleanup()
    assert ["done"] == seen


async def test_a_shutdown_leaves_a_handler_that_has_answered(serve: Serve) -> None:
    """One that has ended its stream itself may take longer than the grace."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request) as resp:
            await resp.send("a")
            await resp.wait()
            await resp.write_eof()
            seen.append("answered")
            await asyncio.sleep(0.1)
            seen.append("done")
        return resp

    served = await serve(new_app(handler, shutdown_grace=0.01))
    with closing(await RawClient.connect(served)) as client:
        await client.get("/")
        await client.read_until(b"data: a")
        async with asyncio.timeout(5):
            await served.runner.cleanup()
    assert ["answered", "done"] == seen


async def test_a_stream_that_comes_during_a_shutdown(serve: Serve, log: Log) -> None:
    """It is told to come later, and ends at once."""
    begun = asyncio.Event()
    drained = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        begun.set()
        await drained.wait()
        async with sse_response(request) as resp:
            assert not resp.is_connected()
            await resp.wait()
            await resp.send("never")
        return resp

    async def after_the_drain(app: web.Application) -> None:
        drained.set()

    app = new_app(handler)
    app.on_shutdown.append(after_the_drain)
    served = await serve(app)
    with closing(await RawClient.connect(served)) as client:
        await client.get("/")
        await begun.wait()
        reading = asyncio.create_task(client.read_all())
        async with asyncio.timeout(5):
            await served.runner.cleanup()
        received = await reading
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    size, line, *rest = body.split(b"\r\n")
    assert int(size, 16) == len(line)
    name, _, value = line.partition(b": ")
    assert b"retry" == name
    assert 22_500 <= int(value) <= 37_500
    assert [b"0", b"", b""] == rest
    assert [] == log.errors


# -- HTTP ----------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [[], ["Connection: keep-alive"]])
async def test_a_client_of_http_1_0_sees_the_end(
    serve: Serve, plugin: bool, headers: list[str]
) -> None:
    """The body has no chunks, no header promises more, and the connection closes."""

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request, sep="\n") as resp:
            await resp.send("a")
            await resp.send("b")
        return resp

    app = new_app(handler, plugin)
    with closing(await RawClient.connect(await serve(app))) as client:
        await client.get("/", *headers, version="1.0")
        received = await client.read_all()
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"data: a\n\ndata: b\n\n" == body
    assert b"keep-alive" not in head.lower()
    assert b"chunked" not in head.lower()


async def test_the_answer_to_a_head_has_no_body(
    serve: Serve, plugin: bool, log: Log
) -> None:
    """Where HEAD is allowed it gets the headers, and the connection stays in step."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with sse_response(request, allow_all_methods=True) as resp:
            seen.append(resp.is_connected())
            await resp.wait()
            if "send" in request.query:
                await resp.send("never")
        return resp

    async def plain(request: web.Request) -> web.Response:
        return web.Response(text="plain")

    app = new_app(handler, plugin)
    app.router.add_get("/plain", plain)
    served = await serve(app)
    with closing(await RawClient.connect(served)) as client:
        await client.send(b"HEAD / HTTP/1.1\r\nHost: test\r\n\r\n")
        head = await client.read_until(b"\r\n\r\n")
        assert head.endswith(b"\r\n\r\n")
        client.received = b""
        await client.get("/plain")
        assert (await client.read_until(b"plain")).startswith(b"HTTP/1.1 200 OK")
    with closing(await RawClient.connect(served)) as client:
        await client.send(b"HEAD /?send HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (await client.read_all()).endswith(b"\r\n\r\n")
    assert [False, False] == seen
    assert [] == log.errors


async def test_the_transport_is_given_back(serve: Serve, plugin: bool) -> None:
    """After the stream the transport has aiohttp's protocol again, and its options."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        async with sse_response(request) as resp:
            seen.append(transport.get_protocol() is request.protocol)
            await resp.send("a")
        await resp.write_eof()
        seen.append(transport.get_protocol() is request.protocol)
        return resp

    app = new_app(handler, plugin)
    assert (200, b"data: a\r\n\r\n") == await (await serve(app)).get("/")
    assert [False, True] == seen
