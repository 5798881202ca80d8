"""The readers that have everything, and what comes for them.

Law: an entry becomes one frame, which is the same bytes for all who follow its channel:
at once where it is the first of a turn of the loop, else with all others at the end of
the turn. Who cannot be given it like the others is live no more.
"""

from __future__ import annotations

__all__ = ("Live",)

from collections.abc import Callable, Sequence

from ..logs.entry import Entry
from ..logs.tail import Tail
from .debts import Debts
from .delivery import Delivery
from .feed import BATCH, BURST
from .following import Following, Topic
from .reader import Reader, Standing
from .turns import Turns


class Live:
    """The live readers of a log in this process, by what they follow.

    Args:
        tail: What of the log is in memory.
        turns: The loop's.
        behind: Told of each reader that cannot be given what comes with the others; it
            is to `remove` it.
        moved: Called when something was delivered.

    Attributes:
        delivered: The place of all live readers.
        last: The number of the newest entry that has come, delivered or not.
    """

    def __init__(
        self,
        tail: Tail,
        turns: Turns,
        behind: Callable[[Reader], None],
        moved: Callable[[], None],
    ) -> None:
        self.delivered = 0
        self.last = 0
        self._tail = tail
        self._turns = turns
        self._behind = behind
        self._moved = moved
        self._debts = Debts()
        self._delivery = Delivery(self._debts, behind)
        self._topics: dict[str, Topic] = {}
        self._watchers: dict[str, Callable[[Entry], None]] = {}
        self._turn = -1
        self._turn_events = 0
        self._held = False
        self._held_bytes = 0
        self._dirty: dict[Topic, None] = {}

    # -- what comes ------------------------------------------------------------------

    def take(self, entries: Sequence[Entry], blocks: Sequence[bytes]) -> None:
        """Deliver *entries*: the first of a turn of the loop at once.

        Further ones of the same turn leave together at its end, in one write.
        """
        turns, topics = self._turns, self._topics
        for entry, block in zip(entries, blocks, strict=True):
            topic = topics.get(entry.channel)
            if topic is not None:
                if entry.prev > topic.last:
                    self._overtake(topic)
                topic.last = entry.seq
                if topic.live:
                    topic.pending.append((entry.seq, block))
                    self._dirty[topic] = None
                    self._held_bytes += len(block)
            watcher = self._watchers.get(entry.channel)
            if watcher is not None:
                # What it does to readers comes behind all that was before the entry.
                self.last = entry.seq
                self.flush()
                watcher(entry)
        self.last = entries[-1].seq
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

    @property
    def burst(self) -> int:
        """How many entries the present turn of the loop has had."""
        return self._turn_events if self._turn == self._turns.number else 0

    def flush(self) -> None:
        """Deliver what waits for the end of the turn."""
        self._held = False
        self._held_bytes = 0
        before, self.delivered = self.delivered, self.last
        dirty = self._dirty
        if dirty:
            self._dirty = {}
            self._delivery.write(tuple(dirty), before)
        self._moved()

    def watch(self, channel: str, tell: Callable[[Entry], None]) -> None:
        """Call *tell* with each entry of *channel* that comes."""
        self._watchers[channel] = tell

    def unwatch(self, channel: str) -> None:
        """Take `watch` back."""
        self._watchers.pop(channel, None)

    def miss(self, channel: str) -> None:
        """Let the readers of *channel*, of which entries are missing, find that out."""
        topic = self._topics.get(channel)
        if topic is not None:
            self._overtake(topic)

    def _overtake(self, topic: Topic) -> None:
        for reader in tuple(topic.live):
            self._behind(reader)
        topic.pending.clear()
        self._dirty.pop(topic, None)

    def move(self, place: int) -> None:
        """Go on from *place* in another log, while nobody is live."""
        self.delivered = self.last = place

    # -- who is live -----------------------------------------------------------------

    def add(self, reader: Reader, following: Following) -> None:
        """Let *reader*, which has everything, be written to with the others."""
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

    def remove(self, reader: Reader, following: Following, place: int) -> None:
        """Give *reader* a place of its own: *place*, or before what it is owed."""
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

    def place_of(self, reader: Reader) -> int:
        """Return the place of *reader*, which is live."""
        debt = self._debts.of(reader)
        return self.delivered if debt is None else debt.place
