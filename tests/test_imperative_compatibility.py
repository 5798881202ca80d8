"""Each fact of aiohttp-sse that a handler can rely on, on aiohttp-sse and on ours.

The same case runs on both packages, and on ours with the plugin set up too: a case that
passes on one of them only is no drop-in.
"""

from __future__ import annotations

import asyncio
import re
import socket
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp_sse
import pytest
from aiohttp import ClientSession, UnixConnector, web
from aiohttp.test_utils import make_mocked_request

from aiohttp_sse_routes import (
    EventSourceResponse,
    SSERouteTableDef,
    setup,
    sse_response,
)

from .helpers import RawClient, Served, until

Serve = Callable[..., Awaitable[Served]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

USER_TIMEOUT: int = getattr(socket, "TCP_USER_TIMEOUT", 0)


@dataclass(frozen=True)
class Face:
    """One of the packages that a handler can import these two names from."""

    name: str
    response: Any
    sse_response: Callable[..., AbstractAsyncContextManager[Any]]
    plugin: bool = False

    def app(self) -> web.Application:
        """Return an application, with our plugin where that is what is tested."""
        app = web.Application()
        if self.plugin:
            setup(app, SSERouteTableDef())
        return app

    async def serve(self, serve: Serve, handler: Any, path: str = "/") -> Served:
        """Serve *handler*, for each method."""
        app = self.app()
        app.router.add_route("*", path, handler)
        return await serve(app)


FACES = [
    Face("aiohttp-sse", aiohttp_sse.EventSourceResponse, aiohttp_sse.sse_response),
    Face("ours", EventSourceResponse, sse_response),
    Face("ours-set-up", EventSourceResponse, sse_response, plugin=True),
]


@pytest.fixture(params=FACES, ids=[face.name for face in FACES])
def face(request: pytest.FixtureRequest) -> Face:
    """Each of the packages."""
    value: Face = request.param
    return value


async def exchange(client: RawClient, method: str = "GET", *headers: str) -> None:
    """Send a request without a body."""
    lines = [f"{method} / HTTP/1.1", "Host: test", *headers, "", ""]
    await client.send("\r\n".join(lines).encode())


# -- construction ----------------------------------------------------------------------


def test_the_class_has_its_attributes(face: Face) -> None:
    """What subclasses read and override is there, with the same values."""
    assert 15 == face.response.DEFAULT_PING_INTERVAL
    assert 120 == face.response.DEFAULT_SEND_TIMEOUT
    assert "\r\n" == face.response.DEFAULT_SEPARATOR
    assert "Last-Event-Id" == face.response.DEFAULT_LAST_EVENT_HEADER
    assert re.compile(r"\r\n|\r|\n") == face.response.LINE_SEP_EXPR


def test_it_is_a_response_of_aiohttp_and_of_aiohttp_sse(face: Face) -> None:
    """Code that asks what kind of response it has gets the same answer."""
    assert issubclass(face.response, web.StreamResponse)
    assert issubclass(face.response, aiohttp_sse.EventSourceResponse)


def test_the_arguments_of_the_constructor_are_keywords(face: Face) -> None:
    """Nothing is taken by position."""
    with pytest.raises(TypeError):
        face.response(200)


def test_a_ping_interval_must_be_positive(face: Face) -> None:
    """Class and function refuse it when they are called, not later."""
    request = make_mocked_request("GET", "/")
    for interval in (0, -1, -0.5):
        with pytest.raises(ValueError, match="ping interval must be positive"):
            face.response(ping_interval=interval)
        with pytest.raises(ValueError, match="ping interval must be positive"):
            face.sse_response(request, ping_interval=interval)


def test_the_response_class_must_be_one(face: Face) -> None:
    """An unrelated class is refused when the function is called."""
    request = make_mocked_request("GET", "/")
    for kind in (object, web.StreamResponse, web.Response):
        with pytest.raises(TypeError, match="response_cls must be subclass"):
            face.sse_response(request, response_cls=kind)


def test_compression_is_not_offered(face: Face) -> None:
    """enable_compression says so."""
    with pytest.raises(NotImplementedError):
        face.response().enable_compression()


# -- before prepare --------------------------------------------------------------------


async def test_what_needs_a_request_says_so_before_prepare(face: Face) -> None:
    """Each method that makes no sense before prepare raises, or is False."""
    response = face.response()
    assert response.is_connected() is False
    assert response.prepared is False
    with pytest.raises(RuntimeError, match="Response is not started"):
        await response.wait()
    with pytest.raises(RuntimeError, match="Response is not started"):
        response.stop_streaming()
    with pytest.raises(RuntimeError, match="prepared first"):
        _ = response.last_event_id
    with pytest.raises(RuntimeError, match=re.escape("before prepare()")):
        await response.write(b"x")
    with pytest.raises(RuntimeError, match=re.escape("before prepare()")):
        await response.send("x")
    with pytest.raises(RuntimeError, match="Response is not started"):
        async with response:
            pass


async def test_an_id_with_a_break_or_nul_is_refused(face: Face) -> None:
    """The id is checked before anything else, prepared or not."""
    for bad in ("a\nb", "a\rb", "a\r\nb", "\n", "a\0b"):
        with pytest.raises(ValueError, match="id must not contain"):
            await face.response().send("x", id=bad)


async def test_an_event_with_a_break_is_refused(face: Face) -> None:
    """The event's type is checked, prepared or not."""
    for bad in ("a\nb", "a\rb", "a\r\nb", "\n"):
        with pytest.raises(ValueError, match="event must not contain"):
            await face.response().send("x", event=bad)


async def test_a_field_of_another_type_is_refused(face: Face) -> None:
    """Nothing is made a str behind the handler's back."""
    wrong: list[dict[str, Any]] = [
        {"data": None},
        {"data": 1},
        {"data": b"x"},
        {"data": "x", "id": 1},
        {"data": "x", "event": 1},
        {"data": "x", "retry": "1"},
    ]
    for fields in wrong:
        with pytest.raises(TypeError):
            await face.response().send(**fields)


async def test_a_negative_retry_is_refused(face: Face) -> None:
    """The reconnection time is checked, prepared or not."""
    with pytest.raises(ValueError, match="retry must not be negative"):
        await face.response().send("x", retry=-1)


# -- headers and methods ---------------------------------------------------------------


async def test_the_headers_of_a_stream(face: Face, serve: Serve) -> None:
    """The four headers are there over the handler's own, which go out otherwise."""
    own = {"X-Own": "1", "Cache-Control": "max-age=1", "Connection": "close"}

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, headers=own) as resp:
            pass
        response: web.StreamResponse = resp
        return response

    with closing(await RawClient.connect(await face.serve(serve, handler))) as client:
        await exchange(client)
        head = await client.read_until(b"0\r\n\r\n")
    lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert b"HTTP/1.1 200 OK" == lines[0]
    for line in (
        b"X-Own: 1",
        b"Content-Type: text/event-stream",
        b"Cache-Control: no-cache",
        b"Connection: keep-alive",
        b"X-Accel-Buffering: no",
        b"Transfer-Encoding: chunked",
    ):
        assert 1 == lines.count(line), line


