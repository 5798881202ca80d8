"""What one reader follows: a set of channels, as a source that it reads from.

Law: a place and a few facts about holes, whatever the number of channels; no queue. A
hole is told once, with all that is retained below its end before it and all above it
behind it, so that the ids that a client sees only grow. Until it is told they say so:
a client that is cut in a hole, and comes back to whichever worker, is told there.
"""

from __future__ import annotations

__all__ = ("Following", "Keeper", "Keeping", "Topic")

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from ..cursor import untold
from .ending import Ending
from .fetches import Fetched
from .reader import GapReason, Reader, Standing

Keeping = Literal["gap", "conflate"]
"""What a reader is given of what it was too slow for: a gap, or the newest by key."""


class Topic:
    """A channel that somebody follows now.

    Attributes:
        live: Who has everything so far, with the way to write to each.
        last: The number of the newest entry that is known of.
        written: Bytes written to each live reader since the topic began.
        events: Events in these.
        pending: Numbers and blocks that wait for the end of the turn.
    """

    __slots__ = ("events", "last", "live", "pending", "written")

    def __init__(self, last: int) -> None:
        self.live: dict[Reader, Callable[[bytes], object]] = {}
        self.last = last
        self.written = 0
        self.events = 0
        self.pending: list[tuple[int, bytes]] = []


class Keeper(Protocol):
    """Who keeps the readers of all channels."""

    @property
    def delivered(self) -> int:
        """The place of all live readers."""

    def cursor(self, place: int) -> str:
        """See `Source.cursor`."""

    def place_of(self, reader: Reader) -> int:
        """See `Source.place_of`."""

    def pause(self, reader: Reader) -> None:
        """See `Source.pause`."""

    def resume(self, reader: Reader) -> None:
        """See `Source.resume`."""

    def leave(self, reader: Reader) -> None:
        """See `Source.leave`."""

    def has_after(self, names: Sequence[str], place: int) -> bool:
        """Return whether one of *names* has anything behind *place*."""


class Following:
    """The channels of one reader.

    Args:
        keeper: Who keeps it.
        names: The channels', none twice.
        place: Where the reader begins.
        forgiven: By channel: what was gone before it began, and is not missed.
        reason: Why a hole that is found at once is there.
        keeping: What it is given of what it was too slow for.
        page: What a store has returned for it already.
        brought: The id that the reader came with, where it is the place's.

    Attributes:
        start: The place from which on it has been told of everything.
        due: A gap that is to be told before anything else: why, and after which id.
        page: What a store has returned for it and was not yet written.
        end: The place at which it ends, and how; None if it goes on.
    """

    __slots__ = (
        "brought",
        "due",
        "end",
        "forgiven",
        "hole_after",
        "hole_end",
        "keeper",
        "keeping",
        "names",
        "page",
        "reason",
        "start",
        "topics",
    )

    def __init__(
        self,
        keeper: Keeper,
        names: Sequence[str],
        place: int,
        *,
        forgiven: Mapping[str, int] | None = None,
        reason: GapReason = "slow",
        keeping: Keeping = "gap",
        page: Fetched | None = None,
        brought: str | None = None,
    ) -> None:
        self.keeper = keeper
        self.brought = None if brought is None else (place, brought)
        self.names = names
        self.start = place
        self.keeping = keeping
        self.forgiven = dict(forgiven) if forgiven else {}
        self.reason: GapReason = reason
        self.due: tuple[GapReason, str] | None = None
        self.end: tuple[int, Ending] | None = None
        self.page = page
        self.topics: Sequence[Topic] = ()
        self.hole_after = -1  # the place before the hole that is being told of
        self.hole_end = 0

    @property
    def written(self) -> int:
        """Bytes written to all live readers of these channels, each channel once."""
        return sum([topic.written for topic in self.topics])

    @property
    def delivered(self) -> int:
        """See `Source.delivered`."""
        return self.keeper.delivered

    @property
    def silent(self) -> bool:
        """See `Source.silent`: a channel has no beginning."""
        return False

    def cursor(self, place: int) -> str:
        """See `Source.cursor`; it says whether a hole before it is yet to be told."""
        at = self.keeper.cursor(place)
        return at if self.hole_after < 0 and self.due is None else untold(at)

    def place_of(self, reader: Reader) -> int:
        """See `Source.place_of`."""
        return self.keeper.place_of(reader)

    def told(self, reader: Reader) -> int:
        """See `Source.told`; a reader that is behind will be told by what comes."""
        place = self.keeper.place_of(reader)
        if reader.standing is not Standing.LIVE or place < self.keeper.delivered:
            return place
        return max([topic.last for topic in self.topics])

    def counted(self, reader: Reader) -> int:
        """See `Source.counted`: of who is not live nothing, it has no topics."""
        return sum([topic.events for topic in self.topics])

    def has_after(self, place: int) -> bool:
        """See `Source.has_after`."""
        return self.keeper.has_after(self.names, place)

    def pause(self, reader: Reader) -> None:
        """See `Source.pause`."""
        self.keeper.pause(reader)

    def resume(self, reader: Reader) -> None:
        """See `Source.resume`."""
        self.keeper.resume(reader)

    def leave(self, reader: Reader) -> None:
        """See `Source.leave`."""
        self.keeper.leave(reader)

    def missed(self, floors: Mapping[str, int], place: int) -> Mapping[str, int]:
        """Return those of *floors* that the reader at *place* is to be told of."""
        forgiven = self.forgiven
        return {
            name: floor
            for name, floor in floors.items()
            if place < floor and forgiven.get(name, -1) < floor
        }

    def open_hole(self, floors: Mapping[str, int], place: int) -> None:
        """Note that what *floors* say is gone, for a reader at *place*."""
        self.forgiven.update(floors)
        self.hole_end = max(self.hole_end, *floors.values())
        if self.hole_after < 0:
            self.hole_after = place

    def in_hole(self, place: int) -> None:
        """Note that something before *place* is gone, and the reader was not told."""
        self.hole_after = self.hole_end = place

    def forgive(self, floors: Mapping[str, int]) -> None:
        """Note that what *floors* say is gone was told by other means."""
        self.forgiven.update(floors)
        if self.hole_after >= 0:
            self.close_hole()

    def close_hole(self) -> str:
        """Return the id of the place where the hole began; it is told of now."""
        after, self.hole_after, self.hole_end = self.hole_after, -1, 0
        if self.brought is not None and self.brought[0] == after:
            # An older generation's id means the same place.
            return self.brought[1]
        return self.keeper.cursor(after)
