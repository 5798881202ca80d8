"""The log in Redis as calls: arguments into words for its scripts, answers into values.

Law: this is the only place that knows the names of keys and the order of words. All
keys of a namespace share a hash slot; the name of its Pub/Sub channel holds the number
of the database, of which Pub/Sub knows nothing.
"""

from __future__ import annotations

__all__ = ("Answer", "Remote", "Repeated", "Status")

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ...cursor import new_generation
from ...errors import LeaseLost
from ..entry import Appended, Bounds, Draft, Entry, Fence, Lease, Page
from .link import Link
from .scripts import (
    APPEND,
    CHANGED,
    LEASE,
    NEWEST,
    READ,
    RELEASE,
    REPORT,
    STATUS,
)
from .wire import Server
from .words import forks, understood, written

_DAY: Final = 86_400_000
"""Milliseconds that a lease is remembered when nobody asks for it."""

# What Lua counts exactly.
_LAST: Final = (1 << 53) - 1

_REPORTED: Final = 1000
"""Channels in one report of a loss."""


class Status(NamedTuple):
    """What the log is now.

    Attributes:
        generation: Its generation.
        head: Its newest number.
        start: The number before the generation's first.
        forks: As in a lineage.
        losses: How often a loss was reported.
    """

    generation: str
    head: int
    start: int
    forks: Mapping[str, int]
    losses: int


class Answer(NamedTuple):
    """What was read of the log, and what the log was in the same moment.

    Attributes:
        generation: Its generation.
        head: Its newest number.
        forks: As in a lineage.
        page: What was read.
    """

    generation: str
    head: int
    forks: Mapping[str, int]
    page: Page


class Repeated(NamedTuple):
    """What makes an append a repetition of another.

    Attributes:
        key: The two have it in common.
        asker: Whose append it is: when that is tried again, it is still the first.
        seconds: How long the key is remembered.
    """

    key: str
    asker: bytes
    seconds: float