async def test_headers_set_before_prepare_go_out(face: Face, serve: Serve) -> None:
    """After construction the handler has the last word, on every header."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse = face.response(status=201, reason="Streaming")
        response.headers["Cache-Control"] = "no-store"
        del response.headers["X-Accel-Buffering"]
        response.set_cookie("who", "me")
        await response.prepare(request)
        response.stop_streaming()  # type: ignore[attr-defined]
        return response

    served = await face.serve(serve, handler)
    async with served.session.get(served.base) as response:
        assert (201, "Streaming") == (response.status, response.reason)
        assert "no-store" == response.headers["Cache-Control"]
        assert "X-Accel-Buffering" not in response.headers
        assert "me" == response.cookies["who"].value


async def test_another_method_is_not_allowed(face: Face, serve: Serve) -> None:
    """All but GET is answered with 405, and the handler's block is not entered."""
    entered = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            entered.append(resp)
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    for method in ("POST", "PUT", "PATCH", "DELETE", "HEAD"):
        async with served.session.request(method, served.base) as response:
            assert (405, "GET") == (response.status, response.headers["Allow"])
    assert [] == entered


async def test_all_methods_can_be_allowed(face: Face, serve: Serve) -> None:
    """With allow_all_methods each gets the stream."""

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, allow_all_methods=True) as resp:
            await resp.send(request.method)
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        async with served.session.request(method, served.base) as response:
            assert f"data: {method}\r\n\r\n" == await response.text()


