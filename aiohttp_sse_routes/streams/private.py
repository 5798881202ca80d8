"""Private runs: one generator a client, which outlives its connection for a while.

Law: a run has at most one connection at a time; the newer takes the older's place. A
run is found by its unguessable token only together with everything that it was begun
with. What the peer's TCP has not acknowledged stays in the log, and the generator is
paused while that is more than half of the log's bounds.
"""

from __future__ import annotations

__all__ = ("PacedReader", "PrivateRun", "PrivateRuns")

from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from typing import Any

from ..cursor import Cursor, new_token
from ..wire import Encoder
from .ending import Ending
from .producer import Producer
from .reader import GapReason, Reader
from .run_feed import RunFeed


class PacedReader(Reader):
    """A reader that knows what its peer has acknowledged, and can be sent away."""

    __slots__ = ()

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
        encoder: Makes the body of what is yielded.
        key: What a client must show again, beside the token, to be let on.
        max_events: What the log holds, in events.
        max_bytes: What the log holds, in bytes.
        resume: Seconds that the run waits for its client; 0 for not at all.
        name: The handler's.
        on_end: Told when the generator has ended.
        route: The name of the route that it is of.
        owner: Whose it is, as text; None for nobody's.
    """

    __slots__ = (
        "_on_end",
        "expired",
        "feed",
        "key",
        "name",
        "owner",
        "producer",
        "reader",
        "resume",
        "route",
        "token",
        "waiting_since",
    )

    def __init__(
        self,
        iterator: AsyncIterator[Any],
        *,
        encoder: Encoder,
        key: Hashable,
        max_events: int,
        max_bytes: int,
        resume: float,
        name: str,
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
        self._on_end = on_end
        self.feed = RunFeed(
            encoder,
            prefix=Cursor("r", self.token, 0).prefix,
            max_events=max_events,
            max_bytes=max_bytes,
        )
        self.producer = Producer(
            iterator,
            emit=self.feed.append,
            emit_more=self.feed.hold,
            at_wait=self.feed.turn_over,
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
        self.feed.acknowledged = min(place, self.feed.head)
        self.feed.join(reader, place)
        self.producer.wake()

    def detach(self, reader: PacedReader) -> bool:
        """Note that *reader* has gone; return whether it was this run's."""
        self.feed.leave(reader)
        if self.reader is not reader:
            return False
        self.feed.note(reader.place, reader.outstanding())
        self.reader = None
        return True

    def resumption(self, place: int) -> GapReason | None:
        """Return the reason of the gap for who comes back to *place*; None if none."""
        return "expired" if place < self.feed.floor else None

    def _has_reader(self) -> bool:
        return self.reader is not None

    def _has_room(self) -> bool:
        feed, reader = self.feed, self.reader
        if not feed.has_room:
            # No system call says by itself what the peer has acknowledged.
            if reader is not None:
                feed.note(feed.place_of(reader), reader.outstanding())
            feed.look()
        return feed.has_room

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

    def detached(self) -> Iterator[str]:
        """Yield the route of each run that waits for its client."""
        return (run.route for run in self._waiting)

    def add(self, run: PrivateRun) -> None:
        """Let *run* be found by its token."""
        self._runs[run.token] = run

    def find(self, cursor: Cursor | None, key: Hashable) -> PrivateRun | None:
        """Return the run that *cursor* names, if it was begun with the same *key*."""
        if cursor is None or cursor.kind != "r":
            return None
        run = self._runs.get(cursor.log)
        if run is None or run.key != key or cursor.seq > run.feed.head:
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
