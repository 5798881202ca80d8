"""What is counted of one route's connections: what cannot be derived from them.

Law: nothing here is touched when an event is delivered, but once a connection or once
in its trouble. What open connections were given is asked of them, when somebody wants
to know.
"""

from __future__ import annotations

__all__ = ("Tally",)

from collections import Counter

from ..streams.reader import GapReason
from .link import CloseReason


class Tally:
    """The counts of a route since the application's start.

    Attributes:
        opened: Connections that were opened.
        closed: Connections that were closed, by reason.
        events: Events that these were given.
        bytes: Bytes that were written to these.
        replays: Connections that went on where they had been, and had missed something.
        gaps: Gaps that were told, by reason.
        disconnected: Connections that were ended because they were too slow.
        conflated: Times that one was given the newest by key, in place of all.
    """

    __slots__ = (
        "bytes",
        "closed",
        "conflated",
        "disconnected",
        "events",
        "gaps",
        "opened",
        "replays",
    )

    def __init__(self) -> None:
        self.opened = self.events = self.bytes = self.replays = 0
        self.disconnected = self.conflated = 0
        self.closed: Counter[CloseReason] = Counter()
        self.gaps: Counter[GapReason] = Counter()

    def close(self, reason: CloseReason, events: int, nbytes: int) -> None:
        """Count the end of a connection.

        Args:
            reason: Why it was closed.
            events: How many it was given.
            nbytes: How many were written to it.
        """
        self.closed[reason] += 1
        self.events += events
        self.bytes += nbytes
