"""What is read from a store for readers that memory reaches not far enough back for.

Law: who asks for the same thing at the same time is given the same answer, so that a
thousand clients that come back together cost the store one read. A store that is away
is asked again, and again; nobody is told but by silence.
"""

from __future__ import annotations

__all__ = ("Fetched", "Fetches")

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..errors import StoreError, StoreUnavailable
from ..logs.entry import Page
from ..logs.store import Store

_logger = logging.getLogger("aiohttp_sse_routes")

_AT_ONCE: Final = 8
"""Reads that a store is asked for at the same time."""

_AGAIN: Final = 0.5
"""Seconds until a store that could not be read is asked again."""


class Fetched(NamedTuple):
    """A page, as blocks.

    Attributes:
        after: The place that was asked for.
        seqs: Their numbers.
        blocks: With their ``id`` lines.
        page: What the store returned.
    """

    after: int
    seqs: Sequence[int]
    blocks: Sequence[bytes]
    page: Page

    def read(self, through: int) -> tuple[Sequence[bytes], int]:
        """Return blocks through *through*, and the place behind them."""
        if through >= self.page.place:
            return self.blocks, self.page.place
        count = sum(seq <= through for seq in self.seqs)
        return self.blocks[:count], through


class _Key(NamedTuple):
    """What is asked for, in which generation's numbers."""

    names: tuple[str, ...]
    after: int
    through: int
    generation: str


class Fetches:
    """Reads of one store.

    Args:
        store: The store.
        limit: About how many bytes to read at once.
    """

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._under_way: dict[_Key, asyncio.Task[Fetched]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def read(self, names: Sequence[str], after: int, through: int) -> Fetched:
        """Return what comes after *after*.

        Raises:
            StoreError: the store cannot be read now.
        """
        lineage = self._store.lineage
        assert lineage is not None
        key = _Key(tuple(names), after, through, lineage.generation)
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(
                self._read(key), name="sse-fetch"
            )
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)

    def _done(self, key: _Key, task: asyncio.Task[Fetched]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # whoever asked has it; if all have left, nobody need

    async def _read(self, key: _Key) -> Fetched:
        names, after, through, generation = key
        async with self._free:
            page = await self._store.read(names, after, through, limit=self._limit)
        lineage = self._store.lineage
        if lineage is None or lineage.generation != generation:
            # Its numbers may be of the old log or of the new one.
            raise StoreUnavailable("the log has changed meanwhile: read again")
        prefix = lineage.cursor(0)[:-1].encode()
        blocks = [b"id: %b%d\n%b" % (prefix, e.seq, e.lines) for e in page.entries]
        return Fetched(after, [e.seq for e in page.entries], blocks, page)

    def start(
        self,
        names: Sequence[str],
        after: int,
        through: int,
        then: Callable[[Fetched], None],
    ) -> None:
        """Call *then* with what comes after *after*, when the store has given it."""

        async def fetch() -> None:
            while True:
                try:
                    fetched = await self.read(names, after, through)
                except StoreError as exc:
                    _logger.debug("a read for replay failed, again soon: %s", exc)
                    await asyncio.sleep(_AGAIN)
                else:
                    then(fetched)
                    return

        task = asyncio.get_running_loop().create_task(fetch(), name="sse-catch-up")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is under way."""
        tasks = (*self._tasks, *self._under_way.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
