"""Follows the log: takes what was heard, and reads what was not.

Law: entries are handed on in the order of their numbers. A message is handed on only
where its first number is the one that comes next; anything else is a reason to read
the log, which alone says what is in it.
"""

from __future__ import annotations

__all__ = ("Follow",)

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from ..entry import Bounds, Entry, Lineage
from ..store import Store
from .given import Given
from .missed import Missed
from .remote import Remote, Status
from .words import live

_SLICE: Final = 200
"""Entries that are handed on before the loop has its turn."""

_BOUNDED: Final = 10_000
"""Channels whose own bounds are known."""

_REMEMBERED: Final = 604_800.0
"""Seconds that a loss is remembered: a week."""


class Follow:
    """What one process knows of the log, and tells its store.

    Args:
        store: Which is told.
        remote: The log.
        hurry: Called when a look at the log is due.
        follows: Whether entries are wanted.

    Attributes:
        head: The number through which everything was handed on.
    """

    def __init__(
        self,
        store: Store,
        remote: Remote,
        hurry: Callable[[], None],
        *,
        follows: bool,
    ) -> None:
        self.head = 0
        self._store = store
        self._remote = remote
        self._hurry = hurry
        self._follows = follows
        self._losses = 0
        self._lost: dict[str, int] = {}
        self._unreported: dict[str, int] = {}
        self._given = Given()
        self._bounds: dict[str, Bounds] = {}

    def gave(self, channel: str, generation: str, seq: int) -> None:
        """Learn that an append of this process had the answer *seq*."""
        self._given.note(generation, channel, seq)
        lineage = self._store.lineage
        if lineage is not None and generation != lineage.generation:
            # It is of a generation not noticed here yet, or of one that has ended.
            self._witness(lineage)
            self._hurry()

    def bound(self, channel: str, bounds: Bounds) -> None:
        """Note that *channel* holds something else than the store's bounds say."""
        if self._bounds.get(channel) != bounds:
            self._bounds[channel] = bounds
            if len(self._bounds) > _BOUNDED:
                del self._bounds[next(iter(self._bounds))]

    # -- what was heard ----------------------------------------------------------------

    async def take(self, messages: Sequence[bytes]) -> None:
        """Hand on what *messages* tell, and read what they do not."""
        ready: list[Entry] = []
        for message in messages:
            heard = live(message)
            if heard is None or not self._next(*heard):
                if heard is not None and self._known(*heard):
                    continue
                await self._hand_on(ready)
                ready = []
                await self.look()
                if heard is None or not self._next(*heard):
                    continue
            ready += heard[1]
            self.head = ready[-1].seq
            if len(ready) >= _SLICE:
                await self._hand_on(ready)
                ready = []
        await self._hand_on(ready)

    def _next(self, generation: str, entries: Sequence[Entry]) -> bool:
        return entries[0].seq == self.head + 1 and generation == self._generation

    def _known(self, generation: str, entries: Sequence[Entry]) -> bool:
        return entries[-1].seq <= self.head and generation == self._generation

    @property
    def _generation(self) -> str:
        lineage = self._store.lineage
        return "" if lineage is None else lineage.generation

    async def _hand_on(self, entries: Sequence[Entry]) -> None:
        """Hand *entries* on, and give the loop its turn between many."""
        for start in range(0, len(entries), _SLICE):
            part = entries[start : start + _SLICE]
            for entry in part:
                self._given.note(self._generation, entry.channel, entry.seq)
            for bounds, run in groupby(part, self._bounds_of):
                self._store.deliver(list(run), bounds)
            await asyncio.sleep(0)

    def _bounds_of(self, entry: Entry) -> Bounds | None:
        return self._bounds.get(entry.channel)

    # -- what is read ------------------------------------------------------------------

    async def look(self) -> None:
        """Ask what the log is, and read what was missed of it."""
        while True:
            status = await self._status()
            if not self._follows:
                self.head = status.head
                return
            missed = Missed(self._remote, status, self.head, self._store.miss)
            while (entries := await missed.more()) is not None:
                await self._hand_on(entries)
                self.head = missed.place
            if self.head >= status.head:
                return

    async def check(self) -> int:
        """Return the log's head; if it is of another generation, look closer."""
        before = self._generation
        status = await self._status()
        if self._generation != before:
            await self.look()
        return status.head

    async def _status(self) -> Status:
        """Ask what the log is, and note another generation or another loss."""
        status = await self._remote.status()
        if status.generation != self._generation:
            await self._begin(status)
        elif status.losses != self._losses:
            lost = await self._remote.lost()
            self._losses = status.losses
            self._lose(lost)
        while self._unreported:
            await self._report()
        return status

    async def _report(self) -> None:
        """Report what was witnessed; what is witnessed meanwhile stays for the next."""
        told = dict(self._unreported)
        await self._remote.report(told, _REMEMBERED)
        for name, seq in told.items():
            if self._unreported.get(name) == seq:
                del self._unreported[name]

    async def _begin(self, status: Status) -> None:
        """Go on in another generation."""
        lost = await self._remote.lost()
        self._losses = status.losses
        known, place = self._store.lineage, status.head
        goes_on = known is not None and known.generation in status.forks
        if not goes_on:
            self._lost, self._unreported = lost, {}
            # All that is in another log was published after the old one's end.
            self.head = place = status.head if known is None else status.start
        lineage = Lineage(status.generation, status.forks, dict(self._lost))
        self._store.begin(lineage, place)
        self._lose(lost)
        self._witness(lineage)

    def _witness(self, lineage: Lineage) -> None:
        """Report what this process knows to be lost."""
        lost = self._given.lost(lineage)
        if lost:
            self._lose(lost)
            for name, seq in lost.items():
                self._unreported[name] = max(seq, self._unreported.get(name, 0))
            self._hurry()

    def _lose(self, lost: Mapping[str, int]) -> None:
        news = {
            name: seq for name, seq in lost.items() if seq > self._lost.get(name, 0)
        }
        lineage = self._store.lineage
        if news and lineage is not None:
            self._lost.update(news)
            self._store.lose(replace(lineage, lost=dict(self._lost)), news)
