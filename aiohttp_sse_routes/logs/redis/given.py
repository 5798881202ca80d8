"""What this process has given out, so that it can witness what a failover has lost.

Law: only what was seen here is claimed to be lost, and each number is held against the
generation it was given out in.
"""

from __future__ import annotations

__all__ = ("Given",)

from collections.abc import Mapping
from typing import Final

from ..entry import Lineage

_MOST: Final = 100_000
"""Channels whose newest number is known; the quietest are forgotten."""

_GENERATIONS: Final = 4
"""Generations that are known: an answer may be of one that is not told here yet."""


class Given:
    """The newest number of each channel that was given out here, by generation."""

    def __init__(self) -> None:
        self._newest: dict[str, dict[str, int]] = {}

    def note(self, generation: str, channel: str, seq: int) -> None:
        """Note that *seq* of *channel* was given out in *generation*."""
        newest = self._newest.get(generation)
        if newest is None:
            newest = self._newest[generation] = {}
            if len(self._newest) > _GENERATIONS:
                del self._newest[next(iter(self._newest))]
        before = newest.pop(channel, 0)
        newest[channel] = max(before, seq)
        if len(newest) > _MOST:
            del newest[next(iter(newest))]

    def lost(self, lineage: Lineage) -> Mapping[str, int]:
        """Take out what the forks of *lineage* have lost: its newest numbers."""
        lost: dict[str, int] = {}
        for generation, place in lineage.forks.items():
            for channel, seq in self._newest.pop(generation, {}).items():
                if seq > place:
                    lost[channel] = max(seq, lost.get(channel, 0))
        return lost
