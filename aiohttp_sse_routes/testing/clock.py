"""Time that is set by a test, for ``setup(clock=...)``.

Law: the clock stands still until it is moved, and moves on only when all that was due
has happened: tasks have done what they can do without it, and what was written has
arrived.
"""

from __future__ import annotations

__all__ = ("SettableClock",)

import asyncio
import heapq
import itertools
import weakref
from collections.abc import Callable
from typing import Final

from aiohttp import web

from ..http.connection import Connection
from .served import links_of

_FEW: Final = 20
"""Turns of the loop in which most things are done; to look who is not takes longer."""

_QUIET: Final = 3
"""Turns in which nobody has anything to do, until that is believed."""

_TURNS: Final = 100
"""Turns after which tasks that are never done with it are not waited for."""

_PATIENCE: Final = 1.0
"""Seconds after which what does not arrive is not waited for."""

_TAKEN: Final = 0.25
"""Seconds in which a client's system acknowledges what it has room for; Linux may put
it off for 0.04 s."""


class SettableClock:
    """A clock for ``setup(clock=...)`` that stands still until it is moved.

    Heartbeats, resume times, lifetimes, rechecks, the cut of a client that takes
    nothing, the pauses of shared runs that failed, and the ages of a `MemoryStore` go
    by it. ``asyncio.sleep`` in an application's own code does not.

    Args:
        start: What time it is, in seconds.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._expected: list[Callable[[], object]] = []
        self._apps: weakref.WeakSet[web.Application] = weakref.WeakSet()
        self._refused: dict[Connection, int] = {}

    def __repr__(self) -> str:
        waiting = sorted(due for due, _, future in self._sleepers if not future.done())
        text = f", the next due at {waiting[0]:g} s" if waiting else ""
        return f"<SettableClock at {self._now:g} s, {len(waiting)} sleepers{text}>"

    def now(self) -> float:
        """Return the time, in seconds."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return when the clock has been moved by *seconds*."""
        future = asyncio.get_running_loop().create_future()
        entry = (self._now + seconds, next(self._order), future)
        heapq.heappush(self._sleepers, entry)
        await future

    async def advance(self, seconds: float) -> None:
        """Move the clock by *seconds*, and let everything due on the way happen.

        It stops wherever something is due, and goes on when that is done: when every
        task waits for something that is not the clock, the applications that it
        follows have seen which clients have left, and what was written to the others
        has arrived.

        Args:
            seconds: By how much; 0 or more.

        Raises:
            ValueError: *seconds* is negative.
        """
        if not seconds >= 0:
            raise ValueError(f"advance({seconds!r}): a clock does not go back")
        target = self._now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue  # who slept was cancelled
            self._now = due
            future.set_result(None)
            await self.settle()
        self._now = target
        await self.settle()

    async def settle(self) -> None:
        """Let everything happen that can happen while the clock stands still."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(_FEW):
            await asyncio.sleep(0)
        turns = 0
        quiet = _QUIET - 1  # at once, where nothing is to be seen
        while quiet < _QUIET:
            passed = loop.time() - begun
            busy = turns < _TURNS and _anyone_is_ready()
            under_way = passed < _PATIENCE and not self._arrived(passed)
            quiet = 0 if busy or under_way else quiet + 1
            if quiet < _QUIET:
                turns += 1
                await asyncio.sleep(0 if turns < _TURNS else 0.001)
        self._expected.clear()

    def follow(self, app: web.Application) -> None:
        """Do not move on before clients of *app* have what was written to them.

        An `EventStream` that knows its application says so by itself.
        """
        self._apps.add(app)

    def expect(self, condition: Callable[[], object]) -> None:
        """Do not move on, for a second at most, before *condition* holds."""
        self._expected.append(condition)

    def _arrived(self, passed: float) -> bool:
        self._expected = [one for one in self._expected if not one()]
        return not self._expected and self._taken(passed)

    def _taken(self, passed: float) -> bool:
        """Whether every client has what was written, or takes nothing for long."""
        refused: dict[Connection, int] = {}
        for app in self._apps:
            for link in links_of(app):
                left = link.outstanding()
                if left and passed < _TAKEN and left < self._refused.get(link, 1 << 62):
                    return False
                if left:
                    # It was waited for, in vain, and is not until it takes something.
                    refused[link] = left
        self._refused = refused
        return True


def _anyone_is_ready() -> bool:
    """Whether a task, but this, has something to do in the loop's next turn."""
    here = asyncio.current_task()
    for task in asyncio.all_tasks():
        # What a task waits for, as asyncio's own tasks keep it.
        waits_for = getattr(task, "_fut_waiter", None)
        if task is not here and (waits_for is None or waits_for.done()):
            return True
    return False
