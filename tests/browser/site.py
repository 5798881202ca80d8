"""The application that browsers are tested with, and the port that it is served on.

Law: production's settings. Events come when a test releases them, connections are cut
at the event that a test names, and what is on the port is what a test puts there, so
that nothing depends on how fast the machine is.
"""

from __future__ import annotations

__all__ = ("Asked", "Place", "Source", "app_for_pages", "numbers", "table_of")

import asyncio
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import aiohttp_jinja2
import jinja2
from aiohttp import hdrs, web

from aiohttp_sse_routes import SharedRun, SSERouteTableDef, setup
from aiohttp_sse_routes.http.hub import HUB_KEY, Hub

PAGES: Final = Path(__file__).parent / "pages"

# As strict as a page can be that has a script and a stream: no worker for that.
STRICT: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; require-trusted-types-for 'script'"
)
POLICY: Final = STRICT + "; worker-src 'self'"


class Asked:
    """A request that came.

    Attributes:
        path: Its path.
        last_event_id: The header, if it had it.
        at: When it came, by the loop's time.
        status: What it was answered; None as long as it was not.
    """

    def __init__(self, request: web.Request) -> None:
        self.path = request.path
        self.last_event_id = request.headers.get(hdrs.LAST_EVENT_ID)
        self.at = asyncio.get_running_loop().time()
        self.status: int | None = None

    def __repr__(self) -> str:
        return f"<{self.path} {self.last_event_id} -> {self.status}>"


_ASKED: Final = web.RequestKey("asked", Asked)


class Source:
    """Numbers from 1 on, as many as a test has released.

    Attributes:
        released: The last number that may come.
        cut_at: After which numbers every connection is cut, in mid-stream.
        running: How many generators run.
    """

    def __init__(self) -> None:
        self.released = 0
        self.cut_at: dict[int, Callable[[], object]] = {}
        self.running = 0
        self._changed = asyncio.Event()

    def release(self, count: int) -> None:
        """Let *count* more numbers come."""
        self.released += count
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def numbers(self) -> AsyncIterator[int]:
        """Yield them."""
        self.running += 1
        try:
            number = 0
            while True:
                number += 1
                while number > self.released:
                    await self._changed.wait()
                yield number
                if number % 7 == 0:
                    # What was yielded is on its way when the next number comes.
                    await asyncio.sleep(0)
                cut = self.cut_at.pop(number, None)
                if cut is not None:
                    cut()
        finally:
            self.running -= 1


def numbers(count: int, *, first: int = 1) -> list[int]:
    """Return the numbers from *first* to *count*."""
    return list(range(first, count + 1))


def table_of(source: Source, **options: Any) -> SSERouteTableDef:
    """Return a private route, ``/numbers``, and two shared ones."""
    table = SSERouteTableDef()

    @table.sse_route("/numbers", retry=500, **options)
    async def private(request: web.Request) -> AsyncIterator[int]:
        async for number in source.numbers():
            yield number

    @table.sse_route("/shared", shared=True, retry=500, **options)
    async def shared(run: SharedRun) -> AsyncIterator[int]:
        async for number in source.numbers():
            yield number

    @table.sse_route("/many/{one}", shared=True, retry=500, **options)
    async def many(run: SharedRun) -> AsyncIterator[int]:
        async for number in source.numbers():
            yield number

    return table


def app_for_pages(
    table: SSERouteTableDef, *, app: web.Application | None = None, **options: Any
) -> web.Application:
    """Return an application that serves *table*, and the pages under ``/pages/``.

    It is *app*, if that is given, with what it has already.

    A page's query may say who is logged in, ``user``, which a cookie keeps, and that
    its policy is to be ``strict``, or lets it connect ``anywhere``.
    """
    app = app if app is not None else web.Application()
    aiohttp_jinja2.setup(app, loader=jinja2.FileSystemLoader(PAGES), autoescape=True)
    setup(app, table, **options)

    async def page(request: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        user = request.query.get("user", request.cookies.get("user"))
        context = {"nonce": nonce, "session": user}
        name = f"{request.match_info['name']}.html"
        response = aiohttp_jinja2.render_template(name, request, context)
        policy = STRICT if "strict" in request.query else POLICY
        if "anywhere" in request.query:
            policy = policy.replace("connect-src 'self'", "connect-src *")
        response.headers["Content-Security-Policy"] = policy.format(nonce=nonce)
        if user is not None:
            response.set_cookie("user", user)
        return response

    async def icon(request: web.Request) -> web.Response:
        return web.Response(status=204)

    app.router.add_get("/pages/{name}", page)
    app.router.add_get("/favicon.ico", icon)
    return app


class Place:
    """A port of loopback, and what is on it.

    Attributes:
        port: Its number.
        asked: The requests that came to applications there, in order.
        refused: How many connections `answer` has had.
    """

    def __init__(self) -> None:
        # Held for as long as the place is: nobody else is given the number meanwhile.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.port: int = self._holder.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.asked: list[Asked] = []
        self.refused = 0
        self._runner: web.AppRunner | None = None
        self._stub: asyncio.Server | None = None

    @property
    def hub(self) -> Hub:
        """The hub of the application that is there."""
        assert self._runner is not None
        return self._runner.app[HUB_KEY]

    @property
    def carrying(self) -> int:
        """How many connections carry streams."""
        hub = self.hub
        own = [c for c in hub.rounds.open if not hasattr(c.transport, "trunk")]
        return len(own) + len(hub.rounds.carriers)

    def streams(self, path: str) -> list[Asked]:
        """Return the requests for *path*."""
        return [asked for asked in self.asked if asked.path == path]

    async def serve(self, app: web.Application) -> None:
        """Put *app* there, in place of what was."""
        await self.shut_down()
        app.middlewares.insert(0, self._record)
        app.on_response_prepare.append(_note_status)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await self.plug()

    async def shut_down(self) -> None:
        """End the application there, as a deploy does."""
        await self._end_stub()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def unplug(self) -> None:
        """Cut the application off: connections break, and new ones are refused."""
        assert self._runner is not None
        for site in self._runner.sites:
            await site.stop()
        # Those that a browser keeps for later too.
        assert self._runner.server is not None
        for protocol in self._runner.server.connections:
            if protocol.transport is not None:
                protocol.transport.abort()

    async def plug(self) -> None:
        """Let the application there be reached."""
        assert self._runner is not None
        await self._end_stub()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def answer(self, data: bytes) -> None:
        """Answer every request with *data*, in place of the unplugged application."""

        async def connected(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            try:
                await reader.readuntil(b"\r\n\r\n")
                self.refused += 1
                writer.write(data)
                await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        self._stub = await asyncio.start_server(connected, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Cut every stream's connection; what is under way still comes."""
        self.hub.cut_all()

    def reset(self) -> None:
        """Cut every stream's connection by RST: what is under way is lost."""
        assert self._runner is not None
        assert self._runner.server is not None
        for protocol in self._runner.server.connections:
            if protocol.transport is not None:
                sock = protocol.transport.get_extra_info("socket")
                linger = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.hub.cut_all()

    async def close(self) -> None:
        """End all that is there."""
        await self.shut_down()
        self._holder.close()

    async def _end_stub(self) -> None:
        stub, self._stub = self._stub, None
        if stub is not None:
            stub.close()
            await stub.wait_closed()

    @web.middleware
    async def _record(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        request[_ASKED] = Asked(request)
        self.asked.append(request[_ASKED])
        return await handler(request)


async def _note_status(request: web.Request, response: web.StreamResponse) -> None:
    request[_ASKED].status = response.status
