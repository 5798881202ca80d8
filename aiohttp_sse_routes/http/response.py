"""The response of a stream, which is one of aiohttp-sse's.

Law: `isinstance` and ``on_response_prepare`` see aiohttp-sse's ``EventSourceResponse``
with ``last_event_id``, ``is_connected``, ``stop_streaming`` and ``wait`` true. Headers
go out by ``StreamResponse.prepare``; the body is the connection's, from the first byte
to the last, so that nothing here waits for a client.
"""

from __future__ import annotations

__all__ = ("HEADERS", "RouteResponse")

from collections.abc import Mapping
from typing import Final

import aiohttp_sse
from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter

from .connection import Connection, Script

HEADERS: Final[Mapping[str, str]] = {
    hdrs.CONTENT_TYPE: "text/event-stream",
    # no-transform: a proxy that compresses holds events back
    hdrs.CACHE_CONTROL: "no-store, no-transform",
    "X-Accel-Buffering": "no",
}
"""What every stream is sent with: no cache, no buffering."""


class RouteResponse(aiohttp_sse.EventSourceResponse):
    """The response of a decorated route."""

    def __init__(self) -> None:
        super().__init__(allow_all_methods=True, send_timeout=None)
        del self.headers[hdrs.CONNECTION]
        self.headers.update(HEADERS)
        self.connection: Connection | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers, without the parent's task and time limits."""
        if self.connection is not None:
            return self._payload_writer
        if request.version < (1, 1):
            # Without chunks the end of the body is the end of the connection.
            self.force_close()
        return await web.StreamResponse.prepare(self, request)

    def begin(self, request: web.BaseRequest, script: Script, now: float) -> Connection:
        """Take over the transport for the body, once the headers are out.

        Raises:
            ConnectionResetError: the client has left.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        # One of several streams on a connection has a transport of its own.
        kind = getattr(transport, "connection_type", Connection)
        self.connection = connection = kind(
            transport,
            chunked=request.version >= (1, 1),
            script=script,
            now=now,
            task=request.task,
        )
        return connection

    async def write_eof(self, data: bytes = b"") -> None:
        """End the body; the connection has done so where there is one."""
        if self.connection is None:
            await web.StreamResponse.write_eof(self, data)
            return
        self.connection.end("finished")
        self._body_length = self.connection.total

    def enable_compression(
        self,
        force: bool | web.ContentCoding | None = None,
        strategy: int | None = None,
    ) -> None:
        """Do nothing: a signal that compresses every response means no stream.

        A compressor holds events back until it has enough of them.
        """

    def seal(self, request: web.BaseRequest) -> None:
        """Let nothing be written behind the body, as by a middleware that answers anew.

        The last chunk was the connection's; a close that was promised is kept.
        """
        writer = self._payload_writer
        if isinstance(writer, StreamWriter):
            writer.chunked = False
            writer.set_eof()
        if not self.keep_alive and request.protocol is not None:
            request.protocol.close()

    def is_connected(self) -> bool:
        """Return whether the stream is open."""
        return self.connection is not None and self.connection.closed is None

    def stop_streaming(self) -> None:
        """End the stream; the client comes back, as after any clean end."""
        if self.connection is None:
            raise RuntimeError("Response is not started")
        self.connection.end("disconnected")

    async def wait(self) -> None:
        """Return when the stream has ended."""
        if self.connection is None:
            raise RuntimeError("Response is not started")
        await self.connection.wait_closed()
