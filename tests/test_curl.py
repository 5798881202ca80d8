"""curl against a real server: what a terminal, a script or a cron job sees.

Law: curl is the client, with no help from ours; what it is asserted to print has been
printed while the stream was open, where the test says so.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aiohttp_sse_routes import SharedRun, SSERouteTableDef
from aiohttp_sse_routes.cursor import is_end
from aiohttp_sse_routes.decoder import DecodedEvent, Decoder

from .browser.demo import demo
from .browser.site import Source
from .helpers import Served, app_of

Serve = Callable[..., Awaitable[Served]]

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(
        shutil.which("curl") is None,
        reason="curl is not installed (as root: apt-get install curl)",
    ),
]


class Curl:
    """A curl that runs.

    Args:
        process: It.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        self._process = process
        self._output = process.stdout
        self._decoder = Decoder()

    async def line(self) -> str:
        """Return the next line that it prints, without its end."""
        async with asyncio.timeout(10):
            return (await self._output.readline()).decode().rstrip("\r\n")

    async def event(self) -> DecodedEvent:
        """Return the next event that it prints, control events too."""
        while True:
            async with asyncio.timeout(10):
                line = await self._output.readline()
            assert line, "the stream has ended"
            for event in self._decoder.feed(line):
                return event

    async def rest(self) -> str:
        """Return what it prints to its end, which has to be a success."""
        async with asyncio.timeout(10):
            text = await self._output.read()
            assert 0 == await self._process.wait()
        return text.decode()


@asynccontextmanager
async def curl(*arguments: str) -> AsyncIterator[Curl]:
    """Run curl with *arguments*; it is killed in the end, as by Ctrl-C."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--noproxy", "*", "--no-buffer"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Curl(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def source() -> Source:
    """What the streams yield."""
    return Source()


def table_of(source: Source) -> SSERouteTableDef:
    """Return ``/private`` and ``/shared``, which go on, and ``/short``, which ends."""
    table = SSERouteTableDef()

    @table.sse_route("/private")
    async def private(request: web.Request) -> AsyncIterator[int]:
        async for number in source.numbers():
            yield number

    @table.sse_route("/shared", shared=True)
    async def shared(run: SharedRun) -> AsyncIterator[int]:
        async for number in source.numbers():
            yield number

    @table.sse_route("/short")
    async def short(request: web.Request) -> AsyncIterator[Any]:
        yield 1
        yield "two\nlines"

    return table


async def test_events_arrive_at_once(serve: Serve, source: Source) -> None:
    """Each line of an event is printed when it was yielded, not with the next one."""
    served = await serve(app_of(table_of(source)))
    async with curl(served.base + "/private") as client:
        hello = [await client.line() for _ in range(6)]
        names = [line.partition(":")[0] for line in hello]
        assert ["retry", "id", "event", "json", "data", ""] == names
        assert "event: sse-hello" == hello[2]
        for number in (1, 2, 3):
            source.release(1)
            lines = [await client.line() for _ in range(4)]
            assert lines[0].startswith("id: sse1.")
            assert ["json", f"data: {number}", ""] == lines[1:]


@pytest.mark.parametrize("path", ["/private", "/shared"])
async def test_last_event_id_replays(serve: Serve, source: Source, path: str) -> None:
    """With the id of an event as `Last-Event-ID` one gets all that came after it."""
    served = await serve(app_of(table_of(source)))
    async with curl(served.base + path) as client:
        assert "sse-hello" == (await client.event()).type
        source.release(3)
        events = [await client.event() for _ in range(3)]
    source.release(2)
    header = f"Last-Event-ID: {events[0].id}"
    async with curl(served.base + path, "--header", header) as client:
        hello = await client.event()
        assert "continued" == json.loads(hello.data)["resumed"]
        data = [(await client.event()).data for _ in range(4)]
        assert ["2", "3", "4", "5"] == data


async def test_http_1_0_ends_by_close(serve: Serve, source: Source) -> None:
    """A client of HTTP/1.0 gets the same body, unchunked, up to the end of it all."""
    served = await serve(app_of(table_of(source)))
    url = served.base + "/short"
    async with curl("--http1.0", "--include", "--raw", url) as client:
        head, _, body = (await client.rest()).replace("\r\n", "\n").partition("\n\n")
    assert "200" == head.split()[1]
    assert "transfer-encoding" not in head.lower()
    assert "content-length" not in head.lower()
    lines = [line for line in body.split("\n") if not line.startswith(("retry", "id:"))]
    assert [
        *("event: sse-hello", "json"),
        'data: {"heartbeat":15.0,"resumed":"fresh"}',
        "",
        *("json", "data: 1", ""),
        *("data: two", "data: lines", ""),
        *("event: sse-end", "json", 'data: {"reason":"finished"}', ""),
        "",
    ] == lines


async def test_http_1_0_streams(serve: Serve, source: Source) -> None:
    """In HTTP/1.0 too an event arrives when it was yielded."""
    served = await serve(app_of(table_of(source)))
    async with curl("--http1.0", served.base + "/private") as client:
        assert "sse-hello" == (await client.event()).type
        for number in (1, 2, 3):
            source.release(1)
            assert str(number) == (await client.event()).data


@pytest.mark.parametrize("path", ["/private", "/shared"])
async def test_head_answers_and_ends(serve: Serve, source: Source, path: str) -> None:
    """`curl -I` gets a stream's headers and is done; no run begins for it."""
    served = await serve(app_of(table_of(source)))
    async with curl("--head", served.base + path) as client:
        head = await client.rest()
    assert "200" == head.split()[1]
    assert "content-type: text/event-stream\r\n" in head.lower()
    assert "cache-control: no-store, no-transform\r\n" in head.lower()
    assert 0 == source.running


async def test_the_id_of_an_end_is_answered_204(serve: Serve, source: Source) -> None:
    """Who comes back with the id of `sse-end` is told that there is no more."""
    served = await serve(app_of(table_of(source)))
    url = served.base + "/short"
    async with curl(url) as client:
        events = [await client.event() for _ in range(4)]
        assert "" == await client.rest()
    end = events[-1]
    assert "sse-end" == end.type
    assert is_end(end.id)
    header = f"Last-Event-ID: {end.id}"
    async with curl("--write-out", "%{http_code}", "--header", header, url) as client:
        assert "204" == await client.rest()


async def test_the_demo_in_a_terminal(tmp_path: Path) -> None:
    """The demo's job can be read with curl, as its page says: each event in order."""
    async with (
        demo(tmp_path / "chat.db") as running,
        curl(running.base + "/job") as client,
    ):
        assert "sse-hello" == (await client.event()).type
        for number in range(1, 11):
            assert number == json.loads((await client.event()).data)["n"]


async def test_the_demos_chat_in_a_terminal(tmp_path: Path) -> None:
    """The commands that the chat's page shows follow the room, and speak in it."""
    async with demo(tmp_path / "chat.db") as running:
        async with curl(running.base + "/chat") as client:
            page = html.unescape(await client.rest())
        commands = [
            shlex.split(line) for line in re.findall(r">(curl .*)</code>", page)
        ]
        follow, say = commands
        assert ["curl", "-N", running.base + "/room"] == follow
        async with curl(*follow[1:]) as client:
            assert "sse-hello" == (await client.event()).type
            async with curl(*say[1:]) as other:
                cursor = json.loads(await other.rest())["id"]
            event = await client.event()
            assert ("hello", cursor) == (json.loads(event.data)["text"], event.id)
