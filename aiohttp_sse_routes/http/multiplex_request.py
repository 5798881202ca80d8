"""A sub-request of the multiplexed endpoint, as aiohttp would have made it.

Law: a GET request of its own. It has the headers of the request that asked for it and
nothing else of it: what middlewares note in the one is not in the other. Where a
request has its connection stands its branch, so that what a handler, a middleware or a
signal does to it does nothing to its neighbours.
"""

from __future__ import annotations

__all__ = ("BranchProtocol", "BranchWriter", "sub_request")

import asyncio
import codecs
import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast

from aiohttp import EMPTY_PAYLOAD, ClientConnectionResetError, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from ..wire import control
from .multiplex_trunk import Branch

_BODY: Final = 1024
"""Bytes of a refusal's body that the client is told."""

_NOT_ITS_OWN: Final = frozenset(
    name.lower()
    for name in (
        hdrs.ACCEPT,
        # What is told of a refusal's body is text.
        hdrs.ACCEPT_ENCODING,
        hdrs.CONTENT_ENCODING,
        hdrs.CONTENT_LENGTH,
        hdrs.CONTENT_TYPE,
        hdrs.EXPECT,
        hdrs.LAST_EVENT_ID,
        hdrs.TRANSFER_ENCODING,
        hdrs.UPGRADE,
    )
)
"""Headers that are about the request which asked, and its body."""


def sub_request(
    root: web.Application,
    outer: web.Request,
    protocol: BranchProtocol,
    writer: BranchWriter,
    *,
    url: str,
    last_event_id: str | None,
) -> web.Request:
    """Return a GET request to *url*, to be handled in the present task.

    Args:
        root: The application that dispatches it.
        outer: The request that asked for it.
        protocol: What stands for its connection.
        writer: What takes its answer.
        url: A path with query, as in a request's first line.
        last_event_id: Where its client has come to.
    """
    raw = [(k, v) for k, v in outer.raw_headers if k.lower() not in _NOT_ITS_OWN_RAW]
    headers = CIMultiDict(
        [(k, v) for k, v in outer.headers.items() if k.lower() not in _NOT_ITS_OWN]
    )
    added = [(hdrs.ACCEPT, "text/event-stream")]
    if last_event_id:
        added.append((hdrs.LAST_EVENT_ID, last_event_id))
    headers.extend(added)
    raw += [(name.encode(), value.encode()) for name, value in added]
    path, _, query = url.partition("?")
    message = RawRequestMessage(
        hdrs.METH_GET,
        url,
        outer.version,
        CIMultiDictProxy(headers),
        tuple(raw),
        False,
        None,
        False,
        False,
        URL.build(path=path, query_string=query, encoded=True),
    )
    task = protocol.task = cast("asyncio.Task[None]", asyncio.current_task())
    make: Any = root._make_request  # noqa: SLF001 -- as aiohttp's server does
    request: web.Request = make(message, EMPTY_PAYLOAD, protocol, writer, task)
    return request


_NOT_ITS_OWN_RAW: Final = frozenset(name.encode() for name in _NOT_ITS_OWN)


class BranchProtocol(asyncio.Protocol):
    """Stands where aiohttp's protocol stands for a request.

    What is not about the connection (the logs, the server's settings) is asked of the
    real one.

    Args:
        branch: The transport.
        outer: The protocol of the request that asked.

    Attributes:
        transport: The branch; None when the client has left.
        task: What handles the request.
    """

    def __init__(self, branch: Branch, outer: Any) -> None:
        self.transport: Branch | None = branch
        self.task: asyncio.Task[None] | None = None
        self._branch = branch
        self._outer = outer
        self._waiters: list[asyncio.Future[None]] = []
        branch.set_protocol(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outer, name)

    @property
    def writing_paused(self) -> bool:
        """Whether the client takes no more for now."""
        return self._branch.paused

    def keep_alive(self, val: bool) -> None:
        """Do nothing: the connection is not this request's."""

    def close(self) -> None:
        """Do nothing: the connection is not this request's."""

    def force_close(self) -> None:
        """End the stream."""
        self._branch.close()

    def resume_writing(self) -> None:
        """Let those go on who wait for the client."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client has gone; cancel the handler if the server does so."""
        self.transport = None
        self.resume_writing()
        if self._branch.forsaken and self.task is not None:
            self.task.cancel()

    async def drained(self) -> None:
        """Return when the client takes more, or has gone."""
        while self._branch.paused and self.transport is not None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter


class BranchWriter(AbstractStreamWriter):
    """Takes the answer to a sub-request.

    A stream goes to the client, event by event; of anything else the client is told the
    status and the beginning of the body.

    Args:
        branch: Where to.
        protocol: The request's.
        limit: The most bytes of an event.
    """

    def __init__(self, branch: Branch, protocol: BranchProtocol, limit: int) -> None:
        self._branch = branch
        self._protocol = protocol
        self._limit = limit
        self._status = 0
        self._retry_after: float | None = None
        self._streams = False
        self._is_text = True
        self._body = bytearray()

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        """Take the status and the headers of an answer."""
        self._check_there()
        self.output_size += len(status_line)
        self._status = int(status_line.split()[1])
        self._retry_after = _seconds(headers.get(hdrs.RETRY_AFTER))
        kind = headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
        self._streams = self._status == 200 and kind == "text/event-stream"
        self._is_text = hdrs.CONTENT_ENCODING not in headers
        resumed = headers.get("SSE-Resume")
        if self._streams and resumed is not None:
            self._branch.say(control("sse-resume", {"resumed": resumed}))

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take a part of the body: of a stream, what is whole of it goes out.

        Raises:
            ClientConnectionResetError: the client has left, or an event has no end.
        """
        self.output_size += len(chunk)
        if not self._streams:
            if self._is_text:
                self._body += bytes(chunk)[: max(0, _BODY - len(self._body))]
            return
        self._check_there()
        self._body += chunk
        end = max(self._body.rfind(b"\n\n") + 2, self._body.rfind(b"\n\r\n") + 3)
        if end > 2:
            self._branch.say(bytes(self._body[:end]))
            del self._body[:end]
        elif len(self._body) > self._limit:
            self._branch.close()
            raise ClientConnectionResetError("an event is larger than max_event_bytes")
        await self._protocol.drained()

    async def write_eof(self, chunk: bytes = b"") -> None:
        """Take the end of the answer."""
        if chunk:
            await self.write(chunk)
        self.finish()

    def finish(self) -> None:
        """Tell the client how it ended, if that was not told yet."""
        if self._streams or not self._status:
            self._branch.finish()
            return
        text = codecs.getincrementaldecoder("utf-8")("replace").decode(self._body)
        told = {"status": self._status, "retryAfter": self._retry_after, "body": text}
        self._branch.finish("sse-status", told)

    async def drain(self) -> None:
        """Return when the client takes more."""
        await self._protocol.drained()

    def enable_compression(
        self, encoding: str = "deflate", strategy: int | None = None
    ) -> None:
        """Do nothing: the connection is not this answer's to compress."""

    def enable_chunking(self) -> None:
        """Do nothing: the chunks are the connection's."""

    def _check_there(self) -> None:
        if self._branch.is_closing():
            raise ClientConnectionResetError("Cannot write to closing transport")


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a ``Retry-After`` (RFC 9110, 10.2.3), also of a date."""
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0, math.ceil((when - datetime.now(UTC)).total_seconds()))