# -- on the wire -----------------------------------------------------------------------


async def body_of(
    face: Face, serve: Serve, sends: list[tuple[Any, ...]], **options: Any
) -> bytes:
    """Return the body of a stream with *sends*, each the arguments of one send."""

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, **options) as resp:
            for arguments in sends:
                await resp.send(*arguments)
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    status, body = await served.get("/")
    assert 200 == status
    return body


async def test_the_fields_of_an_event_and_their_order(face: Face, serve: Serve) -> None:
    """Id, event, data, retry and the empty line, whichever of them are there."""
    sends = [
        ("a",),
        ("a", "1"),
        ("a", None, "named"),
        ("a", "1", "named", 0),
        ("", "", "", 10),
        ("a", None, None, 10),
        ("ü€😀", "ü", "ü"),
        (" a ",),
    ]
    assert (
        "data: a\r\n\r\n"
        "id: 1\r\ndata: a\r\n\r\n"
        "event: named\r\ndata: a\r\n\r\n"
        "id: 1\r\nevent: named\r\ndata: a\r\nretry: 0\r\n\r\n"
        "id: \r\nevent: \r\ndata: \r\nretry: 10\r\n\r\n"
        "data: a\r\nretry: 10\r\n\r\n"
        "id: ü\r\nevent: ü\r\ndata: ü€😀\r\n\r\n"
        "data:  a \r\n\r\n"
    ).encode() == await body_of(face, serve, sends)


async def test_an_event_is_one_chunk(face: Face, serve: Serve) -> None:
    """Each send and each write is an HTTP chunk of its own, and then the last one."""

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            await resp.send("first")
            await resp.write(b": raw\r\n\r\n")
        response: web.StreamResponse = resp
        return response

    with closing(await RawClient.connect(await face.serve(serve, handler))) as client:
        await exchange(client)
        received = await client.read_until(b"0\r\n\r\n")
    assert (
        b"f\r\ndata: first\r\n\r\n\r\n9\r\n: raw\r\n\r\n\r\n0\r\n\r\n"
        == received.partition(b"\r\n\r\n")[2]
    )


@pytest.mark.parametrize("sep", ["\n", "\r", "\r\n"], ids=["LF", "CR", "CRLF"])
async def test_separators(face: Face, serve: Serve, sep: str) -> None:
    """Data is split at any line end and put together with the stream's own."""
    sends = []
    expected = ""
    for line in ("\n", "\r", "\r\n"):
        sends += [(line.join(["a", "b", "", "c"]), "1", "e", 5), (f"a{line}",)]
        expected += (
            f"id: 1{sep}event: e{sep}"
            f"data: a{sep}data: b{sep}data: {sep}data: c{sep}retry: 5{sep}{sep}"
            f"data: a{sep}data: {sep}{sep}"
        )
    assert expected.encode() == await body_of(face, serve, sends, sep=sep)


async def test_other_line_breaks_of_unicode_are_data(face: Face, serve: Serve) -> None:
    """Only what the standard takes for a line end is one."""
    data = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"
    assert f"data: {data}\r\n\r\n".encode() == await body_of(face, serve, [(data,)])


async def test_an_event_type_may_have_a_nul(face: Face, serve: Serve) -> None:
    """Only the id is checked for it."""
    body = await body_of(face, serve, [("a", None, "\0")])
    assert b"event: \0\r\ndata: a\r\n\r\n" == body


async def test_write_takes_all_that_is_bytes(face: Face, serve: Serve) -> None:
    """It takes bytes, bytearray and memoryview; nothing is no end of the stream."""
    refused = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            await resp.write(b"a")
            await resp.write(b"")
            await resp.write(bytearray(b"b"))
            await resp.write(memoryview(b"c"))
            try:
                await resp.write("d")
            except AssertionError as exc:
                refused.append(exc)
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    assert (200, b"abc") == await served.get("/")
    assert 1 == len(refused)


