"""What a process knows of a store's log, and the delivery of it to who follows here.

Law: one sequence of numbers for all channels, so that one number is the place of every
reader that has everything. Between reading the last entry and being registered as live
nothing is awaited. A reader is live or behind, and who is behind, or overtaken, costs
the others nothing.
"""

from __future__ import annotations

__all__ = ("Broker",)

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..logs.entry import Entry, Lineage
from ..logs.store import Store
from .catching_up import CatchUp
from .ending import Ending
from .following import Following
from .live import Live
from .reader import GapReason, Reader, Standing
from .turns import Turns


class Broker:
    """The followers of one store in this process.

    Args:
        store: The store; opened with this as its follower.
        turns: The loop's.

    Attributes:
        ended: Whether the application ends, and with it all following.
    """

    def __init__(self, store: Store, turns: Turns) -> None:
        self.store = store
        self.ended = False
        self._late = CatchUp(self, store)
        self.fetches = self._late.fetches
        self._tail = store.tail
        self._live = Live(self._tail, turns, self._fall_behind, self._moved)
        self._loop = asyncio.get_running_loop()
        self._readers: dict[Reader, Following] = {}
        self._lineage: Lineage | None = None
        self._known: asyncio.Future[None] = self._loop.create_future()
        self._awaiting: list[tuple[int, asyncio.Future[None]]] = []

    # -- what the store tells --------------------------------------------------------

    def on_entries(self, entries: Sequence[Entry], blocks: Sequence[bytes]) -> None:
        """See `Follower.on_entries`."""
        self._live.take(entries, blocks)

    def on_lineage(self, lineage: Lineage, *, reset: bool) -> None:
        """See `Follower.on_lineage`."""
        self._live.flush()
        before, self._lineage = self._lineage, lineage
        if not self._known.done():
            self._known.set_result(None)
        head = self._tail.head
        if not reset or before is None:
            for reader, following in self._readers.items():
                following.start = max(following.start, self.place_of(reader))
        else:
            self._gap_for_all("reset", before, self._readers, head)
        if reset:
            # Nobody is live now, in whose topics the old log's numbers were.
            self._live.move(head)

    def on_missed(self, floors: Mapping[str, int]) -> None:
        """See `Follower.on_missed`."""
        self._live.flush()
        for name in floors:
            self._live.miss(name)

    def on_lost(self, channels: Mapping[str, int]) -> None:
        """See `Follower.on_lost`."""
        self._live.flush()
        self._lineage = self.store.lineage
        told = [
            reader
            for reader, following in self._readers.items()
            if any(following.start < channels.get(n, -1) for n in following.names)
        ]
        self._gap_for_all("reset", self.lineage, told, self.delivered)

    def _gap_for_all(
        self, reason: GapReason, then: Lineage, readers: Iterable[Reader], place: int
    ) -> None:
        """Let *readers* be told of a gap, and go on from *place*."""
        for reader in tuple(readers):
            following = self._readers[reader]
            if following.due is None:
                following.due = reason, then.cursor(self.place_of(reader))
            self._unlive(reader, place)
            reader.place = following.start = place
            reader.past = 0
            following.forgiven = {}
            following.page = None
            if following.end is not None:
                following.end = place, following.end[1]
            if following.hole_after >= 0:
                following.close_hole()
            if reader.standing in (Standing.LIVE, Standing.FETCHING, Standing.BEHIND):
                self._late.put(reader)

    def skip(self, reason: GapReason, readers: Iterable[Reader], place: int) -> None:
        """Let *readers* be told of a gap for *reason*, and go on from *place*."""
        told = [reader for reader in readers if reader in self._readers]
        for reader in told:
            following = self._readers[reader]
            if following.due is None:
                # Its place may have moved by what it was never told of.
                after = max(following.told(reader), following.start)
                following.due = reason, self.cursor(after)
        self._gap_for_all(reason, self.lineage, told, place)

    def finish(self, readers: Iterable[Reader], place: int, ending: Ending) -> None:
        """Let *readers* learn of *ending* when they have everything through *place*."""
        for reader in readers:
            following = self._readers.get(reader)
            if following is None:
                continue
            following.end = place, ending
            if self._unlive(reader, self.delivered):
                self._late.put(reader)

    # -- what is asked ---------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the log was reached yet, so that there are places in it."""
        return self._lineage is not None

    @property
    def lineage(self) -> Lineage:
        """The log's generations."""
        assert self._lineage is not None
        return self._lineage

    @property
    def delivered(self) -> int:
        """The place of all live readers."""
        return self._live.delivered

    @property
    def head(self) -> int:
        """The number of the newest entry that has come."""
        return self._live.last

    def floors(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return, by channel, the newest number that is not in memory."""
        return {name: self._tail.floor(name) for name in names}

    def newest(self, names: Sequence[str], count: int) -> int:
        """Return the place in memory from which the newest *count* are read."""
        return self._tail.newest(names, count, self._live.last)

    def has_after(self, names: Sequence[str], place: int) -> bool:
        """Return whether one of *names* has an entry after *place*, here or gone."""
        return any(self._tail.last(name) > place for name in names)

    def conflates(self, following: Following, place: int) -> bool:
        """Return whether the newest by key are all that is missed from *place* on."""
        return self._late.conflated(following, place) is not None

    @property
    def readers(self) -> Iterable[Reader]:
        """Who follows here."""
        return self._readers

    @property
    def burst(self) -> int:
        """How many entries the present turn of the loop has had."""
        return self._live.burst

    def cursor(self, place: int) -> str:
        """Return the id of the place *place*."""
        return self.lineage.cursor(place)

    def watch(self, channel: str, tell: Callable[[Entry], None]) -> None:
        """Call *tell* with each entry of *channel* that comes."""
        self._live.watch(channel, tell)

    def unwatch(self, channel: str) -> None:
        """Take `watch` back."""
        self._live.unwatch(channel)

    async def known(self) -> None:
        """Return when the log was reached for the first time, or the end has come."""
        await asyncio.shield(self._known)

    async def reached(self, place: int) -> None:
        """Return when everything through *place* has come."""
        if self._tail.head >= place:
            return
        future: asyncio.Future[None] = self._loop.create_future()
        entry = place, future
        self._awaiting.append(entry)
        try:
            await future
        finally:
            if entry in self._awaiting:
                self._awaiting.remove(entry)

    def end(self) -> None:
        """Let all who follow learn that the application ends."""
        self.ended = True
        if not self._known.done():
            self._known.set_result(None)
        for reader in tuple(self._readers):
            reader.on_ending(Ending("stopped"))

    async def close(self) -> None:
        """End what is under way, and who still follows."""
        await self.fetches.close()
        self.end()

    # -- what readers do -------------------------------------------------------------

    def join(self, reader: Reader, following: Following, place: int) -> None:
        """Let *reader* follow from *place*: what it missed, then what comes."""
        reader.feed = following
        reader.place = place
        self._readers[reader] = following
        if reader.blocked:
            reader.standing = Standing.PAUSED
        else:
            reader.standing = Standing.BEHIND
            self._late.catch_up(reader)

    def leave(self, reader: Reader) -> None:
        """See `Source.leave`."""
        self._unlive(reader, self.delivered)
        self._readers.pop(reader, None)
        reader.standing = Standing.OUT
        reader.feed = None

    def pause(self, reader: Reader) -> None:
        """See `Source.pause`."""
        self._unlive(reader, self.delivered)
        if reader.standing is not Standing.OUT:
            reader.standing = Standing.PAUSED

    def resume(self, reader: Reader) -> None:
        """See `Source.resume`."""
        if reader.standing is Standing.PAUSED:
            self._late.put(reader)

    def place_of(self, reader: Reader) -> int:
        """See `Source.place_of`."""
        if reader.standing is not Standing.LIVE:
            return reader.place
        return self._live.place_of(reader)

    # -- between live and behind -----------------------------------------------------

    def settle(self) -> None:
        """See `LiveKeeper.settle`."""
        if self._live.delivered < self._live.last:
            self._live.flush()

    def go_live(self, reader: Reader, following: Following) -> None:
        """See `LiveKeeper.go_live`."""
        self._live.add(reader, following)

    def _unlive(self, reader: Reader, place: int) -> bool:
        """Give *reader* a place of its own, if it had none."""
        if reader.standing is not Standing.LIVE:
            return False
        self._live.remove(reader, self._readers[reader], place)
        return True

    def _fall_behind(self, reader: Reader) -> None:
        """Put *reader* behind: it cannot be given what comes with the others."""
        if self._unlive(reader, self.delivered):
            self._late.put(reader)

    def _moved(self) -> None:
        """Let those go on who wait for what has been delivered now."""
        self._late.go_on()
        if self._awaiting:
            for place, future in self._awaiting:
                if place <= self.delivered and not future.done():
                    future.set_result(None)
