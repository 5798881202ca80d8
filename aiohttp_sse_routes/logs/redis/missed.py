"""Reads what was published while nobody heard it, in the order of its numbers.

Law: memory and answers are bounded, however much was missed and in however many
channels. What is too much is left out, the oldest first, and never a channel's newest
entry: its ``prev`` tells that there was more.
"""

from __future__ import annotations

__all__ = ("Missed",)

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ..entry import Entry, Page
from .remote import Remote, Status

_PAGE: Final = 524_288
"""Bytes of one answer."""

_TOGETHER: Final = 500
"""Channels that one call reads; with more, all is read before any is handed on."""

_MOST: Final = 33_554_432
"""Bytes that are held for being put in order."""


class Missed:
    """The entries behind a place, a page at a time.

    Args:
        remote: The log.
        status: What it is: entries through its head are read.
        after: The place.
        miss: Told of what is gone behind the place, before what comes after it.

    Attributes:
        place: Through which number everything was returned.
    """

    def __init__(
        self,
        remote: Remote,
        status: Status,
        after: int,
        miss: Callable[[Mapping[str, int]], None],
    ) -> None:
        self.place = after
        self._remote = remote
        self._generation = status.generation
        self._head = status.head
        self._miss = miss
        self._channels: dict[str, int] | None = None

    async def more(self) -> Sequence[Entry] | None:
        """Return the next entries; None at the end, or in another generation.

        Raises:
            StoreUnavailable: the log cannot be read now.
        """
        head = self._head
        if self.place >= head:
            return None
        if self._channels is None:
            self._channels = await self._remote.changed(self.place)
        names = [name for name, last in self._channels.items() if last > self.place]
        if len(names) > _TOGETHER:
            entries = await self._all(names, head)
            if entries is not None:
                self.place = head
            return entries
        page = await self._page(names, self.place, head)
        if page is None:
            return None
        self._tell(page.floors)
        self.place = page.place
        return page.entries

    def _tell(self, floors: Mapping[str, int]) -> None:
        if floors:
            self._miss(floors)

    async def _page(
        self, names: Sequence[str], after: int, through: int
    ) -> Page | None:
        generation, head, _, page = await self._remote.read(
            names, after, through, _PAGE
        )
        if generation != self._generation:
            return None
        if page.floors and max(page.floors.values()) > self._head:
            # More is gone than there was at first. Which of it was there then cannot
            # be known: so all that there is now is read, and no floor is above that.
            self._head, self._channels = head, None
        return page

    async def _all(self, names: Sequence[str], head: int) -> Sequence[Entry] | None:
        entries: list[Entry] = []
        floors: dict[str, int] = {}
        for start in range(0, len(names), _TOGETHER):
            group = names[start : start + _TOGETHER]
            place = self.place
            while place < head:
                page = await self._page(group, place, head)
                if page is None:
                    return None
                floors |= page.floors
                entries += page.entries
                place = page.place
                entries = _shrunk(entries, floors)
        self._tell(floors)
        return sorted(entries)


def _shrunk(entries: list[Entry], floors: dict[str, int]) -> list[Entry]:
    """Return *entries* without the oldest, while they are too many bytes.

    What is left out is noted in *floors*.
    """
    over = sum(len(entry.lines) for entry in entries) - _MOST
    if over <= 0:
        return entries
    entries.sort()
    newest = {entry.channel: entry.seq for entry in entries}
    kept = []
    for entry in entries:
        if over > 0 and entry.seq != newest[entry.channel]:
            over -= len(entry.lines)
            floors[entry.channel] = max(entry.seq, floors.get(entry.channel, 0))
        else:
            kept.append(entry)
    return kept
