"""For tests of applications that stream: endless streams, and time that is set.

Law: nothing here waits for time to pass. A stream is read until what was asked for has
come, and a clock moves when it is told to.
"""

from __future__ import annotations

__all__ = ("EventStream", "SettableClock", "StreamEnded")

import asyncio
import heapq
import itertools
import json
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from .decoder import DecodedEvent, Decoder
from .errors import SSERoutesError

_SETTLE = 20


class SettableClock:
    """A clock for ``setup(clock=...)`` that stands still until it is moved.

    Args:
        start: What time it is, in seconds.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Return the time, in seconds."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been moved by *seconds*."""
        future = asyncio.get_running_loop().create_future()
        entry = (self._now + seconds, next(self._order), future)
        heapq.heappush(self._sleepers, entry)
        await future

    async def advance(self, seconds: float) -> None:
        """Move the clock by *seconds*, and let everything due on the way happen."""
        target = self._now + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            self._now, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
            await _settle()
        self._now = target
        await _settle()


class StreamEnded(SSERoutesError):
    """The stream ended before what was asked for had come.

    Attributes:
        seen: What had come.
    """

    def __init__(self, seen: list[DecodedEvent]) -> None:
        super().__init__(seen)
        self.seen = seen

    def __str__(self) -> str:
        return f"the stream ended after {[event.data for event in self.seen]!r}"


class EventStream:
    """A client of one stream, over any number of connections.

    Args:
        session: aiohttp's client, or pytest-aiohttp's test client.
        url: The stream's.
        method: The HTTP method.
        headers: Sent with each connection.
        last_event_id: Where to begin.

    Attributes:
        response: The present connection's response.
        hello: The data of its ``sse-hello``; None until that has been read.
        events: Every event that was handed over, over all connections.
        gaps: The data of each ``sse-gap``.
        control: Every event whose name begins with ``sse-``.
        last_event_id: Where the next connection begins.
        retry: The reconnection time that the server gave, in ms.
    """

    def __init__(
        self,
        session: Any,
        url: str | URL,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        last_event_id: str = "",
        **options: Any,
    ) -> None:
        self.session = session
        self.url = url
        self.method = method
        self.headers = dict(headers or {})
        self.last_event_id = last_event_id
        self.response: aiohttp.ClientResponse | None = None
        self.hello: dict[str, Any] | None = None
        self.events: list[DecodedEvent] = []
        self.gaps: list[dict[str, Any]] = []
        self.control: list[DecodedEvent] = []
        self.retry: int | None = None
        self._options = options
        self._waiting: deque[DecodedEvent] = deque()
        self._decoder = Decoder()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.drop()

    @property
    def status(self) -> int:
        """The present response's status."""
        assert self.response is not None, "open() first"
        return self.response.status

    async def open(self) -> Self:
        """Connect, with the last event ID where there is one."""
        headers = dict(self.headers)
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        self.hello = None
        self._decoder = Decoder(self.last_event_id)
        self.response = await self.session.request(
            self.method,
            self.url,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None),
            **self._options,
        )
        return self

    async def next(
        self, type: str | None = None, *, timeout: float = 5.0
    ) -> DecodedEvent:
        """Return the next event, or the next of *type*; control events by name only.

        Raises:
            StreamEnded: the stream has ended.
            TimeoutError: it has not come within *timeout* seconds.
        """
        async with asyncio.timeout(timeout):
            while True:
                while self._waiting:
                    event = self._hand_over()
                    wanted = event.type == type if type else not _is_control(event)
                    if wanted:
                        return event
                if not await self._read():
                    raise StreamEnded(self.events)

    async def collect(self, count: int, *, timeout: float = 5.0) -> list[DecodedEvent]:
        """Return the next *count* events."""
        async with asyncio.timeout(timeout):
            return [await self.next(timeout=timeout) for _ in range(count)]

    async def rest(self, *, timeout: float = 5.0) -> list[DecodedEvent]:
        """Return the events until the stream ends."""
        async with asyncio.timeout(timeout):
            while await self._read():
                pass
        rest = [self._hand_over() for _ in range(len(self._waiting))]
        return [event for event in rest if not _is_control(event)]

    def drop(self) -> None:
        """Cut the connection, as a network does; what was not read is lost."""
        if self.response is not None:
            self.response.close()
        self._waiting.clear()

    async def resume(self) -> Self:
        """Connect again, with the last event ID."""
        self.drop()
        return await self.open()

    async def _read(self) -> bool:
        assert self.response is not None, "open() first"
        data = await self.response.content.readany()
        if not data:
            return False
        self._waiting.extend(self._decoder.feed(data))
        self.retry = self._decoder.retry or self.retry
        return True

    def _hand_over(self) -> DecodedEvent:
        """Take the next event; only now is this client at its place."""
        event = self._waiting.popleft()
        self.last_event_id = event.last_event_id
        if not _is_control(event):
            self.events.append(event)
            return event
        self.control.append(event)
        if event.type == "sse-hello":
            self.hello = json.loads(event.data)
        elif event.type == "sse-gap":
            self.gaps.append(json.loads(event.data))
        return event


def _is_control(event: DecodedEvent) -> bool:
    return event.type.startswith("sse-")


async def _settle() -> None:
    """Give every task that is ready its turns."""
    for _ in range(_SETTLE):
        await asyncio.sleep(0)
