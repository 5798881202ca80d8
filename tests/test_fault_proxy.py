"""The fault proxy: each fault befalls real connections, and ends when it is told to."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from aiohttp_sse_routes import Channels, SSERouteTableDef, get_sse
from aiohttp_sse_routes.testing import (
    EventStream,
    FaultProxy,
    SettableClock,
    StreamCut,
    StreamTimeout,
    no_runs_left,
    nothing_left,
    until,
)

from .helpers import app_of
from .lifecycle import Run

Client = Callable[[web.Application], Any]


class Site:
    """An application behind a proxy, and what its room is told.

    Args:
        app: The application.
        client: Its client.
        proxy: What is before it.
    """

    def __init__(self, app: web.Application, client: Any, proxy: FaultProxy) -> None:
        self.app = app
        self.client = client
        self.proxy = proxy

    async def say(self, *words: object) -> None:
        """Publish *words*."""
        for word in words:
            await get_sse(self.app).publish("room", word)

    async def stream(self) -> EventStream:
        """Return a client that follows, through the proxy."""
        stream = await EventStream(self.proxy, "/room").open()
        await stream.next("sse-hello")
        return stream


def app_with_a_room(**options: Any) -> web.Application:
    """Return an application with a room, an echo and a plain page."""
    table = SSERouteTableDef()

    @table.sse_route("/room", heartbeat=1000)
    async def room(request: web.Request) -> Channels:
        return Channels("room")

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="a page " * 1000)

    app = app_of(table, **options)
    app.router.add_post("/echo", echo)
    app.router.add_get("/page", page)
    return app


@pytest.fixture
async def site(aiohttp_client: Client) -> AsyncIterator[Site]:
    """A site, of whose proxy nothing is left in the end."""
    app = app_with_a_room()
    client = await aiohttp_client(app)
    async with nothing_left(), FaultProxy(client) as proxy:
        yield Site(app, client, proxy)
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.session.get(proxy.url)
    await client.close()


async def page(site: Site, **options: Any) -> tuple[int, str]:
    """Return what the page is answered with, through the proxy."""
    async with site.proxy.request("GET", "/page", **options) as response:
        return response.status, await response.text()


async def test_without_a_fault(site: Site) -> None:
    """Bytes go through as they are, in both directions, however many."""
    body = bytes(range(256)) * 4000
    async with site.proxy.request("POST", "/echo", data=io.BytesIO(body)) as response:
        assert body == await response.read()
    stream = await site.stream()
    await site.say(*range(100))
    assert list(range(100)) == [e.value for e in await stream.collect(100)]
    await stream.drop()
    assert not get_sse(site.app).connections
    await until(lambda: not site.proxy.connections)
    # It was kept for the second request.
    assert "no fault; 1 accepted, 0 open, 0 cut, 0 answered>" in repr(site.proxy)


async def test_cut(site: Site) -> None:
    """Every connection is reset; the client comes back and has missed nothing."""
    streams = [await site.stream() for _ in range(3)]
    await site.say("one")
    for stream in streams:
        assert "one" == (await stream.next()).data
    site.proxy.cut()
    await site.say("two")
    for stream in streams:
        with pytest.raises(StreamCut):
            await stream.next()
        await stream.resume()
        assert "two" == (await stream.next()).data
        assert [] == stream.gaps
        stream.drop()
    assert 3 == site.proxy.cuts


@pytest.mark.parametrize("size", [0, 1, 7, 30, 60, 200])
async def test_cut_after_bytes(site: Site, size: int) -> None:
    """So many come, from then on, and no more; whatever was within comes again."""
    stream = await site.stream()
    response = stream.response
    assert response is not None
    before = response.content.total_raw_bytes
    site.proxy.cut_after(size)
    await site.say(*range(9))
    with pytest.raises(StreamCut):
        await stream.collect(9)
    assert response.content.total_raw_bytes - before <= size
    await stream.resume()
    await stream.collect(9 - len(stream.events))
    assert list(range(9)) == [event.value for event in stream.events]
    assert 1 == site.proxy.cuts
    stream.drop()


async def test_cut_after_a_text(site: Site) -> None:
    """It is cut in the midst of an event, also where the text came in pieces."""
    stream = await site.stream()
    site.proxy.cut_after('"needle":', times=2)
    for _ in range(2):
        await site.say({"hay": 1}, {"a": 1, "needle": 2}, {"hay": 2})
        with pytest.raises(StreamCut):
            await stream.rest()
        await stream.resume()
    await stream.collect(6 - len(stream.events))
    assert [1, None, 2] * 2 == [event.value.get("hay") for event in stream.events]
    assert 2 == site.proxy.cuts
    stream.drop()


async def test_a_text_in_pieces() -> None:
    """A server that writes byte by byte is cut at the same place."""
    held = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        for byte in b"abcabdabeabf":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await held.wait()
        writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with FaultProxy(port) as proxy:
        cuts: Any = {"abe": b"abcabdabe", b"f": b"abcabdabeabf", 4: b"abca"}
        for mark, came in cuts.items():
            proxy.cut_after(mark)
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"x")
            assert came == await reader.readexactly(len(came))
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            writer.close()
        held.set()
    server.close()
    await server.wait_closed()


async def test_cut_idle(site: Site) -> None:
    """Who has nothing to say is cut, again and again; who has is not."""
    stream = await site.stream()
    site.proxy.cut_idle(0.1)
    for count in (1, 2):
        with pytest.raises(StreamCut):
            await stream.next()
        assert count == site.proxy.cuts
        await stream.resume()
    await site.proxy.go_on()
    await site.say("still there")
    assert "still there" == (await stream.next()).data
    with pytest.raises(StreamTimeout):
        await stream.next(timeout=0.3)
    stream.drop()


async def test_delay(site: Site) -> None:
    """Answers come later by so much, in order, and side by side."""
    stream = await site.stream()
    site.proxy.delay(0.2)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(5):
        await site.say(number)
        await asyncio.sleep(0.01)
    assert list(range(5)) == [event.value for event in await stream.collect(5)]
    assert loop.time() - begun >= 0.2
    site.proxy.delay(60)
    await site.say("late")
    with pytest.raises(StreamTimeout):
        await stream.next(timeout=0.05)
    await site.proxy.go_on()
    assert "late" == (await stream.next()).data
    stream.drop()


async def test_stall(site: Site) -> None:
    """Nothing comes, nobody is told; what was held comes when it goes on."""
    stream = await site.stream()
    site.proxy.stall()
    await site.say("held")
    with pytest.raises(StreamTimeout):
        await stream.next(timeout=0.05)
    later = asyncio.create_task(page(site))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(later), 0.05)
    assert "stalled" in repr(site.proxy)
    assert 1 == get_sse(site.app).connections
    await site.proxy.go_on()
    assert "held" == (await stream.next()).data
    assert 200 == (await later)[0]
    assert 0 == site.proxy.cuts
    stream.drop()


async def test_a_stalled_client_is_seen_to_leave_later(site: Site) -> None:
    """What a client does, the server learns as late."""
    stream = await site.stream()
    site.proxy.stall()
    stream.drop()
    for _ in range(100):
        await asyncio.sleep(0)
    assert 1 == get_sse(site.app).connections
    await site.proxy.go_on()
    await stream.drop()
    assert 0 == get_sse(site.app).connections


async def test_buffer_a_whole_answer(site: Site) -> None:
    """A page comes whole, and a stream not at all before it is told to go on."""
    site.proxy.buffer()
    assert (200, "a page " * 1000) == await page(site, headers={"Connection": "close"})
    opening = asyncio.create_task(EventStream(site.proxy, "/room").open())
    await until(lambda: get_sse(site.app).connections)
    await site.say("kept back")
    assert not (await asyncio.wait({opening}, timeout=0.05))[0]
    await site.proxy.go_on()
    stream = await asyncio.wait_for(opening, 5)
    assert "kept back" == (await stream.next()).data
    stream.drop()


async def test_buffer_all_but_the_head(site: Site) -> None:
    """The status comes at once, and nothing else."""
    site.proxy.buffer(heads=True)
    stream = await EventStream(site.proxy, "/room").open()
    assert 200 == stream.status
    with pytest.raises(StreamTimeout):
        await stream.next("sse-hello", timeout=0.1)
    await site.proxy.go_on()
    await stream.next("sse-hello")


async def test_forget(site: Site) -> None:
    """Nobody is told that a connection is dead, and what is sent on it is lost."""
    stream = await site.stream()
    site.proxy.forget()
    await site.say(1)
    with pytest.raises(StreamTimeout):
        await stream.next(timeout=0.1)
    assert 1 == get_sse(site.app).connections
    await site.proxy.go_on()
    await site.say(2)
    with pytest.raises(StreamTimeout):
        await stream.next(timeout=0.1)
    await stream.resume()
    assert ["1", "2"] == [event.data for event in await stream.collect(2)]


async def test_buffer_some_bytes(site: Site) -> None:
    """Less than so many wait for more."""
    stream = await site.stream()
    site.proxy.buffer(2000)
    await site.say("little")
    with pytest.raises(StreamTimeout):
        await stream.next(timeout=0.05)
    await site.say("x" * 2000)
    assert ["little", "x" * 2000] == [e.data for e in await stream.collect(2)]
    stream.drop()


async def test_answers(site: Site) -> None:
    """So many requests are answered in the server's place; open streams go on."""
    stream = await site.stream()
    site.proxy.answer(502, body="<h1>", headers={"Retry-After": "1"}, times=2)
    for _ in range(2):
        async with site.proxy.request(
            "POST", "/echo", data=io.BytesIO(bytes(500_000))
        ) as response:
            assert (502, "Bad Gateway") == (response.status, response.reason)
            assert "1" == response.headers["Retry-After"]
            assert "<h1>" == await response.text()
    assert 200 == (await page(site))[0]
    site.proxy.answer(599)
    async with site.proxy.request("HEAD", "/page") as response:
        assert 599 == response.status
    # On a connection that was kept from before, too.
    assert (599, "") == await page(site)
    await site.say("unharmed")
    assert "unharmed" == (await stream.next()).data
    assert 4 == site.proxy.answered
    await site.proxy.go_on()
    assert 200 == (await page(site))[0]
    stream.drop()


