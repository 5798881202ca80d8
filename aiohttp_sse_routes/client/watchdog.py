"""Notices a connection on which nothing comes any more.

Law: only the time counts during which somebody waits for bytes, so that a consumer that
is slow is not held for a server that is silent; but all of it does, in however many
waits, so that one who asks again and again with a short timeout notices too. Any byte
counts.
"""

from __future__ import annotations

__all__ = ("Watchdog",)

import asyncio
from collections.abc import Callable

from ..streams.clock import Clock


class Watchdog:
    """Calls *bark* when bytes were waited for in vain for too long.

    Args:
        clock: What time it is.
        bark: Called then, and again after as long a time.
    """

    def __init__(self, clock: Clock, bark: Callable[[], None]) -> None:
        self._clock = clock
        self._bark = bark
        self._limit = 0.0
        self._waited = 0.0
        self._since: float | None = None  # when it would have begun in one wait
        self._task: asyncio.Task[None] | None = None

    def watch(self, limit: float) -> None:
        """Watch from now on, with *limit* in seconds."""
        self._limit = limit
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), name="sse-client-watchdog")

    def begin(self) -> None:
        """Note that bytes are waited for."""
        self._since = self._clock.now() - self._waited

    def pause(self) -> None:
        """Note that they are not for the moment."""
        if self._since is not None:
            self._waited = self._clock.now() - self._since
            self._since = None

    def fed(self) -> None:
        """Note that bytes have come, or that there is a new connection."""
        self._waited = 0.0

    def stop(self) -> asyncio.Task[None] | None:
        """End watching; return the task that ends."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    async def _run(self) -> None:
        while True:
            since, now = self._since, self._clock.now()
            # Nobody waits: then it cannot be over sooner than in what is left.
            left = self._limit - (self._waited if since is None else now - since)
            if left <= 0:
                self._since, self._waited = None, 0.0
                self._bark()
                left = self._limit
            await self._clock.sleep(left)
