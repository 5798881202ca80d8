"""One connection through the proxy, and the faults that befall it.

Law: a fault holds, changes or ends what goes through where it stands in the code, and
nowhere else. Whichever side ends the connection ends it for both.
"""

from __future__ import annotations

__all__ = ("Cut", "Faults", "Pipe")

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Final

_PIECE: Final = 65536
_AHEAD: Final = 16
"""Pieces of an answer that may be under way, when it is delayed."""


class Cut:
    """Where connections are cut.

    Args:
        after: Behind so many bytes, or behind this text.
        times: How many connections; None for each.
    """

    def __init__(self, after: int | bytes, times: int | None) -> None:
        self.after = after
        self.times = times


class Faults:
    """What a proxy does to its connections.

    Attributes:
        going: Cleared while nothing goes through.
        prompt: Cleared while answers are delayed.
        delay: How much later answers arrive, in seconds.
        idle: After how much silence a connection is cut, in seconds.
        buffer: How many bytes of an answer are kept back until there are more.
        heads: Whether the head of an answer is not kept back with it.
        cut: Where connections are cut.
        answer: What requests are answered with: head and body.
        answers_left: How many; None for all.
        cuts: How many connections were cut.
        answered: How many requests were answered.
    """

    def __init__(self) -> None:
        self.cuts = 0
        self.answered = 0
        self.going = asyncio.Event()
        self.prompt = asyncio.Event()
        self.none()

    def none(self) -> None:
        """End all faults."""
        self.going.set()
        self.prompt.set()
        self.delay = 0.0
        self.idle: float | None = None
        self.buffer = 0
        self.heads = False
        self.cut: Cut | None = None
        self.answer: tuple[bytes, bytes] | None = None
        self.answers_left: int | None = None

    def in_words(self) -> str:
        """Return what is in force."""
        words = {
            "stalled": not self.going.is_set(),
            f"delays by {self.delay:g} s": self.delay,
            f"cuts after {self.idle} s of silence": self.idle,
            "buffers": self.buffer,
            "is to cut": self.cut,
            "answers by itself": self.answer,
        }
        return ", ".join(word for word, holds in words.items() if holds) or "no fault"

    def take_answer(self) -> tuple[bytes, bytes] | None:
        """Return the answer to a request that has come; None to let it through."""
        answer = self.answer
        if answer is not None:
            self.answered += 1
            if self.answers_left is not None:
                self.answers_left -= 1
                if self.answers_left <= 0:
                    self.answer = None
        return answer