# -- the ways to use it ----------------------------------------------------------------


async def by_function(face: Face, request: web.Request) -> web.StreamResponse:
    """Return the response after its block."""
    async with face.sse_response(request) as resp:
        await resp.send("a")
    response: web.StreamResponse = resp
    return response


async def from_within(face: Face, request: web.Request) -> web.StreamResponse:
    """Return the response from within its block."""
    async with face.sse_response(request) as resp:
        await resp.send("a")
        response: web.StreamResponse = resp
        return response


async def by_hand(face: Face, request: web.Request) -> web.StreamResponse:
    """Prepare, send, stop and wait."""
    response = face.response()
    await response.prepare(request)
    await response.send("a")
    response.stop_streaming()
    await response.wait()
    prepared: web.StreamResponse = response
    return prepared


async def as_a_block(face: Face, request: web.Request) -> web.StreamResponse:
    """Prepare by hand, and use the response as the block."""
    response = face.response()
    await response.prepare(request)
    async with response as same:
        assert same is response
        await response.send("a")
    prepared: web.StreamResponse = response
    return prepared


async def ended_by_itself(face: Face, request: web.Request) -> web.StreamResponse:
    """Write the end by hand; aiohttp's own is nothing then."""
    async with face.sse_response(request) as resp:
        await resp.send("a")
    await resp.write_eof()
    await resp.write_eof()
    response: web.StreamResponse = resp
    return response


WAYS = [by_function, from_within, by_hand, as_a_block, ended_by_itself]


@pytest.fixture(params=WAYS, ids=[way.__name__ for way in WAYS])
def way(
    request: pytest.FixtureRequest,
) -> Callable[[Face, web.Request], Awaitable[web.StreamResponse]]:
    """Each way to use it."""
    value: Callable[[Face, web.Request], Awaitable[web.StreamResponse]] = request.param
    return value


async def test_every_way_in_a_handler(face: Face, serve: Serve, way: Any) -> None:
    """All ways give the stream and its end, and the connection can be used again."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse = await way(face, request)
        return response

    with closing(await RawClient.connect(await face.serve(serve, handler))) as client:
        for _ in range(3):
            await exchange(client)
            received = await client.read_until(b"\r\n0\r\n\r\n")
            assert received.endswith(b"\r\n\r\nb\r\ndata: a\r\n\r\n\r\n0\r\n\r\n")
            client.received = b""


async def test_every_way_in_a_view(face: Face, serve: Serve, way: Any) -> None:
    """A class-based view streams as a function does."""

    class View(web.View):
        async def get(self) -> web.StreamResponse:
            response: web.StreamResponse = await way(face, self.request)
            return response

    served = await face.serve(serve, View)
    assert (200, b"data: a\r\n\r\n") == await served.get("/")


async def test_every_way_in_a_sub_application(
    face: Face, serve: Serve, way: Any
) -> None:
    """A sub-application's handler streams, below any middleware."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse = await way(face, request)
        return response

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await handler(request)

    app = face.app()
    sub = web.Application(middlewares=[middleware])
    sub.router.add_get("/stream", handler)
    app.add_subapp("/sub", sub)
    served = await serve(app)
    assert (200, b"data: a\r\n\r\n") == await served.get("/sub/stream")


async def test_a_signal_sees_it_before_its_headers_go_out(
    face: Face, serve: Serve
) -> None:
    """on_response_prepare can tell a stream and add headers to it."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return await by_function(face, request)

    async def sign(request: web.Request, response: web.StreamResponse) -> None:
        if isinstance(response, aiohttp_sse.EventSourceResponse):
            response.headers["X-Stream"] = "1"

    app = face.app()
    app.router.add_get("/", handler)
    app.on_response_prepare.append(sign)
    served = await serve(app)
    async with served.session.get(served.base) as response:
        assert "1" == response.headers["X-Stream"]


async def test_the_end_can_carry_data(face: Face, serve: Serve) -> None:
    """write_eof with data writes it before the end."""

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            await resp.send("a")
        await resp.write_eof(b": end\r\n\r\n")
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    assert (200, b"data: a\r\n\r\n: end\r\n\r\n") == await served.get("/")


async def test_a_mocked_request_will_do(face: Face) -> None:
    """A handler's unit test with a mocked request sees what was written."""
    request = make_mocked_request("GET", "/", headers={"Last-Event-Id": "7"})
    async with face.sse_response(request) as resp:
        assert resp.is_connected()
        assert "7" == resp.last_event_id
        await resp.send("a")
    assert not resp.is_connected()
    request.writer.write.assert_called_once_with(  # type: ignore[attr-defined]
        b"data: a\r\n\r\n"
    )
    await resp.write_eof()


