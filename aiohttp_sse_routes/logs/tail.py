"""The newest part of a log in memory: what readers are given without asking a store.

Law: of each channel, the number of the newest entry that is not here any more is known
exactly, also when nothing of the channel is left; where even that had to be forgotten,
something is taken to be gone. Memory is bounded: by channel, in all, and in the number
of channels that are remembered.
"""

from __future__ import annotations

__all__ = ("Tail",)

import heapq
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from .conflation import Latest
from .entry import Bounds, Entry
from .ring import Ring

_NO_BOUND: Final = 1 << 62

_MARKS: Final = 64
"""Marks of time that an age is divided into: an entry may live so much longer."""

_MAX_FLOORS: Final = 100_000
"""Channels of which nothing is left but the number of the newest that is gone."""


class Tail:
    """Rings of blocks by channel, over one sequence of numbers.

    Args:
        bounds: What a channel holds.
        max_total_bytes: What all hold together; over it the oldest entries go first.

    Attributes:
        head: The number through which everything is known.
        prefix: What an id is before its number.
        base: Of a channel that is not known, something through here may be gone.
        nbytes: The bytes of all blocks.
    """

    def __init__(self, bounds: Bounds, *, max_total_bytes: int) -> None:
        self.bounds = bounds
        self.max_total_bytes = max_total_bytes
        self.head = 0
        self.base = 0
        self.nbytes = 0
        self.prefix = ""
        self._id_line = b""
        self._rings: dict[str, Ring] = {}
        self._latest: dict[str, Latest] = {}
        # Of channels of which nothing is left, those first that went first.
        self._floors: OrderedDict[str, int] = OrderedDict()
        # One item for each ring: its oldest number, as it was at some time.
        self._oldest: list[tuple[int, str]] = []
        # When the head was where, side by side.
        self._times: list[float] = []
        self._heads: list[int] = []

    # -- what comes in ---------------------------------------------------------------

    def begin(self, prefix: str, head: int, *, reset: bool) -> None:
        """Go on with ids that begin with *prefix*.

        Args:
            prefix: What an id is before its number.
            head: The log's newest number.
            reset: Whether the log is another one: forget everything.
        """
        self.prefix = prefix
        self._id_line = f"id: {prefix}".encode()
        if reset:
            self._rings.clear()
            self._latest.clear()
            self._floors.clear()
            self._oldest.clear()
            self._times.clear()
            self._heads.clear()
            self.nbytes = 0
            self.base = self.head = head

    def add(self, entry: Entry, bounds: Bounds | None = None) -> bytes:
        """Add *entry*, which is newer than all; return its block with its ``id``.

        Args:
            entry: The entry.
            bounds: What its channel holds, in place of the tail's own bounds, from the
                channel's first entry on.
        """
        seq, channel = entry.seq, entry.channel
        block = b"%b%d\n%b" % (self._id_line, seq, entry.lines)
        self.head = seq
        ring = self._rings.get(channel)
        if ring is None:
            ring = self._new_ring(entry, bounds or self.bounds)
        latest = self._latest.get(channel)
        before = _weight(ring, latest)
        if entry.prev > ring.head:
            # Entries between were never seen here.
            ring.clear(entry.prev, "expired")
            if latest is not None:
                latest = None
                del self._latest[channel]
        ring.append(seq, block)
        if entry.key is not None:
            if latest is None:
                latest = self._latest[channel] = _latest_of(ring)
            latest.add(seq, entry.key)
        if latest is None:
            ring.trim()
        else:
            while ring.over:
                latest.dropped(*ring.pop())
        self.nbytes += _weight(ring, latest) - before
        if self.nbytes > self.max_total_bytes:
            self._make_room()
        return block

    def miss(self, channel: str, through: int) -> None:
        """Note that of *channel* everything through *through* is gone, unseen here."""
        ring = self._rings.get(channel)
        if ring is None:
            self._remember(channel, max(through, self.floor(channel)))
        elif through > ring.head:
            self.nbytes -= _weight(ring, self._latest.pop(channel, None))
            ring.clear(through, "expired")

    def _new_ring(self, entry: Entry, bounds: Bounds) -> Ring:
        # The chain knows better than what is remembered of the channel, if anything is.
        self._floors.pop(entry.channel, None)
        limit = _NO_BOUND if bounds.max_bytes is None else bounds.max_bytes
        ring = Ring(entry.prev, max_events=bounds.max_events, max_bytes=limit)
        ring.lost = "expired"
        self._rings[entry.channel] = ring
        heapq.heappush(self._oldest, (entry.seq, entry.channel))
        return ring

    # -- what goes -------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Drop what is older than the bounds allow."""
        age, times, heads = self.bounds.max_age, self._times, self._heads
        if not heads or heads[-1] != self.head:
            if len(times) > 1 and now - times[-2] < age / _MARKS:
                times[-1], heads[-1] = now, self.head
            else:
                times.append(now)
                heads.append(self.head)
        index = bisect_right(times, now - age)
        if index:
            through = heads[index - 1]
            while self._oldest and self._oldest[0][0] <= through:
                self._drop_oldest(through)
            del times[: index - 1], heads[: index - 1]

    def _make_room(self) -> None:
        """Drop the oldest entries of all, but never the newest one."""
        while self.nbytes > self.max_total_bytes:
            seq, _ = self._oldest[0]
            if seq == self.head:
                break
            self._drop_oldest(seq)

    def _drop_oldest(self, through: int) -> None:
        """Drop, through *through*, from the channel that is oldest; or file it anew."""
        channel = self._oldest[0][1]
        ring, latest = self._rings[channel], self._latest.get(channel)
        before = _weight(ring, latest)
        if latest is None:
            ring.drop(through)
        else:
            while ring.oldest is not None and ring.oldest <= through:
                latest.dropped(*ring.pop())
            latest.lose(through)
        self.nbytes += _weight(ring, latest) - before
        oldest = latest.oldest if latest is not None else None
        if oldest is None:
            oldest = ring.oldest
        if oldest is None:
            self._forget(channel, ring.floor)
        else:
            heapq.heapreplace(self._oldest, (oldest, channel))

    def _forget(self, channel: str, floor: int) -> None:
        """Remember of *channel*, which is oldest and empty, no more than its floor."""
        heapq.heappop(self._oldest)
        del self._rings[channel]
        self._latest.pop(channel, None)
        self._remember(channel, floor)

    def _remember(self, channel: str, floor: int) -> None:
        self._floors[channel] = floor
        while len(self._floors) > _MAX_FLOORS:
            _, floor = self._floors.popitem(last=False)
            self.base = max(self.base, floor)

    # -- what is asked ---------------------------------------------------------------

    @property
    def channels(self) -> int:
        """How many channels there is anything of here."""
        return len(self._rings)

    def floor(self, channel: str) -> int:
        """Return the number of the newest entry of *channel* that may not be here."""
        ring = self._rings.get(channel)
        if ring is not None:
            return ring.floor
        return self._floors.get(channel, self.base)

    def last(self, channel: str) -> int:
        """Return the number of the newest entry of *channel*, here or gone."""
        ring = self._rings.get(channel)
        return ring.head if ring is not None else self.floor(channel)

    def after(
        self, channels: Sequence[str], place: int, through: int, limit: int
    ) -> tuple[list[bytes], int]:
        """Return blocks of *channels* after *place*, and the place behind them.

        Args:
            channels: Names.
            place: The number of the last entry that the reader has.
            through: The last number to return.
            limit: Stop after so many bytes; one block is returned at least.
        """
        rings = [
            ring
            for name in channels
            if (ring := self._rings.get(name)) is not None and ring.head > place
        ]
        if len(rings) == 1:
            blocks, last = rings[0].after(place, through, limit)
            more = blocks and last < rings[0].last(through)
            return blocks, last if more else through
        parts = [ring.between(place, through, limit) for ring in rings]
        return _merged(parts, through, limit)

    def items(
        self, channel: str, place: int, through: int
    ) -> list[tuple[int, int, bytes, str | None]]:
        """Return number, previous number, lines and key of entries after *place*."""
        ring, latest = self._rings.get(channel), self._latest.get(channel)
        if ring is None:
            return []
        found = []
        prev = ring.last(place)
        for seq, block in ring.between(place, through):
            key = latest.key(seq) if latest is not None else None
            found.append((seq, prev, block[block.index(b"\n") + 1 :], key))
            prev = seq
        return found

    def newest(self, channels: Sequence[str], count: int, through: int) -> int:
        """Return the place from which the newest *count* of *channels* are read."""
        seqs: list[int] = []
        for name in channels:
            ring = self._rings.get(name)
            if ring is not None and count > 0:
                place = ring.newest(count, through)
                seqs += [seq for seq, _ in ring.between(place, through)]
        return sorted(seqs)[-count:][0] - 1 if seqs else through

    def conflated(
        self, channel: str, place: int, through: int
    ) -> tuple[list[tuple[int, bytes]], int]:
        """Return the newest events of *channel* by key, after *place*.

        Returns:
            They, with the events that have no key and are held, in order; and the
            number of the newest event that is gone without a newer one of its key.
        """
        ring, latest = self._rings.get(channel), self._latest.get(channel)
        if ring is None:
            return [], self.floor(channel)
        held = ring.between(place, through)
        if latest is None:
            return held, ring.floor
        held = [item for item in held if not latest.superseded(item[0])]
        return latest.between(place, through) + held, latest.lost


def _weight(ring: Ring, latest: Latest | None) -> int:
    return ring.nbytes if latest is None else ring.nbytes + latest.nbytes


def _latest_of(ring: Ring) -> Latest:
    return Latest(ring.floor, max_events=ring.max_events, max_bytes=ring.max_bytes)


def _merged(
    parts: Iterable[list[tuple[int, bytes]]], through: int, limit: int
) -> tuple[list[bytes], int]:
    """Return blocks of *parts* in order, and the place behind them.

    A part that was cut off before *through* goes over *limit* by itself: a page that
    has come to its end is over it too.
    """
    blocks: list[bytes] = []
    size, last = 0, through
    for seq, block in heapq.merge(*parts):
        if blocks and size + len(block) > limit:
            return blocks, last
        blocks.append(block)
        size += len(block)
        last = seq
    return blocks, through if size <= limit else last
