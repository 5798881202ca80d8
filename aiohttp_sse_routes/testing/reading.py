"""Reads from a response as much as a test asks for, and tells what has come.

Law: nothing is read ahead: what a test has not asked for lies in the connection, as
with a client that is slow. The place to resume at is behind what was handed over.
"""

from __future__ import annotations

__all__ = ("Reading",)

import asyncio
import json
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Self, TypeVar

import aiohttp

from ..decoder import DecodedEvent, Decoder
from .errors import NotAStream, StreamCut, StreamEnded, StreamTimeout
from .line import Line

T = TypeVar("T")

_SHOWN: Final = 5
"""Events that an error tells of: the last ones."""

_SHOWN_BYTES: Final = 300


class Reading:
    """What `EventStream` reads, over its connections.

    Args:
        name: The stream's, for errors.
        last_event_id: Where to begin.
    """

    def __init__(self, name: str, last_event_id: str) -> None:
        self.last_event_id = last_event_id
        self.response: aiohttp.ClientResponse | None = None
        self.hello: dict[str, Any] | None = None
        self.events: list[DecodedEvent] = []
        self.gaps: list[dict[str, Any]] = []
        self.control: list[DecodedEvent] = []
        self.comments: list[str] = []
        self.retry: int | None = None
        self.connections = 0
        self._name = name
        self._waiting: deque[DecodedEvent] = deque()
        self._decoder = Decoder()
        self._line = Line()
        self._ended: type[StreamEnded] | None = None
        self._cause: object = ""
        self._is_dropped = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> DecodedEvent:
        try:
            return await self.next()
        except (StreamCut, NotAStream):
            raise
        except StreamEnded:
            raise StopAsyncIteration from None

    @property
    def status(self) -> int:
        """The present response's status."""
        return self._opened().status

    @property
    def state(self) -> str:
        """``unopened``, ``open``, ``stalled``, ``ended``, ``cut`` or ``dropped``."""
        if self.response is None:
            return "unopened"
        if self._is_dropped:
            return "dropped"
        if self._ended is not None:
            return "cut" if self._ended is StreamCut else "ended"
        return "stalled" if self._line.is_stalled else "open"

    async def next(
        self,
        type: str | None = None,
        *,
        timeout: float | None = 5.0,
        control: bool = False,
    ) -> DecodedEvent:
        """Return the next event, or the next of *type*.

        Args:
            type: The event's name; events of others are passed over.
            timeout: Seconds to wait; None for ever.
            control: Whether control events are handed over without being named.

        Raises:
            StreamEnded: the stream has ended; `StreamCut` where it stopped without an
                end, `NotAStream` where it is none.
            StreamTimeout: a TimeoutError: it has not come.
        """
        wanted = f"the next {type!r}" if type else "the next event"
        return await self._within(timeout, wanted, self._next(type, control))

    async def collect(
        self,
        count: int,
        type: str | None = None,
        *,
        timeout: float | None = 5.0,
        control: bool = False,
    ) -> list[DecodedEvent]:
        """Return the next *count* events.

        Args:
            count: How many.
            type: Of which name, as in `next`.
            timeout: Seconds to wait for all of them; None for ever.
            control: As in `next`.

        Raises:
            StreamEnded, StreamTimeout: as in `next`; what had come is in `events`.
        """
        had: list[DecodedEvent] = []

        async def take() -> list[DecodedEvent]:
            while len(had) < count:
                had.append(await self._next(type, control))
            return had

        named = f" {type!r}" if type else ""
        return await self._within(timeout, f"{count}{named} events", take())

    async def rest(self, *, timeout: float | None = 5.0) -> list[DecodedEvent]:
        """Return the events until the stream ends.

        Args:
            timeout: Seconds to wait for the end; None for ever.

        Raises:
            StreamCut, NotAStream, StreamTimeout: as in `next`.
        """

        async def read() -> None:
            try:
                while True:
                    await self._read()
            except (StreamCut, NotAStream):
                raise
            except StreamEnded:
                pass

        await self._within(timeout, "the end of the stream", read())
        rest = [self._hand_over() for _ in range(len(self._waiting))]
        return [event for event in rest if not _is_control(event)]

    async def heartbeat(self, *, timeout: float | None = 5.0) -> None:
        """Return when the server has said that it is there, but has no news.

        That is a comment, or ``sse-cursor``. Events before it are handed over as
        `next` would, into `events`.

        Args:
            timeout: Seconds to wait; None for ever.

        Raises:
            StreamEnded, StreamTimeout: as in `next`.
        """
        comments = len(self.comments)

        async def read() -> None:
            while len(self.comments) == comments:
                while self._waiting:
                    if self._hand_over().type == "sse-cursor":
                        return
                await self._read()

        await self._within(timeout, "a heartbeat", read())

    async def _next(self, type: str | None, control: bool) -> DecodedEvent:
        while True:
            while self._waiting:
                event = self._hand_over()
                plain = control or not _is_control(event)
                if event.type == type if type else plain:
                    return event
            await self._read()

    async def _within(
        self, timeout: float | None, wanted: str, work: Coroutine[Any, Any, T]
    ) -> T:
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await work
        except TimeoutError as error:
            if not limit.expired():
                raise
            story = f"{wanted} did not come within {timeout:g} s from {self._name}"
            text = f"{story}: {self._story()}"
            raise StreamTimeout(self.events, text) from error

    async def _read(self) -> None:
        """Take what has come, and wait for it if need be.

        Raises:
            StreamEnded: nothing will.
        """
        response = self._opened()
        if self._line.is_stalled:
            raise RuntimeError(
                f"{self._name} is stalled and has nothing more to hand over: go_on() "
                "first"
            )
        if self._ended is not None:
            raise self._error(self._ended, self._cause)
        try:
            data = await self._line.read()
        except (aiohttp.ClientError, ConnectionError) as error:
            self._cause = error
            self._ended = StreamCut
            raise self._error(StreamCut, error) from error
        if response.status != 204 and not _is_stream(response):
            self._ended = NotAStream
            raise self._error(NotAStream, data[:_SHOWN_BYTES])
        if not data:
            self._ended = StreamEnded
            raise self._error(StreamEnded)
        self._waiting.extend(self._decoder.feed(data))
        self.retry = self._decoder.retry or self.retry

    def _error(self, how: type[StreamEnded], more: object = "") -> StreamEnded:
        story = f"{self._name}: {self._story()}"
        return how(self.events, f"{story}; {more}" if more else story)

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

    def _begin(self, response: aiohttp.ClientResponse) -> None:
        """Read from *response* from now on."""
        self.response = response
        self.hello = None
        self.connections += 1
        self._ended, self._cause, self._is_dropped = None, "", False
        self._decoder = Decoder(self.last_event_id, on_comment=self.comments.append)
        self._line = Line(response)

    def _opened(self) -> aiohttp.ClientResponse:
        if self.response is None:
            raise RuntimeError(
                f"{self._name} is not open: use `async with`, or `await stream.open()`"
            )
        return self.response

    def _story(self) -> str:
        """Tell what it is about, and what has come."""
        state = self.state
        if self.response is not None:
            kind = self.response.headers.get("Content-Type", "no content type")
            state += f", {self.response.status} {self.response.reason}, {kind}"
        if self.connections > 1:
            state += f", connection {self.connections}"
        parts = [
            state,
            _told("event", self.events),
            _told("control event", self.control),
        ]
        if self._waiting:
            parts.append(f"{len(self._waiting)} not handed over")
        if self.comments:
            parts.append(f"{len(self.comments)} comments")
        if self.last_event_id:
            parts.append(f"last event id {self.last_event_id}")
        return "; ".join(parts)


def _is_control(event: DecodedEvent) -> bool:
    return event.type.startswith("sse-")


def _is_stream(response: aiohttp.ClientResponse) -> bool:
    return response.status == 200 and response.content_type == "text/event-stream"


def _told(kind: str, events: list[DecodedEvent]) -> str:
    if not events:
        return f"no {kind}"
    last = " ".join(map(repr, events[-_SHOWN:]))
    more = "the last " if len(events) > _SHOWN else ""
    plural = "s" if len(events) > 1 else ""
    return f"{len(events)} {kind}{plural}: {more}{last}"