async def test_it_is_sent_over_a_unix_socket(face: Face) -> None:
    """TCP's options are not asked of what is no TCP."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return await by_function(face, request)

    app = face.app()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    # A Unix socket's path has about a hundred bytes.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = str(Path(folder, "sock"))
        await web.UnixSite(runner, path).start()
        async with (
            ClientSession(connector=UnixConnector(path)) as session,
            session.get("http://localhost/") as response,
        ):
            assert b"data: a\r\n\r\n" == await response.read()
        await runner.cleanup()


# -- the state of a stream -------------------------------------------------------------


async def test_is_connected_within_its_block(face: Face, serve: Serve) -> None:
    """It is True in the block and False after it."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            seen.append(resp.is_connected())
        seen.append(resp.is_connected())
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    await served.get("/")
    assert [True, False] == seen


async def test_the_last_event_id(face: Face, serve: Serve) -> None:
    """It is the header's, None without one, and there while the stream is."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            seen.append(resp.last_event_id)
        await resp.write_eof()
        with pytest.raises(RuntimeError):
            _ = resp.last_event_id
        seen.append("after")
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    for given in (None, "", "42", "a b"):
        headers = {} if given is None else {"last-event-ID": given}
        await served.get("/", headers=headers)
        assert [given, "after"] == seen
        seen.clear()


async def test_after_its_end_nothing_can_be_sent(face: Face, serve: Serve) -> None:
    """Sending and writing behind write_eof raise RuntimeError."""
    errors = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            pass
        await resp.write_eof()
        for call in (resp.send("x"), resp.write(b"x")):
            try:
                await call
            except RuntimeError as exc:
                errors.append(str(exc))
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    assert (200, b"") == await served.get("/")
    assert ["Cannot call write() after write_eof()"] * 2 == errors


async def test_another_task_stops_a_stream(face: Face, serve: Serve) -> None:
    """All who wait return, in whatever task, and the stream ends cleanly."""
    streams: list[Any] = []
    waited = []

    async def handler(request: web.Request) -> web.StreamResponse:
        response = face.response()
        await response.prepare(request)
        await response.send("a")
        streams.append(response)
        await response.wait()
        waited.append("handler")
        prepared: web.StreamResponse = response
        return prepared

    served = await face.serve(serve, handler)
    async with served.session.get(served.base) as response:
        await until(lambda: streams)
        (stream,) = streams
        assert stream.is_connected()
        stream.stop_streaming()
        await stream.wait()
        assert not stream.is_connected()
        stream.stop_streaming()
        await stream.wait()
        assert b"data: a\r\n\r\n" == await response.read()
    assert ["handler"] == waited


async def test_a_stopped_stream_can_still_be_sent_to(face: Face, serve: Serve) -> None:
    """stop_streaming ends pings and waiting, not the body."""

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            resp.stop_streaming()
            await resp.wait()
            await resp.send("a")
        await resp.send("b")
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    assert (200, b"data: a\r\n\r\ndata: b\r\n\r\n") == await served.get("/")


async def test_a_cancelled_waiter_is_cancelled(face: Face, serve: Serve) -> None:
    """The cancellation of a waiting task is not swallowed, and stops the stream."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:

            async def wait_for_ever() -> None:
                while True:
                    await resp.wait()

            task = asyncio.create_task(wait_for_ever())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            seen.append(task.cancelled())
            await asyncio.sleep(0)
            seen.append(resp.is_connected())
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    assert (200, b"") == await served.get("/")
    assert [True, False] == seen


