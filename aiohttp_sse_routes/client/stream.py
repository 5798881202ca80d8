"""A stream as its consumer has it: events in their order, and the place in them.

Law: an event is handed over in the same turn in which the place moves behind it; there
is no ``await`` between the two.
"""

from __future__ import annotations

__all__ = ("OnGap", "Stream")

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Literal, NoReturn, Self
from weakref import WeakSet

import aiohttp

from ..decoder import DecodedEvent
from ..errors import ReplayGap
from ..streams.clock import Clock
from .comments import Comments
from .connection import Connection
from .controls import Controls
from .errors import SseError
from .event import Event, Gap, Opener, State, StateInfo

OnGap = Literal["raise", "ignore"] | Callable[[Gap], Awaitable[object] | object]


class Stream:
    """A stream that is followed: what `connect` returns.

    ``async with`` opens and closes it, ``async for`` iterates. Iterating ends with
    status 204, with the server's ``sse-end`` and with `aclose`; a fault raises, and
    may be gone on from only where its documentation says so. Only one task at a time
    can wait for the next event.
    """

    def __init__(
        self,
        connection: Connection,
        opener: Opener,
        clock: Clock,
        *,
        stall_timeout: float | Literal["server"] | None,
        ack: Literal["auto", "manual"],
        on_gap: OnGap,
        strict: bool,
    ) -> None:
        self._connection = connection
        self._open = opener
        self._clock = clock
        self._stall = stall_timeout
        self._on_gap = on_gap
        self._controls = Controls(connection, stall_timeout, strict=strict)
        self._is_manual = ack == "manual"
        self._acknowledged = connection.place
        self._was_entered = False
        self._is_awaited = False
        # Weak, so that those that are no longer looked at take no more.
        self._comments = WeakSet[Comments]()

    async def __aenter__(self) -> Self:
        if self._was_entered:
            raise RuntimeError("it was opened before: connect(...) makes a new stream")
        self._was_entered = True
        connection = self._connection
        try:
            await connection.open()
            if connection.failure is not None:
                self._raise_end()
        except BaseException:
            await connection.aclose()
            raise
        if isinstance(self._stall, float | int):
            connection.watchdog.watch(self._stall)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        connection, controls = self._connection, self._controls
        while True:
            if not controls.act():
                if connection.is_closed:
                    self._raise_end()
                await self._wait()
            elif (gap := controls.gap()) is not None:
                await self._miss(gap)
            else:
                event = connection.take()
                return self._open(event, self._clock.now())

    @property
    def last_event_id(self) -> str:
        """The place to go on from later: ``connect(..., last_event_id=...)``.

        It is behind the event that was handed over last; with ``ack="manual"``, behind
        the one that was acknowledged last.
        """
        return self._acknowledged if self._is_manual else self._connection.place

    @property
    def info(self) -> StateInfo:
        """What the stream is about."""
        return self._connection.status.info

    @property
    def state(self) -> State:
        """``connecting``, ``open``, ``waiting`` or ``closed``."""
        return self._connection.status.info.state

    @property
    def attempt(self) -> int:
        """How many attempts there were since a connection was sound."""
        return self._connection.backoff.attempt

    @property
    def response(self) -> aiohttp.ClientResponse | None:
        """The present connection's response; None where there is none."""
        return self._connection.response

    @property
    def resumed(self) -> str | None:
        """``fresh``, ``continued`` or ``gap``, as the server has said; else None."""
        return self._controls.resumed

    def ack(self, event: Event) -> None:
        """Note that all up to *event* is done; `last_event_id` moves behind it.

        A connection that is lost goes on behind what was handed over in any case.
        """
        self._acknowledged = event.last_event_id

    async def next(
        self, type: str | None = None, *, timeout: float | None = None
    ) -> Event:
        """Return the next event, or the next of *type*; those before it are skipped.

        Args:
            type: The event's name.
            timeout: Seconds to wait; None for ever.

        Raises:
            SseError: the stream has ended.
            TimeoutError: it has not come; what was skipped will be handed over again.
        """
        return (await self._take(1, type, timeout))[0]

    async def collect(self, count: int, *, timeout: float | None = None) -> list[Event]:
        """Return the next *count* events.

        Args:
            count: How many.
            timeout: Seconds to wait for all; None for ever.

        Raises:
            SseError: the stream has ended.
            TimeoutError: they have not come; those that have will be handed over again.
        """
        return await self._take(count, None, timeout)

    def comments(self) -> AsyncIterator[str]:
        """Return an iterator over the comments that come from now on.

        It may be iterated beside the events, in a task of its own, or alone. Where
        events come, too, it goes on when they were taken. The last 1,000 that nobody
        has looked at are kept, and of those no more than a million characters.
        Iterating raises and ends as iterating over events does.
        """
        comments = Comments(self._bring)
        self._comments.add(comments)
        self._connection.tell_comments(self._comment)
        return comments

    async def reconnect(self) -> None:
        """Drop the connection, and connect anew with the next event that is asked for.

        Events that were handed over do not come again, if the stream has ids.
        """
        self._connection.reconnect()

    async def aclose(self) -> None:
        """End the stream, and free what it holds; nothing is handed over any more."""
        await self._connection.aclose()

    async def _take(
        self, count: int, type: str | None, timeout: float | None
    ) -> list[Event]:
        place = self._connection.place
        taken: list[Event] = []
        wanted: list[Event] = []
        try:
            async with asyncio.timeout(timeout):
                while len(wanted) < count:
                    event = await self._one()
                    taken.append(event)
                    if type in (None, event.type):
                        wanted.append(event)
        except BaseException:
            # It was not handed over: the next to ask is given it.
            if taken and self.info.reason != "client":
                self._connection.place = place
                self._connection.ready.extendleft(map(_decoded, reversed(taken)))
            raise
        return wanted

    async def _one(self) -> Event:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise SseError("the stream has ended") from None

    async def _wait(self) -> None:
        """Wait for the next event or what else comes."""
        if self._is_awaited:
            raise RuntimeError("another task waits for this stream's next event")
        self._is_awaited = True
        try:
            await self._connection.more()
        finally:
            self._is_awaited = False

    def _raise_end(self) -> NoReturn:
        """Tell what the stream was ended by, once; then that it has ended."""
        failure, self._connection.failure = self._connection.failure, None
        raise failure or StopAsyncIteration

    async def _miss(self, gap: Gap) -> None:
        """Tell the user first: a callback that is cancelled is called again."""
        connection = self._connection
        event = connection.ready[0]
        if callable(self._on_gap):
            result = self._on_gap(gap)
            if inspect.isawaitable(result):
                await result
        if not connection.ready or connection.ready[0] is not event:
            return  # it was closed meanwhile
        connection.take()
        if self._on_gap == "raise":
            raise ReplayGap(gap.reason, gap.after, gap.id)

    async def _bring(self) -> None:
        """Bring more, for who looks at comments; events wait for who takes them."""
        connection = self._connection
        if self._controls.act():
            await connection.status.change()
        elif connection.is_closed:
            raise connection.failure or StopAsyncIteration
        else:
            await connection.more()

    def _comment(self, text: str) -> None:
        for comments in self._comments:
            comments.add(text)


def _decoded(event: Event) -> DecodedEvent:
    return DecodedEvent(
        event.type,
        event.raw,
        event.id,
        event.last_event_id,
        event.is_json,
        event.replayed,
    )
