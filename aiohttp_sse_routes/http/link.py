"""Between a transport and aiohttp's protocol: where pause, resume and loss are seen.

Law: no time limit and no cancellation ever touches aiohttp's ``write`` or ``drain``.
What comes is handed on to aiohttp's protocol, which is put back when the stream has
ended.
"""

from __future__ import annotations

__all__ = ("CloseReason", "Link")

import asyncio
from collections.abc import Callable
from typing import Literal, cast

from .peer import Peer

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


class Link(asyncio.Protocol, Peer):
    """A transport that is taken over from aiohttp.

    Args:
        transport: The client's.
        now: The time, by the application's clock.
        task: The task that aiohttp cancels, where it cancels handlers of clients that
            have left.

    Attributes:
        closed: Why it was closed; None while it is open.
        on_resume: Called when the transport takes more again, and when it is closed.
        cancelled: Whether aiohttp has cancelled the handler because the client left.
        released: Whether it was given back to aiohttp.
    """

    __slots__ = (
        "_inner",
        "_task",
        "_waiter",
        "cancelled",
        "closed",
        "on_resume",
        "released",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        now: float,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        super().__init__(transport, now)
        self.closed: CloseReason | None = None
        self.on_resume: Callable[[], None] | None = None
        self.cancelled = False
        self.released = False
        self._waiter: asyncio.Future[None] | None = None
        self._task = task
        inner = transport.get_protocol()
        self._inner = cast(asyncio.Protocol, inner)
        self.blocked = bool(getattr(inner, "writing_paused", False))
        transport.set_protocol(self)
        if transport.is_closing():
            self.close("client")

    # -- the end -------------------------------------------------------------------

    def close(self, reason: CloseReason) -> None:
        """Note that it is closed, for *reason*; nothing if it is."""
        if self.closed is not None:
            return
        if self.feed is not None:
            self.feed.leave(self)
        self.closed = reason
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.on_resume is not None:
            self.on_resume()

    def abort(self, reason: CloseReason) -> None:
        """Cut the connection: its peer takes nothing more."""
        self.close(reason)
        self.transport.abort()

    def hang_up(self) -> None:
        """Close the transport when what was written is out: its handler stays on.

        It is not given back, so that the loss of it is seen here still.
        """
        if not self.lost and not self.released:
            self.linger()
            self.transport.close()

    @property
    def leaving(self) -> bool:
        """Whether the stream has ended, and its peer is yet to take the end of it."""
        return (
            self.closed is not None
            and not self.lost
            and not self.released
            and self.unsent > 0
        )

    def closing(self) -> asyncio.Future[None]:
        """Return a future that is done when the connection is closed.

        It may be done before: whoever awaits it and is cancelled ends it for all.
        """
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._waiter = waiter = asyncio.get_running_loop().create_future()
            if self.closed is not None:
                waiter.set_result(None)
        return waiter

    async def wait_closed(self) -> None:
        """Return when the connection is closed; safe to cancel."""
        while self.closed is None:
            await asyncio.wait({self.closing()})

    def release(self) -> None:
        """Give the transport back to aiohttp, as it was.

        One whose peer has not taken all is closed: nothing is to wait behind that.
        """
        if self.leaving:
            self.hang_up()
            return
        self.released = True
        self._task = None
        if self.lost:
            return
        if self.transport.get_protocol() is self:
            self.transport.set_protocol(self._inner)
        if not self.transport.is_closing():
            self.restore()

    # -- what comes from the transport ----------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand on what the client sent: pipelined requests, a request's body."""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on that the client sends no more, which to aiohttp is that it left.

        Its transport is closed then, but is not lost before the buffer is empty.
        """
        keep_open = self._inner.eof_received()
        if not keep_open:
            self.close("client")
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
        self.lost = True
        self.close("client")
        before = self._cancellations()
        self._inner.connection_lost(exc)
        self.cancelled = self._cancellations() > before
        self._task = None  # whose frame may hold what holds this

    def _cancellations(self) -> int:
        return 0 if self._task is None else self._task.cancelling()
