"""Helpers of the tests: a served application, raw sockets, waiting without sleeping."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from aiohttp import ClientSession, web

from aiohttp_sse_routes import SSE, SSE_KEY, SSERouteTableDef, setup
from aiohttp_sse_routes.streams.producer import Producer
from aiohttp_sse_routes.testing import EventStream, until

__all__ = ("RawClient", "Served", "app_of", "is_open", "no_tasks_left", "until")


async def is_open(producer: Producer) -> None:
    """Return when *producer* has yielded, or has ended."""
    if producer.opened is not None:
        await producer.opened


class Served:
    """An application that is served on loopback, and a client for it."""

    def __init__(
        self,
        app: web.Application,
        runner: web.AppRunner,
        session: ClientSession,
        scheme: str = "http",
    ) -> None:
        self.app = app
        self.runner = runner
        self.session = session
        self.host, self.port = runner.addresses[0][:2]
        self.base = f"{scheme}://{self.host}:{self.port}"
        self.raw_clients: list[RawClient] = []
        self._open = True

    @property
    def sse(self) -> SSE:
        """The application's plugin."""
        return self.app[SSE_KEY]

    def stream(self, path: str, **options: Any) -> EventStream:
        """Return a client of the stream at *path*; ``async with`` opens it."""
        return EventStream(self.session, self.base + path, app=self.app, **options)

    async def get(self, path: str, **options: Any) -> tuple[int, bytes]:
        """Return the status and the whole body of a GET."""
        async with self.session.get(self.base + path, **options) as response:
            return response.status, await response.read()

    async def close(self) -> None:
        """End client and server; twice is once."""
        if self._open:
            self._open = False
            await self.session.close()
            await self.runner.cleanup()


def app_of(table: SSERouteTableDef, **options: Any) -> web.Application:
    """Return an application that serves *table*."""
    app = web.Application()
    setup(app, table, **options)
    return app


async def no_tasks_left(before: set[asyncio.Task[Any]]) -> None:
    """Fail if a task runs that did not in *before*."""

    def left() -> list[asyncio.Task[Any]]:
        return [
            task
            for task in asyncio.all_tasks() - before
            if task is not asyncio.current_task()
        ]

    await until(lambda: not left(), timeout=2, what=f"tasks left: {left()}")


class RawClient:
    """A client that is nothing but a socket, for what a library would not do."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""

    @classmethod
    async def connect(cls, served: Served, *, rcvbuf: int | None = None) -> RawClient:
        """Connect to *served*; *rcvbuf* bounds what the kernel takes for us."""
        sock = socket.socket()
        sock.setblocking(False)
        if rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (served.host, served.port))
        client = cls(sock)
        served.raw_clients.append(client)
        return client

    async def send(self, data: bytes) -> None:
        """Send *data*."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def get(self, path: str, *headers: str, version: str = "1.1") -> None:
        """Send a GET request."""
        lines = [f"GET {path} HTTP/{version}", "Host: test", *headers, "", ""]
        await self.send("\r\n".join(lines).encode())

    async def read(self, limit: int = 65536, *, timeout: float = 5.0) -> bytes:
        """Return what has come, at most *limit* bytes; empty at the end."""
        async with asyncio.timeout(timeout):
            data = await asyncio.get_running_loop().sock_recv(self.sock, limit)
        self.received += data
        return data

    async def read_until(self, mark: bytes, *, timeout: float = 5.0) -> bytes:
        """Read until *mark* has come; return all that has."""
        async with asyncio.timeout(timeout):
            while mark not in self.received:
                if not await self.read(timeout=timeout):
                    raise AssertionError(f"ended without {mark!r}: {self.received!r}")
        return self.received

    async def read_all(self, *, timeout: float = 5.0) -> bytes:
        """Read until the server closes."""
        async with asyncio.timeout(timeout):
            while await self.read(timeout=timeout):
                pass
        return self.received

    def reset(self) -> None:
        """Close with RST: what was not read is lost on both sides."""
        linger = b"\x01\0\0\0\0\0\0\0"
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.sock.close()

    def close(self) -> None:
        """Close with FIN."""
        self.sock.close()
