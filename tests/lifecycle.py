"""Helpers of the tests of lives and ends: watched generators, clients that stall.

Nothing here waits for time: a condition is turned for, and what must come within a
second is given a second.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import contextvars
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import trustme
from aiohttp import web

from aiohttp_sse_routes.decoder import DecodedEvent, Decoder
from aiohttp_sse_routes.http.connection import Connection
from aiohttp_sse_routes.http.hub import HUB_KEY, Hub
from aiohttp_sse_routes.streams.producer import Producer
from aiohttp_sse_routes.testing import nothing_left

from .helpers import RawClient, Served, until

PROMPTLY = 1.0
"""Seconds: what the contract calls promptly."""

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
"""Runs a scenario on a loop."""

INSIDE: contextvars.ContextVar[str] = contextvars.ContextVar("INSIDE", default="")
"""Set and reset by a `Life`, which only one and the same context allows."""


class Life:
    """What a generator tells of its life; `lived` is its body.

    Attributes:
        task: The task that it was begun in.
        closings: How often its ``finally`` has run to its end.
        closed_in: The tasks in which it did.
        go: Set by a test to let the generator go on.
        thrown: What was raised at its ``yield``, by type.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.closings = 0
        self.closed_in: list[asyncio.Task[Any] | None] = []
        self.go = asyncio.Event()
        self.thrown: list[type[BaseException]] = []

    async def lived(self, body: AsyncIterator[Any] | None = None) -> AsyncIterator[Any]:
        """Yield "first", then what *body* yields, else wait for ever."""
        self.task = asyncio.current_task()
        token = INSIDE.set("generator")
        try:
            try:
                yield "first"
                if body is None:
                    await self.go.wait()
                    return
                async for item in body:
                    yield item
            except BaseException as exc:
                self.thrown.append(type(exc))
                raise
        finally:
            INSIDE.reset(token)
            if body is not None:
                await body.aclose()  # type: ignore[attr-defined]
            # It may await, as one that gives back a connection does.
            await asyncio.sleep(0)
            self.closed_in.append(asyncio.current_task())
            self.closings += 1

    def closed_once_in_its_task(self) -> bool:
        """Whether the ``finally`` ran once, in the task that began the generator."""
        return self.closings == 1 and self.closed_in == [self.task]


def hub_of(served: Served) -> Hub:
    """Return the running state of *served*."""
    return served.app[HUB_KEY]


def connections_of(served: Served) -> list[Connection]:
    """Return the streams that are open."""
    return list(hub_of(served).rounds.open)


def producers_of(served: Served) -> list[Producer]:
    """Return the generators that run."""
    return list(hub_of(served).producers)


def parked(served: Served) -> bool:
    """Return whether a generator is parked at a ``yield``, for want of room."""
    return any(p.is_paused for p in producers_of(served))


def queued(sock: Any) -> int:
    """Return how many bytes written to *sock* the peer has not acknowledged."""
    import termios

    return _ask(sock, termios.TIOCOUTQ)


def unread(sock: socket.socket) -> int:
    """Return how many bytes have come to *sock* that were not read."""
    import termios

    return _ask(sock, termios.FIONREAD)


def _ask(sock: Any, what: int) -> int:
    import fcntl

    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), what, count)
    return count[0]


def complaints(caplog: Any) -> list[str]:
    """Return what was logged as a warning or worse, or with a traceback."""
    return [
        f"{record.name} {record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.levelno >= logging.WARNING or record.exc_info
    ]


