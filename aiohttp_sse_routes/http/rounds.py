"""The ticker's rounds over all connections, a few milliseconds at a time.

Law: no timer a connection, and no round holds the loop, however many there are: it goes
on in the loop's next turns. What one connection raises concerns no other.
"""

from __future__ import annotations

__all__ = ("Rounds",)

import asyncio
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Final

from .connection import Connection

_logger = logging.getLogger("aiohttp_sse_routes")

_SLICE: Final = 0.001
"""Seconds of a round after which the loop gets a turn. A delivery may be under way in
the same turn, and has as many."""

_CHECK_EVERY: Final = 32
"""Connections between looks at the clock: heartbeats to as many are half a
millisecond."""


class Rounds:
    """The connections that are looked after.

    Attributes:
        open: Those whose streams are open, with the seconds between their heartbeats.
        carriers: Those that carry several of these streams, in the same way.
        leaving: Those whose streams have ended, and who are yet to take the end.
    """

    def __init__(self) -> None:
        self.open: dict[Connection, float] = {}
        self.carriers: dict[Connection, float] = {}
        self.leaving: set[Connection] = set()
        self._rest: Iterator[tuple[Connection, float]] | None = None

    def begin(self, now: float) -> None:
        """Do what is due at *now*; nothing while a round is under way.

        The first slice is done at once.
        """
        if self._rest is not None:
            return
        # Side by side, not in pairs: those are work for the garbage collector.
        self._rest = zip(
            [*self.carriers, *self.open],
            [*self.carriers.values(), *self.open.values()],
            strict=True,
        )
        self._go_on(now)
        for connection in [*self.leaving]:
            if connection.leaving:
                connection.tick_leaving(now)
            else:
                self.leaving.discard(connection)

    def end(self) -> None:
        """End what is under way."""
        self._rest = None

    def _go_on(self, now: float) -> None:
        rest = self._rest
        if rest is None:
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + _SLICE
        while loop.time() < until:
            count = 0
            for connection, heartbeat in islice(rest, _CHECK_EVERY):
                count += 1
                try:
                    connection.tick(now, heartbeat)
                except Exception:
                    _logger.exception("a connection's tick failed; the others go on")
            if count < _CHECK_EVERY:
                self._rest = None
                return
        loop.call_soon(self._go_on, now)
