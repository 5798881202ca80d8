"""The delivery from a private run's log to its one reader.

Law: as in a feed that many read, a reader is a place in the log, and replay, live
delivery and catching up are the same step. One reader makes it cheaper: a turn is over
when the generator waits, and nobody else is kept waiting.
"""

from __future__ import annotations

__all__ = ("RunFeed",)

import asyncio
from collections.abc import Callable
from typing import Any

from ..serialize import json_into
from ..wire import Encoder, frame, json_chunk
from .ending import Ending
from .feed import BATCH, BURST
from .reader import Reader, Standing
from .run_log import RunLog


class RunFeed(RunLog):
    """A run's events, and who reads them.

    Args:
        encoder: Makes the body of what is yielded.
        prefix: What an event's id is before its number.
        max_events: See `RunLog`.
        max_bytes: See `RunLog`.

    Attributes:
        ending: How the producer ended; None while it goes on.
        own_ids: Whether only ids that the producer gives go out.
        gave_ids: Whether it has given any.
    """

    __slots__ = (
        "_around",
        "_encoder",
        "_held_bytes",
        "_json_chunk",
        "_longer_at",
        "_plain",
        "_pumping",
        "_reader",
        "_send",
        "ending",
        "gave_ids",
        "own_ids",
        "prefix",
    )

    def __init__(
        self, encoder: Encoder, *, prefix: str, max_events: int, max_bytes: int
    ) -> None:
        super().__init__(max_events, max_bytes)
        self.prefix = prefix
        self.ending: Ending | None = None
        self.own_ids = self.gave_ids = False
        self._encoder = encoder
        self._plain = encoder.plain
        self._json_chunk, around = json_chunk(prefix)
        # The bytes of a block of JSON around its text, and where its number is longer.
        self._around = around + len("1")
        self._longer_at = 10
        self._held_bytes = 0
        self._reader: Reader | None = None
        self._send: Callable[[bytes], object] | None = None  # while that is live
        self._pumping = False

    # -- what the producer does ------------------------------------------------------

    def append(self, item: Any) -> bool:
        """Add what was yielded and deliver it; return whether the producer is to rest.

        The first event of a turn leaves so, at once. This is each event's way, from the
        generator to the system call, and written out for that: a call here and there
        would be half as much again. What is not common has a function of its own.
        """
        seq = self.head + 1
        encoder = self._encoder
        text = encoder.text
        is_json = type(item) in self._plain
        if is_json:
            try:
                json_into(item, text)
            except Exception:  # noqa: BLE001 -- `_block` says what is wrong
                is_json = False
        size = len(text)
        # What `_block` is to look at: raw JSON of the user's with what an event cannot
        # carry as it is, and what is or may be an error. A byte is looked for as a
        # number, for bytes are tried as a number first. Few short texts have a ``u``:
        # all others are not searched for a null.
        if is_json and not (
            0 in text
            or 10 in text
            or 13 in text
            or (117 in text and text.find(b"null") >= 0)
            or size > encoder.longest
        ):
            if seq == self._longer_at:
                self._longer_at *= 10
                self._around += 1
            chunk = self._json_chunk % (size + self._around, seq, text)
        elif item is None:
            return True
        else:
            chunk = frame(self._block(item, seq))
        self.head = seq
        self._total = total = self._total + len(chunk)
        self._chunks.append(chunk)
        send = self._send
        if send is not None:
            send(chunk)
        return seq > self._most_events or total > self._most_bytes

    def hold(self, item: Any) -> bool:
        """Add what was yielded behind the first event of a turn; see `append`.

        Such events leave in one write when the turn is over.
        """
        send, self._send = self._send, None
        before, size = self.head, self._total
        try:
            over = self.append(item)
        finally:
            self._send = send
        self._held += self.head - before
        self._held_bytes += self._total - size
        # A generator that never waits would starve everybody else.
        return over or self._held >= BURST - 1 or self._held_bytes >= BATCH

    def _block(self, item: Any, seq: int) -> bytes:
        """Return the block of *item*, with its id if it is to have one."""
        lines, carries_id, own_id = self._encoder(item)
        if seq == self._longer_at:
            self._longer_at *= 10
            self._around += 1
        if own_id is not None:
            self.keep_ids()
            self.gave_ids = True
            return b"id: %b\n%b" % (own_id.encode(), lines)
        if not carries_id or self.own_ids:
            return lines
        return b"id: %b%d\n%b" % (self.prefix.encode(), seq, lines)

    def keep_ids(self) -> None:
        """Let no ids go out but those that the producer gives."""
        self.own_ids = True
        self._plain = frozenset()

    def turn_over(self) -> None:
        """Deliver what waits for the end of the turn: the producer waits."""
        if not self._held:
            return
        before, size = self.delivered, self._held_bytes
        self._held = self._held_bytes = 0
        reader, send = self._reader, self._send
        if reader is not None and send is not None:
            chunk = self._joined(before, self.head)
            # Fewer than their frames have.
            reader.sent += len(chunk) - size
            send(chunk)

    def finish(self, ending: Ending) -> None:
        """Note that no more will come; the reader learns it behind the last event."""
        self.turn_over()
        self.ending = ending
        self._unlive()
        self._catch_up()

    # -- the reader ------------------------------------------------------------------

    def cursor(self, place: int) -> str:
        """Return the id of the place *place*."""
        return f"{self.prefix}{place}"

    @property
    def written(self) -> int:
        """Bytes written to live readers since the run began, as if there was one."""
        return self._total - self._held_bytes

    @property
    def silent(self) -> bool:
        """Whether no event has come yet."""
        return self.head == 0

    def join(self, reader: Reader, place: int) -> None:
        """Let *reader* read on from *place*, in the log: what it missed, what comes."""
        self._reader = reader
        reader.events -= place
        reader.feed = self
        reader.place = place
        if reader.blocked:
            reader.standing = Standing.PAUSED
        else:
            reader.standing = Standing.BEHIND
            self._catch_up()

    def leave(self, reader: Reader) -> None:
        """Forget *reader*; its place is where it was."""
        if self._reader is reader:
            self._unlive()
            reader.events += reader.place
            self._reader = None
        reader.standing = Standing.OUT
        reader.feed = None

    def pause(self, reader: Reader) -> None:
        """Write no more to *reader* until `resume`."""
        self._unlive()
        reader.standing = Standing.PAUSED

    def resume(self, reader: Reader) -> None:
        """Let *reader* read on, if it was paused."""
        if reader.standing is Standing.PAUSED:
            reader.standing = Standing.BEHIND
            self._pump()

    def place_of(self, reader: Reader) -> int:
        """Return the number of the last event written to *reader*."""
        return self.delivered if reader.standing is Standing.LIVE else reader.place

    def told(self, reader: Reader) -> int:
        """See `Source.told`: every event is for its reader."""
        return self.place_of(reader)

    def counted(self, reader: Reader) -> int:
        """See `Source.counted`: numbers have no holes, and its first was taken off."""
        return self.place_of(reader)

    def has_after(self, place: int) -> bool:
        """See `Source.has_after`."""
        return self.delivered > place

    def _unlive(self) -> None:
        """Give the reader a place of its own, if it had none."""
        reader = self._reader
        if reader is not None and reader.standing is Standing.LIVE:
            self._send = None
            reader.sent += self.written - reader.joined_live_at
            reader.standing = Standing.BEHIND
            reader.place = self.delivered

    def _pump(self) -> None:
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pumped)

    def _pumped(self) -> None:
        self._pumping = False
        self._catch_up()

    def _catch_up(self) -> None:
        """Write the reader one batch of what comes after its place."""
        reader = self._reader
        if reader is None or reader.standing is not Standing.BEHIND:
            return
        if reader.place < self.delivered:
            before, through = reader.place, self._batch(reader.place, BATCH)
            past = 0
            if before < reader.past:
                through = min(through, reader.past)
                past = through - before
            # Before the write: it may pause the reader, who then is at this place.
            reader.place = through
            chunk = self._joined(before, through, past)
            reader.sent += len(chunk)
            reader.send(chunk)
            if reader.standing is not Standing.BEHIND:
                return
        if reader.place < self.delivered:
            self._pump()
        elif self.ending is not None:
            reader.on_ending(self.ending)
        else:
            reader.standing = Standing.LIVE
            reader.joined_live_at = self.written
            self._send = reader.send
