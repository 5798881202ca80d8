"""A proxy that does to connections what networks, and other proxies, do.

Law: real TCP on loopback. Bytes go through as they are and in order; a fault befalls
all connections, those that are there and those that will be, until it is told to go on.
"""

from __future__ import annotations

__all__ = ("FaultProxy",)

import asyncio
import contextlib
import socket
import sys
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web
from yarl import URL

from .pipe import Cut, Faults, Pipe
from .served import app_of


class FaultProxy:
    """A proxy on loopback, before a server; ``async with`` runs it.

    It stands in for a client too: ``EventStream(proxy, "/clock")``. Faults are ordered
    by calls that return at once, and add to each other; `go_on` ends them all.

    Args:
        target: What it is before: a ``TestClient`` or ``TestServer``, a URL, or a port
            of 127.0.0.1.

    Attributes:
        target: The same; another one is for connections that are made from then on.
        port: Its own port.
        accepted: How many connections it has accepted.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        self.port = 0
        self.accepted = 0
        self._faults = Faults()
        self._pipes: dict[asyncio.Task[None], Pipe] = {}
        self._behind: dict[object, object] = {}
        self._server: asyncio.Server | None = None
        self._holder: socket.socket | None = None
        self._session: aiohttp.ClientSession | None = None
        self._idle: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._holder, self.port = _hold_a_port()
        await self._listen()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return (
            f"<FaultProxy {self.url} before {_url_of(self.target)}: "
            f"{self._faults.in_words()}; {self.accepted} accepted, "
            f"{self.connections} open, {self.cuts} cut, {self.answered} answered>"
        )

    async def aclose(self) -> None:
        """Cut all that goes through, and close the port."""
        self._end_listening()
        self._end_idle()
        tasks = tuple(self._pipes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        if self._holder is not None:
            self._holder.close()

    @property
    def url(self) -> URL:
        """Its address."""
        return _url_of(self.target).with_host("127.0.0.1").with_port(self.port)

    @property
    def app(self) -> web.Application | None:
        """The application that it is before, where that is known."""
        return app_of(self.target)

    @property
    def connections(self) -> int:
        """How many connections go through it now."""
        return len(self._pipes)

    @property
    def cuts(self) -> int:
        """How many connections it has cut."""
        return self._faults.cuts

    @property
    def answered(self) -> int:
        """How many requests it has answered by itself."""
        return self._faults.answered

    def request(self, method: str, url: str | URL, **options: Any) -> Any:
        """Make a request through it, as aiohttp's ``ClientSession.request`` does.

        Args:
            method: The HTTP method.
            url: Relative to its own.
            **options: Further arguments of aiohttp's ``request``.
        """
        session = getattr(self.target, "session", None)
        if session is None:
            if self._session is None:
                self._session = aiohttp.ClientSession()
            session = self._session
        return session.request(method, self.url.join(URL(url)), **options)

    def address_behind(self, address: object) -> object:
        """Return the address by which the server knows the client at *address*."""
        return self._behind.get(address)

    # -- faults ------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every connection; the next ones go through."""
        for pipe in tuple(self._pipes.values()):
            pipe.cut()

    def cut_after(self, what: int | bytes | str, *, times: int | None = 1) -> None:
        """Reset a connection when so much of answers has gone through it from now on.

        Args:
            what: A number of bytes, heads of answers among them; or the text behind
                which it is cut, such as ``'"number":3'``.
            times: How many connections; None for each.
        """
        mark = what.encode() if isinstance(what, str) else what
        self._faults.cut = Cut(mark, times)

    def cut_idle(self, seconds: float) -> None:
        """Reset each connection on which no answer goes on for so long.

        Args:
            seconds: How long, of real time.
        """
        self._end_idle()
        self._faults.idle = seconds
        self._idle = asyncio.create_task(self._cut_idle(seconds), name="sse-proxy-idle")

    def delay(self, seconds: float) -> None:
        """Let answers arrive later.

        Args:
            seconds: How much later, of real time.
        """
        self._faults.delay = seconds
        self._faults.prompt.clear()

    def stall(self) -> None:
        """Let nothing through in either direction, and tell nobody.

        What comes meanwhile goes on when it is told to `go_on`.
        """
        self._faults.going.clear()

    def forget(self) -> None:
        """Forget the connections that are open, as a router does that has restarted.

        Nothing goes through them any more, and neither side is told; others can be
        made. `go_on` does not bring them back.
        """
        for pipe in self._pipes.values():
            pipe.forget()

    def buffer(self, size: int | None = None, *, heads: bool = False) -> None:
        """Keep answers back until they have ended, as a proxy does that buffers.

        Args:
            size: Or until there are so many bytes of one; None for its end.
            heads: Whether the head of an answer goes on at once, with its status.
        """
        self._faults.buffer = sys.maxsize if size is None else size
        self._faults.heads = heads

    def answer(
        self,
        status: int,
        *,
        body: str | bytes = "",
        headers: Mapping[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        """Answer requests in the server's place; streams that are open go on.

        Args:
            status: Such as 502.
            body: The answer's.
            headers: Such as ``{"Retry-After": "1"}``; by default it is plain text.
            times: How many requests; None for all.
        """
        content = body.encode() if isinstance(body, str) else body
        fields = {
            "Content-Type": "text/plain; charset=utf-8",
            **(headers or {}),
            "Content-Length": str(len(content)),
            "Connection": "close",
        }
        reason = next((s.phrase for s in HTTPStatus if s == status), "Unknown")
        lines = [
            f"HTTP/1.1 {status} {reason}",
            *(f"{k}: {v}" for k, v in fields.items()),
        ]
        self._faults.answer = ("\r\n".join([*lines, "", ""]).encode(), content)
        self._faults.answers_left = times

    def refuse(self) -> None:
        """Refuse connections, as a port on which nobody listens; those open go on."""
        self._end_listening()

    async def go_on(self) -> None:
        """End all faults: what was kept back goes on, and connections are accepted."""
        self._end_idle()
        self._faults.none()
        for pipe in tuple(self._pipes.values()):
            pipe.flush()
        if self._server is None:
            await self._listen()

    # -- within ------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _end_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.accepted += 1
        pipe = Pipe(self._faults, reader, writer)
        task = asyncio.create_task(self._lead(pipe), name="sse-proxy")
        self._pipes[task] = pipe
        task.add_done_callback(self._pipes.pop)

    async def _lead(self, pipe: Pipe) -> None:
        url = _url_of(self.target)

        def connected(own: object) -> None:
            self._behind[pipe.client] = own

        await pipe.run(url.host or "127.0.0.1", url.port or 80, connected)

    async def _cut_idle(self, seconds: float) -> None:
        while True:
            now = asyncio.get_running_loop().time()
            for pipe in tuple(self._pipes.values()):
                if now - pipe.active_at >= seconds:
                    pipe.cut()
            await asyncio.sleep(seconds / 4)

    def _end_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


def _url_of(target: Any) -> URL:
    if isinstance(target, int):
        return URL.build(scheme="http", host="127.0.0.1", port=target, path="/")
    if isinstance(target, str | URL):
        return URL(target).origin() / ""
    try:
        url: URL = target.make_url("/")
    except AttributeError:
        raise TypeError(
            f"FaultProxy({target!r}): give a TestClient or TestServer, a URL, or a port"
        ) from None
    return url


def _hold_a_port() -> tuple[socket.socket | None, int]:
    """Return a port, and what keeps it for as long as connections are refused."""
    holder = socket.socket()
    with contextlib.ExitStack() as stack:
        stack.callback(holder.close)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        if sys.platform == "linux":
            stack.pop_all()
            return holder, port
        # Others would not let it be listened on beside this.
    return None, port
