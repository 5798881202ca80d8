"""Readers that are behind: each is given, batch by batch, what comes after its place.

Law: from memory where that reaches back far enough, else from the store; a reader that
waits for the store costs the others nothing. What is gone is told exactly once, at the
place where it is missing, and never what is there.
"""

from __future__ import annotations

__all__ = ("CatchUp", "LiveKeeper")

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ..cursor import untold
from ..logs.store import Store
from ..wire import join
from .feed import BATCH
from .fetches import Fetched, Fetches
from .following import Following, Keeper
from .reader import Reader, Standing
from .slices import Slice


class LiveKeeper(Keeper, Protocol):
    """Who keeps the readers that have everything."""

    def settle(self) -> None:
        """Deliver what waits for the end of the turn, if anything does."""

    def go_live(self, reader: Reader, following: Following) -> None:
        """Let *reader*, which has everything, be written to with the others."""


class CatchUp:
    """The readers that are behind.

    Args:
        keeper: Who keeps those that are not.
        store: Whose log it is.
    """

    def __init__(self, keeper: LiveKeeper, store: Store) -> None:
        self.fetches = Fetches(store, BATCH)
        self._keeper = keeper
        self._tail = store.tail
        self._complete = store.complete
        self._loop = asyncio.get_running_loop()
        self._behind: deque[Reader] = deque()
        self._scheduled = False
        self._parked: list[Reader] = []  # at or in holes whose end has not come

    def go_on(self) -> None:
        """Let those go on whose hole may have come to its end."""
        parked, self._parked = self._parked, []
        for reader in parked:
            if reader.standing is Standing.BEHIND:
                self.put(reader)

    def put(self, reader: Reader) -> None:
        """Let *reader* have its next batch, in its turn."""
        reader.standing = Standing.BEHIND
        self._behind.append(reader)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        turn = Slice(self._loop)
        # Not more than there are now: each gets one batch a round.
        for _ in range(len(self._behind)):
            reader = self._behind.popleft()
            if reader.standing is Standing.BEHIND:
                self.catch_up(reader)
            if not turn.has_room(1):
                break
        if self._behind:
            self._schedule()

    def catch_up(self, reader: Reader) -> None:
        """Write *reader* one batch of what comes after its place."""
        # Who goes live where nobody was would miss what waits for the turn's end.
        self._keeper.settle()
        following = _following(reader)
        if following.due is not None and not self._tell_due(reader, following):
            return
        place = reader.place
        page, following.page = following.page, None
        if page is not None and page.after == place:
            self._step(reader, following, self._gone(page), page.read)
            return
        missed = following.missed(self._floors(following), place)
        if missed and following.keeping == "conflate" and following.hole_after < 0:
            items = self.conflated(following, place)
            if items is not None:
                self._write_conflated(reader, following, items)
                return
        if missed and not self._complete:
            self._fetch(reader, following)
            return
        self._step(
            reader,
            following,
            missed,
            lambda through: self._tail.after(following.names, place, through, BATCH),
        )

    def _floors(self, following: Following) -> Mapping[str, int]:
        return {name: self._tail.floor(name) for name in following.names}

    def _misses(self, reader: Reader, following: Following) -> bool:
        """Return whether more is gone by now, behind what has been delivered.

        A page from the store does not know: it may be older than the loss.
        """
        return bool(following.missed(self._floors(following), reader.place))

    def _gone(self, found: Fetched) -> Mapping[str, int]:
        """Return what is gone for who reads on, behind *found*, from memory.

        The store may have dropped more by now than memory has.
        """
        page = found.page
        return {
            name: min(floor, max(page.place, self._tail.floor(name)))
            for name, floor in page.floors.items()
        }

    def _tell_due(self, reader: Reader, following: Following) -> bool:
        assert following.due is not None
        (reason, after), following.due = following.due, None
        goes_on = reader.on_gap(reason, after, self._keeper.cursor(reader.place))
        return goes_on and reader.standing is Standing.BEHIND

    # -- from the store --------------------------------------------------------------

    def _fetch(self, reader: Reader, following: Following) -> None:
        reader.standing = Standing.FETCHING

        def fetched(found: Fetched) -> None:
            # It may have left, been paused, or been taken elsewhere meanwhile.
            if (
                reader.standing is Standing.FETCHING
                and reader.feed is following
                and reader.place == found.after
            ):
                following.page = found
                self.put(reader)

        self.fetches.start(
            following.names, reader.place, self._keeper.delivered, fetched
        )

    # -- one batch -------------------------------------------------------------------

    def _step(
        self,
        reader: Reader,
        following: Following,
        floors: Mapping[str, int],
        read: Callable[[int], tuple[Sequence[bytes], int]],
    ) -> None:
        """Write one batch of what *read* gives, and the end of a hole behind it.

        Args:
            reader: Who is behind.
            following: What it follows.
            floors: By channel, the newest number that is gone.
            read: Returns blocks through a number, and the place behind them.
        """
        missed = following.missed(floors, reader.place)
        if missed:
            following.open_hole(missed, reader.place)
        in_hole = following.hole_after >= 0
        through = self._keeper.delivered
        if following.end is not None:
            through = min(through, following.end[0])
        # A store may be further than this process: the hole's end is yet to come then.
        over = not in_hole or following.hole_end <= through
        if in_hole:
            through = min(through, following.hole_end)
        is_past = reader.place < reader.past
        blocks, place = read(min(through, reader.past) if is_past else through)
        # The place comes before the write, which may pause the reader there.
        reader.place = max(reader.place, place)
        if in_hole:
            blocks = list(map(_untold, blocks))
        _write(reader, blocks, len(blocks) if is_past else 0)
        if in_hole and over and reader.place >= through:
            self._end_hole(reader, following)
        self._go_on(reader, following)

    def _end_hole(self, reader: Reader, following: Following) -> None:
        after = following.close_hole()
        if reader.standing is Standing.BEHIND:
            reader.on_gap(following.reason, after, self._keeper.cursor(reader.place))
        elif reader.standing is Standing.PAUSED:
            following.due = following.reason, after

    def _go_on(self, reader: Reader, following: Following) -> None:
        """Let *reader* be live if it has everything, else wait for its next batch."""
        if following.hole_after < 0:
            # What is lost from now on, it was too slow for.
            following.reason = "slow"
        if reader.standing is not Standing.BEHIND:
            return
        if following.end is not None and reader.place >= following.end[0]:
            reader.on_ending(following.end[1])
        elif reader.place < self._keeper.delivered:
            self.put(reader)
        elif following.hole_after >= 0 or self._misses(reader, following):
            self._parked.append(reader)
        else:
            self._keeper.go_live(reader, following)

    # -- the newest by key -----------------------------------------------------------

    def conflated(
        self, following: Following, place: int
    ) -> list[tuple[int, bytes]] | None:
        """Return the newest events by key after *place*; None if others are lost."""
        items: list[tuple[int, bytes]] = []
        for name in following.names:
            found, lost = self._tail.conflated(name, place, self._keeper.delivered)
            if lost > max(place, following.forgiven.get(name, -1)):
                return None
            items += found
        items.sort()
        return items

    def _write_conflated(
        self, reader: Reader, following: Following, items: Sequence[tuple[int, bytes]]
    ) -> None:
        blocks: list[bytes] = []
        size, place, past = 0, reader.place, 0
        for seq, block in items:
            if blocks and size + len(block) > BATCH:
                break
            blocks.append(block)
            size += len(block)
            place = seq
            past += seq <= reader.past
        done = len(blocks) == len(items)
        reader.place = self._keeper.delivered if done else place
        _write(reader, blocks, past)
        if done and items:
            reader.on_conflated()
        self._go_on(reader, following)


def _following(reader: Reader) -> Following:
    following = reader.feed
    assert isinstance(following, Following)
    return following


def _untold(block: bytes) -> bytes:
    """Return *block* for who was not told yet of a hole before it."""
    first, _, rest = block.partition(b"\n")
    return b"%b\n%b" % (untold(first.decode()).encode(), rest)


def _write(reader: Reader, blocks: Sequence[bytes], past: int) -> None:
    if blocks:
        chunk = join(blocks, past)
        reader.sent += len(chunk)
        reader.events += len(blocks)
        reader.send(chunk)