class Remote:
    """The log of one namespace, as one process reaches it.

    Args:
        server: Where it is.
        namespace: Its name there.
        bounds: What a channel holds.
        max_channels: How many channels of which nothing is left are remembered.

    Attributes:
        channel: The Pub/Sub channel on which its news are heard.
    """

    def __init__(
        self, server: Server, namespace: str, bounds: Bounds, max_channels: int
    ) -> None:
        self._server = server
        self._bounds = bounds
        self._max_channels = max_channels
        self._prefix = prefix = b"{%b}:" % namespace.encode()
        self.channel = b"%b%d:live" % (prefix, server.db)
        self._keys = [prefix + name for name in (b"m", b"l", b"n", b"x")]
        self._stream = prefix + b"c:"
        # Two, so that a publish does not wait behind a long page.
        self._writes = Link(server)
        self._reads = Link(server)

    async def close(self) -> None:
        """Wait for what is under way, for a while; end."""
        await self._writes.close()
        await self._reads.close()

    # -- what is written ---------------------------------------------------------------

    async def append(
        self,
        channel: str,
        drafts: Sequence[Draft],
        bounds: Bounds,
        repeated: Repeated | None,
        fence: Fence | None,
    ) -> Appended:
        """Append *drafts*; see `Store.append`."""
        name = channel.encode()
        keys = [*self._keys, self._stream + name]
        if repeated is not None:
            size = b"%d:" % len(name)
            digest = hashlib.sha256(size + name + repeated.key.encode()).hexdigest()
            keys.append(self._prefix + b"i:" + digest.encode())
        if fence is not None:
            keys.append(self._lease(fence.name))
        answer: bytes = await self._writes.run(
            APPEND,
            keys,
            new_generation().encode(),
            self.channel,
            name,
            self._stream,
            bounds.max_events,
            _ms(self._bounds.max_age),
            bounds.max_bytes or 0,
            _ms(repeated.seconds) if repeated is not None else 0,
            repeated.asker if repeated is not None else b"-",
            fence.number if fence is not None else b"",
            self._max_channels,
            *map(written, drafts),
        )
        if answer == b"F":
            assert fence is not None
            raise LeaseLost(f"the lease {fence.name!r} is not held any more")
        kind, generation, first, last, asker = answer.split(b" ")
        again = kind == b"R" and repeated is not None and asker != repeated.asker
        return Appended(generation.decode(), int(first), int(last), again)

    async def report(self, channels: Mapping[str, int], seconds: float) -> None:
        """Tell every process what was lost: the newest number by channel."""
        items = list(channels.items())
        keys = [self._keys[0], self._keys[3]]
        for start in range(0, len(items), _REPORTED):
            words: list[bytes | int] = []
            for name, number in items[start : start + _REPORTED]:
                words += [name.encode(), number]
            await self._writes.run(REPORT, keys, self.channel, _ms(seconds), *words)

    async def lease(
        self, name: str, holder: str, seconds: float, wanted: bool
    ) -> Lease:
        """Ask for a lease; see `Store.lease`."""
        number, wish = await self._writes.run(
            LEASE,
            [self._lease(name)],
            holder.encode(),
            _ms(seconds),
            b"1" if wanted else b"0",
            _DAY,
        )
        return Lease(
            int(number) if number else None,
            int(wish) / 1000 if wish else float("inf"),
        )

    async def release(self, fence: Fence) -> None:
        """Give a lease back; see `Store.release`."""
        await self._writes.run(RELEASE, [self._lease(fence.name)], fence.number)

    def _lease(self, name: str) -> bytes:
        return self._prefix + b"e:" + name.encode()

    # -- what is read ------------------------------------------------------------------

    async def about(self) -> dict[str, str]:
        """Return what Redis tells of itself, as far as it may be asked."""
        text: bytes = await self._reads.ask(b"INFO")
        lines = text.decode(errors="replace").splitlines()
        return {
            name: value for line in lines for name, _, value in [line.partition(":")]
        }

    async def status(self) -> Status:
        """Return what the log is now; begin it, or a new generation, where it must."""
        generation, head, start, places, losses = await self._reads.run(
            STATUS, self._keys, new_generation().encode()
        )
        return Status(
            generation.decode(), int(head), int(start), forks(places), int(losses)
        )

    async def lost(self) -> dict[str, int]:
        """Return the newest lost number of each channel for which one was reported."""
        flat: list[bytes] = await self._reads.ask(b"HGETALL", self._keys[3])
        return {
            name.decode(): int(number)
            for name, number in zip(flat[::2], flat[1::2], strict=True)
        }

    async def changed(self, after: int) -> dict[str, int]:
        """Return the channels with entries after *after*, and their newest numbers."""
        found: dict[str, int] = {}
        count = 5000
        while True:
            flat: list[bytes] = await self._reads.run(
                CHANGED, self._keys[:2], after, count
            )
            for name, number in zip(flat[::2], flat[1::2], strict=True):
                after = int(float(number))
                found[name.decode()] = after
            if len(flat) < 2 * count:
                return found

    async def read(
        self, channels: Sequence[str], after: int, through: int, limit: int
    ) -> Answer:
        """Return a page, and what the log was then; see `Store.read`."""
        names = [channel.encode() for channel in channels]
        answer: list[bytes] = await self._reads.run(
            READ,
            [*self._keys, *(self._stream + name for name in names)],
            new_generation().encode(),
            after,
            min(through, _LAST),
            limit,
            _ms(self._bounds.max_age),
            *names,
        )
        generation, head, places, place, floors, *found = answer
        entries = []
        for item in found:
            index, seq, prev, event = item.split(b" ", 3)
            lines, key = understood(event)
            name = channels[int(index) - 1]
            entries.append(Entry(int(seq), int(prev), name, lines, key))
        numbers = [int(number) for number in floors.split()]
        gone = {
            channels[index - 1]: floor
            for index, floor in zip(numbers[::2], numbers[1::2], strict=True)
        }
        end = through if int(place) == min(through, _LAST) else int(place)
        page = Page(entries, end, gone)
        return Answer(generation.decode(), int(head), forks(places), page)

    async def newest(self, channels: Sequence[str], count: int, through: int) -> int:
        """Return a place; see `Store.newest`."""
        if count < 1:
            return through
        names = [channel.encode() for channel in channels]
        place = int(
            await self._reads.run(
                NEWEST,
                [*self._keys, *(self._stream + name for name in names)],
                new_generation().encode(),
                count,
                min(through, _LAST),
                _ms(self._bounds.max_age),
                *names,
            )
        )
        return through if place == _LAST else place


def _ms(seconds: float) -> int:
    return max(1, min(round(seconds * 1000), _LAST))