class Pipe:
    """A client's connection and the server's, as one.

    Args:
        faults: What befalls it.
        reader: What the client sends.
        writer: What it is sent.

    Attributes:
        client: The client's address.
        active_at: When an answer has gone on last, by the loop's time.
    """

    def __init__(
        self,
        faults: Faults,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.client: object = tuple(writer.get_extra_info("peername") or ())[:2]
        self.active_at = asyncio.get_running_loop().time()
        self._faults = faults
        self._reader = reader
        self._writer = writer
        self._server: asyncio.StreamWriter | None = None
        self._over = asyncio.Event()
        self._ways: list[asyncio.Task[None]] = []
        self._pieces: asyncio.Queue[tuple[float, bytes | None]]
        self._pieces = asyncio.Queue(_AHEAD)
        self._cut: Cut | None = None
        self._is_forgotten = False
        self._passed = 0
        self._tail = b""
        # So that the server feels it when the client takes nothing.
        writer.transport.set_write_buffer_limits(high=0)

    async def run(
        self, host: str, port: int, connected: Callable[[object], object]
    ) -> None:
        """Let bytes through between the client and *host*, until one side ends.

        Args:
            host: The server's.
            port: The server's.
            connected: Called with the address by which the server knows the client.
        """
        self._begin(self._ask(host, port, connected))
        try:
            await self._over.wait()
            await self._end_ways()
            # What was written still goes out.
            for writer in self._writers:
                writer.close()
            for writer in self._writers:
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        finally:
            await self._end_ways()
            for writer in self._writers:
                writer.transport.abort()

    def cut(self) -> None:
        """Reset it: what is under way is lost."""
        if not self._over.is_set():
            self._faults.cuts += 1
            _reset(self._writer)
            self._over.set()

    def forget(self) -> None:
        """Let nothing through any more, and tell nobody."""
        self._is_forgotten = True

    def flush(self) -> None:
        """Let go of what was kept back."""
        # If there is no room, more goes on behind it anyway.
        with contextlib.suppress(asyncio.QueueFull):
            self._pieces.put_nowait((0.0, b""))

    @property
    def _writers(self) -> list[asyncio.StreamWriter]:
        return [one for one in (self._server, self._writer) if one is not None]

    def _begin(self, way: Coroutine[object, object, None]) -> None:
        async def done() -> None:
            try:
                with contextlib.suppress(OSError):
                    await way
                # That one side has ended it is not let through either.
                await self._faults.going.wait()
            finally:
                self._over.set()

        self._ways.append(asyncio.create_task(done(), name="sse-proxy-way"))

    async def _end_ways(self) -> None:
        for task in self._ways:
            task.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)

    async def _ask(
        self, host: str, port: int, connected: Callable[[object], object]
    ) -> None:
        """Hand on what the client sends; who has sent nothing is not connected."""
        faults = self._faults
        while data := await self._reader.read(_PIECE):
            await faults.going.wait()
            if self._is_forgotten:
                continue
            answer = faults.take_answer()
            if answer is not None:
                await self._answer(data, *answer)
                return
            if self._server is None:
                there, self._server = await asyncio.open_connection(host, port)
                own = self._server.get_extra_info("sockname")
                connected(tuple(own)[:2])
                self._begin(self._receive(there))
                self._begin(self._deliver())
            self._server.write(data)
            await self._server.drain()

    async def _answer(self, data: bytes, head: bytes, body: bytes) -> None:
        while b"\r\n\r\n" not in data:
            more = await self._reader.read(_PIECE)
            if not more:
                return
            data += more
        # Closing on a client that still sends would be a reset.
        top, _, sent = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", top)
        left = (int(length[1]) if length else 0) - len(sent)
        if left > 0:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await self._reader.readexactly(left)
        self._writer.write(head if data.startswith(b"HEAD ") else head + body)
        await self._writer.drain()

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        loop, faults = asyncio.get_running_loop(), self._faults
        data: bytes | None = b"-"
        while data:
            data = await reader.read(_PIECE) or None
            await faults.going.wait()
            if self._is_forgotten:
                continue
            await self._pieces.put((loop.time() + faults.delay, data))
        # What was put goes out first.
        await self._over.wait()

    async def _deliver(self) -> None:
        loop, faults = asyncio.get_running_loop(), self._faults
        kept, has_head = b"", False
        while True:
            due, data = await self._pieces.get()
            if due > loop.time():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await faults.prompt.wait()
            await faults.going.wait()
            if self._is_forgotten:
                continue
            kept += data or b""
            if faults.heads and not has_head:
                head, blank, rest = kept.partition(b"\r\n\r\n")
                if blank:
                    self._writer.write(head + blank)
                    kept, has_head = rest, True
            if data is not None and len(kept) < faults.buffer:
                continue
            if kept:
                self.active_at = loop.time()
                allowed = self._allowed(kept)
                self._writer.write(kept[:allowed])
                await self._writer.drain()
                if allowed is not None:
                    self.cut()
                    return
                kept, has_head = b"", False
            if data is None:
                return

    def _allowed(self, data: bytes) -> int | None:
        """Return behind how many bytes of *data* it is cut; None for not at all."""
        cut = self._faults.cut
        if cut is None:
            return None
        if cut is not self._cut:
            self._cut, self._passed, self._tail = cut, 0, b""
        if isinstance(cut.after, int):
            allowed = cut.after - self._passed
            self._passed += len(data)
            if allowed > len(data):
                return None
        else:
            text = self._tail + data
            found = text.find(cut.after)
            if found < 0:
                self._tail = text[max(0, len(text) - len(cut.after) + 1) :]
                return None
            allowed = found + len(cut.after) - len(self._tail)
        if cut.times is not None:
            cut.times -= 1
            if cut.times <= 0:
                self._faults.cut = None
        return allowed


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
