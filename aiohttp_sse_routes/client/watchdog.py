"""Notices a connection on which nothing comes any more.

Law: only the time counts during which somebody waits for bytes, so that a consumer that
is slow is not held for a server that is silent. Any byte counts.
"""

from __future__ import annotations

__all__ = ("Watchdog",)

import asyncio
from collections.abc import Callable

from ..streams.clock import Clock


class Watchdog:
    """Calls *bark* when a wait has lasted for too long.

    Args:
        clock: What time it is.
        bark: Called once for each wait that does.

    Attributes:
        waiting_since: When the present wait began; None if nobody waits.
    """

    def __init__(self, clock: Clock, bark: Callable[[], None]) -> None:
        self.waiting_since: float | None = None
        self._clock = clock
        self._bark = bark
        self._limit = 0.0
        self._task: asyncio.Task[None] | None = None

    def watch(self, limit: float) -> None:
        """Watch from now on, with *limit* in seconds."""
        self._limit = limit
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), name="sse-client-watchdog")

    def stop(self) -> asyncio.Task[None] | None:
        """End watching; return the task that ends."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    async def _run(self) -> None:
        while True:
            since, now = self.waiting_since, self._clock.now()
            left = self._limit if since is None else since + self._limit - now
            if left <= 0:
                self.waiting_since = None
                self._bark()
                left = self._limit
            await self._clock.sleep(left)
