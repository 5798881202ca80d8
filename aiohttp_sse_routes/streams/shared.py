"""Shared runs: one generator for all who are on the same path.

Law: a shared run belongs to no request: it begins with its first client in an empty
context, is delayed by none of them, and ends some time after the last has left. When it
fails it begins again by itself, and its readers are told that something is missing.
"""

from __future__ import annotations

__all__ = ("Backoff", "SharedKey", "SharedRun", "SharedRuns", "SharedStream")

import contextvars
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from typing import Any, Final, Literal

from ..cursor import Cursor
from ..errors import EventError
from ..logs.memory import MemoryLog
from ..wire import Body
from .ending import Ending
from .feed import BURST, Feed
from .producer import Producer
from .reader import GapReason, Reader
from .turns import Turns

FIRST_DELAY: Final = 1.0
LAST_DELAY: Final = 60.0
"""Seconds before a failed run begins again: doubled each time, so that what it needs
and has not got is not asked for in a loop."""

SharedKey = Hashable


class Backoff:
    """How long a run that has failed waits before it begins again."""

    def __init__(self) -> None:
        self._delay = FIRST_DELAY
        self._began_at = 0.0

    def began(self, now: float) -> None:
        """Note that it begins."""
        self._began_at = now

    def delay(self, now: float) -> float:
        """Return in how many seconds it begins again.

        A run that has gone well for as long as the longest delay begins with the
        shortest again.
        """
        if now - self._began_at >= LAST_DELAY:
            self._delay = FIRST_DELAY
        delay, self._delay = self._delay, min(LAST_DELAY, self._delay * 2)
        return delay


class SharedRun:
    """What a shared handler is given in place of a request.

    Attributes:
        app: The application that the route was added to.
        match_info: The variable parts of the path.
        path: The path of those who are on it.
    """

    __slots__ = ("app", "match_info", "path")

    def __init__(self, app: Any, match_info: Mapping[str, str], path: str) -> None:
        self.app = app
        self.match_info = match_info
        self.path = path

    def __repr__(self) -> str:
        return f"<SharedRun {self.path}>"


class SharedStream:
    """The generator of one path, the log it appends to, and those who follow.

    Args:
        begin: Calls the handler.
        encode: Makes the body of what is yielded.
        log: The application's shared log.
        history: How many past events a new client gets.
        max_events: What the channel holds, in events.
        max_bytes: What it holds, in bytes.
        resume: Seconds that it goes on without a client.
        name: The handler's.
        now: The time.
        turns: The loop's.
        on_start: Told of each producer that is started.
        on_end: Told how a producer ended; a failed one begins again if told so.

    Attributes:
        attached: Whether anybody has followed yet.
        yielded: Whether the generator has yielded yet, in any of its turns.
        restart_at: When it begins again; None if it need not.
        newcomers: Who has come since it failed, and has missed nothing by that.
    """

    def __init__(
        self,
        begin: Callable[[], AsyncIterator[Any]],
        *,
        encode: Callable[[Any], Body],
        log: MemoryLog,
        history: int,
        max_events: int,
        max_bytes: int,
        resume: float,
        name: str,
        now: float,
        turns: Turns,
        on_start: Callable[[Producer], None],
        on_end: Callable[[SharedStream, Ending], None],
    ) -> None:
        self.name = name
        self.resume = resume
        self.holders: set[object] = set()
        self.idle_since: float | None = None
        self.closing = False
        self._begin = begin
        self._encode = encode
        self._on_start = on_start
        self._on_end = on_end
        self._backoff = Backoff()
        self._backoff.began(now)
        self.restart_at: float | None = None
        self.feed = Feed(
            log.channel(max_events=max_events, max_bytes=max_bytes),
            prefix=log.prefix,
            number=log.number,
            turns=turns,
            history=history,
        )
        self.attached = False
        self.newcomers: set[Reader] = set()
        self.yielded = False
        self.producer = self._start()

    @property
    def ending(self) -> Ending | None:
        """How it ended for good; None while it runs or waits to begin again."""
        return self.feed.ending

    @property
    def patience(self) -> float:
        """Seconds that it waits for a client; those it sent away come back later."""
        ending = self.ending
        return self.resume + (ending.after if ending is not None else 0)

    def hold(self, who: object) -> None:
        """Keep the run going for *who*, a client that opens or one that follows."""
        self.holders.add(who)
        self.idle_since = None

    def let_go(self, who: object, now: float) -> None:
        """Note that *who* has left."""
        self.holders.discard(who)
        if not self.holders:
            self.idle_since = now

    def resumption(self, place: int) -> GapReason | None:
        """Return the reason of the gap for who comes back to *place*; None if none."""
        ring = self.feed.ring
        return ring.lost if place < ring.floor else None

    def sends_away(self, place: int) -> bool:
        """Return whether who has all of it was told to come back for a new run."""
        ending = self.ending
        return (
            ending is not None
            and ending.kind == "reconnect"
            and self.feed.has_all(place)
        )

    def covers(self, place: int) -> bool:
        """Return whether *place* is one of this run's."""
        return self.feed.start <= place <= self.feed.ring.head

    def begin_again(self, now: float) -> None:
        """Start the generator anew, after a failure."""
        self.restart_at = None
        self._backoff.began(now)
        self.feed.restart(self.newcomers)
        self.newcomers.clear()
        self.producer = self._start()

    def stop(self) -> None:
        """End it for good."""
        self.closing = True
        self.restart_at = None
        self.producer.stop()

    def _start(self) -> Producer:
        producer = Producer(
            self._begin(),
            emit=self._emit,
            has_room=_always,
            can_wait=_always,
            on_end=self._ended,
            name=self.name,
            context=contextvars.Context(),
        )
        self._on_start(producer)
        return producer

    def _emit(self, item: Any) -> bool:
        self.yielded = True
        if item is None:
            return True
        body = self._encode(item)
        if body.id is not None:
            raise EventError(
                f"{self.name} is shared: events of a shared run get their ids here, "
                f"leave out id={body.id!r}"
            )
        self.feed.append(body)
        self.feed.ring.trim(self.feed.delivered)
        return self.feed.burst >= BURST

    def _ended(self, ending: Ending) -> None:
        if ending.kind == "failed" and self.closing:
            ending = Ending("stopped")
        if ending.kind == "failed":
            self.feed.flush()
        else:
            self.feed.finish(ending)
        self._on_end(self, ending)

    def delay_restart(self, now: float) -> float:
        """Plan to begin again; return in how many seconds."""
        delay = self._backoff.delay(now)
        self.restart_at = now + delay
        self.newcomers.clear()
        return delay


