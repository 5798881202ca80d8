"""One connection that carries several streams: the trunk, and its branches.

Law: to a stream its branch is a transport like any, so that nothing else knows of them.
What a branch writes goes out in one piece with the line that says whose it is. That
the client takes no more, takes nothing, or has left is the trunk's to see. A branch
learns of a pause within its own write or in a turn of the loop of its own, never in the
midst of another's write: whoever writes to many counts on that.
"""

from __future__ import annotations

__all__ = ("Branch", "BranchConnection", "Trunk")

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, cast

from ..wire import COMMENT, control, frame
from .connection import Connection
from .link import CloseReason

_MARKS: Final = 32
"""Places in a branch's bytes that are kept until the peer has acknowledged them. Over
it every second one is dropped: then the branch learns of that somewhat later."""


class Trunk(Connection):
    """The connection that carries the branches; see `Connection` for the arguments.

    Attributes:
        chunked: Whether the body is chunked: HTTP/1.1.
        branches: All that it has, the ones that are over too.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        chunked: bool,
        now: float,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        self.chunked = chunked
        self.branches: Sequence[Branch] = ()
        self._waiting: deque[Branch] = deque()  # the longest paused first
        self._ending = False
        self._resuming = False
        super().__init__(transport, chunked=chunked, script=None, now=now, task=task)

    def branch(self, keys: Sequence[str]) -> Sequence[Branch]:
        """Begin a branch for each of *keys*; when all are over, so is the trunk."""
        self.branches = [Branch(self, key) for key in keys]
        return self.branches

    def piece(self, block: bytes) -> bytes:
        """Return *block* as it is put on this connection."""
        return frame(block) if self.chunked else block

    def put(self, data: bytes) -> None:
        """Write *data*, which is pieces; nothing when the client has left."""
        if self.closed is None and not self.transport.is_closing():
            self.sent += len(data)
            self.transport.write(data)

    @property
    def acknowledged(self) -> int:
        """How many of the bytes written the peer's TCP has acknowledged."""
        return self.total - self.outstanding()

    def end(self, reason: CloseReason, block: bytes = b"") -> None:
        """End all branches, then the connection; nothing if it is closed."""
        if self.closed is None and not self._ending:
            self._ending = True
            for branch in self.branches:
                branch.end(reason)
            super().end(reason, block)

    def on_over(self) -> None:
        """Learn that a branch is over."""
        if all(branch.over for branch in self.branches):
            self.end("finished")

    # -- the client takes no more, and takes more again --------------------------------

    def paused(self) -> None:
        """See `Reader.paused`."""
        super().paused()
        asyncio.get_running_loop().call_soon(self._pause_all)

    def _pause_all(self) -> None:
        if self.blocked:
            for branch in self.branches:
                branch.pause()

    def wait(self, branch: Branch) -> None:
        """Note that *branch* is paused: it goes on behind those paused before it."""
        self._waiting.append(branch)

    def resumed(self) -> None:
        """See `Reader.resumed`: one branch in a turn, while there is room."""
        super().resumed()
        if not self._resuming:
            self._resuming = True
            self._resume_next()

    def _resume_next(self) -> None:
        while self._waiting and not self.blocked:
            branch = self._waiting.popleft()
            if not branch.over:
                branch.resume()
                # What it is given now may be all that there is room for.
                asyncio.get_running_loop().call_soon(self._resume_next)
                return
        self._resuming = False

    # -- the client leaves -------------------------------------------------------------

    def eof_received(self) -> bool | None:
        """See `Connection.eof_received`."""
        keep_open = super().eof_received()
        if not keep_open:
            for branch in self.branches:
                branch.protocol.eof_received()
        return keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        """See `Connection.connection_lost`."""
        super().connection_lost(exc)
        for branch in self.branches:
            branch.lose(exc)


