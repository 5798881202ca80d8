"""A proxy between browsers and a server, which does to connections what a test says.

Law: bytes go through as they are and in order; what is asked for happens to what comes
next, on all connections that are there and those that will be.
"""

from __future__ import annotations

__all__ = ("Proxy", "proxy_before")

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """A proxy on loopback.

    Args:
        target: The port that it is before.

    Attributes:
        base: Its address.
        held: Whether nothing goes through, without a word.
        idle: After how many seconds of silence of the server a connection is cut.
        buffer: How many bytes of an answer are kept back until there are more.
        cut_within: After how many more bytes of an answer its connection is reset.
        cuts: How many connections it has cut.
    """

    def __init__(self, target: int) -> None:
        self.base = ""
        self.held = False
        self.idle: float | None = None
        self.buffer = 0
        self.cut_within: int | None = None
        self.cuts = 0
        self._target = target

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        try:
            # Whichever side ends it ends it for both.
            forth = asyncio.create_task(self._ask(reader, there[1]))
            back = asyncio.create_task(self._answer(there[0], writer))
            both = {forth, back}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            there[1].close()
            writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        kept = b""
        with contextlib.suppress(ConnectionError):
            while True:
                try:
                    data = await asyncio.wait_for(reader.read(65536), self.idle)
                except TimeoutError:
                    self.cuts += 1
                    return
                if self.held:
                    # For ever: the connection is not closed either.
                    await asyncio.Event().wait()
                kept += data
                streams = b"text/event-stream" in kept or self.cut_within is None
                if data and len(kept) < self.buffer and streams:
                    continue
                if self.cut_within is not None and b"data: " in kept:
                    kept, self.cut_within = kept[: self.cut_within], None
                    writer.write(kept)
                    await writer.drain()
                    self._reset(writer)
                    return
                writer.write(kept)
                kept = b""
                await writer.drain()
                if not data:
                    return

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        self.cuts += 1
        sock = writer.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()


@asynccontextmanager
async def proxy_before(target: int) -> AsyncIterator[Proxy]:
    """Run a proxy before the port *target*."""
    proxy = Proxy(target)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy._serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    proxy.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
