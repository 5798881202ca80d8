"""A server that is nothing but sockets, and does what a script says, for clients.

Law: nothing of HTTP is done here that the script does not say.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypedDict

from .helpers import until

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

ROWS_FILE = Path(__file__).parent / "vectors" / "connection.json"


class Exchange(TypedDict, total=False):
    """What the server does with one connection; ``end`` alone is no answer."""

    status: int
    headers: dict[str, str]
    body: list[str]
    end: str


class Row(TypedDict):
    """A row of ``connection.json``."""

    name: str
    exchanges: list[Exchange]
    standard: str
    ours: str


ROWS: list[Row] = json.loads(ROWS_FILE.read_text("utf-8"))


class Scripted:
    """A server whose connections go by the script; those behind its end are held.

    Attributes:
        requests: The head of each request, as it came.
        base: The server's URL.
        opened: How many connections were made.
        live: How many are open.
    """

    def __init__(self, script: Iterable[Exchange | bytes | Act]) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.base = ""
        self.opened = 0
        self.live = 0

    def header(self, number: int, name: str) -> str | None:
        """Return a header of a request; None if it has none."""
        for line in self.requests[number].decode().split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.removeprefix(" ")
        return None

    def path(self, number: int) -> str:
        """Return the path of a request."""
        return self.requests[number].decode().split(" ")[1]

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Do with one connection what the script says next."""
        number = self.opened
        self.opened += 1
        self.live += 1
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if number >= len(self.script):
                await reader.read()
                return
            step = self.script[number]
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif callable(step):
                await step(reader, writer)
            else:
                await self._exchange(step, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.live -= 1
            writer.close()

    async def _exchange(
        self,
        exchange: Exchange,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        end = exchange["end"]
        if "status" in exchange:
            writer.write(_answer(exchange))
            await writer.drain()
        if end == "rst":
            # Only when the client has read it: a reset destroys what is on its way.
            if "status" in exchange:
                await asyncio.sleep(0.02)
            sock: socket.socket = writer.get_extra_info("socket")
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        elif end == "hold":
            await reader.read()


def _answer(exchange: Exchange) -> bytes:
    lines = [f"HTTP/1.1 {exchange['status']} X"]
    lines += [f"{name}: {value}" for name, value in exchange["headers"].items()]
    # The marks of pauses are not for this server.
    texts = [text for text in exchange["body"] if not text.startswith("<")]
    body = "".join(texts).encode()
    if exchange["end"].startswith("chunked"):
        lines.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n" % (len(body), body)
        if exchange["end"] == "chunked-final":
            body += b"0\r\n\r\n"
    else:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


def stream(*blocks: str | bytes, end: str = "eof", **headers: Any) -> Exchange:
    """Return an exchange that is a stream of *blocks*."""
    body = [b if isinstance(b, str) else b.decode() for b in blocks]
    given = {"Content-Type": "text/event-stream", **headers}
    return {"status": 200, "headers": given, "body": body, "end": end}


def answer(status: int, **headers: str) -> Exchange:
    """Return an exchange that is no stream."""
    return {"status": status, "headers": headers, "body": [], "end": "eof"}


@asynccontextmanager
async def scripted(*script: Exchange | bytes | Act) -> AsyncIterator[Scripted]:
    """Serve *script* on a free port of loopback."""
    one = Scripted(script)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, limit=1 << 20)
    host, port = server.sockets[0].getsockname()[:2]
    one.base = f"http://{host}:{port}"
    try:
        yield one
    finally:
        server.close()
        await until(lambda: not one.live, what="connections left")
