"""One client's connection: the only code that writes to a socket.

Law: one writer, in order: frames, catching up, heartbeats and the end all go through
here. A transport that is paused is not written to, but for the few bytes that end a
stream. No time limit and no cancellation ever touches aiohttp's ``write`` or ``drain``:
pause, resume and loss are seen by standing between the transport and aiohttp's own
protocol, which is put back when the stream has ended.
"""

from __future__ import annotations

__all__ = ("CloseReason", "Connection", "Script")

import asyncio
from collections.abc import Callable
from typing import Final, Literal, cast

from ..streams.ending import Ending
from ..streams.private import PacedReader
from ..streams.reader import GapReason
from ..wire import COMMENT, LAST_CHUNK, frame, unframe
from .sockets import STALL, Options, unacknowledged, unsent

CloseReason = Literal[
    "client",
    "disconnected",
    "error",
    "finished",
    "gap",
    "lifetime",
    "reconnect",
    "replaced",
    "shutdown",
    "stalled",
]
"""Why a connection was closed; ``client`` where the client left by itself."""

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


class Connection(asyncio.Protocol, PacedReader):
    """A stream's transport.

    Args:
        transport: The client's.
        chunked: Whether the body is chunked: HTTP/1.1.
        script: What to say at gaps and ends; None where nobody reads from a feed.
        now: The time, by the application's clock.
        task: The task that aiohttp cancels, where it cancels handlers of clients that
            have left.

    Attributes:
        closed: Why it was closed; None while it is open.
        opened: When it was.
        due: When it is to be ended; None for never.
        route: The name of the route that it is of.
        owner: Whose it is, as text; None for nobody's.
        channels: What it follows, where it follows channels.
        on_dismissed: Called when it was ended for good in the midst of a run.
        announced: The last place whose id the client was told without an event.
        on_hole: Called in place of telling a gap, with why and after which id; returns
            what `Reader.on_gap` does.
        cancelled: Whether aiohttp has cancelled the handler because the client left.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        chunked: bool,
        script: Script | None,
        now: float,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        self.transport = transport
        self.closed: CloseReason | None = None
        self.opened = now
        self.due: float | None = None
        self.cancelled = False
        self.announced = 0
        self.route = ""
        self.owner: str | None = None
        self.on_dismissed: Callable[[], None] | None = None
        self.channels: tuple[str, ...] = ()
        self.on_hole: Callable[[GapReason, str], bool] | None = None
        self._chunked = chunked
        self._script = script
        self._waiter: asyncio.Future[None] | None = None
        self._options = Options(transport)
        self._task = task
        self._lost = False
        self._released = False
        # What the last tick saw: as long as nothing changes, the connection is idle.
        self._total_seen = -1
        self._active_at = now
        self._taken = 0
        self._taken_at = now
        self._owed = False  # whether anything was waiting then
        self.on_resume: Callable[[], None] | None = None
        self.send = transport.write if chunked else self._send_plain
        inner = transport.get_protocol()
        self._inner = cast(asyncio.Protocol, inner)
        self.blocked = bool(getattr(inner, "writing_paused", False))
        transport.set_protocol(self)
        if transport.is_closing():
            self._close("client")

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
        self._close(reason)

    def farewell(self) -> bytes:
        """Return the last block of a connection that is to come back."""
        return self._script.farewell(self) if self._script is not None else b""

    def dismiss(self) -> None:
        """End the stream for good, and what it is a part of."""
        block = self._script.disconnected(self) if self._script is not None else b""
        self.end("disconnected", block)
        if self.on_dismissed is not None:
            self.on_dismissed()

    def abort(self, reason: CloseReason) -> None:
        """Cut the connection: its peer takes nothing more."""
        self._close(reason)
        self.transport.abort()

    def hang_up(self) -> None:
        """Close the transport when what was written is out: its handler stays on.

        It is not given back, so that the loss of it is seen here still.
        """
        if not self._lost and not self._released:
            self._options.linger()
            self.transport.close()

    @property
    def leaving(self) -> bool:
        """Whether the stream has ended, and its peer is yet to take the end of it."""
        return (
            self.closed is not None
            and not self._lost
            and not self._released
            and unsent(self.transport) > 0
        )

    async def wait_closed(self) -> None:
        """Return when the connection is closed; safe to cancel."""
        while self.closed is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    # -- the ticker ----------------------------------------------------------------

    def tick(self, now: float, heartbeat: float, spoken: bytes | None = None) -> None:
        """Do what is due: a heartbeat, the end of its life, the cut of a stall.

        Args:
            now: The time.
            heartbeat: Seconds of silence before it is said that there is nothing.
            spoken: What is said then, as a frame; by default what the script says.
        """
        if self.closed is not None:
            return
        total = self.total
        if total != self._total_seen:
            self._total_seen = total
            self._active_at = now
            self._check_stall(now, total)
        elif self._taken < total:
            self._check_stall(now, total)
        if self.closed is not None:
            return
        if self.due is not None and now >= self.due:
            self.end("lifetime", self.farewell())
        elif now - self._active_at >= heartbeat and not self.blocked:
            self._active_at = now
            chunk = spoken or self._heartbeat()
            chunk = chunk if self._chunked else unframe(chunk)
            self.sent += len(chunk)
            self._total_seen = self.total
            self.transport.write(chunk)

    def _heartbeat(self) -> bytes:
        if self._script is None:
            return _HEARTBEAT
        block = self._script.heartbeat(self)
        return _HEARTBEAT if block is COMMENT else frame(block)

    def tick_leaving(self, now: float) -> None:
        """Cut it if its peer takes nothing more of a stream that has ended."""
        self._check_stall(now, self.total)

    def _check_stall(self, now: float, total: int) -> None:
        taken = total - unacknowledged(self.transport, total)
        if taken > self._taken or not self._owed:
            self._taken = taken
            self._taken_at = now
            self._owed = taken < total
        elif now - self._taken_at >= STALL:
            self.abort("stalled")

    # -- as a reader ---------------------------------------------------------------

    def outstanding(self) -> int:
        """See `PacedReader.outstanding`."""
        total = self.total
        return total if self._lost else unacknowledged(self.transport, total)

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

    # -- between the transport and aiohttp -------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand on what the client sent: pipelined requests, a request's body."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on that the client sends no more, which to aiohttp is that it left.

        Its transport is closed then, but is not lost before the buffer is empty.
        """
        keep_open = self._inner.eof_received()
        if not keep_open:
            self._close("client")
        return keep_open

    def pause_writing(self) -> None:
        """Note that the transport's buffer is over its mark."""
        self._inner.pause_writing()
        self.paused()

    def resume_writing(self) -> None:
        """Note that it has drained."""
        self._inner.resume_writing()
        self.resumed()
        if self.on_resume is not None:
            self.on_resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client has gone, before aiohttp learns it."""
        self._lost = True
        self._close("client")
        before = self._cancellations()
        self._inner.connection_lost(exc)
        self.cancelled = self._cancellations() > before
        self._task = None  # whose frame may hold what holds this

    def _cancellations(self) -> int:
        return 0 if self._task is None else self._task.cancelling()

    def _send_plain(self, chunk: bytes) -> None:
        self.transport.write(unframe(chunk))

    def _close(self, reason: CloseReason) -> None:
        if self.closed is not None:
            return
        if self.feed is not None:
            self.feed.leave(self)
        self.closed = reason
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.on_resume is not None:
            self.on_resume()

    def release(self) -> None:
        """Give the transport back to aiohttp, as it was.

        One whose peer has not taken all is closed: nothing is to wait behind that.
        """
        if self.leaving:
            self.hang_up()
            return
        self._released = True
        self._task = None
        if not self._lost and self.transport.get_protocol() is self:
            self.transport.set_protocol(self._inner)
        self._options.restore()
