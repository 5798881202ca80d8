"""A place in a log, and a way to write to whoever reads there.

Law: a reader knows its source by what it asks of it alone: one feed now, or whatever
else can say what comes after a place.
"""

from __future__ import annotations

__all__ = ("GapReason", "Reader", "Source", "Standing")

import enum
from collections.abc import Callable
from typing import Literal, Protocol

from .ending import Ending

GapReason = Literal["expired", "slow", "unknown", "reset", "restarted"]
"""Why events were lost, as a client is told."""


class Standing(enum.Enum):
    """How a reader stands to its feed."""

    OUT = "out"
    LIVE = "live"
    BEHIND = "behind"
    PAUSED = "paused"
    FETCHING = "fetching"


class Source(Protocol):
    """What a reader follows."""

    @property
    def delivered(self) -> int:
        """The place of all live readers."""

    @property
    def written(self) -> int:
        """Bytes written to each live reader since the source began."""

    @property
    def silent(self) -> bool:
        """Whether no event has come yet."""

    def cursor(self, place: int) -> str:
        """Return the id of the place *place*."""

    def place_of(self, reader: Reader) -> int:
        """Return the number of the last entry written to *reader*."""

    def told(self, reader: Reader) -> int:
        """Return the number of the last entry of which *reader* was given the id.

        It is below `place_of` where the place has moved without an event for it.
        """

    def pause(self, reader: Reader) -> None:
        """Write no more to *reader* until `resume`."""

    def resume(self, reader: Reader) -> None:
        """Let *reader* read on, if it was paused."""

    def leave(self, reader: Reader) -> None:
        """Forget *reader*; its place is where it was."""

    def counted(self, reader: Reader) -> int:
        """Return how many events were written that `Reader.events` lacks."""

    def has_after(self, place: int) -> bool:
        """Return whether there is anything behind *place*, as far as is known here."""


class Reader:
    """A place in a feed, and a way to write to whoever reads there.

    A subclass gives ``send`` and the two ``on_`` methods, and calls `paused` and
    `resumed` as its transport does.

    Attributes:
        feed: What it follows; None while it follows nothing.
        place: The number of the last entry it has, while it is not live.
        past: The number of the newest entry that was there when it came: what it is
            given through that is marked as replayed.
        standing: How it stands to its feed.
        blocked: Whether its transport takes no more.
        sent: Bytes written to it alone.
        events: Events written to it, less what its feed counts for it.
        joined_live_at: What the feed had written when it became live.
        send: Writes one frame at once; it may call `paused` before it returns.
    """

    # There are thousands of them: a dict each would take more than all else.
    __slots__ = (
        "blocked",
        "events",
        "feed",
        "joined_live_at",
        "past",
        "place",
        "send",
        "sent",
        "standing",
    )

    send: Callable[[bytes], object]

    def __init__(self) -> None:
        self.feed: Source | None = None
        self.place = 0
        self.past = 0
        self.standing = Standing.OUT
        self.blocked = False
        self.sent = 0
        self.events = 0
        self.joined_live_at = 0

    @property
    def total(self) -> int:
        """Return how many bytes were written in all; a delivery counts once a feed."""
        if self.standing is Standing.LIVE and self.feed is not None:
            return self.sent + self.feed.written - self.joined_live_at
        return self.sent

    @property
    def received(self) -> int:
        """Return how many events were written in all; a delivery counts as `total`."""
        return self.events + (self.feed.counted(self) if self.feed is not None else 0)

    def on_gap(self, reason: GapReason, after: str, place: str) -> bool:
        """Tell that events after *after* are lost and it goes on from *place*.

        Args:
            reason: Why.
            after: The id of the place that the reader had come to.
            place: The id of the place that it goes on from.

        Returns:
            Whether the reader goes on; False if it has left.
        """
        raise NotImplementedError

    def on_ending(self, ending: Ending) -> None:
        """Learn that the log has ended and all of it was written."""
        raise NotImplementedError

    def on_conflated(self) -> None:
        """Learn that it was given the newest by key of what it was too slow for."""

    def paused(self) -> None:
        """Note that the transport takes no more."""
        self.blocked = True
        if self.feed is not None:
            self.feed.pause(self)

    def resumed(self) -> None:
        """Note that the transport takes more again."""
        self.blocked = False
        if self.feed is not None:
            self.feed.resume(self)
