"""Follows the log: hears what is published, and reads what it did not hear.

Law: entries are handed on in the order of their numbers. A message is handed on only
where its first number is the one that comes next; anything else is a reason to read
the log, which alone says what is in it. Whatever fails here is tried again.
"""

from __future__ import annotations

__all__ = ("Watch",)

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from ..errors import StoreError, StoreUnavailable
from .entry import Bounds, Entry, Lineage
from .redis_ear import Ear
from .redis_errors import Unusable
from .redis_given import Given
from .redis_missed import Missed
from .redis_remote import Remote, Status, live
from .redis_server import examine
from .redis_wire import Server
from .store import Store

_logger = logging.getLogger("aiohttp_sse_routes")

_SLICE: Final = 200
"""Entries that are handed on before the loop has its turn."""

_DEAF: Final = 3
"""Pings without an answer after which a connection hears nothing any more."""

_BACK_OFF: Final = (0.05, 1.0)
"""Seconds before it is tried again: at first, and at most; each a little random."""

_BOUNDED: Final = 10_000
"""Channels whose own bounds are known."""

_REMEMBERED: Final = 604_800.0
"""Seconds that a loss is remembered: a week."""


class Watch:
    """Keeps a store's generation, and with a follower its entries, up to date.

    Args:
        store: Which is told.
        server: Where the log is.
        remote: The log.
        follows: Whether entries are wanted.
        check: Seconds between looks whether anything was missed.
    """

    def __init__(
        self,
        store: Store,
        server: Server,
        remote: Remote,
        *,
        follows: bool,
        check: float,
    ) -> None:
        self._store = store
        self._server = server
        self._remote = remote
        self._follows = follows
        self._check = check
        self._news = asyncio.Event()
        self._hurried = False
        self._head = 0
        self._losses = 0
        self._lost: dict[str, int] = {}
        self._unreported: dict[str, int] = {}
        self._given = Given()
        self._bounds: dict[str, Bounds] = {}
        self._away = False
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    async def open(self) -> None:
        """Begin; return when the log was reached, or could not be for now.

        Raises:
            StoreError: it will never be, as things are configured.
        """
        loop = asyncio.get_running_loop()
        self._first = loop.create_future()
        self._task = loop.create_task(self._run())
        try:
            await self._first
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def gave(self, channel: str, generation: str, seq: int) -> None:
        """Learn that an append of this process had the answer *seq*."""
        self._given.note(generation, channel, seq)
        lineage = self._store.lineage
        if lineage is not None and generation != lineage.generation:
            # It is of a generation not noticed here yet, or of one that has ended.
            self._witness(lineage)
            self.hurry()

    def hurry(self) -> None:
        """Look now what the log is."""
        self._hurried = True
        self._news.set()

    def bound(self, channel: str, bounds: Bounds) -> None:
        """Note that *channel* holds something else than the store's bounds say."""
        if self._bounds.get(channel) != bounds:
            self._bounds[channel] = bounds
            if len(self._bounds) > _BOUNDED:
                del self._bounds[next(iter(self._bounds))]

    # -- one session after another -----------------------------------------------------

    async def _run(self) -> None:
        pause, most = _BACK_OFF
        while True:
            try:
                await self._session()
            except StoreError as error:
                self._gone(error)
            except Exception:
                # It must not end with an error of a follower, or of our own.
                _logger.exception("following Redis at %s failed", self._server.name)
            if not self._away:
                pause = _BACK_OFF[0]
            self._away = True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(most, pause * 2)

    def _gone(self, error: StoreError) -> None:
        first = self._first
        if first is not None and not first.done():
            if isinstance(error, Unusable):
                first.set_exception(StoreError(str(error)))
                return
            first.set_result(None)
        if not self._away:
            _logger.error("%s; trying again until it can be", error)

    def _back(self) -> None:
        if self._away:
            _logger.info("Redis at %s is back", self._server.name)
        self._away = False
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    async def _session(self) -> None:
        if not self._follows:
            await self._greet()
            while True:
                await self._wait(self._check)
                await self._look()
        ear = Ear(self._server, self._remote.channel, self._news.set)
        try:
            # First the ear, then the log: what is in neither is still to come.
            await ear.open()
            await self._greet()
            await self._follow(ear)
        finally:
            await ear.close()

    async def _greet(self) -> None:
        await examine(self._remote, self._server, again=self._store.lineage is not None)
        await self._look()
        self._back()

    async def _follow(self, ear: Ear) -> None:
        loop = asyncio.get_running_loop()
        expected, due = self._head, loop.time() + self._check
        while True:
            await self._wait(due - loop.time())
            await self._take(ear.take())
            if self._hurried:
                await self._look()
            if loop.time() < due:
                continue
            if ear.unanswered >= _DEAF or self._head < expected:
                # The log went on, and nothing was heard of it.
                await self._look()
                raise StoreUnavailable(
                    f"Redis at {self._server.name} is not heard any more"
                )
            await ear.ping()
            expected = await self._checked()
            due = loop.time() + self._check

    async def _wait(self, seconds: float) -> None:
        """Wait for news, for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    # -- what was heard ----------------------------------------------------------------

    async def _take(self, messages: Sequence[bytes]) -> None:
        ready: list[Entry] = []
        for message in messages:
            heard = live(message)
            if heard is None or not self._next(*heard):
                if heard is not None and self._known(*heard):
                    continue
                await self._hand_on(ready)
                ready = []
                await self._look()
                if heard is None or not self._next(*heard):
                    continue
            ready += heard[1]
            self._head = ready[-1].seq
            if len(ready) >= _SLICE:
                await self._hand_on(ready)
                ready = []
        await self._hand_on(ready)

    def _next(self, generation: str, entries: Sequence[Entry]) -> bool:
        return entries[0].seq == self._head + 1 and generation == self._generation

    def _known(self, generation: str, entries: Sequence[Entry]) -> bool:
        return entries[-1].seq <= self._head and generation == self._generation

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

    async def _look(self) -> None:
        """Ask what the log is, and read what was missed of it."""
        while True:
            self._hurried = False
            status = await self._status()
            if not self._follows:
                self._head = status.head
                return
            missed = Missed(self._remote, status, self._head)
            while (entries := await missed.more()) is not None:
                await self._hand_on(entries)
                self._head = missed.place
            if self._head >= status.head:
                return

    async def _checked(self) -> int:
        """Return the log's head; if it is of another generation, look closer."""
        before = self._generation
        status = await self._status()
        if self._generation != before:
            await self._look()
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
            self._head = place = status.head if known is None else status.start
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
            self.hurry()

    def _lose(self, lost: Mapping[str, int]) -> None:
        news = {
            name: seq for name, seq in lost.items() if seq > self._lost.get(name, 0)
        }
        lineage = self._store.lineage
        if news and lineage is not None:
            self._lost.update(news)
            self._store.lose(replace(lineage, lost=dict(self._lost)), news)
