"""A stream as its consumer has it: events in their order, and the place in them.

Law: an event is handed over in the same turn in which the place moves behind it; there
is no ``await`` between the two. What servers of ours say about a stream is acted upon
when its turn among the events has come.
"""

from __future__ import annotations

__all__ = ("OnGap", "Stream")

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Literal, Self

import aiohttp

from ..decoder import DecodedEvent
from ..errors import ReplayGap
from ..streams.clock import Clock
from .connection import Connection
from .errors import SseError
from .event import Event, Gap, Opener, State, StateInfo

OnGap = Literal["raise", "ignore"] | Callable[[Gap], Awaitable[object] | object]

_CONTROLS: Final = frozenset(
    {"sse-busy", "sse-cursor", "sse-end", "sse-error", "sse-gap", "sse-hello"}
)
_MARGIN: Final = 10.0


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
        self._controls = frozenset() if strict else _CONTROLS
        self._is_manual = ack == "manual"
        self._acknowledged = connection.place
        self._resumed: str | None = None
        self._is_replayed = False
        self._told: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._connection.open()
        except BaseException:
            await self._connection.aclose()
            raise
        if isinstance(self._stall, float | int):
            self._connection.watchdog.watch(self._stall)
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
        connection = self._connection
        ready = connection.ready
        while True:
            if connection.response is not self._told and self._controls:
                self._told = connection.response
                self._tell_header()
            elif not ready:
                if connection.is_closed:
                    raise StopAsyncIteration
                await connection.more()
            elif (
                ready[0].type in self._controls
                and ready[0].json
                and (told := _object(ready[0])) is not None
            ):
                await self._control(ready[0], told)
            else:
                event = ready.popleft()
                connection.place = event.last_event_id
                return self._open(event, self._is_replayed, self._clock.now())

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
        return self._connection.info

    @property
    def state(self) -> State:
        """``connecting``, ``open``, ``waiting`` or ``closed``."""
        return self._connection.info.state

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
        return self._resumed

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
            if taken and not self._connection.is_closed:
                self._connection.place = place
                self._connection.ready.extendleft(map(_decoded, reversed(taken)))
            raise
        return wanted

    async def _one(self) -> Event:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            raise SseError("the stream has ended") from None

    async def _control(self, event: DecodedEvent, told: dict[str, Any]) -> None:
        connection = self._connection
        if event.type == "sse-gap":
            await self._gap(event, told)
            return
        connection.ready.popleft()
        connection.place = event.last_event_id
        match event.type:
            case "sse-hello":
                self._hello(told)
            case "sse-cursor":
                self._is_replayed = self._is_replayed and told.get("live") is not True
            case "sse-end":
                connection.end(str(told.get("reason", "finished")))
            case _:
                # Nothing comes behind it; `retry` says when to come back.
                connection.backoff.least = connection.backoff.retry
                connection.lose(event.type.removeprefix("sse-"))

    def _hello(self, told: dict[str, Any]) -> None:
        self._connection.is_greeted = True
        self._is_replayed = told.get("replay") is True
        resumed, heartbeat = told.get("resumed"), told.get("heartbeat")
        self._resumed = resumed if isinstance(resumed, str) else None
        sound = isinstance(heartbeat, float | int) and 0 < heartbeat < float("inf")
        if self._stall == "server" and sound:
            assert heartbeat is not None
            self._connection.watchdog.watch(2 * heartbeat + _MARGIN)

    async def _gap(self, event: DecodedEvent, told: dict[str, Any]) -> None:
        """Tell the user first: a callback that is cancelled is called again."""
        reason, after = str(told.get("reason")), told.get("after")
        after = after if isinstance(after, str) else None
        gap = Gap(reason, after, event.last_event_id)
        if callable(self._on_gap):
            result = self._on_gap(gap)
            if inspect.isawaitable(result):
                await result
        ready = self._connection.ready
        if not ready or ready[0] is not event:
            return  # it was closed meanwhile
        ready.popleft()
        self._connection.place = event.last_event_id
        if self._on_gap == "raise":
            raise ReplayGap(reason, after, event.last_event_id)

    def _tell_header(self) -> None:
        """Make an event of the gap that a route without control events tells."""
        response, place = self._told, self._connection.place
        self._is_replayed = False
        self._resumed = None
        if response is None:
            return
        resumed = response.headers.get("SSE-Resume", "")
        self._resumed = resumed.partition(";")[0].strip() or None
        if resumed.startswith("gap"):
            data = json.dumps({"reason": "unknown", "after": place or None})
            gap = DecodedEvent("sse-gap", data, None, place, True)
            self._connection.ready.appendleft(gap)


def _object(event: DecodedEvent) -> dict[str, Any] | None:
    """Return the object that *event* carries; None if it carries none."""
    try:
        value = json.loads(event.data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _decoded(event: Event) -> DecodedEvent:
    return DecodedEvent(
        event.type, event.raw, event.id, event.last_event_id, event.is_json
    )
