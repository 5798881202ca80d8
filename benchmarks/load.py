"""The clients: many sockets in one process, which count what comes and read nothing.

Law: it must be quicker than any server that it loads. So there are no tasks and no
parser: one ``epoll``, one buffer, and a count of one byte that each event has once. It
tells its own CPU time, by which one sees whether it was.
"""

from __future__ import annotations

__all__ = ("MARK", "Load", "load")

import select
import socket
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

MARK: Final = b"#"
"""What each event has once, and nothing else on the wire has."""

_SECONDS: Final = 60.0
_TOGETHER: Final = 64

_AN_ADDRESS: Final = 20_000
"""Connections from one source address: a port each, of which there are 28,000."""

_ASKERS: Final = 10
"""Connections that ask in turn, so that none waits for another's answer."""

_SEGMENT: Final = 1460
"""Bytes a segment of a client that does not read: those of Ethernet. Loopback's are so
large that the kernel would take megabytes for it."""


class Load:
    """Clients of one stream."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._stalled: list[socket.socket] = []
        self._buffer = bytearray(1 << 18)
        self._marks = 0

    async def connect(
        self, port: int, path: str, count: int, last_event_id: str = ""
    ) -> float:
        """Open *count* connections until each has its headers; return the seconds."""
        request, start = _request(path, last_event_id), time.monotonic()
        left = count
        while left:
            some = min(left, _TOGETHER)
            left -= some
            waiting = {self._open(port, request) for _ in range(some)}
            until = time.monotonic() + _SECONDS
            while waiting:
                waiting.difference_update(self._read(until))
        return time.monotonic() - start

    async def stall(self, port: int, path: str, count: int) -> None:
        """Open *count* connections that read their headers, and never more."""
        for _ in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            sock.sendall(_request(path, ""))
            sock.recv(1)
            self._stalled.append(sock)

    async def storm(
        self, port: int, path: str, count: int, last_event_id: str, events: int
    ) -> float:
        """Open *count* connections at once, and have *events* come; return the time."""
        request, start = _request(path, last_event_id), time.monotonic()
        for _ in range(count):
            self._open(port, request)
        self._until(events)
        return time.monotonic() - start

    async def watch(self, events: int) -> dict[str, Any]:
        """Receive so many *events*; return when they came, and how many then."""
        cpu = time.process_time()
        came = self._until(events)
        return {"cpu": time.process_time() - cpu, "came": came}

    async def ask(
        self, port: int, path: str, count: int, interval: float
    ) -> list[float]:
        """GET *path* each *interval* seconds; return how long each answer took.

        They are the requests of some connections, in turn. The time runs from when one
        was due, not from when it could be sent: one that had to wait for the one before
        it has waited.
        """
        words = port, _request(path, ""), max(1, count // _ASKERS), interval * _ASKERS
        with ThreadPoolExecutor(_ASKERS) as pool:
            askers = [
                pool.submit(_asked, *words, number * interval)
                for number in range(_ASKERS)
            ]
            return [one for asker in askers for one in asker.result()]

    def close(self) -> None:
        """Close all connections."""
        for sock in (*self._socks.values(), *self._stalled):
            sock.close()
        self._poll.close()

    def _until(self, events: int) -> list[tuple[float, int]]:
        came: list[tuple[float, int]] = []
        left = events
        while left:
            self._read(time.monotonic() + _SECONDS)
            if marks := min(self._marks, left):
                came.append((time.monotonic(), marks))
                self._marks -= marks
                left -= marks
        return came

    def _open(self, port: int, request: bytes) -> int:
        # 127.0.0.1, 127.0.0.2 and so on: all of them are this machine.
        others = len(self._socks) // _AN_ADDRESS
        source = (f"127.0.0.{1 + others}", 0) if others else None
        sock = socket.create_connection(("127.0.0.1", port), source_address=source)
        sock.sendall(request)
        sock.setblocking(False)
        number = sock.fileno()
        self._socks[number] = sock
        self._poll.register(number, select.EPOLLIN)
        return number

    def _read(self, until: float) -> set[int]:
        """Read what is there, or wait for it; return who has had anything."""
        ready = self._poll.poll(max(0.0, until - time.monotonic()), 256)
        if not ready:
            raise TimeoutError(f"{self._marks} events have come, and no more")
        buffer, socks, marks = self._buffer, self._socks, 0
        for number, _ in ready:
            size = socks[number].recv_into(buffer)
            if not size:
                raise ConnectionError(f"the server has ended a stream: {buffer[:200]}")
            marks += buffer.count(MARK, 0, size)
        self._marks += marks
        return {number for number, _ in ready}


def _asked(
    port: int, request: bytes, count: int, interval: float, begin: float
) -> list[float]:
    took, late = [], False
    with socket.create_connection(("127.0.0.1", port)) as sock:
        due = time.monotonic() + begin
        for _ in range(count):
            time.sleep(max(0.0, due - time.monotonic()))
            # What this process itself wakes late is nobody's price.
            start = due if late else time.monotonic()
            sock.sendall(request)
            _answer(sock)
            took.append(time.monotonic() - start)
            due += interval
            late = time.monotonic() > due
    return took


def _request(path: str, last_event_id: str) -> bytes:
    brought = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        f"{brought}\r\n"
    ).encode()


def _answer(sock: socket.socket) -> None:
    """Read one answer, which tells its length."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + _length(data):
        more = sock.recv(65536)
        if not more:
            raise ConnectionError(f"the server has closed: {data!r}")
        data += more


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0])


@asynccontextmanager
async def load() -> AsyncIterator[Load]:
    """Have clients; see `benchmarks.worker`."""
    clients = Load()
    try:
        yield clients
    finally:
        clients.close()
