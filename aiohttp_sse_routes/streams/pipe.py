"""The way of a generator's events into a store that several workers share.

Law: one append at a time, so that the order is kept whatever fails; what has come
meanwhile goes with the next one. An append that failed is made again under its own key,
with the same events, so that nothing is lost or doubled; under a lease that is lost
nothing more is appended at all.
"""

from __future__ import annotations

__all__ = ("Pipe",)

import asyncio
import contextvars
import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from ..cursor import new_token
from ..errors import LeaseLost, StoreError
from ..logs.entry import Bounds, Draft, Fence
from ..logs.store import Store

_logger = logging.getLogger("aiohttp_sse_routes")

_MOST: Final = 64
_MOST_BYTES: Final = 262_144
"""What waits for the store before the generator has to rest, in events and bytes."""

_FIRST_AGAIN: Final = 0.05
_LAST_AGAIN: Final = 1.0
"""Seconds until an append that failed is made again: doubled each time."""


class _Item(NamedTuple):
    """What waits to be appended."""

    channel: str
    draft: Draft
    bounds: Bounds


class Pipe:
    """Appends to a store, in order, under one lease.

    Args:
        store: The store.
        fence: The lease's proof.
        name: Whose events they are, for the log.
        on_room: Told when there is room again.
        on_lost: Told when the store says that the lease is lost.

    Attributes:
        closed: Whether nothing more is appended.
    """

    def __init__(
        self,
        store: Store,
        fence: Fence,
        *,
        name: str,
        on_room: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.closed = False
        self._store = store
        self._fence = fence
        self._name = name
        self._on_room = on_room
        self._on_lost = on_lost
        self._items: deque[_Item] = deque()
        self._nbytes = 0
        self._keys = itertools.count()
        self._token = new_token()
        self._task: asyncio.Task[None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether the generator may go on."""
        return len(self._items) < _MOST and self._nbytes < _MOST_BYTES

    def put(self, channel: str, draft: Draft, bounds: Bounds) -> None:
        """Append *draft* to *channel*, behind all that was put before."""
        if self.closed:
            return
        self._items.append(_Item(channel, draft, bounds))
        self._nbytes += len(draft.lines)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._run(),
                name=f"sse-append {self._name}",
                context=contextvars.Context(),
            )

    async def emptied(self) -> None:
        """Return when everything is appended, or nothing more will be."""
        while self._task is not None:
            await asyncio.wait({self._task})

    def close(self) -> None:
        """Append nothing more: what waits is forgotten."""
        self.closed = True
        self._items.clear()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._items:
                count = self._batch()
                items = [self._items[index] for index in range(count)]
                await self._append(items)
                for item in items:
                    self._items.popleft()
                    self._nbytes -= len(item.draft.lines)
                self._on_room()
        except LeaseLost:
            self.closed = True
            self._items.clear()
            self._on_lost()
        finally:
            self._task = None

    def _batch(self) -> int:
        """Return how many of the first items go to the same channel."""
        channel = self._items[0].channel
        same = itertools.takewhile(lambda item: item.channel == channel, self._items)
        return sum(1 for _ in same)

    async def _append(self, items: list[_Item]) -> None:
        """Append *items* together, however often it takes.

        Raises:
            LeaseLost: nothing was appended, and never will be.
        """
        key = f"{self._token}:{next(self._keys)}"
        delay = _FIRST_AGAIN
        while True:
            try:
                await self._store.append(
                    items[0].channel,
                    [item.draft for item in items],
                    idempotency_key=key,
                    fence=self._fence,
                    bounds=items[0].bounds,
                )
            except LeaseLost:
                raise
            except StoreError as exc:
                if delay == _FIRST_AGAIN:
                    _logger.warning(
                        "%s: the store takes nothing now, its events wait: %s",
                        self._name,
                        exc,
                    )
                await asyncio.sleep(delay)
                delay = min(_LAST_AGAIN, delay * 2)
            else:
                return
