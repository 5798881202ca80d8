"""Private runs: one generator a client, which outlives its connection for a while.

Law: a run has at most one connection at a time; the newer takes the older's place. A
run is found by its unguessable token only together with everything that it was begun
with. What the peer's TCP has not acknowledged stays in the log, and the generator is
paused while that is more than half of the log's bounds.
"""

from __future__ import annotations

__all__ = ("PacedReader", "PrivateRun", "PrivateRuns")

from collections.abc import AsyncIterator, Callable, Hashable
from typing import Any

from ..cursor import Cursor, new_token
from ..logs.ring import Ring
from ..wire import Body
from .ending import Ending
from .feed import BURST, Feed
from .producer import Producer
from .reader import GapReason, Reader
from .turns import Turns


class PacedReader(Reader):
    """A reader that knows what its peer has acknowledged, and can be sent away."""

    def outstanding(self) -> int:
        """Return how many of the bytes written the peer has not acknowledged."""
        raise NotImplementedError

    def replaced(self) -> None:
        """End: a newer connection has taken this one's place."""
        raise NotImplementedError


class PrivateRun:
    """A generator with a log of its own.

    Args:
        iterator: What the handler returned.
        encode: Makes the body of what is yielded.
        key: What a client must show again, beside the token, to be let on.
        max_events: What the log holds, in events.
        max_bytes: What the log holds, in bytes.
        resume: Seconds that the run waits for its client; 0 for not at all.
        name: The handler's.
        turns: The loop's.
        on_end: Told when the generator has ended.
        route: The name of the route that it is of.
        owner: Whose it is, as text; None for nobody's.
    """

    def __init__(
        self,
        iterator: AsyncIterator[Any],
        *,
        encode: Callable[[Any], Body],
        key: Hashable,
        max_events: int,
        max_bytes: int,
        resume: float,
        name: str,
        turns: Turns,
        on_end: Callable[[PrivateRun, Ending], None],
        route: str = "",
        owner: str | None = None,
    ) -> None:
        self.route = route
        self.owner = owner
        self.token = new_token()
        self.key = key
        self.resume = resume
        self.name = name
        self.reader: PacedReader | None = None
        self.waiting_since: float | None = None
        self.expired = False
        self._encode = encode
        self._on_end = on_end
        self._seq = 0
        self._acknowledged = 0
        # At least one event may be under way, whatever the bounds.
        self._half_events = max(1, max_events // 2)
        self._half_bytes = max_bytes // 2
        self._events_left = self._half_events
        self._bytes_left = self._half_bytes
        self.feed = Feed(
            Ring(0, max_events=max_events, max_bytes=max_bytes),
            prefix=Cursor("r", self.token, 0).prefix,
            number=self._number,
            turns=turns,
        )
        self.producer = Producer(
            iterator,
            emit=self._emit,
            has_room=self._has_room,
            can_wait=self._has_reader,
            on_end=self._ended,
            name=name,
        )

    @property
    def ending(self) -> Ending | None:
        """How the generator ended; None while it runs."""
        return self.producer.ending

    @property
    def can_wait(self) -> bool:
        """Whether the run may go on without its client."""
        return self.resume > 0 and not self.feed.own_ids

    @property
    def patience(self) -> float:
        """Seconds that the run waits for its client, which may have been sent away."""
        ending = self.ending
        return self.resume + (ending.after if ending is not None else 0)

    def attach(self, reader: PacedReader, place: int) -> None:
        """Let *reader* read on from *place*, in place of any older one."""
        older, self.reader = self.reader, reader
        if older is not None:
            older.replaced()
        self.waiting_since = None
        # Whoever names a place has all before it, and nothing behind it, though an
        # older connection's kernel had acknowledged that.
        self._acknowledged = min(place, self.feed.ring.head)
        self.feed.join(reader, place)
        self.producer.wake()

    def detach(self, reader: PacedReader) -> bool:
        """Note that *reader* has gone; return whether it was this run's."""
        self.feed.leave(reader)
        if self.reader is not reader:
            return False
        self._acknowledged = max(
            self._acknowledged,
            self.feed.ring.acknowledged(reader.place, reader.outstanding()),
        )
        self.reader = None
        return True

    def resumption(self, place: int) -> GapReason | None:
        """Return the reason of the gap for who comes back to *place*; None if none."""
        return "expired" if place < self.feed.ring.floor else None

    def _number(self) -> int:
        self._seq += 1
        return self._seq

    def _emit(self, item: Any) -> bool:
        if item is None:
            return True
        feed = self.feed
        size = feed.append(self._encode(item))
        self._events_left -= 1
        self._bytes_left -= size
        through, written = self._acknowledged, feed.delivered
        feed.ring.trim(min(written, through))
        # A generator that never awaits would starve everybody else.
        return self._events_left < 0 or self._bytes_left < 0 or feed.burst >= BURST

    def _has_reader(self) -> bool:
        return self.reader is not None

    def _has_room(self) -> bool:
        if self._events_left >= 0 and self._bytes_left >= 0:
            return True
        # What waits for the end of the turn is asked for too.
        self.feed.flush()
        self._look()
        return self._events_left >= 0 and self._bytes_left >= 0

    def _look(self) -> None:
        """Ask what the peer has acknowledged, and count anew."""
        feed, reader = self.feed, self.reader
        if reader is not None:
            place = feed.place_of(reader)
            self._acknowledged = max(
                self._acknowledged, feed.ring.acknowledged(place, reader.outstanding())
            )
        events, nbytes = feed.ring.weight_after(self._acknowledged)
        self._events_left = self._half_events - events
        self._bytes_left = self._half_bytes - nbytes
        if events == 0:
            self._bytes_left = max(0, self._bytes_left)

    def _ended(self, ending: Ending) -> None:
        self.feed.finish(ending)
        self._on_end(self, ending)


class PrivateRuns:
    """The private runs of one application, by token.

    Args:
        max_waiting: How many may wait for their clients; over it the longest waiting
            is closed.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._runs: dict[str, PrivateRun] = {}
        self._waiting: dict[PrivateRun, None] = {}  # the longest waiting first

    def __iter__(self) -> Any:
        return iter(tuple(self._runs.values()))

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def waiting(self) -> int:
        """How many runs wait for their clients."""
        return len(self._waiting)

    def add(self, run: PrivateRun) -> None:
        """Let *run* be found by its token."""
        self._runs[run.token] = run

    def find(self, cursor: Cursor | None, key: Hashable) -> PrivateRun | None:
        """Return the run that *cursor* names, if it was begun with the same *key*."""
        if cursor is None or cursor.kind != "r":
            return None
        run = self._runs.get(cursor.log)
        if run is None or run.key != key or cursor.seq > run.feed.ring.head:
            return None
        return run

    def holds(self, cursor: Cursor | None) -> bool:
        """Return whether *cursor* names a run that has a connection now."""
        run = self._runs.get(cursor.log) if cursor and cursor.kind == "r" else None
        return run is not None and run.reader is not None

    def wait(self, run: PrivateRun, now: float) -> None:
        """Let *run* wait for its client, from *now* on."""
        if run.token not in self._runs:
            return
        run.waiting_since = now
        self._waiting.pop(run, None)
        self._waiting[run] = None
        while len(self._waiting) > self._max_waiting:
            self.close(next(iter(self._waiting)))

    def attached(self, run: PrivateRun) -> None:
        """Note that *run* has a client again."""
        self._waiting.pop(run, None)

    def forget(self, run: PrivateRun) -> None:
        """Let *run* be found no more."""
        self._runs.pop(run.token, None)
        self._waiting.pop(run, None)

    def close(self, run: PrivateRun) -> None:
        """End *run* and forget it."""
        self.forget(run)
        run.expired = True
        run.producer.stop()

    def expire(self, now: float) -> None:
        """Close the runs whose clients have not come back in time."""
        for run in tuple(self._waiting):
            since = run.waiting_since
            if since is not None and now - since >= run.patience:
                self.close(run)

    def close_by(self, cursor: Cursor | None) -> bool:
        """End the run that *cursor* names, at its client's wish."""
        run = self._runs.get(cursor.log) if cursor and cursor.kind == "r" else None
        if run is None:
            return False
        self.close(run)
        return True
