"""A bounded log in memory: what readers that come back, or fall behind, are given.

Law: entries are in the order of their numbers, which only grow; what was dropped is
known exactly by `Ring.floor`, so that a gap is told if and only if there is one.
Nothing here waits, and no reader is known here.
"""

from __future__ import annotations

__all__ = ("Lost", "Ring")

from bisect import bisect_right
from typing import Literal

Lost = Literal["expired", "reset", "restarted", "unknown"]
"""Why the log no longer has what is below its floor."""

# Dropping from a list's front moves the rest: done for many at a time.
_COMPACT = 64


class Ring:
    """Blocks by number, at most so many and so many bytes.

    Args:
        start: The number before the first one.
        max_events: How many entries to keep.
        max_bytes: How many bytes to keep, in all. The newest entry is kept always.

    Attributes:
        floor: The number of the newest entry that is gone: a reader at a place below
            it has missed something.
        lost: Why it has.
        head: The number of the newest entry.
    """

    __slots__ = (
        "_base",
        "_blocks",
        "_ends",
        "_first",
        "_seqs",
        "_total",
        "floor",
        "head",
        "lost",
        "max_bytes",
        "max_events",
    )

    def __init__(self, start: int, *, max_events: int, max_bytes: int) -> None:
        self.floor = start
        self.lost: Lost = "unknown"
        self.head = start
        self.max_events = max_events
        self.max_bytes = max_bytes
        # Three lists side by side: the number, the block, and the bytes of all blocks
        # up to and with it, so that places by bytes are found by bisection. What lies
        # before _first is dropped already.
        self._seqs: list[int] = []
        self._blocks: list[bytes] = []
        self._ends: list[int] = []
        self._first = 0
        self._base = 0  # bytes of all that was dropped
        self._total = 0  # bytes of all that was ever added

    def __len__(self) -> int:
        return len(self._seqs) - self._first

    @property
    def nbytes(self) -> int:
        """The bytes kept."""
        return self._total - self._base

    def append(self, seq: int, block: bytes) -> None:
        """Add the entry *seq*, which is higher than any before."""
        self._total += len(block)
        self._seqs.append(seq)
        self._blocks.append(block)
        self._ends.append(self._total)
        self.head = seq

    def trim(self, through: int | None = None) -> None:
        """Drop the oldest entries while the ring is over its bounds.

        Args:
            through: The newest number that may be dropped; None for any.
        """
        seqs, first, stop = self._seqs, self._first, len(self._seqs) - 1
        while first < stop and (
            stop - first >= self.max_events or self._total - self._base > self.max_bytes
        ):
            if through is not None and seqs[first] > through:
                break
            self.floor, self.lost = seqs[first], "expired"
            self._base = self._ends[first]
            first += 1
        self._drop_before(first)

    def drop(self, through: int) -> None:
        """Drop all entries through the number *through*."""
        first = self._index(through)
        if first > self._first:
            self.floor, self.lost = self._seqs[first - 1], "expired"
            self._base = self._ends[first - 1]
            self._drop_before(first)

    def _drop_before(self, first: int) -> None:
        if first == self._first:
            return
        self._first = first
        if first >= _COMPACT and first * 2 >= len(self._seqs):
            self._compact()

    def clear(self, seq: int, lost: Lost) -> None:
        """Forget everything through the new number *seq*, for the reason *lost*."""
        self._first = len(self._seqs)
        self._base = self._total
        self._compact()
        self.head = self.floor = seq
        self.lost = lost

    def after(self, place: int, through: int, limit: int) -> tuple[list[bytes], int]:
        """Return blocks after *place*, and the number of the last of them.

        Args:
            place: The number of the last entry that the reader has.
            through: The last number to return.
            limit: Stop after so many bytes; one block is returned at least.
        """
        low = self._index(place)
        high = self._index(through)
        if low >= high:
            return [], place
        if self._ends[high - 1] - self._end(low) > limit:
            high = bisect_right(self._ends, self._end(low) + limit, low, high)
            high = max(high, low + 1)
        return self._blocks[low:high], self._seqs[high - 1]

    @property
    def over(self) -> bool:
        """Whether it holds more than its bounds, and more than the newest entry."""
        count = len(self)
        return count > 1 and (count > self.max_events or self.nbytes > self.max_bytes)

    @property
    def oldest(self) -> int | None:
        """The number of the oldest entry that is kept; None if none is."""
        return self._seqs[self._first] if len(self._seqs) > self._first else None

    def pop(self) -> tuple[int, bytes]:
        """Drop the oldest entry, of which there is one, and return it."""
        first = self._first
        entry = self._seqs[first], self._blocks[first]
        self.floor, self.lost = entry[0], "expired"
        self._base = self._ends[first]
        self._drop_before(first + 1)
        return entry

    def between(
        self, place: int, through: int, limit: int | None = None
    ) -> list[tuple[int, bytes]]:
        """Return entries after *place*, through *through*, with their numbers.

        Args:
            place: The number of the last entry that is not wanted.
            through: The last number to return.
            limit: Stop with the first entry that goes over so many bytes.
        """
        low, high = self._index(place), self._index(through)
        if limit is not None and low < high:
            over = bisect_right(self._ends, self._end(low) + limit, low, high)
            high = min(high, over + 1)
        return list(zip(self._seqs[low:high], self._blocks[low:high], strict=True))

    def last(self, through: int) -> int:
        """Return the newest number that is at most *through*, or else the floor."""
        index = self._index(through)
        return self._seqs[index - 1] if index > self._first else self.floor

    def newest(self, count: int, through: int) -> int:
        """Return the place from which the newest *count* entries are read."""
        index = max(self._first, self._index(through) - count)
        return self._seqs[index - 1] if index > self._first else self.floor

    def acknowledged(self, place: int, outstanding: int) -> int:
        """Return the last number of which the peer has every byte.

        Args:
            place: The last number that was written to it.
            outstanding: How many of the bytes written it has not acknowledged. They
                may hold more than blocks (chunk sizes, heartbeats), so that the answer
                is never too high.
        """
        written = self._end(self._index(place))
        index = bisect_right(self._ends, written - outstanding, self._first)
        return self._seqs[index - 1] if index > self._first else self.floor

    def weight_after(self, place: int) -> tuple[int, int]:
        """Return how many entries and bytes come after *place*."""
        index = self._index(place)
        return len(self._seqs) - index, self._end(len(self._ends)) - self._end(index)

    def _index(self, place: int) -> int:
        return bisect_right(self._seqs, place, self._first)

    def _end(self, index: int) -> int:
        """Return the bytes of all entries before the one at *index*."""
        return self._ends[index - 1] if index > self._first else self._base

    def _compact(self) -> None:
        del self._seqs[: self._first]
        del self._blocks[: self._first]
        del self._ends[: self._first]
        self._first = 0