async def test_an_answer_waits_for_the_request(site: Site) -> None:
    """Closing on a client that still sends would reset what it is answered."""
    site.proxy.answer(503)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.proxy.port)
    for part in (b"POST / HTTP/1.1\r\nContent-", b"Length: 10\r\n\r\n12345", b"678"):
        writer.write(part)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.03)
    writer.write(b"90")
    assert (await reader.read()).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    writer.close()


async def test_refuse(site: Site) -> None:
    """Nobody listens, those that are open go on; then the port is the same."""
    stream = await site.stream()
    port = site.proxy.port
    site.proxy.refuse()
    for _ in range(3):
        with pytest.raises(aiohttp.ClientConnectorError):
            await page(site)
    await site.say("still here")
    assert "still here" == (await stream.next()).data
    await site.proxy.go_on()
    assert port == site.proxy.port
    assert 200 == (await page(site))[0]
    stream.drop()


async def test_another_target(site: Site) -> None:
    """A server that comes back elsewhere is there; one that is gone is not."""
    runner = web.AppRunner(app_with_a_room())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    url = f"http://127.0.0.1:{port}/some/where"
    async with aiohttp.ClientSession() as session:
        for target in (port, url, site.client.server):
            site.proxy.target = target
            async with session.get(site.proxy.url / "page") as response:
                assert 200 == response.status
            site.proxy.cut()
        site.proxy.target = port
        await runner.cleanup()
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(site.proxy.url / "page")
    site.proxy.target = site.client


