"""The shared log of one process: one sequence for all channels, kept in memory.

Law: one sequence a log, not one a channel, so that one number is a place in any set of
channels; a log that has begun anew has another generation, so that a place in the old
one is never taken for a place in the new.
"""

from __future__ import annotations

__all__ = ("MemoryLog",)

from ..cursor import Cursor, new_generation
from .ring import Ring


class MemoryLog:
    """Channels of blocks in memory.

    Attributes:
        generation: The name of this log, different from any other's.
        head: The number of the newest entry of all channels.
        prefix: What its entries' ids are before their number.
    """

    def __init__(self) -> None:
        self.generation = new_generation()
        self.prefix = Cursor("l", self.generation, 0).prefix
        self.head = 0

    def number(self) -> int:
        """Return the number of the next entry."""
        self.head += 1
        return self.head

    def channel(self, *, max_events: int, max_bytes: int) -> Ring:
        """Return a new channel: places before now are unknown to it."""
        return Ring(self.number(), max_events=max_events, max_bytes=max_bytes)
