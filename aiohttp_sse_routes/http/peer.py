"""What the peer of a connection has taken, and since when it has taken nothing.

Law: the kernel is asked seldom: of a peer to which something was written since the last
answer, and not for some seconds where that was that it had everything.
"""

from __future__ import annotations

__all__ = ("Peer",)

import asyncio
from typing import Final

from ..streams.private import PacedReader
from .sockets import STALL, hold, hold_little, linger, unacknowledged, unsent

_SETTLED: Final = 5.0
"""Seconds for which a peer that had everything is not asked about: it is a system call,
and to many something is written every second."""

_WAITED_FOR: Final = 0.5
"""The same of one for which bytes wait, however often there is a look at it."""


class Peer(PacedReader):
    """The peer of a transport.

    Args:
        transport: The client's.
        now: The time, by the application's clock.

    Attributes:
        lost: Whether the transport is.
        active_at: When it was last seen that something was written.
    """

    __slots__ = (
        "_ask_at",
        "_mark",
        "_seen",
        "_taken",
        "_taken_at",
        "active_at",
        "lost",
        "transport",
    )

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        super().__init__()
        self.transport = transport
        self.lost = False
        self.active_at = now
        self._seen = 0  # bytes written in all, at the last look
        self._taken = 0  # how many of them the peer had, as far as it was asked
        self._taken_at = now  # since when it has taken nothing of what waits
        self._ask_at = now
        self._mark = hold_little(transport)

    def outstanding(self) -> int:
        """See `PacedReader.outstanding`."""
        total = self.total
        return total if self.lost else unacknowledged(self.transport, total)

    def note(self, now: float) -> None:
        """Note what was written until *now*."""
        total = self.total
        if total != self._seen:
            if self._taken >= self._seen:
                # It had everything before this.
                self._taken_at = now
            self._seen = total
            self.active_at = now

    def stalls(self, now: float) -> bool:
        """Return whether it has taken nothing for long, of what was noted."""
        if self._taken >= self._seen or now < self._ask_at:
            return False
        taken = self._seen - unacknowledged(self.transport, self._seen)
        if taken > self._taken:
            self._taken_at = now
        elif now - self._taken_at >= STALL:
            return True
        self._taken = taken
        self._ask_at = now + (_WAITED_FOR if taken < self._seen else _SETTLED)
        return False

    @property
    def unsent(self) -> int:
        """How many bytes may not have come to the kernel yet."""
        return unsent(self.transport)

    def linger(self) -> None:
        """Let the kernel drop it if it does not take the rest in time."""
        linger(self.transport)

    def restore(self) -> None:
        """Leave the transport as it was."""
        hold(self.transport, self._mark)