async def test_waiting_can_be_given_a_limit(face: Face, serve: Serve) -> None:
    """wait_for around wait raises TimeoutError, and that has stopped the stream."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            try:
                await asyncio.wait_for(resp.wait(), 0.001)
            except TimeoutError:
                seen.append("limit")
            seen.append(resp.is_connected())
            await resp.send("a")
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    assert (200, b"data: a\r\n\r\n") == await served.get("/")
    assert ["limit", False] == seen


async def test_prepared_twice(face: Face, serve: Serve) -> None:
    """The second time gives the same writer and sends nothing."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        response = face.response()
        first = await response.prepare(request)
        seen.append(first is await response.prepare(request))
        seen.append(first is request.writer)
        async with response:
            await response.send("a")
        prepared: web.StreamResponse = response
        return prepared

    served = await face.serve(serve, handler)
    assert (200, b"data: a\r\n\r\n") == await served.get("/")
    assert [True, True] == seen


async def test_prepared_again_when_the_client_has_gone(
    face: Face, serve: Serve
) -> None:
    """Then it raises CancelledError, as a handler is cancelled."""
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            request.protocol.force_close()
            try:
                await resp.prepare(request)
            except asyncio.CancelledError:
                seen.append("cancelled")
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    with closing(await RawClient.connect(served)) as client:
        await exchange(client)
        await until(lambda: seen)
    assert ["cancelled"] == seen


# -- pings -----------------------------------------------------------------------------


@pytest.mark.parametrize("sep", ["\n", "\r", "\r\n"], ids=["LF", "CR", "CRLF"])
async def test_an_idle_stream_is_pinged(face: Face, serve: Serve, sep: str) -> None:
    """Each interval a comment goes out, with the stream's line ends."""

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, ping_interval=0.001, sep=sep) as resp:
            await resp.send("a")
            await resp.wait()
        response: web.StreamResponse = resp
        return response

    with closing(await RawClient.connect(await face.serve(serve, handler))) as client:
        await exchange(client)
        ping = f": ping{sep}{sep}".encode()
        chunk = b"%x\r\n%b\r\n" % (len(ping), ping)
        await client.read_until(f"data: a{sep}{sep}\r\n".encode() + chunk * 3)


async def test_a_busy_stream_is_pinged_too(face: Face, serve: Serve) -> None:
    """An event does not put the next ping off."""
    enough: list[bool] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, ping_interval=0.001) as resp:
            while not enough:
                await resp.send("a")
                await asyncio.sleep(0)
        response: web.StreamResponse = resp
        return response

    with closing(await RawClient.connect(await face.serve(serve, handler))) as client:
        await exchange(client)
        await client.read_until(b"data: a\r\n\r\n\r\na\r\n: ping")
        client.received = b""
        await client.read_until(b"data: a\r\n\r\n\r\na\r\n: ping")
        enough.append(True)


async def test_a_stopped_stream_is_not_pinged(face: Face, serve: Serve) -> None:
    """After stop_streaming no ping goes out, however short the interval."""

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, ping_interval=0.001) as resp:
            resp.stop_streaming()
            loop = asyncio.get_running_loop()
            later = loop.create_future()
            loop.call_later(0.02, later.set_result, None)
            await later
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    assert (200, b"") == await served.get("/")


async def test_the_ping_task_can_be_asked(face: Face, serve: Serve) -> None:
    """Code from before is_connected asks the ping task, and may cancel it."""
    seen = []

    async def handler(request: web.Request) -> web.StreamResponse:
        response = face.response()
        seen.append(response._ping_task is None)
        await response.prepare(request)
        seen.append(response._ping_task.done())
        response._ping_task.cancel()
        await response.wait()
        seen.append(response._ping_task.done())
        seen.append(response._ping_task.cancelled())
        prepared: web.StreamResponse = response
        return prepared

    served = await face.serve(serve, handler)
    assert (200, b"") == await served.get("/")
    assert [True, False, True, True] == seen


# -- subclasses ------------------------------------------------------------------------