class Follower:
    """A client of raw sockets that keeps its place over its connections.

    Attributes:
        events: The data of every event that is not one of ours.
        control: Every one of ours: its name, and its data.
        ended: Whether it was told not to come back.
        complete: Whether the present response came to its last chunk.
    """

    def __init__(self, served: Served, path: str) -> None:
        self.served = served
        self.path = path
        self.events: list[str] = []
        self.control: list[tuple[str, Any]] = []
        self.last_event_id = ""
        self.retry: int | None = None
        self.status = 0
        self.complete = False
        self.client: RawClient | None = None
        self._head = b""
        self._data = b""
        self._decoder = Decoder()

    @property
    def gaps(self) -> list[str]:
        """The reasons of the gaps it was told."""
        return [data["reason"] for name, data in self.control if name == "sse-gap"]

    @property
    def ends(self) -> list[str]:
        """The reasons of the ends it was told."""
        return [data["reason"] for name, data in self.control if name == "sse-end"]

    @property
    def sock(self) -> socket.socket:
        """The present connection's socket."""
        assert self.client is not None
        return self.client.sock

    async def connect(self, *, rcvbuf: int | None = None) -> RawClient:
        """Open a connection, with the last event ID; the last one is left as it is."""
        self.client = await RawClient.connect(self.served, rcvbuf=rcvbuf)
        headers = []
        if self.last_event_id:
            headers.append(f"Last-Event-ID: {self.last_event_id}")
        self._head = self._data = b""
        self.status, self.complete = 0, False
        self._decoder = Decoder(self.last_event_id)
        await self.client.get(self.path, *headers)
        return self.client

    async def read(self, limit: int = 65536) -> bool:
        """Take what has come; return whether there was anything."""
        assert self.client is not None
        data = await self.client.read(limit)
        self.feed(data)
        return bool(data)

    async def read_until(self, condition: Callable[[], object]) -> None:
        """Read until *condition* holds."""
        while not condition():
            assert await self.read(), f"ended after {self.events} {self.control}"

    async def read_events(self, count: int = 1) -> None:
        """Read until there are *count* events in all."""
        await self.read_until(lambda: len(self.events) >= count)

    async def read_all(self) -> None:
        """Read until the response, or the connection, ends."""
        while not self.complete and await self.read():
            pass

    def feed(self, data: bytes) -> None:
        """Take *data* as it came from the socket."""
        if not self.status:
            self._head += data
            head, mark, data = self._head.partition(b"\r\n\r\n")
            if not mark:
                return
            self.status = int(head.split()[1])
            if b"chunked" not in head:
                # A refusal, which comes whole.
                self._decode(data)
                self.complete = True
                return
        self._data += data
        start = 0
        while not self.complete:
            end = self._data.find(b"\r\n", start)
            length = int(self._data[start:end], 16) if end >= 0 else 0
            if end < 0 or len(self._data) < end + length + 4:
                break
            start = end + length + 4
            if length:
                self._decode(self._data[end + 2 : start - 2])
            else:
                self.complete = True
        self._data = self._data[start:]

    def _decode(self, body: bytes) -> None:
        for event in self._decoder.feed(body):
            self._take(event)
        self.last_event_id = self._decoder.last_event_id
        self.retry = self._decoder.retry or self.retry

    def _take(self, event: DecodedEvent) -> None:
        if event.type.startswith("sse-"):
            self.control.append((event.type, json.loads(event.data)))
        else:
            self.events.append(event.data)


async def stalled(served: Served, path: str, *, rcvbuf: int = 4096) -> Follower:
    """Return a client of *path* that reads nothing: its run is parked."""
    follower = Follower(served, path)
    await follower.connect(rcvbuf=rcvbuf)
    await until(
        lambda: parked(served) and any(c.feed for c in connections_of(served)),
        what="the generator is paused",
    )
    return follower


class Site:
    """A served application, and how its clients reach it.

    Args:
        transport: ``tcp``, ``tls`` or ``unix``.
        authority: Signs the certificate for ``tls``.
        folder: Where the socket of ``unix`` is.
    """

    def __init__(self, transport: str, authority: trustme.CA, folder: Path) -> None:
        self.transport = transport
        self.authority = authority
        self.path = folder / "socket"
        self.port = 0

    @contextlib.asynccontextmanager
    async def serving(
        self, app: web.Application, **options: Any
    ) -> AsyncIterator[None]:
        """Serve *app* as ``run_app`` does, the access log and all."""
        async with nothing_left():
            runner = web.AppRunner(app, **options)
            await runner.setup()
            site: web.BaseSite
            if self.transport == "unix":
                site = web.UnixSite(runner, self.path)
            else:
                context = None
                if self.transport == "tls":
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    self.authority.issue_cert("127.0.0.1").configure_cert(context)
                site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            if self.transport != "unix":
                self.port = runner.addresses[0][1]
            try:
                yield
            finally:
                await runner.cleanup()

    def connect(self) -> socket.socket:
        """Return a connected client, which blocks."""
        if self.transport == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(self.path))
            return sock
        sock = socket.create_connection(("127.0.0.1", self.port))
        if self.transport == "tls":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.authority.configure_trust(context)
            return context.wrap_socket(sock, server_hostname="127.0.0.1")
        return sock

    def ask(self, path: str, mark: bytes) -> socket.socket:
        """Return a client that has sent a GET, and has read *mark*."""
        sock = self.connect()
        sock.settimeout(5)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        data = b""
        while mark not in data:
            more = sock.recv(65536)
            assert more, data
            data += more
        return sock
