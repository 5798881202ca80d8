"""Keeps a client connected: attempts, waits, reads, and the end of it all.

Law: no task reads ahead. Bytes are read when what was read before has been handed over,
so that the server feels how fast its consumer is, and a consumer that is cancelled
leaves nothing half done: every ``await`` here can be given up and be made again.
"""

from __future__ import annotations

__all__ = ("Connection",)

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import aiohttp

from ..decoder import DecodedEvent
from ..errors import EventTooLarge
from ..streams.clock import Clock
from .answers import LOST, fatal, last_word, refusal
from .backoff import Backoff, Reconnect
from .body import Body
from .errors import SseConnectionError, SseError, SseHTTPError
from .event import State, StateInfo
from .interruptible import Interruptible
from .status import Status
from .target import Target
from .watchdog import Watchdog


class Connection:
    """One stream's connections, one after the other.

    Args:
        target: What is requested.
        session: By which; None for one of its own.
        rules: When it is tried again.
        clock: What time it is.
        place: The last event ID to begin with.
        connect_timeout: Seconds for one attempt, up to the answer's headers.
        max_event_bytes: How large an event, and a line, may be.
        strict: Whether to go by the letter of the standard.
        on_state: Called with each change.

    Attributes:
        ready: What was read and is not handed over, in its order.
        place: Where the next connection begins: behind all that was handed over.
        body: The present connection's; None where there is none.
        status: What it is about.
        failure: What it was ended by, as long as nobody was told.
        backoff: The waits.
        watchdog: What notices silence.
        is_greeted: Whether the server is known for one of ours.
    """

    def __init__(
        self,
        target: Target,
        session: aiohttp.ClientSession | None,
        rules: Reconnect,
        clock: Clock,
        *,
        place: str,
        connect_timeout: float | None,
        max_event_bytes: int,
        strict: bool,
        on_state: Callable[[StateInfo], object] | None,
    ) -> None:
        self.ready: deque[DecodedEvent] = deque()
        self.place = place
        self.body: Body | None = None
        self.status = Status(on_state)
        self.failure: SseError | EventTooLarge | None = None
        self.backoff = Backoff(rules, strict=strict)
        self.watchdog = Watchdog(clock, self._stall)
        self.is_greeted = False
        self._target = target
        self._session = session
        self._owns_session = session is None
        self._statuses = frozenset() if strict else rules.retry_statuses
        self._clock = clock
        self._timeout = connect_timeout
        self._limit = max_event_bytes
        self._strict = strict
        self._on_comment: Callable[[str], object] | None = None
        self._due = clock.now()
        self._work = Interruptible()
        self._is_busy = False
        self._is_stalled = False
        self._is_asked = False
        self._has_fresh_headers = False

    @property
    def response(self) -> aiohttp.ClientResponse | None:
        """The present connection's response."""
        return None if self.body is None else self.body.response

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""
        return self.status.is_closed

    async def open(self) -> None:
        """Return when there is a connection, or there will be none."""
        if self._session is None:
            # One stream needs no pool, and no place in one.
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector)
        while self.body is None and not self.is_closed:
            await self._reach(self._session)

    async def more(self) -> None:
        """Do the next thing that brings events nearer; all of `ready` was handed over.

        Where another task does that already, wait for what comes of it.
        """
        if self._is_busy:
            await self.status.change()
            return
        if self._session is None:
            raise RuntimeError("open it first: async with connect(...) as stream")
        self._is_busy = True
        try:
            if self.body is None:
                await self._reach(self._session)
            else:
                self.place = self.body.place
                await self._read(self.body)
        finally:
            self._is_busy = False
            self.status.wake()

    def take(self) -> DecodedEvent:
        """Hand over the first of `ready`: the place moves behind it."""
        event = self.ready.popleft()
        self.place = event.last_event_id
        self.status.wake()
        return event

    def tell_comments(self, told: Callable[[str], object]) -> None:
        """Call *told* with each comment from now on."""
        self._on_comment = told
        if self.body is not None:
            self.body.tell_comments(told)

    def reconnect(self) -> None:
        """Connect anew at once, from the place of what was handed over."""
        self._is_asked = True
        self._due = self._clock.now()
        if self.body is not None:
            self.body.close()
        elif self.status.info.state == "waiting":
            self._work.interrupt()

    def lose(
        self,
        reason: str,
        error: BaseException | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Give the present connection up, and wait for the next attempt.

        If there is to be none, it is over, and that is its `failure`.
        """
        now = self._clock.now()
        self._drop()
        self.backoff.lost(now)
        if self._is_asked:
            self._is_asked, self.backoff.attempt, delay = False, 0, 0.0
            reason = "asked"
        elif not self._may_return(error):
            self.fail(last_word(reason, error, self.backoff.attempt + 1))
            return
        else:
            delay = self.backoff.next(retry_after)
        if self._is_stalled:
            reason, delay, self._is_stalled = "stalled", 0.0, False
        self._due = now + delay
        self._become("waiting", delay=delay, reason=reason, error=error)

    def fail(self, error: SseError | EventTooLarge) -> None:
        """End it for good, because of *error*."""
        if not self.is_closed:
            self.failure = error
            self.end("fatal", error)

    def end(self, reason: str, error: BaseException | None = None) -> None:
        """End it for good; what was not handed over is dropped."""
        if self.is_closed:
            return
        self._drop()
        self.ready.clear()
        self.watchdog.stop()
        self._become("closed", reason=reason, error=error)
        self._work.interrupt()

    async def aclose(self) -> None:
        """End it, and free what it holds."""
        self.end("client")
        try:
            if (task := self.watchdog.stop()) is not None:
                await asyncio.wait({task})
        finally:
            if self._owns_session and self._session is not None:
                await self._session.close()

    async def _read(self, body: Body) -> None:
        try:
            events = await body.read()
        except EventTooLarge as error:
            self.fail(error)
            return
        except LOST as error:
            if self.body is body:
                self.lose("network", error)
            return
        if self.body is not body:
            return  # it was given up meanwhile
        if events is None:
            self.lose("eof")
            return
        self.ready.extend(events)
        self._note_retry(body.retry)

    def _note_retry(self, seconds: float | None) -> None:
        if seconds is not None and seconds != self.backoff.retry:
            self.backoff.retry = seconds
            if self.is_greeted:
                # Ours says it anew to keep clients away for a while.
                self.backoff.least = seconds

    async def _reach(self, session: aiohttp.ClientSession) -> None:
        left = self._due - self._clock.now()
        if left > 0:
            await self._work.run(self._clock.sleep(left))
            return
        self._is_asked = False
        if session.closed:
            self.fail(SseConnectionError("session= was closed, and is needed still"))
            return
        if self.status.info.state != "connecting":
            self._become("connecting")
        try:
            await self._work.run(self._attempt(session))
        except SseHTTPError as error:
            self._refused(error)
        except SseError as error:
            self.fail(error)
        except LOST as error:
            final = fatal(error)
            if isinstance(final, SseHTTPError):
                self._refused(final)
            elif final is not None:
                self.fail(final)
            else:
                self.lose("network", error)

    async def _attempt(self, session: aiohttp.ClientSession) -> None:
        response = None
        try:
            response = await self._target.request(session, self.place, self._timeout)
            refused = await refusal(response, decompresses=session.auto_decompress)
            if refused is not None:
                raise refused
        except BaseException:
            if response is not None:
                response.close()
            raise
        if self.is_closed:
            response.close()
        else:
            self._adopt(response)

    def _adopt(self, response: aiohttp.ClientResponse) -> None:
        self.body = Body(
            response, self.watchdog, place=self.place, max_event_bytes=self._limit
        )
        if self._on_comment is not None:
            self.body.tell_comments(self._on_comment)
        self._has_fresh_headers = self._is_stalled = self.is_greeted = False
        self.watchdog.fed()
        self.backoff.opened(self._clock.now())
        self._become("open")

    def _refused(self, error: SseHTTPError) -> None:
        if error.status == 204 and not self._strict:
            self.end("done")
        elif error.status in self._statuses:
            self.lose("status", error, error.retry_after)
        elif (
            error.status == 401
            and not self._strict
            and self._target.has_fresh_headers
            and not self._has_fresh_headers
        ):
            self._has_fresh_headers = True
        else:
            self.fail(error)

    def _may_return(self, error: BaseException | None) -> bool:
        repeatable = self._target.is_repeatable(self.place, error)
        return repeatable and not self.backoff.is_exhausted

    def _drop(self) -> None:
        body, self.body = self.body, None
        if body is not None:
            body.close()

    def _stall(self) -> None:
        if self.body is not None:
            self._is_stalled = True
            self.body.close()

    def _become(self, state: State, **facts: Any) -> None:
        self.status.become(state, self.backoff.attempt, **facts)
