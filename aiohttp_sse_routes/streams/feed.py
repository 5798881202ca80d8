"""One log, its readers, and the delivery from the one to the others.

Law: a reader is a place in a log, never a queue. Replay, live delivery and catching up
are the same step, "what comes after my place": between reading the last entry and
being registered as live nothing is awaited. A reader whose transport is paused is not
written to: it is behind, and reads on from its place when the transport has drained.

A live reader has no place of its own: it is the feed's. That makes one delivery one
call of ``transport.write`` with bytes that are the same for all.
"""

from __future__ import annotations

__all__ = ("BATCH", "BURST", "Feed")

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from ..logs.ring import Lost, Ring
from ..wire import Body, frame, join
from .debts import Debts, Send
from .ending import Ending
from .reader import GapReason, Reader, Standing
from .slices import CHECK_EVERY, Slice
from .turns import Turns

BATCH: Final = 65_536
"""The most bytes that are joined to one write: asyncio's own high-water mark, above
which a transport is paused anyway."""

BURST: Final = 64
"""The most events of one turn of the loop that wait for its end."""


class Feed:
    """A log in memory and those who read it.

    Args:
        ring: Where the entries are.
        prefix: What an entry's id is before its number.
        number: Gives the number of the next entry.
        turns: The loop's.
        history: How many past entries a new reader gets.

    Attributes:
        delivered: The place of all live readers.
        ending: How the producer ended; None while it goes on.
        written: Bytes written to each live reader since the feed began.
        events: Events in these.
    """

    def __init__(
        self,
        ring: Ring,
        *,
        prefix: str,
        number: Callable[[], int],
        turns: Turns,
        history: int = 0,
    ) -> None:
        self.ring = ring
        self.prefix = prefix
        self.history = history
        self.start = self._first = ring.head
        self.delivered = ring.head
        self.ending: Ending | None = None
        self.written = 0
        self.events = 0
        self._number = number
        self._id_line = f"id: {prefix}".encode()
        self._loop = asyncio.get_running_loop()
        self._live: dict[Reader, Send] = {}
        self._debts = Debts()
        self._behind: deque[Reader] = deque()
        self._pump_scheduled = False
        self._turns = turns
        self._turn = -1  # the one of the newest event
        self._turn_events = 0
        self._held_bytes = 0
        self._held = False

    # -- what producers do ---------------------------------------------------------

    def append(self, body: Body) -> int:
        """Add an event and deliver it; return the bytes it takes in the log.

        The first event of a turn of the loop leaves at once; further ones of the same
        turn leave together at its end, in one write.
        """
        seq = self._number()
        if body.carries_id:
            block = b"%b%d\n%b" % (self._id_line, seq, body.lines)
        else:
            block = body.lines
        self.ring.append(seq, block)
        turns = self._turns
        if self._turn != turns.number:
            self._turn = turns.note()
            self._turn_events = 1
            if self._live:
                self._deliver(frame(block), seq, 1)
            else:
                self.delivered = seq
        else:
            self._turn_events += 1
            self._hold(len(block))
        return len(block)

    def _hold(self, size: int) -> None:
        """Let the newest event wait for the end of the turn, or for a full batch."""
        self._held_bytes += size
        if self._held_bytes >= BATCH:
            # As much as a turn may have, in larger events.
            self._turn_events = BURST
        if self._turn_events % BURST == 0:
            self.flush()
        elif not self._held:
            self._held = True
            self._turns.at_end(self.flush)

    @property
    def burst(self) -> int:
        """How many events the present turn of the loop has had."""
        return self._turn_events if self._turn == self._turns.number else 0

    def flush(self) -> None:
        """Deliver what waits for the end of the turn."""
        self._held = False
        self._held_bytes = 0
        if self.ring.head > self.delivered:
            if self._live:
                blocks, last = self.ring.after(self.delivered, self.ring.head, 1 << 62)
                self._deliver(join(blocks), last, len(blocks))
            else:
                self.delivered = self.ring.head

    def restart(self, unharmed: Collection[Reader] = ()) -> None:
        """Forget all events: what produced them has begun anew.

        Args:
            unharmed: Readers who were given nothing of what it produced.
        """
        self.flush()
        before, silent = self.delivered, self.silent
        self.ring.clear(self._number(), "restarted")
        if silent:
            self._first = self.ring.head
        self.delivered = self.ring.head
        self._all_behind(before, unharmed)

    def finish(self, ending: Ending) -> None:
        """Note that no more will come; readers learn it behind the last event."""
        self.flush()
        self.ending = ending
        self._all_behind(self.delivered)

    # -- what readers do -----------------------------------------------------------

    def cursor(self, place: int) -> str:
        """Return the id of the place *place*."""
        return f"{self.prefix}{place}"

    @property
    def silent(self) -> bool:
        """Whether no event has come yet."""
        return self.ring.head == self._first

    def has_all(self, place: int) -> bool:
        """Return whether nobody at *place* misses an event that carries an id."""
        if place < self.ring.floor:
            return False
        blocks, _ = self.ring.after(place, self.ring.head, 1 << 62)
        return not any(block.startswith(b"id: ") for block in blocks)

    def fresh_place(self) -> int:
        """Return where a new reader begins: its history behind that."""
        return self.ring.newest(self.history, self.delivered)

    def join(self, reader: Reader, place: int) -> None:
        """Let *reader* read on from *place*: what it missed, then what comes."""
        reader.feed = self
        reader.place = place
        if reader.blocked:
            reader.standing = Standing.PAUSED
        else:
            reader.standing = Standing.BEHIND
            self._catch_up(reader)

    def leave(self, reader: Reader) -> None:
        """Forget *reader*; its place is where it was."""
        self._unlive(reader, self.delivered)
        reader.standing = Standing.OUT
        reader.feed = None

    def pause(self, reader: Reader) -> None:
        """Write no more to *reader* until `resume`."""
        self._unlive(reader, self.delivered)
        if reader.standing is not Standing.OUT:
            reader.standing = Standing.PAUSED

    def resume(self, reader: Reader) -> None:
        """Let *reader* read on, if it was paused."""
        if reader.standing is Standing.PAUSED:
            self._put_behind(reader)

    def place_of(self, reader: Reader) -> int:
        """Return the number of the last entry written to *reader*."""
        if reader.standing is not Standing.LIVE:
            return reader.place
        debt = self._debts.of(reader)
        return self.delivered if debt is None else debt.place

    def told(self, reader: Reader) -> int:
        """See `Source.told`: every entry is for every reader."""
        return self.place_of(reader)

    def counted(self, reader: Reader) -> int:
        """See `Source.counted`."""
        return self.events if reader.standing is Standing.LIVE else 0

    def has_after(self, place: int) -> bool:
        """See `Source.has_after`."""
        return self.delivered > place

    # -- delivery ------------------------------------------------------------------

    def _deliver(self, chunk: bytes, through: int, events: int) -> None:
        """Write *chunk*, which is all up to *through*, to the live readers."""
        if self._debts:
            for reader in self._debts.among(self._live):
                # More has come for it than it was reached with.
                self._unlive(reader, self.delivered)
                self._put_behind(reader)
        before, self.delivered = self.delivered, through
        self.written += len(chunk)
        self.events += events
        if len(self._live) <= CHECK_EVERY:
            # A copy: a pause within the write takes the reader out.
            for send in tuple(self._live.values()):
                send(chunk)
            return
        self._debts.write(
            [*self._live],
            [*self._live.values()],
            chunk,
            before,
            events,
            within=Slice(self._loop),
        )

    def _all_behind(self, place: int, but: Collection[Reader] = ()) -> None:
        for reader in tuple(self._live):
            if reader in but:
                continue
            self._unlive(reader, place)
            reader.standing = Standing.BEHIND
            self._behind.append(reader)
        self._pump()

    def _unlive(self, reader: Reader, place: int) -> bool:
        """Give *reader* a place of its own, if it had none."""
        if self._live.pop(reader, None) is None:
            return False
        debt = self._debts.forgive(reader)
        if debt is not None:
            place = debt.place
            reader.sent -= debt.size  # counted, and not written to it
            reader.events -= debt.events
        reader.sent += self.written - reader.joined_live_at
        reader.events += self.events
        reader.standing = Standing.BEHIND
        reader.place = place
        return True

    def _put_behind(self, reader: Reader) -> None:
        reader.standing = Standing.BEHIND
        self._behind.append(reader)
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_scheduled = False
        turn = Slice(self._loop)
        # Not more than there are now: each gets one batch a round.
        for _ in range(len(self._behind)):
            reader = self._behind.popleft()
            if reader.feed is self and reader.standing is Standing.BEHIND:
                self._catch_up(reader)
            if not turn.has_room(1):
                break
        if self._behind and not self._pump_scheduled:
            self._pump_scheduled = True
            self._loop.call_soon(self._pump)

    def _catch_up(self, reader: Reader) -> None:
        """Write *reader* one batch of what comes after its place."""
        if reader.place < self.ring.floor and not self._tell_gap(reader):
            return
        through, is_past = self.delivered, reader.place < reader.past
        if is_past:
            through = min(through, reader.past)
        blocks, last = self.ring.after(reader.place, through, BATCH)
        if blocks:
            # Before the write: it may pause the reader, who then is at this place.
            reader.place = last
            chunk = join(blocks, len(blocks) if is_past else 0)
            reader.sent += len(chunk)
            reader.events += len(blocks)
            reader.send(chunk)
        if reader.standing is not Standing.BEHIND:
            return
        if reader.place < self.delivered:
            self._put_behind(reader)
        elif self.ending is not None:
            reader.on_ending(self.ending)
        else:
            reader.standing = Standing.LIVE
            reader.joined_live_at = self.written
            reader.events -= self.events
            self._live[reader] = reader.send

    def _tell_gap(self, reader: Reader) -> bool:
        lost: Lost = self.ring.lost
        after = reader.place
        reader.place = self.ring.floor if lost == "expired" else self.fresh_place()
        reason: GapReason = "slow" if lost == "expired" else lost
        return (
            reader.on_gap(reason, self.cursor(after), self.cursor(reader.place))
            and reader.standing is Standing.BEHIND
        )