class SharedRuns:
    """The shared runs of one application, by key."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self._streams: dict[SharedKey, SharedStream] = {}
        self._finished: dict[SharedKey, SharedStream] = {}

    def __iter__(self) -> Any:
        return iter((*self._streams.values(), *self._finished.values()))

    def get(self, key: SharedKey) -> SharedStream | None:
        """Return the run of *key* that goes on."""
        return self._streams.get(key)

    def add(self, key: SharedKey, stream: SharedStream) -> None:
        """Let *stream* be found by *key*."""
        self._streams[key] = stream

    def finish(self, key: SharedKey, stream: SharedStream, now: float) -> None:
        """Keep the finished *stream* for those who come back."""
        if self._streams.get(key) is stream:
            del self._streams[key]
            self._finished[key] = stream
            stream.idle_since = None if stream.holders else now

    def drop(self, key: SharedKey, stream: SharedStream) -> None:
        """End *stream* and forget it."""
        for table in (self._streams, self._finished):
            if table.get(key) is stream:
                del table[key]
        stream.stop()

    def locate(
        self, key: SharedKey, cursor: Cursor | None
    ) -> tuple[SharedStream | None, GapReason | None]:
        """Return the run that *cursor* is a place in, and why there is a gap if any."""
        if cursor is None or cursor.kind != "l":
            return None, "unknown"
        if cursor.log != self.log.generation:
            return None, "reset"
        for table in (self._streams, self._finished):
            stream = table.get(key)
            if stream is not None and stream.covers(cursor.seq):
                if stream.sends_away(cursor.seq):
                    return None, None
                return stream, stream.resumption(cursor.seq)
        return None, "unknown"

    def tick(self, now: float) -> None:
        """Begin failed runs again, and end those that nobody follows."""
        for table in (self._streams, self._finished):
            for key, stream in tuple(table.items()):
                idle = stream.idle_since
                if idle is not None and now - idle >= stream.patience:
                    self.drop(key, stream)
                elif stream.restart_at is not None and now >= stream.restart_at:
                    stream.begin_again(now)


def _always() -> Literal[True]:
    return True
