"""The connection of a handler that sends by itself.

Law: senders go by turns, in the order of their calls, and wait for a slow client on an
event of our own that pause, resume and loss move: whoever is cancelled or timed out
there leaves everybody else as they were, aiohttp's drain above all.
"""

from __future__ import annotations

__all__ = ("Sending", "StreamClosed")

import asyncio
from typing import Final

import aiohttp_sse
from aiohttp import ClientConnectionResetError, web
from aiohttp.abc import AbstractStreamWriter

from ..streams.feed import BATCH, BURST
from ..wire import retry_line
from .connection import Connection
from .hub import Hub
from .script import spread

_RETRY: Final = 3000
"""Milliseconds after which a client comes back that was never told another time; what
browsers do by themselves."""


class StreamClosed(ClientConnectionResetError, web.HTTPException):
    """The client has left, or the application has ended the stream.

    It is aiohttp's ``ConnectionResetError`` for whoever catches it. That it is an
    ``HTTPException`` as well makes it a response for aiohttp where nobody does: the
    stream itself, of which nothing is left to be sent. So an ordinary disconnect is one
    line of the access log, and no traceback of a handler that has failed.

    Args:
        stream: The response.
        request: What it answers. To the handler of another request, which has sent to
            this stream, it is an error like any.
        begun: Whether its headers were sent; else the log gets a status of our own.
    """

    status_code = 499
    empty_body = True

    def __init__(
        self,
        stream: aiohttp_sse.EventSourceResponse,
        request: web.BaseRequest,
        *,
        begun: bool,
    ) -> None:
        web.HTTPException.__init__(self, reason="Client Closed Request")
        OSError.__init__(self, "Cannot write to closing transport")
        self.stream = stream
        # A clone of a request has the same.
        self._writer = request.writer
        self._answers = False
        if begun:
            self.set_status(stream.status, stream.reason)
        self.force_close()

    @property
    def body_length(self) -> int:
        """What the access log says was sent."""
        return super().body_length if self._answers else self.stream.body_length

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send nothing: the headers went out, or there is nobody to get them."""
        if request.writer is self._writer:
            return None
        request.protocol.log_exception(
            "Error handling request from %s", request.remote, exc_info=self
        )
        if request.writer.output_size > 0:
            raise ConnectionError("another answer has begun")
        self._answers = True
        self.set_status(500)
        self.text = f"{self.status}: {self.reason}"
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        """End the stream, which gives the transport back."""
        if self._answers:
            await super().write_eof(data)
        elif self.stream.prepared:
            await self.stream.write_eof()


class Sending(Connection):
    """A connection whose handler sends, and those who wait to send on it.

    Args:
        transport: The client's.
        response: The stream.
        request: What it answers.
        hub: The application's; None without our plugin.

    Attributes:
        retry: The client's reconnection time, in ms, as the handler has last set it.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        response: aiohttp_sse.EventSourceResponse,
        request: web.BaseRequest,
        *,
        hub: Hub | None,
    ) -> None:
        now = hub.clock.now() if hub is not None else 0.0
        chunked = request.version >= (1, 1)
        super().__init__(transport, chunked=chunked, script=None, now=now)
        self.hub = hub
        self.retry: float = _RETRY
        self._response = response
        self._request = request
        self._turn = asyncio.Lock()
        self._queue = 0
        self._room: asyncio.Future[None] | None = None
        self._burst = 0
        self._burst_from = 0
        self._pinging: asyncio.Future[None] | None = None

    @property
    def gone(self) -> bool:
        """Whether nothing can be written any more."""
        return self.closed is not None or self.transport.is_closing()

    # -- sending -------------------------------------------------------------------

    async def put(self, block: bytes) -> None:
        """Write *block* when the client takes more, and wait until it does again.

        Raises:
            StreamClosed: the stream is over.
        """
        if self.gone:
            raise self.error()
        if self._queue or self.blocked:
            await self._put_in_turn(block)
            return
        self._burst += 1
        self.write(block)
        if self.blocked:
            await self._put_in_turn(b"")

    async def _put_in_turn(self, block: bytes) -> None:
        # Whoever comes now is behind those who wait, also when there is room again.
        self._queue += 1
        try:
            async with self._turn:
                await self._wait_for_room()
                if block:
                    if self.gone:
                        raise self.error()
                    self.write(block)
                    await self._wait_for_room()
                if self.closed not in (None, "finished"):
                    raise self.error()
        finally:
            self._queue -= 1

    @property
    def owes_a_turn(self) -> bool:
        """Whether much went out since the loop had its last turn from here."""
        return self._burst >= BURST or self.sent - self._burst_from >= BATCH

    async def breathe(self) -> None:
        """Give the others on this loop their turn.

        Apart from `put`, for that is under a time limit, and a turn of the loop may
        take longer than a client is allowed.
        """
        self._burst, self._burst_from = 0, self.sent
        await asyncio.sleep(0)

    def error(self) -> StreamClosed:
        """Return what a sender is told when the stream is over."""
        return StreamClosed(self._response, self._request, begun=True)

    def wake(self) -> None:
        """Let whoever waits for the client look again."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _wait_for_room(self) -> None:
        while self.blocked and not self.gone:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    # -- the ticker ----------------------------------------------------------------

    def ping_by_ticker(
        self, ping: bytes, interval: float, limit: float | None
    ) -> asyncio.Future[None]:
        """Write *ping* each *interval* seconds, until the returned future is done.

        A client that lets one wait for *limit* seconds is cut; None for no limit.
        """
        self._ping = ping
        self._ping_interval = interval
        self._ping_limit = limit
        self._ping_due = self.opened + interval
        self._pinging = asyncio.get_running_loop().create_future()
        return self._pinging

    def tick(self, now: float, heartbeat: float) -> None:
        """See `Connection.tick`; but pings go out when the stream is busy too."""
        if self._pinging is None or self._pinging.done() or self.gone:
            return
        if now < self._ping_due:
            return
        if self.blocked:
            waited = now - self._ping_due
            if self._ping_limit is not None and waited >= self._ping_limit:
                self.abort("stalled")
            return
        self._ping_due += self._ping_interval
        if self._ping_due <= now:
            self._ping_due = now + self._ping_interval
        self.write(self._ping)

    def farewell(self) -> bytes:
        """See `Connection.farewell`."""
        return retry_line(spread(self.retry)) + b"\n"
