"""One client's connection: the only code that writes to a socket.

Law: one writer, in order: frames, catching up, heartbeats and the end all go through
here. A transport that is paused is not written to, but for the few bytes that end a
stream.
"""

from __future__ import annotations

__all__ = ("Connection", "Script")

import asyncio
from collections.abc import Callable
from typing import Final

from ..streams.ending import Ending
from ..streams.reader import GapReason
from ..wire import COMMENT, LAST_CHUNK, frame, unframe
from .link import CloseReason, Link
from .tally import Tally

_HEARTBEAT: Final = frame(COMMENT)


class Script:
    """What a connection says for itself: the texts of one route's control events."""

    def gap(
        self, connection: Connection, reason: GapReason, after: str, place: str
    ) -> bytes | None:
        """Return the block that tells a gap; None to end the connection instead."""
        raise NotImplementedError

    def ending(
        self, connection: Connection, ending: Ending
    ) -> tuple[CloseReason, bytes]:
        """Return why the connection closes and its last block."""
        raise NotImplementedError

    def replaced(self, connection: Connection) -> bytes:
        """Return the last block of a connection whose place another has taken."""
        raise NotImplementedError

    def farewell(self, connection: Connection) -> bytes:
        """Return the last block of a connection that is to come back."""
        raise NotImplementedError

    def disconnected(self, connection: Connection) -> bytes:
        """Return the last block of a connection that is not to come back."""
        raise NotImplementedError

    def heartbeat(self, connection: Connection) -> bytes:
        """Return what is said when there has been nothing to say."""
        return COMMENT


class Connection(Link):
    """A stream's transport.

    Args:
        transport: The client's.
        chunked: Whether the body is chunked: HTTP/1.1.
        script: What to say at gaps and ends; None where nobody reads from a feed.
        now: The time, by the application's clock.
        task: The task that aiohttp cancels, where it cancels handlers of clients that
            have left.

    Attributes:
        opened: When it was opened.
        due: When it is to be ended; None for never.
        route: The name of the route that it is of.
        owner: Whose it is, as text; None for nobody's.
        channels: What it follows, where it follows channels.
        on_dismissed: Called when it was ended for good in the midst of a run.
        announced: The last place whose id the client was told without an event.
        said: That id, as a hello or a gap had it.
        tally: Where it is counted; None where it is not.
        on_hole: Called in place of telling a gap, with why and after which id; returns
            what `Reader.on_gap` does.
    """

    __slots__ = (
        "_chunked",
        "_script",
        "announced",
        "channels",
        "due",
        "on_dismissed",
        "on_hole",
        "opened",
        "owner",
        "route",
        "said",
        "tally",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        chunked: bool,
        script: Script | None,
        now: float,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        super().__init__(transport, now, task)
        self.opened = now
        self.due: float | None = None
        self.announced = 0
        self.said = ""
        self.route = ""
        self.tally: Tally | None = None
        self.owner: str | None = None
        self.on_dismissed: Callable[[], None] | None = None
        self.channels: tuple[str, ...] = ()
        self.on_hole: Callable[[GapReason, str], bool] | None = None
        self._chunked = chunked
        self._script = script
        self.send = transport.write if chunked else self._send_plain

    # -- writing -------------------------------------------------------------------

    def write(self, block: bytes) -> None:
        """Write *block* as one chunk; nothing when the connection is closed."""
        if self.closed is None:
            chunk = frame(block)
            self.sent += len(chunk)
            self.send(chunk)

    def end(self, reason: CloseReason, block: bytes = b"") -> None:
        """End the stream cleanly, with a last *block*; nothing if it is closed."""
        if self.closed is not None:
            return
        if self.feed is not None:
            self.feed.leave(self)
        last = (frame(block) if self._chunked else block) if block else b""
        if self._chunked:
            last += LAST_CHUNK
        if last:
            self.sent += len(last)
            self.transport.write(last)
        self.close(reason)

    def farewell(self) -> bytes:
        """Return the last block of a connection that is to come back."""
        return self._script.farewell(self) if self._script is not None else b""

    def dismiss(self) -> None:
        """End the stream for good, and what it is a part of."""
        block = self._script.disconnected(self) if self._script is not None else b""
        self.end("disconnected", block)
        if self.on_dismissed is not None:
            self.on_dismissed()

    # -- the ticker ----------------------------------------------------------------

    def tick(self, now: float, heartbeat: float) -> None:
        """Do what is due: a heartbeat, the end of its life, the cut of a stall.

        Args:
            now: The time.
            heartbeat: Seconds of silence before it is said that there is nothing.
        """
        if self.closed is not None:
            return
        # Of what is done for thousands a second, little is a call.
        if self._seen != self.total:
            self.note(now)
        if self._taken < self._seen and self.stalls(now):
            self.abort("stalled")
        elif self.due is not None and now >= self.due:
            self.end("lifetime", self.farewell())
        elif now - self.active_at >= heartbeat and not self.blocked:
            chunk = self._heartbeat()
            chunk = chunk if self._chunked else unframe(chunk)
            self.sent += len(chunk)
            self.note(now)
            self.transport.write(chunk)

    def _heartbeat(self) -> bytes:
        if self._script is None:
            return _HEARTBEAT
        block = self._script.heartbeat(self)
        return _HEARTBEAT if block is COMMENT else frame(block)

    def tick_leaving(self, now: float) -> None:
        """Cut it if its peer takes nothing more of a stream that has ended."""
        self.note(now)
        if self.stalls(now):
            self.abort("stalled")

    # -- as a reader ---------------------------------------------------------------

    def replaced(self) -> None:
        """See `PacedReader.replaced`."""
        assert self._script is not None
        self.end("replaced", self._script.replaced(self))

    def on_gap(self, reason: GapReason, after: str, place: str) -> bool:
        """See `Reader.on_gap`."""
        if self.on_hole is not None:
            return self.on_hole(reason, after)
        assert self._script is not None
        assert self.feed is not None
        block = self._script.gap(self, reason, after, place)
        if block is None:
            self.end("gap", self.farewell())
            return False
        self.announced = self.feed.place_of(self)
        self.write(block)
        return True

    def on_ending(self, ending: Ending) -> None:
        """See `Reader.on_ending`."""
        assert self._script is not None
        reason, block = self._script.ending(self, ending)
        self.end(reason, block)

    def on_conflated(self) -> None:
        """See `Reader.on_conflated`."""
        if self.tally is not None:
            self.tally.conflated += 1

    def _send_plain(self, chunk: bytes) -> None:
        self.transport.write(unframe(chunk))
