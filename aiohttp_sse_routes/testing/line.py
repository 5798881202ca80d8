"""The bytes of one response, which a test lets come or not.

Law: what came before a connection broke is handed on before the break.
"""

from __future__ import annotations

__all__ = ("Line",)

import socket
from typing import Any, Final

import aiohttp

_LITTLE: Final = 4096


class Line:
    """A connection, as far as a test has to do with it.

    Args:
        response: What it carries; None for one that never was.

    Attributes:
        address: Its own end.
        is_stalled: Whether nothing is taken from it.
    """

    def __init__(self, response: aiohttp.ClientResponse | None = None) -> None:
        self.is_stalled = False
        self._response = response
        self._broken: BaseException | None = None
        self._room = 0
        # It knows its connection only as long as its body has not ended.
        connection = response.connection if response is not None else None
        self._transport: Any = connection.transport if connection is not None else None
        own = self._info("sockname")
        self.address = tuple(own[:2]) if isinstance(own, tuple) else None

    async def read(self) -> bytes:
        """Return what has come; empty at the end."""
        assert self._response is not None
        content = self._response.content
        if self._broken is not None:
            raise self._broken
        try:
            return await content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            rest = _rest(content)
            if not rest:
                raise
            self._broken = error
            return rest

    def stall(self) -> None:
        """Take nothing more, and let the system keep little."""
        if self.is_stalled or self._transport is None:
            return
        self.is_stalled = True
        if not self._transport.is_closing():
            self._transport.pause_reading()
        sock = self._info("socket")
        if sock is not None:
            # The system says twice what it was told.
            self._room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LITTLE)

    def go_on(self) -> None:
        """Take what comes again."""
        if not self.is_stalled:
            return
        self.is_stalled = False
        if self._transport.is_closing():
            return
        sock = self._info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._room)
        protocol = self._transport.get_protocol()
        # aiohttp holds it too, while its buffer is full; then the next read lets go.
        if not getattr(protocol, "_reading_paused", False):
            self._transport.resume_reading()

    def _info(self, name: str) -> Any:
        return None if self._transport is None else self._transport.get_extra_info(name)


def _rest(content: Any) -> bytes:
    """Return what was received before the connection broke.

    aiohttp raises first, and would let go of what nobody had read yet.
    """
    content.set_exception(None)
    data: bytes = content.read_nowait()
    return data