async def test_a_subclass_with_a_constructor_of_its_own(
    face: Face, serve: Serve
) -> None:
    """It is given the function's arguments by keyword, and may change headers there."""
    seen = []

    class Own(face.response):  # type: ignore[misc, name-defined]
        def __init__(self, **arguments: Any) -> None:
            seen.append(sorted(arguments))
            super().__init__(**arguments)
            self.headers["X-Own"] = "1"
            self.number = 0

        async def send_next(self) -> None:
            self.number += 1
            await self.send(str(self.number), id=str(self.number))

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, response_cls=Own) as resp:
            assert isinstance(resp, Own)
            await resp.send_next()
            await resp.send_next()
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    async with served.session.get(served.base) as response:
        assert "1" == response.headers["X-Own"]
        body = await response.read()
    assert b"id: 1\r\ndata: 1\r\n\r\nid: 2\r\ndata: 2\r\n\r\n" == body
    assert [
        [
            "allow_all_methods",
            "headers",
            "ping_interval",
            "reason",
            "send_timeout",
            "sep",
            "status",
        ]
    ] == seen


async def test_a_subclass_that_overrides_send_and_write(
    face: Face, serve: Serve
) -> None:
    """What is sent passes through both, pings through write alone."""
    written = []

    class Own(face.response):  # type: ignore[misc, name-defined]
        async def send(self, data: str, *args: Any, **kwargs: Any) -> None:
            await super().send(data.upper(), *args, **kwargs)

        async def write(self, data: bytes) -> None:
            written.append(data)
            await super().write(data)

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(
            request, response_cls=Own, ping_interval=0.001
        ) as resp:
            await resp.send("a", event="e")
            await until(lambda: b": ping\r\n\r\n" in written)
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    status, body = await served.get("/")
    assert 200 == status
    assert b"".join(written) == body
    assert b"event: e\r\ndata: A\r\n\r\n" == written[0]


async def test_a_subclass_with_other_defaults(face: Face, serve: Serve) -> None:
    """Its separator and its header of the last event ID are looked up at the object."""
    seen = []

    class Own(face.response):  # type: ignore[misc, name-defined]
        DEFAULT_SEPARATOR = "\n"
        DEFAULT_LAST_EVENT_HEADER = "X-Last"
        LINE_SEP_EXPR = re.compile(r";")

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, response_cls=Own) as resp:
            seen.append(resp.last_event_id)
            await resp.send("a;b")
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    answer = await served.get("/", headers={"X-Last": "9"})
    assert (200, b"data: a\ndata: b\n\n") == answer
    assert ["9"] == seen


async def test_a_subclass_that_pings_in_its_own_way(face: Face, serve: Serve) -> None:
    """An overridden _ping is what runs, with or without the plugin."""

    class Own(face.response):  # type: ignore[misc, name-defined]
        async def _ping(self) -> None:
            await self.send("", event="ping")

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, response_cls=Own) as resp:
            await resp.wait()
        response: web.StreamResponse = resp
        return response

    served = await face.serve(serve, handler)
    assert (200, b"event: ping\r\ndata: \r\n\r\n") == await served.get("/")


async def test_a_subclass_that_prepares_in_its_own_way(
    face: Face, serve: Serve
) -> None:
    """One that goes round prepare, to allow a POST, and begins the pings itself."""

    class Own(face.response):  # type: ignore[misc, name-defined]
        async def prepare(self, request: web.BaseRequest) -> Any:
            if self.prepared:
                return self._payload_writer
            writer = await web.StreamResponse.prepare(self, request)
            self._ping_task = asyncio.create_task(self._ping())
            self.enable_chunked_encoding()
            return writer

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(
            request, response_cls=Own, ping_interval=0.001
        ) as resp:
            await resp.send("a")
            await resp.wait()
        response: web.StreamResponse = resp
        return response

    with closing(await RawClient.connect(await face.serve(serve, handler))) as client:
        await exchange(client, "POST", "Content-Length: 0")
        await client.read_until(
            b"data: a\r\n\r\n\r\na\r\n: ping\r\n\r\n\r\na\r\n: ping"
        )


# -- clients that leave or stall -------------------------------------------------------


async def test_sending_to_a_client_that_has_gone(face: Face, serve: Serve) -> None:
    """It raises ConnectionResetError, and the stream has stopped."""
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request) as resp:
            request.protocol.force_close()
            try:
                await resp.send("a")
            except ConnectionResetError as exc:
                seen.append(str(exc))
            try:
                await resp.write(b"a")
            except ConnectionResetError as exc:
                seen.append(str(exc))
            seen.append(resp._ping_task.cancelled() or resp._ping_task.cancelling())
        response: web.StreamResponse = resp
        return response

    with closing(await RawClient.connect(await face.serve(serve, handler))) as client:
        await exchange(client)
        await until(lambda: len(seen) == 3)
    assert ["Cannot write to closing transport"] * 2 == seen[:2]
    assert seen[2]


