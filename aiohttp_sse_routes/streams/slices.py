"""What one turn of the loop has time for, where there is more to write than that.

Law: the loop gets its turn after a millisecond of writing, and after some writes
however little time they took: uvloop's transports only note what is to be written, and
write it when the turn is over.
"""

from __future__ import annotations

__all__ = ("CHECK_EVERY", "SLICE", "WRITES", "Slice")

import asyncio
from typing import Final

SLICE: Final = 0.001
"""Seconds of writing after which the loop gets a turn. Another request takes three or
four turns, so that it waits for as many of these; a turn costs some 20 microseconds."""

WRITES: Final = 192
"""Writes after which it does. One is about five microseconds of the kernel's."""

CHECK_EVERY: Final = 32
"""Writes between looks at the clock."""


class Slice:
    """The time of a turn that is beginning.

    Args:
        loop: The loop whose turn it is.
    """

    __slots__ = ("_time", "_until", "_writes")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._time = loop.time
        self._until = loop.time() + SLICE
        self._writes = WRITES

    def has_room(self, writes: int) -> bool:
        """Return whether there is time for more, and count *writes* where there is."""
        if self._writes <= 0 or self._time() > self._until:
            return False
        self._writes -= writes
        return True
