"""The log of one private run: what its one reader has not acknowledged, and the newest.

Law: an event leaves the log only when its reader's peer has acknowledged it and the log
is full. Numbers begin at 1 and have no holes. What is kept of an event is the frame
that was written.
"""

from __future__ import annotations

__all__ = ("RunLog",)

from array import array
from bisect import bisect_left, bisect_right

from ..wire import join, unframe


class RunLog:
    """A run's events, by number from 1 on.

    Args:
        max_events: How many events to keep.
        max_bytes: How many bytes of them to keep, in all. The newest is kept always.

    Attributes:
        head: The number of the newest event.
        delivered: The number of the newest that a live reader has.
        acknowledged: The number of the newest of which the peer has every byte.
    """

    __slots__ = (
        "_base",
        "_chunks",
        "_ends",
        "_floor",
        "_max_bytes",
        "_max_events",
        "_most_bytes",
        "_most_events",
        "_total",
        "acknowledged",
        "delivered",
        "head",
    )

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.head = self.delivered = self.acknowledged = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        # Side by side, from behind the floor on: the frame of each event, and the bytes
        # of all blocks up to and with it.
        self._chunks: list[bytes] = []
        self._ends = array("q")
        self._floor = 0
        self._base = 0  # bytes of all that was dropped
        self._total = 0  # bytes of all that was ever added
        self.look()

    def __len__(self) -> int:
        return self.head - self.floor

    @property
    def nbytes(self) -> int:
        """The bytes kept."""
        self._trim()
        return self._total - self._base

    @property
    def floor(self) -> int:
        """The number of the newest event that is gone."""
        # What is over the bounds goes when it is asked for, or at a look: not each time
        # that an event is added.
        self._trim()
        return self._floor

    def _trim(self) -> None:
        """Drop the oldest events while the log is over its bounds."""
        over = self.head - self._floor - self._max_events
        if self._total - self._base > self._max_bytes:
            end = self._total - self._max_bytes
            over = max(over, bisect_left(self._ends, end) + 1)
        may_go = min(self.acknowledged, self.delivered, self.head - 1) - self._floor
        count = min(over, may_go)
        if count > 0:
            self._base = self._ends[count - 1]
            self._floor += count
            del self._chunks[:count], self._ends[:count]

    def _end(self, place: int) -> int:
        """Return the bytes of all events through *place*."""
        index = place - self._floor
        return self._ends[index - 1] if index > 0 else self._base

    def _batch(self, place: int, limit: int) -> int:
        """Return the last event after *place* of so many bytes; one at least."""
        last = self._floor + bisect_right(self._ends, self._end(place) + limit)
        return min(self.delivered, max(last, place + 1))

    def _joined(self, place: int, through: int, past: int = 0) -> bytes:
        """Return the events after *place*, through *through*, as one chunk.

        See `wire.join` for *past*.
        """
        chunks = self._chunks[place - self._floor : through - self._floor]
        if len(chunks) == 1 and not past:
            return chunks[0]
        return join(map(unframe, chunks), past)

    def has_all(self, place: int) -> bool:
        """Return whether nobody at *place* misses an event that carries an id."""
        if place < self.floor:
            return False
        later = self._chunks[place - self._floor :]
        return not any(unframe(chunk).startswith(b"id: ") for chunk in later)

    # -- back-pressure ---------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether not more is unacknowledged than may be, by the last `look`."""
        return self.head <= self._most_events and self._total <= self._most_bytes

    def look(self) -> None:
        """Let as much be under way behind what is acknowledged as half the bounds."""
        self._trim()
        # At least one event may be, whatever the bounds.
        self._most_events = self.acknowledged + max(1, self._max_events // 2)
        self._most_bytes = self._end(self.acknowledged) + self._max_bytes // 2

    def note(self, place: int, outstanding: int) -> None:
        """Note what the peer has acknowledged of all through *place*.

        Args:
            place: The number of the last event that was written to it.
            outstanding: How many of the bytes written it has not acknowledged. They
                may hold more than events (chunk sizes, heartbeats), so that what is
                taken for acknowledged is never too much.
        """
        had = self._end(place) - outstanding
        self.acknowledged = max(
            self.acknowledged, self._floor + bisect_right(self._ends, had)
        )