async def test_a_session_of_its_own(site: Site) -> None:
    """Before a URL it makes requests too, and closes what it made them with."""
    async with FaultProxy(site.client.make_url("/")) as proxy:
        assert proxy.app is None
        async with proxy.request("GET", "page") as response:
            assert 200 == response.status


async def test_closed_while_all_is_wrong(site: Site) -> None:
    """Whatever is held, delayed or kept back: it ends at once, and leaves nothing."""
    streams = [await site.stream() for _ in range(3)]
    site.proxy.delay(60)
    site.proxy.buffer()
    site.proxy.cut_idle(60)
    await site.say(*["x" * 100_000] * 20)
    streams[0].stall()
    site.proxy.stall()
    await asyncio.sleep(0.05)
    await site.proxy.aclose()
    for stream in streams[1:]:
        with pytest.raises(StreamCut):
            await stream.rest()
        stream.drop()
    streams[0].drop()


def test_what_it_cannot_be_before() -> None:
    """The error says what it can."""
    with pytest.raises(TypeError, match="give a TestClient or TestServer, a URL"):
        assert FaultProxy(object()).url


def test_on_any_loop(run: Run) -> None:
    """The whole kit: a stalled client, a cut, a clock, and nothing that is left."""

    async def scenario() -> None:
        clock = SettableClock()
        app = app_with_a_room(clock=clock)
        async with (
            nothing_left(),
            TestClient(TestServer(app)) as client,
            FaultProxy(client) as proxy,
            EventStream(client, "/room") as slow,
            EventStream(proxy, "/room") as stream,
        ):
            await stream.next("sse-hello")
            await slow.next("sse-hello")
            slow.stall()
            proxy.cut_after("data: 1\n")
            for _ in range(100):
                await get_sse(app).publish("room", "x" * 50_000)
            await get_sse(app).publish("room", 1)
            await get_sse(app).publish("room", 2)
            with pytest.raises(StreamCut):
                await stream.rest()
            await slow.stall()
            await clock.advance(40)
            assert 0 == get_sse(app).connections
            await stream.resume()
            await stream.collect(102 - len(stream.events))
            await stream.drop()
            assert 2 == stream.events[-1].value
            await no_runs_left(app)

    run(scenario)