# Where aiohttp cancels handlers as well, it is a matter of turns which comes first.
@pytest.mark.parametrize("handler_cancellation", [False], indirect=True)
async def test_a_handler_catches_the_disconnect(face: Face, serve: Serve) -> None:
    """It may do so within the block and around it."""
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        response: web.StreamResponse | None = None
        try:
            async with face.sse_response(request) as resp:
                response = resp
                request.protocol.force_close()
                try:
                    await resp.send("a")
                except ConnectionResetError:
                    seen.append("within")
                    raise
        except ConnectionResetError:
            seen.append("around")
        assert response is not None
        return response

    with closing(await RawClient.connect(await face.serve(serve, handler))) as client:
        await exchange(client)
        await until(lambda: len(seen) == 2)
    assert ["within", "around"] == seen


async def test_a_stalled_client_is_cut(face: Face, serve: Serve) -> None:
    """A send that has waited for send_timeout raises TimeoutError and cuts it off."""
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, send_timeout=0.05) as resp:
            try:
                await resp.send("x" * 10_000_000)
            except TimeoutError:
                transport = request.transport
                seen.append(transport is None or transport.is_closing())
                seen.append(resp._ping_task.done() or resp._ping_task.cancelling() > 0)
        response: web.StreamResponse = resp
        return response

    with closing(
        await RawClient.connect(await face.serve(serve, handler), rcvbuf=4096)
    ) as client:
        await exchange(client)
        await until(lambda: seen)
        assert [True, True] == seen


async def test_without_a_limit_a_stalled_client_is_waited_for(
    face: Face, serve: Serve
) -> None:
    """send_timeout=None lets a send wait until the client reads on."""
    size = 10_000_000
    sent: list[bool] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        async with face.sse_response(request, send_timeout=None) as resp:
            await resp.send("x" * size)
            sent.append(True)
        response: web.StreamResponse = resp
        return response

    with closing(
        await RawClient.connect(await face.serve(serve, handler), rcvbuf=4096)
    ) as client:
        await exchange(client)
        await client.read_until(b"data: ")
        assert [] == sent
        received = len(client.received)
        while received < size:
            received += len(await client.read(1 << 20))
            client.received = b""
        await until(lambda: sent)


@pytest.mark.skipif(not USER_TIMEOUT, reason="TCP_USER_TIMEOUT is Linux's")
@pytest.mark.parametrize(
    ("limit", "during"), [(2.5, 2500), (None, 7000)], ids=["limit", "none"]
)
async def test_the_kernel_is_given_the_limit(
    face: Face, serve: Serve, limit: float | None, during: int
) -> None:
    """TCP_USER_TIMEOUT is the send_timeout during the stream, and put back after it."""
    seen = []

    def option(request: web.Request) -> int:
        assert request.transport is not None
        sock = request.transport.get_extra_info("socket")
        if "first" in request.query:
            sock.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, 7000)
        value: int = sock.getsockopt(socket.IPPROTO_TCP, USER_TIMEOUT)
        return value

    async def handler(request: web.Request) -> web.StreamResponse:
        if "stream" not in request.query:
            return web.Response(text=str(option(request)))
        seen.append(option(request))
        async with face.sse_response(request, send_timeout=limit) as resp:
            transport = request.transport
            assert transport is not None
            sock = transport.get_extra_info("socket")
            seen.append(sock.getsockopt(socket.IPPROTO_TCP, USER_TIMEOUT))
        response: web.StreamResponse = resp
        return response

    with closing(await RawClient.connect(await face.serve(serve, handler))) as client:
        await client.get("/?stream&first")
        await client.read_until(b"\r\n0\r\n\r\n")
        client.received = b""
        await client.get("/?plain")
        assert (await client.read_until(b"7000")).startswith(b"HTTP/1.1 200")
    assert [7000, during] == seen
