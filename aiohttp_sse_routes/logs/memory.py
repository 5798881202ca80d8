"""The store of one process: a log in memory, gone with the process.

Law: nothing waits here. An append is in the log and with its followers before the call
returns; a log that has begun anew has another generation, so that a place in the old
one is never taken for a place in the new.
"""

from __future__ import annotations

__all__ = ("MemoryLog", "MemoryStore")

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from ..cursor import Cursor, new_generation
from ..errors import ConfigurationError, LeaseLost, StoreError
from .entry import Appended, Bounds, Draft, Entry, Fence, Lease, Lineage, Page
from .ring import Ring
from .store import IDEMPOTENCY_SECONDS, Follower, Store

_NEVER: Final = float("inf")

_UNWANTED: Final = 3600.0
"""Seconds after which nothing is known any more of a lease that nobody wants."""


class MemoryLog:
    """Channels of blocks in memory.

    Attributes:
        generation: The name of this log, different from any other's.
        head: The number of the newest entry of all channels.
        prefix: What its entries' ids are before their number.
    """

    def __init__(self) -> None:
        self.generation = new_generation()
        self.prefix = Cursor("l", self.generation, 0).prefix
        self.head = 0

    def number(self) -> int:
        """Return the number of the next entry."""
        self.head += 1
        return self.head

    def channel(self, *, max_events: int, max_bytes: int) -> Ring:
        """Return a new channel: places before now are unknown to it."""
        return Ring(self.number(), max_events=max_events, max_bytes=max_bytes)


class MemoryStore(Store):
    """Keeps channels' events in the memory of this process.

    After a restart a client that comes back is told ``sse-gap`` ``reset``. With several
    workers each has its own: take `SQLiteStore` or `RedisStore`.

    Args:
        max_events: The most events of a channel.
        max_age: The most seconds that an event is kept.
        max_bytes: The most bytes of a channel; None for no bound of its own.
        max_total_bytes: The most bytes of all channels; over it the oldest events go.

    Raises:
        ConfigurationError: a bound is wrong.
    """

    complete = True
    shared = False

    def __init__(
        self,
        *,
        max_events: int = 1000,
        max_age: float = 3600,
        max_bytes: int | None = None,
        max_total_bytes: int = 268_435_456,
    ) -> None:
        total = max_total_bytes
        if isinstance(total, bool) or not isinstance(total, int) or total < 1:
            raise ConfigurationError(
                f"MemoryStore(max_total_bytes={total!r}) must be an int of at least 1"
            )
        super().__init__(Bounds(max_events, max_age, max_bytes), memory=max_total_bytes)
        self._now: Callable[[], float] | None = None
        # Those first that were first.
        self._published: OrderedDict[tuple[str, str], tuple[float, Appended]] = (
            OrderedDict()
        )
        self._leases: dict[str, _Held] = {}
        # One for all names and openings, so that a lease may be forgotten.
        self._numbers = itertools.count(1)

    async def open(
        self, follower: Follower | None, *, now: Callable[[], float]
    ) -> None:
        """See `Store.open`. What an earlier opening kept is gone."""
        if self._now is not None:
            raise StoreError(
                "this MemoryStore is open already: give each application one of its own"
            )
        self._now = now
        self._follower = follower
        self._published.clear()
        self._leases.clear()
        self.lineage = None
        self.begin(Lineage(new_generation()), 0)

    async def close(self) -> None:
        """See `Store.close`."""
        self._now = self._follower = None

    async def append(
        self,
        channel: str,
        drafts: Sequence[Draft],
        *,
        idempotency_key: str | None = None,
        fence: Fence | None = None,
        bounds: Bounds | None = None,
    ) -> Appended:
        """See `Store.append`."""
        now = self._time()
        if fence is not None:
            held = self._leases.get(fence.name)
            if held is None or held.number != fence.number or held.until <= now:
                raise LeaseLost(f"the lease {fence.name!r} is not held any more")
        if idempotency_key is not None:
            known = self._published.get((channel, idempotency_key))
            if known is not None and now - known[0] < IDEMPOTENCY_SECONDS:
                return known[1]._replace(repeated=True)
        assert self.lineage is not None
        head, prev = self.tail.head, self.tail.last(channel)
        entries = []
        for seq, draft in enumerate(drafts, head + 1):
            entries.append(Entry(seq, prev, channel, draft.lines, draft.key))
            prev = seq
        done = Appended(self.lineage.generation, head + 1, prev)
        if idempotency_key is not None:
            self._published[channel, idempotency_key] = now, done
            self._published.move_to_end((channel, idempotency_key))
        self.deliver(entries, bounds)
        # Their age counts from now, not from the next tick.
        self.tail.expire(now)
        return done

    async def read(
        self, channels: Sequence[str], after: int, through: int, *, limit: int
    ) -> Page:
        """See `Store.read`."""
        self._time()
        floors = {
            name: floor for name in channels if (floor := self.tail.floor(name)) > after
        }
        entries = sorted(
            Entry(seq, prev, name, lines, key)
            for name in channels
            for seq, prev, lines, key in self.tail.items(name, after, through)
        )
        size = 0
        for index, entry in enumerate(entries):
            size += len(entry.lines)
            if index and size > limit:
                return Page(entries[:index], entries[index - 1].seq, floors)
        return Page(entries, through, floors)

    async def newest(self, channels: Sequence[str], count: int, through: int) -> int:
        """See `Store.newest`."""
        self._time()
        return self.tail.newest(channels, count, through)

    async def head(self) -> int:
        """See `Store.head`."""
        self._time()
        return self.tail.head

    async def lease(
        self, name: str, holder: str, seconds: float, *, wanted: bool
    ) -> Lease:
        """See `Store.lease`."""
        now = self._time()
        held = self._leases.setdefault(name, _Held())
        if wanted:
            held.wanted = now
        if held.holder == holder and held.until > now:
            held.until = now + seconds
        elif held.until <= now:
            held.holder, held.until = holder, now + seconds
            held.number = next(self._numbers)
        mine = held.number if held.holder == holder else None
        return Lease(mine, now - held.wanted)

    async def release(self, fence: Fence) -> None:
        """See `Store.release`."""
        self._time()
        held = self._leases.get(fence.name)
        if held is not None and held.number == fence.number:
            held.until = -_NEVER

    def refresh(self) -> None:
        """See `Store.refresh`."""
        if self._now is not None:
            self.tail.expire(self._now())

    def tick(self, now: float) -> None:
        """See `Store.tick`."""
        super().tick(now)
        while self._published:
            key, (then, _) = next(iter(self._published.items()))
            if now - then < IDEMPOTENCY_SECONDS:
                break
            del self._published[key]
        for name in [name for name, held in self._leases.items() if held.over(now)]:
            del self._leases[name]

    def _time(self) -> float:
        if self._now is None:
            raise StoreError("this MemoryStore is not open")
        return self._now()


class _Held:
    """A lease, as it stands."""

    def __init__(self) -> None:
        self.holder = ""
        self.number = 0
        self.until = -_NEVER
        self.wanted = -_NEVER

    def over(self, now: float) -> bool:
        """Whether nobody holds it, or has wanted it for long."""
        return self.until <= now and now - self.wanted > _UNWANTED
