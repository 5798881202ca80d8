"""What a process knows of a store's log, and the delivery of it to who follows here.

Law: one sequence of numbers for all channels, so that one number is the place of every
reader that has everything. Between reading the last entry and being registered as live
nothing is awaited. An entry becomes one frame, which is the same bytes for all who
follow its channel; a reader that is behind, or overtaken, costs the others nothing.
"""

from __future__ import annotations

__all__ = ("Broker",)

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..logs.entry import Entry, Lineage
from ..logs.store import Store
from .catching_up import CatchUp
from .debts import Debts
from .delivery import Delivery
from .ending import Ending
from .feed import BATCH, BURST
from .following import Following, Topic
from .reader import GapReason, Reader, Standing
from .turns import Turns


class Broker:
    """The followers of one store in this process.

    Args:
        store: The store; opened with this as its follower.
        turns: The loop's.

    Attributes:
        delivered: The place of all live readers.
        ended: Whether the application ends, and with it all following.
    """

    def __init__(self, store: Store, turns: Turns) -> None:
        self.store = store
        self.delivered = 0
        self.ended = False
        self._debts = Debts()
        self._delivery = Delivery(self._debts, self._miss)
        self._late = CatchUp(self, store)
        self.fetches = self._late.fetches
        self._tail = store.tail
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._topics: dict[str, Topic] = {}
        self._readers: dict[Reader, Following] = {}
        self._last = 0  # the newest entry's number, delivered or not
        self._turn = -1
        self._turn_events = 0
        self._held = False
        self._held_bytes = 0
        self._dirty: dict[Topic, None] = {}
        self._lineage: Lineage | None = None
        self._watchers: dict[str, Callable[[Entry], None]] = {}
        self._known: asyncio.Future[None] = self._loop.create_future()
        self._awaiting: list[tuple[int, asyncio.Future[None]]] = []

    # -- what the store tells --------------------------------------------------------

    def on_entries(self, entries: Sequence[Entry], blocks: Sequence[bytes]) -> None:
        """Deliver *entries*: the first of a turn of the loop at once.

        Further ones of the same turn leave together at its end, in one write.
        """
        turns, topics = self._turns, self._topics
        for entry, block in zip(entries, blocks, strict=True):
            topic = topics.get(entry.channel)
            if topic is not None:
                if entry.prev > topic.last:
                    self._overtaken(topic)
                topic.last = entry.seq
                if topic.live:
                    topic.pending.append((entry.seq, block))
                    self._dirty[topic] = None
                    self._held_bytes += len(block)
            watcher = self._watchers.get(entry.channel)
            if watcher is not None:
                # What it does to readers comes behind all that was before the entry.
                self._last = entry.seq
                self.flush()
                watcher(entry)
        self._last = entries[-1].seq
        if self._turn != turns.number:
            self._turn = turns.note()
            self._turn_events = len(entries)
            self.flush()
            return
        before = self._turn_events
        self._turn_events += len(entries)
        if self._held_bytes >= BATCH or before // BURST != self._turn_events // BURST:
            self.flush()
        elif not self._held:
            self._held = True
            turns.at_end(self.flush)

    def on_lineage(self, lineage: Lineage, *, reset: bool) -> None:
        """See `Follower.on_lineage`."""
        self.flush()
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
            self.delivered = self._last = head

    def on_missed(self, floors: Mapping[str, int]) -> None:
        """See `Follower.on_missed`."""
        self.flush()
        for name in floors:
            topic = self._topics.get(name)
            if topic is not None:
                self._overtaken(topic)

    def on_lost(self, channels: Mapping[str, int]) -> None:
        """See `Follower.on_lost`."""
        self.flush()
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

    def _overtaken(self, topic: Topic) -> None:
        """Let the readers of *topic*, of which entries are missing, find that out."""
        for reader in tuple(topic.live):
            self._unlive(reader, self.delivered)
            self._late.put(reader)
        topic.pending.clear()
        self._dirty.pop(topic, None)

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
    def head(self) -> int:
        """The number of the newest entry that has come."""
        return self._last

    def floors(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return, by channel, the newest number that is not in memory."""
        return {name: self._tail.floor(name) for name in names}

    def newest(self, names: Sequence[str], count: int) -> int:
        """Return the place in memory from which the newest *count* are read."""
        return self._tail.newest(names, count, self._last)

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
        return self._turn_events if self._turn == self._turns.number else 0

    def cursor(self, place: int) -> str:
        """Return the id of the place *place*."""
        return self.lineage.cursor(place)

    def watch(self, channel: str, tell: Callable[[Entry], None]) -> None:
        """Call *tell* with each entry of *channel* that comes."""
        self._watchers[channel] = tell

    def unwatch(self, channel: str) -> None:
        """Take `watch` back."""
        self._watchers.pop(channel, None)

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
        debt = self._debts.of(reader)
        return self.delivered if debt is None else debt.place

    # -- delivery to those who have everything ---------------------------------------

    def settle(self) -> None:
        """See `LiveKeeper.settle`."""
        if self.delivered < self._last:
            self.flush()

    def flush(self) -> None:
        """Deliver what waits for the end of the turn."""
        self._held = False
        self._held_bytes = 0
        before, self.delivered = self.delivered, self._last
        dirty = self._dirty
        if dirty:
            self._dirty = {}
            self._delivery.write(tuple(dirty), before)
        self._late.go_on()
        if self._awaiting:
            for place, future in self._awaiting:
                if place <= self.delivered and not future.done():
                    future.set_result(None)

    def _unlive(self, reader: Reader, place: int) -> bool:
        """Give *reader* a place of its own, if it had none."""
        if reader.standing is not Standing.LIVE:
            return False
        following = self._readers[reader]
        debt = self._debts.forgive(reader)
        if debt is not None:
            place = debt.place
            reader.sent -= debt.size  # counted, and not written to it
            reader.events -= debt.events
        reader.sent += following.written - reader.joined_live_at
        for name, topic in zip(following.names, following.topics, strict=True):
            reader.events += topic.events
            del topic.live[reader]
            if not topic.live:
                self._dirty.pop(topic, None)
                self._topics.pop(name, None)
        following.topics = ()
        reader.standing = Standing.BEHIND
        reader.place = place
        return True

    def _miss(self, reader: Reader) -> None:
        """Put *reader* behind: more has come for it than it was reached with."""
        if self._unlive(reader, self.delivered):
            self._late.put(reader)

    def go_live(self, reader: Reader, following: Following) -> None:
        """See `LiveKeeper.go_live`."""
        topics = []
        for name in following.names:
            topic = self._topics.get(name)
            if topic is None:
                topic = self._topics[name] = Topic(self._tail.last(name))
            topic.live[reader] = reader.send
            reader.events -= topic.events
            topics.append(topic)
        following.topics = topics
        reader.joined_live_at = following.written
        reader.standing = Standing.LIVE
