"""Time, as this package sees it, and the one ticker of an application.

Law: nobody here asks the system for the time but `MonotonicClock`, and nobody has a
timer of its own for what the ticker can do: heartbeats, lifetimes, stalls and the
times that runs wait for their clients.
"""

from __future__ import annotations

__all__ = ("Clock", "MonotonicClock", "Ticker")

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

_LONGEST: Final = 1.0
_SHORTEST: Final = 0.01

_logger = logging.getLogger("aiohttp_sse_routes")


class Clock(Protocol):
    """What `setup(clock=...)` takes; `testing.SettableClock` is one to be moved."""

    def now(self) -> float:
        """Return seconds since any fixed moment; they never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when *seconds* have gone by on this clock."""
        ...


class MonotonicClock:
    """The system's monotonic time."""

    def now(self) -> float:
        """Return the system's monotonic time, in seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep as `asyncio.sleep` does."""
        await asyncio.sleep(seconds)


class Ticker:
    """Calls *tick* about once a second, or oftener where something shorter is due.

    Args:
        clock: What time it is.
        tick: Called with the time. What it raises is logged and the ticker goes on.
    """

    def __init__(self, clock: Clock, tick: Callable[[float], None]) -> None:
        self._clock = clock
        self._tick = tick
        self._interval = _LONGEST
        self._task: asyncio.Task[None] | None = None

    def serve(self, duration: float | None) -> None:
        """Tick often enough for something that is due after *duration* seconds."""
        if duration is not None and duration > 0:
            self._interval = min(self._interval, max(_SHORTEST, duration / 4))

    def start(self) -> None:
        """Begin ticking, in a task of the running loop."""
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name="sse-ticker"
        )

    async def stop(self) -> None:
        """End the task."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(self._interval)
            try:
                self._tick(self._clock.now())
            except Exception:
                _logger.exception("the ticker failed once and goes on")
