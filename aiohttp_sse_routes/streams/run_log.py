"""The log of one private run: what its one reader has not acknowledged, and the newest.

Law: an event leaves the log only when its reader's peer has acknowledged it and the log
is full. Numbers begin at 1 and have no holes. What is kept of an event is the frame
that was written, and nothing else: where it is, and how long, is counted when it is
asked for, which is seldom.
"""

from __future__ import annotations

__all__ = ("RunLog",)

from collections.abc import Sequence
from itertools import islice, repeat

from ..wire import join, unframe


class RunLog:
    """A run's events, by number from 1 on.

    Args:
        max_events: How many events to keep.
        max_bytes: How many bytes of them to keep, in all. The newest is kept always.

    Attributes:
        head: The number of the newest event.
        acknowledged: The number of the newest of which the peer has every byte.
    """

    __slots__ = (
        "_base",
        "_chunks",
        "_floor",
        "_held",
        "_max_bytes",
        "_max_events",
        "_most_bytes",
        "_most_events",
        "_total",
        "acknowledged",
        "head",
    )

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.head = self.acknowledged = 0
        self._held = 0  # how many of the newest a live reader does not have yet
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._chunks: list[bytes] = []  # the frame of each event behind the floor
        self._floor = 0
        # In bytes of frames, which is what has gone out:
        self._base = 0  # all that was dropped
        self._total = 0  # all that was ever added
        self.look()

    def __len__(self) -> int:
        return self.head - self.floor

    @property
    def delivered(self) -> int:
        """The number of the newest that a live reader has."""
        return self.head - self._held

    @property
    def nbytes(self) -> int:
        """The bytes kept."""
        self._trim()
        return self._total - self._base - _framing(self._chunks)

    @property
    def floor(self) -> int:
        """The number of the newest event that is gone."""
        # What is over the bounds goes when it is asked for, or at a look: not each time
        # that an event is added.
        self._trim()
        return self._floor

    def _trim(self) -> None:
        """Drop the oldest events while the log is over its bounds."""
        may_go = min(self.acknowledged, self.delivered, self.head - 1) - self._floor
        if may_go <= 0:
            return
        chunks = self._chunks
        count = min(max(0, len(chunks) - self._max_events), may_go)
        base = self._base + sum(map(len, islice(chunks, count)))
        over = self._total - base - self._max_bytes
        if over > 0:
            # Seldom, for it asks each of them.
            over -= _framing(chunks[count:])
        while over > 0 and count < may_go:
            base += len(chunks[count])
            over -= len(unframe(chunks[count]))
            count += 1
        self._base = base
        self._floor += count
        del chunks[:count]

    def _after(self, place: int) -> int:
        """Return the bytes of all events after *place*."""
        return sum(map(len, self._chunks[max(0, place - self._floor) :]))

    def _batch(self, place: int, limit: int) -> int:
        """Return the last event after *place* of so many bytes; one at least."""
        last, size = place, 0
        for chunk in islice(
            self._chunks, place - self._floor, self.delivered - self._floor
        ):
            size += len(chunk)
            if size > limit and last > place:
                break
            last += 1
        return last

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
        had = self._total - self._after(self.acknowledged)
        self._most_bytes = had + self._max_bytes // 2

    def note(self, place: int, outstanding: int) -> None:
        """Note what the peer has acknowledged of all through *place*.

        Args:
            place: The number of the last event that was written to it.
            outstanding: How many of the bytes written it has not acknowledged. They
                may hold more than events (chunk sizes, heartbeats), so that what is
                taken for acknowledged is never too much.
        """
        count = place - self._floor
        while count > 0 and outstanding > 0:
            count -= 1
            # Without what its own frame has around it: it may have gone out in one
            # chunk with others.
            outstanding -= len(unframe(self._chunks[count]))
        self.acknowledged = max(self.acknowledged, self._floor + count)


def _framing(chunks: Sequence[bytes]) -> int:
    """Return how many bytes the frames *chunks* have around what is in them."""
    ends = map(bytes.index, chunks, repeat(b"\n"))
    return sum(ends) + len(chunks) * len(b"\n\r\n")
