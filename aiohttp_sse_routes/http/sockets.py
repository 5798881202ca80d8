"""What the kernel knows of a TCP connection, and what we ask of it.

Law: every question has an answer on every system: where the kernel cannot say, the
answer is the safe one. Options that are set are put back where the connection is used
again.
"""

from __future__ import annotations

__all__ = ("STALL", "hold", "hold_little", "linger", "unacknowledged", "unsent")

import array
import asyncio
import contextlib
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


def hold_little(transport: asyncio.Transport) -> int:
    """Let the kernel hold few unsent bytes; return what `hold` sets that back with."""
    sock = _info(transport, "socket")
    if sock is None or _NOTSENT_LOWAT is None:
        return -1
    try:
        before: int = sock.getsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT)
        sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _LOWAT)
    except (OSError, AttributeError):  # it is not TCP
        return -1
    return before


def hold(transport: asyncio.Transport, before: int) -> None:
    """Take `hold_little` back, which has returned *before*."""
    if before >= 0:
        _set(transport, _NOTSENT_LOWAT, before)


def linger(transport: asyncio.Transport) -> None:
    """Let the kernel drop the connection if the rest is not taken in time."""
    _set(transport, _USER_TIMEOUT, int(STALL * 1000))


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
    hidden = 0
    if _info(transport, "sslcontext") is not None:
        hidden = _hidden(transport, _queued(_info(transport, "socket")) or 0)
    return _buffered(transport) + hidden


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


def _set(transport: asyncio.Transport, option: int | None, value: int) -> None:
    sock = _info(transport, "socket")
    if sock is None or option is None:
        return
    with contextlib.suppress(OSError, AttributeError):  # it has gone, or is not TCP
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