class Branch(asyncio.Transport):
    """The transport of one stream of several on a connection.

    Args:
        trunk: The connection.
        key: What the client calls the stream.

    Attributes:
        protocol: What is told of pauses and of the end, as a transport's protocol is.
        paused: Whether that was told of a pause.
        over: Whether nothing more of it is written: its end was.
        forsaken: Whether the client left in the midst of it, and the server cancels the
            handlers of clients that have left.
    """

    def __init__(self, trunk: Trunk, key: str) -> None:
        super().__init__()
        self.trunk = trunk
        self.protocol = asyncio.Protocol()
        self.over = False
        self.forsaken = False
        self.paused = trunk.blocked
        if self.paused:
            trunk.wait(self)
        self._line = trunk.piece(b"stream: %b\n" % key.encode())
        self._written = 0
        self._acknowledged = 0
        self._closing = False
        # Pairs: bytes of the trunk, and of this branch among them.
        self._marks: list[tuple[int, int]] = []

    @property
    def connection_type(self) -> type[Connection]:
        """What a stream on this transport is."""
        return BranchConnection

    # -- writing -----------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write *data*, which is pieces, behind the line that says whose it is."""
        if self.over:
            return
        trunk, marks = self.trunk, self._marks
        trunk.put(self._line + data)
        self._written += len(data)
        if len(marks) >= _MARKS:
            del marks[::2]
        marks.append((trunk.sent, self._written))
        if trunk.blocked:
            self.pause()

    def say(self, block: bytes) -> None:
        """Write *block*."""
        self.write(self.trunk.piece(block))

    def outstanding(self) -> int:
        """Return how many of the bytes written the peer may not have acknowledged."""
        position, marks = self.trunk.acknowledged, self._marks
        known = 0
        while known < len(marks) and marks[known][0] <= position:
            self._acknowledged = marks[known][1]
            known += 1
        del marks[:known]
        return self._written - self._acknowledged

    def finish(self, name: str = "sse-eof", data: Any = None) -> None:
        """Write the end of the stream, which others may outlast; twice is once.

        Args:
            name: What it is told by.
            data: What more there is to say.
        """
        if not self.over:
            self.say(control(name, data or {}))
            self.over = True
            self.trunk.on_over()

    def end(self, reason: CloseReason) -> None:
        """End the stream as a connection ends, so that its client comes back."""
        if isinstance(self.protocol, Connection):
            self.protocol.end(reason, self.protocol.farewell())
        self.finish()

    def pause(self) -> None:
        """Let the stream write no more for now."""
        if not self.paused and not self.over:
            self.paused = True
            self.trunk.wait(self)
            self.protocol.pause_writing()

    def resume(self) -> None:
        """Let it write again."""
        self.paused = False
        self.protocol.resume_writing()

    def lose(self, exc: Exception | None = None) -> None:
        """Let the stream learn that its client cannot be reached any more."""
        self.forsaken = self.trunk.cancelled and not self.over
        self.protocol.connection_lost(exc)

    # -- as a transport ----------------------------------------------------------------

    def close(self) -> None:
        """End the stream; its protocol learns it in the next turn of the loop."""
        if not self._closing:
            self._closing = True
            self.finish()
            asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        """Do as `close`: the connection is not this stream's to cut."""
        self.close()

    def is_closing(self) -> bool:
        """Return whether nothing more can be written."""
        trunk = self.trunk
        return self.over or trunk.closed is not None or trunk.transport.is_closing()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Set the protocol."""
        self.protocol = cast(asyncio.Protocol, protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the connection says, but for its socket, which others use too."""
        if name == "socket":
            return default
        return self.trunk.transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        """Return 0: what waits is the connection's."""
        return 0

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        """Do nothing: the limits are the connection's."""


class BranchConnection(Connection):
    """A stream on a branch."""

    def end(self, reason: CloseReason, block: bytes = b"") -> None:
        """End the stream with a last *block*; the connection goes on."""
        if self.closed is None:
            if block:
                self.write(block)
            self.close(reason)

    def close(self, reason: CloseReason) -> None:
        """See `Link.close`."""
        super().close(reason)
        self._branch.finish()

    def tick(self, now: float, heartbeat: float) -> None:
        """See `Connection.tick`; silence and stalls are the trunk's, places are not."""
        if self.closed is not None:
            return
        if self.due is not None and now >= self.due:
            self.end("lifetime", self.farewell())
        elif self.total != self._seen:
            self.note(now)
        elif now - self.active_at >= heartbeat and not self.blocked:
            self.active_at = now
            block = self._script.heartbeat(self) if self._script is not None else b""
            if block not in (b"", COMMENT):
                self.write(block)
                self.note(now)

    def outstanding(self) -> int:
        """See `PacedReader.outstanding`."""
        return min(self.total, self._branch.outstanding())

    @property
    def _branch(self) -> Branch:
        return cast(Branch, self.transport)
