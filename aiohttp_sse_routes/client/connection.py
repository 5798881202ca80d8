"""Keeps a client connected: attempts, waits, reads, and the end of it all.

Law: no task reads ahead. Bytes are read when what was read before has been handed over,
so that the server feels how fast its consumer is, and a consumer that is cancelled
leaves nothing half done: every ``await`` here can be given up and be made again.
"""

from __future__ import annotations

__all__ = ("Connection",)

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn

import aiohttp

from ..decoder import DecodedEvent, Decoder
from ..errors import EventTooLarge
from ..streams.clock import Clock
from .answers import LOST, fatal, refusal
from .backoff import Backoff, Reconnect
from .errors import SseConnectionError, SseError, SseHTTPError
from .event import State, StateInfo
from .target import Target
from .watchdog import Watchdog

_REPEATABLE: Final = frozenset({408, 425, 429, 503})

_logger = logging.getLogger("aiohttp_sse_routes")


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
        response: The present connection's response.
        info: What it is about.
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
        self.response: aiohttp.ClientResponse | None = None
        self.info = StateInfo("connecting")
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
        self._on_state = on_state
        self._decoder = Decoder(place, max_event_bytes=max_event_bytes)
        self._due = clock.now()
        self._wake: asyncio.Future[None] | None = None
        self._is_stalled = False
        self._is_asked = False
        self._has_fresh_headers = False
        self._is_busy = False
        self._broken: BaseException | None = None

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""
        return self.info.state == "closed"

    async def open(self) -> None:
        """Return when there is a connection, or there will be none."""
        if self._session is None:
            # One stream needs no pool, and no place in one.
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector)
        while self.response is None and not self.is_closed:
            await self._reach()

    async def more(self) -> None:
        """Do the next thing that brings events nearer; all of `ready` was handed over.

        Raises:
            SseError: it is over, and this is why.
            EventTooLarge: an event is.
        """
        if self._is_busy:
            raise RuntimeError("another task waits for this stream's next event")
        self._is_busy = True
        self.place = self._decoder.last_event_id
        try:
            if self.response is None:
                await self._reach()
            else:
                await self._read(self.response)
        finally:
            self._is_busy = False

    def reconnect(self) -> None:
        """Connect anew at once, from the place of what was handed over."""
        self._is_asked = True
        self._due = self._clock.now()
        if self.response is not None:
            self.response.close()
        elif self.info.state == "waiting":
            self._rouse()

    def lose(
        self,
        reason: str,
        error: BaseException | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Give the present connection up, and wait for the next attempt.

        Raises:
            SseError: there is to be none.
        """
        now = self._clock.now()
        self._drop()
        self.backoff.lost(now)
        if self._is_asked:
            self._is_asked, self.backoff.attempt, delay = False, 0, 0.0
            reason = "asked"
        elif self.backoff.is_exhausted or not self._is_repeatable(error):
            self._give_up(reason, error)
        else:
            delay = self.backoff.next(retry_after)
        if self._is_stalled:
            reason, delay, self._is_stalled = "stalled", 0.0, False
        self._due = now + delay
        self._become("waiting", delay, reason, error)

    def end(self, reason: str, error: BaseException | None = None) -> None:
        """End it for good; what was not handed over is dropped."""
        if self.is_closed:
            return
        self._drop()
        self.ready.clear()
        self.watchdog.stop()
        self._become("closed", None, reason, error)
        self._rouse()

    async def aclose(self) -> None:
        """End it, and free what it holds."""
        self.end("client")
        if (task := self.watchdog.stop()) is not None:
            await asyncio.wait({task})
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        decoder = self._decoder
        try:
            decoder.feed(b"")  # raises what the last chunk ended in
            data = await self._bytes(response)
            if self.response is not response:
                return
            if not data:
                self.lose("eof")
                return
            self.ready.extend(decoder.feed(data))
        except EventTooLarge as error:
            self.end("fatal", error)
            raise
        except LOST as error:
            if isinstance(error, SseError):
                raise
            if self.response is response:
                self.lose("network", error)
            return
        self._note_retry()

    async def _bytes(self, response: aiohttp.ClientResponse) -> bytes:
        if self._broken is not None:
            raise self._broken
        self.watchdog.waiting_since = self._clock.now()
        try:
            return await response.content.readany()
        except LOST as error:
            rest = _rest(response.content)
            if not rest:
                raise
            self._broken = error
            return rest
        finally:
            self.watchdog.waiting_since = None

    def _note_retry(self) -> None:
        if self._decoder.retry is None:
            return
        seconds = self._decoder.retry / 1000
        if seconds != self.backoff.retry:
            self.backoff.retry = seconds
            if self.is_greeted:
                # Ours says it anew to keep clients away for a while.
                self.backoff.least = seconds

    async def _reach(self) -> None:
        left = self._due - self._clock.now()
        if left > 0:
            await self._apart(self._clock.sleep(left))
            return
        self._is_asked = False
        if self.info.state != "connecting":
            self._become("connecting")
        try:
            await self._apart(self._attempt())
        except SseHTTPError as error:
            self._refused(error)
        except SseError as error:
            self.end("fatal", error)
            raise
        except LOST as error:
            final = fatal(error)
            if final is not None:
                self.end("fatal", final)
                raise final from error
            self.lose("network", error)

    async def _attempt(self) -> None:
        session = self._session
        assert session is not None, "open() first"
        response = None
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._target.request(session, self.place)
            refused = await refusal(response, decompresses=session.auto_decompress)
        except BaseException:
            if response is not None:
                response.close()
            raise
        if refused is not None or self.is_closed:
            response.close()
        if refused is not None:
            raise refused
        if not self.is_closed:
            self._adopt(response)

    def _adopt(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self._decoder = Decoder(self.place, max_event_bytes=self._limit)
        self._has_fresh_headers = self._is_stalled = self.is_greeted = False
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
            self.end("fatal", error)
            raise error

    def _is_repeatable(self, error: BaseException | None) -> bool:
        """Whether the request may be made again: a POST that was done is not."""
        if self._target.method in ("GET", "HEAD") or self.place:
            return True
        return isinstance(error, SseHTTPError) and error.status in _REPEATABLE

    def _give_up(self, reason: str, error: BaseException | None) -> NoReturn:
        if isinstance(error, SseHTTPError):
            self.end("fatal", error)
            raise error
        final = SseConnectionError(
            f"no stream after {self.backoff.attempt + 1} attempts, the last ended by: "
            f"{error or reason}"
        )
        self.end("fatal", final)
        raise final from error

    async def _apart(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work*, which `end` and `reconnect` may break off."""
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        task.add_done_callback(_retrieved)
        self._wake = wake = loop.create_future()
        try:
            await asyncio.wait({task, wake}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._wake = None
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _drop(self) -> None:
        self._broken = None
        response, self.response = self.response, None
        if response is not None:
            # Not release(): that would keep reading what will never end.
            response.close()

    def _stall(self) -> None:
        if self.response is not None:
            self._is_stalled = True
            self.response.close()

    def _become(
        self,
        state: State,
        delay: float | None = None,
        reason: str | None = None,
        error: BaseException | None = None,
    ) -> None:
        self.info = StateInfo(state, self.backoff.attempt, delay, reason, error)
        if self._on_state is not None:
            try:
                self._on_state(self.info)
            except Exception:
                _logger.exception("on_state= raised, and the stream goes on")


def _rest(content: Any) -> bytes:
    """Return what was received before the connection broke.

    aiohttp raises first, and would let go of what nobody had read yet.
    """
    content.set_exception(None)
    data: bytes = content.read_nowait()
    return data


def _retrieved(task: asyncio.Task[None]) -> None:
    """Look at what *task* raised, also where nobody waits for it any more."""
    if not task.cancelled():
        task.exception()
