"""The turns of the event loop, which bound what waits to be written together.

Law: one callback a turn for a whole application, however many feeds it has.
"""

from __future__ import annotations

__all__ = ("Turns",)

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """The turns of the event loop, as all feeds of an application see them.

    The first event that a feed gets in a turn leaves at once, further ones wait for
    the turn's end. One callback tells it to all feeds: one each would cost as much as
    the rest of a delivery.
    """

    __slots__ = ("_ending", "_loop", "_waiting", "number")

    def __init__(self) -> None:
        self.number = 0
        self._loop = asyncio.get_running_loop()
        self._ending = False
        self._waiting: deque[Callable[[], None]] = deque()

    def note(self) -> int:
        """See to it that the present turn ends; return its number."""
        if not self._ending:
            self._ending = True
            self._loop.call_soon(self._end)
        return self.number

    def at_end(self, flush: Callable[[], None]) -> None:
        """Call *flush* at the end of this turn."""
        self._waiting.append(flush)

    def _end(self) -> None:
        self._ending = False
        self.number += 1
        for _ in range(len(self._waiting)):
            self._waiting.popleft()()
