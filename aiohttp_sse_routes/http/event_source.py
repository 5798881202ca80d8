"""The response of a handler that sends by itself: aiohttp-sse's, made reliable.

Law: whatever aiohttp-sse's documentation, source and tests show of it holds here. The
body goes through a `Connection` alone. What waits for a slow client waits for our own
event, with nothing of aiohttp's inside the time limit, so that no cancellation ever
poisons a drain.
"""

from __future__ import annotations

__all__ = ("EventSourceResponse",)

import asyncio
from types import TracebackType
from typing import Any, ClassVar, Final, cast

import aiohttp_sse
from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter

from .enrolled import Enrolled, running_hub
from .script import RETRY_LATER
from .sending import Sending, StreamClosed

_TICKED: Final = 1.0
"""Seconds from which on pings can wait for the ticker; what is more frequent has a task
of its own, lest one stream hurries the ticker of all."""


class EventSourceResponse(aiohttp_sse.EventSourceResponse):
    """The response of a handler that sends by itself.

    Takes the place of aiohttp-sse's, with all it does. What is added:

    * A client that leaves is seen at once: `is_connected` says so and `wait` returns.
    * `send` to a client that has left raises ``ConnectionResetError``, as ever. Where
      nobody catches it, it ends the handler without a traceback in aiohttp's log.
    * ``send_timeout`` bounds waiting for a client that takes nothing, and nothing else
      comes of it: other senders see ``ConnectionResetError``, no stray cancellation.
    * A handler that sends in a loop without a pause leaves the loop its turns.
    * HTTP/1.0 clients see the end of the stream.
    * An ``HTTPException`` that leaves the block ends the stream, and nothing of it is
      written into the body.
    * In an application with ``setup(app)``, pings come from its one ticker; at shutdown
      the stream ends cleanly, with a spread ``retry``: `wait` returns and `send` raises
      ``ConnectionResetError``. A handler that does not end within ``shutdown_grace``
      is cancelled, as aiohttp would do after two minutes.

    Example::

        async def hello(request):
            async with sse_response(request) as resp:
                while resp.is_connected():
                    await resp.send(time.ctime())
                    await asyncio.sleep(1)
            return resp
    """

    counted: ClassVar[bool] = True
    """Whether its streams are counted by ``SSE.stats()``."""

    _link: Sending | None = None
    _enrolled: Enrolled | None = None
    _closed = False
    _stopped = False
    _sending = 0

    # -- the beginning ---------------------------------------------------------------

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers and begin to ping.

        Raises:
            HTTPMethodNotAllowed: it is not a GET, and only that is allowed.
            ConnectionResetError: the client has left.
            CancelledError: it was prepared before, and the client has left.
        """
        if not self._allow_all_methods and request.method != hdrs.METH_GET:
            raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_GET,))
        transport = request.transport
        if self.prepared:
            if transport is None:
                raise asyncio.CancelledError
            return self._payload_writer
        if transport is None or (_is_real(transport) and transport.is_closing()):
            raise StreamClosed(self, request, begun=False)
        if request.version < (1, 1):
            # Without chunks the end of the body is the end of the connection.
            self.headers.pop(hdrs.CONNECTION, None)
            self.force_close()
        self._set_tcp_user_timeout(request)
        try:
            writer = await web.StreamResponse.prepare(self, request)
        except BaseException as exc:
            self._restore_tcp_user_timeout()
            if isinstance(exc, ConnectionError) and request.transport is None:
                raise StreamClosed(self, request, begun=False) from None
            raise
        if request.version >= (1, 1):
            self.enable_chunked_encoding()
        self._begin()
        return writer

    def _begin(self) -> None:
        link = self._attach()
        hub = link.hub if link is not None else None
        if link is None or hub is None or not self._can_be_ticked():
            self._ping_task = asyncio.create_task(self._ping())
        else:
            ping = f": ping{self._sep}{self._sep}".encode()
            over = link.ping_by_ticker(ping, self._ping_interval, self._send_timeout)
            hub.ticker.serve(self._ping_interval)
            # All that is asked of the task is asked of a future as well.
            self._ping_task = cast("asyncio.Task[None]", over)
        if self._must_be_empty_body or (link is not None and link.closed is not None):
            # The answer to a HEAD has nothing to stream.
            self.stop_streaming()
        elif link is not None and hub is not None and hub.draining:
            link.retry = RETRY_LATER
            link.end("shutdown", link.farewell())

    def _can_be_ticked(self) -> bool:
        """Tell whether the ticker's pings are what this object's would be."""
        ping = getattr(self._ping, "__func__", None)
        write = getattr(self.write, "__func__", None)
        return (
            self._ping_interval >= _TICKED
            and ping is EventSourceResponse._ping
            and write is EventSourceResponse.write
        )

    def _attach(self) -> Sending | None:
        """Stand between transport and aiohttp; None where that is not possible."""
        request = self._req
        transport = request.transport if request is not None else None
        if request is None or transport is None or self._must_be_empty_body:
            return None
        if not _is_real(transport):
            return None
        hub = running_hub(request)
        link = Sending(transport, self, request, hub=hub)
        self._link = link
        link.on_resume = self._changed
        if hub is not None:
            self._enrolled = enrolled = Enrolled(hub, link, request)
            if link.closed is None:
                enrolled.begin(self._ping_interval, counted=self.counted)
        return link

    async def _ping(self) -> None:
        if self._link is None:
            # A subclass has prepared it in a way of its own.
            self._attach()
        await super()._ping()

    # -- the stream ------------------------------------------------------------------

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write a piece of the stream as it is, when the client takes more.

        Raises:
            ConnectionResetError: the client has left, or the stream was ended.
            RuntimeError: it is not prepared, or its end was written.
        """
        link = self._link
        if link is None or self._eof_sent or not _is_bytes(data):
            await self._write_by_aiohttp(data)
        elif data:
            await link.put(bytes(data))
            if link.owes_a_turn and not self._is_limited():
                await link.breathe()

    def _is_limited(self) -> bool:
        """Tell whether this is a write of `send`, or a ping, within its time limit."""
        return self._sending > 0 or asyncio.current_task() is self._ping_task

    async def _write_by_aiohttp(self, data: bytes | bytearray | memoryview) -> None:
        request = self._req
        if request is not None and (
            self._must_be_empty_body or request.transport is None
        ):
            raise StreamClosed(self, request, begun=True)
        if self._link is None and self._attach() is not None:
            await self.write(data)
        else:
            # It raises for what is wrong, and it serves requests that are mocks.
            await super().write(data)

    async def send(
        self,
        data: str,
        id: str | None = None,
        event: str | None = None,
        retry: int | None = None,
    ) -> None:
        """Send an event, and wait while the client takes no more.

        Args:
            data: The event's data; its lines are split at CR, LF and CRLF.
            id: The client's last event ID from now on.
            event: The event's type.
            retry: The client's reconnection time, in ms.

        Raises:
            ValueError: *id* or *event* has a line break, *id* a NUL, or *retry* is
                negative.
            ConnectionResetError: the client has left, or the stream was ended.
            TimeoutError: the client has taken nothing for ``send_timeout`` seconds; the
                connection is cut.
        """
        self._sending += 1
        try:
            await super().send(data, id, event, retry)
        finally:
            self._sending -= 1
        link = self._link
        if link is not None:
            link.events += 1
            if retry is not None:
                link.retry = retry
            if link.owes_a_turn:
                await link.breathe()

    def is_connected(self) -> bool:
        """Return whether it is prepared, not stopped, and the client is there."""
        if self._stopped or (self._link is not None and self._link.gone):
            return False
        return super().is_connected()

    def stop_streaming(self) -> None:
        """End the pings and what waits for the stream; its body can still be sent.

        Raises:
            RuntimeError: it is not prepared.
        """
        super().stop_streaming()
        # The task has its turn for that only later.
        self._stopped = True

    async def wait(self) -> None:
        """Return when the stream is stopped, by whomever, or the client has left.

        A task that is cancelled here stops the stream.

        Raises:
            RuntimeError: it is not prepared.
        """
        over = self._ping_task
        if over is None:
            raise RuntimeError("Response is not started")
        # Not awaited itself: its cancellation would look like this task's own, where
        # that has been cancelled before, as by a task group.
        if not over.done():
            try:
                await asyncio.wait({over})
            except asyncio.CancelledError:
                self.stop_streaming()
                raise
        if not over.cancelled():
            over.result()

    def _changed(self) -> None:
        """Learn from the connection that it is writable again, or closed."""
        link = self._link
        assert link is not None
        link.wake()
        if link.closed is None or self._closed:
            return
        self._closed = True
        self._stop_pings()
        if link.closed == "shutdown":
            # Whatever the handler answers now is not for this client any more.
            self._seal()
        if self._enrolled is not None:
            self._enrolled.log_close()

    def _stop_pings(self) -> None:
        if self._enrolled is not None:
            self._enrolled.unwatch()
        if self._ping_task is not None:
            self._ping_task.cancel()

    # -- the end ---------------------------------------------------------------------

    async def write_eof(self, data: bytes = b"") -> None:
        """End the body; what aiohttp does with a response that a handler returns.

        Raises:
            ConnectionResetError: the client has left.
        """
        link = self._link
        if link is None or self._eof_sent or not _is_bytes(data):
            await super().write_eof(data)
            self._stop_pings()
            return
        # After a shutdown the end has been written, and only more data is too late.
        failed = link.gone and (link.closed != "shutdown" or bool(data))
        if not failed:
            link.end("finished", bytes(data))
            self._seal()
            await web.StreamResponse.write_eof(self)
        self._body_length = link.total
        self._stop_pings()
        if self._enrolled is not None:
            self._enrolled.end(answered=not failed)
        if not link.leaving:
            # Else it is closed, once the client has taken the rest or its time is up.
            self._restore_tcp_user_timeout()
        link.release()
        if failed:
            raise link.error()

    def _seal(self) -> None:
        """Let aiohttp write nothing behind the body, whose end the connection wrote."""
        writer = self._payload_writer
        if isinstance(writer, StreamWriter):
            writer.chunked = False
            writer.set_eof()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the pings; the handler has still to return the response."""
        await super().__aexit__(exc_type, exc, traceback)
        if isinstance(exc, web.HTTPException) and not isinstance(exc, StreamClosed):
            # aiohttp would write that answer into the body of this one.
            self._cut_short()
        if isinstance(exc, BaseExceptionGroup):
            only = self._only_closed(exc)
            if only is not None:
                # From a task group: nothing has failed there but sends to this client.
                raise only from exc

    def _cut_short(self) -> None:
        """End the body and the connection: an answer comes that is too late."""
        link = self._link
        if link is not None and not link.gone:
            link.end("error")
            link.hang_up()

    def _only_closed(self, group: BaseExceptionGroup[Any]) -> StreamClosed | None:
        def is_own(exc: BaseException) -> bool:
            return isinstance(exc, StreamClosed) and exc.stream is self

        found, other = group.split(is_own)
        if other is not None:
            return None
        one: BaseException | None = found
        while isinstance(one, BaseExceptionGroup):
            one = one.exceptions[0]
        assert isinstance(one, StreamClosed)
        return one


def _is_real(transport: asyncio.Transport) -> bool:
    """Tell whether one can stand between *transport* and its protocol.

    Not so with the mocks of ``aiohttp.test_utils.make_mocked_request``.
    """
    get_protocol = getattr(transport, "get_protocol", None)
    return get_protocol is not None and isinstance(get_protocol(), asyncio.Protocol)


def _is_bytes(data: object) -> bool:
    return isinstance(data, (bytes, bytearray, memoryview))
