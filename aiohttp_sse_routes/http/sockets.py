"""What the kernel knows of a TCP connection, and what we ask of it.

Law: every question has an answer on every system: where the kernel cannot say, the
answer is the safe one. Options that are set are put back where the connection is used
again.
"""

from __future__ import annotations

__all__ = ("STALL", "Options", "unacknowledged", "unsent")

import array
import asyncio
import socket
from typing import Any, Final

try:
    import fcntl
    import termios

    _TIOCOUTQ: int | None = getattr(termios, "TIOCOUTQ", None)
except ImportError:  # pragma: no cover -- Windows
    _TIOCOUTQ = None


STALL: Final = 30.0
"""Seconds in which a peer's TCP must acknowledge something, while bytes wait."""

_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)
_LOWAT: Final = 32_768
"""Bytes that the kernel holds unsent. Without it a slow but healthy client keeps
megabytes there, and looks stalled for half a minute."""

# In TLS the transport's count leaves out what lies between it and the socket, at most
# this much; it lies there only when the socket is full.
_TLS_SLACK: Final = 131_072
_TLS_FULL: Final = 16_384


class Options:
    """The socket options of a stream, with what they were before.

    Args:
        transport: The connection's.
    """

    __slots__ = ("_saved", "_socket")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._saved: list[tuple[int, int]] = []
        self._socket: socket.socket | None = _tcp_socket(transport)
        if self._socket is not None and _NOTSENT_LOWAT is not None:
            self._set(_NOTSENT_LOWAT, _LOWAT)

    def linger(self) -> None:
        """Let the kernel drop the connection if the rest is not taken in time."""
        if self._socket is not None and _USER_TIMEOUT is not None:
            self._set(_USER_TIMEOUT, int(STALL * 1000))

    def restore(self) -> None:
        """Put the options back."""
        sock, self._socket = self._socket, None
        if sock is None or sock.fileno() < 0:
            return
        for option, value in reversed(self._saved):
            try:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            except OSError:  # it has gone meanwhile
                return

    def _set(self, option: int, value: int) -> None:
        assert self._socket is not None
        try:
            before = self._socket.getsockopt(socket.IPPROTO_TCP, option)
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError:
            return
        self._saved.append((option, before))


def unacknowledged(transport: asyncio.Transport, written: int) -> int:
    """Return how many bytes the peer's TCP may not have, of *written* in all."""
    sock = _info(transport, "socket")
    queued = _queued(sock)
    if queued is None:
        # The system cannot say: what was written counts, up to what it can hold.
        return min(written, _buffered(transport) + _send_buffer(sock))
    return min(written, _buffered(transport) + _hidden(transport, queued) + queued)


def unsent(transport: asyncio.Transport) -> int:
    """Return how many bytes may not have come to the kernel yet."""
    queued = _queued(_info(transport, "socket"))
    return _buffered(transport) + _hidden(transport, queued or 0)


def _buffered(transport: asyncio.Transport) -> int:
    try:
        return transport.get_write_buffer_size()
    except AttributeError:
        # A TLS transport of asyncio's that was closed twice knows nothing any more; it
        # ends by its own time limit.
        return 0


def _info(transport: asyncio.Transport, name: str) -> Any:
    try:
        return transport.get_extra_info(name)
    except AttributeError:
        return None


def _hidden(transport: asyncio.Transport, queued: int) -> int:
    """Return how many bytes may lie between TLS and a socket that has *queued*."""
    full = queued > _TLS_FULL and _info(transport, "sslcontext") is not None
    return _TLS_SLACK if full else 0


def _queued(sock: Any) -> int | None:
    if sock is None or _TIOCOUTQ is None:
        return None
    count = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), _TIOCOUTQ, count)
    except (OSError, ValueError):
        return None
    return count[0]


def _send_buffer(sock: Any) -> int:
    try:
        size: int = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    except (OSError, AttributeError):
        return 1 << 62
    return size


def _tcp_socket(transport: asyncio.Transport) -> Any:
    sock = _info(transport, "socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return sock
